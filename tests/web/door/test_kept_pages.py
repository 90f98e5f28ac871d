"""Pages are made once for many, and nothing on them is another one's, or old."""

import re
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from flask import Flask, g, render_template_string, request
from flask.testing import FlaskClient

from tests.web.door.test_door import PAGE, bearer
from web.client import ApiError
from web.door import kept_pages
from web.door.guard import Visit
from web.door.kept_pages import KEPT_S, MOST_PAGES, KeptPages
from web.door.sessions import Session
from web.door.tokens import Tokens
from web.door.upstream import Answer, Upstream, UpstreamGone
from web.roles import Caller, Role

MARK = re.compile(r"(name|csrf)-[0-9a-f]{32}")
WHO = "{{ word }} for {{ actor }} ({{ csrf }}), {{ role }}, {{ request.host_url }}"


class Daemon(Upstream):
    """A daemon that says one word, to whoever may hear it."""

    def __init__(self) -> None:
        super().__init__(Path("/nowhere"))
        self.word = "hello"
        self.status = 200

    def ask(self, caller: Caller, method: str, target: str, *_: Any) -> Answer:
        if self.status == 503:
            raise UpstreamGone("gone")
        said = self.word if self.status < 400 else f"{caller.name} is refused"
        return Answer(self.status, (), f'{{"detail": "{said}"}}'.encode())


class Site:
    """An application of one page, which counts how often it makes that; its clock is set by us."""

    def __init__(self) -> None:
        self.daemon = Daemon()
        self.now = 0.0
        self.made = 0
        self.may_end = threading.Event()
        self.may_end.set()
        self.begun = threading.Event()
        self.all_came = threading.Barrier(1)
        self.kept = KeptPages(self.daemon, lambda: self.now)
        self.app = Flask("site", static_folder=None)
        self.app.testing = True
        self.app.before_request(self._who)
        self.app.context_processor(self._person)
        self.app.add_url_rule("/", "start", self.kept.serving(self._page))
        self.app.add_url_rule("/<name>", "page", self.kept.serving(self._page))
        self.app.register_error_handler(
            UpstreamGone, lambda _: render_template_string(WHO, word="")
        )

    def get(self, path: str = "/", name: str = "ada", role: str = "viewer", **more: Any) -> str:
        headers = {"X-Name": name, "X-Role": role}
        return self.app.test_client().get(path, headers=headers, **more).get_data(as_text=True)

    def _who(self) -> None:
        self.all_came.wait(10)
        caller = Caller(request.headers["X-Name"], Role(request.headers["X-Role"]))
        g.visit = Visit(caller, Session(caller, f"secret of {caller.name}", "", 0.0, 0.0))

    def _person(self) -> dict[str, Any]:
        actor, csrf = self.kept.person()
        return {"actor": actor, "csrf": csrf, "role": str(g.visit.caller.role)}

    def _page(self, name: str = "") -> str:
        self.made += 1
        try:
            word = self.kept.get("/word")["detail"]
        except ApiError as error:
            word = error.message
        self.begun.set()
        assert self.may_end.wait(10)
        return render_template_string(WHO, word=f"{name} {word} {request.query_string!r}")


@pytest.fixture
def site() -> Site:
    return Site()


def test_a_page_is_made_once_for_two_people_and_each_is_shown_their_own(site: Site) -> None:
    ada, bob = site.get(name="ada"), site.get(name="<b>ob")
    assert site.made == 1
    assert "for ada (secret of ada)" in ada
    assert "for &lt;b&gt;ob (secret of &lt;b&gt;ob)" in bob
    assert "ada" not in bob
    assert site.get(name="ada") == ada


def test_each_role_host_path_and_query_has_a_page_of_its_own(site: Site) -> None:
    asked: list[dict[str, Any]] = [
        *({"role": str(role)} for role in Role),
        {"base_url": "http://other.example"},
        {"base_url": "https://localhost"},
        {"path": "/?a=1"},
        {"path": "/x"},
        {"path": "/x?a=1"},
        {"path": "/x%3Fa=1"},
        {"path": "/x%3Fa=1?"},
    ]
    seen = [site.get(**each) for each in asked]
    assert site.made == len(set(seen)) == len(asked) - 1, "the last two are the same"
    assert [site.get(**each) for each in asked] == seen
    assert site.made == len(asked) - 1


def test_what_has_changed_is_shown_at_once(site: Site) -> None:
    site.get()
    site.daemon.word = "goodbye"
    assert "goodbye" in site.get(name="bob")
    assert (site.made, "goodbye" in site.get()) == (2, True)


def test_a_page_is_made_anew_after_a_while(site: Site) -> None:
    site.get()
    site.now = KEPT_S - 0.1
    site.get()
    assert site.made == 1
    site.now = KEPT_S
    site.get()
    assert site.made == 2


def test_what_was_refused_is_not_for_others(site: Site) -> None:
    site.daemon.status = 403
    assert "ada is refused" in site.get(name="ada")
    assert "bob is refused" in site.get(name="bob")
    site.daemon.status = 200
    assert "hello" in site.get(name="ada")
    site.daemon.status = 403
    assert "bob is refused" in site.get(name="bob"), "nor may he see what ada saw"


def test_a_failure_is_told_to_who_asked(site: Site) -> None:
    site.get()
    site.daemon.status = 503
    for name in ("ada", "bob"):
        told = site.get(name=name)
        assert f"for {name} (secret of {name})" in told
        assert not MARK.search(told)


def test_of_many_who_ask_at_once_one_makes_the_page(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kept_pages, "TURN_S", 60.0)
    site.may_end.clear()
    site.all_came = threading.Barrier(8)
    with ThreadPoolExecutor(8) as pool:
        told = [pool.submit(site.get, name=f"number {number}") for number in range(8)]
        assert site.begun.wait(10)
        site.may_end.set()
        assert all(f"for number {n} (" in each.result() for n, each in enumerate(told))
    assert site.made == 1


def test_who_waits_too_long_for_another_makes_the_page(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kept_pages, "TURN_S", 0.01)
    site.may_end.clear()
    with ThreadPoolExecutor(1) as pool:
        slow = pool.submit(site.get)
        assert site.begun.wait(10)
        site.begun.clear()
        threading.Thread(target=lambda: site.begun.wait(10) and site.may_end.set()).start()
        assert "for bob" in site.get(name="bob")
        assert "for ada" in slow.result()
    assert site.made == 2


def test_so_many_are_kept_and_no_more(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(MOST_PAGES):
        site.get(f"/{number}")
    site.get("/0")
    assert site.made == MOST_PAGES
    site.get("/one-more")
    site.get("/0")
    assert site.made == MOST_PAGES + 1, "0 was asked for last"
    site.get("/1")
    assert site.made == MOST_PAGES + 2, "1 had to go"
    monkeypatch.setattr(kept_pages, "MOST_BYTES", 1)
    site.get("/0")
    site.get("/1")
    assert site.made == MOST_PAGES + 3, "of so few bytes only the last one is kept"


# --- the whole door -------------------------------------------------------------------------------


def page(browser: FlaskClient, path: str, text: str) -> str:
    return browser.get(path, headers={**bearer(text), **PAGE}).get_data(as_text=True)


def test_nobody_is_shown_the_buttons_or_the_name_of_another(
    browser: FlaskClient, texts: dict[Role, str], tokens: Tokens
) -> None:
    bob = tokens.create("bob", Role.VIEWER)[1]
    paths = ("/", "/services", "/services/web", "/hosts", "/lab", "/tokens")
    for path in paths:
        for role in (Role.ADMIN, Role.VIEWER, Role.OPERATOR, Role.VIEWER, Role.ADMIN):
            shown = page(browser, path, texts[role])
            assert f"<b>a {role}</b>" in shown
            assert f'name="role" content="{role}"' in shown
            assert ('href="/tokens"' in shown) is (role is Role.ADMIN)
            assert ("this needs the role operator" in shown) <= (role is Role.VIEWER)
            assert not MARK.search(shown)
        other = page(browser, path, bob)
        assert "<b>bob</b>" in other
        assert "<b>a viewer</b>" not in other
    assert "this needs the role operator" in page(browser, "/services", bob)


def test_sessions_of_one_person_have_each_their_own_csrf_token(
    door: Flask, texts: dict[Role, str]
) -> None:
    found = set()
    for _ in range(2):
        browser = door.test_client()
        browser.post("/login", data={"token": texts[Role.ADMIN]})
        shown = browser.get("/services", headers=PAGE).get_data(as_text=True)
        tokens = re.findall(r'(?:name="csrf" (?:content|value))="([^"]*)"', shown)
        assert len(tokens) == 2
        assert len(set(tokens)) == 1
        found |= set(tokens)
        assert browser.post("/logout", data={"csrf": tokens[0]}).location == "/login"
    assert len(found) == 2


def test_who_did_something_sees_it(browser: FlaskClient, texts: dict[Role, str]) -> None:
    operator = bearer(texts[Role.OPERATOR])
    for verb, button in (("wake", 'id="sleep-web"'), ("sleep", 'id="wake-web"')) * 2:
        done = browser.post(
            f"/api/v1/services/web/{verb}", headers={**operator, "Prefer": "wait=30"}
        )
        assert done.status_code == 200
        assert button in page(browser, "/services", texts[Role.OPERATOR])

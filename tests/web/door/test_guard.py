"""What browsers are made to send by pages that are not ours, and paths that lead elsewhere."""

import re
from dataclasses import replace
from http.cookies import SimpleCookie

import pytest
from flask import Flask
from flask.testing import FlaskClient

from tests.web.door.test_door import COOKIE, PAGE, bearer
from web.door.access import Access
from web.door.app import create_door
from web.door.settings import DoorSettings
from web.door.throttle import FREE
from web.door.tokens import Tokens
from web.door.upstream import Upstream
from web.roles import Role

SLEEP = "/api/v1/services/web/sleep"


def log_in(browser: FlaskClient, text: str, **more: str) -> str:
    """Log in; return the session's id."""
    entered = browser.post("/login", data={"token": text, **more})
    assert entered.status_code == 303
    morsel: SimpleCookie = SimpleCookie(entered.headers["Set-Cookie"])
    return next(iter(morsel.values())).value


def csrf(browser: FlaskClient) -> str:
    page = browser.get("/no-such-page", headers=PAGE).get_data(as_text=True)
    found = re.search(r'name="csrf" content="([\w-]+)"', page)
    assert found
    return found[1]


# --- whose request is it ----------------------------------------------------------------------


@pytest.mark.parametrize(
    "host",
    [
        "evil.example",
        "127.0.0.1.evil.example:8480",
        "evil.example:8480",
        "192.0.2.9:8480",
        "localhost.evil.example",
        "localhost@evil.example",
        "",
        "[::1",
        "127.1",
        "2130706433",
        "0177.0.0.1",
    ],
)
def test_a_name_that_was_made_to_lead_here_is_refused(
    browser: FlaskClient, texts: dict[Role, str], host: str
) -> None:
    for path in ("/login", "/api/v1/status", "/static/icon.svg"):
        with browser.get(path, headers={"Host": host, **bearer(texts[Role.ADMIN])}) as answer:
            assert answer.status_code in {400, 421}, (path, host)


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST:8480", "[::1]:8480", "127.0.0.1", "box"])
def test_our_names_are_answered(
    settings: DoorSettings, access: Access, texts: dict[Role, str], host: str
) -> None:
    ours = replace(settings, names=("box",))
    client = create_door(Upstream(ours.socket), access, ours).test_client()
    headers = {"Host": host, **bearer(texts[Role.VIEWER])}
    assert client.get("/api/v1/status", headers=headers).status_code == 200


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 403),
        ({"X-CSRF-Token": "wrong"}, 403),
        ({"X-CSRF-Token": "é"}, 403),
        ({"X-CSRF-Token": "CSRF"}, 202),
        ({"X-CSRF-Token": "CSRF", "Origin": "http://localhost"}, 202),
        ({"X-CSRF-Token": "CSRF", "Sec-Fetch-Site": "same-origin"}, 202),
        ({"X-CSRF-Token": "CSRF", "Origin": "http://evil.example"}, 403),
        ({"X-CSRF-Token": "CSRF", "Origin": "null"}, 403),
        ({"X-CSRF-Token": "CSRF", "Origin": "http://localhost:9999"}, 403),
        ({"X-CSRF-Token": "CSRF", "Sec-Fetch-Site": "cross-site"}, 403),
        ({"X-CSRF-Token": "CSRF", "Sec-Fetch-Site": "same-site"}, 403),
    ],
)
def test_with_a_session_only_our_pages_change_something(
    browser: FlaskClient, texts: dict[Role, str], headers: dict[str, str], status: int
) -> None:
    log_in(browser, texts[Role.OPERATOR])
    right = csrf(browser)
    given = {name: right if value == "CSRF" else value for name, value in headers.items()}
    assert browser.post(SLEEP, headers=given).status_code == status


def test_the_csrf_token_is_no_part_of_an_api_request(
    browser: FlaskClient, texts: dict[Role, str]
) -> None:
    """A form of another site's can send fields, but no header."""
    log_in(browser, texts[Role.OPERATOR])
    assert browser.post(SLEEP, data={"csrf": csrf(browser)}).status_code == 403


def test_another_site_cannot_log_somebody_in(browser: FlaskClient, texts: dict[Role, str]) -> None:
    refused = browser.post(
        "/login", data={"token": texts[Role.VIEWER]}, headers={"Origin": "https://evil.example"}
    )
    assert refused.status_code == 403
    assert "Set-Cookie" not in refused.headers


def test_a_link_from_elsewhere_leads_to_the_page_although_the_cookie_stays_at_home(
    browser: FlaskClient,
) -> None:
    answer = browser.get("/wakes?x=1", headers={**PAGE, "Sec-Fetch-Site": "cross-site"})
    assert answer.status_code == 200
    assert 'content="0;url=/wakes?x=1"' in answer.get_data(as_text=True)


def test_who_asks_cannot_be_said_from_outside(browser: FlaskClient, texts: dict[Role, str]) -> None:
    forged = {"X-Edgewake-Role": "admin", "X-Edgewake-Actor": "local"}
    assert browser.get("/api/v1/status", headers=forged).status_code == 401
    viewer = {**bearer(texts[Role.VIEWER]), **forged}
    assert browser.get("/api/v1/tokens", headers=viewer).status_code == 403


# --- sessions ---------------------------------------------------------------------------------


def test_a_login_has_a_session_of_its_own(browser: FlaskClient, texts: dict[Role, str]) -> None:
    """What somebody planted in the browser before is worth nothing afterwards, nor what it had."""
    browser.set_cookie(COOKIE, "planted", domain="localhost")
    first = log_in(browser, texts[Role.VIEWER])
    second = log_in(browser, texts[Role.ADMIN])
    assert len({"planted", first, second}) == 3
    for old in ("planted", first):
        browser.set_cookie(COOKIE, old, domain="localhost")
        assert browser.get("/api/v1/status").status_code == 401


def test_a_session_ends_with_its_token(
    browser: FlaskClient, tokens: Tokens, texts: dict[Role, str]
) -> None:
    log_in(browser, texts[Role.VIEWER])
    assert browser.get("/api/v1/status").status_code == 200
    token = tokens.find(texts[Role.VIEWER])
    assert token is not None
    tokens.revoke(token.id)
    assert browser.get("/api/v1/status").status_code == 401


def test_over_tls_the_cookie_is_for_tls_and_this_host_only(
    settings: DoorSettings, access: Access, texts: dict[Role, str]
) -> None:
    secure = replace(settings, behind_proxy=True, names=("box",))
    client = create_door(Upstream(secure.socket), access, secure).test_client()
    entered = client.post("/login", data={"token": texts[Role.VIEWER]}, headers={"Host": "box"})
    cookie = entered.headers["Set-Cookie"]
    assert cookie.startswith(f"__Host-{COOKIE}=")
    assert {"Secure", "HttpOnly", "Path=/", "SameSite=Strict"} <= set(cookie.split("; "))
    assert "Domain" not in cookie
    assert entered.headers["Strict-Transport-Security"]


@pytest.mark.parametrize(
    "target",
    [
        "//evil.example",
        "/\\evil.example",
        "https://evil.example",
        "javascript:alert(1)",
        "/\tevil",
        "/x\r\nSet-Cookie: a=b",
        "\\\\evil.example",
        "/%0d%0aX: y" + "\n",
        "",
    ],
)
def test_nobody_is_led_elsewhere_after_a_login(
    browser: FlaskClient, texts: dict[Role, str], target: str
) -> None:
    entered = browser.post("/login", data={"token": texts[Role.VIEWER], "next": target})
    assert entered.location == "/"


def test_who_guesses_has_to_wait_and_everybody_else_does_not(
    browser: FlaskClient, texts: dict[Role, str], noted: list[tuple[str, str, str]]
) -> None:
    statuses = [
        browser.post("/login", data={"token": f"ew_{number}"}).status_code
        for number in range(FREE + 3)
    ]
    assert statuses == [401] * FREE + [429] * 3
    refused = browser.get("/login?once=x")
    assert refused.status_code == 429
    assert int(refused.headers["Retry-After"]) >= 1
    elsewhere = {"REMOTE_ADDR": "192.0.2.77"}
    entered = browser.post("/login", data={"token": texts[Role.ADMIN]}, environ_overrides=elsewhere)
    assert entered.status_code == 303
    assert [kind for kind, _, _ in noted] == ["login-failed"] * FREE + ["login"]
    assert browser.get("/api/v1/status", headers=bearer(texts[Role.VIEWER])).status_code == 200


def test_strangers_who_guess_keep_nobody_out(
    browser: FlaskClient, texts: dict[Role, str], tokens: Tokens
) -> None:
    for number in range(FREE + 1):
        browser.post("/login", data={"token": f"ew_{number}"})
    assert browser.post("/login", data={"token": "ew_x"}).status_code == 429
    once = tokens.once("ann", Role.ADMIN)
    for number in range(FREE + 1):
        browser.post("/login", data={"token": f"ew_{number}"})
    assert browser.get(f"/login?once={once}").status_code == 200
    for number in range(FREE + 1):
        browser.post("/login", data={"token": f"ew_{number}"})
    assert browser.post("/login", data={"token": texts[Role.ADMIN]}).status_code == 303


def test_a_proxy_says_who_guesses_and_only_a_proxy_is_believed(
    settings: DoorSettings, access: Access
) -> None:
    for behind, kinds in ((False, 1), (True, 3)):
        ours = replace(settings, behind_proxy=behind)
        client = create_door(Upstream(ours.socket), access, ours).test_client()
        seen: set[str] = set()
        access.audit.failed = lambda _kind, where, _text, seen=seen: seen.add(where)  # type: ignore[method-assign]
        for address in ("192.0.2.1", "spoofed, 192.0.2.2", "192.0.2.3"):
            client.post("/login", data={"token": "ew_x"}, headers={"X-Forwarded-For": address})
        assert len(seen) == kinds


# --- paths ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "path",
    [
        "/static/../door/tokens.py",
        "/static/..%2fdoor/tokens.py",
        "/static/%2e%2e/door/tokens.py",
        "/static/%252e%252e/door/tokens.py",
        "/static/..%5cdoor",
        "/static//etc/passwd",
        "/static/%00",
        "/static/icon.svg%00.png",
        "/api/v1/../../login",
        "/api/v1/%2e%2e/%2e%2e/secret",
        "/api/v1/services/..%2f..%2ftokens",
        "/api/v1/services/%2e%2e/tokens",
        "/api/v1/services/%252e%252e/tokens",
        "/api/v1//tokens",
        "/api/v1/./tokens",
        "/api/v1/services/%0d%0aX-Edgewake-Role:%20admin/console",
        "/..%c0%af../etc/passwd",
    ],
)
def test_paths_lead_nowhere_else(browser: FlaskClient, texts: dict[Role, str], path: str) -> None:
    with browser.get(path, headers=bearer(texts[Role.ADMIN])) as answer:
        assert answer.status_code in {404, 308}, path
        assert "import" not in answer.get_data(as_text=True)
        if answer.status_code == 308:
            assert answer.location.startswith(("/", "http://localhost/"))


def test_bodies_that_make_no_sense_are_problems(
    door: Flask, browser: FlaskClient, texts: dict[Role, str]
) -> None:
    admin = bearer(texts[Role.ADMIN])
    for body in (b"{", b"[]", b"\xff", b'{"to": ' + b"[" * 2000, b"null", b'{"to": 1e999}'):
        answer = browser.post(SLEEP, data=body, content_type="application/json", headers=admin)
        assert answer.status_code in {400, 422}, body[:20]
        assert answer.mimetype == "application/problem+json"
    large = browser.post(SLEEP, data=b"x" * (5 << 20), headers=admin)
    assert large.status_code == 413
    form = browser.post("/login", data={"token": "x" * (100 << 10)})
    assert form.status_code == 413

"""The pages of services over a small world."""

from enum import StrEnum

import pytest
from flask.testing import FlaskClient

from orchestrator.model import AnswerOrder, Migrate, OnHostLoss, Reply, Restart
from tests.web.pages.reading import HOSTILE, Through, door, look
from tests.world import World
from web.pages import service_view
from web.pages.asking import path


def test_what_sleeps_is_healthy_and_can_be_woken(dashboard: FlaskClient) -> None:
    page = look(dashboard, "/services")
    assert "healthy: a query wakes it" in page.text
    assert page.all("button", id="wake-web", data_path="/services/web/wake")
    assert not page.all("button", id="sleep-web")


def test_what_is_awake_can_be_sent_to_sleep(dashboard: FlaskClient, world: World) -> None:
    (endpoint,) = world.ask("web")
    page = look(dashboard, "/services")
    assert page.all("button", id="sleep-web")
    assert page.all("a", href=f"/hosts/{endpoint.host}")


def test_services_are_chosen_by_text_and_state(dashboard: FlaskClient) -> None:
    assert not look(dashboard, "/services?text=hug").all("tr", data_key="web")
    assert look(dashboard, "/services?text=hug").all("tr", data_key="huge")
    assert look(dashboard, "/services?state=asleep").all("tr", data_key="web")
    assert "No service fits" in look(dashboard, "/services?state=awake").text


def test_no_services_says_what_to_write(dashboard: FlaskClient, upstream: Through) -> None:
    upstream.answers["/status"] = {"lab": "t", "hosts": [], "services": []}
    page = look(dashboard, "/services")
    assert "No services yet" in page.text
    assert "edgewake apply" in page.text


def test_a_service_says_where_and_why_there(dashboard: FlaskClient, world: World) -> None:
    (endpoint,) = world.ask("web")
    elsewhere = {"a", "b"} - {endpoint.host}
    page = look(dashboard, "/services/web")
    assert "is here" in page.text
    (move,) = page.all("button", id=f"move-{elsewhere.pop()}", data_path="/services/web/move")
    assert "disabled" not in move
    assert page.all("button", id=f"move-{endpoint.host}", title="it is here")
    assert page.all("button", id="sleep-saved")
    assert page.all("pre", id="console")


def test_what_no_host_can_run_says_why_not(dashboard: FlaskClient) -> None:
    page = look(dashboard, "/services/other")
    assert page.all("button", id="move-a")[0].keys() >= {"disabled"}
    assert "kernel" in page.text or "image" in page.text


def test_what_only_an_admin_may_is_not_shown_to_others(upstream: Through) -> None:
    assert look(door(upstream), "/services/web").all("button", id="delete")
    for role in ("viewer", "operator"):
        page = look(door(upstream, role=role), "/services/web")
        assert not page.all("button", id="delete")
        assert not page.all("button", id="rollback")
    (wake,) = look(door(upstream, role="viewer"), "/services/web").all("button", id="wake")
    assert "disabled" in wake


def test_what_a_guest_prints_is_text(dashboard: FlaskClient, upstream: Through) -> None:
    printed = f"\x1b[31m{HOSTILE}\x1b]0;title\x07\x1b[0m done"
    upstream.answers["/services/web/console"] = printed
    page = look(dashboard, "/services/web")
    assert f"{HOSTILE} done" in page.text
    assert "\x1b" not in page.html
    response = dashboard.get("/services/web/console")
    assert response.mimetype == "text/plain"
    assert response.get_data(as_text=True) == f"{HOSTILE} done"


def test_hostile_names_are_text_everywhere(dashboard: FlaskClient, upstream: Through) -> None:
    status, details = upstream.get("/status"), upstream.get("/services/web")
    hostile = {
        "name": HOSTILE,
        "names": [HOSTILE],
        "images": [HOSTILE],
        "trouble": HOSTILE,
        "idle": HOSTILE,
    }
    status["services"][0] |= hostile
    details["where"]["decided_by"] = details["where"]["choices"][0]["why_not"] = HOSTILE
    details["where"]["hosts"] = [HOSTILE]
    upstream.answers |= {"/status": status, "/services/web": {**details, **hostile}}
    assert look(dashboard, "/services/web").text.count(HOSTILE) >= 8
    page = look(dashboard, "/services")
    assert page.text.count(HOSTILE) >= 3
    assert page.all("tr", data_key=HOSTILE)


def test_an_unknown_service_is_a_page_that_says_so(dashboard: FlaskClient) -> None:
    assert "nobody: no such service" in look(dashboard, "/services/nobody", 404).text
    assert dashboard.get("/services/nobody/console").status_code == 404


def test_a_service_says_what_was_asked_for_and_what_it_costs(
    dashboard: FlaskClient, world: World
) -> None:
    world.ask("web")
    page = look(dashboard, "/services/web")
    assert "its probe is answered: tcp 80" in page.text
    assert "100 MiB and 0.1 cores of" in page.text
    assert "SHA-256" in page.text
    assert "chosen by" in page.text


@pytest.mark.parametrize(
    ("words", "kinds"),
    [
        (service_view._CRASH, Restart),
        (service_view._LOSS, OnHostLoss),
        (service_view._MOVE, Migrate),
        (service_view._ORDER, AnswerOrder),
        (service_view._REPLY, Reply),
    ],
)
def test_every_policy_has_words(words: dict[str, str], kinds: type[StrEnum]) -> None:
    assert set(words) == set(kinds)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"pin": True}, "never: it is pinned"),
        ({"after_s": None}, "never by itself"),
        (
            {"paused_s": 60},
            "after 30 s without use, then paused for 1 min, then saved for good",
        ),
        ({"saved_s": 0}, "at the deepest cold"),
        ({"keep_warm": ["0 8 * * *"]}, "kept awake at 0 8 * * *"),
    ],
)
def test_when_it_sleeps_is_told_in_words(changes: dict[str, object], said: str) -> None:
    idle = {"after_s": 30, "paused_s": 0, "saved_s": None, "deepest": "cold", "pin": False}
    assert said in service_view._sleeps({**idle, "keep_warm": [], **changes})


def test_how_many_copies_is_told_in_words() -> None:
    scale = {"most": 4, "cpu": 0.7, "packets_s": 100}
    assert service_view._copies({"replicas": 1, "scale": None}) == "1"
    said = service_view._copies({"replicas": 1, "scale": scale})
    assert said == "1 to 4, more above 0.7 of its processors or 100 packets/s each"


def test_paths_of_the_api_hold_any_name() -> None:
    assert path("services", "a/b?c", limit=5, after=None, kind="") == "/services/a%2Fb%3Fc?limit=5"

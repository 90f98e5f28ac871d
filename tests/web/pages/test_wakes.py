"""The pages of wakes over real wakes of a small world."""

import pytest
from flask.testing import FlaskClient

from tests.web.pages.reading import HOSTILE, Through, look
from tests.world import World
from web.pages import wake_view

READY = {
    **wake_view.BLANK,
    "id": 7,
    "service": "web",
    "started_at": 1790000000.0,
    "outcome": "ready",
    "host": "a",
    "instance": "ew-t-web-0",
    "rung": "cold",
    "total_s": 1.0,
    "stamps": [
        ["query", 0.0],
        ["parsed", 0.1],
        ["define", 0.3],
        ["frame", 0.5],
        ["start", 0.6],
        ["answer", 0.9],
        ["reply", 1.0],
        ["client", 1.5],
    ],
}
FAILED = {**wake_view.BLANK, "id": 8, "service": "web", "outcome": "not-ready", "text": HOSTILE}


def test_a_bar_says_whose_time_it_was_until_the_reply() -> None:
    pieces = wake_view.pieces(READY)
    assert [(piece.owner, piece.x, piece.width) for piece in pieces] == [
        ("ours", 0.0, 200.0),
        ("hypervisor", 200.0, 500.0),
        ("guest", 700.0, 300.0),
    ]


def test_a_waterfall_has_each_step_where_it_happened() -> None:
    steps = {step.stage: step for step in wake_view.steps(READY)}
    assert steps["frame"].piece.owner == "hypervisor"  # its call had not returned
    assert (steps["client"].piece.x, steps["client"].piece.width) == (666.67, 333.33)
    assert "query" not in steps


@pytest.mark.parametrize(
    ("changes", "kind"),
    [
        ({}, "cold"),
        ({"rung": ""}, "warm"),
        ({"rung": "paused"}, "paused"),
        ({"outcome": "guest-died"}, "failed"),
        ({"outcome": "waking"}, "waking"),
    ],
)
def test_a_wake_is_of_a_kind(changes: dict[str, str], kind: str) -> None:
    assert wake_view.kind_of({**READY, **changes}) == kind


def test_every_reason_of_a_failure_has_words() -> None:
    assert set(wake_view.REASONS) == {str(each) for each in wake_view.WakeReason}
    assert wake_view.reason("ready") == ""


def test_nothing_woken_yet_says_how_to_wake(dashboard: FlaskClient) -> None:
    page = look(dashboard, "/wakes")
    assert "Nothing has been woken yet" in page.text
    assert "edgewake wake web" in page.text
    assert page.all("div", id="some")[0].keys() >= {"hidden"}


def test_no_services_says_what_to_apply(dashboard: FlaskClient, upstream: Through) -> None:
    upstream.answers["/status"] = {"lab": "t", "hosts": [], "services": []}
    assert "edgewake apply" in look(dashboard, "/wakes").text


def test_wakes_are_listed_and_have_a_page_each(
    dashboard: FlaskClient, world: World, upstream: Through
) -> None:
    world.ask("web")
    assert look(dashboard, "/wakes").all("tr", data_key="web")
    (wake,) = upstream.get("/wakes")["wakes"]
    page = look(dashboard, "/wakes")
    assert page.all("tr", data_wake=str(wake["id"]), data_kind="cold")
    one = look(dashboard, f"/wakes/{wake['id']}")
    assert one.all("tr", data_stage="decided")
    assert one.all("a", href="/services/web")
    assert one.all("a", href=f"/hosts/{wake['host']}")


def test_wakes_are_chosen_by_what_one_looks_for(dashboard: FlaskClient, upstream: Through) -> None:
    upstream.answers["/wakes?limit=1000"] = {"wakes": [READY, FAILED]}
    assert not look(dashboard, "/wakes?outcome=failed").all("tr", data_wake="7")
    assert look(dashboard, "/wakes?host=a").all("tr", data_wake="7")
    assert "No wake fits" in look(dashboard, "/wakes?service=nobody").text


def test_a_failure_is_told_in_words_and_as_text(dashboard: FlaskClient, upstream: Through) -> None:
    hostile = {**FAILED, "service": HOSTILE, "host": HOSTILE, "by": HOSTILE, "decided_by": HOSTILE}
    upstream.answers["/wakes?limit=100"] = {"wakes": [hostile]}
    failure = {"reason": "not-ready", "count": 1, "text": HOSTILE, "service": HOSTILE, "wake": 8}
    upstream.answers["/wakes/summary"] = {**upstream.get("/wakes/summary"), "failures": [failure]}
    upstream.answers["/wakes/8"] = hostile
    assert look(dashboard, "/wakes").text.count(HOSTILE) >= 4
    page = look(dashboard, "/wakes/8")
    assert page.text.count(HOSTILE) >= 5
    assert "readiness probe" in page.text


def test_a_wake_that_never_was_is_a_page_that_says_so(dashboard: FlaskClient) -> None:
    assert "no wake 99" in look(dashboard, "/wakes/99", 404).text


def test_a_wake_under_way_has_no_time_yet(dashboard: FlaskClient, upstream: Through) -> None:
    upstream.answers["/wakes/1"] = {**wake_view.BLANK, "id": 1, "service": "web"}
    assert "only just been asked" in look(dashboard, "/wakes/1").text

"""The network's pages: what there is, what can be done, and what is not there."""

from typing import Any

import pytest
from flask.testing import FlaskClient

from orchestrator.programs.catalogue import PROGRAMS
from tests.web.pages.reading import HOSTILE, Through, door, look
from web.client import ApiError
from web.pages import network_words


def _app(**changes: object) -> dict[str, Any]:
    app = {
        "router": "r1",
        "name": "ping",
        "argv": ["ping", "r2"],
        "rights": ["net_raw"],
        "running": True,
        "pid": 77,
        "started_at": 1_790_000_000.0,
        "exit_code": None,
        "signal": None,
        "cpu_s": 0.5,
        "memory_mib": 3.0,
    }
    return app | changes


@pytest.fixture
def running(upstream: Through) -> dict[str, Any]:
    """Return the world's network as if it ran, which the page is made of."""
    network: dict[str, Any] = upstream.get("/network")
    network |= {"runs": True}
    for link in network["links"]:
        load = {"there_mbps": 90.0, "back_mbps": 1.0, "share": 0.9, "drops_per_s": 0.0}
        link |= {"state": "up", "load": load}
    for router in network["routers"]:
        router |= {"state": "up", "load": {"rx_mbps": 90.0, "tx_mbps": 90.0, "cores": 0.1}}
    network["routers"][0]["apps"] = [_app()]
    upstream.answers["/network"] = network
    return network


def test_a_network_that_is_only_counted_with_says_so(dashboard: FlaskClient) -> None:
    page = look(dashboard, "/network")
    assert "This lab does not run its network" in page.text
    assert "r1 \N{EN DASH} r2" in page.text
    assert not page.all("button", data_action="")
    assert not page.all("form", data_testid="start-app")


def test_a_lab_without_routers_says_how_to_have_some(upstream: Through) -> None:
    upstream.answers["/network"] = upstream.get("/network") | {"routers": [], "links": []}
    page = look(door(upstream), "/network")
    assert "This lab has no network" in page.text
    assert "run: true" in page.text


def test_links_programs_and_what_can_be_done(upstream: Through, running: dict[str, Any]) -> None:
    page = look(door(upstream), "/network")
    (down,) = page.all("button", data_path="/links/r1--r2/down")
    assert down["data-confirm"]
    assert down["data-undo-path"] == "/links/r1--r2/up"
    assert page.all("form", data_path="/links/r1--r2", data_method="PUT")
    assert page.all("button", data_path="/routers/r1/apps/ping/stop")
    assert page.all("button", data_path="/routers/r1/apps/ping", data_method="DELETE")
    assert page.all("a", href="/network/r1/ping")
    assert page.all("form", data_path="/routers/{router}/apps")


def test_a_link_that_is_down_can_be_brought_up(upstream: Through, running: dict[str, Any]) -> None:
    running["links"][0] |= {"up": False, "state": "down"}
    page = look(door(upstream), "/network")
    assert page.all("button", data_path="/links/r1--r2/up")


def test_a_viewer_may_look(upstream: Through, running: dict[str, Any]) -> None:
    page = look(door(upstream, role="viewer"), "/network")
    assert all("disabled" in each for each in page.all("button", data_action=""))
    assert not page.all("form", data_method="PUT")


def test_hostile_names_are_names(upstream: Through, running: dict[str, Any]) -> None:
    running |= {"why": HOSTILE, "differs_from_lab": True, "gone": [HOSTILE]}
    running["links"][0] |= {"name": HOSTILE, "a": HOSTILE, "why": HOSTILE}
    running["routers"][0] |= {"site": HOSTILE, "why": HOSTILE, "machine": HOSTILE}
    ended = _app(name=HOSTILE, argv=[HOSTILE], running=False, exit_code=3)
    running["routers"][0]["apps"] = [ended]
    page = look(door(upstream), "/network")
    assert page.text.count(HOSTILE) > 8
    assert "exit code 3" in page.text


def test_ways_are_shown(upstream: Through) -> None:
    way = {"hops": ["near-a", "r1", HOSTILE], "latency_ms": 50.0}
    ways = {"by": "latency", "cost": 50.0, "paths": [way], "more": True}
    upstream.answers["/paths?from=near-a&to=b"] = ways
    page = look(door(upstream), "/network?from=near-a&to=b")
    assert f"{HOSTILE} 50 ms one way" in page.text


def test_why_there_are_no_ways_is_said(upstream: Through) -> None:
    problem = ApiError(404, {"detail": HOSTILE, "hint": "routers are r1 and r2"})
    upstream.answers["/paths?from=x&to=r1"] = problem
    page = look(door(upstream), "/network?from=x&to=r1")
    assert f"{HOSTILE} routers are r1 and r2" in page.text


def test_what_a_program_printed_is_text(upstream: Through) -> None:
    upstream.answers["/routers/r1/apps/ping"] = _app(argv=[HOSTILE])
    upstream.answers["/routers/r1/apps/ping/console"] = f"{HOSTILE}\n</pre><b>"
    page = look(door(upstream), "/network/r1/ping")
    assert f"{HOSTILE} </pre><b>" in page.text
    assert page.all("pre", id="console")


def test_a_program_that_is_not_there_is_a_page(upstream: Through) -> None:
    upstream.answers["/routers/r1/apps/x"] = ApiError(404, {"detail": "no such program"})
    assert "no such program" in look(door(upstream), "/network/r1/x", 404).text


def test_our_words_are_those_of_the_catalogue() -> None:
    assert list(network_words.PROGRAMS) == list(PROGRAMS)
    for name, (_, known) in network_words.PROGRAMS.items():
        assert known.split(", ") == list(PROGRAMS[name].parameters), name

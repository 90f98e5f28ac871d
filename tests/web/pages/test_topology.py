"""The start page: tables of what the graph shows, figures, and names that nobody should have."""

from dataclasses import asdict

import pytest
from flask.testing import FlaskClient

from tests.web.pages.reading import HOSTILE, Through, door, look
from tests.world import World
from web.pages.topology_figures import figures_of, quantile

NOW = 1_790_000_000.0


def _wake(outcome: str = "ready", total_s: float = 0.1, ago_s: float = 1.0) -> dict[str, object]:
    return {"outcome": outcome, "total_s": total_s, "started_at": NOW - ago_s}


def _status(**changes: object) -> dict[str, object]:
    return {"lab": "t", "hosts": [], "services": []} | changes


def test_everything_is_there_as_tables(dashboard: FlaskClient, world: World) -> None:
    world.ask("web")
    page = look(dashboard, "/")
    for id_ in ("graph", "tables", "figures", "hosts-table", "links-table", "populations-table"):
        assert id_ in page.ids, id_
    assert "web: ready" in page.text
    assert "r1 r2" in page.text
    assert "50 ms" in page.text
    drains = page.all("button", data_path="/hosts/a/drain", data_method="POST")
    assert drains[0]["data-confirm"]
    assert drains[0]["data-undo-method"] == "DELETE"


def test_a_host_that_is_drained_can_be_used_again(dashboard: FlaskClient, world: World) -> None:
    world.control.drain("a")
    page = look(dashboard, "/")
    assert page.all("button", data_path="/hosts/a/drain", data_method="DELETE")


def test_a_viewer_cannot_drain(upstream: Through) -> None:
    page = look(door(upstream, role="viewer"), "/")
    assert all("disabled" in each for each in page.all("button", data_action=""))


def test_a_lab_without_services_says_what_to_do(upstream: Through) -> None:
    upstream.answers["/status"] = _status(hosts=upstream.get("/status")["hosts"])
    page = look(door(upstream), "/")
    assert "No services yet" in page.text
    assert "edgewake apply" in page.text


def test_hostile_names_are_names(upstream: Through) -> None:
    status, graph = upstream.get("/status"), upstream.get("/graph")
    for service in status["services"]:
        service |= {"name": HOSTILE, "names": [HOSTILE], "trouble": HOSTILE}
    for node in graph["nodes"]:
        node |= {"label": HOSTILE, "why": HOSTILE}
    upstream.answers |= {"/status": status, "/graph": graph}
    assert look(door(upstream), "/").text.count(HOSTILE) > 6


def test_figures_count_the_last_hour() -> None:
    wakes = [
        _wake(total_s=0.01),
        _wake(total_s=0.2),
        _wake("no-capacity", 9.0),
        _wake("waking", 0.0),
        _wake(ago_s=3601),
    ]
    amount = {"memory_mib": 100.0}
    host = {"used": amount, "usable": amount, "reachable": False}
    services = [{"state": "awake", "trouble": ""}, {"state": "asleep", "trouble": "x"}]
    hosts = [host | {"power": {"now_w": 20.0}}, host | {"power": None}]
    figures = asdict(figures_of(_status(services=services), hosts, wakes, NOW, 4))
    assert figures == {
        "awake": 1,
        "waking": 0,
        "asleep": 1,
        "troubled": 1,
        "wakes": "4+",
        "failed": 1,
        "p50_s": 0.01,
        "p95_s": 0.2,
        "used_mib": 200.0,
        "usable_mib": 200.0,
        "lost": 2,
        "power_w": 20.0,
    }


@pytest.mark.parametrize(
    ("values", "share", "expected"),
    [([], 0.5, None), ([1.0], 0.95, 1.0), ([1.0, 2.0, 3.0, 4.0], 0.5, 2.0), ([1.0, 2.0], 1, 2.0)],
)
def test_quantiles(values: list[float], share: float, expected: float | None) -> None:
    assert quantile(values, share) == expected

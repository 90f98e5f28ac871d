"""The page of the DNS log."""

from typing import Any

from flask.testing import FlaskClient

from tests.web.pages.reading import HOSTILE, Through, look
from web.pages.dns import chart, dig
from web.pages.drawing import columns

WINDOW = {
    "window_s": 60,
    "total": 4.0,
    "types": {"A": 3.0, "AAAA": 1.0},
    "rcodes": {"NOERROR": 3.0, "": 1.0},
    "outcomes": {"warm": 4.0},
    "services": {"web": 4.0},
    "held": 2,
    "held_ms": {"p50": 100, "p95": 200, "p99": 300},
}


def a_query(**changes: Any) -> dict[str, Any]:
    return {
        "id": 1,
        "at": 1790000000.2,
        "client": "192.0.2.1",
        "port": 4000,
        "name": "web.edge.test",
        "type": "A",
        "transport": "udp",
        "outcome": "warm",
        "rcode": "NOERROR",
        "answers": ["10.9.0.10"],
        "latency_ms": 0.03,
        "service": "web",
        "wake": None,
        "subnet": "",
        "process": 0,
        "of": 1,
    } | changes


def set_up(upstream: Through, *queries: dict[str, Any], log: str = "on") -> None:
    upstream.answers["/queries?limit=1000"] = {"queries": list(queries), "log": log, "next": None}
    upstream.answers["/queries/summary"] = {"log": log, "windows": [WINDOW]}


def test_nobody_asked_yet_says_how_to_ask(dashboard: FlaskClient, upstream: Through) -> None:
    set_up(upstream)
    asked = dig(upstream.get("/status")["dns"])
    assert f"{asked} web.edge.test" in look(dashboard, "/dns").text


def test_dig_is_told_an_address_that_can_be_asked() -> None:
    assert dig("192.0.2.1:53") == "dig @192.0.2.1 -p 53"
    assert dig("0.0.0.0:5390") == "dig @127.0.0.1 -p 5390"
    assert dig(":::5390") == "dig @::1 -p 5390"


def test_queries_are_listed_as_text_and_rates_drawn(
    dashboard: FlaskClient, upstream: Through
) -> None:
    set_up(upstream, a_query(name=HOSTILE, client=HOSTILE, rcode=HOSTILE, wake=3), a_query(of=7))
    page = look(dashboard, "/dns")
    assert page.text.count(HOSTILE) >= 3
    assert page.all("a", href="/wakes/3")
    assert "\N{MULTIPLICATION SIGN}7" in page.text
    assert page.all("div", data_testid="sampled")
    assert "75 %" in page.text
    assert page.all("svg", class_="chart")


def test_the_log_says_if_it_is_off_or_anonymous(dashboard: FlaskClient, upstream: Through) -> None:
    set_up(upstream, log="off")
    assert "only rates are counted" in look(dashboard, "/dns").text
    set_up(upstream, log="anonymous")
    assert "as their networks" in look(dashboard, "/dns").text


def test_queries_are_chosen(dashboard: FlaskClient, upstream: Through) -> None:
    set_up(upstream, a_query(outcome="cold"), a_query(name="other.edge.test"))
    assert "other.edge.test" not in look(dashboard, "/dns?outcome=cold").text.split("Outcome")[-1]
    assert "No query fits" in look(dashboard, "/dns?text=nobody").text


def test_a_chart_counts_what_rows_stand_for() -> None:
    drawn = chart([a_query(), a_query(at=1790000001.0, of=3), a_query(at=1789990000.0)])
    assert [column.value for column in drawn[-2:]] == [1.0, 3.0]
    assert (drawn[-1].y, drawn[-1].height) == (0.0, 100.0)
    assert chart([]) == ()
    assert [column.height for column in columns([0.0, 0.0])] == [0.0, 0.0]

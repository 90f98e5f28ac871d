"""The log of queries as the API tells it: pages, choices, rates, and live."""

from collections.abc import Iterator
from ipaddress import ip_network
from pathlib import Path

import pytest
from flask.testing import FlaskClient

from orchestrator.feeding import QUERIES
from orchestrator.labfile import parse_lab
from orchestrator.queries import (
    EVERYTHING,
    WINDOWS_S,
    Chosen,
    LoggedQuery,
    Mode,
    Outcome,
    QueryRates,
)
from tests.world import World
from web.api.context import Context
from web.app import app_of
from web.client import Client
from web.server import Server

HOSTILE = '<script>alert("\\010")</script>.edge.test'


class Kept:
    """A log of five queries, the fourth of which is odd, that notes what it is asked for."""

    mode: Mode = "anonymous"

    def __init__(self) -> None:
        self.chosen: list[Chosen] = []

    def last(self, limit: int, before: int = 0, chosen: Chosen = EVERYTHING) -> list[LoggedQuery]:
        self.chosen.append(chosen)
        return [a_query(number) for number in range((before or 6) - 1, 0, -1)][:limit]

    def rates(self) -> tuple[QueryRates, ...]:
        first = QueryRates(
            10, 2.5, {"A": 2.5}, {"none": 1.0}, {"cold": 0.1}, {"web": 1.0}, 1, (0.1, 0.2, 0.3)
        )
        return first, *(QueryRates(window, 0.0) for window in WINDOWS_S[1:])


def a_query(number: int) -> LoggedQuery:
    if number == 4:
        return LoggedQuery(
            4, 1.5, "2001:db8::/56", 0, HOSTILE, "TYPE9", "tcp", Outcome.DROPPED, of=9
        )
    return LoggedQuery(
        number, 1.5, "192.0.2.1", 4000, "web.edge.test", "A", "udp", Outcome.COLD, "NOERROR",
        ("10.0.0.5",), 0.0123, "web", 7, "203.0.113.0/24", 99,
    )  # fmt: skip


@pytest.fixture
def kept() -> Kept:
    return Kept()


@pytest.fixture
def http(world: World, kept: Kept) -> FlaskClient:
    return app_of(Context(world.control, parse_lab, queries=kept)).test_client()


def test_queries_come_newest_first_in_pages(http: FlaskClient) -> None:
    first = http.get("/api/v1/queries?limit=2").json
    assert [each["id"] for each in first["queries"]] == [5, 4]
    assert (first["next"], first["log"]) == ("4", "anonymous")
    last = http.get(f"/api/v1/queries?limit=3&after={first['next']}").json
    assert [each["id"] for each in last["queries"]] == [3, 2, 1]
    assert last["next"] is None


def test_a_query_is_told_whole(http: FlaskClient) -> None:
    plain, odd = http.get("/api/v1/queries?limit=2").json["queries"]
    assert plain == {
        "id": 5,
        "at": 1.5,
        "client": "192.0.2.1",
        "port": 4000,
        "family": "ipv4",
        "name": "web.edge.test",
        "type": "A",
        "transport": "udp",
        "outcome": "cold",
        "rcode": "NOERROR",
        "answers": ["10.0.0.5"],
        "latency_ms": 12.3,
        "service": "web",
        "wake": 7,
        "subnet": "203.0.113.0/24",
        "process": 99,
        "sampled": False,
        "of": 1,
    }
    assert (odd["family"], odd["port"], odd["wake"], odd["sampled"], odd["of"]) == (
        *("ipv6", None, None, True, 9),
    )
    assert odd["name"] == HOSTILE, "to escape it for HTML is for who makes HTML"


def test_what_is_chosen_is_passed_on(http: FlaskClient, kept: Kept) -> None:
    http.get("/api/v1/queries?service=web&client=192.0.2.7/24&rcode=nxdomain")
    assert kept.chosen == [Chosen("web", ip_network("192.0.2.0/24"), "NXDOMAIN")]


@pytest.mark.parametrize("asked", ["client=nobody", "after=x", "limit=0", "odd=1"])
def test_what_makes_no_sense_is_refused(http: FlaskClient, asked: str) -> None:
    answer = http.get(f"/api/v1/queries?{asked}")
    assert answer.status_code == 422
    assert answer.json["errors"][0]["field"] == asked.partition("=")[0]


def test_rates_are_told_for_each_window(http: FlaskClient) -> None:
    summary = http.get("/api/v1/queries/summary").json
    assert summary["log"] == "anonymous"
    first, *others = summary["windows"]
    assert first["held_ms"] == {"p50": 100.0, "p95": 200.0, "p99": 300.0}
    assert (first["total"], first["types"], first["held"]) == (2.5, {"A": 2.5}, 1)
    assert [each["held_ms"] for each in others] == [None, None]


@pytest.fixture
def client(world: World, tmp_path: Path) -> Iterator[Client]:
    server = Server(app_of(Context(world.control, parse_lab)), tmp_path / "control.sock")
    server.start()
    yield Client(tmp_path / "control.sock", timeout_s=10.0)
    world.control.feed.close()
    server.stop()


def test_queries_are_told_live_as_a_list(world: World, client: Client) -> None:
    begin = str(world.control.feed.last)
    world.control.feed.publish(QUERIES, [a_query(4), a_query(5)])
    stream = client.stream("/events/stream?topic=queries", begin)
    told = next(stream)
    assert (told.name, [each["id"] for each in told.data]) == ("queries", [4, 5])
    stream.close()


def test_without_a_dns_server_nothing_was_asked(client: Client) -> None:
    assert client.get("/queries") == {"queries": [], "next": None, "log": "off"}
    assert [each["total"] for each in client.get("/queries/summary")["windows"]] == [0, 0, 0]

"""`edgewake queries` and `edgewake events`: of a running edgewake, and as things happen."""

import json
from collections.abc import Iterator
from typing import Any

import pytest

from orchestrator import cli_watch
from web.sse import ServerEvent

QUERY = {
    "id": 3,
    "at": 0.0,
    "client": "192.0.2.7",
    "port": 4000,
    "name": "web.edge.test",
    "type": "A",
    "outcome": "cold",
    "rcode": "NOERROR",
    "answers": ["10.0.0.5"],
    "latency_ms": 41.23,
    "service": "web",
    "wake": 7,
    "subnet": "",
    "sampled": False,
    "of": 1,
}
EVENT = {"at": 0.0, "kind": "woke", "subject": "web", "text": "on a", "data": {}}


class Api:
    """A client whose stream says what it is told to."""

    def __init__(self, messages: list[ServerEvent], listed: dict[str, Any]) -> None:
        self.messages = messages
        self.listed = listed
        self.last_ids: list[str] = []

    def get(self, _path: str) -> dict[str, Any]:
        return self.listed

    def stream(self, _path: str, last_id: str = "") -> Iterator[ServerEvent]:
        self.last_ids.append(last_id)
        yield from self.messages


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({}, "192.0.2.7:4000 A web.edge.test: NOERROR 10.0.0.5 (cold, 41.2 ms, wake 7)"),
        (
            {"client": "2001:db8::1", "wake": None, "subnet": "10.0.0.0/8"},
            "[2001:db8::1]:4000 A web.edge.test: NOERROR 10.0.0.5 (cold, 41.2 ms, for 10.0.0.0/8)",
        ),
        (
            {"client": "2001:db8::/56", "port": None, "rcode": "", "answers": [], "wake": None}
            | {"outcome": "dropped", "sampled": True, "of": 9},
            "2001:db8::/56 A web.edge.test: no reply (dropped, 41.2 ms, one of 9)",
        ),
    ],
    ids=["plain", "subnet", "sampled"],
)
def test_a_query_is_one_line(changes: dict[str, Any], words: str) -> None:
    assert cli_watch.query_line(QUERY | changes).partition(" ")[2] == words


def test_queries_are_followed_from_the_last_ones_on_and_told_once() -> None:
    messages = [
        ServerEvent("gap", {}),
        ServerEvent("queries", [QUERY, QUERY | {"id": 4}, QUERY | {"id": 5, "service": ""}]),
        ServerEvent("queries", [QUERY | {"id": 6, "client": "192.0.3.1"}, QUERY | {"id": 7}]),
    ]
    api: Any = Api(messages, {"queries": [QUERY, QUERY | {"id": 2}]})
    chosen = {"service": "web", "client": "192.0.2.0/24", "rcode": "noerror"}
    found = list(cli_watch._new_queries(api, "/queries", chosen))
    assert [[each["id"] for each in some] for some in found] == [[2, 3], [4], [7]]
    assert api.last_ids == [cli_watch.FROM_THE_START], "so that it begins with a gap"


def test_events_of_a_gap_are_told_once() -> None:
    later = EVENT | {"at": 1.0}
    messages = [
        ServerEvent("gap", {}),
        ServerEvent("event", EVENT),
        ServerEvent("event", later),
        ServerEvent("gap", {}),
    ]
    api: Any = Api(messages, {"events": [EVENT]})
    found = list(cli_watch._new_events(api, "/events"))
    assert found == [[EVENT], [], [later], []]


def test_what_is_followed_is_printed_until_interrupted(capsys: pytest.CaptureFixture[str]) -> None:
    def until_interrupted() -> Iterator[list[dict[str, Any]]]:
        yield [EVENT]
        raise KeyboardInterrupt

    cli_watch._print_each(until_interrupted(), cli_watch.event_line, as_json=False)
    assert capsys.readouterr().out.partition(" ")[2] == "woke: web: on a\n"
    cli_watch._print_each(until_interrupted(), cli_watch.event_line, as_json=True)
    assert json.loads(capsys.readouterr().out) == EVENT

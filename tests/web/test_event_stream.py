"""The stream of events as its readers get it: over HTTP, on the daemon's socket."""

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from flask.testing import FlaskClient

from orchestrator.feeding import Feeder, Look, WakeNews
from orchestrator.labfile import parse_lab
from orchestrator.model import Event
from tests.world import World
from web import event_stream, sse
from web.app import create_app
from web.client import ApiError, Client
from web.server import Server
from web.sse import ServerEvent


@pytest.fixture
def client(world: World, tmp_path: Path) -> Iterator[Client]:
    server = Server(create_app(world.control, load=parse_lab), tmp_path / "control.sock")
    server.start()
    yield Client(tmp_path / "control.sock", timeout_s=10.0)
    world.control.feed.close()
    server.stop()


def an_event(kind: str, text: str = "") -> Event:
    return Event(1.5, kind, "web", text, ())


def test_events_and_wakes_come_as_the_documents_of_the_lists(world: World, client: Client) -> None:
    feed = world.control.feed
    feeder = Feeder(feed, [Look("wake", 0, WakeNews(world.control.wakes))])
    begin = str(feed.last)
    answer = client.post("/services/web/wake", {"client": "192.0.2.1"})
    feeder.look()
    seen: dict[str, list[ServerEvent]] = {"event": [], "wake": []}
    for each in client.stream("/events/stream?topic=event&topic=wake", begin):
        seen[each.name].append(each)
        if seen["wake"] and any(event.data["kind"] == "woke" for event in seen["event"]):
            break
    assert seen["wake"][0].data == answer["wake"]
    listed = client.get("/events")["events"]
    assert all(each.data in listed for each in seen["event"])


def test_a_stream_goes_on_where_its_reader_was(world: World, client: Client) -> None:
    feed = world.control.feed
    begin = str(feed.last)
    for number in range(3):
        feed.publish("event", an_event("noted", f"line {number}\nand: more"))
    stream = client.stream("/events/stream", begin)
    first = next(stream)
    stream.close()
    again = client.stream("/events/stream", first.id)
    assert [next(again).data["text"] for _ in range(2)] == [
        "line 1\nand: more",
        "line 2\nand: more",
    ]
    again.close()


def test_who_was_away_for_too_long_is_told_of_the_gap(world: World, client: Client) -> None:
    stream = client.stream("/events/stream", "1")
    assert next(stream) == ServerEvent("gap", {}, str(world.control.feed.last))
    world.control.feed.publish("status", {})
    assert next(stream).name == "status"
    stream.close()


def test_a_silent_stream_tells_that_it_lives_and_where_it_is(
    world: World, monkeypatch: pytest.MonkeyPatch, http: FlaskClient
) -> None:
    monkeypatch.setattr(event_stream, "KEEP_ALIVE_S", 0.0)
    response = http.get("/api/v1/events/stream?topic=wake", buffered=False)
    parts = iter(response.response)
    here = f": \nid: {world.control.feed.last}\n\n"
    assert next(parts).decode() == "retry: 1000\n" + here
    assert next(parts).decode() == here
    response.close()


def test_streams_end_when_the_feed_does_and_stopping_does_not_wait(
    world: World, client: Client
) -> None:
    ended: list[list[ServerEvent]] = []
    stream = client.stream("/events/stream", "1")
    next(stream)
    reader = threading.Thread(target=lambda: ended.append(list(stream)))
    reader.start()
    world.control.feed.close()
    reader.join(5)
    assert ended == [[]]


def test_there_are_only_so_many_streams(
    world: World, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(event_stream, "MOST_STREAMS", 1)
    http = create_app(world.control, load=parse_lab).test_client()
    first = http.get("/api/v1/events/stream", buffered=False)
    assert first.status_code == 200
    refused = http.get("/api/v1/events/stream")
    assert refused.status_code == 503
    assert "1 event streams are open already" in refused.json["detail"]
    first.close()
    again = http.get("/api/v1/events/stream", buffered=False)
    assert again.status_code == 200
    again.close()


@pytest.mark.parametrize(
    ("path", "last_id", "word"),
    [
        ("/events/stream?topic=odd", "", "topic.0"),
        ("/events/stream", "-1", "Last-Event-ID"),
        ("/events/stream", "1" * 17, "Last-Event-ID"),
    ],
)
def test_what_makes_no_sense_is_refused(client: Client, path: str, last_id: str, word: str) -> None:
    with pytest.raises(ApiError, match=word) as refused:
        next(client.stream(path, last_id))
    assert refused.value.status == 422


def test_the_format_is_read_as_it_is_written() -> None:
    text = "retry: 1000\n" + sse.position(7) + sse.written("wake", {"a": "\n\u2028\r"}, 8)
    assert list(sse.read(text.split("\n"))) == [ServerEvent("wake", {"a": "\n\u2028\r"}, "8")]
    with pytest.raises(ValueError, match="too long"):
        list(sse.read(["x" * (sse.MAX_LINE + 1)]))


def test_who_asks_for_little_is_told_that_the_stream_lives(
    world: World, monkeypatch: pytest.MonkeyPatch, http: FlaskClient
) -> None:
    response = http.get("/api/v1/events/stream?topic=wake", buffered=False)
    parts = iter(response.response)
    next(parts)
    monkeypatch.setattr(event_stream, "KEEP_ALIVE_S", 0.0)
    for _ in range(2):
        world.control.feed.publish("status", {})
        assert next(parts).decode() == f": \nid: {world.control.feed.last}\n\n"
    response.close()

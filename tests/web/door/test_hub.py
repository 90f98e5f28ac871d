"""One stream of the daemon's for many listeners, from a daemon that says what the test wants."""

import queue
import threading
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest

from web.door.hub import Full, Hub
from web.door.upstream import Upstream
from web.server import Server

EVERYTHING: frozenset[str] = frozenset()
END = b""


class Daemon:
    """Streams what it is told to; `asked` are the positions that it was asked from."""

    def __init__(self) -> None:
        self.told: queue.Queue[bytes] = queue.Queue()
        self.asked: queue.Queue[str] = queue.Queue()
        self.streams = 0

    def __call__(self, environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        self.streams += 1
        self.asked.put(environ.get("HTTP_LAST_EVENT_ID", ""))
        start_response("200 OK", [("Content-Type", "text/event-stream")])
        yield b": \nid: 100\n\n" if self.streams == 1 else b": \n\n"
        while text := self.told.get():
            yield text

    def tell(self, number: int, name: str = "event") -> None:
        self.told.put(event(number, name))


def event(number: int, name: str = "event") -> bytes:
    return b"id: %d\nevent: %b\ndata: {}\n\n" % (number, name.encode())


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[Daemon]:
    told = Daemon()
    server = Server(told, tmp_path / "s")
    server.start()
    yield told
    told.told.put(END)
    server.stop()


@pytest.fixture
def hub(daemon: Daemon, tmp_path: Path) -> Iterator[Hub]:
    hub = Hub(Upstream(tmp_path / "s", timeout_s=10.0), most=3)
    yield hub
    hub.close()


def until(stream: Iterator[bytes], text: bytes) -> bytes:
    """Return what a stream says, up to where it says a text."""
    heard = b""
    while text not in heard:
        heard += next(stream)
    return heard


def listen(hub: Hub, after: int | None = None, topics: frozenset[str] = EVERYTHING) -> Any:
    return hub.listen(after, topics, lambda: True)


def test_many_listen_to_one_stream(hub: Hub, daemon: Daemon) -> None:
    listeners = [listen(hub) for _ in range(3)]
    for each in listeners:
        until(each, b"id: 100")
    with pytest.raises(Full):
        listen(hub)
    daemon.tell(101)
    for each in listeners:
        assert event(101) in until(each, b"101")
    assert daemon.streams == 1
    for each in listeners:
        each.close()
        each.close()
    again = listen(hub, 100)
    assert until(again, b"101") == b"retry: 1000\n: \nid: 100\n\n" + event(101)
    again.close()


def test_who_comes_back_is_told_what_was_missed_or_that_there_is_a_gap(
    hub: Hub, daemon: Daemon
) -> None:
    first = listen(hub)
    until(first, b"id: 100")
    for number in (101, 102, 105):
        daemon.tell(number)
    until(first, b"id: 105")
    for after, heard in ((101, event(102) + event(105)), (99, b""), (106, b"")):
        back = listen(hub, after)
        next(back)
        assert next(back) == (heard or event(105, "gap"))
        back.close()
    first.close()


def test_topics_may_be_chosen(hub: Hub, daemon: Daemon) -> None:
    wakes = listen(hub, 100, frozenset({"wake"}))
    daemon.tell(101, "status")
    daemon.tell(102, "wake")
    heard = until(wakes, b"id: 102")
    assert b"status" not in heard
    wakes.close()


def test_a_stream_that_breaks_off_is_taken_up_again(hub: Hub, daemon: Daemon) -> None:
    stream = listen(hub)
    until(stream, b"id: 100")
    daemon.tell(101)
    assert event(101) in until(stream, b"101")
    assert daemon.asked.get(timeout=10) == ""
    daemon.told.put(END)
    assert daemon.asked.get(timeout=10) == "101"
    daemon.tell(102)
    assert event(102) in until(stream, b"102")
    stream.close()


def test_closing_the_hub_ends_all_streams(hub: Hub) -> None:
    stream = listen(hub)
    next(stream)
    ended = threading.Thread(target=lambda: list(stream))
    ended.start()
    hub.close()
    ended.join(10)
    assert not ended.is_alive()
    stream.close()

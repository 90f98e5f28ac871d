<<<<<<< HEAD
"""The door's one stream for many: what its listeners are told, and that it goes on."""

import threading
from collections.abc import Callable, Iterator
from contextlib import closing
=======
"""One stream of the daemon's for many listeners, from a daemon that says what the test wants."""

import queue
import threading
from collections.abc import Iterable, Iterator
>>>>>>> main
from pathlib import Path
from typing import Any

import pytest

<<<<<<< HEAD
from tests.world import World
from web.door import hub as hub_module
from web.door.hub import Hub
from web.door.upstream import Upstream
from web.sse import ServerEvent, read

EVERYTHING: frozenset[str] = frozenset()


@pytest.fixture
def hub(daemon: Path, world: World) -> Iterator[Hub]:
    made = Hub(Upstream(daemon), 4)
    yield made
    made.close()
    world.control.feed.close()


def _always() -> bool:
    return True


def _lines(stream: Iterator[bytes]) -> Iterator[str]:
    for part in stream:
        yield from part.decode().splitlines()


def _told(stream: Iterator[bytes]) -> Iterator[ServerEvent]:
    return read(_lines(stream))


def _until_heard(world: World, stream: Iterator[bytes]) -> None:
    """Read until the hub has the daemon's stream: its first listener is told of a gap."""
    assert next(_told(stream)).name == "gap"


def test_listeners_are_told_what_the_daemon_tells(hub: Hub, world: World) -> None:
    with closing(hub.listen(None, EVERYTHING, _always)) as stream:  # type: ignore[type-var]
        _until_heard(world, stream)
        world.control.feed.publish("status", {})
        assert next(_told(stream)).name == "status"


def test_who_asks_for_little_is_told_that_the_stream_lives(
    hub: Hub, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    with closing(hub.listen(None, frozenset({"wake", "gap"}), _always)) as stream:  # type: ignore[type-var]
        _until_heard(world, stream)
        monkeypatch.setattr(hub_module, "KEEP_ALIVE_S", 0.0)
        world.control.feed.publish("status", {})
        here = f"id: {world.control.feed.last}"
        assert any(line == here for line in _lines(stream))


def test_a_stream_that_breaks_off_oddly_is_read_again(
    hub: Hub, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = threading.Event()
    read_on: Callable[[], Any] = hub._read

    def breaks_once() -> None:
        if not broken.is_set():
            broken.set()
            raise AttributeError("no defect that we know of")
        read_on()

    monkeypatch.setattr(hub, "_read", breaks_once)
    with closing(hub.listen(None, EVERYTHING, _always)) as stream:  # type: ignore[type-var]
        _until_heard(world, stream)
        assert broken.is_set()
=======
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
>>>>>>> main

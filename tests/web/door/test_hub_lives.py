"""The door's stream goes on, and says that it lives, whatever the daemon tells."""

import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from orchestrator.labfile import parse_lab
from tests.world import World
from web.app import create_app
from web.door import hub as hub_module
from web.door.hub import Hub
from web.door.upstream import Upstream
from web.server import Server
from web.sse import ServerEvent, read

EVERYTHING: frozenset[str] = frozenset()


@pytest.fixture
def hub(world: World, tmp_path: Path) -> Iterator[Hub]:
    server = Server(create_app(world.control, load=parse_lab), tmp_path / "control.sock")
    server.start()
    made = Hub(Upstream(tmp_path / "control.sock"), 4)
    yield made
    made.close()
    world.control.feed.close()
    server.stop()


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


def test_who_asks_for_little_is_told_that_the_stream_lives(
    hub: Hub, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    with closing(hub.listen(None, frozenset({"wake", "gap"}), _always)) as stream:  # type: ignore[type-var]
        _until_heard(world, stream)
        monkeypatch.setattr(hub_module, "KEEP_ALIVE_S", 0.0)
        world.control.feed.publish("status", {})
        here = world.control.feed.last  # or further, by a line of the journal
        ids = (int(line[4:]) for line in _lines(stream) if line.startswith("id: "))
        assert next(number for number in ids if number >= here)


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

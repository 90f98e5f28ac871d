"""Consoles read over a connection are closed when no host is in the middle of ending their guest.

The streams are stand-ins: what is held here is when `ConsoleStreams` closes them, not libvirt.
"""

import threading
from pathlib import Path
from typing import Any, cast

import libvirt
import pytest

from orchestrator.hypervisors import libvirt_consoles
from orchestrator.hypervisors.libvirt_consoles import ConsoleStreams
from orchestrator.linux.consoles import ConsoleLogs


class Stream:
    """A console that has said all it will."""

    def __init__(self, blocks: threading.Event | None = None) -> None:
        self.aborted = threading.Event()
        self._blocks = blocks

    def eventAddCallback(self, _events: int, told: Any, opaque: object) -> None:  # noqa: N802
        self.tell = lambda: told(self, 0, opaque)

    def eventRemoveCallback(self) -> None:  # noqa: N802
        pass

    def recv(self, _size: int) -> bytes:
        return b""

    def abort(self) -> None:
        if self._blocks is not None:
            self._blocks.wait()
        self.aborted.set()


class Domain:
    """A guest with a console."""

    def __init__(self, stream: Stream) -> None:
        self._stream = stream

    def connect(self) -> "Domain":
        return self

    def newStream(self, _flags: int) -> Stream:  # noqa: N802
        return self._stream

    def openConsole(self, _name: None, _stream: Stream, _flags: int) -> None:  # noqa: N802
        pass


@pytest.fixture
def streams(tmp_path: Path) -> ConsoleStreams:
    return ConsoleStreams("a", ConsoleLogs(tmp_path))


def begun(streams: ConsoleStreams, stream: Stream) -> Stream:
    streams.begin(cast("libvirt.virDomain", Domain(stream)), "web")
    return stream


def test_it_is_closed_before_its_guest_is_ended(streams: ConsoleStreams) -> None:
    stream = begun(streams, Stream())
    streams.let_go("web")
    assert stream.aborted.is_set()
    streams.let_go("web")
    streams.let_go("other")


def test_one_that_ends_by_itself_rests_before_it_is_closed(
    streams: ConsoleStreams, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 100.0
    monkeypatch.setattr(libvirt_consoles.time, "monotonic", lambda: now)
    stream = begun(streams, Stream())
    stream.tell()
    now += libvirt_consoles.REST_S - 0.1
    streams.keep(())
    assert not stream.aborted.wait(0.05)
    now += 0.2
    streams.keep(())
    assert stream.aborted.wait(5)


def test_nobody_waits_for_a_host_that_does_not_close_one(
    streams: ConsoleStreams, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(libvirt_consoles, "REST_S", 0.0)
    monkeypatch.setattr(libvirt_consoles, "CLOSE_S", 0.01)
    hangs = threading.Event()
    stream = begun(streams, Stream(blocks=hangs))
    stream.tell()
    streams.keep(())
    streams.close()
    assert not stream.aborted.is_set()
    hangs.set()
    assert stream.aborted.wait(5)

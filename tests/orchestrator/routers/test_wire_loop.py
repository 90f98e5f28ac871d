"""The loop between two real devices, run by the test: never early, in order, bounded."""

import os
import socket
import struct
import subprocess
import time
from collections.abc import Callable
from contextlib import ExitStack, suppress
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from orchestrator.linux import namespaces, taps
from orchestrator.network import Quality
from orchestrator.routers import wire_loop
from orchestrator.routers.wire_loop import Loop, Pair

pytestmark = pytest.mark.real

NEAR, FAR = "near0", "far0"
OURS = 0x88B5  # an EtherType for local experiments (IEEE 802)
HEAD = b"\xff" * 6 + b"\x02" * 6 + struct.pack("!H", OURS)
STAMP = struct.Struct("Id")
NO_IPV6 = Path("/proc/sys/net/ipv6/conf/default/disable_ipv6")
SLOW = Quality(latency_ms=30)


@dataclass
class Rig:
    """A wire in a namespace of its own, and a socket at each end."""

    loop: Loop
    pair: Pair
    near: socket.socket
    far: socket.socket

    def send(self, *numbers: int) -> None:
        for number in numbers:
            self.near.send(HEAD + STAMP.pack(number, time.monotonic()) + bytes(40))

    def run(self, seconds: float) -> None:
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            self.loop.send_due()
            assert self.loop.wait(0.002) == []

    def came(self) -> list[tuple[int, float]]:
        """Return numbers, and times when sent, of what has come to the far end."""
        frames = []
        try:
            while True:
                frames.append(self.far.recv(2048))
        except BlockingIOError:
            return [STAMP.unpack_from(frame, len(HEAD)) for frame in frames]

    def settle(self) -> None:
        """Wait until frames pass, and until none is under way: a carrier takes a moment."""
        until = time.monotonic() + 10
        while not self.came():
            assert time.monotonic() < until
            self.send(0)
            self.run(0.05)
        self.run(0.1)
        self.came()


def with_rig(work: Callable[[Rig], None], quality: Quality = SLOW) -> None:
    def inside() -> None:
        with ExitStack() as undo:
            with suppress(FileNotFoundError):  # a kernel without IPv6 says nothing either
                NO_IPV6.write_text("1")
            files = taps.make_passing(NEAR), taps.make_passing(FAR)
            loop = Loop()
            undo.callback(loop.epoll.close)
            pair = loop.add(files, quality, up=True)
            undo.callback(loop.remove, pair)
            ends = []
            for name in (NEAR, FAR):
                subprocess.run(["ip", "link", "set", name, "up"], check=True)
                end = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(OURS))
                ends.append(undo.enter_context(end))
                end.bind((name, OURS))
                end.setblocking(False)
            rig = Rig(loop, pair, ends[0], ends[1])
            rig.settle()
            work(rig)

    namespaces.passing(inside)


def test_no_frame_is_early_and_none_overtakes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also those that come while the loop reads those before them."""
    real = os.read

    def work(rig: Rig) -> None:
        left = list(range(1, 50))

        def read(file: int, most: int) -> bytes:
            frame = real(file, most)
            time.sleep(0.001)
            if left:
                rig.send(left.pop(0))
            return frame

        monkeypatch.setattr(os, "read", read)
        rig.send(0)
        came: list[int] = []
        until = time.monotonic() + 10
        while len(came) < 50 and time.monotonic() < until:
            rig.run(0.001)
            for number, sent in rig.came():
                came.append(number)
                assert time.monotonic() - sent >= 0.030
        monkeypatch.undo()
        assert came == list(range(50))

    with_rig(work)


def test_what_is_held_is_bounded_and_the_rest_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    def work(rig: Rig) -> None:
        way = rig.pair.directions[0]
        before = way.traffic()
        monkeypatch.setattr(wire_loop, "MOST_HELD", 10)
        rig.send(*range(25))
        rig.run(0.3)
        assert [number for number, _ in rig.came()] == list(range(10))
        after = way.traffic()
        assert after.dropped - before.dropped >= 15
        monkeypatch.setattr(wire_loop, "MOST_HELD", 1_000)
        monkeypatch.setattr(wire_loop, "MOST_HELD_BYTES", 500)
        rig.send(*range(25))
        rig.run(0.3)
        kept = len(rig.came())
        assert 0 < kept < 10
        monkeypatch.setattr(wire_loop, "MOST_HELD_BYTES", 10**6)
        rig.send(*range(25))
        rig.run(0.3)
        assert len(rig.came()) == 25, "all that was held was let go"

    with_rig(work)


def test_a_pulled_cable_drops_what_is_under_way_and_forgets_its_time() -> None:
    def work(rig: Rig) -> None:
        slower = replace(SLOW, latency_ms=20_000)
        rig.loop.change(rig.pair, slower, up=True)
        rig.send(*range(5))
        rig.run(0.2)
        assert rig.came() == []
        dropped = rig.pair.directions[0].dropped
        rig.loop.change(rig.pair, slower, up=False)
        assert rig.pair.directions[0].dropped >= dropped + 5
        rig.loop.change(rig.pair, SLOW, up=True)
        rig.settle()
        rig.send(7)
        rig.run(0.3)
        assert [number for number, _ in rig.came()] == [7]

    with_rig(work)


def test_without_latency_frames_leave_when_they_come() -> None:
    def work(rig: Rig) -> None:
        rig.send(*range(20))
        rig.loop.wait(0.1)
        assert [number for number, _ in rig.came()] == list(range(20))

    with_rig(work, Quality())


def test_removed_twice_is_removed() -> None:
    def work(rig: Rig) -> None:
        rig.send(*range(3))
        rig.run(0.01)
        rig.loop.remove(rig.pair)
        rig.loop.remove(rig.pair)
        assert not rig.pair.alive
        rig.run(0.1)
        rig.loop.change(rig.pair, Quality(), up=True)

    with_rig(work)

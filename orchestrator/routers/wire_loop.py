"""The user-space link's inner loop: frames from TAP device to TAP device, each at its time.

For `wire_process`, which says what wires there are. `Wires` in `wires` is what others use. Nothing
here needs any right, only open files. Two directions per wire; what waits is bounded for each and
for all together. Times are those of `time.monotonic`.
"""

import os
import random
import select
import time
from collections import deque
from contextlib import suppress
from heapq import heappop, heappush

from orchestrator.linux import taps
from orchestrator.network import Quality
from orchestrator.routers.wire_messages import Traffic
from orchestrator.routers.wire_schedule import Fate, Schedule

MOST_HELD = 30_000  # frames that one direction may hold: 100 ms at 300,000 packets/s
MOST_HELD_BYTES = 32 * 2**20  # and bytes: 100 ms at 2.6 Gbit/s
MOST_HELD_BYTES_ALL = 256 * 2**20  # all directions together

_MOST_FRAME = taps.HEADER_BYTES + 14 + 4 + 65_535  # Ethernet with a VLAN tag, the largest IP packet
_BATCH = 64  # frames read from a device before others have their turn
_SEGMENTS_MBPS = 200.0  # where 64 KiB take no longer than a bucket's burst, about


class Direction:
    """One way of a wire: what is read from `source` is written to `sink`."""

    __slots__ = (
        "bytes",
        "dropped",
        "frames",
        "held",
        "lost",
        "queued",
        "schedule",
        "sink",
        "source",
        "up",
        "waiting",
    )

    def __init__(self, source: int, sink: int, quality: Quality, *, up: bool) -> None:
        self.source, self.sink, self.up = source, sink, up
        self.schedule = Schedule(quality, random.random)
        self.waiting: deque[tuple[float, bytes]] = deque()
        self.held = 0  # bytes
        self.queued = 0  # the number of its entry in the loop's order of times, 0 for none
        self.frames = self.bytes = self.lost = self.dropped = 0

    def traffic(self) -> Traffic:
        """Return what went this way."""
        return Traffic(self.frames, self.bytes, self.lost, self.dropped)


class Pair:
    """The two directions of a wire, and the files of its ends, which it owns."""

    def __init__(self, files: tuple[int, int], quality: Quality, *, up: bool) -> None:
        a, b = files
        self.files = files
        self.alive = True
        self.directions = (Direction(a, b, quality, up=up), Direction(b, a, quality, up=up))


class Loop:
    """Moves frames of any number of pairs. `send_due` and `wait` in turn, for ever.

    Other files may be registered with `epoll`.
    """

    def __init__(self) -> None:
        self.epoll = select.epoll()
        self._readers: dict[int, tuple[Pair, Direction]] = {}
        self._order: list[tuple[float, int, Direction]] = []
        self._number = 0
        self._held = 0  # bytes, of all

    def add(self, files: tuple[int, int], quality: Quality, *, up: bool) -> Pair:
        """Take on TAP devices by their files, and own these; after an OSError they are not ours."""
        _fit(files, quality, up=up)
        for file in files:
            os.set_blocking(file, False)
        pair = Pair(files, quality, up=up)
        for direction in pair.directions:
            self._readers[direction.source] = pair, direction
            self.epoll.register(direction.source, select.EPOLLIN)
        return pair

    def change(self, pair: Pair, quality: Quality, *, up: bool) -> None:
        """Give a pair another quality; what it holds leaves as before, if the cable stays in."""
        for direction in pair.directions:
            direction.schedule.change(quality)
            direction.up = up
            if not up:
                self._drop_held(direction)
                direction.schedule = Schedule(quality, random.random)
        if pair.alive:
            try:
                _fit(pair.files, quality, up=up)
            except OSError:  # a device is gone, which reading has not yet told
                self.remove(pair)

    def remove(self, pair: Pair) -> None:
        """Let go of a pair: close its files, drop what it holds. May be called twice."""
        if not pair.alive:
            return
        pair.alive = False
        for direction in pair.directions:
            del self._readers[direction.source]
            with suppress(OSError):  # a device that is gone may have left already
                self.epoll.unregister(direction.source)
            self._drop_held(direction)
        for file in pair.files:
            os.close(file)

    def wait(self, most_s: float) -> list[int]:
        """Wait until a frame is due, and read what has come; return other files that have news."""
        wait_s = most_s
        if self._order:
            wait_s = min(most_s, self._order[0][0] - time.monotonic())
        if wait_s > 0:
            # epoll_wait(2) counts in milliseconds, select(2) in microseconds.
            select.select((self.epoll,), (), (), wait_s)
        others = []
        for file, event in self.epoll.poll(0):
            reader = self._readers.get(file)
            if reader is None:
                others.append(file)
            elif event & select.EPOLLERR or not self._read(reader[1]):
                self.remove(reader[0])
        return others

    def send_due(self) -> None:
        """Write each frame whose time has come."""
        order, now = self._order, time.monotonic()
        while order and order[0][0] <= now:
            _, number, direction = heappop(order)
            if number != direction.queued:
                continue  # what it was for has been dropped
            direction.queued = 0
            waiting = direction.waiting
            while waiting and waiting[0][0] <= now:
                frame = waiting.popleft()[1]
                self._held -= len(frame)
                direction.held -= len(frame)
                _write(direction, frame)
            if waiting:
                self._queue(direction)

    def _read(self, direction: Direction) -> bool:
        """Take what has come; False if the device is gone."""
        source, offer, waiting = direction.source, direction.schedule.offer, direction.waiting
        for _ in range(_BATCH):
            try:
                frame = os.read(source, _MOST_FRAME)
            except BlockingIOError:
                break
            except OSError:
                return False
            size = len(frame)
            now = time.monotonic()  # not that of the batch: this one may have come during it
            if not direction.up or not self._has_room(direction, size):
                direction.dropped += 1
                continue
            leaves = offer(now, size - taps.HEADER_BYTES)
            if leaves is Fate.LOST:
                direction.lost += 1
            elif leaves is Fate.DROPPED:
                direction.dropped += 1
            elif leaves <= now and not waiting:
                _write(direction, frame)
            else:
                waiting.append((leaves, frame))
                direction.held += size
                self._held += size
        if waiting and not direction.queued:
            self._queue(direction)
        return True

    def _has_room(self, direction: Direction, size: int) -> bool:
        return (
            len(direction.waiting) < MOST_HELD
            and direction.held + size <= MOST_HELD_BYTES
            and self._held + size <= MOST_HELD_BYTES_ALL
        )

    def _queue(self, direction: Direction) -> None:
        self._number += 1  # so that directions due at one moment need not be compared
        heappush(self._order, (direction.waiting[0][0], self._number, direction))
        direction.queued = self._number

    def _drop_held(self, direction: Direction) -> None:
        direction.dropped += len(direction.waiting)
        self._held -= direction.held
        direction.held = direction.queued = 0
        direction.waiting.clear()


def _fit(files: tuple[int, int], quality: Quality, *, up: bool) -> None:
    """Let whole TCP segments through where that changes nothing, and set the carriers.

    Losing one of 64 KiB would be losing 45 packets at once.
    """
    mbps = quality.bandwidth_mbps
    segments = not quality.loss and (mbps is None or mbps >= _SEGMENTS_MBPS)
    for file in files:
        taps.offload(file, segments=segments)
        taps.set_carrier(file, on=up)


def _write(direction: Direction, frame: bytes) -> None:
    try:
        os.write(direction.sink, frame)
    except OSError:  # it is down (EIO), has no room, or is gone, which reading tells
        direction.dropped += 1
    else:
        direction.frames += 1
        direction.bytes += len(frame) - taps.HEADER_BYTES

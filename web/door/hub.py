"""Live events for many from one stream of the daemon's.

The hub holds one stream while anybody listens, and keeps what came last in a ring. Each listener
reads the ring at its own pace; one that falls behind it, or comes back too late, is told that there
is a gap. So a slow browser costs the others nothing, and the daemon nothing at all.
"""

import threading
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from http.client import HTTPException
from itertools import takewhile
from logging import getLogger
from time import monotonic, sleep

from web.door.room import Room
from web.door.upstream import Upstream, identity
from web.roles import Caller, Role

log = getLogger(__name__)

PATH = "/api/v1/events/stream"
KEPT = 2000  # blocks
LONGEST_LINE = 1 << 20  # bytes
KEEP_ALIVE_S = 15.0
SILENT_S = 40.0  # without a line, when the daemon sends one every 15 s: it is gone
PACE_S = 0.05  # between two chunks for one listener, so that a burst is one chunk
LINGER_S = 10.0  # how long the stream is kept when nobody listens: pages come and go
RETRY_S = (0.2, 0.5, 1.0, 2.0, 5.0)  # after the first, second … failure in a row
CHECK_S = 5.0  # how often a listener is asked for whether it may still listen
RETRY = b"retry: 1000\n"
DOOR = Caller("door", Role.VIEWER)


@dataclass(frozen=True, slots=True)
class Block:
    """One event as text, with its empty line; `number` counts up, with gaps of its own."""

    number: int
    name: str
    text: bytes


class Full(Exception):  # noqa: N818 - reads as a sentence where it is raised
    """As many listen as may, or as this caller may."""


class Hub:
    """One stream for many listeners. Safe to call from threads."""

    def __init__(self, upstream: Upstream, most: int) -> None:
        self._upstream = upstream
        self._room = Room(most)
        self._changed = threading.Condition()
        self._ring: deque[Block] = deque(maxlen=KEPT)
        self._forgot = 0  # the highest number that is not in the ring any more
        self._last = 0
        self._listeners = 0
        self._nobody_since = 0.0
        self._runs = False
        self._closed = False

    def listen(
        self, after: int | None, topics: frozenset[str], may: Callable[[], bool], who: str = ""
    ) -> Iterator[bytes]:
        """Return a stream from a number on (None: from now) for somebody; it must be closed.

        `may` is asked now and then whether this listener may still. Raises `Full`.
        """
        if not self._room.enter(who):
            raise Full
        with self._changed:
            self._listeners += 1
            if not self._runs:
                self._runs = True
                threading.Thread(target=self._follow, name="hub", daemon=True).start()
        return _Stream(self._told(after, topics, may), lambda: self._left(who))

    def close(self) -> None:
        """Let all listeners go."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    # --- listeners ----------------------------------------------------------------------------

    def _told(
        self, after: int | None, topics: frozenset[str], may: Callable[[], bool]
    ) -> Iterator[bytes]:
        with self._changed:
            at = self._last if after is None else after
        checked = said = monotonic()
        yield RETRY + _position(at)
        while not self._closed:
            told, at = self._since(at, topics)
            if not told and monotonic() - said >= KEEP_ALIVE_S:
                told = _position(at)  # much happens, but nothing of what is asked for
            if told:
                yield told
                said = monotonic()
                sleep(PACE_S)
            if monotonic() - checked >= CHECK_S:
                if not may():
                    return
                checked = monotonic()

    def _since(self, at: int, topics: frozenset[str]) -> tuple[bytes, int]:
        """Wait for what comes after a number; return it, and the number it goes to."""
        with self._changed:
            news = self._changed.wait_for(
                lambda: self._closed or (self._last and at != self._last), KEEP_ALIVE_S
            )
            if not news or self._closed:
                return _position(at), at
            last = self._last
            if at > last or (at < self._forgot):
                return _gap(last), last
            # From the end: the ring is long, what is new to a listener mostly short.
            blocks = list(takewhile(lambda each: each.number > at, reversed(self._ring)))
        wanted = [each.text for each in reversed(blocks) if not topics or each.name in topics]
        return b"".join(wanted), last

    def _left(self, who: str) -> None:
        with self._changed:
            self._listeners -= 1
            self._nobody_since = monotonic()
        self._room.leave(who)

    # --- the daemon's stream ------------------------------------------------------------------

    def _follow(self) -> None:
        """Read the daemon's stream, again and again, while anybody listens."""
        failures = 0
        while True:
            before = self._last
            try:
                self._read()
            except (OSError, HTTPException, ValueError) as error:
                log.debug("the stream of events broke off: %s", error)
            except Exception:  # or nobody would be told anything any more
                log.exception("the stream of events made no sense; it is read again")
            failures = failures + 1 if self._last == before else 0
            with self._changed:
                idle_s = monotonic() - self._nobody_since
                if self._closed or (not self._listeners and idle_s >= LINGER_S):
                    self._runs = False
                    return
                self._changed.wait(RETRY_S[min(failures, len(RETRY_S) - 1)])

    def _read(self) -> None:
        connection = self._upstream.connect(SILENT_S)
        headers = {**identity(DOOR), "Accept": "text/event-stream"}
        if self._last:
            headers["Last-Event-ID"] = str(self._last)
        try:
            connection.request("GET", PATH, headers=headers)
            response = connection.getresponse()
            if response.status != 200:
                raise ValueError(f"HTTP status {response.status}")
            lines: list[bytes] = []
            while line := response.readline(LONGEST_LINE):
                lines.append(line)
                if line.strip() == b"":
                    self._publish(lines)
                    lines = []
                    if self._is_idle():
                        return
        finally:
            connection.close()

    def _is_idle(self) -> bool:
        with self._changed:
            if self._closed:
                return True
            return not self._listeners and monotonic() - self._nobody_since >= LINGER_S

    def _publish(self, lines: list[bytes]) -> None:
        fields = dict(_field(line) for line in lines)
        number = int(fields.get(b"id", b"0")) or self._last
        with self._changed:
            if number < self._last:  # another run of the daemon: nothing that we have is of use
                self._ring.clear()
                self._forgot = number
            if b"data" in fields:
                if len(self._ring) == KEPT:
                    self._forgot = self._ring[0].number
                name = fields.get(b"event", b"message").decode()
                self._ring.append(Block(number, name, b"".join(lines)))
            elif not self._last:  # where it begins: of what was before, nothing is known
                self._forgot = number
            self._last = number
            self._changed.notify_all()


class _Stream(Iterator[bytes]):
    """An iterator that says when it is let go, also if it was never begun."""

    def __init__(self, inner: Iterator[bytes], left: Callable[[], None]) -> None:
        self._inner = inner
        self._left: Callable[[], None] | None = left

    def __next__(self) -> bytes:
        return next(self._inner)

    def close(self) -> None:
        """Let go of it. May be called twice."""
        left, self._left = self._left, None
        if left is not None:
            left()


def _field(line: bytes) -> tuple[bytes, bytes]:
    name, _, value = line.rstrip(b"\r\n").partition(b":")
    return name, value.removeprefix(b" ")


def _position(number: int) -> bytes:
    """Return what is no event, but says where the stream is, and that it lives."""
    return b": \nid: %d\n\n" % number


def _gap(number: int) -> bytes:
    return b"id: %d\nevent: gap\ndata: {}\n\n" % number

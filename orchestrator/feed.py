"""What just happened, for whoever watches live: a bounded ring of messages with numbers.

Anybody may publish: the journal its events, `orchestrator.feeding` what it finds out by looking.
Any number of readers wait for what comes after the number that they saw last, each at its own pace;
one that is too slow for the ring is told that there is a gap. Values are our frozen ones; `web`
makes documents of them. To publish takes a microsecond and waits for nobody.
"""

import threading
import time
from collections import deque
from dataclasses import dataclass

KEPT = 5000  # messages; wakes are the largest, about 2 KB each
AT_ONCE = 500  # messages in one answer to a reader
LISTENED_S = 5.0  # how long after its last question a reader counts as one


@dataclass(frozen=True, slots=True)
class Message:
    """One thing that happened; `topic` says what kind of value it is."""

    sequence: int
    topic: str
    value: object


@dataclass(frozen=True, slots=True)
class News:
    """What a reader is told: messages in order, and the number to ask with the next time.

    `gap`: what came between is not known any more, so who keeps a picture must ask for it anew.
    `closed`: nothing will come any more.
    """

    messages: tuple[Message, ...]
    last: int
    gap: bool = False
    closed: bool = False


class Feed:
    """Takes messages and hands them to readers. Safe to use from several threads.

    Numbers begin with the time in milliseconds: those of an earlier run of this process are lower
    than ours, so a reader that comes back with one is told that there is a gap.
    """

    def __init__(self, kept: int = KEPT) -> None:
        self._messages: deque[Message] = deque(maxlen=kept)
        self._last = time.time_ns() // 1_000_000
        self._changed = threading.Condition()
        self._waiting = 0
        self._asked_at = -LISTENED_S
        self._closed = False

    @property
    def last(self) -> int:
        """The number of the last message."""
        return self._last

    @property
    def listened(self) -> bool:
        """Whether anybody reads."""
        return self._waiting > 0 or time.monotonic() < self._asked_at + LISTENED_S

    def publish(self, topic: str, value: object) -> None:
        """Add a message. Never waits; after `close` it does nothing."""
        with self._changed:
            if self._closed:
                return
            self._last += 1
            self._messages.append(Message(self._last, topic, value))
            if self._waiting:
                self._changed.notify_all()

    def since(self, sequence: int, timeout_s: float) -> News:
        """Return what came after a number, at most `AT_ONCE` messages, oldest first.

        Waits up to `timeout_s` seconds for the first of them. A number that was never given here is
        a gap, and so is one whose successors are forgotten.
        """
        with self._changed:
            self._waiting += 1
            try:
                self._changed.wait_for(
                    lambda: self._closed or sequence != self._last, max(0.0, timeout_s)
                )
            finally:
                self._waiting -= 1
                self._asked_at = time.monotonic()
            return self._after(sequence)

    def close(self) -> None:
        """Let all readers go, and take nothing more."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def _after(self, sequence: int) -> News:
        oldest = self._last - len(self._messages) + 1
        if not oldest - 1 <= sequence <= self._last:
            return News((), self._last, gap=True, closed=self._closed)
        new = self._last - sequence
        first = len(self._messages) - new
        messages = tuple(self._messages[at] for at in range(first, first + min(new, AT_ONCE)))
        last = messages[-1].sequence if messages else sequence
        return News(messages, last, closed=self._closed and last == self._last)

"""Some of the packed replies that were given, as the bytes they were, for `dns_boot.log`.

Warm answers take 6 µs; to log each would take a fifth of that. So the doors note a reply only while
there is `room`, which whoever takes the samples makes again. `PackedAnswers.counted` has the exact
numbers, whatever was noted. Further DNS processes have it too, so nothing else is imported.
"""

import time
from collections import deque
from dataclasses import dataclass

ROOM = 50  # samples between two times that they are taken
QUERY_BYTES = 512  # of a sample's query that are kept
REPLY_BYTES = 512  # of its reply; no packed one is longer


@dataclass(frozen=True, slots=True)
class Sample:
    """A query and its reply; `at` is seconds since the epoch, when the reply was sent."""

    at: float
    took_s: float
    packet: bytes
    reply: bytes
    address: str
    port: int
    udp: bool = True


class Samples:
    """Takes samples while there is room. Safe to use from several threads, nearly: a few more."""

    def __init__(self) -> None:
        self.room = 0
        self._kept: deque[Sample] = deque()

    def __len__(self) -> int:
        return len(self._kept)

    def note(
        self,
        packet: bytes,
        reply: bytes,
        address: str,
        port: int,
        since: float,
        *,
        udp: bool = True,
    ) -> None:
        """Keep a reply that was just given to a query which came at a monotonic time."""
        self.room -= 1
        took_s = max(0.0, time.monotonic() - since)
        packet, reply = packet[:QUERY_BYTES], reply[:REPLY_BYTES]
        self._kept.append(Sample(time.time(), took_s, packet, reply, address, port, udp))

    def take(self, room: int) -> list[Sample]:
        """Return what was noted, oldest first, and make room for so many more."""
        taken = [self._kept.popleft() for _ in range(len(self._kept))]
        self.room = room
        return taken

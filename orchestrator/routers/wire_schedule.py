"""What a link does to packets, as arithmetic: given when they come, when each leaves, if it does.

The user-space link asks it for every frame, and the kernel's shapers are given the same bounds, so
that a link behaves alike whichever of them it has. No clock, no device: times are seconds of any
clock that never goes back, sizes are bytes of Ethernet frames.

The model is that of netem with a token bucket behind it (tc-netem(8), tc-tbf(8)): a packet is lost
or not; then it is delayed, evenly spread, never overtaking another; then it waits for tokens.
"""

from collections.abc import Callable
from enum import Enum

from orchestrator.network import Quality

FRAME_BYTES = 1514  # Ethernet's header and 1,500 bytes

_BURST_S = 0.002  # what the bucket holds, in time at full rate
_BURST_FRAMES = 3  # and at least
_QUEUE_S = 0.1  # what may wait for tokens, in time at full rate
_QUEUE_FRAMES = 10  # and at least


class Fate(Enum):
    """Why a packet does not leave."""

    LOST = "lost"  # on purpose
    DROPPED = "dropped"  # the queue for tokens is full


def rate_bytes(bandwidth_mbps: float) -> float:
    """Return a bandwidth in bytes per second."""
    return bandwidth_mbps * 125_000


def burst_bytes(bandwidth_mbps: float) -> int:
    """Return how many bytes may leave at once after a pause."""
    return max(_BURST_FRAMES * FRAME_BYTES, round(rate_bytes(bandwidth_mbps) * _BURST_S))


def queue_bytes(bandwidth_mbps: float) -> int:
    """Return how many bytes may wait for tokens."""
    return max(_QUEUE_FRAMES * FRAME_BYTES, round(rate_bytes(bandwidth_mbps) * _QUEUE_S))


class Schedule:
    """One direction of a link. `chance` returns random numbers, evenly spread from 0 to below 1."""

    def __init__(self, quality: Quality, chance: Callable[[], float]) -> None:
        self._chance = chance
        self._due = 0.0  # when the last packet had been delayed enough
        self._left = 0.0  # when the last packet leaves
        self._full = 0.0  # when the bucket will have all its tokens again
        self.change(quality)

    def change(self, quality: Quality) -> None:
        """Treat packets that come from now on so; those that came leave as they were told."""
        self._loss = quality.loss
        self._latency = quality.latency_ms / 1e3
        self._jitter = quality.jitter_ms / 1e3
        self._byte_s = self._burst_s = self._queue_s = 0.0
        mbps = quality.bandwidth_mbps
        if mbps is not None:
            self._byte_s = 1 / rate_bytes(mbps)
            self._burst_s = burst_bytes(mbps) * self._byte_s
            self._queue_s = queue_bytes(mbps) * self._byte_s

    def offer(self, now: float, size: int) -> float | Fate:
        """Return when a packet that comes now leaves, never before an earlier one; or its fate."""
        if self._loss and self._chance() < self._loss:
            return Fate.LOST
        due = now + self._latency
        if self._jitter:
            due = max(now, due + self._jitter * (2 * self._chance() - 1))
        due = max(due, self._due)
        if not self._byte_s:
            self._due = due
            self._left = max(due, self._left)
            return self._left
        # The bucket has tokens for a packet once it is at most the burst away from being full. A
        # packet larger than the burst leaves a debt.
        spent = max(self._full, due) + size * self._byte_s
        leaves = max(due, spent - max(self._burst_s, size * self._byte_s))
        if leaves > due and leaves - due > self._queue_s:
            return Fate.DROPPED
        self._due, self._full = due, spent
        self._left = max(leaves, self._left)
        return self._left

"""How many copies a service should have by its load. Only decisions and what they need.

Two measures are honest for any TCP or UDP service, and cost nothing to have: the processor time
that guests use, and the packets that they receive. How many requests these are, only the guests
know; how many answers DNS hands out says nothing, since clients keep them.

The rule is that of Kubernetes' HorizontalPodAutoscaler: copies = ceil(copies now x load of a copy /
the load that is meant), left alone within a tolerance of 10 %, and steadied by windows: up to the
least that was wanted throughout a short one, down to the most that was wanted in a long one
(kubernetes.io, "Horizontal Pod Autoscaling", algorithm details and stabilization window).
`orchestrator.scaler` acts on it.
"""

import math
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from orchestrator.model import RunningGuest, Service

TOLERANCE = 0.1
STALE_S = 10.0  # a copy that was not heard of for longer may have any load
QUIET_PACKETS_S, QUIET_LOOKS = 1.0, 60
LEAST_SPAN_S = 0.2  # between two readings; libvirt's clocks tick in 10 ms


@dataclass(frozen=True, slots=True)
class Load:
    """What one copy uses, or all of a service: cores of processor time, packets received (1/s).

    `cpu` is None where nobody can tell. `at` is when that was seen (monotonic).
    """

    cpu: float | None
    packets_s: float
    at: float = 0.0


@dataclass(slots=True)
class LoadMeter:
    """Turns the counters of one guest into its load.

    A counter that shrinks began anew, or could not be read: the next reading is a first one again.
    `quiet` has the cores that were used whenever hardly a packet came, at the last such looks.
    """

    at: float = 0.0
    packets: int = 0
    cpu_s: float | None = None
    primed: bool = False
    load: Load | None = None
    quiet: deque[float] = field(default_factory=lambda: deque(maxlen=QUIET_LOOKS))

    def count(self, guest: RunningGuest, now: float) -> None:
        """Take in a reading of the counters (monotonic time)."""
        span_s = now - self.at
        if self.primed and span_s < LEAST_SPAN_S:
            return
        used_s = None
        if guest.cpu_s is not None and self.cpu_s is not None:
            used_s = guest.cpu_s - self.cpu_s
        received = guest.rx_packets - self.packets
        shrunk = received < 0 or (used_s is not None and used_s < 0)
        if self.primed and not shrunk:
            cpu = None if used_s is None else used_s / span_s
            self.load = Load(cpu, received / span_s, now)
            if cpu is not None and self.load.packets_s < QUIET_PACKETS_S:
                self.quiet.append(cpu)
        self.at, self.packets, self.cpu_s = now, guest.rx_packets, guest.cpu_s
        self.primed = not shrunk


def total(loads: Iterable[Load | None], now: float) -> Load | None:
    """Return the load of all copies of a service; None while that cannot be told.

    A copy that is too young to have any (None) counts for nothing: what it takes over, others still
    have. One that is silent might have any load, and then nothing is decided.
    """
    known = [load for load in loads if load is not None]
    if not known or any(now - load.at > STALE_S for load in known):
        return None
    cores = [load.cpu for load in known if load.cpu is not None]
    cpu = sum(cores) if len(cores) == len(known) else None
    return Load(cpu, sum(load.packets_s for load in known), min(load.at for load in known))


@dataclass(frozen=True, slots=True)
class Opinion:
    """How many copies the load asks for just now, and why."""

    copies: int
    why: str


def opinion(service: Service, load: Load, present: int) -> Opinion:
    """Return how many copies of a service its load asks for; `present` are wanted now.

    Never below `replicas`, never above the `most` of its scale. The measure that asks for most
    counts; one that nobody can tell asks for what there is.
    """
    scale = service.scale
    asked: list[tuple[int, str]] = []
    if scale is not None and scale.cpu is not None:
        if load.cpu is None:
            asked.append((present, "its processor time is not known"))
        else:
            ratio = load.cpu / service.resources.cpu / present
            told = f"cpu {ratio:.0%} of what a copy is promised, {scale.cpu:.0%} is meant"
            asked.append((_copies(ratio / scale.cpu, present), told))
    if scale is not None and scale.packets_s is not None:
        each = load.packets_s / present
        told = f"{each:.0f} packets/s a copy, {scale.packets_s:g}/s are meant"
        asked.append((_copies(each / scale.packets_s, present), told))
    copies, why = max(asked, key=lambda each: each[0], default=(service.replicas, ""))
    return Opinion(max(service.replicas, min(service.most, copies)), why)


def _copies(ratio: float, present: int) -> int:
    if abs(ratio - 1) <= TOLERANCE:
        return present
    return math.ceil(present * ratio - 1e-9)  # the division above is not exact


class _Extreme:
    """The least (or the most) of what was said within a window of time: a monotonic queue."""

    def __init__(self, window_s: float, beats: Callable[[int, int], bool]) -> None:
        self._window_s = window_s
        self._beats = beats
        self._kept: deque[tuple[float, int]] = deque()

    def say(self, value: int, now: float) -> int:
        """Take in a value; return the extreme of those since the window began."""
        while self._kept and not self._beats(self._kept[-1][1], value):
            self._kept.pop()
        self._kept.append((now, value))
        while self._kept[0][0] < now - self._window_s:
            self._kept.popleft()
        return self._kept[0][1]


class Steadied:
    """What is wanted, steadied by the two windows of a scale.

    They begin with what is `present`: nothing changes before it was asked for all along.
    """

    def __init__(self, out_after_s: float, in_after_s: float, *, present: int, now: float) -> None:
        self._least = _Extreme(out_after_s, int.__lt__)
        self._most = _Extreme(in_after_s, int.__gt__)
        self._least.say(present, now)
        self._most.say(present, now)

    def wanted(self, asked: int, present: int, now: float) -> int:
        """Return how many copies are wanted, given those that are asked for and wanted so far."""
        least, most = self._least.say(asked, now), self._most.say(asked, now)
        return min(max(present, least), most)

"""Where the time of each wake went.

A `WakeTrace` is filled in by whoever carries a wake forward (DNS server, control, hypervisor, the
watcher of guests' packets) with named monotonic stamps; a `Wake` is a frozen picture of it. `Wakes`
keeps the last ones in memory for `edgewake trace` and the API, and hands each to exports when it is
over. `STAGES` is the one table of what stages there are, whose time they end, and their words for
people. Nothing here does I/O.
"""

import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from itertools import count, takewhile
from typing import Any


class Owner(StrEnum):
    """Whose time a span is."""

    OURS = "ours"
    HYPERVISOR = "hypervisor"
    GUEST = "guest"
    CLIENT = "client"  # after the reply, so no part of the wake


@dataclass(frozen=True, slots=True)
class Stage:
    """A moment of a wake. The span that ends with it is its owner's time; `words` say it."""

    name: str
    owner: Owner
    words: str


_STAGES = (
    Stage("query", Owner.OURS, "query, or packet, received"),  # by the kernel, where it tells
    Stage("parsed", Owner.OURS, "query understood, wake begun"),
    Stage("taken", Owner.OURS, "a thread took it up"),
    Stage("turn", Owner.HYPERVISOR, "service stopped, moved or booted ahead until then"),
    Stage("cleared", Owner.HYPERVISOR, "what was on its way out ended"),
    Stage("room", Owner.HYPERVISOR, "others gave memory back"),
    Stage("decided", Owner.OURS, "host chosen"),
    Stage("claimed", Owner.OURS, "address, memory and CPU held"),
    Stage("intent", Owner.OURS, "intent stored"),
    Stage("asked", Owner.OURS, "guest described to the hypervisor"),
    Stage("define", Owner.HYPERVISOR, "hypervisor built the guest"),
    Stage("start", Owner.HYPERVISOR, "guest's processor runs"),
    Stage("roused", Owner.HYPERVISOR, "guest's processor runs again"),
    Stage("frame", Owner.GUEST, "guest's first packet"),
    Stage("answer", Owner.GUEST, "guest's first answer"),
    Stage("failed", Owner.HYPERVISOR, "failed there, undone"),
    Stage("silent", Owner.GUEST, "did not answer there, given up"),
    Stage("stored", Owner.OURS, "stored and announced"),
    Stage("reply", Owner.OURS, "reply sent"),  # handed to the kernel
    Stage("client", Owner.CLIENT, "first byte to a client"),
)
STAGES: Mapping[str, Stage] = {stage.name: stage for stage in _STAGES}

SET_GOING = frozenset({"start", "roused"})  # a call returned by which the guest's processor runs
KEPT = 1000  # wakes that can be looked at afterwards
UNTOLD = 10_000  # wakes that wait to be told to exports
SETTLE_S = 3.0  # how long after its end a wake may still get stamps: reply, client's first byte


def owner_of(stage: str) -> Owner:
    """Return whose time ends with a stage; of one that is not in the table, the hypervisor's."""
    known = STAGES.get(stage)
    return known.owner if known else Owner.HYPERVISOR


def words_of(stage: str) -> str:
    """Return what people are told a stage is."""
    known = STAGES.get(stage)
    return known.words if known else stage


@dataclass(frozen=True, slots=True)
class Span:
    """The time between two stamps; `stage` ends it. `at_s` counts from the query.

    `in_call`: the hypervisor's call that sets the guest's processor going had not returned.
    """

    stage: str
    at_s: float
    took_s: float
    in_call: bool = False

    @property
    def owner(self) -> Owner:
        """Whose time it was."""
        return Owner.HYPERVISOR if self.in_call else owner_of(self.stage)


@dataclass(frozen=True, slots=True)
class Wake:
    """One wake. `stamps` are (stage, seconds since the query), in order of time.

    `started_at` is seconds since the epoch. `outcome` is ``waking``, ``ready`` or a `WakeReason`;
    `rung` is where the instance stood, such as ``cold`` (empty: nothing had to be started);
    `decided_by` says who chose the host; `queries` counts the callers that waited for it; `text`
    says more about a failure. `by` is who asked first: ``query``, ``traffic: `` and a client, or
    ``pin``, ``keep-warm`` or ``restart``, when nobody had to.
    """

    id: int
    service: str
    started_at: float
    stamps: tuple[tuple[str, float], ...]
    outcome: str
    instance: str = ""
    host: str = ""
    queries: int = 1
    text: str = ""
    rung: str = ""
    decided_by: str = ""
    by: str = "query"

    @property
    def spans(self) -> tuple[Span, ...]:
        """The time between each stamp and the next, in order; their sum is the last stamp."""
        following = [stage for stage, _ in self.stamps[2:]] + [""]
        triples = zip(self.stamps, self.stamps[1:], following, strict=False)
        return tuple(
            Span(stage, at, at - before, in_call=stage == "frame" and after in SET_GOING)
            for (_, before), (stage, at), after in triples
        )

    @property
    def total_s(self) -> float:
        """Seconds from the query to the last stamp that is not the client's."""
        return max((at for stage, at in self.stamps if stage != "client"), default=0.0)

    @property
    def own_s(self) -> float:
        """Seconds spent in our own code."""
        return self.spent_s(Owner.OURS)

    def spent_s(self, owner: Owner) -> float:
        """Return the seconds that were somebody's time."""
        return sum(span.took_s for span in self.spans if span.owner is owner)


def wake_of(data: Mapping[str, Any]) -> Wake:
    """Return a wake from the JSON that the API gives."""
    return Wake(
        id=data["id"],
        service=data["service"],
        started_at=data["started_at"],
        stamps=tuple((stage, at) for stage, at in data["stamps"]),
        outcome=data["outcome"],
        instance=data["instance"],
        host=data["host"],
        queries=data["queries"],
        text=data["text"],
        rung=data["rung"],
        by=data["by"],
        decided_by=data["decided_by"],
    )


class WakeTrace:
    """Collects the stamps and the outcome of one wake. Safe to use from several threads.

    `asked_at` is the monotonic time of the query, if that was before now; `by` says who asked if it
    was no question. `id` is the wake's number; 0 for what is nobody's wake, such as a further copy.
    """

    def __init__(
        self, service: str, asked_at: float = 0.0, by: str = "query", *, number: int = 0
    ) -> None:
        self.id = number
        self.service = service
        self.by = by
        now = time.monotonic()
        self._zero = min(asked_at, now) if asked_at else now
        self.started_at = time.time() - (now - self._zero)
        self._stamps: list[tuple[str, float]] = [("query", 0.0)]
        if asked_at:
            self._stamps.append(("parsed", now - self._zero))
        self._replied = False
        self.ended_at = 0.0  # monotonic; 0 while it is under way
        self.queries = 1
        self.instance = ""
        self.host = ""
        self.outcome = "waking"
        self.text = ""
        self.rung = ""
        self.decided_by = ""

    @property
    def zero(self) -> float:
        """Monotonic time of the query."""
        return self._zero

    @property
    def progress(self) -> tuple[int, int, float]:
        """What differs from an earlier time if anything was noted since."""
        return len(self._stamps), self.queries, self.ended_at

    def stamp(self, stage: str, at: float = 0.0) -> None:
        """Note that a stage was reached now, or at a monotonic time; never before the query.

        A packet's time is reckoned from the wall clock, which somebody may just have set.
        """
        self._stamps.append((stage, max(0.0, (at or time.monotonic()) - self._zero)))

    def at(self, stage: str) -> float | None:
        """Return the monotonic time at which a stage was last reached; None if it was not."""
        for known, since_s in reversed(self._stamps):
            if known == stage:
                return self._zero + since_s
        return None

    def replied(self) -> None:
        """Note that a reply was handed to the kernel; only the first one of a wake counts."""
        if not self._replied:
            self._replied = True
            self.stamp("reply")

    def ended(self, outcome: str, *, instance: str = "", host: str = "", text: str = "") -> None:
        """Note how the wake went: ``ready`` or a `WakeReason`, where, and any words on it."""
        self.outcome, self.instance, self.host, self.text = outcome, instance, host, text
        self.ended_at = time.monotonic()

    def wake(self, number: int) -> Wake:
        """Return what is known of the wake so far."""
        return Wake(
            id=number,
            service=self.service,
            started_at=self.started_at,
            stamps=tuple(sorted(self._stamps, key=lambda stamp: stamp[1])),
            outcome=self.outcome,
            instance=self.instance,
            host=self.host,
            queries=self.queries,
            text=self.text,
            rung=self.rung,
            by=self.by,
            decided_by=self.decided_by,
        )


@dataclass(slots=True)
class _Untold:
    """Wakes that somebody will ask for with `Wakes.settled`."""

    traces: list[tuple[int, WakeTrace]] = field(default_factory=list)
    missed: int = 0


class Wakes:
    """The last `KEPT` wakes, in progress or over.

    `next_number` numbers them. It is called under our lock: it must be quick.
    """

    def __init__(self, next_number: Callable[[], int] | None = None) -> None:
        self._next = next_number or count(1).__next__
        self._traces: deque[tuple[int, WakeTrace]] = deque(maxlen=KEPT)
        self._untold: _Untold | None = None
        self._lock = threading.Lock()

    def begin(self, service: str, asked_at: float = 0.0, by: str = "query") -> WakeTrace:
        """Start the trace of a wake that was asked for now, or at a monotonic time before."""
        trace = WakeTrace(service, asked_at, by)
        with self._lock:
            trace.id = self._next()
            entry = trace.id, trace
            self._traces.append(entry)
            if self._untold is not None:
                if len(self._untold.traces) < UNTOLD:
                    self._untold.traces.append(entry)
                else:
                    self._untold.missed += 1
        return trace

    def last(self, service: str = "", limit: int = 20, *, before: int = 0) -> tuple[Wake, ...]:
        """Return the last wakes (of one service, if named), oldest first.

        With `before`, those with a lower number only.
        """
        with self._lock:
            traces = list(self._traces)
        chosen = [
            (n, trace)
            for n, trace in traces
            if service in {"", trace.service} and (not before or n < before)
        ]
        return tuple(trace.wake(n) for n, trace in chosen[-limit:])

    def get(self, number: int) -> Wake | None:
        """Return the wake of a number; None if it is not kept, or never was."""
        with self._lock:
            traces = list(self._traces)
        return next((trace.wake(n) for n, trace in traces if n == number), None)

    def after(self, number: int) -> tuple[tuple[int, WakeTrace], ...]:
        """Return the wakes that began after one, with their numbers, oldest first; all after 0."""
        with self._lock:
            new = tuple(takewhile(lambda entry: entry[0] > number, reversed(self._traces)))
        return new[::-1]

    # --- for exports ---

    def collect(self) -> None:
        """Keep every wake that begins from now on until it was told by `settled`."""
        with self._lock:
            self._untold = self._untold or _Untold()

    def settled(self, *, everything: bool = False) -> tuple[Wake, ...]:
        """Return each wake once, when it is over and gets no more stamps; by number.

        With `everything`, all that are over, at once: the process is about to end.
        """
        latest = time.monotonic() - (0.0 if everything else SETTLE_S)
        with self._lock:
            if self._untold is None:
                return ()
            over: list[tuple[int, WakeTrace]] = []
            waiting: list[tuple[int, WakeTrace]] = []
            for entry in self._untold.traces:
                ended_at = entry[1].ended_at
                (over if 0.0 < ended_at <= latest else waiting).append(entry)
            self._untold.traces = waiting
        return tuple(trace.wake(number) for number, trace in over)

    @property
    def missed(self) -> int:
        """How many wakes no export will hear of, because more than `UNTOLD` waited to be told."""
        with self._lock:
            return self._untold.missed if self._untold else 0

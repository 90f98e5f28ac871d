"""Where the time of each wake went.

A `WakeTrace` is filled in by whoever carries a wake forward (control, hypervisor, DNS server) with
named monotonic stamps; a `Wake` is a frozen picture of it. `Wakes` keeps the last ones in memory
for `edgewake trace` and the API. Nothing here does I/O.
"""

import threading
import time
from collections import deque
from dataclasses import dataclass

STAGES = (
    "query",  # the first query was received
    "decided",  # a host was chosen and its resources reserved
    "intent",  # the intent was stored
    "define",  # the hypervisor built the guest
    "start",  # the guest's processor runs
    "roused",  # the processor of a guest that slept runs again
    "answer",  # the guest answered its readiness probe
    "stored",  # the ready instance was stored and announced
    "reply",  # the reply was handed to the kernel
)
OURS = frozenset({"decided", "intent", "stored", "reply"})  # stages that end a span of our own code

KEPT = 1000


@dataclass(frozen=True, slots=True)
class Wake:
    """One wake. `stamps` are (stage, seconds since the query), in order of time.

    `outcome` is ``waking``, ``ready`` or a `WakeReason`; `rung` is where the instance slept;
    `queries` counts the callers that waited for it; `text` says more about a failure. `by` is who
    asked first: ``query``, or ``pin``, ``keep-warm`` or ``restart``, when nobody had to.
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
    rung: str = "cold"
    by: str = "query"

    @property
    def total_s(self) -> float:
        """Seconds from the query to the last stamp."""
        return self.stamps[-1][1] if self.stamps else 0.0

    @property
    def own_s(self) -> float:
        """Seconds spent in our own code: the spans that end in one of `OURS`."""
        own, before = 0.0, 0.0
        for stage, at in self.stamps:
            if stage in OURS:
                own += at - before
            before = at
        return own


class WakeTrace:
    """Collects the stamps and the outcome of one wake. Safe to use from several threads."""

    def __init__(self, service: str, by: str = "query") -> None:
        self.service = service
        self.by = by
        self.started_at = time.time()
        self._zero = time.monotonic()
        self._stamps: list[tuple[str, float]] = [("query", 0.0)]
        self._replied = False
        self.queries = 1
        self.instance = ""
        self.host = ""
        self.rung = "cold"
        self.outcome = "waking"
        self.text = ""

    @property
    def zero(self) -> float:
        """Monotonic time of the query."""
        return self._zero

    def stamp(self, stage: str) -> None:
        """Note that a stage was reached now."""
        self._stamps.append((stage, time.monotonic() - self._zero))

    def replied(self) -> None:
        """Note that a reply was handed to the kernel; only the first one of a wake counts."""
        if not self._replied:
            self._replied = True
            self.stamp("reply")

    def ended(self, outcome: str, *, instance: str = "", host: str = "", text: str = "") -> None:
        """Note how the wake went: ``ready`` or a `WakeReason`, where, and any words on it."""
        self.outcome, self.instance, self.host, self.text = outcome, instance, host, text

    def wake(self, number: int) -> Wake:
        """Return what is known of the wake so far."""
        return Wake(
            id=number,
            service=self.service,
            started_at=self.started_at,
            stamps=tuple(self._stamps),
            outcome=self.outcome,
            instance=self.instance,
            host=self.host,
            queries=self.queries,
            text=self.text,
            rung=self.rung,
            by=self.by,
        )


class Wakes:
    """The last `KEPT` wakes, in progress or over."""

    def __init__(self) -> None:
        self._traces: deque[tuple[int, WakeTrace]] = deque(maxlen=KEPT)
        self._lock = threading.Lock()
        self._next = 1

    def begin(self, service: str, by: str = "query") -> WakeTrace:
        """Start the trace of a wake that was asked for now."""
        trace = WakeTrace(service, by)
        with self._lock:
            self._traces.append((self._next, trace))
            self._next += 1
        return trace

    def last(self, service: str = "", limit: int = 20) -> tuple[Wake, ...]:
        """Return the last wakes (of one service, if named), oldest first."""
        with self._lock:
            traces = list(self._traces)
        chosen = [(n, trace) for n, trace in traces if service in {"", trace.service}]
        return tuple(trace.wake(n) for n, trace in chosen[-limit:])

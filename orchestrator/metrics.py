"""Counts and histograms of wakes since the start, for Prometheus (`web.metrics`).

Labels stay few: stages and owners are a table of ours, outcomes and rungs a handful of words, and
services those of the lab. A histogram has no service in it; counters have.
"""

import threading
from bisect import bisect_left
from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

from orchestrator.trace import Wake

# Upper bounds in seconds. A roused guest takes milliseconds, an emulated one half a minute.
BUCKETS_S = (
    *(0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5),
    *(1.0, 2.5, 5.0, 10.0, 30.0, 60.0),
)

Labels = tuple[tuple[str, str], ...]


@dataclass(slots=True)
class Histogram:
    """How many values were in each bucket of `BUCKETS_S`, and beyond the last; and their sum."""

    counts: list[int] = field(default_factory=lambda: [0] * (len(BUCKETS_S) + 1))
    sum_s: float = 0.0

    def add(self, seconds: float) -> None:
        """Count a value; one that equals a bound is in that bound's bucket."""
        self.counts[bisect_left(BUCKETS_S, seconds)] += 1
        self.sum_s += seconds

    def copy(self) -> "Histogram":
        """Return the same numbers, which do not change any more."""
        return Histogram(list(self.counts), self.sum_s)


@dataclass(frozen=True, slots=True)
class WakeCounts:
    """What was counted of wakes that are over.

    `wakes` is by service, outcome and rung; `queries` by service counts the callers that waited;
    `wake_s` by outcome and rung; `stage_s` by stage and owner.
    """

    wakes: Mapping[Labels, int]
    queries: Mapping[Labels, int]
    wake_s: Mapping[Labels, Histogram]
    stage_s: Mapping[Labels, Histogram]


@dataclass(frozen=True, slots=True)
class DnsCounts:
    """What the DNS server counts: queries that wait for a wake now, and that were dropped ever."""

    held: int = 0
    dropped: int = 0


class WakeMetrics:
    """Counts wakes; an `orchestrator.trace_export.Export`. Safe to use from several threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._wakes: Counter[Labels] = Counter()
        self._queries: Counter[Labels] = Counter()
        self._wake_s: dict[Labels, Histogram] = {}
        self._stage_s: dict[Labels, Histogram] = {}

    def __call__(self, wake: Wake) -> None:
        """Count a wake that is over."""
        service = ("service", wake.service)
        went = ("outcome", str(wake.outcome)), ("rung", wake.rung)
        with self._lock:
            self._wakes[(service, *went)] += 1
            self._queries[(service,)] += wake.queries
            self._wake_s.setdefault(went, Histogram()).add(wake.total_s)
            for span in wake.spans:
                labels = ("stage", span.stage), ("owner", str(span.owner))
                self._stage_s.setdefault(labels, Histogram()).add(span.took_s)

    def counts(self, services: Collection[str]) -> WakeCounts:
        """Return what was counted; services that are not among these are forgotten for good."""
        with self._lock:
            for counter in (self._wakes, self._queries):
                for labels in [each for each in counter if each[0][1] not in services]:
                    del counter[labels]
            return WakeCounts(
                dict(self._wakes),
                dict(self._queries),
                {labels: each.copy() for labels, each in self._wake_s.items()},
                {labels: each.copy() for labels, each in self._stage_s.items()},
            )

"""Counts and histograms of wakes since the start, for Prometheus (`web.metrics`).

Labels stay few: stages and owners are a table of ours, outcomes and rungs a handful of words, and
services and hosts those of the lab; what is known of others is forgotten when it is asked for.
"""

import threading
from bisect import bisect_left
from collections import Counter
from collections.abc import Collection, Mapping, MutableMapping
from dataclasses import dataclass, field
from typing import Any

from orchestrator.trace import Wake

# Upper bounds in seconds. A roused guest takes milliseconds, an emulated one half a minute.
BUCKETS_S = (
    *(0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5),
    *(1.0, 2.5, 5.0, 10.0, 30.0, 60.0),
)

Labels = tuple[tuple[str, str], ...]


@dataclass(slots=True)
class Histogram:
    """How many values were in each bucket up to a bound, and beyond the last; and their sum."""

    bounds: tuple[float, ...] = BUCKETS_S
    counts: list[int] = field(default_factory=list)
    sum_s: float = 0.0

    def __post_init__(self) -> None:
        self.counts = self.counts or [0] * (len(self.bounds) + 1)

    def add(self, seconds: float) -> None:
        """Count a value; one that equals a bound is in that bound's bucket."""
        self.counts[bisect_left(self.bounds, seconds)] += 1
        self.sum_s += seconds

    def copy(self) -> "Histogram":
        """Return the same numbers, which do not change any more."""
        return Histogram(self.bounds, list(self.counts), self.sum_s)


@dataclass(frozen=True, slots=True)
class WakeCounts:
    """What was counted of wakes that are over.

    `wakes` is by service, outcome and rung; `queries` by service counts the callers that waited;
    `wake_s` by outcome and rung; `stage_s` by stage and owner; `service_s` and `host_s`, of those
    that came to be ready, by service and by host.
    """

    wakes: Mapping[Labels, int]
    queries: Mapping[Labels, int]
    wake_s: Mapping[Labels, Histogram]
    stage_s: Mapping[Labels, Histogram]
    service_s: Mapping[Labels, Histogram] = field(default_factory=dict)
    host_s: Mapping[Labels, Histogram] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class DnsCounts:
    """What the DNS server counts: queries that wait for a wake now, and that were dropped ever.

    `queries` are all of them by type, rcode and outcome; `query_s` is how long those took that were
    held or forwarded, by outcome.
    """

    held: int = 0
    dropped: int = 0
    queries: Mapping[Labels, int] = field(default_factory=dict)
    query_s: Mapping[Labels, Histogram] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class WebhookCounts:
    """Deliveries by hook and outcome (delivered, failed, dropped); events that wait, by hook."""

    deliveries: Mapping[Labels, int] = field(default_factory=dict)
    waiting: Mapping[Labels, int] = field(default_factory=dict)


class WakeMetrics:
    """Counts wakes; an `orchestrator.trace_export.Export`. Safe to use from several threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._wakes: Counter[Labels] = Counter()
        self._queries: Counter[Labels] = Counter()
        self._wake_s: dict[Labels, Histogram] = {}
        self._stage_s: dict[Labels, Histogram] = {}
        self._service_s: dict[Labels, Histogram] = {}
        self._host_s: dict[Labels, Histogram] = {}

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
            if wake.outcome == "ready":
                self._service_s.setdefault((service,), Histogram()).add(wake.total_s)
                self._host_s.setdefault((("host", wake.host),), Histogram()).add(wake.total_s)

    def counts(self, services: Collection[str], hosts: Collection[str] = ()) -> WakeCounts:
        """Return what was counted; services and hosts not among these are forgotten for good."""
        with self._lock:
            for counted in (self._wakes, self._queries, self._service_s):
                keep_only(counted, services)
            keep_only(self._host_s, hosts)
            return WakeCounts(
                dict(self._wakes),
                dict(self._queries),
                *(
                    {labels: each.copy() for labels, each in histograms.items()}
                    for histograms in (
                        *(self._wake_s, self._stage_s),
                        *(self._service_s, self._host_s),
                    )
                ),
            )


def keep_only(counted: MutableMapping[Labels, Any], values: Collection[str]) -> None:
    """Forget what is counted for other values of its first label than these."""
    for labels in [each for each in counted if each[0][1] not in values]:
        del counted[labels]

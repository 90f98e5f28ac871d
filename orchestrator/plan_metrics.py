"""How long plans took to make, how many failed, and what the last one was worth; for Prometheus.

Kinds of plans: ``plan`` (everything anew), ``front``, ``warm`` (both because somebody asked), and
``aims`` (what to keep warm, which edgewake asks itself).
"""

import threading
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

from orchestrator.metrics import Histogram, Labels
from placement.problem import Plan

BUCKETS_S = (0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 60.0, 120.0, 300.0)


@dataclass(frozen=True, slots=True)
class LastPlan:
    """What is told of a plan of everything; `at` is seconds since the epoch."""

    at: float
    value: float
    bound: float
    gap: float
    seconds: float


@dataclass(frozen=True, slots=True)
class PlanCounts:
    """What was counted of plans: how many by kind and outcome, what they took by kind; the last."""

    plans: Mapping[Labels, int]
    took_s: Mapping[Labels, Histogram]
    last: LastPlan | None = None


class PlanMetrics:
    """Counts plans. Safe to use from several threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._plans: Counter[Labels] = Counter()
        self._took_s: dict[Labels, Histogram] = {}
        self._last: LastPlan | None = None

    @contextmanager
    def counting(self, kind: str) -> Iterator[None]:
        """Count what is made in this block as a plan; as failed if it raises."""
        began, outcome = time.monotonic(), "failed"
        try:
            yield
            outcome = "made"
        finally:
            took_s = time.monotonic() - began
            with self._lock:
                self._plans[("kind", kind), ("outcome", outcome)] += 1
                histogram = self._took_s.setdefault((("kind", kind),), Histogram(BUCKETS_S))
                histogram.add(took_s)

    def made(self, plan: Plan) -> None:
        """Remember a plan of everything as the last one."""
        self._last = LastPlan(time.time(), plan.value, plan.bound, plan.gap, plan.seconds)

    def counts(self) -> PlanCounts:
        """Return what was counted."""
        with self._lock:
            took_s = {labels: each.copy() for labels, each in self._took_s.items()}
            return PlanCounts(dict(self._plans), took_s, self._last)

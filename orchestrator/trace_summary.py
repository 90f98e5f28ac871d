"""Percentiles of many wakes, per service and stage. Pure; for `edgewake trace --summary`."""

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import groupby

from orchestrator.percentile import percentile
from orchestrator.trace import STAGES, Wake

TOTAL = "total"


@dataclass(frozen=True, slots=True)
class Line:
    """How long the span that ends with a stage took: percentiles over `count` wakes, in seconds.

    `stage` may be `TOTAL`: from the query to the reply, or the last stamp where there was none.
    """

    service: str
    stage: str
    count: int
    p50_s: float
    p95_s: float
    p99_s: float


def summary(wakes: Iterable[Wake]) -> tuple[Line, ...]:
    """Return a line per service and stage of the wakes that came to be ready, in that order."""
    ready = sorted((wake for wake in wakes if wake.outcome == "ready"), key=_service)
    return tuple(
        line for service, some in groupby(ready, key=_service) for line in _lines(service, some)
    )


def _service(wake: Wake) -> str:
    return wake.service


def _lines(service: str, wakes: Iterable[Wake]) -> Iterable[Line]:
    took: dict[str, list[float]] = {stage: [] for stage in STAGES}
    took[TOTAL] = []
    for wake in wakes:
        for span in wake.spans:
            took.setdefault(span.stage, []).append(span.took_s)
        took[TOTAL].append(wake.total_s)
    for stage, seconds in took.items():
        if seconds:
            ordered = sorted(seconds)
            marks = (percentile(ordered, share) for share in (0.5, 0.95, 0.99))
            yield Line(service, stage, len(ordered), *marks)

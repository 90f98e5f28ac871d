"""How wakes went: counts by outcome, how long they took, why some failed. Pure; for dashboards."""

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from orchestrator.percentile import percentile
from orchestrator.trace import Wake

READY, WAKING = "ready", "waking"
WARM = "warm"  # nothing had to be started: a copy came to answer meanwhile


@dataclass(frozen=True, slots=True)
class Went:
    """How some wakes went; `name` is their service or host, empty for all.

    `counts` are of those that came to be ready, by the rung that they began at; percentiles are of
    these, in seconds from the query to the reply, None if there are none. `under_way` are neither.
    """

    name: str
    wakes: int
    counts: tuple[tuple[str, int], ...]
    failed: int
    under_way: int
    p50_s: float | None = None
    p95_s: float | None = None
    p99_s: float | None = None


@dataclass(frozen=True, slots=True)
class Failure:
    """Why wakes failed: a `WakeReason`, how many, and the last one's words and service."""

    reason: str
    count: int
    text: str
    service: str
    wake: int


@dataclass(frozen=True, slots=True)
class WakeSummary:
    """All wakes, by service, by host, and the reasons of failures, the most frequent first."""

    all: Went
    services: tuple[Went, ...]
    hosts: tuple[Went, ...]
    failures: tuple[Failure, ...]


def summed_up(wakes: Iterable[Wake]) -> WakeSummary:
    """Return how wakes went, which are given oldest first."""
    known = tuple(wakes)
    return WakeSummary(
        all=_went("", known),
        services=_by(known, lambda wake: wake.service),
        hosts=_by(known, lambda wake: wake.host),
        failures=_failures(known),
    )


def _by(wakes: Iterable[Wake], key: Callable[[Wake], str]) -> tuple[Went, ...]:
    groups: dict[str, list[Wake]] = {}
    for wake in wakes:
        groups.setdefault(key(wake), []).append(wake)
    return tuple(_went(name, groups[name]) for name in sorted(groups) if name)


def _went(name: str, wakes: Iterable[Wake]) -> Went:
    known = tuple(wakes)
    ready = [wake for wake in known if wake.outcome == READY]
    counts = Counter(wake.rung or WARM for wake in ready)
    under_way = sum(wake.outcome == WAKING for wake in known)
    took = sorted(wake.total_s for wake in ready)
    marks = (percentile(took, share) if took else None for share in (0.5, 0.95, 0.99))
    return Went(
        name,
        len(known),
        tuple(sorted(counts.items())),
        len(known) - len(ready) - under_way,
        under_way,
        *marks,
    )


def _failures(wakes: Iterable[Wake]) -> tuple[Failure, ...]:
    counts: Counter[str] = Counter()
    last: dict[str, Wake] = {}
    for wake in wakes:
        if wake.outcome not in {READY, WAKING}:
            counts[wake.outcome] += 1
            last[wake.outcome] = wake
    return tuple(
        Failure(reason, count, last[reason].text, last[reason].service, last[reason].id)
        for reason, count in counts.most_common()
    )

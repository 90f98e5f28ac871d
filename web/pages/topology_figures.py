"""The key figures of the start page: pure functions of API documents."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import ceil
from typing import Any

Document = Mapping[str, Any]

HOUR_S = 3600.0


@dataclass(frozen=True, slots=True)
class Figures:
    """Services by state; the wakes of the last hour, in seconds; memory in MiB; power in watts.

    `wakes` has a plus if there were more than were asked for. `power_w` is None where no host says
    what it draws.
    """

    awake: int
    waking: int
    asleep: int
    troubled: int
    wakes: str
    failed: int
    p50_s: float | None
    p95_s: float | None
    used_mib: float
    usable_mib: float
    lost: int
    power_w: float | None


def figures_of(
    status: Document, hosts: Sequence[Document], wakes: Sequence[Document], now: float, most: int
) -> Figures:
    """Return the figures at `now` (seconds since the epoch), of `most` wakes at most."""
    states = Counter(service["state"] for service in status["services"])
    recent = [wake for wake in wakes if wake["started_at"] >= now - HOUR_S]
    took = sorted(wake["total_s"] for wake in recent if wake["outcome"] == "ready")
    drawn = [host["power"]["now_w"] or 0.0 for host in hosts if host["power"]]
    return Figures(
        awake=states["awake"],
        waking=states["waking"],
        asleep=states["asleep"],
        troubled=sum(bool(service["trouble"]) for service in status["services"]),
        wakes=f"{len(recent)}{'+' * (len(recent) == most)}",
        failed=sum(_failed(wake) for wake in recent),
        p50_s=quantile(took, 0.5),
        p95_s=quantile(took, 0.95),
        used_mib=sum(host["used"]["memory_mib"] for host in hosts),
        usable_mib=sum(host["usable"]["memory_mib"] for host in hosts),
        lost=sum(not host["reachable"] for host in hosts),
        power_w=sum(drawn) if drawn else None,
    )


def quantile(ordered: Sequence[float], share: float) -> float | None:
    """Return the smallest value that a share of all do not exceed; None of nothing."""
    return ordered[ceil(share * len(ordered)) - 1] if ordered else None


def _failed(wake: Document) -> bool:
    return wake["outcome"] not in {"ready", "waking"}

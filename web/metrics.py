"""What Prometheus is told: every family, from one `orchestrator.readings.Reading`.

For `GET /metrics` of the API. `web.families` writes it; docs/metrics.md lists it, and a test keeps
that list exact.
"""

from collections.abc import Callable, Iterator

from orchestrator.metrics import DnsCounts, WakeCounts
from orchestrator.readings import Reading
from web import lab_metrics, network_metrics, own_metrics
from web.families import (
    OPENMETRICS,
    PLAIN,
    Family,
    counter,
    histogram,
    openmetrics,
    single,
    text,
)

Told = Callable[[str], tuple[str, str]]
"""Returns the text of all metrics and its type, for the header ``Accept`` of a request."""


def told_nothing(_accept: str) -> tuple[str, str]:
    """Stand for an edgewake that counts nothing."""
    return "", PLAIN


def exposition(reading: Reading, accept: str = "") -> tuple[str, str]:
    """Return everything as text, and its type: OpenMetrics for who accepts that, as Prometheus."""
    if OPENMETRICS.partition(";")[0] in accept:
        return openmetrics(families(reading)), OPENMETRICS
    return text(families(reading)), PLAIN


def families(reading: Reading) -> Iterator[Family]:
    """Yield every family, in the order in which people look for them."""
    yield from _wakes(reading.wakes, reading.untold_wakes)
    yield from _dns(reading.dns)
    yield from lab_metrics.families(reading.status)
    yield from network_metrics.families(reading.networks)
    yield from own_metrics.families(reading)


def _wakes(counts: WakeCounts, untold: int) -> Iterator[Family]:
    yield counter(
        "edgewake_wakes_total",
        "Wakes that are over, by how they went and the rung the instance stood on.",
        counts.wakes,
    )
    yield counter(
        "edgewake_wake_queries_total", "Queries that waited for these wakes.", counts.queries
    )
    yield histogram(
        "edgewake_wake_seconds", "Time from the query to the reply of a wake.", counts.wake_s
    )
    yield histogram(
        "edgewake_wake_stage_seconds",
        "Time that ended with a stage of a wake, and whose time it was.",
        counts.stage_s,
    )
    yield histogram(
        "edgewake_service_wake_seconds",
        "Time from the query to the reply of wakes that went well, by service.",
        counts.service_s,
    )
    yield histogram(
        "edgewake_host_wake_seconds",
        "Time from the query to the reply of wakes that went well, by host.",
        counts.host_s,
    )
    yield single(
        "edgewake_wakes_uncounted_total",
        "counter",
        "Wakes that are in no other number, because too many were over at once.",
        untold,
    )


def _dns(counts: DnsCounts) -> Iterator[Family]:
    yield single(
        "edgewake_dns_held_queries", "gauge", "Queries that wait for a wake now.", counts.held
    )
    yield single(
        "edgewake_dns_dropped_queries_total",
        "counter",
        "Queries dropped because too many waited.",
        counts.dropped,
    )
    yield counter(
        "edgewake_dns_queries_total",
        "Queries, by type, rcode of the reply (none: no reply) and what became of them.",
        counts.queries,
    )
    yield histogram(
        "edgewake_dns_query_seconds",
        "Time from a query to its reply, of those that waited for a wake or another resolver.",
        counts.query_s,
    )

"""What Prometheus reads: counters, gauges and histograms in its text format, version 0.0.4.

For `GET /metrics` of `web.api`. `web.families` writes it; a test has Prometheus's library read it.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import accumulate

from orchestrator.metrics import BUCKETS_S, DnsCounts, Histogram, Labels, WakeCounts
from orchestrator.network_monitor import Sample as NetworkSample
from orchestrator.views import HostStatus, Status
from web import network_metrics
from web.families import Family, Sample, number, text

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
MIB = 1 << 20
STATES = ("asleep", "waking", "awake", "stopping")


def exposition(
    status: Status, wakes: WakeCounts, dns: DnsCounts, networks: Sequence[NetworkSample] = ()
) -> str:
    """Return everything as text."""
    of_networks = network_metrics.families(networks)
    return text((*_wakes(wakes), *_dns(dns), *_lab(status), *of_networks))


def _wakes(counts: WakeCounts) -> Iterator[Family]:
    yield Family(
        "edgewake_wakes_total",
        "counter",
        "Wakes that are over, by how they went and the rung the instance stood on.",
        _plain(counts.wakes),
    )
    yield Family(
        "edgewake_wake_queries_total",
        "counter",
        "Queries that waited for these wakes.",
        _plain(counts.queries),
    )
    yield Family(
        "edgewake_wake_seconds",
        "histogram",
        "Time from the query to the reply of a wake.",
        _histograms(counts.wake_s),
    )
    yield Family(
        "edgewake_wake_stage_seconds",
        "histogram",
        "Time that ended with a stage of a wake, and whose time it was.",
        _histograms(counts.stage_s),
    )


def _dns(counts: DnsCounts) -> Iterator[Family]:
    yield Family(
        "edgewake_dns_held_queries",
        "gauge",
        "Queries that wait for a wake now.",
        (("", (), counts.held),),
    )
    yield Family(
        "edgewake_dns_dropped_queries_total",
        "counter",
        "Queries dropped because too many waited.",
        (("", (), counts.dropped),),
    )


def _lab(status: Status) -> Iterator[Family]:
    states = Counter(service.state for service in status.services)
    yield Family(
        "edgewake_services",
        "gauge",
        "Services of the lab by state; asleep is healthy.",
        tuple(("", (("state", state),), states[state]) for state in (*STATES, *_new(states))),
    )
    yield Family(
        "edgewake_host_reachable",
        "gauge",
        "Whether the host answers.",
        tuple(("", (("host", each.host.name),), float(not each.lost)) for each in status.hosts),
    )
    yield Family(
        "edgewake_host_memory_bytes",
        "gauge",
        "Memory of a host: usable by guests, spoken for by ours, and free by its own word.",
        tuple(sample for each in status.hosts for sample in _memory(each)),
    )


def _new(states: Iterable[str]) -> list[str]:
    return sorted(set(states) - set(STATES))


def _memory(host: HostStatus) -> Iterator[Sample]:
    amounts = {"usable": host.host.usable, "used": host.used, "free": host.free}
    for kind, amount in amounts.items():
        if amount is not None and not (kind == "free" and host.lost):
            yield "", (("host", host.host.name), ("kind", kind)), amount.memory_mib * MIB


# --- the format -----------------------------------------------------------------------------------


def _plain(counted: Mapping[Labels, int]) -> tuple[Sample, ...]:
    return tuple(("", labels, count) for labels, count in sorted(counted.items()))


def _histograms(counted: Mapping[Labels, Histogram]) -> tuple[Sample, ...]:
    return tuple(
        sample
        for labels, histogram in sorted(counted.items(), key=lambda item: item[0])
        for sample in _histogram(labels, histogram)
    )


def _histogram(labels: Labels, histogram: Histogram) -> Iterator[Sample]:
    counts = tuple(accumulate(histogram.counts))
    for bound, count in zip((*BUCKETS_S, float("inf")), counts, strict=True):
        yield "_bucket", (*labels, ("le", number(bound))), count
    yield "_sum", labels, histogram.sum_s
    yield "_count", labels, counts[-1]

"""What Prometheus is told of edgewake itself: plans, trouble, its API, webhooks, its process.

`web.metrics` joins it with the rest.
"""

from collections.abc import Iterator

from orchestrator.plan_metrics import PlanCounts
from orchestrator.process_usage import ProcessUsage
from orchestrator.readings import Reading
from web.families import Family, counter, family, histogram, single


def families(reading: Reading) -> Iterator[Family]:
    """Yield what there is to be told."""
    yield from _plans(reading.plans)
    yield from _trouble(reading)
    yield counter(
        "edgewake_http_requests_total",
        "Requests that the API answered, by its route and the class of the status.",
        reading.answers,
    )
    yield counter(
        "edgewake_webhook_deliveries_total",
        "Events for a webhook: delivered, given up, or dropped because too many waited.",
        reading.webhooks.deliveries,
    )
    yield family(
        "edgewake_webhook_waiting_events",
        "gauge",
        "Events that wait to be delivered to a webhook.",
        sorted(reading.webhooks.waiting.items()),
    )
    build = reading.build
    yield family(
        "edgewake_build_info",
        "gauge",
        "What runs; always 1.",
        [((("version", build.version), ("python", build.python)), 1)],
    )
    yield from _process(reading.process)


def _plans(counts: PlanCounts) -> Iterator[Family]:
    yield counter("edgewake_plans_total", "Plans by kind, made or failed.", counts.plans)
    yield histogram("edgewake_plan_seconds", "Time that it took to make a plan.", counts.took_s)
    if (last := counts.last) is None:
        return
    for name, about, value in (
        ("gap_ratio", "Relative distance of the plan's value to its bound.", last.gap),
        ("value", "What the plan is worth; less is better.", last.value),
        ("bound", "Proven lower bound on the value of any plan.", last.bound),
        ("duration_seconds", "Time that it took to make it.", last.seconds),
        ("timestamp_seconds", "When it was made, since the epoch.", last.at),
    ):
        yield single(f"edgewake_last_plan_{name}", "gauge", f"Last plan: {about}", value)


def _trouble(reading: Reading) -> Iterator[Family]:
    yield counter("edgewake_events_total", "Events of the journal, by kind.", reading.events.events)
    yield counter(
        "edgewake_host_failures_total",
        "What failed on a host, by the kind of its event in the journal.",
        reading.events.failures,
    )
    yield single(
        "edgewake_store_errors_total",
        "counter",
        "What could not be read from the state store, or written to it.",
        reading.store_errors,
    )
    yield single(
        "edgewake_journal_lost_events_total",
        "counter",
        "Events that could not be stored in the journal.",
        reading.lost_events,
    )


def _process(usage: ProcessUsage) -> Iterator[Family]:
    """Yield the process, by the names that every Prometheus client library has."""
    for name, kind, about, value in (
        ("cpu_seconds_total", "counter", "Processor time of the daemon.", usage.cpu_s),
        ("resident_memory_bytes", "gauge", "Memory that it holds.", usage.resident_bytes),
        ("open_fds", "gauge", "Files that it has open.", usage.open_files),
        ("max_fds", "gauge", "Files that it may have open.", usage.most_files),
        ("start_time_seconds", "gauge", "When it began, since the epoch.", usage.started_at),
    ):
        yield single(f"process_{name}", kind, about, value)

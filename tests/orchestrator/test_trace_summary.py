"""Percentiles of wakes."""

import pytest

from orchestrator.percentile import percentile
from orchestrator.trace import Wake
from orchestrator.trace_summary import TOTAL, summary


def wake(service: str, start_s: float, outcome: str = "ready") -> Wake:
    stamps = (("query", 0.0), ("start", start_s), ("answer", start_s + 1.0))
    return Wake(1, service, 0.0, stamps, outcome)


@pytest.mark.parametrize(
    ("values", "share", "expected"),
    [([1.0], 0.99, 1.0), ([1.0, 2.0], 0.5, 1.0), ([1.0, 2.0], 0.51, 2.0), ([3.0, 4.0], 0.0, 3.0)],
)
def test_a_percentile_is_a_value_that_was_measured(
    values: list[float], share: float, expected: float
) -> None:
    assert percentile(values, share) == expected


def test_there_is_a_line_per_service_and_stage() -> None:
    wakes = [wake("web", float(number)) for number in range(1, 101)]
    lines = summary([wake("api", 5.0), *wakes, wake("web", 1e9, "not-ready")])
    assert [(line.service, line.stage) for line in lines] == [
        (service, stage) for service in ("api", "web") for stage in ("start", "answer", TOTAL)
    ]
    start = lines[3]
    assert (start.count, start.p50_s, start.p95_s, start.p99_s) == (100, 50.0, 95.0, 99.0)
    assert lines[4].p99_s == pytest.approx(1.0)
    assert summary([]) == ()

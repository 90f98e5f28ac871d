"""Counts and histograms of wakes."""

from orchestrator.metrics import BUCKETS_S, WakeMetrics
from orchestrator.trace import Wake


def a_wake(service: str, total_s: float, outcome: str = "ready", queries: int = 1) -> Wake:
    stamps = (("query", 0.0), ("define", total_s / 2), ("reply", total_s))
    return Wake(1, service, 0.0, stamps, outcome, queries=queries, rung="cold")


def test_wakes_are_counted_by_how_they_went() -> None:
    metrics = WakeMetrics()
    for wake in (a_wake("web", 0.1, queries=3), a_wake("web", 1.0), a_wake("api", 1.0, "internal")):
        metrics(wake)
    counts = metrics.counts(["web", "api"])
    ready, failed = (
        (("outcome", "ready"), ("rung", "cold")),
        (("outcome", "internal"), ("rung", "cold")),
    )
    assert counts.wakes == {(("service", "web"), *ready): 2, (("service", "api"), *failed): 1}
    assert counts.queries == {(("service", "web"),): 4, (("service", "api"),): 1}
    assert counts.wake_s[ready].sum_s == 1.1
    assert sum(counts.stage_s[("stage", "define"), ("owner", "hypervisor")].counts) == 3


def test_a_value_on_a_bound_is_in_that_bucket_and_one_beyond_all_in_the_last() -> None:
    metrics = WakeMetrics()
    for total_s in (BUCKETS_S[0], BUCKETS_S[0] * 1.01, BUCKETS_S[-1] * 2):
        metrics(a_wake("web", total_s))
    (histogram,) = metrics.counts(["web"]).wake_s.values()
    assert (histogram.counts[0], histogram.counts[1], histogram.counts[-1]) == (1, 1, 1)
    assert len(histogram.counts) == len(BUCKETS_S) + 1


def test_services_that_left_the_lab_are_forgotten() -> None:
    metrics = WakeMetrics()
    for number in range(100):
        metrics(a_wake(f"s{number}", 1.0))
    assert len(metrics.counts(["s5"]).wakes) == 1
    assert len(metrics.counts([f"s{number}" for number in range(100)]).queries) == 1


def test_what_was_told_does_not_change_any_more() -> None:
    metrics = WakeMetrics()
    metrics(a_wake("web", 1.0))
    before = metrics.counts(["web"])
    metrics(a_wake("web", 1.0))
    (histogram,) = before.wake_s.values()
    assert histogram.sum_s == 1.0
    assert [*before.wakes.values()] == [1]

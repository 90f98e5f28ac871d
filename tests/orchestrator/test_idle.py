"""Who may sleep: a table of uses and verdicts, and what counts as traffic."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.idle import UPKEEP_BYTES, TrafficMeter, Usage, Use, verdict
from orchestrator.model import IdlePolicy

POLICY = IdlePolicy(after_s=10, min_up_s=5, cool_down_s=60)

CASES = [
    ("just woken", Use(up_at=100), 102, "minimum up time"),
    ("not unused for long enough", Use(up_at=100), 109, "used a moment ago"),
    ("unused", Use(up_at=100), 110, ""),
    ("traffic counts", Use(up_at=100, traffic_at=115), 124, "used a moment ago"),
    ("traffic is over", Use(up_at=100, traffic_at=115), 125, ""),
    ("an answer was given", Use(up_at=100, asked_at=115), 124, "cached"),
    ("it may still be cached", Use(up_at=100, asked_at=115), 134, "cached"),
    ("and no more", Use(up_at=100, asked_at=115), 135, ""),
    ("a probe is open", Use(up_at=100, probing=True), 1000, "probe"),
    ("needed again too soon", Use(up_at=100, slept_at=50), 150, "cool-down"),
    ("and then long enough", Use(up_at=100, slept_at=50), 160, ""),
    ("slept long ago", Use(up_at=100, slept_at=39), 110, ""),
]


@pytest.mark.parametrize(("use", "now", "reason"), [case[1:] for case in CASES], ids=lambda _: "")
def test_a_verdict_has_a_reason(use: Use, now: float, reason: str) -> None:
    found = verdict(use, POLICY, 20, now)
    assert found.sleep == (reason == "")
    assert reason in found.reason


def test_never_means_never() -> None:
    assert not verdict(Use(up_at=0), IdlePolicy(after_s=None), 0, 1e9).sleep


@given(
    up=st.floats(0, 100),
    traffic=st.floats(0, 100),
    asked=st.floats(0, 100),
    ttl=st.floats(0, 50),
    wait=st.floats(0, 200),
)
def test_more_use_never_makes_it_sleep_sooner(
    up: float, traffic: float, asked: float, ttl: float, wait: float
) -> None:
    now = 100 + wait
    used = verdict(Use(up_at=up, traffic_at=traffic, asked_at=asked), POLICY, ttl, now)
    unused = verdict(Use(up_at=up), POLICY, ttl, now)
    assert unused.sleep or not used.sleep
    if used.sleep:
        assert now >= asked + ttl


def metered(*readings: tuple[int, int]) -> float:
    meter = TrafficMeter(seen_at=0.0)
    for second, (rx_bytes, tx_bytes) in enumerate(readings, 1):
        meter.count(rx_bytes, tx_bytes, float(second), forget_s=10)
    return meter.used_at


def test_what_counts_as_traffic() -> None:
    much = UPKEEP_BYTES + 1
    assert metered((5000, 5000)) == 0.0, "the first reading is where counting starts"
    assert metered((0, 0), (much, much)) == 2.0
    assert metered((0, 0), (10**6, 0)) == 0.0, "a flood to a closed card is no use"
    assert metered((0, 0), (0, 10**6)) == 0.0, "announcements are no use"
    assert metered((0, 0), (60, 60)) == 0.0, "one ARP exchange is no use"
    assert metered((0, 0), *[(90 * n, 90 * n) for n in range(1, 4)]) == 3.0, "a trickle adds up"
    assert metered((10**6, 10**6), (0, 0), (much, much)) == 3.0, "a new guest counts from zero"


def test_upkeep_adds_up_to_nothing() -> None:
    meter = TrafficMeter(seen_at=0.0)
    for minute in range(60):
        meter.count(60 * minute, 60 * minute, 60.0 * minute, forget_s=10)
    assert meter.used_at == 0.0


def test_usage_forgets_the_traffic_of_a_guest_that_slept() -> None:
    usage = Usage()
    usage.woke("web", 1.0)
    usage.traffic("web", "i", (0, 0), 2.0, 10)
    usage.traffic("web", "i", (9999, 9999), 3.0, 10)
    assert usage.of("web", asked_at=0, probing=False, now=4.0).traffic_at == 3.0
    usage.slept("web", 5.0)
    usage.woke("web", 6.0)
    use = usage.of("web", asked_at=0, probing=False, now=7.0)
    assert (use.up_at, use.traffic_at, use.slept_at) == (6.0, 0.0, 5.0)

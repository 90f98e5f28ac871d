"""When packets leave a link: never early, never out of order, never more than fit."""

import random
from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import accumulate, pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.network import Quality
from orchestrator.routers.wire_schedule import (
    FRAME_BYTES,
    Fate,
    Schedule,
    burst_bytes,
    queue_bytes,
    rate_bytes,
)

TINY = 1e-6  # s, for sums of floats

qualities = st.builds(
    Quality,
    latency_ms=st.floats(0, 200),
    jitter_ms=st.floats(0, 300),
    loss=st.sampled_from((0.0, 0.1, 0.5)),
    bandwidth_mbps=st.none() | st.floats(0.05, 1000),
)
packets = st.lists(st.tuples(st.floats(0, 0.02), st.integers(60, FRAME_BYTES)), max_size=200)


@dataclass(frozen=True, slots=True)
class Gone:
    """A packet that left."""

    came: float
    left: float
    size: int


def chance(seed: int) -> Callable[[], float]:
    return random.Random(seed).random  # noqa: S311 - a seed, so that a failure comes again


def run(
    quality: Quality, gaps: list[tuple[float, int]], seed: int = 1
) -> tuple[list[Gone], list[Fate]]:
    schedule = Schedule(quality, chance(seed))
    gone, fates = [], []
    times = accumulate(gap for gap, _ in gaps)
    for now, (_, size) in zip(times, gaps, strict=True):
        leaves = schedule.offer(now, size)
        if isinstance(leaves, Fate):
            fates.append(leaves)
        else:
            gone.append(Gone(now, leaves, size))
    return gone, fates


@given(qualities, packets, st.integers(0, 99))
def test_order_is_kept_and_nothing_is_early(
    quality: Quality, gaps: list[tuple[float, int]], seed: int
) -> None:
    gone, _ = run(quality, gaps, seed)
    least = max(0.0, quality.latency_ms - quality.jitter_ms) / 1000
    assert all(one.left >= one.came + least - TINY for one in gone)
    assert all(one.left <= other.left for one, other in pairwise(gone))


@given(qualities, packets)
def test_without_a_bandwidth_no_packet_is_later_than_the_latest(
    quality: Quality, gaps: list[tuple[float, int]]
) -> None:
    gone, fates = run(replace(quality, bandwidth_mbps=None), gaps)
    most = (quality.latency_ms + quality.jitter_ms) / 1000
    assert all(one.left <= one.came + most + TINY for one in gone)
    assert Fate.DROPPED not in fates


@given(qualities, st.floats(0.05, 1000), packets)
def test_no_window_has_more_than_bandwidth_and_burst(
    quality: Quality, mbps: float, gaps: list[tuple[float, int]]
) -> None:
    gone, _ = run(replace(quality, bandwidth_mbps=mbps), gaps)
    for first in range(0, len(gone), 7):
        sent = 0
        for one in gone[first:]:
            sent += one.size
            window_s = one.left - gone[first].left
            assert sent <= rate_bytes(mbps) * (window_s + TINY) + burst_bytes(mbps) + 1


@given(st.floats(0.05, 1000), packets)
def test_what_waits_is_bounded(mbps: float, gaps: list[tuple[float, int]]) -> None:
    gone, fates = run(Quality(bandwidth_mbps=mbps), gaps)
    longest_s = queue_bytes(mbps) / rate_bytes(mbps)
    assert all(one.left - one.came <= longest_s + TINY for one in gone)
    assert len(gone) + len(fates) == len(gaps)


@given(qualities, qualities, packets, packets)
def test_a_change_overtakes_nothing(
    before: Quality, after: Quality, some: list[tuple[float, int]], more: list[tuple[float, int]]
) -> None:
    schedule = Schedule(before, chance(1))
    now, left = 0.0, []
    for quality, gaps in ((before, some), (after, more)):
        schedule.change(quality)
        for gap, size in gaps:
            now += gap
            leaves = schedule.offer(now, size)
            if isinstance(leaves, float):
                left.append(leaves)
    assert left == sorted(left)


@pytest.mark.parametrize("loss", [0.0, 0.02, 0.5, 1.0])
def test_the_share_that_is_lost_is_as_wanted(loss: float) -> None:
    _, fates = run(Quality(loss=loss), [(0.0, 100)] * 20_000)
    assert len(fates) / 20_000 == pytest.approx(loss, abs=0.015)
    assert set(fates) <= {Fate.LOST}


def test_jitter_is_evenly_spread() -> None:
    """A packet now and then, so that none waits for another."""
    gone, _ = run(Quality(latency_ms=10, jitter_ms=4), [(1.0, 100)] * 8_000)
    late = [(one.left - one.came) * 1000 for one in gone]
    quarters = [sum(low <= ms < low + 2 for ms in late) for low in (6, 8, 10, 12)]
    assert all(1_800 < quarter < 2_200 for quarter in quarters)


@pytest.mark.parametrize("mbps", [0.1, 10.0, 500.0])
def test_a_full_link_carries_its_bandwidth(mbps: float) -> None:
    gap = FRAME_BYTES / rate_bytes(mbps) / 2
    gone, fates = run(Quality(bandwidth_mbps=mbps), [(gap, FRAME_BYTES)] * 12_000)
    carried = sum(one.size for one in gone[1_000:-1]) / (gone[-1].left - gone[1_000].left)
    assert carried == pytest.approx(rate_bytes(mbps), rel=0.01)
    assert Fate.DROPPED in fates


def test_a_segment_larger_than_the_burst_leaves_a_debt() -> None:
    schedule = Schedule(Quality(bandwidth_mbps=8), random.random)
    assert schedule.offer(0.0, 50_000) == 0.0
    later = schedule.offer(0.0, 1_000)
    assert isinstance(later, float)
    assert later == pytest.approx(0.051 - burst_bytes(8) / 1e6)

"""Token buckets: a burst, then a rate, for each key by itself."""

from hypothesis import given
from hypothesis import strategies as st

from orchestrator.budget import TokenBuckets


def test_a_burst_and_then_a_rate() -> None:
    buckets = TokenBuckets(rate=2, burst=3)
    assert [buckets.take("a", 0.0) for _ in range(4)] == [True, True, True, False]
    assert not buckets.take("a", 0.4)
    assert buckets.take("a", 0.5)
    assert not buckets.take("a", 0.9)
    assert [buckets.take("a", 100.0) for _ in range(4)] == [True, True, True, False]


def test_keys_do_not_share() -> None:
    buckets = TokenBuckets(rate=1, burst=1)
    assert buckets.take("a", 0.0)
    assert not buckets.take("a", 0.0)
    assert buckets.take("b", 0.0)


def test_a_burst_is_at_least_one_and_no_rate_never_fills() -> None:
    buckets = TokenBuckets(rate=0, burst=0)
    assert buckets.take("a", 0.0)
    assert not buckets.take("a", 1e9)


def test_the_key_used_longest_ago_is_forgotten() -> None:
    buckets = TokenBuckets(rate=0, burst=1, most_keys=2)
    assert buckets.take("a", 0.0)
    assert buckets.take("b", 0.0)
    assert not buckets.take("a", 0.0)
    assert buckets.take("c", 0.0)
    assert not buckets.take("a", 0.0)
    assert buckets.take("b", 0.0)


@given(st.lists(st.floats(0, 100), max_size=60).map(sorted))
def test_never_more_than_burst_and_rate_allow(times: list[float]) -> None:
    buckets = TokenBuckets(rate=1.5, burst=4)
    taken = [at for at in times if buckets.take("a", at)]
    for number, at in enumerate(taken):
        since = [each for each in taken[: number + 1] if at - each <= 10]
        assert len(since) <= 4 + 10 * 1.5 + 1

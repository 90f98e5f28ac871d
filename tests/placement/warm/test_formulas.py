"""The formulas of warm instances against tables, simulations and each other."""

import math
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from placement.warm import value
from placement.warm.formulas import asleep, erlang_b, overflow, overflow_slope

LOADS = st.floats(0.01, 50)
KEPT = st.integers(1, 20)


@pytest.mark.parametrize(
    ("kept", "erlangs", "lost"),
    [(0, 3.0, 1.0), (1, 1.0, 0.5), (2, 1.0, 0.2), (5, 3.0, 0.11005), (10, 5.0, 0.018385)],
)
def test_erlang_b_is_as_in_the_tables(kept: int, erlangs: float, lost: float) -> None:
    assert erlang_b(kept, erlangs) == pytest.approx(lost, rel=1e-4)


def test_nobody_asks_and_nothing_is_missed() -> None:
    assert (erlang_b(0, 0.0), erlang_b(3, 0.0), overflow_slope(3, 0.0)) == (1.0, 0.0, 0.0)


@given(kept=KEPT, erlangs=LOADS)
def test_the_slope_is_that_of_the_overflow(kept: int, erlangs: float) -> None:
    step = 1e-5 * erlangs
    by_hand = (overflow(kept, erlangs + step) - overflow(kept, erlangs - step)) / (2 * step)
    assert overflow_slope(kept, erlangs) == pytest.approx(by_hand, rel=1e-3, abs=1e-8)


@given(kept=KEPT, erlangs=LOADS, other=LOADS)
def test_the_overflow_is_above_each_of_its_tangents(
    kept: int, erlangs: float, other: float
) -> None:
    tangent = overflow(kept, other) + overflow_slope(kept, other) * (erlangs - other)
    assert overflow(kept, erlangs) >= tangent - 1e-9


@given(kept=KEPT, erlangs=LOADS)
def test_each_instance_more_saves_less_than_the_one_before(kept: int, erlangs: float) -> None:
    one, two, three = (overflow(kept + more, erlangs) for more in (-1, 0, 1))
    assert one - two >= two - three - 1e-9
    assert two >= three


def test_a_pool_is_empty_as_often_as_erlang_says() -> None:
    """Play a pool of two that takes a constant time to replace: only the mean of it counts."""
    rng = Random(1)  # noqa: S311 - not for secrets
    now, missed, ready_at, wakes = 0.0, 0, [0.0, 0.0], 40_000
    for _ in range(wakes):
        now += rng.expovariate(1.0)
        here = [i for i, at in enumerate(ready_at) if at <= now]
        if here:
            ready_at[here[0]] = now + 1.0
        else:
            missed += 1
    assert missed / wakes == pytest.approx(erlang_b(2, 1.0), abs=0.01)


def test_a_request_finds_it_asleep_as_often_as_the_formula_says() -> None:
    rng = Random(2)  # noqa: S311 - not for secrets
    idle_s, rate, asked = 3.0, 0.5, 40_000
    found = sum(rng.expovariate(rate) > idle_s for _ in range(asked))
    assert found / asked == pytest.approx(asleep(rate, idle_s), abs=0.01)
    assert (asleep(rate, None), asleep(rate, 0.0)) == (0.0, 1.0)


def test_value_is_what_a_mebibyte_saves() -> None:
    assert value(2.0, 0.5, 100.0) == pytest.approx(0.01)
    assert (value(2.0, 0.5, 0.0), value(0.0, 0.5, 0.0)) == (math.inf, 0.0)
    assert value(1.0, 1.0, 8.0) > value(1.0, 1.0, 96.0)

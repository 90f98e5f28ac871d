"""Statistics against scipy and against values worked out by hand."""

from math import isnan, nan
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats as reference

from placement.study import stats
from placement.study.front import front, hypervolume, relative_hypervolumes

POINTS = st.lists(st.tuples(st.integers(0, 12), st.integers(0, 12)), max_size=8)


def _table(**values: list[float]) -> pd.DataFrame:
    rows: list[dict[str, Any]] = [
        {"case": str(case), "algorithm": name, "status": "failed" if isnan(x) else "ok", "value": x}
        for name, column in values.items()
        for case, x in enumerate(column)
    ]
    return pd.DataFrame(rows)


def test_a_mean_has_the_interval_of_a_bootstrap() -> None:
    values = list(np.random.default_rng(1).normal(10, 2, 200))
    found = stats.mean(values)
    half = 1.96 * np.std(values) / np.sqrt(200)  # of the normal distribution
    assert found.mean == pytest.approx(np.mean(values))
    assert found.low == pytest.approx(found.mean - half, abs=0.05)
    assert found.high == pytest.approx(found.mean + half, abs=0.05)
    assert stats.mean(values) == found


def test_a_mean_of_few_values() -> None:
    assert stats.mean([3.0, 3.0, nan]) == stats.Mean(2, 3.0, 3.0, 3.0)
    one, none = stats.mean([3.0]), stats.mean([nan])
    assert (one.count, one.mean) == (1, 3.0)
    assert isnan(one.low)
    assert none.count == 0
    assert isnan(none.mean)


def test_holm_by_hand() -> None:
    """0.01 x 4; 0.02 x 3; 0.03 x 2, which is no more than 0.06 before it; 0.5 x 1."""
    assert stats.holm([0.03, 0.01, 0.5, 0.02]) == pytest.approx([0.06, 0.04, 0.5, 0.06])
    assert stats.holm([0.9, 0.8]) == [1.0, 1.0]
    corrected = stats.holm([nan, 0.02])
    assert isnan(corrected[0])
    assert corrected[1] == 0.02
    assert stats.holm([]) == []


def test_wilcoxon_by_hand() -> None:
    """Six pairs that all differ in one direction: 2 of the 2**6 signs are as extreme."""
    assert stats.wilcoxon([1.0, 2.0, 3.0, 4.0, 5.0, 6.0]) == pytest.approx(2 / 64)
    assert stats.wilcoxon([0.0, 0.0]) == 1.0
    assert isnan(stats.wilcoxon([]))


def test_each_algorithm_is_compared_with_the_baseline() -> None:
    base = [10.0, 11.0, 12.0, 13.0, 14.0, 15.0, 16.0]
    better = [9.0, 9.0, 9.0, 9.0, 9.0, 9.0, nan]
    same = [*base[:-1], base[-1] * (1 + 1e-12)]
    found = stats.compare(_table(base=base, better=better, same=same), "value", "base")
    assert [each.algorithm for each in found] == ["better", "same"]
    first, second = found
    assert (first.pairs, first.wins, first.ties, first.losses) == (6, 6, 0, 0)
    assert first.median == -3.5
    assert first.p == pytest.approx(2 / 64)
    assert first.p_holm == pytest.approx(4 / 64)
    assert (second.pairs, second.wins, second.ties, second.losses) == (7, 0, 7, 0)
    assert second.p_holm == 1.0
    assert stats.compare(_table(base=base), "value", "other") == []


def test_repetitions_are_no_instances_of_their_own() -> None:
    once = _table(a=[1.0, 2.0, 3.0], b=[2.0, 3.0, 4.0])
    thrice = pd.concat([once] * 3)
    assert stats.compare(thrice, "value", "a") == stats.compare(once, "value", "a")


def test_friedman_is_that_of_scipy() -> None:
    columns = {name: list(np.random.default_rng(n).random(9)) for n, name in enumerate("abcd")}
    expected = reference.friedmanchisquare(*columns.values()).pvalue
    assert stats.friedman(_table(**columns), "value") == pytest.approx(expected)
    assert isnan(stats.friedman(_table(a=columns["a"], b=columns["b"]), "value"))
    alike = _table(a=[1.0, 2.0], b=[1.0, 2.0], c=[1.0, 2.0])
    assert stats.friedman(alike, "value") == 1.0


# --- fronts ---------------------------------------------------------------------------------------


def test_a_front_by_hand() -> None:
    points = [(1.0, 5.0), (2.0, 5.0), (3.0, 2.0), (3.0, 3.0), (4.0, 1.0), (5.0, 1.0), (1.0, 5.0)]
    assert front(points) == [(1.0, 5.0), (3.0, 2.0), (4.0, 1.0)]
    assert hypervolume(points, (6.0, 6.0)) == 5 * 1 + 3 * 3 + 2 * 1
    assert hypervolume(points, (1.0, 1.0)) == 0.0
    assert hypervolume([], (1.0, 1.0)) == 0.0


@given(points=POINTS)
def test_hypervolume_counts_the_squares_that_are_dominated(points: list[tuple[int, int]]) -> None:
    squares = sum(
        any(x <= column and y <= row for x, y in points)
        for column in range(10)
        for row in range(10)
    )
    assert hypervolume([(float(x), float(y)) for x, y in points], (10.0, 10.0)) == squares


@given(points=POINTS)
def test_no_point_of_a_front_dominates_another(points: list[tuple[int, int]]) -> None:
    kept = front([(float(x), float(y)) for x, y in points])
    assert all(
        (a[0] < b[0] and a[1] > b[1]) or (a[0] > b[0] and a[1] < b[1])
        for a in kept
        for b in kept
        if a != b
    )
    assert all(any(x <= p and y <= q for x, y in kept) for p, q in points)


def test_relative_hypervolumes_share_a_box() -> None:
    shares = relative_hypervolumes({"ideal": [(0.0, 10.0)], "worst": [(100.0, 30.0)]})
    assert shares["ideal"] == pytest.approx(1.0)
    assert shares["worst"] == pytest.approx(0.01 / 1.21)

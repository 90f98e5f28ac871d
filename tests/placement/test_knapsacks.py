"""The bound of whole copies: below every plan, above the bound of the LP."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from random import Random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.placement_scale import instance, weights_of
from placement.ladder import moves
from placement.ladder.climb import Climber
from placement.ladder.knapsacks import Knapsacks, Sack, fill, worthwhile
from placement.ladder.prices import Prices
from placement.matrix import Floats
from placement.problem import Demand, Host, Options, Problem
from placement.solving import solve
from tests.placement import tiny
from tests.placement.test_every_plan import best


def climber(problem: Problem, **more: object) -> Climber:
    asked = Options(weights=weights_of(problem), **more)  # type: ignore[arg-type]
    found = Climber(problem, asked)
    for _ in (*found.boards(), *found.rounding()):
        pass
    return found


@pytest.fixture(scope="module")
def classes() -> Climber:
    return climber(instance(40, 300, classes=30, seed=2), nearest=20)


def sacks_of(found: Climber) -> Knapsacks:
    assert found.simple is not None
    assert found.prices is not None
    return Knapsacks(found.simple, found.options, found.prices, found.nearest)


def test_a_knapsack_is_worth_what_the_best_filling_is() -> None:
    random = Random(5)  # noqa: S311 - not for secrets
    sacks = []
    for _ in range(20):
        value = np.array([random.uniform(1, 9) for _ in range(4)])
        need = np.array([[random.uniform(0.2, 0.6) for _ in range(2)] for _ in range(4)])
        sacks.append(Sack(value, need, np.array([2, 2, 1, 1])))
    for sack, found in zip(sacks, fill(sacks), strict=True):
        most = max(sack.value @ counts for counts in _fillings(sack))
        assert most - 1e-6 <= found.worth <= most * 1.01
        assert sack.value @ found.counts <= most + 1e-6


def _fillings(sack: Sack) -> Iterator[Floats]:
    for index in np.ndindex(*(sack.most + 1)):
        counts = np.array(index, dtype=float)
        if (counts @ sack.need <= 1).all():
            yield counts


def test_it_is_above_the_bound_of_the_lp_and_rises(classes: Climber) -> None:
    sacks = sacks_of(classes)
    bounds = []
    while not sacks.stale and len(bounds) < 8:
        sacks.step(classes.value, None)
        bounds.append(sacks.bound)
    assert bounds[0] > classes.bound
    assert bounds == sorted(bounds)
    assert bounds[-1] > bounds[0]
    assert bounds[-1] <= classes.value


def test_workers_find_the_same(classes: Climber) -> None:
    alone, shared = sacks_of(classes), sacks_of(classes)
    with ThreadPoolExecutor(1) as worker:
        for _ in range(2):
            alone.step(classes.value, None)
            shared.step(classes.value, worker)
    assert alone.bound == shared.bound


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 10**9), soft=st.booleans())
def test_whatever_the_prices_it_is_below_every_plan(seed: int, *, soft: bool) -> None:
    problem = tiny.draw(seed, "soft" if soft else "plain")
    weights = {"energy_w": 1.0, "cost_hour": 1.0, "unplaced": 50.0}
    found = Climber(problem, Options(weights=weights))
    least = best(problem, weights)
    if found.simple is None or least is None:
        return
    random = Random(seed)  # noqa: S311 - not for secrets
    arrays = found.arrays
    prices = Prices(
        np.array([random.uniform(-50, 100) for _ in range(arrays.classes)]),
        np.array([[random.choice([0, 0, 1, 9]) for _ in row] for row in arrays.room], dtype=float),
    )
    sacks = Knapsacks(found.simple, found.options, prices, found.nearest)
    for _ in range(4):
        sacks.step(least, None)
        assert sacks.bound <= least + 1e-6 * max(1.0, abs(least))


def test_pairs_that_were_left_out_count() -> None:
    """Near hosts are dear and far ones free: the best plan uses none of the nearest."""
    near = [Host(f"n{i}", {"cpu": 4.0}, site="near", idle_w=50, busy_w=50) for i in range(8)]
    far = [Host(f"f{i}", {"cpu": 4.0}, site="far") for i in range(8)]
    problem = Problem(
        (*near, *far),
        tuple(Demand(f"d{i}", {"cpu": 1.5}, rates={"p": 1.0}) for i in range(10)),
        {"p": {"near": 1.0, "far": 2.0}},
    )
    asked = Options(weights={"latency_ms": 1.0, "energy_w": 1.0}, nearest=4, deadline_s=10)
    found = Climber(problem, asked)
    assert found.simple is not None
    prices = Prices(np.full(1, 30.0), np.zeros_like(found.arrays.room))
    sacks = Knapsacks(found.simple, asked, prices, found.nearest)
    for _ in range(3):
        sacks.step(2.0, None)
        assert sacks.bound <= 2.0 + 1e-6


def test_it_is_tried_where_copies_are_of_few_kinds_only(classes: Climber) -> None:
    assert classes.simple is not None
    assert worthwhile(classes.simple)
    different = Climber(instance(20, 60), Options(weights={"energy_w": 1.0}))
    assert different.simple is not None
    assert not worthwhile(different.simple)


def test_the_ladder_proves_more_with_it() -> None:
    problem = instance(60, 400, classes=40, seed=1)
    asked = Options(weights=weights_of(problem), nearest=20, deadline_s=20, gap=0.015)
    lp = climber(problem, nearest=20).bound
    rungs = {}
    for step in Climber(problem, asked).climb(None):
        rungs[step.rung] = step
    assert rungs["knapsacks"].bound > lp
    exact = solve(problem, Options(weights=weights_of(problem), algorithm="exact", deadline_s=4))
    assert rungs["knapsacks"].bound <= exact.value


def test_skipping_hosts_that_cannot_be_emptied_changes_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    problem = instance(60, 400, seed=3)
    found = Climber(problem, Options(weights=weights_of(problem)))
    assert found.simple is not None
    one, other = moves.greedy(found.simple), moves.greedy(found.simple)
    moves.drop(one)
    monkeypatch.setattr(moves, "_least_to_empty", lambda board: np.zeros(len(board.copies)))
    moves.drop(other)
    assert one.cost < moves.greedy(found.simple).cost
    assert (one.counts == other.counts).all()

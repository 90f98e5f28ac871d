"""The ladder: every step is a plan, none is worse than the last, and the bound is a bound."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from random import Random
from time import perf_counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.placement_scale import instance, weights_of
from placement.check import violations
from placement.evaluate import evaluate, value_of
from placement.ladder.climb import Climber, Step, climb
from placement.ladder.neighbourhoods import Cutter, Effort
from placement.ladder.prices import Prices, excess, priced
from placement.ladder.simple import Board, Simple
from placement.problem import Demand, Host, Infeasible, Malformed, Options, Plan, Problem
from placement.solving import solve
from tests.placement import tiny
from tests.placement.test_every_plan import SUMMABLE, best
from tests.placement.test_every_plan import weights_of as some_weights

SEEDS = st.integers(0, 10**9)


def options(problem: Problem, **more: object) -> Options:
    return replace(Options(weights=weights_of(problem), deadline_s=20, gap=0.02), **more)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def middling() -> Problem:
    return instance(60, 400, seed=3)


@pytest.fixture(scope="module")
def steps(middling: Problem) -> list[Step]:
    return [*climb(middling, options(middling))]


def test_every_step_passes_the_judge(middling: Problem, steps: list[Step]) -> None:
    assert {"bind", "greedy", "rounding", "prices", "neighbourhoods"} <= {s.rung for s in steps}
    for step in steps:
        plan = step.plan()
        assert violations(middling, plan) == ()
        value = value_of(evaluate(middling, plan), weights_of(middling))
        assert step.value == pytest.approx(value, rel=1e-6)


def test_no_step_is_worse_than_the_last_in_value_or_bound(steps: list[Step]) -> None:
    values, bounds = [s.value for s in steps], [s.bound for s in steps]
    assert values == sorted(values, reverse=True)
    assert bounds == sorted(bounds)
    assert 0 < bounds[-1] <= values[-1]
    assert steps[-1].gap <= 0.03
    assert len({s.value for s in steps}) >= 4


def test_equal_seeds_give_equal_plans_on_any_number_of_workers(middling: Problem) -> None:
    asked = options(middling, gap=0.025)
    alone = [s.value for s in climb(middling, asked)]
    with ThreadPoolExecutor(1) as two:
        assert [s.value for s in climb(middling, asked, two)] == alone
    assert [s.value for s in climb(middling, asked)] == alone


def test_a_short_deadline_gives_a_plan_all_the_same(middling: Problem) -> None:
    since = perf_counter()
    plan = solve(middling, options(middling, algorithm="ladder", deadline_s=0.3, gap=0.0))
    assert perf_counter() - since < 15
    assert violations(middling, plan) == ()


def test_a_plan_to_start_from_is_never_made_worse(middling: Problem, steps: list[Step]) -> None:
    start = steps[-1].plan()
    first = next(climb(middling, options(middling, start=start)))
    assert first.rung == "bind"
    assert first.value <= steps[-1].value + 1e-6


def test_processes_of_our_own_find_the_same(middling: Problem) -> None:
    asked = options(middling, gap=0.03)
    alone = [*climb(middling, asked)][-1].value
    assert [*climb(middling, replace(asked, threads=2))][-1].value == alone


# --- against every plan ---------------------------------------------------------------------------


@pytest.mark.parametrize("family", [f for f in tiny.FAMILIES if f not in ("traffic", "chain")])
@settings(max_examples=8, deadline=None)
@given(seed=SEEDS)
def test_on_tiny_problems_the_ladder_ends_at_the_best_plan(family: str, seed: int) -> None:
    problem, weights = tiny.draw(seed, family), some_weights(seed)
    least = best(problem, weights)
    try:
        plan = solve(problem, Options(weights=weights, algorithm="ladder"))
    except Infeasible as error:
        assert error.proven  # noqa: PT017
        assert least is None
        return
    assert least is not None
    assert plan.value == pytest.approx(least, rel=1e-6, abs=1e-6)
    assert plan.bound <= least + 1e-6 * max(1.0, least)


@settings(max_examples=60, deadline=None)
@given(seed=SEEDS)
def test_any_prices_prove_a_bound(seed: int) -> None:
    problem = tiny.draw(seed, "plain")
    weights = {"energy_w": 1.0, "cost_hour": 1.0}
    climber = Climber(problem, Options(weights=weights))
    least = best(problem, weights)
    if climber.simple is None or least is None:
        return
    random = Random(seed)  # noqa: S311 - not for secrets
    arrays = climber.arrays
    prices = Prices(
        np.array([random.uniform(-50, 100) for _ in range(arrays.classes)]),
        np.array([[random.choice([0, 0, 1, 9]) for _ in row] for row in arrays.room], dtype=float),
    )
    assert priced(climber.simple, prices).bound <= least + 1e-6


def test_the_surplus_of_all_hosts_is_the_distance_to_the_bound(middling: Problem) -> None:
    climber = Climber(middling, options(middling))
    for _ in climber.boards():
        pass
    for _ in climber.rounding():
        pass
    assert climber.simple is not None
    assert climber.prices is not None
    assert climber.x is not None
    found = priced(climber.simple, climber.prices)
    counts = climber.simple.counts(climber.x)
    surplus = excess(climber.simple, climber.prices, found, counts).sum()
    assert surplus == pytest.approx(climber.value - found.bound, rel=1e-6)


# --- candidates -----------------------------------------------------------------------------------


def crowd(hosts: int, demands: int) -> Problem:
    """Return everybody asking from one spot, so that near hosts have room for few only."""
    names = [f"h{i}" for i in range(hosts)]
    return Problem(
        tuple(Host(name, {"cpu": 4.0, "memory_mib": 4096}, idle_w=10, busy_w=10) for name in names),
        tuple(
            Demand(f"d{i}", {"cpu": 1.0 + i / demands}, rates={"p": 1.0 + i % 7})
            for i in range(demands)
        ),
        {"p": {name: float(i) for i, name in enumerate(names)}},
    )


def test_demands_that_find_no_room_nearby_get_hosts_farther_off() -> None:
    problem = crowd(60, 132)
    weights = {"latency_ms": 1.0, "energy_w": 0.01}
    asked = Options(weights=weights, nearest=6, deadline_s=30, gap=0.2)
    climber = Climber(problem, asked)
    assert climber.arrays.pairs == 792
    last = [*climber.climb(None)][-1]
    assert climber.arrays.pairs > 792
    plan = last.plan()
    assert violations(problem, plan) == ()
    every = solve(problem, replace(asked, nearest=None))
    assert last.bound <= every.value + 1e-6
    assert last.value <= every.value * 1.25


def test_the_bound_counts_the_pairs_that_were_left_out() -> None:
    """Near hosts are dear and far ones free: the best plan uses none of the nearest."""
    near = [Host(f"n{i}", {"cpu": 4.0}, site="near", idle_w=500, busy_w=500) for i in range(30)]
    far = [Host(f"f{i}", {"cpu": 4.0}, site="far") for i in range(30)]
    problem = Problem(
        (*near, *far),
        tuple(Demand(f"d{i}", {"cpu": 1.0 + i / 99}, rates={"p": 1.0}) for i in range(40)),
        {"p": {"near": 1.0, "far": 2.0}},
    )
    asked = Options(weights={"latency_ms": 1.0, "energy_w": 1.0}, nearest=20, deadline_s=10)
    last = [*climb(problem, asked)][-1]
    assert last.value == pytest.approx(2.0)
    assert last.bound == pytest.approx(2.0, rel=1e-4)


# --- parts ----------------------------------------------------------------------------------------


def test_a_part_says_the_same_as_the_whole(middling: Problem) -> None:
    climber = Climber(middling, options(middling))
    for _ in climber.boards():
        pass
    assert climber.x is not None
    matrix = climber.assembled.matrix
    cutter = Cutter(matrix)
    activity = cutter.activity(climber.x)
    assert np.allclose(activity, matrix.activity(climber.x)[: matrix.core_rows])
    assert cutter.allows(activity)
    free = np.flatnonzero(np.arange(matrix.columns) % 3 == 0)
    part = cutter.part(climber.x, activity, free, Effort(1, 0.0, 0))
    assert cutter.allows(activity)
    inside = part.matrix.activity(part.start)
    assert (inside <= part.matrix.row_upper + 1e-6).all()
    changed = climber.x.copy()
    changed[free] += 1.0
    moved = part.matrix.activity(part.start + 1.0) <= part.matrix.row_upper + 1e-6
    assert moved.all() == cutter.allows(cutter.activity(changed))


def test_a_board_counts_as_the_matrix_does(middling: Problem) -> None:
    climber = Climber(middling, options(middling))
    assert climber.simple is not None
    board = Board(climber.simple, np.zeros(climber.arrays.pairs, dtype=np.int64))
    assert len(board.stranded) == climber.arrays.classes
    board.put(0, 1)
    x = climber.simple.columns(board.counts)
    matrix = climber.assembled.matrix
    assert board.cost == pytest.approx(float((matrix.cost * x).sum()) + matrix.constant)
    board.put(0, -1)
    assert not board.counts.any()
    assert (board.copies == 0).all()


def test_other_rules_make_a_model_that_is_not_simple() -> None:
    problem = tiny.draw(4, "spread")
    climber = Climber(problem, Options(weights={"energy_w": 1.0}))
    plain = Climber(tiny.draw(4, "plain"), Options(weights={"hosts_on": 1.0}))
    assert isinstance(plain.simple, Simple)
    assert climber.assembled is not plain.assembled


def test_what_cannot_be_climbed_is_refused(middling: Problem) -> None:
    with pytest.raises(Malformed, match="use exact or auto"):
        solve(middling, Options(algorithm="ladder", order=("latency_ms",)))
    with pytest.raises(Malformed, match="worst_latency_ms"):
        solve(middling, Options(algorithm="ladder", weights={"worst_latency_ms": 1.0}))


@pytest.mark.parametrize(("hosts", "demands"), [(4, 12), (60, 400)])
def test_auto_takes_the_exact_algorithm_or_the_ladder(hosts: int, demands: int) -> None:
    problem = instance(hosts, demands, seed=1)
    plan = solve(problem, options(problem, algorithm="auto", gap=0.05))
    assert plan.algorithm == "auto"
    assert plan.gap <= 0.05
    assert isinstance(plan, Plan)
    assert SUMMABLE

"""The partition: parts follow the map, their plans are one plan, their prices one bound."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest

from benchmarks.placement_scale import instance, weights_of
from placement.check import violations
from placement.evaluate import evaluate, value_of
from placement.ladder.climb import climb
from placement.partition import cut, partitioned
from placement.problem import Demand, Infeasible, Malformed, Options, Plan, Problem
from placement.rules import Fence, Spread
from placement.solving import solve


@pytest.fixture(scope="module")
def problem() -> Problem:
    return instance(80, 300, seed=5)


@pytest.fixture(scope="module")
def options(problem: Problem) -> Options:
    return Options(weights=weights_of(problem), deadline_s=3000, gap=0.05)  # load is no matter


@pytest.fixture(scope="module")
def plan(problem: Problem, options: Options) -> Plan:
    return partitioned(problem, options, part_hosts=20)


def test_parts_are_near_each_other_and_of_equal_room(problem: Problem) -> None:
    part = cut(problem, 4, 0)
    room = np.array([host.room("cpu") for host in problem.hosts])
    share = np.bincount(part, room) / room.sum()
    assert (abs(share - 0.25) < 0.1).all()
    table = np.array([list(row.values()) for row in problem.latency_ms.values()])
    near = [np.var(table[:, part == g], axis=1).mean() for g in range(4)]
    assert max(near) < np.var(table, axis=1).mean()


def test_other_turns_cut_elsewhere(problem: Problem) -> None:
    first, second = cut(problem, 4, 0), cut(problem, 4, 1)
    together = first[:, None] == first[None, :]
    assert (together != (second[:, None] == second[None, :])).any()


def test_the_plan_is_one_and_the_bound_is_below_any(
    problem: Problem, options: Options, plan: Plan
) -> None:
    assert violations(problem, plan) == ()
    value = value_of(evaluate(problem, plan), options.weights)
    best = [*climb(problem, replace(options, gap=0.03))][-1]
    assert 0 < plan.bound <= best.value
    assert value <= 1.1 * best.value


def test_a_second_pass_is_never_worse(problem: Problem, options: Options, plan: Plan) -> None:
    once = partitioned(problem, options, part_hosts=20, passes=1)
    values = [value_of(evaluate(problem, each), options.weights) for each in (once, plan)]
    assert values[1] <= values[0] + 1e-6


def test_any_executor_solves_the_parts(problem: Problem, options: Options, plan: Plan) -> None:
    with ThreadPoolExecutor(1) as executor:
        assert partitioned(problem, options, executor, part_hosts=20).hosts == plan.hosts


def test_fences_hold_across_parts(problem: Problem, options: Options) -> None:
    names = frozenset(demand.name for demand in problem.demands[:40])
    inside = frozenset(host.name for host in problem.hosts[::2])
    fenced = replace(problem, rules=(Fence(names, inside),))
    plan = solve(fenced, replace(options, algorithm="partition"))
    assert violations(fenced, plan) == ()
    assert plan.algorithm == "partition"


def test_rules_between_demands_are_refused(problem: Problem, options: Options) -> None:
    spread = replace(problem, rules=(Spread(frozenset({"s000", "s001"}), "host"),))
    with pytest.raises(Malformed, match="partition ignores rule spread"):
        solve(spread, replace(options, algorithm="partition"))


def test_nothing_has_parts_too() -> None:
    options = Options(algorithm="partition", deadline_s=5)
    assert solve(Problem((), ()), options).value == 0
    with pytest.raises(Infeasible) as caught:
        solve(Problem((), (Demand("x"),)), options)
    assert caught.value.proven

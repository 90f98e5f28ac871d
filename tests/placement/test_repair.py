"""Repair touches only what is wrong, and no more copies than the budget allows."""

from collections.abc import Callable
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from placement.check import violations
from placement.problem import Demand, Host, Infeasible, Options, Plan, Problem
from placement.repair import repair
from placement.rules import Ban, Split, Spread
from tests.placement import tiny

MakeHost = Callable[..., Host]
MakeDemand = Callable[..., Demand]


def moves(problem: Problem, plan: Plan) -> set[str]:
    """Return the demands that do not run where they did."""
    return {
        name
        for name, hosts in plan.hosts.items()
        if sorted(hosts) != sorted(problem.current.get(name, ()))
    }


@pytest.fixture
def problem(host: MakeHost, demand: MakeDemand) -> Problem:
    """Return four hosts for two copies each, and five demands, all well."""
    return Problem(
        tuple(host(name, cpu=2) for name in "abcd"),
        tuple(demand(f"d{i}") for i in range(5)),
        current={"d0": ("a",), "d1": ("a",), "d2": ("b",), "d3": ("c",), "d4": ("d",)},
    )


def test_nothing_wrong_moves_nothing(problem: Problem) -> None:
    assert moves(problem, repair(problem)) == set()


def test_only_what_a_lost_host_ran_moves(problem: Problem) -> None:
    lost = replace(problem, hosts=problem.hosts[1:])
    plan = repair(lost)
    assert violations(lost, plan) == ()
    assert moves(lost, plan) == {"d0", "d1"}


def test_a_host_that_is_too_full_gives_away_as_few_as_it_can(problem: Problem) -> None:
    grown = (replace(problem.demands[0], resources={"cpu": 1.5}), *problem.demands[1:])
    asked = replace(problem, demands=grown)
    plan = repair(asked)
    assert violations(asked, plan) == ()
    assert len(moves(asked, plan)) == 1
    assert moves(asked, plan) <= {"d0", "d1"}


@pytest.mark.parametrize(
    ("rule", "count"),
    [
        (Ban(frozenset({"d2"}), frozenset({"b"})), 1),
        (Spread(frozenset({"d0", "d1", "d2"}), "host"), 1),
        (Split((frozenset({"d0"}), frozenset({"d1"}))), 1),
    ],
)
def test_a_broken_rule_moves_only_whom_it_names(rule: Ban, count: int, problem: Problem) -> None:
    asked = replace(problem, rules=(rule,))
    plan = repair(asked)
    assert violations(asked, plan) == ()
    assert len(moves(asked, plan)) == count


def test_others_make_room_where_it_takes_that(host: MakeHost, demand: MakeDemand) -> None:
    """The large one fits nowhere unless a small one goes."""
    problem = Problem(
        (host("a", cpu=3), host("b", cpu=3)),
        (demand("large", cpu=3), demand("one", cpu=1), demand("two", cpu=2)),
        current={"large": ("gone",), "one": ("a",), "two": ("b",)},
    )
    plan = repair(problem)
    assert violations(problem, plan) == ()
    assert len(moves(problem, plan)) == 2


def test_a_budget_bounds_what_moves(problem: Problem) -> None:
    lost = replace(problem, hosts=problem.hosts[1:])
    with pytest.raises(Infeasible, match="no repair was found that moves 1 copies at most") as one:
        repair(lost, budget=1)
    assert one.value.proven
    assert len(moves(lost, repair(lost, budget=2))) == 2


@pytest.mark.parametrize("family", ["plain", "spread", "survive", "flavours", "ban", "soft"])
@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10**9))
def test_a_repair_is_a_plan_wherever_there_is_one(family: str, seed: int) -> None:
    problem = tiny.draw(seed, family)
    exists = next(tiny.every_plan(problem), None) is not None
    try:
        plan = repair(problem, Options(weights={"energy_w": 1.0}))
    except Infeasible:
        assert not exists
        return
    assert violations(problem, plan) == ()
    assert plan.value == pytest.approx(plan.terms["energy_w"])

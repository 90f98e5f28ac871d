"""Tiny problems of every kind, where all plans can be tried, so that the best is known.

The model shares no code with the judge and with `evaluate`, by which all plans are tried here. So
each test compares two definitions of every constraint and of every term.
"""

from dataclasses import replace
from random import Random

import pytest
from hypothesis import example, given, note, settings
from hypothesis import strategies as st

from placement.check import violations
from placement.evaluate import evaluate, value_of
from placement.problem import Infeasible, Options, Plan, Problem
from placement.solving import solve
from tests.placement import tiny

SUMMABLE = (
    "latency_ms",
    "wake_ms",
    "energy_w",
    "cost_hour",
    "network_mbps",
    "hosts_on",
    "utilisation",
    "migrations",
    "unplaced",
    "unserved_rps",
    "lost_revenue",
)
SEEDS = st.integers(0, 10**9)
FLOWING = ("traffic", "chain")  # narrow links need more than trying all places


def weights_of(seed: int) -> dict[str, float]:
    """Return a random choice of terms that count."""
    random = Random(seed)  # noqa: S311 - not for secrets
    some = random.sample(SUMMABLE, random.randint(1, 4))
    return {name: random.choice([0.3, 1.0, 2.0]) for name in some} | {"broken": 1.0}


def best(problem: Problem, weights: dict[str, float]) -> float | None:
    plans = list(tiny.every_plan(problem))
    note(f"{len(plans)} plans")
    return min((value_of(evaluate(problem, p), weights) for p in plans), default=None)


def found(problem: Problem, options: Options) -> Plan | None:
    try:
        return solve(problem, options)
    except Infeasible as error:
        assert error.proven  # noqa: PT017
        assert error.reasons or error.clash  # noqa: PT017
        return None


@pytest.mark.parametrize("family", [f for f in tiny.FAMILIES if f not in FLOWING])
@settings(max_examples=40)
@given(seed=SEEDS)
def test_the_exact_plan_is_the_best_of_all(family: str, seed: int) -> None:
    problem, weights = tiny.draw(seed, family), weights_of(seed)
    plan = found(problem, Options(weights=weights, solver="highs-direct"))
    least = best(problem, weights)
    note(f"{problem}\n{weights}\n{plan}")
    assert (plan is None) == (least is None)
    if plan is None:
        return
    assert violations(problem, plan) == ()
    assert plan.value == pytest.approx(least, rel=1e-6, abs=1e-6)
    assert plan.bound == pytest.approx(least, rel=1e-5, abs=1e-5)
    assert plan.gap == pytest.approx(0.0, abs=1e-5)


TWINS = ("plain", "soft", "nearest copy", "share host", "flavours", "one flavour", "share")


@pytest.mark.parametrize("family", TWINS)
@settings(max_examples=20)
@given(seed=SEEDS)
def test_what_is_identical_is_placed_as_if_it_were_not(family: str, seed: int) -> None:
    problem, weights = tiny.twins(tiny.draw(seed, family)), weights_of(seed)
    problem = replace(problem, current={k: v for k, v in problem.current.items() if k != "d3"})
    plan = found(problem, Options(weights=weights, solver="highs-direct"))
    least = best(problem, weights)
    note(f"{problem}\n{weights}\n{plan}")
    assert (plan is None) == (least is None)
    if plan is not None:
        assert plan.value == pytest.approx(least, rel=1e-6, abs=1e-6)
        assert plan.bound == pytest.approx(least, rel=1e-5, abs=1e-5)


@pytest.mark.parametrize("family", ["plain", "soft", "flavours", "latency bound", "ban"])
@settings(max_examples=25)
@given(seed=SEEDS)
def test_the_worst_latency_is_the_least(family: str, seed: int) -> None:
    problem, weights = tiny.draw(seed, family), {"worst_latency_ms": 1.0}
    plan = found(problem, Options(weights=weights, solver="highs-direct"))
    least = best(problem, weights)
    assert (plan is None) == (least is None)
    if plan is not None:
        assert plan.value == pytest.approx(least)
        assert plan.bound == pytest.approx(least)


@pytest.mark.parametrize("family", ["plain", "soft", "revenue", "spread"])
@settings(max_examples=25)
@given(seed=SEEDS)
@example(seed=39916800)  # of "revenue": HiGHS' presolve called the start optimal that it was given
def test_terms_in_order_are_each_the_best_that_the_ones_before_allow(
    family: str, seed: int
) -> None:
    problem = tiny.draw(seed, family)
    order = tuple(Random(seed).sample((*SUMMABLE, "worst_latency_ms"), 2))  # noqa: S311
    plan = found(problem, Options(weights={}, order=order, solver="highs-direct"))
    every = [evaluate(problem, each) for each in tiny.every_plan(problem)]
    assert (plan is None) == (not every)
    if plan is None:
        return
    first = min(terms[order[0]] for terms in every)
    near = [terms for terms in every if terms[order[0]] <= first * (1 + 1e-6) + 1e-6]
    second = min(terms[order[1]] for terms in near)
    note(f"{problem} {order} {plan}")
    assert plan.terms[order[0]] == pytest.approx(first, rel=1e-5, abs=1e-5)
    assert plan.terms[order[1]] == pytest.approx(second, rel=1e-5, abs=1e-5)
    assert plan.value == plan.terms[order[0]]
    assert plan.bound == pytest.approx(first, rel=1e-5, abs=1e-5)


@pytest.mark.parametrize("term", [*SUMMABLE, "worst_latency_ms"])
@settings(max_examples=15)
@given(seed=SEEDS, at=st.floats(0, 1))
def test_a_limit_on_a_term_holds_and_costs_no_more_than_it_must(
    term: str, seed: int, at: float
) -> None:
    problem = tiny.draw(seed, "revenue" if term == "lost_revenue" else "soft")
    weights = {"cost_hour": 1.0, "latency_ms": 0.5, "unplaced": 3.0}
    every = [evaluate(problem, each) for each in tiny.every_plan(problem)]
    if not every:
        return
    values = sorted({terms[term] for terms in every})
    limit = values[min(int(at * len(values)), len(values) - 1)]
    plan = found(problem, Options(weights=weights, limits={term: limit}, solver="highs-direct"))
    least = min(value_of(t, weights) for t in every if t[term] <= limit + 1e-6)
    assert plan is not None
    assert plan.terms[term] <= limit + 1e-5
    assert plan.value == pytest.approx(least, rel=1e-5, abs=1e-5)

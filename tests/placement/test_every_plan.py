"""Tiny problems of every kind, where all plans can be tried, so that the best is known.

The search and the objective are written here once more, from the meaning of the words.
"""

from collections.abc import Iterator, Mapping
from itertools import combinations, product

import pytest
from hypothesis import given, note, settings
from hypothesis import strategies as st

from placement.check import violations
from placement.heuristics import algorithm
from placement.milp import solve
from placement.problem import Infeasible, Options, Plan, Problem

WEIGHTS = {"latency_ms": 1.0, "energy_w": 0.05, "cost_hour": 0.7, "migrations": 2.0}


def every_plan(problem: Problem) -> Iterator[Plan]:
    names = [site.name for site in problem.sites]
    choices = [list(combinations(names, demand.replicas)) for demand in problem.demands]
    for chosen in product(*choices):
        sites = {d.name: c for d, c in zip(problem.demands, chosen, strict=True)}
        if not violations(problem, Plan(sites, value=0.0)):
            yield Plan(sites, value=value(problem, sites))


def value(problem: Problem, sites: Mapping[str, tuple[str, ...]]) -> float:
    weighted = requests = watts = money = moved = 0.0
    for demand in problem.demands:
        chosen = sites[demand.name]
        for population, rate in demand.rates.items():
            row = problem.latency_ms[population]
            requests += rate
            weighted += rate * min((row.get(s, 10_000.0) for s in chosen), default=0.0)
        kept = len(set(problem.current.get(demand.name, ())) & set(chosen))
        moved += min(len(problem.current.get(demand.name, ())), demand.replicas) - kept
    for site in problem.sites:
        here = [d.resources for d in problem.demands if site.name in sites[d.name]]
        if here:
            cpu = sum(each.cpu for each in here)
            load = cpu / site.capacity.cpu if cpu else 0.0
            watts += site.idle_w + (site.busy_w - site.idle_w) * load
            money += site.host_hour + site.cpu_hour * cpu
            money += site.gib_hour * sum(each.memory_mib for each in here) / 1024
    latency = weighted / requests if requests else 0.0
    return latency + 0.05 * watts + 0.7 * money + 2.0 * moved


@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_the_milp_finds_the_best_of_all_plans(
    data: st.DataObject, tiny_problems: st.SearchStrategy[Problem]
) -> None:
    problem = data.draw(tiny_problems)
    options = Options(weights=WEIGHTS)
    plans = list(every_plan(problem))
    note(f"{len(plans)} plans")
    if not plans:
        with pytest.raises(Infeasible) as caught:
            solve(problem, options)
        assert caught.value.reasons
        assert "no plan was found" not in str(caught.value)
        return
    plan = solve(problem, options)
    best = min(each.value for each in plans)
    assert violations(problem, plan) == ()
    assert plan.value == pytest.approx(best, rel=1e-6, abs=1e-6)
    assert plan.bound == pytest.approx(best, rel=1e-6, abs=1e-6)
    assert plan.gap == pytest.approx(0.0, abs=1e-6)


@pytest.mark.parametrize("name", ["first-fit", "greedy-latency"])
@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_a_heuristic_finds_a_right_plan_or_none(
    data: st.DataObject, tiny_problems: st.SearchStrategy[Problem], name: str
) -> None:
    problem = data.draw(tiny_problems)
    try:
        plan = algorithm(name)(problem, Options(weights=WEIGHTS))
    except Infeasible as error:
        assert set(error.reasons) <= {demand.name for demand in problem.demands}  # noqa: PT017
        assert error.reasons  # noqa: PT017
        return
    assert violations(problem, plan) == ()
    assert plan.value == pytest.approx(value(problem, plan.sites))
    assert plan.bound is None
    assert plan.value >= min(each.value for each in every_plan(problem)) - 1e-9

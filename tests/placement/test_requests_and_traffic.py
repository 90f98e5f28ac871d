"""What trying all places cannot tell: whom copies serve when they fill up, and ways of traffic."""

import math
from collections.abc import Iterator
from dataclasses import replace
from fractions import Fraction
from random import Random
from typing import Any

import networkx as nx
import pytest
from hypothesis import given, note, settings
from hypothesis import strategies as st

from placement import rules
from placement.check import violations
from placement.evaluate import evaluate, value_of
from placement.problem import (
    Chain,
    Demand,
    Host,
    Infeasible,
    Link,
    Options,
    Plan,
    Problem,
    Slice,
    Traffic,
)
from placement.solving import solve
from tests.placement import tiny

SEEDS = st.integers(0, 10**9)


# --- copies that fill up --------------------------------------------------------------------------


def best_shares(problem: Problem, plan: Plan, demand: Demand) -> tuple[float, float]:
    """Return requests/s served at most by the copies of a plan, and ms times requests/s then."""
    graph: Any = nx.DiGraph()
    graph.add_nodes_from(["from", "to"])
    hosts = plan.hosts[demand.name]
    for population, rate in demand.rates.items():
        if rate:
            graph.add_edge("from", population, capacity=rate, weight=0)
        for host in set(hosts) if rate else ():
            ms = problem.latency_ms[population].get(host, 10_000)
            graph.add_edge(population, ("at", host), capacity=rate, weight=ms)
    for host in set(hosts):
        there = hosts.count(host) * int(demand.copy_rps or 0)
        graph.add_edge(("at", host), "to", capacity=there, weight=0)
    flow = nx.max_flow_min_cost(graph, "from", "to")
    return float(sum(flow["from"].values())), float(nx.cost_of_flow(graph, flow))


def full_copies(seed: int) -> Problem:
    random = Random(seed)  # noqa: S311 - not for secrets
    problem = tiny.draw(seed, random.choice(["plain", "soft", "share host"]))
    latency = {
        p: {h.name: random.choice([1, 4, 9]) for h in problem.hosts} for p in tiny.POPULATIONS
    }
    demands = tuple(replace(d, copy_rps=random.choice([2.0, 4.0, 7.0])) for d in problem.demands)
    return replace(problem, latency_ms=latency, demands=demands)


@settings(max_examples=80)
@given(seed=SEEDS)
def test_copies_that_fill_up_serve_all_they_can_as_near_as_they_can(seed: int) -> None:
    problem = full_copies(seed)
    weights = {"latency_ms": 1.0, "unserved_rps": 50.0, "unplaced": 0.1}
    bare = replace(problem, demands=tuple(replace(d, copy_rps=None) for d in problem.demands))
    total = sum(rate for d in problem.demands for rate in d.rates.values()) or 1.0
    values = []
    for plan in tiny.every_plan(bare):
        value = 0.1 * evaluate(bare, plan)["unplaced"]
        for demand in problem.demands if problem else ():
            wanted = sum(demand.rates.values()) if demand.replicas else 0.0
            served, ms = best_shares(problem, plan, demand)
            soft = demand.least is not None and demand.least < demand.replicas
            if served < wanted and not soft:
                break
            value += ms / total + 50.0 * (wanted - served)
        else:
            values.append(value)
    try:
        found = solve(problem, Options(weights=weights, solver="highs-direct"))
    except Infeasible:
        assert not values
        return
    note(f"{problem}\n{found}")
    assert found.value == pytest.approx(min(values), rel=1e-5, abs=1e-5)


def test_demand_is_served_after_the_loss_of_any_site() -> None:
    """Ford et al.: two copies would do, the loss of a site takes a third."""
    hosts = tuple(Host(f"h{i}", {"cpu": 4}, site=f"s{i}") for i in range(3))
    web = Demand(
        "web",
        {"cpu": 1},
        replicas=6,
        least=0,
        share_host=True,
        rates={"p": 20.0},
        copy_rps=10.0,
    )
    problem = Problem(hosts, (web,), {"p": {f"s{i}": 1.0 for i in range(3)}})
    options = Options(weights={"cost_hour": 1.0}, order=("unserved_rps", "hosts_on"))
    priced = replace(problem, demands=(replace(web, cost_at={h.name: 1.0 for h in hosts}),))
    assert len(solve(priced, options).hosts["web"]) == 2
    rule = rules.ServeAfterFailure(frozenset({"web"}))
    safe = solve(replace(priced, rules=(rule,)), replace(options, order=("unserved_rps",)))
    assert len(safe.hosts["web"]) == 3
    assert len(set(safe.hosts["web"])) == 3


# --- traffic --------------------------------------------------------------------------------------


def without_limits(problem: Problem, *, bounds: bool) -> Problem:
    links = tuple(replace(each, capacity_mbps=None) for each in problem.links)
    if bounds:
        return replace(problem, links=links)
    traffic = tuple(replace(each, latency_bound_ms=None) for each in problem.traffic)
    chains = tuple(replace(each, latency_bound_ms=None) for each in problem.chains)
    return replace(problem, links=links, traffic=traffic, chains=chains)


@pytest.mark.parametrize("family", ["traffic", "chain"])
@pytest.mark.parametrize("bounds", [True, False])
@settings(max_examples=40)
@given(seed=SEEDS)
def test_traffic_takes_the_best_way(family: str, bounds: bool, seed: int) -> None:
    """With bounds, places are judged by the fastest way; without, each Mbit/s by the cheapest."""
    problem = without_limits(tiny.draw(seed, family), bounds=bounds)
    weights = {"cost_hour": 1.0, "latency_ms": 1.0}
    if not bounds:
        weights["network_mbps"] = 0.5
    least = min(
        (value_of(evaluate(problem, p), weights) for p in tiny.every_plan(problem)), default=None
    )
    try:
        plan = solve(problem, Options(weights=weights, solver="highs-direct"))
    except Infeasible:
        assert least is None
        return
    note(f"{problem}\n{plan}")
    assert violations(problem, plan) == ()
    assert plan.value == pytest.approx(least, rel=1e-5, abs=1e-5)


def flow_problem(capacity: float, bound: float | None = None) -> Problem:
    """Return a problem whose two demands are at two ends of a square of links."""
    return Problem(
        (Host("a", {"cpu": 1}, site="west"), Host("b", {"cpu": 1}, site="east")),
        (Demand("web", {"cpu": 1}), Demand("db", {"cpu": 1})),
        links=(
            Link("west", "north", capacity, 1.0),
            Link("north", "east", capacity, 1.0),
            Link("west", "south", None, 5.0),
            Link("south", "east", None, 5.0),
        ),
        traffic=(Traffic("web", "db", 10.0, bound),),
    )


def test_traffic_is_split_where_a_link_is_narrow() -> None:
    plan = solve(flow_problem(4.0, 10.0), Options(weights={"network_mbps": 1.0}))
    north = sum(flow.share for flow in plan.flows if "north" in {flow.u, flow.v})
    assert north / 2 <= 0.4 + 1e-6
    assert plan.terms["network_mbps"] == pytest.approx(20.0)
    with pytest.raises(Infeasible) as caught:
        solve(flow_problem(4.0, 4.0))  # 0.4 of 2 ms and 0.6 of 10 ms is 6.8 ms
    assert "4 ms from web to db" in caught.value.clash
    assert solve(flow_problem(8.0, 4.0)).terms["hosts_on"] == 2


def test_the_judge_finds_wrong_flows() -> None:
    problem = flow_problem(4.0)
    plan = solve(problem)

    def wrong(**changed: Any) -> str:
        return "; ".join(violations(problem, replace(plan, **changed)))

    assert "says not which links" in wrong(flows=())
    assert "comes from nowhere" in wrong(flows=plan.flows[1:])
    every = (replace(plan.flows[0], u="west", v="north", share=1.0),)
    every += (replace(plan.flows[0], u="north", v="east", share=1.0),)
    if plan.hosts["web"] == ("b",):
        every = tuple(replace(f, u=f.v, v=f.u) for f in every)
    assert "10 Mbit/s planned, 4 there" in wrong(flows=every)
    assert "no flow can be" in wrong(flows=(replace(plan.flows[0], v="moon"),))
    assert "no flow can be" in wrong(flows=(replace(plan.flows[0], share=math.nan),))


@pytest.mark.parametrize("name", ["exact", "ladder", "auto"])
def test_without_links_traffic_takes_no_time_and_no_way(name: str) -> None:
    problem = replace(flow_problem(4.0, 1.0), links=())
    plan = solve(problem, Options(algorithm=name, weights={"network_mbps": 1.0}))
    assert (plan.value, plan.flows) == (10.0, ())


def test_a_chain_counts_the_whole_path() -> None:
    hosts = tuple(Host(f"h{i}", {"cpu": 1}, site=f"s{i}") for i in range(3))
    demands = tuple(Demand(name, {"cpu": 1}) for name in ("fw", "web"))
    links = (Link("s0", "s1", None, 3.0), Link("s1", "s2", None, 1.0))

    def problem(bound: float) -> Problem:
        chain = Chain("c", ("fw", "web"), bound, "p")
        return Problem(hosts, demands, {"p": {"h0": 1.0, "h1": 3.0}}, links=links, chains=(chain,))

    plan = solve(problem(4.0))
    assert (plan.hosts["fw"], plan.hosts["web"]) in {(("h0",), ("h1",)), (("h1",), ("h2",))}
    with pytest.raises(Infeasible) as caught:
        solve(problem(3.0))
    assert "3 ms over chain c" in caught.value.clash


# --- slices ---------------------------------------------------------------------------------------


def admission() -> Iterator[tuple[float, frozenset[str]]]:
    yield 1.0, frozenset({"poor", "rich"})
    yield 3.0, frozenset({"rich"})
    yield 9.0, frozenset()


@pytest.mark.parametrize(("cpu", "admitted"), list(admission()))
def test_slices_are_admitted_where_they_pay(cpu: float, admitted: frozenset[str]) -> None:
    problem = Problem(
        (Host("a", {"cpu": 4}),),
        (Demand("one", {"cpu": cpu}), Demand("two", {"cpu": cpu})),
        slices=(
            Slice("poor", frozenset({"one"}), revenue=2.0),
            Slice("rich", frozenset({"two"}), revenue=5.0),
        ),
    )
    plan = solve(problem, Options(weights={"lost_revenue": 1.0}))
    assert plan.admitted == admitted
    assert Fraction(plan.value) == 7 - 2 * ("poor" in admitted) - 5 * ("rich" in admitted)

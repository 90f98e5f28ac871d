"""What each term of a finished plan is: the only definition of the objectives.

Every algorithm's plan gets its `terms` here, so they compare. Written from the meaning of the
words, without the model: `placement.objectives` says the same over columns, and tests compare the
two.
"""

import math
from collections.abc import Callable, Mapping
from typing import Any

from placement.amounts import State, amount, copies, moved
from placement.problem import CPU, SITE, Plan, Problem

UNITS: Mapping[str, str] = {
    "latency_ms": "ms",
    "wake_ms": "ms",
    "energy_w": "W",
    "cost_hour": "money/hour",
    "network_mbps": "Mbit/s times cost",
    "hosts_on": "hosts",
    "utilisation": "share of the fullest",
    "migrations": "moved copies times cost",
    "broken": "weighted amount",
    "unplaced": "weighted copies",
    "unserved_rps": "requests/s",
    "lost_revenue": "money/hour",
    "worst_latency_ms": "ms",
}


def evaluate(problem: Problem, plan: Plan) -> dict[str, float]:
    """Return the value of every term for a plan whose demands and hosts all exist."""
    state = State.of(problem, plan)
    mean, worst, unserved = _requests(state)
    terms = {
        "latency_ms": mean,
        "wake_ms": _wake(state),
        "energy_w": _energy(state),
        "cost_hour": _cost(state),
        "network_mbps": _network(state),
        "hosts_on": float(len(_on(state))),
        "utilisation": _peak(state),
        "migrations": sum(d.move_cost * moved(state, d.name) for d in problem.demands),
        "broken": sum(r.weight * amount(state, r) for r in problem.rules if not r.must),
        "unplaced": _unplaced(state),
        "unserved_rps": unserved,
        "lost_revenue": _lost_revenue(state),
        "worst_latency_ms": worst,
    }
    return {name: float(value) for name, value in terms.items()}


def value_of(terms: Mapping[str, float], weights: Mapping[str, float]) -> float:
    """Return the weighted sum of terms."""
    return sum(weight * terms[name] for name, weight in weights.items())


def refused(problem: Problem, plan: Plan) -> frozenset[str]:
    """Return the demands of slices that a plan refuses."""
    out = (s for s in problem.slices if s.revenue is not None and s.name not in plan.admitted)
    return frozenset(name for each in out for name in each.demands)


def _requests(state: State) -> tuple[float, float, float]:
    """Return mean and worst latency of what is served, and requests per second that are not."""
    total = weighted = worst = unserved = 0.0
    out = refused(state.problem, state.plan)
    for demand in state.problem.demands:
        soft = demand.least is not None and demand.least < demand.replicas
        for population, rate in demand.rates.items():
            total += rate
            if rate <= 0 or not demand.replicas:
                continue
            served = state.served(demand, population)
            weighted += rate * sum(share * ms for share, ms in served)
            worst = max([worst, *(ms for share, ms in served if share > 1e-6)])
            if soft and demand.name not in out:
                unserved += rate * max(0.0, 1.0 - sum(share for share, _ in served))
    return weighted / total if total else 0.0, worst, unserved


def _wake(state: State) -> float:
    total = sum(rate for demand in state.problem.demands for rate in demand.rates.values())
    delay = 0.0
    for demand in state.problem.demands:
        requests_s = sum(demand.rates.values())
        if demand.cold is not None:
            cold = demand.cold
        elif demand.idle_s is None:
            cold = 0.0
        else:
            cold = math.exp(-requests_s * demand.idle_s)
        for host, flavour in copies(demand, state.plan):
            boot_ms = demand.boot_ms if flavour.boot_ms is None else flavour.boot_ms
            each = boot_ms * state.hosts[host].boot_factor / demand.replicas
            delay += requests_s * cold * each
    return delay / total if total else 0.0


def _on(state: State) -> set[str]:
    return {host for counts in state.counts.values() for host, n in counts.items() if n}


def _energy(state: State) -> float:
    watts = 0.0
    for name in sorted(_on(state)):
        host = state.hosts[name]
        busy = state.loads[name][CPU] / host.room(CPU) if host.room(CPU) else 0.0
        watts += host.idle_w + (host.busy_w - host.idle_w) * busy
    return watts


def _cost(state: State) -> float:
    money = sum(state.hosts[name].host_hour for name in _on(state))
    for name, load in state.loads.items():
        money += sum(state.hosts[name].unit_hour.get(k, 0.0) * units for k, units in load.items())
    for demand in state.problem.demands:
        counts = state.counts[demand.name]
        money += sum(demand.cost_at.get(host, 0.0) * n for host, n in counts.items())
    return money


def _peak(state: State) -> float:
    return max(
        (
            units / state.hosts[name].room(resource)
            for name, load in state.loads.items()
            for resource, units in load.items()
            if state.hosts[name].room(resource) > 0
        ),
        default=0.0,
    )


def _unplaced(state: State) -> float:
    out = refused(state.problem, state.plan)
    return sum(
        demand.weight * (demand.replicas - state.placed(demand.name))
        for demand in state.problem.demands
        if demand.least is not None and demand.name not in out
    )


def _lost_revenue(state: State) -> float:
    return sum(
        each.revenue
        for each in state.problem.slices
        if each.revenue is not None and each.name not in state.plan.admitted
    )


# --- the network --------------------------------------------------------------------------------


def traffic_of(problem: Problem) -> dict[tuple[str, str], float]:
    """Return the Mbit/s from demand to demand: traffic, and the hops of chains."""
    mbps: dict[tuple[str, str], float] = {}
    for each in problem.traffic:
        mbps[each.source, each.target] = mbps.get((each.source, each.target), 0.0) + each.mbps
    for chain in problem.chains:
        for i in range(len(chain.demands) - 1):
            key = chain.demands[i], chain.demands[i + 1]
            mbps[key] = mbps.get(key, 0.0) + chain.mbps
    return mbps


def _network(state: State) -> float:
    length = path_lengths(state, "cost")
    return sum(
        mbps * length(*ends)
        for ends, mbps in traffic_of(state.problem).items()
        if mbps and all(state.placed(name) for name in ends)
    )


def path_lengths(state: State, weight: str) -> Callable[[str, str], float]:
    """Return what gives the mean length of the way from one demand to another.

    By cost or by latency_ms. Over the links that the plan says; else over the shortest ways, with
    the copies at both ends paired as well as can be. Infinite if there is no way.
    """
    links = {frozenset((link.a, link.b)): link for link in state.problem.links}
    said: dict[tuple[str, str], float] = {}
    for flow in state.plan.flows:
        link = links.get(frozenset((flow.u, flow.v)))
        each = flow.share * float(getattr(link, weight)) if link else 0.0
        ends = (flow.source, flow.target)
        said[ends] = said.get(ends, 0.0) + each
    distances: dict[tuple[str, str], float] = {}

    def length(source: str, target: str) -> float:
        if (source, target) in said:
            return said[source, target]
        if not distances:
            distances.update(_site_distances(state.problem, weight))
        here, there = (state.per_domain([name], SITE) for name in (source, target))
        return _transport(here, there, distances)

    return length


def _site_distances(problem: Problem, weight: str) -> dict[tuple[str, str], float]:
    """Return the length of the shortest way between any two sites that are joined."""
    sites = {host.domain(SITE) for host in problem.hosts}
    if not problem.links:
        far = 1.0 if weight == "cost" else 0.0
        return {(a, b): 0.0 if a == b else far for a in sites for b in sites}
    import networkx as nx  # noqa: PLC0415 - seldom used, and a wake should not wait for it

    graph: Any = nx.Graph()
    graph.add_nodes_from(sites)
    for link in problem.links:
        graph.add_edge(link.a, link.b, length=getattr(link, weight))
    return {
        (a, b): float(length)
        for a in sites
        for b, length in nx.single_source_dijkstra_path_length(graph, a, weight="length").items()
    }


def _transport(
    sources: Mapping[str, int],
    targets: Mapping[str, int],
    distance: Mapping[tuple[str, str], float],
) -> float:
    """Return the least mean distance when every source copy sends evenly, and every target gets."""
    out, into = sum(sources.values()), sum(targets.values())
    if len(sources) == 1 or len(targets) == 1:
        return sum(
            n * m * distance.get((a, b), math.inf)
            for a, n in sources.items()
            for b, m in targets.items()
        ) / (out * into)
    import networkx as nx  # noqa: PLC0415 - seldom used, and a wake should not wait for it

    scale = 1e6  # network simplex wants whole numbers
    graph: Any = nx.DiGraph()
    for a, n in sources.items():
        graph.add_node(("out", a), demand=-n * into)
    for b, n in targets.items():
        graph.add_node(("into", b), demand=n * out)
    for a in sources:
        for b in targets:
            if (a, b) in distance:
                graph.add_edge(("out", a), ("into", b), weight=round(distance[a, b] * scale))
    try:
        return float(nx.min_cost_flow_cost(graph)) / scale / (out * into)
    except nx.NetworkXUnfeasible:
        return math.inf

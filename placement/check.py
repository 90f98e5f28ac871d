"""An independent judge of plans.

`violations` says in plain sentences what is wrong with a plan. It is written from the meaning of
`Problem` and of the rules alone and shares no code with the model or the heuristics, so that a
mistake there cannot hide here. Tests use it on every algorithm, and the orchestrator before it
applies a plan.
"""

import math
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

from placement.amounts import TOLERANCE, State, amount, copies, needs
from placement.evaluate import path_lengths, refused, traffic_of
from placement.problem import (
    EVERY_COPY,
    MAKE_BEFORE_BREAK,
    SITE,
    Demand,
    Flavour,
    Host,
    Plan,
    Problem,
)
from placement.rules import told

SHARES = 1e-5  # shares of requests and of traffic are sums of what a solver rounded


def violations(problem: Problem, plan: Plan) -> tuple[str, ...]:
    """Return everything that makes a plan no answer to a problem; empty when it is one."""
    unknown = tuple(_names(problem, plan))
    state = State.of(problem, plan)
    return (
        *unknown,
        *_copies(state),
        *_flavours(state),
        *_room(state),
        *(wrong for demand in problem.demands for wrong in _hosts(state, demand)),
        *(wrong for demand in problem.demands for wrong in _requests(state, demand)),
        *(
            f"broken: {told(rule)} (by {by:g})"
            for rule in problem.rules
            if rule.must and (by := amount(state, rule)) > 0
        ),
        *_slices(state),
        *_both_sides(state),
        *_flows(state),
        *_paths(state),
    )


def _names(problem: Problem, plan: Plan) -> Iterator[str]:
    demands = {demand.name for demand in problem.demands}
    hosts = {host.name for host in problem.hosts}
    for name, chosen in plan.hosts.items():
        if name not in demands:
            yield f"{name}: nobody demanded it"
        yield from (f"{name}: there is no host {host}" for host in chosen if host not in hosts)
    for said in (plan.flavours, plan.served):
        yield from (f"{name}: nobody demanded it" for name in said if name not in demands)
    refusable = {each.name for each in problem.slices if each.revenue is not None}
    yield from (f"{name}: no such slice to admit" for name in sorted(plan.admitted - refusable))


def _copies(state: State) -> Iterator[str]:
    out = refused(state.problem, state.plan)
    for demand in state.problem.demands:
        chosen = state.plan.hosts.get(demand.name, ())
        most = 0 if demand.name in out else demand.replicas
        least = most if demand.least is None else min(demand.least, most)
        if len(chosen) > most or len(chosen) < least:
            wanted = f"{most}" if least == most else f"{least} to {most}"
            because = " (its slice is refused)" if demand.name in out else ""
            yield f"{demand.name}: {len(chosen)} copies planned, {wanted} demanded{because}"
        if not demand.share_host:
            for host, count in Counter(chosen).items():
                if count > 1:
                    yield f"{demand.name}: {count} copies share {host}"


def _flavours(state: State) -> Iterator[str]:
    for demand in state.problem.demands:
        names = state.plan.flavours.get(demand.name)
        if names is None:
            continue
        known = {flavour.name for flavour in demand.flavours} or {""}
        if len(names) != len(state.plan.hosts.get(demand.name, ())):
            yield f"{demand.name}: {len(names)} flavours for its copies"
        yield from (f"{demand.name}: no flavour {name!r}" for name in names if name not in known)
        if demand.one_flavour and len(set(names)) > 1:
            yield f"{demand.name}: copies in {len(set(names))} flavours, one is wanted"


def _room(state: State) -> Iterator[str]:
    for name, load in state.loads.items():
        for resource, used in sorted(load.items()):
            there = state.hosts[name].room(resource)
            if used > there + TOLERANCE:
                yield f"{name}: {used:g} {resource} planned, {there:g} there"


def _hosts(state: State, demand: Demand) -> Iterator[str]:
    for name, flavour in copies(demand, state.plan):
        if name in state.hosts:
            for wrong in _copy(state, demand, state.hosts[name], flavour):
                yield f"{demand.name} at {name}: {wrong}"


def _copy(state: State, demand: Demand, host: Host, flavour: Flavour) -> Iterator[str]:
    for why in (
        state.problem.unfit.get(demand.name, {}).get(host.name),
        flavour.unfit.get(host.name),
    ):
        if why:
            yield f"the host cannot run it: {why}"
    for key, value in sorted(demand.labels):
        if (key, value) not in host.labels:
            yield f"the host has no label {key}={value}"
    bound = demand.latency_bound_ms
    for population, rate in demand.rates.items():
        if bound is None or rate <= 0 or demand.bound_for != EVERY_COPY:
            continue
        far = state.far(population, host.name)
        if math.isinf(far):
            yield f"{population} has no path to it"
        elif far > bound:
            yield f"farther than {bound:g} ms from {population}"


def _requests(state: State, demand: Demand) -> Iterator[str]:
    """Say where requests are not served that must be, or by copies that cannot."""
    if not demand.replicas or demand.name in refused(state.problem, state.plan):
        return
    hard = demand.least is None or demand.least == demand.replicas
    rates = {population: rate for population, rate in demand.rates.items() if rate > 0}
    if demand.name in state.plan.served:
        yield from _shared(state, demand, rates, hard=hard)
        return
    if demand.copy_rps is not None and rates:
        yield f"{demand.name}: its copies fill up, but the plan says not whom they serve"
    for population in rates:
        if hard and state.placed(demand.name) and not state.served(demand, population):
            bound = demand.latency_bound_ms
            yield f"{demand.name}: no copy within {bound:g} ms of {population}"


def _shared(
    state: State, demand: Demand, rates: Mapping[str, float], *, hard: bool
) -> Iterator[str]:
    """Judge the shares of requests that a plan says."""
    said = state.plan.served[demand.name]
    busy: Counter[str] = Counter()
    for population, rate in rates.items():
        shares = said.get(population, {})
        for host, share in shares.items():
            busy[host] += rate * share  # type: ignore[assignment]
            if not share >= -SHARES or not state.counts[demand.name][host]:
                yield f"{demand.name}: {population} cannot be served at {host}"
            elif _too_far(state, demand, population, host, share):
                yield f"{demand.name}: {population} is served at {host}, which is too far"
        total = sum(shares.values())
        if not total <= 1 + SHARES or (hard and total < 1 - SHARES):
            yield f"{demand.name}: {total:.6g} of the requests of {population} are served"
    for host, used in busy.items():
        there = state.counts[demand.name][host] * (demand.copy_rps or math.inf)
        if demand.copy_rps is not None and used > there + SHARES * max(1.0, there):
            yield f"{demand.name} at {host}: {used:g} requests/s, {there:g} can be served"


def _too_far(state: State, demand: Demand, population: str, host: str, share: float) -> bool:
    bound = demand.latency_bound_ms
    return bound is not None and share > SHARES and state.far(population, host) > bound


def _slices(state: State) -> Iterator[str]:
    for each in state.problem.slices:
        if not each.isolated:
            continue
        mine = {h for d in each.demands for h, n in state.counts[d].items() if n}
        for name in set(state.demands) - each.demands:
            for where in sorted(mine & {h for h, n in state.counts[name].items() if n}):
                yield f"{where}: {name} shares it with the isolated slice {each.name}"
    for name, host in state.hosts.items():
        for resource in sorted({k for each in state.problem.slices for k in each.share}):
            kept = _kept_for_slices(state, name, resource)
            if kept > host.room(resource) + TOLERANCE:
                there = host.room(resource)
                yield f"{name}: {kept:g} {resource} used or kept for slices, {there:g} there"


def _kept_for_slices(state: State, host: str, resource: str) -> float:
    """Return what is used on a host, each slice counting its share at least."""
    used = {
        demand.name: sum(
            needs(demand, flavour, host).get(resource, 0.0)
            for where, flavour in copies(demand, state.plan)
            if where == host
        )
        for demand in state.problem.demands
    }
    total = sum(used.values())
    for each in state.problem.slices:
        share = each.share.get(resource, 0.0)
        if share > 0 and (each.revenue is None or each.name in state.plan.admitted):
            mine = sum(used[name] for name in each.demands)
            total += max(0.0, share * state.hosts[host].room(resource) - mine)
    return total


def _both_sides(state: State) -> Iterator[str]:
    """Say where copies that come and copies that have not left yet need more than there is."""
    movers = [
        demand
        for demand in state.problem.demands
        if demand.move == MAKE_BEFORE_BREAK and state.now[demand.name]
    ]
    for name, host in state.hosts.items() if movers else ():
        for resource in sorted(state.problem.held_while_moving):
            old = 0.0
            for demand in movers:
                leaving = state.now[demand.name][name] - state.counts[demand.name][name]
                first = next(iter(demand.flavours), Flavour(""))
                old += max(0, leaving) * needs(demand, first, name).get(resource, 0.0)
            used = old + state.loads[name][resource]
            if old > 0 and used > host.room(resource) + TOLERANCE:
                there = host.room(resource)
                yield f"{name}: {used:g} {resource} needed while copies move, {there:g} there"


# --- the network --------------------------------------------------------------------------------


def _flows(state: State) -> Iterator[str]:
    """Say where flows are no way from the one end to the other, or fill a link too much."""
    mbps = traffic_of(state.problem)
    used: Counter[tuple[str, str]] = Counter()
    joined = {frozenset((link.a, link.b)) for link in state.problem.links}
    balance: dict[tuple[str, str], Counter[str]] = {}
    for flow in state.plan.flows:
        ends = (flow.source, flow.target)
        if ends not in mbps or frozenset((flow.u, flow.v)) not in joined or not flow.share >= 0:
            yield f"{flow.source} to {flow.target}: no flow can be from {flow.u} to {flow.v}"
            continue
        used[flow.u, flow.v] += mbps[ends] * flow.share  # type: ignore[assignment]
        node = balance.setdefault(ends, Counter())
        node[flow.u] += flow.share  # type: ignore[assignment]
        node[flow.v] -= flow.share  # type: ignore[assignment]
    for ends in mbps:
        yield from _unbalanced(state, ends, balance.get(ends))
    for link in state.problem.links:
        if link.capacity_mbps is None:
            continue
        for u, v in ((link.a, link.b), (link.b, link.a)):
            if used[u, v] > link.capacity_mbps * (1 + SHARES) + SHARES:
                yield f"{u} to {v}: {used[u, v]:g} Mbit/s planned, {link.capacity_mbps:g} there"


def _unbalanced(state: State, ends: tuple[str, str], balance: Counter[str] | None) -> Iterator[str]:
    source, target = ends
    placed = [state.placed(name) for name in ends]
    if not all(placed):
        return
    net: Counter[str] = Counter()
    for name, count, sign in zip(ends, placed, (1, -1), strict=True):
        for site, n in state.per_domain([name], SITE).items():
            net[site] += sign * n / count  # type: ignore[assignment]
    if balance is None:
        yield from _no_way(state, ends, net)
        limited = any(link.capacity_mbps is not None for link in state.problem.links)
        if limited and any(abs(n) > SHARES for n in net.values()):
            yield f"{source} to {target}: the plan says not which links the traffic takes"
        return
    for node in sorted(set(net) | set(balance)):
        if abs(net[node] - balance[node]) > SHARES:
            yield f"{source} to {target}: traffic comes from nowhere or ends at {node}"


def _no_way(state: State, ends: tuple[str, str], net: Counter[str]) -> Iterator[str]:
    """Say where more leaves sites that are joined by links than arrives there."""
    if not state.problem.links:
        return
    import networkx as nx  # noqa: PLC0415 - seldom used, and a wake should not wait for it

    graph: Any = nx.Graph((link.a, link.b) for link in state.problem.links)
    graph.add_nodes_from(net)
    for part in nx.connected_components(graph):
        if sum(net[node] for node in part) > SHARES:
            yield f"{ends[0]} to {ends[1]}: no links lead there from {', '.join(sorted(part))}"


def _paths(state: State) -> Iterator[str]:
    """Say which pairs and chains are too slow."""
    length = path_lengths(state, "latency_ms")
    for each in state.problem.traffic:
        if each.latency_bound_ms is None:
            continue
        if state.placed(each.source) and state.placed(each.target):
            ms = length(each.source, each.target)
            if ms > each.latency_bound_ms * (1 + SHARES) + TOLERANCE:
                yield f"{each.source} to {each.target}: {ms:g} ms, bound {each.latency_bound_ms:g}"
    for chain in state.problem.chains:
        if chain.latency_bound_ms is None or not all(map(state.placed, chain.demands)):
            continue
        ms = sum(
            length(chain.demands[i], chain.demands[i + 1]) for i in range(len(chain.demands) - 1)
        )
        if chain.population and chain.demands:
            first = state.counts[chain.demands[0]]
            ms += max(state.far(chain.population, host) for host in first)
        if ms > chain.latency_bound_ms * (1 + SHARES) + TOLERANCE:
            yield f"chain {chain.name}: {ms:g} ms, bound {chain.latency_bound_ms:g}"

"""Traffic between demands as flows on the graph of sites: one unit per traffic, many at once.

The flow form has the bound of the far larger product form, and it carries routes and link
capacities for free. It lives on sites, not on hosts.
"""

import math

import numpy as np

from placement.latencies import UNREACHABLE_MS, latency_table
from placement.matrix import Entries, Linear
from placement.model import Flows, Model
from placement.problem import SITE, Problem

HUB = ""  # joins all sites where no link is known; no site has this name


def wanted(problem: Problem) -> dict[tuple[str, str], float]:
    """Return Mbit/s by source and target: what is asked for, and the hops of chains."""
    mbps: dict[tuple[str, str], float] = {}
    for traffic in problem.traffic:
        key = (traffic.source, traffic.target)
        mbps[key] = mbps.get(key, 0.0) + traffic.mbps
    for chain in problem.chains:
        for key in zip(chain.demands, chain.demands[1:], strict=False):
            mbps[key] = mbps.get(key, 0.0) + chain.mbps
    return mbps


def required(problem: Problem) -> bool:
    """Return whether flows decide what is allowed, and not only what is best."""
    bounds = [each.latency_bound_ms for each in problem.traffic]
    bounds += [each.latency_bound_ms for each in problem.chains]
    limits = [each.capacity_mbps for each in problem.links]
    return any(each is not None for each in bounds) or (
        bool(wanted(problem)) and (any(each is not None for each in limits) or not problem.joined())
    )


def flows(model: Model) -> Flows:
    """Return the columns f with their rows, made once.

    At each node v: sum of f[t] out - sum of f[t] in = n[a,v] / copies[a] - n[b,v] / copies[b], for
    traffic t from a to b; sum over t of mbps[t] * f[t,e] <= capacity[e].
    """
    if model.flows is not None:
        return model.flows
    arrays, problem = model.arrays, model.arrays.problem
    mbps = wanted(problem)
    sites = tuple(dict.fromkeys(host.domain(SITE) for host in problem.hosts))
    arcs = _arcs(problem, sites)
    nodes = {name: i for i, name in enumerate(dict.fromkeys([*sites, *(u for u, *_ in arcs)]))}
    count = len(arcs)
    t_of, e_of = np.divmod(np.arange(len(mbps) * count), max(count, 1))
    columns = model.builder.add_columns("f", len(t_of), 1, t=t_of, e=e_of)
    found = Flows(
        first=int(columns[0]) if len(columns) else 0,
        traffic=tuple(mbps),
        mbps=np.array(list(mbps.values())),
        arcs=tuple((u, v) for u, v, *_ in arcs),
        latency_ms=np.array([ms for _, _, ms, _, _ in arcs]),
        cost=np.array([cost for _, _, _, cost, _ in arcs]),
    )
    model.flows = found
    tail = np.array([nodes[u] for u, *_ in arcs], dtype=np.int64)
    head = np.array([nodes[v] for _, v, *_ in arcs], dtype=np.int64)
    site_of, _ = arrays.domains(SITE)
    for t, ends in enumerate(found.traffic):
        entries = Entries()
        entries.add(tail, found.of(t), 1.0)
        entries.add(head, found.of(t), -1.0)
        for name, sign in zip(ends, (-1.0, 1.0), strict=True):
            c = model.class_of[name]
            pairs = arrays.of(c)
            entries.add(site_of[arrays.pair_host[pairs]], model.n[pairs], sign / arrays.copies[c])
        i = np.arange(len(nodes))
        model.builder.add_rows("flow", len(nodes), entries, lower=0.0, upper=0.0, t=t, v=i)
    capacity = np.array([each for *_, each in arcs])
    for e in np.flatnonzero(np.isfinite(capacity)):
        used = Linear()
        used.add(found.first + np.arange(len(mbps)) * count + e, found.mbps)
        model.builder.add_row(f"link_capacity_e{e}", used, upper=float(capacity[e]))
    return found


def bounds(model: Model) -> None:
    """Sum over e of latency[e] * f[t,e] <= bound[t].

    For a chain: sum over h of latency[p,h] * n[first,h] + all its hops <= bound.
    """
    problem = model.arrays.problem
    if not required(problem):
        return
    some = flows(model)
    number = {key: t for t, key in enumerate(some.traffic)}
    for i, traffic in enumerate(problem.traffic):
        if traffic.latency_bound_ms is not None:
            path = Linear()
            path.add(some.of(number[traffic.source, traffic.target]), some.latency_ms)
            model.builder.add_row(f"pair_latency_{i}", path, upper=traffic.latency_bound_ms + 1e-9)
    for i, chain in enumerate(problem.chains):
        if chain.latency_bound_ms is None:
            continue
        path = Linear()
        for key in zip(chain.demands, chain.demands[1:], strict=False):
            path.add(some.of(number[key]), some.latency_ms)
        if chain.population and chain.demands:
            pairs = model.arrays.of(model.class_of[chain.demands[0]])
            (far,) = latency_table(problem, (chain.population,))
            ms = np.minimum(far, UNREACHABLE_MS)[model.arrays.pair_host[pairs]]
            path.add(model.n[pairs], ms)
        model.builder.add_row(f"chain_latency_{i}", path, upper=chain.latency_bound_ms + 1e-9)


def carried(model: Model) -> Linear:
    """Sum over t,e of cost[e] * mbps[t] * f[t,e]."""
    found = Linear()
    if wanted(model.arrays.problem):
        some = flows(model)
        for t, mbps in enumerate(some.mbps.tolist()):
            found.add(some.of(t), mbps * some.cost)
    return found


def _arcs(problem: Problem, sites: tuple[str, ...]) -> list[tuple[str, str, float, float, float]]:
    """Return tail, head, ms, cost and capacity of each arc, two for each link."""
    if not problem.links:
        return [(u, v, 0.0, 0.5, math.inf) for site in sites for u, v in ((site, HUB), (HUB, site))]
    return [
        (
            u,
            v,
            link.latency_ms,
            link.cost,
            math.inf if link.capacity_mbps is None else link.capacity_mbps,
        )
        for link in problem.links
        for u, v in ((link.a, link.b), (link.b, link.a))
    ]

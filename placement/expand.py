"""From a solution in classes to a plan in copies, with terms, bound, gap and reasons.

Expansion moves no more copies than the solution does: members whose copy runs where the class keeps
one are served first. Equal solutions give equal plans.
"""

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from placement.amounts import NO_PATH_MS, State
from placement.arrays import Arrays
from placement.evaluate import evaluate
from placement.matrix import Floats, Ints
from placement.model import Model
from placement.problem import Flow, Plan, Problem
from placement.rows import network
from placement.rows.requests import groups

Slot = tuple[int, int]  # host, flavour


def plan_of_counts(arrays: Arrays, counts: Ints) -> Plan:
    """Return the bare plan of a count per pair: hosts and flavours, not judged yet.

    Every algorithm on arrays ends here, and passes the plan on to `judged`.
    """
    hosts: dict[str, tuple[str, ...]] = {d.name: () for d in arrays.problem.demands}
    chosen: dict[str, tuple[str, ...]] = dict.fromkeys(hosts, ())
    placed = np.flatnonzero(counts)
    first = np.searchsorted(arrays.pair_class[placed], np.arange(arrays.classes + 1))
    for c, members in enumerate(arrays.members):
        slots: list[Slot] = []
        for pair in placed[first[c] : first[c + 1]].tolist():
            slot = (int(arrays.pair_host[pair]), int(arrays.pair_flavour[pair]))
            slots += [slot] * int(counts[pair])
        flavours = arrays.demand(c).flavours
        for index, mine in zip(members, _dealt(arrays, members, slots), strict=True):
            name = arrays.problem.demands[index].name
            hosts[name] = tuple(arrays.hosts[h] for h, _ in mine)
            chosen[name] = tuple(flavours[f].name if flavours else "" for _, f in mine)
    return Plan(hosts, value=0.0, flavours=chosen)


def _dealt(arrays: Arrays, members: tuple[int, ...], slots: list[Slot]) -> list[list[Slot]]:
    """Return the slots of each member: no host twice for one member, as far as that can be.

    Slots come by host, and are dealt in turn, so that copies on one host go to different members.
    """
    if len(members) == 1:
        return [slots]
    problem = arrays.problem
    if problem.demands[members[0]].replicas > 1:
        return [slots[i :: len(members)] for i in range(len(members))]
    dealt: list[list[Slot]] = [[] for _ in members]
    left: dict[str, list[Slot]] = {}
    for slot in reversed(slots):
        left.setdefault(arrays.hosts[slot[0]], []).append(slot)
    for i, index in enumerate(members):
        for host in problem.current.get(problem.demands[index].name, ()):
            if left.get(host):
                dealt[i].append(left[host].pop())
    rest = [slot for host in reversed(left) for slot in reversed(left[host])]
    for mine, slot in zip([each for each in dealt if not each], rest, strict=False):
        mine.append(slot)
    return dealt


def plan_of_solution(model: Model, x: Floats) -> Plan:
    """Return the bare plan of a solution of the model, with shares, flows and admitted slices."""
    arrays = model.arrays
    counts = np.rint(x[model.n]).astype(np.int64)
    plan = plan_of_counts(arrays, counts)
    admitted = frozenset(name for name, column in model.admitted.items() if x[column] > 0.5)
    return replace(
        plan, admitted=admitted, served=_served(model, x, counts), flows=_flows(model, x)
    )


def _served(model: Model, x: Floats, counts: Ints) -> dict[str, dict[str, dict[str, float]]]:
    """Return the shares of demands whose copies fill up; a group's share by its copies."""
    arrays, found = model.arrays, {}
    if model.shares is None:
        return {}
    of, _ = groups(arrays)
    for c in range(arrays.classes):
        demand = arrays.demand(c)
        if demand.copy_rps is None or not np.any(arrays.rate_class == c):
            continue
        pairs = arrays.of(c)
        here = np.bincount(arrays.pair_host[pairs], counts[pairs], minlength=len(arrays.hosts))
        of_group = np.bincount(of, here)
        mine: dict[str, dict[str, float]] = {
            arrays.populations[arrays.rate_population[r]]: {}
            for r in np.flatnonzero(arrays.rate_class == c)
        }
        for i in np.flatnonzero(arrays.rate_class[model.shares.rate] == c).tolist():
            share, g = float(x[model.shares.column[i]]), int(model.shares.group[i])
            if share <= 1e-9 or not of_group[g]:
                continue
            row = mine[arrays.populations[arrays.rate_population[model.shares.rate[i]]]]
            for h in np.flatnonzero((of == g) & (here > 0)).tolist():
                row[arrays.hosts[h]] = share * float(here[h] / of_group[g])
        found[demand.name] = mine
    return found


def _flows(model: Model, x: Floats) -> tuple[Flow, ...]:
    """Return the flows where they matter; elsewhere traffic takes the shortest ways anyway."""
    some = model.flows
    problem = model.arrays.problem
    if some is None or not problem.links or not network.required(problem):
        return ()
    return tuple(
        Flow(*some.traffic[t], *some.arcs[e], min(1.0, float(x[column])))
        for t in range(len(some.traffic))
        for e, column in enumerate(some.of(t).tolist())
        if x[column] > 1e-9
    )


def judged(
    problem: Problem,
    plan: Plan,
    value: Mapping[str, float],
    *,
    bound: float,
    algorithm: str,
    solver: str = "",
    build_s: float = 0.0,
    solve_s: float = 0.0,
) -> Plan:
    """Return a plan with its terms, value, gap and reasons; hosts of each demand nearest first.

    `value` are the weights that make the value. A bound above the value or below 0 is rounding.
    """
    terms = evaluate(problem, plan)
    total = sum(weight * terms[name] for name, weight in value.items())
    bound = min(max(bound, 0.0), total)
    state = State.of(problem, plan)
    hosts: dict[str, tuple[str, ...]] = {}
    flavours: dict[str, tuple[str, ...]] = {}
    why: dict[str, str] = {}
    for demand in problem.demands:
        chosen = plan.hosts.get(demand.name, ())
        names = plan.flavours.get(demand.name) or ("",) * len(chosen)
        mean = {host: _mean_ms(state, demand.rates, host) for host in chosen}
        order = sorted(range(len(chosen)), key=lambda i: (mean[chosen[i]], chosen[i], names[i]))
        hosts[demand.name] = tuple(chosen[i] for i in order)
        flavours[demand.name] = tuple(names[i] for i in order)
        asked = any(demand.rates.values())  # else there is no latency to tell
        listed = ", ".join(
            _told(chosen[i], names[i], mean[chosen[i]] if asked else None) for i in order
        )
        told = " (mean one-way latency)" if asked and chosen else ""
        why[demand.name] = f"{algorithm} chose {listed or 'no host'}{told}"
    return replace(
        plan,
        hosts=hosts,
        flavours=flavours,
        value=total,
        terms=terms,
        bound=bound,
        gap=(total - bound) / max(abs(total), 1e-9),
        algorithm=algorithm,
        solver=solver,
        build_s=build_s,
        solve_s=solve_s,
        why=why,
    )


def _told(host: str, flavour: str, ms: float | None) -> str:
    parts = [*([flavour] if flavour else []), *([] if ms is None else [f"{ms:.1f} ms"])]
    return f"{host} ({', '.join(parts)})" if parts else host


def _mean_ms(state: State, rates: Mapping[str, float], host: str) -> float:
    total = sum(rates.values())
    if not total:
        return 0.0
    far = [(rate, state.far(population, host)) for population, rate in rates.items() if rate > 0]
    return sum([rate / total * min(ms, NO_PATH_MS) for rate, ms in far])

"""Which pairs of class, host and flavour there are: the filter of candidates.

What can never change is filtered here, chunk by chunk of classes so that memory stays bounded:
must-rules of the kinds `Ban`, `Fence` and `Quarantine`, labels, unfit hosts, size, and the latency
bound; then, if asked for, all but the nearest hosts. `placement.arrays` keeps the result.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from placement.classes import Filters, flavours
from placement.latencies import UNREACHABLE_MS, latency_table
from placement.matrix import ROUNDING, Bools, Floats, Ints
from placement.problem import EVERY_COPY, Demand, Flavour, Problem
from placement.rules import Quarantine

SPREAD = 7919  # a prime: classes take equally near hosts from that many places further on
CHUNK = 512  # classes filtered at once: bounds the memory of a dense step

Variants = list[tuple[int, int, Flavour]]
Overrides = dict[tuple[int, int], Floats]


@dataclass(frozen=True, slots=True, eq=False)
class Scope:
    """What the filter of candidates looks at."""

    problem: Problem
    filters: Filters
    demands: list[Demand]
    hosts: Mapping[str, int]
    resources: tuple[str, ...]
    room: Floats
    latency: Floats
    rates: tuple[Ints, Ints, Floats]
    worst_ms: float | None
    now: tuple[Ints, Ints, Ints]


def pairs(
    scope: Scope,
    nearest: int | None,
    extra: frozenset[tuple[str, str]],
    members: tuple[tuple[int, ...], ...],
) -> tuple[Ints, Ints, Ints, Floats]:
    """Return class, host, flavour and need (P x K) of each pair, sorted by the first three.

    `nearest` keeps that many hosts of each class, those where copies run now, and those of `extra`
    (demand, host).
    """
    masks: dict[object, Bools] = {}
    kept = _always(scope, extra, members) if nearest is not None else {}
    found = []
    for first in range(0, len(scope.demands), CHUNK):
        chunk = range(first, min(first + CHUNK, len(scope.demands)))
        variants = [
            (c, f, flavour)
            for c in chunk
            if scope.demands[c].replicas
            for f, flavour in enumerate(flavours(scope.demands[c]))
        ]
        if not variants:
            continue
        ok, base, at = _large_enough(scope, masks, variants)
        of = np.array([c for c, _, _ in variants])
        near = _near(scope, chunk, wanted=nearest is not None)
        if near is not None:
            allowed, mean = near
            ok &= allowed[of - first]
            if nearest is not None:
                _keep_nearest(ok, of, mean[of - first], nearest, kept)
        v, h = np.nonzero(ok)
        found.append((of[v], h, np.array([f for _, f, _ in variants])[v], _needs(base, at, v, h)))
    if not found:
        return _empty(), _empty(), _empty(), np.empty((0, len(scope.resources)))
    c, host, f, need = (np.concatenate(each) for each in zip(*found, strict=True))
    order = np.lexsort((f, host, c))
    return c[order], host[order], f[order], need[order]


def _large_enough(
    scope: Scope, masks: dict[object, Bools], variants: Variants
) -> tuple[Bools, Floats, Overrides]:
    """Return where variants may be and fit, what they need, and what they need elsewhere."""
    fit = [_mask(scope, masks, c, flavour) for c, _, flavour in variants]
    ok = np.array(fit)
    base = np.array(
        [[_base(scope, c, each).get(k, 0.0) for k in scope.resources] for c, _, each in variants]
    )
    for k in range(len(scope.resources)):
        ok &= base[:, k, None] <= scope.room[None, :, k] + ROUNDING
    at = _overrides(scope, variants)
    for (v, h), amounts in at.items():
        ok[v, h] = fit[v][h] and bool((amounts <= scope.room[h] + ROUNDING).all())
    return ok, base, at


def _needs(base: Floats, at: Overrides, v: Ints, h: Ints) -> Floats:
    """Return the need of each pair of variant and host."""
    need = base[v]
    if at:
        spot = {key: i for i, key in enumerate(zip(v.tolist(), h.tolist(), strict=True))}
        for key, amounts in at.items():
            if key in spot:
                need[spot[key]] = amounts
    return need


def _empty() -> Ints:
    return np.empty(0, dtype=np.int64)


def _base(scope: Scope, c: int, flavour: Flavour) -> Mapping[str, float]:
    demand = scope.demands[c]
    return {**demand.resources, **flavour.resources} if flavour.resources else demand.resources


def _overrides(scope: Scope, variants: Variants) -> Overrides:
    """Return the need of the few variants that need something else on some host."""
    return {
        (v, scope.hosts[host]): np.array(
            [{**_base(scope, c, flavour), **amounts}.get(k, 0.0) for k in scope.resources]
        )
        for v, (c, _, flavour) in enumerate(variants)
        for host, amounts in flavour.resources_at.items()
        if host in scope.hosts
    }


def _mask_key(scope: Scope, c: int, flavour: Flavour) -> object:
    name = scope.demands[c].name
    closed = bool(_quarantined(scope.problem)) and c
    return (
        scope.demands[c].labels,
        scope.filters.banned.get(name),
        scope.filters.fenced.get(name),
        frozenset(scope.problem.unfit.get(name, ())),
        frozenset(flavour.unfit),
        closed,
    )


def _quarantined(problem: Problem) -> frozenset[str]:
    return frozenset().union(
        *(rule.hosts for rule in problem.rules if isinstance(rule, Quarantine) and rule.must)
    )


def _mask(scope: Scope, masks: dict[object, Bools], c: int, flavour: Flavour) -> Bools:
    """Return which hosts labels, filters and fitness leave; the same array for the same ones."""
    key = _mask_key(scope, c, flavour)
    if key not in masks:
        demand, hosts = scope.demands[c], scope.hosts
        mask = np.ones(len(hosts), dtype=bool)
        if demand.labels:
            mask &= [demand.labels <= host.labels for host in scope.problem.hosts]
        if demand.name in scope.filters.fenced:
            mask &= [name in scope.filters.fenced[demand.name] for name in hosts]
        now = scope.now[1][scope.now[0] == c]
        closed = [hosts[name] for name in _quarantined(scope.problem) if name in hosts]
        mask[np.setdiff1d(np.array(closed, dtype=np.int64), now)] = False
        banned = scope.filters.banned.get(demand.name, frozenset())
        unfit = {**flavour.unfit, **scope.problem.unfit.get(demand.name, {})}
        for name in (*banned, *(host for host, why in unfit.items() if why)):
            if name in hosts:
                mask[hosts[name]] = False
        masks[key] = mask
    return masks[key]


def _near(scope: Scope, chunk: range, *, wanted: bool) -> tuple[Bools, Floats] | None:
    """Return which hosts are near enough for each class of a chunk, and their mean latency."""
    demands = [scope.demands[c] for c in chunk]
    bounded = scope.worst_ms is not None or any(d.latency_bound_ms is not None for d in demands)
    path_bound = [each for each in scope.problem.chains if each.population]
    if not (wanted or bounded or path_bound):
        return None
    of, population, rate = scope.rates
    low, high = np.searchsorted(of, [chunk.start, chunk.stop])
    of, population, rate = of[low:high] - chunk.start, population[low:high], rate[low:high]
    allowed = np.ones((len(chunk), len(scope.hosts)), dtype=bool)
    mean = np.zeros(allowed.shape)
    if len(of):
        heads = np.flatnonzero(np.concatenate(([True], np.diff(of) != 0)))
        rated = of[heads]
        far = scope.latency[population]
        worst = np.maximum.reduceat(far, heads, axis=0)
        own = _column(demands, rated, lambda d: d.latency_bound_ms)
        every = np.array([d.bound_for == EVERY_COPY or _only_copy(d) for d in demands])
        only = np.array([_only_copy(d) for d in demands])
        every, only = every[rated, None], only[rated, None]
        cap = math.inf if scope.worst_ms is None else scope.worst_ms
        allowed[rated] = ((worst <= own) | ~every) & ((worst <= cap) | ~only)
        total = np.add.reduceat(rate, heads)[:, None]
        weighted = np.add.reduceat(rate[:, None] * np.minimum(far, UNREACHABLE_MS), heads, axis=0)
        mean[rated] = weighted / total
    for row in np.setdiff1d(np.arange(len(chunk)), of).tolist() if wanted else ():
        if demands[row].cost_at:  # nothing is near to a demand without requests, but some is cheap
            mean[row] = [demands[row].cost_at.get(host, 0.0) for host in scope.hosts]
    for chain in path_bound:
        for row, demand in enumerate(demands):
            if demand.name == chain.demands[0] and chain.latency_bound_ms is not None:
                (far,) = latency_table(scope.problem, (chain.population,))
                allowed[row] &= far <= chain.latency_bound_ms
    return allowed, mean


def _column(demands: list[Demand], which: Ints, value: Callable[[Demand], float | None]) -> Floats:
    """Return a value of some demands as a column; None is infinite."""
    values = [value(demands[i]) for i in which]
    return np.array([math.inf if each is None else each for each in values])[:, None]


def _only_copy(demand: Demand) -> bool:
    """Return whether one copy serves all requests, so that it must be near every population."""
    takes_all = demand.bound_for == EVERY_COPY and demand.copy_rps is None
    return demand.replicas == 1 and (demand.least is None or takes_all)


def _always(
    scope: Scope, extra: frozenset[tuple[str, str]], members: tuple[tuple[int, ...], ...]
) -> dict[int, list[int]]:
    """Return the hosts that are kept for each class however far they are."""
    kept: dict[int, list[int]] = {}
    for c, h in zip(scope.now[0].tolist(), scope.now[1].tolist(), strict=True):
        kept.setdefault(c, []).append(h)
    if extra:
        names = scope.problem.demands
        of = {names[i].name: c for c, each in enumerate(members) for i in each}
        for demand, host in sorted(extra):
            kept.setdefault(of[demand], []).append(scope.hosts[host])
    return kept


def _keep_nearest(
    ok: Bools, row_class: Ints, mean: Floats, nearest: int, kept: Mapping[int, list[int]]
) -> None:
    """Close all hosts but the nearest ones of each row.

    Of equally near ones each class gets others, so that not all crowd at the first hosts.
    """
    if ok.shape[1] <= nearest:
        return
    score = np.where(ok, mean, math.inf)
    last = np.partition(score, nearest - 1, axis=1)[:, nearest - 1, None]
    chosen = score < last
    equal = ok & (score == last)
    more = nearest - chosen.sum(axis=1)
    for row in np.flatnonzero(equal.sum(axis=1) > more).tolist():
        tied = np.flatnonzero(equal[row])
        first = np.searchsorted(tied, int(row_class[row]) * SPREAD % ok.shape[1])
        equal[row] = False
        equal[row, np.roll(tied, -int(first))[: more[row]]] = True
    chosen |= equal
    for row, c in enumerate(row_class.tolist()):
        chosen[row, kept.get(c, [])] = True
    ok &= chosen

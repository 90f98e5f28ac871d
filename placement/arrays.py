"""A problem compiled to arrays: classes of demands, and the hosts where each may run.

Every algorithm that works at scale reads this form and nothing else. A **pair** is one class, one
host that can take it alone, in one flavour; pairs come by class, then host, then flavour, so that
``start`` makes them compressed sparse rows. What can never change is filtered here: must-rules of
the kinds `Ban`, `Fence` and `Quarantine`, labels, unfit hosts, size, and the latency bound. All
that depends on what else runs is left to the rows of `placement.model`.
"""

import math
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass

import numpy as np

from placement.classes import Filters, flavours, merge
from placement.matrix import Bools, Floats, Ints
from placement.problem import CPU, EVERY_COPY, MEMORY, Demand, Flavour, Problem
from placement.rules import Overbook, Preserve, Quarantine

UNREACHABLE_MS = 10_000.0  # charged where there is no path; longer than any real one
ROUNDING = 1e-9  # sums of fractions are not exact
SPREAD = 7919  # a prime: classes take equally near hosts from that many places further on
CHUNK = 512  # classes filtered at once: bounds the memory of a dense step


@dataclass(frozen=True, slots=True, eq=False)
class Arrays:
    """A compiled problem. C classes, P pairs, H hosts, K resources, L populations, V variants.

    | field | shape | meaning |
    |---|---|---|
    | `hosts`, `resources`, `populations` | H, K, L | names |
    | `room`, `physical` | H x K | what plans may use, over-commit counted; what is there |
    | `members` | C tuples | indexes into ``problem.demands`` |
    | `many`, `replicas` | C | members of a class; copies of one member |
    | `copies`, `fewest` | C | copies of all members; the fewest that will do |
    | `start` | C + 1 | pairs of class c are ``start[c]:start[c + 1]`` |
    | `pair_class`, `pair_host`, `pair_flavour` | P | what a pair is |
    | `need` | P x K | what one copy needs there |
    | `most` | P | the most copies that can be there: the tightened bound |
    | `now_class`, `now_host`, `now_count` | N | copies that run now, on hosts that exist |
    | `latency` | L x H | ms, infinite where there is no path |
    | `rate_class`, `rate_population`, `rate` | R | requests per second of one member, by class |
    | `total_rate` | scalar | requests per second of all demands together |
    """

    problem: Problem
    hosts: tuple[str, ...]
    resources: tuple[str, ...]
    populations: tuple[str, ...]
    room: Floats
    physical: Floats
    members: tuple[tuple[int, ...], ...]
    many: Ints
    replicas: Ints
    copies: Ints
    fewest: Ints
    start: Ints
    pair_class: Ints
    pair_host: Ints
    pair_flavour: Ints
    need: Floats
    most: Ints
    now_class: Ints
    now_host: Ints
    now_count: Ints
    latency: Floats
    rate_class: Ints
    rate_population: Ints
    rate: Floats
    total_rate: float

    @property
    def classes(self) -> int:
        """Return the number of classes."""
        return len(self.members)

    @property
    def pairs(self) -> int:
        """Return the number of pairs."""
        return len(self.pair_class)

    def demand(self, c: int) -> Demand:
        """Return the first member of a class, which stands for all."""
        return self.problem.demands[self.members[c][0]]

    def flavour(self, pair: int) -> Flavour:
        """Return the flavour of a pair."""
        return flavours(self.demand(int(self.pair_class[pair])))[int(self.pair_flavour[pair])]

    def class_of(self) -> dict[str, int]:
        """Return the class of each demand by name."""
        demands = self.problem.demands
        return {demands[i].name: c for c, members in enumerate(self.members) for i in members}

    def of(self, c: int) -> slice:
        """Return where the pairs of a class are."""
        return slice(int(self.start[c]), int(self.start[c + 1]))

    def domains(self, kind: str) -> tuple[Ints, tuple[str, ...]]:
        """Return the number of each host's domain of a type, and the domains' names."""
        number: dict[str, int] = {}
        of = [number.setdefault(host.domain(kind), len(number)) for host in self.problem.hosts]
        return np.array(of, dtype=np.int64), tuple(number)

    def per_class(self, values: Collection[float]) -> Floats:
        """Return one value per class, spread over its pairs."""
        return np.asarray(values, dtype=float)[self.pair_class]

    def mean_latency(self) -> Floats:
        """Return the rate-weighted mean latency (ms) of each pair's class to its host."""
        total = np.bincount(self.rate_class, weights=self.rate, minlength=self.classes)
        share = self.rate / np.where(total, total, 1)[self.rate_class]
        mean = np.zeros(self.pairs)
        first = np.searchsorted(self.rate_class, np.arange(self.classes + 1))
        most_rates = int(np.diff(first).max(initial=0))
        for step in range(most_rates):  # the n-th population of every class at once
            has = first[:-1] + step < first[1:]
            rows = np.minimum(first[:-1] + step, max(len(self.rate) - 1, 0))
            of_pair = rows[self.pair_class]
            far = np.minimum(
                self.latency[self.rate_population[of_pair], self.pair_host], UNREACHABLE_MS
            )
            mean += np.where(has[self.pair_class], share[of_pair] * far, 0.0)
        return mean


def compile_problem(
    problem: Problem,
    *,
    nearest: int | None = None,
    worst_ms: float | None = None,
    extra: Collection[tuple[str, str]] = (),
) -> Arrays:
    """Return the arrays of a validated problem.

    `nearest` keeps that many candidate hosts per class, those of least mean latency (of least
    `cost_at`, for demands without requests), where copies run now, and those of `extra` (demand,
    host), which is how missing ones are priced back in.
    `worst_ms` bounds the latency of every request, on top of what demands say.
    """
    filters = Filters.of(problem)
    members = merge(problem, filters)
    demands = [problem.demands[each[0]] for each in members]
    many = np.array([len(each) for each in members], dtype=np.int64)
    replicas = np.array([d.replicas for d in demands], dtype=np.int64)
    least = np.array([d.replicas if d.least is None else d.least for d in demands], dtype=np.int64)
    hosts = {host.name: h for h, host in enumerate(problem.hosts)}
    resources = _resources(problem)
    physical = np.array(
        [[host.capacity.get(k, 0.0) for k in resources] for host in problem.hosts]
    ).reshape(len(hosts), len(resources))
    room = np.array([[host.room(k) for k in resources] for host in problem.hosts]).reshape(
        len(hosts), len(resources)
    )
    rate_class, rate_population, rate, populations = _rates(demands)
    latency = latency_table(problem, populations)
    now = _now(problem, members, hosts)
    scope = _Scope(
        problem,
        filters,
        demands,
        hosts,
        resources,
        room,
        latency,
        (rate_class, rate_population, rate),
        worst_ms,
        now,
    )
    pair_class, pair_host, pair_flavour, need = _pairs(scope, nearest, frozenset(extra), members)
    share = np.array([d.share_host for d in demands], dtype=bool)
    limit = np.where(share, many * replicas, np.where(replicas > 0, many, 0))
    return Arrays(
        problem=problem,
        hosts=tuple(hosts),
        resources=resources,
        populations=populations,
        room=room,
        physical=physical,
        members=members,
        many=many,
        replicas=replicas,
        copies=many * replicas,
        fewest=many * least,
        start=np.searchsorted(pair_class, np.arange(len(members) + 1)),
        pair_class=pair_class,
        pair_host=pair_host,
        pair_flavour=pair_flavour,
        need=need,
        most=np.minimum(limit[pair_class], fits(room[pair_host], need)).astype(np.int64),
        now_class=now[0],
        now_host=now[1],
        now_count=now[2],
        latency=latency,
        rate_class=rate_class,
        rate_population=rate_population,
        rate=rate,
        total_rate=float(sum(sum(d.rates.values()) for d in problem.demands)),
    )


def worst_cap(limits: Mapping[str, float]) -> float | None:
    """Return how far any request may go by the limits; None if anywhere, even without a path."""
    worst = limits.get("worst_latency_ms", math.inf)
    return None if worst >= UNREACHABLE_MS else worst + ROUNDING


def latency_table(problem: Problem, populations: tuple[str, ...]) -> Floats:
    """Return the latency in ms of each population to each host, infinite where there is no path."""
    names = [host.name for host in problem.hosts]
    table = np.full((len(populations), len(names)), math.inf)
    for p, population in enumerate(populations):
        row = problem.latency_ms.get(population)
        if not row:
            continue
        found = [row.get(name) for name in names]
        if None in found:
            found = [
                row.get(host.domain("site"), math.inf) if ms is None else ms
                for host, ms in zip(problem.hosts, found, strict=True)
            ]
        table[p] = found
    return table


# --- parts --------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, eq=False)
class _Scope:
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


def _resources(problem: Problem) -> tuple[str, ...]:
    """Return every resource that anything names: cpu and memory first, the others by name."""
    named = {CPU, MEMORY}
    for host in problem.hosts:
        named.update(host.capacity)
    for demand in problem.demands:
        named.update(demand.resources)
        for flavour in demand.flavours:
            named.update(flavour.resources, *flavour.resources_at.values())
    for rule in problem.rules:
        if isinstance(rule, Preserve | Overbook):
            named.add(rule.resource)
    for each in problem.slices:
        named.update(each.share)
    return (CPU, MEMORY, *sorted(named - {CPU, MEMORY}))


def _rates(demands: list[Demand]) -> tuple[Ints, Ints, Floats, tuple[str, ...]]:
    number: dict[str, int] = {}
    of, population, rate = [], [], []
    for c, demand in enumerate(demands):
        if not demand.replicas:
            continue
        for name, requests_s in demand.rates.items():
            if requests_s > 0:
                of.append(c)
                population.append(number.setdefault(name, len(number)))
                rate.append(requests_s)
    return (
        np.array(of, dtype=np.int64),
        np.array(population, dtype=np.int64),
        np.array(rate, dtype=float),
        tuple(number),
    )


def _now(
    problem: Problem, members: tuple[tuple[int, ...], ...], hosts: Mapping[str, int]
) -> tuple[Ints, Ints, Ints]:
    count: dict[tuple[int, int], int] = {}
    if problem.current:
        for c, each in enumerate(members):
            for index in each:
                for name in problem.current.get(problem.demands[index].name, ()):
                    if name in hosts:
                        key = (c, hosts[name])
                        count[key] = count.get(key, 0) + 1
    keys = sorted(count)
    return (
        np.array([c for c, _ in keys], dtype=np.int64),
        np.array([h for _, h in keys], dtype=np.int64),
        np.array([count[key] for key in keys], dtype=np.int64),
    )


def _pairs(
    scope: _Scope,
    nearest: int | None,
    extra: frozenset[tuple[str, str]],
    members: tuple[tuple[int, ...], ...],
) -> tuple[Ints, Ints, Ints, Floats]:
    """Return class, host, flavour and need of each pair."""
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


Variants = list[tuple[int, int, Flavour]]
Overrides = dict[tuple[int, int], Floats]


def _large_enough(
    scope: _Scope, masks: dict[object, Bools], variants: Variants
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


def _base(scope: _Scope, c: int, flavour: Flavour) -> Mapping[str, float]:
    demand = scope.demands[c]
    return {**demand.resources, **flavour.resources} if flavour.resources else demand.resources


def _overrides(scope: _Scope, variants: Variants) -> Overrides:
    """Return the need of the few variants that need something else on some host."""
    return {
        (v, scope.hosts[host]): np.array(
            [{**_base(scope, c, flavour), **amounts}.get(k, 0.0) for k in scope.resources]
        )
        for v, (c, _, flavour) in enumerate(variants)
        for host, amounts in flavour.resources_at.items()
        if host in scope.hosts
    }


def _mask_key(scope: _Scope, c: int, flavour: Flavour) -> object:
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


def _mask(scope: _Scope, masks: dict[object, Bools], c: int, flavour: Flavour) -> Bools:
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


def _near(scope: _Scope, chunk: range, *, wanted: bool) -> tuple[Bools, Floats] | None:
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
    scope: _Scope, extra: frozenset[tuple[str, str]], members: tuple[tuple[int, ...], ...]
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


def fits(room: Floats, need: Floats) -> Floats:
    """Return how many copies fit in an empty host, for each pair."""
    most = np.full(len(need), np.inf)
    for k in range(need.shape[1]):
        some = need[:, k] > 0
        most[some] = np.minimum(most[some], np.floor(room[some, k] / need[some, k] + ROUNDING))
    return np.where(np.isfinite(most), most, 1e15)

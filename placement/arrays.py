"""A problem compiled to arrays: classes of demands, and the hosts where each may run.

Every algorithm that works at scale reads this form and nothing else. A **pair** is one class, one
host that can take it alone, in one flavour; pairs come by class, then host, then flavour, so that
``start`` makes them compressed sparse rows. `placement.pairs` has filtered what can never change;
all that depends on what else runs is left to the rows of `placement.model`.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass

import numpy as np

from placement.classes import Filters, flavours, merge
from placement.latencies import UNREACHABLE_MS, latency_table
from placement.matrix import ROUNDING, Bools, Floats, Ints
from placement.pairs import Scope, pairs
from placement.problem import CPU, MEMORY, Demand, Flavour, Problem
from placement.rules import Overbook, Preserve


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

    def has(self, classes: Ints, hosts: Ints) -> Bools:
        """Return of each class and host whether there is a pair of them, in any flavour."""
        count = max(len(self.hosts), 1)
        return np.isin(classes * count + hosts, self.pair_class * count + self.pair_host)

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
    scope = Scope(
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
    pair_class, pair_host, pair_flavour, need = pairs(scope, nearest, frozenset(extra), members)
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


# --- parts --------------------------------------------------------------------------------------


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


def least_of_each(groups: Ints, values: Floats, some: Ints, at_most: int) -> Ints:
    """Return of some places those with the least values in their group, group by group."""
    order = some[np.lexsort((values[some], groups[some]))]
    rank = np.arange(len(order)) - np.searchsorted(groups[order], groups[order])
    return order[rank < at_most]


def fits(room: Floats, need: Floats) -> Floats:
    """Return how many copies fit in an empty host, for each pair."""
    most = np.full(len(need), np.inf)
    for k in range(need.shape[1]):
        some = need[:, k] > 0
        most[some] = np.minimum(most[some], np.floor(room[some, k] / need[some, k] + ROUNDING))
    return np.where(np.isfinite(most), most, 1e15)

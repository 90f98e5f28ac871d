"""A warm problem as arrays: one *pair* for each way in which a service could rest.

What can be decided without rows is decided here: latency bounds, hosts that cannot run a service,
ways that do not fit a host by themselves, and ways that hold something and are no better than one
that holds nothing. Costs are those of `placement.warm.evaluate`, less the misses of pools, which
depend on who else uses them.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import compress

import numpy as np

from placement.matrix import Bools, Floats, Ints
from placement.problem import MEMORY, Amounts, Infeasible
from placement.warm.evaluate import asleep_of, travel_s
from placement.warm.problem import POOLED, Place, Sleeper, Spare, WarmPlan, WarmProblem


@dataclass(frozen=True, slots=True)
class Site:
    """One host where anonymous instances of one recipe may be kept."""

    recipe: str
    host: int
    spare: Spare


@dataclass(frozen=True, slots=True, eq=False)
class Arrays:
    """All pairs, by service; `first[s]` to ``first[s + 1]`` are those of service s.

    `cost` is in waiting clients, the price of memory included; `needs` has a row for each pair and
    a column for each of `resources`, `room` a row for each host, `spare_needs` for each site.
    `site` is that of a pooled pair, else -1, and `erlangs` the load it puts on it.
    """

    problem: WarmProblem
    resources: tuple[str, ...]
    room: Floats
    sites: tuple[Site, ...]
    spare_needs: Floats
    spare_cost: Floats
    first: Ints
    service: Ints
    host: Ints
    rung: tuple[str, ...]
    cost: Floats
    needs: Floats
    site: Ints
    erlangs: Floats

    @property
    def pairs(self) -> int:
        """Return the number of pairs."""
        return len(self.cost)

    def of(self, service: int) -> slice:
        """Return the pairs of a service."""
        return slice(int(self.first[service]), int(self.first[service + 1]))

    def load_of_all(self) -> Floats:
        """Return the load in erlangs on each site if all used it that could."""
        pooled = self.site >= 0
        found = np.bincount(
            self.site[pooled], weights=self.erlangs[pooled], minlength=len(self.sites)
        )
        return found.astype(float)

    def part(self, kept: Bools) -> "Arrays":
        """Return the same with some of the pairs, at least one for each service."""
        ends = np.concatenate(([0], np.cumsum(kept)))
        return replace(
            self,
            first=ends[self.first],
            service=self.service[kept],
            host=self.host[kept],
            rung=tuple(compress(self.rung, kept.tolist())),
            cost=self.cost[kept],
            needs=self.needs[kept],
            site=self.site[kept],
            erlangs=self.erlangs[kept],
        )

    def plan(self, chosen: Ints, kept: Ints) -> WarmPlan:
        """Return the plan of one pair for each service and a count for each site."""
        places = {
            service.name: Place(self.problem.hosts[self.host[pair]].name, self.rung[pair])
            for service, pair in zip(self.problem.services, chosen.tolist(), strict=True)
        }
        pools: dict[str, dict[str, int]] = {}
        for site, count in zip(self.sites, kept.tolist(), strict=True):
            if count:
                pools.setdefault(site.recipe, {})[self.problem.hosts[site.host].name] = int(count)
        return WarmPlan(places, pools)


@dataclass(frozen=True, slots=True)
class _Pair:
    host: int
    rung: str
    cost: float
    needs: tuple[float, ...]
    site: int = -1
    erlangs: float = 0.0


def compile_warm(problem: WarmProblem, mib_price: float = 0.0) -> Arrays:
    """Return the arrays of a problem that makes sense.

    Raises `Infeasible`, with a reason for each service that can rest nowhere.
    """
    resources = _resources(problem)
    room = np.array([_row(host.room, resources) for host in problem.hosts])
    sites = tuple(
        Site(recipe.name, h, recipe.at[host.name])
        for recipe in problem.recipes
        for h, host in enumerate(problem.hosts)
        if host.name in recipe.at
    )
    by_recipe: dict[str, list[tuple[int, Site]]] = {}
    for number, site in enumerate(sites):
        by_recipe.setdefault(site.recipe, []).append((number, site))
    pairs: list[list[_Pair]] = []
    stuck: dict[str, str] = {}
    for service in problem.services:
        near = _near(problem, service)
        pools = by_recipe.get(service.recipe, []) if service.recipe else []
        every = [*_pairs(problem, service, near, resources, mib_price)]
        every += _pooled(problem, service, near, pools, len(resources))
        fitting = [p for p in every if _fits(p.needs, room[p.host])]
        if not fitting:
            stuck[service.name] = _why(service, near, every)
        pairs.append(_worth_it(fitting))
    if stuck:
        raise Infeasible(stuck)
    flat = [each for some in pairs for each in some]
    spare_needs = [_row(site.spare.needs, resources) for site in sites]
    return Arrays(
        problem=problem,
        resources=resources,
        room=room.reshape(len(problem.hosts), len(resources)),
        sites=sites,
        spare_needs=np.array(spare_needs).reshape(len(sites), len(resources)),
        spare_cost=np.array([mib_price * site.spare.needs.get(MEMORY, 0.0) for site in sites]),
        first=np.cumsum([0, *map(len, pairs)]),
        service=np.repeat(np.arange(len(pairs)), [*map(len, pairs)]),
        host=np.array([each.host for each in flat], dtype=np.int64),
        rung=tuple(each.rung for each in flat),
        cost=np.array([each.cost for each in flat], dtype=float),
        needs=np.array([each.needs for each in flat]).reshape(len(flat), len(resources)),
        site=np.array([each.site for each in flat], dtype=np.int64),
        erlangs=np.array([each.erlangs for each in flat], dtype=float),
    )


def _resources(problem: WarmProblem) -> tuple[str, ...]:
    """Return every resource that something holds."""
    needs = [
        rest.needs for each in problem.services for some in each.rests.values() for rest in some
    ]
    needs += [spare.needs for recipe in problem.recipes for spare in recipe.at.values()]
    return tuple(sorted({name for each in needs for name, amount in each.items() if amount > 0}))


def _row(amounts: Amounts, resources: tuple[str, ...]) -> tuple[float, ...]:
    return tuple(float(amounts.get(name, 0.0)) for name in resources)


def _near(problem: WarmProblem, service: Sleeper) -> list[int]:
    """Return the hosts that can run a service and are within its bound of all who ask."""
    bound = math.inf if service.latency_bound_ms is None else service.latency_bound_ms
    rows = [
        problem.latency_ms.get(name, {})
        for name, rate in service.rates.items()
        if rate > 0 and service.latency_bound_ms is not None
    ]
    return [
        h
        for h, host in enumerate(problem.hosts)
        if service.rests.get(host.name)
        and all(row.get(host.name, math.inf) <= bound for row in rows)
        and all(host.name in row for row in rows)
    ]


def _pairs(
    problem: WarmProblem,
    service: Sleeper,
    near: list[int],
    resources: tuple[str, ...],
    mib_price: float,
) -> Iterator[_Pair]:
    wakes = service.rate * asleep_of(service)
    for h in near:
        name = problem.hosts[h].name
        travelling = service.rate * travel_s(problem, service, name)
        for rest in service.rests[name]:
            cost = wakes * rest.wake_s + travelling + mib_price * rest.needs.get(MEMORY, 0.0)
            yield _Pair(h, rest.rung, cost, _row(rest.needs, resources))


def _pooled(
    problem: WarmProblem,
    service: Sleeper,
    near: list[int],
    pools: list[tuple[int, Site]],
    resources: int,
) -> Iterator[_Pair]:
    wakes = service.rate * asleep_of(service)
    hosts = set(near)
    for number, site in pools:
        if site.host in hosts and site.spare.most:
            travelling = service.rate * travel_s(problem, service, problem.hosts[site.host].name)
            cost = wakes * site.spare.adopt_s + travelling
            erlangs = wakes * site.spare.refill_s
            yield _Pair(site.host, POOLED, cost, (0.0,) * resources, number, erlangs)


def _fits(needs: tuple[float, ...], room: Floats) -> bool:
    return all(need <= there for need, there in zip(needs, room, strict=True))


def _worth_it(pairs: list[_Pair]) -> list[_Pair]:
    """Return the best way that holds nothing, and all that are better but hold something."""
    free = [each for each in pairs if each.site < 0 and not any(each.needs)]
    if not free:
        return pairs
    best = min(free, key=lambda each: each.cost)
    return [best, *(p for p in pairs if p.cost < best.cost and (p.site >= 0 or any(p.needs)))]


def _why(service: Sleeper, near: list[int], every: list[_Pair]) -> str:
    if not service.rests:
        return "no host can run it"
    if not near:
        return "no host that can run it is near enough to all of its clients"
    if not every:
        return "it may rest nowhere"
    return "no host has room for it by itself, and it may rest nowhere without any"


def forced(arrays: Arrays) -> Bools:
    """Return which services hold something wherever they rest."""
    free = np.zeros(len(arrays.problem.services), dtype=bool)
    free[arrays.service[(arrays.needs <= 0).all(axis=1) & (arrays.site < 0)]] = True
    return ~free

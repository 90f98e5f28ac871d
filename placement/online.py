"""One copy more, now: filter and score all hosts as arrays, guided by the last plan.

`Online` is a problem prepared once and kept up to date as copies come and go, so that `place_one`
costs a few array operations over the hosts: microseconds at 1,000 hosts. The answers are those of
`placement.heuristics.greedy_latency.place_one`, in the same order; a test compares them. That one
needs no numpy and takes what runs anew with every question, which is what the orchestrator's daemon
wants: it must stay small, a lab has a few hundred hosts at most, and it knows what runs only when
it asks its hypervisors. This one is for simulations, for large clouds, and for who keeps state.

Of the rules, must-rules of the kinds `ban`, `fence`, `quarantine` and `beside` are kept, and on
hosts `spread` and `split`.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np

from placement.amounts import NO_PATH_MS
from placement.candidates import apart_from, may_share
from placement.classes import Filters, flavours, need
from placement.heuristics.greedy_latency import NEAR_TIE_MS
from placement.latencies import latency_table
from placement.matrix import ROUNDING, Bools, Floats, Ints
from placement.problem import CPU, EVERY_COPY, MEMORY, Demand, Malformed, Plan, Problem
from placement.rules import Beside, Quarantine

Keys = Bools | Ints | Floats  # one value per host


@dataclass(frozen=True, slots=True)
class Spot:
    """Where one copy goes: a host, and the flavour it runs in there."""

    host: str
    flavour: str


@dataclass(frozen=True, slots=True, eq=False)
class _Beside:
    """Another demand that a copy must be with; `partner` if it is that one that must be with it."""

    other: str
    partner: bool
    domain: Ints  # number of each host's domain


@dataclass(frozen=True, slots=True, eq=False)
class _Known:
    """What never changes about a demand: per flavour which hosts may take it and what it needs."""

    demand: Demand
    may: tuple[Bools, ...]  # one per flavour, over hosts
    need: tuple[Floats, ...]  # K, or H x K where hosts differ
    mean: Floats  # ms, over hosts
    may_share: bool
    apart: tuple[str, ...]
    beside: tuple[_Beside, ...]
    rank: Ints  # place in the last plan, over hosts


class Online:
    """A problem prepared for one question after the other; `plan` is the last plan, if any.

    What runs is `problem.current`, each copy in its first flavour that the host can run. `bind`
    and `release` change it.
    """

    def __init__(self, problem: Problem, plan: Plan | None = None) -> None:
        self.problem, self.plan = problem, plan
        self.hosts = tuple(host.name for host in problem.hosts)
        self._number = {name: h for h, name in enumerate(self.hosts)}
        named = {CPU, MEMORY}.union(*(host.capacity for host in problem.hosts))
        for demand in problem.demands:
            named.update(demand.resources)
            for flavour in demand.flavours:
                named.update(flavour.resources, *flavour.resources_at.values())
        self._resources = tuple(sorted(named))
        room = [[host.room(k) for k in self._resources] for host in problem.hosts]
        self._free = np.array(room).reshape(len(self.hosts), len(self._resources)) + ROUNDING
        self._room = self._free.copy()
        self._filters = Filters.of(problem)
        self._quarantined = frozenset[str]().union(
            *(rule.hosts for rule in problem.rules if isinstance(rule, Quarantine) and rule.must)
        )
        self._by_labels: dict[frozenset[tuple[str, str]], Bools] = {}
        self._memory = self._resources.index(MEMORY)
        self._copies = np.zeros(len(self.hosts), dtype=np.int64)
        self._by_name = np.argsort(np.argsort(np.array(self.hosts)))
        self._populations = {name: p for p, name in enumerate(problem.latency_ms)}
        self._latency = latency_table(problem, tuple(self._populations))
        self._demands = {demand.name: demand for demand in problem.demands}
        self._known: dict[str, _Known] = {}
        self._where: dict[str, Ints] = {}
        for name, hosts in problem.current.items():
            if name in self._demands:
                for host in hosts:
                    self._bind_first(name, host)

    # --- the question ---------------------------------------------------------------------------

    def place_one(self, demand: str, *, population: str = "") -> Spot | None:
        """Return the best host for one copy more, None where no host can take it.

        Nearest first: to `population` if one asks, else by the rate-weighted mean. Within one
        millisecond: hosts of the last plan in their order, hosts that are on, most free memory,
        the name.

        Raises:
            Malformed: the problem has no such demand.

        """
        known = self._of(demand)
        some = np.flatnonzero(self._open(known, population))
        if not len(some):
            return None
        for key in self._keys(known, population):
            values = key[some]
            some = some[values == values.min()]
            if len(some) == 1:
                break
        return self._spot(known, int(some[0]))

    def rank(self, demand: str, *, population: str = "") -> tuple[str, ...]:
        """Return all hosts that can take one copy more, best first."""
        known = self._of(demand)
        some = np.flatnonzero(self._open(known, population))
        keys = [key[some] for key in self._keys(known, population)]
        order = np.lexsort(tuple(reversed(keys)))
        return tuple(self.hosts[h] for h in some[order])

    # --- what runs ------------------------------------------------------------------------------

    def bind(self, demand: str, spot: Spot) -> None:
        """Note that a copy of a demand runs somewhere; whether it fits is not asked."""
        self._change(demand, spot, 1)

    def release(self, demand: str, spot: Spot) -> None:
        """Note that a copy of a demand runs no more.

        Raises:
            Malformed: no copy of it runs there.

        """
        where = self._where.get(demand, _NOWHERE)
        if not (where == self._host(spot.host)).any():
            raise Malformed(demand, f"no copy of it runs at {spot.host!r}")
        self._change(demand, spot, -1)

    # --- parts ----------------------------------------------------------------------------------

    def _open(self, known: _Known, population: str) -> Bools:
        """Return the hosts that can take one copy more."""
        found = np.zeros(len(self.hosts), dtype=bool)
        for may, amounts in zip(known.may, known.need, strict=True):
            found |= may & (self._free >= amounts).all(axis=1)
        demand = known.demand
        here = self._where.get(demand.name, _NOWHERE)
        if not known.may_share:
            found[here] = False
        for other in known.apart:
            found[self._where.get(other, _NOWHERE)] = False
        for each in known.beside:
            allowed = each.domain[self._where.get(each.other, _NOWHERE)]
            if each.partner:
                allowed = np.setdiff1d(allowed, each.domain[here])
            if len(allowed):
                found &= np.isin(each.domain, allowed)
        if population and demand.latency_bound_ms is not None:
            found &= self._from(population) <= demand.latency_bound_ms
        return found

    def _keys(self, known: _Known, population: str) -> Iterator[Keys]:
        """Yield what decides between hosts, the first thing first; less is better."""
        far = np.minimum(self._from(population), NO_PATH_MS) if population else known.mean
        yield far // NEAR_TIE_MS
        yield known.rank
        yield self._copies == 0
        yield -self._free[:, self._memory]
        yield self._by_name

    def _from(self, population: str) -> Floats:
        if population not in self._populations:
            return np.full(len(self.hosts), np.inf)
        row: Floats = self._latency[self._populations[population]]
        return row

    def _of(self, name: str) -> _Known:
        if name not in self._known:
            if name not in self._demands:
                known = ", ".join(sorted(self._demands))
                raise Malformed("", f"no demand named {name!r}; known: {known}")
            self._known[name] = self._learn(self._demands[name])
        return self._known[name]

    def _learn(self, demand: Demand) -> _Known:
        problem = self.problem
        base = self._fit(demand)
        may, amounts = [], []
        for flavour in flavours(demand):
            mask = base.copy()
            mask[self._numbers(name for name, why in flavour.unfit.items() if why)] = False
            rows = {name: need(demand, flavour, name) for name in ("", *flavour.resources_at)}
            table = np.array([rows[""].get(k, 0.0) for k in self._resources])
            if flavour.resources_at:
                table = np.tile(table, (len(self.hosts), 1))
                for name in flavour.resources_at.keys() & self._number.keys():
                    table[self._number[name]] = [rows[name].get(k, 0.0) for k in self._resources]
            amounts.append(table)
            may.append(mask & (table <= self._room).all(axis=1))
        rates = {p: rate for p, rate in demand.rates.items() if rate > 0}
        total = sum(demand.rates.values())
        mean = sum(
            (rate / total * np.minimum(self._from(p), NO_PATH_MS) for p, rate in rates.items()),
            np.zeros(len(self.hosts)),
        )
        last = self.plan.hosts.get(demand.name, ()) if self.plan else ()
        rank = np.full(len(self.hosts), len(set(last)), dtype=np.int64)
        for place, name in reversed(list(enumerate(last))):
            if name in self._number:
                rank[self._number[name]] = place
        beside = tuple(
            _Beside(
                rule.of if rule.demand == demand.name else rule.demand,
                rule.demand != demand.name,
                self._domains(rule.domain),
            )
            for rule in problem.rules
            if isinstance(rule, Beside) and rule.must and demand.name in (rule.demand, rule.of)
        )
        apart = tuple(sorted(apart_from(problem, demand.name)))
        share = may_share(problem, demand)
        return _Known(demand, tuple(may), tuple(amounts), mean, share, apart, beside, rank)

    def _fit(self, demand: Demand) -> Bools:
        """Return the hosts that rules, labels and latency allow, as `placement.candidates` says."""
        name = demand.name
        found = self._labelled(demand.labels).copy()
        if name in self._filters.fenced:
            inside = np.zeros(len(self.hosts), dtype=bool)
            inside[self._numbers(self._filters.fenced[name])] = True
            found &= inside
        found[self._numbers(self._filters.banned.get(name, ()))] = False
        now = frozenset(self.problem.current.get(name, ()))
        found[self._numbers(self._quarantined - now)] = False
        unfit = self.problem.unfit.get(name, {})
        found[self._numbers(host for host, why in unfit.items() if why)] = False
        bound = demand.latency_bound_ms
        only = demand.replicas == 1 and demand.least is None
        if bound is not None and (demand.bound_for == EVERY_COPY or only):
            for population, rate in demand.rates.items():
                if rate > 0:
                    found &= self._from(population) <= bound
        return found

    def _domains(self, kind: str) -> Ints:
        number: dict[str, int] = {}
        of = [number.setdefault(host.domain(kind), len(number)) for host in self.problem.hosts]
        return np.array(of, dtype=np.int64)

    def _labelled(self, labels: frozenset[tuple[str, str]]) -> Bools:
        if labels not in self._by_labels:
            hosts = self.problem.hosts
            self._by_labels[labels] = np.array([labels <= host.labels for host in hosts], bool)
        return self._by_labels[labels]

    def _numbers(self, names: Iterable[str]) -> Ints:
        numbers = [self._number[name] for name in names if name in self._number]
        return np.array(numbers, dtype=np.int64)

    def _spot(self, known: _Known, host: int) -> Spot:
        for flavour, may, amounts in zip(
            flavours(known.demand), known.may, known.need, strict=True
        ):
            wanted = amounts[host] if amounts.ndim == 2 else amounts
            if may[host] and (self._free[host] >= wanted).all():
                return Spot(self.hosts[host], flavour.name)
        raise AssertionError(f"{self.hosts[host]} is open for {known.demand.name}, but none fits")

    def _bind_first(self, name: str, host: str) -> None:
        if host not in self._number:
            return
        fit = [f for f in flavours(self._demands[name]) if host not in f.unfit]
        flavour = (fit or list(flavours(self._demands[name])))[0]
        self._change(name, Spot(host, flavour.name), 1)

    def _change(self, name: str, spot: Spot, copies: int) -> None:
        demand = self._demands.get(name)
        if demand is None:
            raise Malformed("", f"no demand named {name!r}")
        host = self._host(spot.host)
        known = {flavour.name: flavour for flavour in flavours(demand)}
        if spot.flavour not in known:
            raise Malformed(name, f"has no flavour {spot.flavour!r}")
        amounts = need(demand, known[spot.flavour], spot.host)
        self._free[host] -= copies * np.array([amounts.get(k, 0.0) for k in self._resources])
        self._copies[host] += copies
        where = self._where.get(name, _NOWHERE)
        if copies > 0:
            self._where[name] = np.append(where, host)
        else:
            self._where[name] = np.delete(where, np.flatnonzero(where == host)[0])

    def _host(self, name: str) -> int:
        if name not in self._number:
            raise Malformed("", f"there is no host named {name!r}")
        return self._number[name]


_NOWHERE: Ints = np.empty(0, dtype=np.int64)


def place_one(problem: Problem, plan: Plan | None, demand: str) -> Spot | None:
    """Return the best host for one copy more; prepares the problem anew, see `Online` for many."""
    return Online(problem, plan).place_one(demand)

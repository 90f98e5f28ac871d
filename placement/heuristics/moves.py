"""Moves from plan to plan, and what each changes in the value: what local search is made of.

A move takes copies from pairs and puts them elsewhere: `shift` one copy, `swap` two, `close` a host
and spread what it has, `open` one for copies that gain. Its effect on the value is computed from
what it touches (delta evaluation): terms that are sums over pairs and over hosts that are on, the
copies that migrate, and the latency of demands with several copies. Where other terms count
(network, wishes, utilisation, worst latency), the whole plan is evaluated once more per move.

Moves mind what `placement.heuristics.packing` minds; demands that `Beside` names stay where they
are. Copies that were left out stay out.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from placement.arrays import Arrays
from placement.evaluate import evaluate, value_of
from placement.heuristics.packing import Packing
from placement.latencies import UNREACHABLE_MS
from placement.matrix import Floats, Ints
from placement.model import Model
from placement.objectives import expression
from placement.problem import Options

LINEAR = ("wake_ms", "energy_w", "cost_hour", "hosts_on")  # sums over pairs and hosts that are on
LOCAL = (*LINEAR, "latency_ms", "migrations")
CONSTANT = ("unplaced", "unserved_rps", "lost_revenue")  # no move changes them
ROUNDING = 1e-12

Change = tuple[int, int]  # a copy's number, the pair it goes to


@dataclass(slots=True, eq=False)
class Moves:
    """A complete packing that can be changed, its value, and where each copy is.

    `at` is the pair of each copy, `free` the copies that may move. `linear` and `on` are what a
    copy at a pair, and a host that is on, add to the value.
    """

    packing: Packing
    options: Options
    chance: np.random.Generator
    at: Ints
    free: Ints
    linear: Floats
    on: Floats
    value: float
    several: dict[int, tuple[Floats, Floats]]  # class → weights of its rates, latencies to hosts
    far: dict[int, float]  # class → what its latency adds now
    stay: Mapping[tuple[int, int], tuple[int, float]]  # class, host → copies now, cost of a move
    rest: Mapping[str, float]  # weights of terms that need a whole evaluation
    others: float

    @classmethod
    def of(cls, packing: Packing, options: Options) -> "Moves":
        """Return the moves from a packing."""
        arrays = packing.arrays
        weights = {name: weight for name, weight in options.weights.items() if weight}
        linear, on = np.zeros(arrays.pairs), np.zeros(len(arrays.hosts))
        for name in [each for each in weights if each in {*LINEAR, "latency_ms"}]:
            linear += weights[name] * pair_costs(arrays, name)
            on += weights[name] * host_costs(arrays, name)
        several = _several(arrays, weights.get("latency_ms", 0.0))
        at = np.repeat(np.arange(arrays.pairs), packing.counts)
        fixed = set(packing.beside) | {int(c) for each in packing.beside.values() for c in each}
        free = np.flatnonzero([int(arrays.pair_class[pair]) not in fixed for pair in at])
        found = cls(
            packing,
            options,
            np.random.default_rng(options.seed),
            at,
            free,
            linear,
            on,
            value=value_of(evaluate(arrays.problem, packing.plan()), weights),
            several=several,
            far={},
            stay=_stay(arrays, weights.get("migrations", 0.0)),
            rest=_rest(arrays, weights),
            others=0.0,
        )
        found.far = {c: found._far(c) for c in several}
        found.others = found._others()
        return found

    # --- the value ---

    def go(self, changes: list[Change]) -> float | None:
        """Make a move if it is allowed, and return by how much the value grew; else None."""
        before = [(copy, int(self.at[copy])) for copy, _ in changes]
        delta = sum([self._put(int(self.at[copy]), -1) for copy, _ in changes])
        for done, (copy, pair) in enumerate(changes):
            if not self.packing.may(np.array([pair]))[0]:
                for _, other in changes[:done]:
                    self._put(other, -1)
                for moved, old in before:
                    self._put(old, 1)
                    self.at[moved] = old
                return None
            delta += self._put(pair, 1)
            self.at[copy] = pair
        for c in {int(self.packing.arrays.pair_class[pair]) for _, pair in changes}:
            if c in self.several:
                now = self._far(c)
                delta += now - self.far[c]
                self.far[c] = now
        if self.rest:
            now = self._others()
            delta += now - self.others
            self.others = now
        self.value += delta
        return delta

    def back(self, before: list[Change], delta: float) -> None:
        """Undo a move that raised the value by `delta`; `before` is where its copies were."""
        for copy, pair in before:
            self._put(int(self.at[copy]), -1)
            self.at[copy] = pair
        for _, pair in before:
            self._put(pair, 1)
        for c in {int(self.packing.arrays.pair_class[pair]) for _, pair in before}:
            if c in self.several:
                self.far[c] = self._far(c)
        if self.rest:
            self.others = self._others()
        self.value -= delta

    def places(self, changes: list[Change]) -> list[Change]:
        """Return where the copies of a move are, to come back."""
        return [(copy, int(self.at[copy])) for copy, _ in changes]

    def _put(self, pair: int, copies: int) -> float:
        """Add a copy at a pair or take it away; return what sums over pairs and hosts change by."""
        packing, arrays = self.packing, self.packing.arrays
        c, h = int(arrays.pair_class[pair]), int(arrays.pair_host[pair])
        was, kept = packing.tally[0, h], int(packing.placed[c, h])
        packing.take(pair, copies)
        delta = copies * float(self.linear[pair])
        if (was > 0) != (packing.tally[0, h] > 0):
            delta += copies * float(self.on[h])
        if (c, h) in self.stay:
            now, cost = self.stay[c, h]
            delta -= cost * (min(now, kept + copies) - min(now, kept))
        return delta

    def _far(self, c: int) -> float:
        rate, latency = self.several[c]
        hosts = self.packing.placed[c] > 0
        return float(rate @ latency[:, hosts].min(axis=1)) if hosts.any() else 0.0

    def _others(self) -> float:
        if not self.rest:
            return 0.0
        return value_of(evaluate(self.packing.arrays.problem, self.packing.plan()), self.rest)

    # --- moves, drawn at random; empty where there is none ---

    def draw(self) -> list[Change]:
        """Return a random move: mostly shifts and swaps, sometimes a whole host."""
        kind = self.chance.random()
        if kind < 0.55:
            return self.shift()
        if kind < 0.9:
            return self.swap()
        return self.close() if kind < 0.95 else self.open()

    def shift(self) -> list[Change]:
        """Return the move of one copy to a pair of its class."""
        copy = int(self.chance.choice(self.free))
        where = self.packing.arrays.of(self._class(copy))
        pair = int(self.chance.integers(where.start, where.stop))
        return [] if pair == self.at[copy] else [(copy, pair)]

    def swap(self) -> list[Change]:
        """Return the move of two copies to each other's host."""
        one, two = (int(each) for each in self.chance.choice(self.free, 2))
        h, g = (int(self.packing.arrays.pair_host[self.at[each]]) for each in (one, two))
        first, second = self._pair_at(one, g), self._pair_at(two, h)
        if h == g or first is None or second is None or self._class(one) == self._class(two):
            return []
        return [(one, first), (two, second)]

    def close(self) -> list[Change]:
        """Return the move of all copies of a host to the cheapest hosts that are on already."""
        arrays = self.packing.arrays
        host = arrays.pair_host[self.at]
        h = int(self.chance.choice(host[self.free]))
        inside = np.flatnonzero(host == h)
        if not np.isin(inside, self.free).all():
            return []
        found, used, placed = [], self.packing.used.copy(), self.packing.placed.copy()
        for copy in sorted(inside.tolist(), key=lambda copy: -arrays.need[self.at[copy]].sum()):
            c = self._class(copy)
            where = arrays.of(c)
            pairs = np.arange(where.start, where.stop)
            hosts = arrays.pair_host[pairs]
            room = placed[c, hosts] < self.packing.limit[c]
            room &= (used[hosts] + arrays.need[pairs] <= arrays.room[hosts]).all(axis=1)
            pairs = pairs[room & (hosts != h) & (self.packing.tally[0, hosts] > 0)]
            if not len(pairs):
                return []
            pair = int(pairs[np.argmin(self.linear[pairs])])
            used[arrays.pair_host[pair]] += arrays.need[pair]
            placed[c, arrays.pair_host[pair]] += 1
            found.append((copy, pair))
        return found

    def open(self) -> list[Change]:
        """Return the move to a host that is off: all that is on another, or what gains by it."""
        arrays = self.packing.arrays
        off = np.flatnonzero(self.packing.tally[0] == 0)
        if not len(off):
            return []
        h, found = int(self.chance.choice(off)), []
        host = arrays.pair_host[self.at[self.free]]
        whole = self.chance.random() < 0.5
        some = self.free[host == self.chance.choice(host)] if whole else self.free
        free = arrays.room[h].copy()
        for copy in self.chance.permutation(some).tolist():
            pair = self._pair_at(copy, h)
            gains = pair is not None and (whole or self.linear[pair] < self.linear[self.at[copy]])
            if pair is not None and gains and (arrays.need[pair] <= free).all():
                free -= arrays.need[pair]
                found.append((copy, pair))
        return found

    def _class(self, copy: int) -> int:
        return int(self.packing.arrays.pair_class[self.at[copy]])

    def _pair_at(self, copy: int, host: int) -> int | None:
        """Return the cheapest pair of a copy's class on a host."""
        where = self.packing.arrays.of(self._class(copy))
        hosts = self.packing.arrays.pair_host[where]
        low, high = np.searchsorted(hosts, [host, host + 1]) + where.start
        return int(low + np.argmin(self.linear[low:high])) if low < high else None


# --- what things cost ---------------------------------------------------------------------------


def pair_costs(arrays: Arrays, name: str) -> Floats:
    """Return what a copy at each pair adds to a term; 0 for terms that are no such sum.

    Of the latency it is the part of demands with one copy.
    """
    if name == "latency_ms" and arrays.total_rate:
        rate = np.bincount(arrays.rate_class, arrays.rate, minlength=arrays.classes)
        single = np.where(arrays.replicas == 1, rate, 0.0)[arrays.pair_class]
        return np.asarray(single * arrays.mean_latency() / arrays.total_rate)
    return _factors(arrays, name)[0]


def host_costs(arrays: Arrays, name: str) -> Floats:
    """Return what each host that is on adds to a term; 0 for terms that are no such sum."""
    return _factors(arrays, name)[1]


def _factors(arrays: Arrays, name: str) -> tuple[Floats, Floats]:
    if name not in LINEAR:
        return np.zeros(arrays.pairs), np.zeros(len(arrays.hosts))
    model = Model.of(arrays, Options())
    on = model.on()
    factors = expression(model, name).dense(model.builder.columns)
    return factors[model.n], factors[on]


def _several(arrays: Arrays, weight: float) -> dict[int, tuple[Floats, Floats]]:
    """Return the rates of classes whose requests go to the nearest of several copies."""
    found = {}
    for c in np.unique(arrays.rate_class).tolist() if weight else ():
        if arrays.replicas[c] > 1:
            rows = np.flatnonzero(arrays.rate_class == c)
            far = np.minimum(arrays.latency[arrays.rate_population[rows]], UNREACHABLE_MS)
            found[c] = (weight * arrays.rate[rows] / arrays.total_rate, far)
    return found


def _stay(arrays: Arrays, weight: float) -> dict[tuple[int, int], tuple[int, float]]:
    if not weight:
        return {}
    keys = zip(arrays.now_class.tolist(), arrays.now_host.tolist(), strict=True)
    return {
        (c, h): (int(now), weight * arrays.demand(c).move_cost)
        for (c, h), now in zip(keys, arrays.now_count, strict=True)
    }


def _rest(arrays: Arrays, weights: Mapping[str, float]) -> dict[str, float]:
    """Return the weights of terms that count and are not local; none that are 0 anyway."""
    problem = arrays.problem
    never = set(CONSTANT)
    if not problem.traffic and not problem.chains:
        never.add("network_mbps")
    if all(rule.must for rule in problem.rules):
        never.add("broken")
    return {
        name: weight for name, weight in weights.items() if name not in LOCAL and name not in never
    }


def cooled(first: float, last: float, step: int, steps: int) -> float:
    """Return the temperature of a step, falling by the same factor each time."""
    return first * math.pow(last / first, step / max(1, steps - 1))

"""What prices of copies prove when each host is filled with whole copies: a tighter bound.

Charge each copy of class c the price p[c] for being placed, and let every host choose for itself
(A. M. Geoffrion, Lagrangean relaxation for integer programming, 1974):

    sum over c of copies[c] p[c] + sum over soft c of (copies[c] - fewest[c]) min(0, left[c] - p[c])
    + sum over h of min(0, host[h] + min sum over c,f of (pair[c,h,f] - p[c]) n[c,f])
    where sum over c,f of need[c,h,f,k] n[c,f] <= room[h,k], n whole, n <= most

`placement.ladder.prices` fills hosts with fractions instead, which is the bound of the LP. Whole
copies rarely fill a host, so this one is higher, most of all where copies are of few kinds. At the
prices of the LP the first step is most of what there is to gain; the next ones follow the
subgradient: a class that hosts choose more often than it has copies gets cheaper.

One knapsack is one small MILP, and what counts is its bound. Hosts that would stay empty even with
fractions are skipped. Every pair of the problem counts, also those that were left out of the LP.
"""

import math
from concurrent.futures import Executor
from dataclasses import dataclass
from typing import Any

import numpy as np

from placement.arrays import Arrays
from placement.ladder.prices import Prices, chunks, everywhere
from placement.ladder.simple import NOTHING, Simple
from placement.matrix import ROUNDING, Floats, Ints, Matrix
from placement.pricing import pair_costs
from placement.problem import Options
from placement.solvers import Limits
from placement.solvers import highs as direct

GAP = 2e-3  # relative, of one knapsack
NODES = 20  # of branch and bound, for one knapsack
BATCH = 25  # hosts in one call of a worker
AIM = 1.5e-3  # of the plan's value: what the first step along the subgradient is meant to gain
SHORTER = 0.6  # times the step, after one that did not help
PATIENCE = 4  # steps in a row that do not help, until it is not worth going on
DEARER = 1.1  # times its price in the LP: what a class may be charged at most
KIND = 2.0  # copies of each class, on average, from where on the bound is worth its time


@dataclass(frozen=True, slots=True, eq=False)
class Sack:
    """One host's choice of n pairs: their value, need (n x K, shares of its room), and most."""

    value: Floats
    need: Floats
    most: Ints


@dataclass(frozen=True, slots=True, eq=False)
class Filled:
    """What a host chooses: no choice is worth more than `worth`; `counts` is about the best."""

    worth: float
    counts: Floats


def fill(sacks: list[Sack]) -> list[Filled]:
    """Solve some knapsacks with one solver object. Runs in other processes, too."""
    if not sacks:
        return []
    highs = direct.load(_matrix(sacks[0]), Limits(math.inf, GAP))
    highs.setOptionValue("mip_max_nodes", NODES)
    highs.setOptionValue("mip_heuristic_effort", 0.0)
    return [_fill(highs, sack) for sack in sacks]


def _matrix(sack: Sack) -> Matrix:
    size, resources = sack.need.shape
    return Matrix(
        start=np.arange(resources + 1) * size,
        index=np.tile(np.arange(size), resources),
        value=sack.need.T.ravel(),
        row_lower=np.full(resources, -math.inf),
        row_upper=np.full(resources, 1.0 + ROUNDING),
        lower=np.zeros(size),
        upper=sack.most.astype(float),
        cost=-sack.value,
        integer=np.ones(size, dtype=bool),
        whole=np.ones(size, dtype=bool),
        constant=0.0,
        core_rows=resources,
    )


def _fill(highs: Any, sack: Sack) -> Filled:
    matrix = _matrix(sack)
    highs.passModel(direct.lp_of(matrix, relaxed=False))
    highs.run()
    found = direct.read(highs, matrix, "highs")
    if not math.isfinite(found.bound):  # proven anyway: all of it
        return Filled(float(sack.value @ sack.most), np.zeros(len(sack.value)))
    x = np.zeros(len(sack.value)) if found.x is None else np.rint(found.x)
    return Filled(-found.bound, x)


# --- all hosts ------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, eq=False)
class Offers:
    """Every pair of a problem whose class may be charged more than it costs, sorted by host."""

    klass: Ints
    host: Ints
    cost: Floats
    need: Floats  # as a share of the host's room
    most: Ints
    start: Ints  # where the offers of each host begin

    @classmethod
    def of(cls, simple: Simple, options: Options, cap: Floats, nearest: int | None) -> "Offers":
        """Return the pairs that cost less than what their class is charged at most."""
        arrays, found = simple.arrays, []
        if nearest is None:
            found.append(_cheap(arrays, arrays.pair_class, simple.pair, cap))
        else:
            for classes in chunks(np.arange(arrays.classes), arrays):
                every = everywhere(arrays, classes)
                costs = pair_costs(every, options.weights)
                found.append(_cheap(every, classes[every.pair_class], costs, cap))
        klass, host, cost, need, most = (np.concatenate(each) for each in zip(*found, strict=True))
        order = np.argsort(host, kind="stable")
        start = np.searchsorted(host[order], np.arange(len(arrays.hosts) + 1))
        return cls(klass[order], host[order], cost[order], need[order], most[order], start)


def _cheap(
    arrays: Arrays, klass: Ints, cost: Floats, cap: Floats
) -> tuple[Ints, Ints, Floats, Floats, Ints]:
    some = cost < cap[klass]
    host = arrays.pair_host[some]
    share = arrays.need[some] / np.maximum(arrays.room[host], NOTHING)
    return klass[some], host, cost[some], share, arrays.most[some]


class Knapsacks:
    """The bound of one simple model, improved step by step; `bound` is the best so far."""

    def __init__(
        self, simple: Simple, options: Options, prices: Prices, nearest: int | None
    ) -> None:
        self.simple = simple
        self.bound = -math.inf
        self._cap = np.maximum(prices.copy, 0.0) * DEARER
        self._offers = Offers.of(simple, options, self._cap, nearest)
        self._copy = np.minimum(prices.copy, self._cap)
        self._room = prices.room * simple.arrays.room
        self._step, self._failed = 1.0, 0

    @property
    def stale(self) -> bool:
        """Return whether another step is not worth its time."""
        return self._failed >= PATIENCE

    def step(self, value: float, executor: Executor | None) -> bool:
        """Fill all hosts at the present prices, then change these; return whether that was better.

        `value` is that of the best plan, which says how far prices are changed.
        """
        bound, slope = self._filled(executor)
        better = bound > self.bound
        self.bound = max(bound, self.bound)
        if not better:
            self._step *= SHORTER
        self._failed = 0 if better else self._failed + 1
        length = float(slope @ slope)
        if length > 0:
            far = self._step * min(AIM * abs(value), max(value - bound, 0.0)) / length
            self._copy = np.minimum(self._copy + far * slope, self._cap)
        return better

    def _filled(self, executor: Executor | None) -> tuple[float, Floats]:
        """Return the bound at the present prices, and by how much it rises with each of them."""
        simple, offers, arrays = self.simple, self._offers, self.simple.arrays
        value = self._copy[offers.klass] - offers.cost
        least = simple.host - self._fractions(value)
        used = np.flatnonzero(least < 0)
        sacks, places = [], []
        for host in used.tolist():
            mine = np.arange(offers.start[host], offers.start[host + 1])
            mine = mine[value[mine] > 0]
            sacks.append(Sack(value[mine], offers.need[mine], offers.most[mine]))
            places.append(mine)
        run = map if executor is None else executor.map
        batches = [sacks[first : first + BATCH] for first in range(0, len(sacks), BATCH)]
        filled = [each for batch in run(fill, batches) for each in batch]
        slope = arrays.copies.astype(float)
        soft = np.isfinite(simple.left)
        out = (arrays.copies - arrays.fewest)[soft]
        cheaper = simple.left[soft] - self._copy[soft]
        slope[soft] -= np.where(cheaper < 0, out, 0)
        total = simple.constant + arrays.copies @ self._copy + out @ np.minimum(0.0, cheaper)
        for host, mine, each in zip(used.tolist(), places, filled, strict=True):
            gain = max(least[host], simple.host[host] - each.worth)
            if gain < 0:
                total += gain
                np.subtract.at(slope, offers.klass[mine], each.counts)
        return float(total), slope

    def _fractions(self, value: Floats) -> Floats:
        """Return what each host is worth at most when it is filled with fractions."""
        offers = self._offers
        rent = (offers.need * self._room[offers.host]).sum(axis=1)
        gain = np.maximum(value - rent, 0.0) * offers.most
        hosts = len(self._room)
        worth: Floats = np.bincount(offers.host, gain, minlength=hosts) + self._room.sum(axis=1)
        return worth


def worthwhile(simple: Simple) -> bool:
    """Return whether copies are of so few kinds that this bound is worth its time."""
    return bool(simple.arrays.copies.sum() >= KIND * simple.arrays.classes > 0)

"""Warm instances by value density: again and again the step that saves most for what it holds.

Every service begins at its best way that holds nothing. A step warms one service, or keeps one
anonymous instance more and lets the services join it that gain by it. Its density is the waiting
that it saves, over the share of its host that it takes; on one host with one scarce resource that
is the order of `placement.warm.value`. In the end the best single step is tried instead of all:
on one host with one rung that makes it never worse than half of what the best plan saves (the
knapsack bound of H. Kellerer, U. Pferschy, D. Pisinger, Knapsack Problems, Springer 2004, 2.5).
"""

import heapq
import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from placement.matrix import ROUNDING, Bools, Floats, Ints
from placement.problem import Infeasible
from placement.warm.arrays import Arrays, forced
from placement.warm.formulas import overflow

LEAST_GAIN = 1e-12  # waiting clients; below, a step is rounding
PLENTY = 1e-3  # what the share of a resource counts of which there is enough for all


@dataclass(frozen=True, slots=True, order=True)
class _Step:
    """A step on the heap, the densest first; `pair` for a service, else `site` gets one more."""

    rank: float
    service: int
    pair: int
    site: int


def greedy(arrays: Arrays) -> tuple[Ints, Ints]:
    """Return a pair for each service and a count for each site.

    Raises `Infeasible` (never proven) where services that must hold something find no room.
    """
    all_steps = _Search(arrays)
    all_steps.run()
    one_step = _Search(arrays)
    one_step.run_once()
    best = min((all_steps, one_step), key=_Search.value)
    return best.chosen, best.kept


class _Search:
    """A plan that gets warmer step by step."""

    def __init__(self, arrays: Arrays) -> None:
        self.arrays = arrays
        self.room = arrays.room.copy()
        self.kept = np.zeros(len(arrays.sites), dtype=np.int64)
        self.erlangs = np.zeros(len(arrays.sites))
        self.chosen = self._begin()
        self._users: list[set[int]] = [set() for _ in arrays.sites]
        self._of_site: list[Ints] = [
            np.flatnonzero(arrays.site == s) for s in range(len(self.kept))
        ]
        with np.errstate(divide="ignore"):
            self._scale = np.where(arrays.room > 0, _scarcity(arrays) / arrays.room, 0.0)

    def value(self) -> float:
        """Return what the plan is worth, as the evaluation has it."""
        total = float(self.arrays.cost[self.chosen].sum())
        for site in np.flatnonzero(self.kept).tolist():
            total += self._miss_cost(site, self.kept[site], self.erlangs[site])
            total += float(self.kept[site] * self.arrays.spare_cost[site])
        return total

    def run(self) -> None:
        """Take steps until none is left that gains and fits."""
        heap = [*self._steps()]
        heapq.heapify(heap)
        while heap:
            step = heapq.heappop(heap)
            now = self._again(step)
            if now is None:
                continue
            if now > step and heap and now > heap[0]:
                heapq.heappush(heap, now)  # others came before it meanwhile
                continue
            self._take(now)
            following = self._again(now)
            if following is not None:
                heapq.heappush(heap, following)

    def run_once(self) -> None:
        """Take the one step that gains most."""
        steps = [(self._gain(step), step) for step in self._steps()]
        if steps:
            self._take(max(steps, key=lambda each: (each[0], each[1]))[1])

    # --- steps ---

    def _steps(self) -> Iterator[_Step]:
        for service in range(len(self.chosen)):
            if (step := self._warmer(service)) is not None:
                yield step
        for site in range(len(self.kept)):
            if (step := self._one_more(site)) is not None:
                yield step

    def _again(self, step: _Step) -> _Step | None:
        return self._warmer(step.service) if step.site < 0 else self._one_more(step.site)

    def _gain(self, step: _Step) -> float:
        if step.site < 0:
            return self._saved(step.service) - float(self.arrays.cost[step.pair])
        return self._joining(step.site)[0]

    def _warmer(self, service: int) -> _Step | None:
        """Return the densest step of one service that fits."""
        arrays = self.arrays
        span = arrays.of(service)
        gain = self._saved(service) - arrays.cost[span]
        hosts, needs = arrays.host[span], arrays.needs[span]
        now = self.chosen[service]
        there = self.room[hosts] + np.where(
            (hosts == arrays.host[now])[:, None], arrays.needs[now], 0
        )
        fits = (needs <= there + ROUNDING).all(axis=1) & (arrays.site[span] < 0)
        share = (needs * self._scale[hosts]).sum(axis=1)
        more = share - float((arrays.needs[now] * self._scale[arrays.host[now]]).sum())
        good = fits & (gain > LEAST_GAIN)
        if not good.any():
            return None
        with np.errstate(divide="ignore", invalid="ignore"):
            density = np.where(more > 0, gain / more, math.inf)
        best = int(np.argmax(np.where(good, density, -math.inf)))
        return _Step(-float(density[best]), service, span.start + best, -1)

    def _one_more(self, site: int) -> _Step | None:
        """Return the step that keeps one anonymous instance more, if it gains and fits."""
        where = self.arrays.sites[site]
        needs = self.arrays.spare_needs[site]
        if self.kept[site] >= where.spare.most or (needs > self.room[where.host] + ROUNDING).any():
            return None
        gain, _ = self._joining(site)
        if gain <= LEAST_GAIN:
            return None
        share = float((needs * self._scale[where.host]).sum())
        return _Step(-gain / share if share > 0 else -math.inf, -1, -1, site)

    def _take(self, step: _Step) -> None:
        if step.site < 0:
            self._move(step.service, step.pair)
            return
        _, joining = self._joining(step.site)
        self.kept[step.site] += 1
        self.room[self.arrays.sites[step.site].host] -= self.arrays.spare_needs[step.site]
        for pair in joining:
            self._move(int(self.arrays.service[pair]), pair)

    def _move(self, service: int, pair: int) -> None:
        arrays, old = self.arrays, self.chosen[service]
        self.room[arrays.host[old]] += arrays.needs[old]
        self.room[arrays.host[pair]] -= arrays.needs[pair]
        for each, sign in ((old, -1), (pair, 1)):
            site = int(arrays.site[each])
            if site >= 0:
                self.erlangs[site] = max(0.0, self.erlangs[site] + sign * arrays.erlangs[each])
                (self._users[site].add if sign > 0 else self._users[site].discard)(service)
        self.chosen[service] = pair

    # --- what they save ---

    def _saved(self, service: int) -> float:
        """Return what a service costs now: what leaving its place would save."""
        pair = int(self.chosen[service])
        site = int(self.arrays.site[pair])
        cost = float(self.arrays.cost[pair])
        if site < 0:
            return cost
        load, kept = self.erlangs[site], int(self.kept[site])
        left = max(0.0, load - self.arrays.erlangs[pair])
        return cost + self._miss_cost(site, kept, load) - self._miss_cost(site, kept, left)

    def _joining(self, site: int) -> tuple[float, list[int]]:
        """Return what one instance more saves, and the pairs of the services that join for it."""
        kept, load = int(self.kept[site]) + 1, float(self.erlangs[site])
        gain = self._miss_cost(site, kept - 1, load) - self._miss_cost(site, kept, load)
        gain -= float(self.arrays.spare_cost[site])
        saves = [
            (self._saved(service) - float(self.arrays.cost[pair]), pair)
            for pair in self._of_site[site].tolist()
            if (service := int(self.arrays.service[pair])) not in self._users[site]
        ]
        joining = []
        for saved, pair in sorted(saves, reverse=True):
            more = load + float(self.arrays.erlangs[pair])
            missed = self._miss_cost(site, kept, more) - self._miss_cost(site, kept, load)
            if saved > missed + LEAST_GAIN:
                gain += saved - missed
                load = more
                joining.append(pair)
        return gain, joining

    def _miss_cost(self, site: int, kept: int, erlangs: float) -> float:
        spare = self.arrays.sites[site].spare
        if spare.refill_s <= 0:
            return 0.0
        return (spare.miss_s - spare.adopt_s) / spare.refill_s * overflow(kept, float(erlangs))

    # --- the start ---

    def _begin(self) -> Ints:
        """Return the best pair that holds nothing of each service; who has none, largest first."""
        arrays = self.arrays
        plain = arrays.site < 0
        share = np.where(arrays.room > 0, arrays.room, math.inf)
        size: Floats = (arrays.needs / share[arrays.host]).sum(axis=1)
        chosen = np.array(
            [self._cheapest(s, plain & (size <= 0)) for s in range(len(arrays.first) - 1)]
        )
        must = np.flatnonzero(forced(arrays))
        largest = sorted(must.tolist(), key=lambda s: -float(size[arrays.of(s)].max()))
        stuck = {}
        for service in largest:
            fits = (arrays.needs <= self.room[arrays.host] + ROUNDING).all(axis=1)
            pair = self._cheapest(service, plain & fits)
            if pair < 0:
                stuck[arrays.problem.services[service].name] = "no room was found for it"
                continue
            self.room[arrays.host[pair]] -= arrays.needs[pair]
            chosen[service] = pair
        if stuck:
            raise Infeasible(stuck, proven=False)
        return chosen.astype(np.int64)

    def _cheapest(self, service: int, may: Bools) -> int:
        span = self.arrays.of(service)
        cost = np.where(may[span], self.arrays.cost[span], math.inf)
        best = int(np.argmin(cost))
        return span.start + best if math.isfinite(cost[best]) else -1


def _scarcity(arrays: Arrays) -> Floats:
    """Return what the share of each resource counts: little, where all can have their most."""
    if not arrays.pairs:
        return np.ones(len(arrays.resources))
    most = np.maximum.reduceat(arrays.needs, arrays.first[:-1], axis=0).sum(axis=0)
    return np.where(most > arrays.room.sum(axis=0), 1.0, PLENTY)

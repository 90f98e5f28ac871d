"""Which places to open for the p-median, without proof: ways that take milliseconds.

All work on `Costs`: what each client costs at each place, weight counted, and a large amount where
there is no path. `placement.median` has the question, the exact way, and the bound.

A. Kuehn, M. Hamburger, "A heuristic program for locating warehouses", Management Science 9(4), 1963
(greedy). M. Teitz, P. Bart, "Heuristic methods for estimating the generalized vertex median of a
weighted graph", Operations Research 16(5), 1968 (interchange). R. Whitaker, "A fast algorithm for
the greedy interchange of large-scale clustering and median location problems", INFOR 21(2), 1983
(a swap by the nearest and second nearest place). Upstream of random, pressure and hot spot:
stuartclayman/VLSP, usr/APcontroller.
"""

from dataclasses import dataclass
from random import Random

import numpy as np

from placement.matrix import Bools, Floats, Ints

BETTER = 1e-12  # of the value by which a swap must be better, or it is rounding
HOPS = 3  # how far VLSP's hot spots look


@dataclass(frozen=True, slots=True, eq=False)
class Costs:
    """What is to be served: `cost` N x M, clients by places; `count` places are opened.

    Where there is no path the cost is `far`, more than all clients together can cost otherwise.
    `distance` is N x M without weights, infinite where there is no path; `hops` M x M are links on
    the way between places, infinite where there is none, None if that is not known.
    """

    cost: Floats
    far: float
    distance: Floats
    count: int
    hops: Floats | None = None

    def value(self, opened: Ints) -> float:
        """Return the cost of all clients, each at the best of some places."""
        return float(self.cost[:, opened].min(axis=1).sum())


def greedy(costs: Costs, _seed: int = 0) -> Ints:
    """Return the places opened one by one, each where it saves most."""
    opened: list[int] = []
    served = np.full(len(costs.cost), np.inf)
    for _ in range(costs.count):
        total = np.minimum(costs.cost, served[:, None]).sum(axis=0)
        total[opened] = np.inf
        best = int(np.argmin(total))
        opened.append(best)
        served = np.minimum(served, costs.cost[:, best])
    return np.array(sorted(opened), dtype=np.int64)


def interchange(costs: Costs, seed: int = 0) -> Ints:
    """Return what swapping one place for another cannot make better, begun from the greedy places.

    Places come in turn; each takes the place of the one whose loss it makes up for best, if that is
    better, until a whole turn brings nothing. With a seed but 0 it begins from random places.
    """
    opened = greedy(costs) if seed == 0 else random(costs, seed)
    number = len(costs.cost[0])
    since, place = 0, 0
    nearest = _nearest(costs, opened)
    while since < number and len(opened) < number:
        since += 1
        if place not in opened:
            gone, gain = _best_swap(costs, place, nearest, len(opened))
            if gain > BETTER * max(1.0, float(nearest[1].sum())):
                opened[gone] = place
                nearest = _nearest(costs, opened)
                since = 0
        place = (place + 1) % number
    return np.sort(opened)


def _nearest(costs: Costs, opened: Ints) -> tuple[Ints, Floats, Floats]:
    """Return each client's place among those opened, its cost there, and at the next best."""
    some = costs.cost[:, opened]
    first = some.argmin(axis=1)
    rows = np.arange(len(some))
    best = some[rows, first]
    some[rows, first] = np.inf
    return first, best, some.min(axis=1)


def _best_swap(
    costs: Costs, place: int, nearest: tuple[Ints, Floats, Floats], count: int
) -> tuple[int, float]:
    """Return which of those opened to close for a place, and what that saves."""
    first, best, second = nearest
    new = costs.cost[:, place]
    stays = np.minimum(new, best)
    loss = np.bincount(first, np.minimum(new, second) - stays, minlength=count)
    gone = int(np.argmin(loss))
    return gone, float((best - stays).sum() - loss[gone])


# --- the aggregation points of VLSP, as baselines -------------------------------------------------


def random(costs: Costs, seed: int = 0) -> Ints:
    """Return any places: the floor, and VLSP's RandomAPController."""
    number = costs.cost.shape[1]
    chosen = Random(seed).sample(range(number), costs.count)  # noqa: S311 - not for secrets
    return np.array(sorted(chosen), dtype=np.int64)


def pressure(costs: Costs, _seed: int = 0) -> Ints:
    """Return the places of most pressure: how far all clients are beyond them, unweighted.

    As in VLSP's PressureAPController, where nothing is opened yet and all are chosen at once. A
    client without a point counts as far as the farthest; there that is an option.
    """
    within = np.isfinite(costs.distance)
    farthest = float(costs.distance[within].max(initial=0.0))
    return _highest(np.where(within, farthest - costs.distance, 0.0).sum(axis=0), costs.count)


def hot_spot(costs: Costs, _seed: int = 0) -> Ints:
    """Return the places with most neighbours: (1 hop)^3 + (2 hops)^2 + 3 hops, as VLSP's HotSpot.

    Hops are counted along shortest ways; VLSP's walk may take longer ones.
    """
    hops = np.zeros((costs.cost.shape[1], 0)) if costs.hops is None else costs.hops
    score = np.zeros(len(hops))
    for away in range(1, HOPS + 1):
        score += (hops == away).sum(axis=1).astype(float) ** (HOPS + 1 - away)
    return _highest(score, costs.count)


def _highest(score: Floats, count: int) -> Ints:
    order = np.argsort(-score, kind="stable")[:count]
    chosen: Bools = np.zeros(len(score), dtype=bool)
    chosen[order] = True
    return np.flatnonzero(chosen)

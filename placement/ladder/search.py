"""The search: round after round of parts, solved at once, the better ones applied."""

from collections.abc import Iterator
from concurrent.futures import Executor

import numpy as np

from placement.assemble import Assembled
from placement.exact import Clock
from placement.ladder.neighbourhoods import Cutter, Effort, Neighbours, Part, Places, solve_part
from placement.ladder.prices import Prices, excess, priced
from placement.ladder.simple import Simple
from placement.matrix import Bools, Floats, Ints

AT_ONCE = 8  # parts per round, whatever the number of processes, so that plans do not depend on it
NODES = 50  # of branch and bound for each part
# Hosts in a part, its relative gap, up to what share of its surplus the reduced cost of a pair may
# be, and how many pairs more than are in use. Cheap loose parts gain most per second at first;
# small ones solved nearly to their best gain for longest, and larger ones come when those are done.
# Measured at 300 x 3,000, gap after 10, 20 and 40 s: only loose parts 1.10, 1.08, 1.02 %, only
# small tight ones 1.37, 1.01, 0.86 %; six times the nodes changed nothing.
LEVELS = (
    (16, 1e-2, 0.1, 150),
    (10, 1e-3, 0.3, 150),
    (16, 2e-3, 0.3, 300),
    (24, 2e-3, 0.3, 500),
    (32, 2e-3, 0.3, 800),
    (48, 2.5e-3, 0.3, 1000),
    (64, 2.5e-3, 0.5, 1500),
)
TIRED = 0.5  # how much less a host is tried after each search around it that found nothing


class Search:
    """The state of a search around one solution of one model."""

    def __init__(
        self, assembled: Assembled, x: Floats, simple: Simple | None, prices: Prices | None
    ) -> None:
        self.assembled = assembled
        self.matrix = assembled.matrix
        self.cutter = Cutter(self.matrix)
        self.places = Places.of(assembled)
        self.neighbours = Neighbours(assembled.model.arrays)
        self.x = x.copy()
        self.activity = self.cutter.activity(self.x)
        self.hosts = len(assembled.model.arrays.hosts)
        self.level = 0
        self.mood = np.ones(self.hosts)
        self.round = 0
        self.simple, self.prices = simple, prices
        self._priced = priced(simple, prices) if simple is not None and prices is not None else None
        self._weight = self._likely()

    @property
    def cost(self) -> float:
        """Return the cost of the solution, constant included."""
        return float((self.matrix.cost * self.x).sum()) + self.matrix.constant

    def rounds(self, clock: Clock, executor: Executor | None, seed: int) -> Iterator[bool]:
        """Search until time is up or parts would be the whole; yield whether a round was better."""
        idle = 0
        while clock.left() > 0.1 and LEVELS[self.level][0] < self.hosts:
            parts = self._parts(seed)
            if not parts:
                return
            seconds = clock.left()
            run = map if executor is None else executor.map
            answers = list(run(solve_part, parts, [seconds] * len(parts)))
            better = self._apply(parts, answers)
            self.round += 1
            idle = 0 if better else idle + 1
            if idle and self.mood.max() < TIRED**2:
                if self.level + 1 == len(LEVELS):
                    return
                self.level += 1
                self.mood[:] = 1.0
            yield better

    def _parts(self, seed: int) -> list[Part]:
        """Return parts around the hosts where most is to be gained, without a host in common."""
        counts = np.rint(self.x[self.assembled.model.n]).astype(np.int64)
        surplus = self._surplus(counts)
        closed: Bools = np.zeros(self.hosts, dtype=bool)
        size, gap, likely, most = LEVELS[self.level]
        parts: list[Part] = []
        for host in np.argsort(-surplus * self.mood, kind="stable").tolist():
            if closed[host]:
                continue
            some = self.neighbours.around(host, counts, self._weight, closed, size)
            closed[some] = True
            mask = np.zeros(self.hosts, dtype=bool)
            mask[some] = True
            useful = self._useful(likely * surplus[some].sum(), most, mask, counts)
            free = self.places.free(self.matrix, self.x, mask, useful)
            if len(free) > 1:
                number = seed + self.round * AT_ONCE + len(parts)
                part = self.cutter.part(self.x, self.activity, free, Effort(NODES, gap, number))
                parts.append(part)
            self.mood[some] *= TIRED**0.5
            self.mood[host] *= TIRED
            if len(parts) == AT_ONCE:
                break
        return parts

    def _surplus(self, counts: Ints) -> Floats:
        """Return where the plan costs more than it must; the same everywhere if that is unknown."""
        if self.simple is None or self.prices is None or self._priced is None:
            return np.ones(self.hosts)
        return excess(self.simple, self.prices, self._priced, counts) + 1e-9

    def _useful(self, cost: float, most: int, hosts: Bools, counts: Ints) -> Bools:
        """Return the unused pairs to free: up to a reduced cost, the best where many are."""
        arrays = self.assembled.model.arrays
        inside = hosts[arrays.pair_host]
        here = np.zeros(arrays.classes, dtype=bool)
        here[arrays.pair_class[inside & (counts > 0)]] = True
        inside &= here[arrays.pair_class]
        if self._priced is None:
            return inside
        inside &= self._priced.pair <= cost
        some = np.flatnonzero(inside & (counts == 0))
        if len(some) > most:
            best = np.argsort(self._priced.pair[some], kind="stable")[:most]
            inside[:] = False
            inside[some[best]] = True
        return inside

    def _likely(self) -> Floats:
        """Return how likely a class uses each of its pairs: by rank, the cheapest first."""
        arrays = self.assembled.model.arrays
        cost = (
            self.matrix.cost[self.assembled.model.n] if self._priced is None else self._priced.pair
        )
        order = np.lexsort((cost, arrays.pair_class))
        rank = np.empty(arrays.pairs)
        rank[order] = np.arange(arrays.pairs) - arrays.start[arrays.pair_class[order]]
        likely: Floats = 1.0 / (1.0 + rank)
        return likely

    def _apply(self, parts: list[Part], answers: list[Floats | None]) -> bool:
        """Take over the better parts; one that clashes with another that was taken is left."""
        better = False
        taken = np.zeros(self.matrix.columns, dtype=bool)
        for part, answer in zip(parts, answers, strict=True):
            if answer is None:
                continue
            changed = part.columns[np.abs(answer - part.start) > 1e-9]
            if taken[changed].any():
                continue
            x = self.x.copy()
            x[part.columns] = answer
            activity = self.cutter.activity(x)
            if not self.cutter.allows(activity):
                continue
            taken[changed] = True
            self.x, self.activity, better = x, activity, True
            hosts = self.places.host[changed]
            self.mood[hosts[hosts >= 0]] = 1.0
        return better

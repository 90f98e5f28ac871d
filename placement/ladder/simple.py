"""Models that are plain enough for arithmetic without a solver, and a board to play them on.

A model is *simple* when its only rows say that copies are placed, that hosts have room, and that
copies of one demand stay apart: what a problem without rules between demands compiles to. Then a
plan is a count per pair, its cost is a sum over pairs and hosts, and one move changes few numbers.
`Board` holds such a plan while the moves of `placement.ladder.moves` change it.
"""

from dataclasses import dataclass

import numpy as np

from placement.arrays import Arrays
from placement.assemble import Assembled
from placement.matrix import ROUNDING, Floats, Ints

ROWS = frozenset({"copies", "capacity", "link", "apart"})
COLUMNS = frozenset({"n", "u", "y"})
NOTHING = 1e-300  # a need of 0, so that dividing by it leaves any room for more copies than exist
UNLIMITED = 2**62


@dataclass(frozen=True, slots=True, eq=False)
class Simple:
    """The costs of a simple model. P pairs, H hosts, C classes, as in `placement.arrays`.

    | field | shape | meaning |
    |---|---|---|
    | `pair` | P | cost of one copy |
    | `host` | H | cost of a host that runs anything |
    | `left` | C | cost of a copy left out, infinite where all are wanted |
    | `share` | P | the largest share of an empty host's room that one copy takes |
    | `by_host`, `host_start` | P, H + 1 | pairs sorted by host, and where each host's begin |
    | `spot`, `spot_room` | P, S | class and host of a pair; copies that may be there |
    """

    assembled: Assembled
    arrays: Arrays
    constant: float
    pair: Floats
    host: Floats
    left: Floats
    share: Floats
    divisor: Floats
    by_host: Ints
    host_start: Ints
    spot: Ints
    spot_room: Ints

    @classmethod
    def of(cls, assembled: Assembled) -> "Simple | None":
        """Return the costs of a model, or None if it is not simple."""
        matrix, model = assembled.matrix, assembled.model
        rows = {block.family for block in matrix.row_blocks}
        if rows - ROWS or {block.family for block in matrix.column_blocks if block.count} - COLUMNS:
            return None
        arrays = model.arrays
        left = np.full(arrays.classes, np.inf)
        soft = model.left_out >= 0
        left[soft] = matrix.cost[model.left_out[soft]]
        room = np.maximum(arrays.room[arrays.pair_host], NOTHING)
        key = arrays.pair_class * max(len(arrays.hosts), 1) + arrays.pair_host
        spots, spot = np.unique(key, return_inverse=True)
        sharing = np.array([arrays.demand(c).share_host for c in range(arrays.classes)], dtype=bool)
        of_spot = spots // max(len(arrays.hosts), 1)
        by_host = np.argsort(arrays.pair_host, kind="stable")
        hosts = len(arrays.hosts)
        return cls(
            assembled,
            arrays,
            matrix.constant,
            matrix.cost[model.n],
            np.zeros(hosts) if model.y is None else matrix.cost[model.y],
            left,
            (arrays.need / room).max(axis=1, initial=0.0),
            np.where(arrays.need > 0, arrays.need, NOTHING),
            by_host,
            np.searchsorted(arrays.pair_host[by_host], np.arange(hosts + 1)),
            spot,
            np.where(sharing[of_spot], UNLIMITED, arrays.many[of_spot]),
        )

    def columns(self, counts: Ints) -> Floats:
        """Return the values of the model's columns for a count per pair."""
        model, arrays = self.assembled.model, self.arrays
        x = np.zeros(self.assembled.matrix.columns)
        x[model.n] = counts
        if model.y is not None:
            copies = np.bincount(arrays.pair_host, counts, minlength=len(arrays.hosts))
            x[model.y] = copies > 0
        soft = np.flatnonzero(model.left_out >= 0)
        placed = np.bincount(arrays.pair_class, counts, minlength=arrays.classes)
        x[model.left_out[soft]] = (arrays.copies - placed)[soft]
        return x

    def counts(self, x: Floats) -> Ints:
        """Return the whole number of copies of each pair, rounded down."""
        return np.floor(x[self.assembled.model.n] + 1e-6).astype(np.int64)


class Board:
    """A plan of a simple model while it is changed: copies by pair, and what is left at hosts."""

    def __init__(self, simple: Simple, counts: Ints) -> None:
        arrays = simple.arrays
        self.simple = simple
        self.counts = counts.copy()
        used = np.zeros_like(arrays.room)
        np.add.at(used, arrays.pair_host, arrays.need * counts[:, None])
        self.free = arrays.room - used + ROUNDING
        self.copies = np.bincount(arrays.pair_host, counts, minlength=len(arrays.hosts))
        self.waiting = arrays.copies - np.bincount(
            arrays.pair_class, counts, minlength=arrays.classes
        ).astype(np.int64)
        self._several = len(simple.spot_room) < arrays.pairs
        self._spots = np.bincount(simple.spot, counts, minlength=len(simple.spot_room))

    @property
    def cost(self) -> float:
        """Return the cost of the plan; copies that wait although they must not cost nothing."""
        simple = self.simple
        out = self.waiting > 0
        left = simple.left[out] * self.waiting[out]
        return float(
            simple.constant
            + (simple.pair * self.counts).sum()
            + simple.host[self.copies > 0].sum()
            + left[np.isfinite(left)].sum()
        )

    @property
    def stranded(self) -> Ints:
        """Return the classes with copies that must be placed and are not."""
        arrays = self.simple.arrays
        return np.flatnonzero(self.waiting > arrays.copies - arrays.fewest)

    def fits(self, c: int) -> Floats:
        """Return how many more copies fit at each pair of a class."""
        simple, pairs = self.simple, self.simple.arrays.of(c)
        there = simple.arrays.pair_host[pairs]
        found = np.floor((self.free[there] / simple.divisor[pairs]).min(axis=1))
        found = np.minimum(found, simple.arrays.most[pairs] - self.counts[pairs])
        if self._several:
            spot = simple.spot[pairs]
            found = np.minimum(found, simple.spot_room[spot] - self._spots[spot])
        free: Floats = found
        return free

    def put(self, pair: int, copies: int) -> None:
        """Add copies at a pair; fewer than none takes them away."""
        arrays = self.simple.arrays
        host = arrays.pair_host[pair]
        self.counts[pair] += copies
        self.free[host] -= copies * arrays.need[pair]
        self.copies[host] += copies
        self.waiting[arrays.pair_class[pair]] -= copies
        if self._several:
            self._spots[self.simple.spot[pair]] += copies

    def pairs_at(self, host: int) -> Ints:
        """Return the pairs with copies at a host."""
        simple = self.simple
        pairs = simple.by_host[simple.host_start[host] : simple.host_start[host + 1]]
        return pairs[self.counts[pairs] > 0]

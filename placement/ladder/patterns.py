"""Column generation: whole host contents as columns, for simple models with one whole resource.

A *pattern* is what one host runs. The master problem chooses at most one pattern per host so that
all copies are placed; its prices of copies say, by a knapsack at each host, which pattern would be
worth having. The bound is that of `placement.ladder.prices` with true knapsacks in the place of
fractional ones, so it is never weaker: with C, H and d[c,h] = pair[c,h] - p[c],

    sum over c of copies[c] p[c] + sum over soft c of (copies[c] - fewest[c]) min(0, left[c] - p[c])
    + sum over h of min(0, host[h] + min over patterns at h of sum over c of d[c,h] count[c])

The same knapsacks, solved once more with each pair in turn, say which pairs can be in no plan
better than the best known: without them the exact model is far smaller.

M. Savelsbergh, "A branch-and-price algorithm for the generalized assignment problem", Operations
Research 45(6), 1997. P. Wentges, "Weighted Dantzig-Wolfe decomposition for linear mixed-integer
programming", ITOR 4(2), 1997, for the smoothing of prices.
"""

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from placement.exact import Clock
from placement.ladder.simple import Simple
from placement.matrix import Bools, Floats, Ints, Matrix
from placement.solvers import Limits
from placement.solvers import highs as direct

CELLS = 20_000_000  # of all knapsack tables of a round: some 0.1 s
SURE = 0.95  # patterns of a larger share are fixed at once in a dive
NOISE = 0.3  # by which chance changes which pattern comes first
SMOOTH = (0.7, 0.35, 0.0)  # share of the best prices so far in those asked, one after the other
ENOUGH = 1e-7  # relative: a master nearer to the bound is solved
WORTH = 1e-6


@dataclass(frozen=True, slots=True, eq=False)
class Knapsack:
    """The pairs of one host that fit, each once per copy that may be there, and its room."""

    host: int
    pairs: Ints
    needs: Ints
    room: int

    def best(self, worth: Floats) -> tuple[float, Ints]:
        """Return the most that a content of the host is worth, and its pairs."""
        some = np.flatnonzero(worth > 0)
        table = np.zeros(self.room + 1)
        taken = np.zeros((len(some), self.room + 1), dtype=bool)
        for row, i in enumerate(some.tolist()):
            need = int(self.needs[i])
            more = table[: self.room + 1 - need] + worth[i]
            np.greater(more, table[need:], out=taken[row, need:])
            np.maximum(table[need:], more, out=table[need:])
        left, found = self.room, []
        for row in range(len(some) - 1, -1, -1):
            if taken[row, left]:
                found.append(some[row])
                left -= int(self.needs[some[row]])
        return float(table[-1]), self.pairs[np.array(found, dtype=np.int64)]

    def only(self, left: Ints) -> "Knapsack":
        """Return the knapsack with each pair at most as often as `left` says of it."""
        rank = np.arange(len(self.pairs)) - np.searchsorted(self.pairs, self.pairs)
        kept = rank < left[self.pairs]
        return Knapsack(self.host, self.pairs[kept], self.needs[kept], self.room)

    def each(self, worth: Floats) -> Floats:
        """Return the most that a content with each of the pairs in it is worth."""
        count, size = len(self.pairs), self.room + 1
        before, after = np.zeros((count + 1, size)), np.zeros((count + 1, size))
        for tables, order in ((before, range(count)), (after, range(count - 1, -1, -1))):
            step = 1 if tables is before else 0
            for i in order:
                need, now = int(self.needs[i]), tables[i + 1 - step]
                then = now.copy()
                if worth[i] > 0:
                    np.maximum(then[need:], now[: size - need] + worth[i], out=then[need:])
                tables[i + step] = then
        found = np.empty(count)
        for i in range(count):
            free = self.room - int(self.needs[i])
            found[i] = worth[i] + (before[i, : free + 1] + after[i + 1, free::-1]).max()
        return found


def whole_knapsacks(simple: Simple) -> list[Knapsack] | None:
    """Return the knapsack of each host; None where needs are not whole, or tables too large."""
    arrays = simple.arrays
    times = np.minimum(arrays.most, simple.spot_room[simple.spot])
    scarce = np.zeros_like(arrays.room)
    np.add.at(scarce, arrays.pair_host, arrays.need * times[:, None])
    matters = np.flatnonzero((scarce > arrays.room).any(axis=0))
    if len(matters) != 1 or len(simple.spot_room) < arrays.pairs:
        return None
    need = arrays.need[:, matters[0]]
    room = np.floor(arrays.room[:, matters[0]] + WORTH)
    whole = np.rint(need)
    if np.abs(need - whole).max(initial=0.0) > 1e-9 or not len(need):
        return None
    unit = max(1, int(np.gcd.reduce(whole.astype(np.int64))))
    found, cells = [], 0
    for host in range(len(arrays.hosts)):
        pairs = simple.by_host[simple.host_start[host] : simple.host_start[host + 1]]
        pairs = np.repeat(np.sort(pairs), times[np.sort(pairs)])
        cells += len(pairs) * (int(room[host]) // unit + 1)
        needs = whole[pairs].astype(np.int64) // unit
        found.append(Knapsack(host, pairs, needs, int(room[host]) // unit))
        if cells > CELLS:
            return None
    return found


@dataclass(slots=True, eq=False)
class Patterns:
    """Column generation over what is still to be placed, from some prices of copies (C).

    `copies` are to be placed, of which `spare` may be left out, on the hosts of `sacks`. `bound`
    and `price` are the best so far, `chosen` the share of each pattern in the last master.
    """

    simple: Simple
    sacks: list[Knapsack]
    price: Floats
    copies: Ints
    spare: Ints
    seed: int = 0
    bound: float = -math.inf
    chosen: Floats = field(default_factory=lambda: np.empty(0))
    hosts: list[int] = field(default_factory=list)
    contents: list[Ints] = field(default_factory=list)
    costs: list[float] = field(default_factory=list)
    seen: set[tuple[int, bytes]] = field(default_factory=set)
    rounds: int = 0

    @classmethod
    def of(cls, simple: Simple, price: Floats, seed: int) -> "Patterns | None":
        """Return the start of column generation; None for models that it is not for."""
        sacks = whole_knapsacks(simple)
        if sacks is None:
            return None
        arrays = simple.arrays
        return cls(simple, sacks, price, arrays.copies, arrays.copies - arrays.fewest, seed)

    def add(self, host: int, pairs: Ints) -> bool:
        """Add a pattern; return whether it is new."""
        pairs = np.sort(pairs)
        key = host, pairs.tobytes()
        if key in self.seen or not len(pairs):
            return False
        self.seen.add(key)
        self.hosts.append(host)
        self.contents.append(pairs)
        self.costs.append(float(self.simple.host[host] + self.simple.pair[pairs].sum()))
        return True

    def begin(self, counts: Ints) -> None:
        """Add the patterns of a solution."""
        arrays = self.simple.arrays
        pairs = np.repeat(np.arange(arrays.pairs), counts)
        for host in range(len(arrays.hosts)):
            self.add(host, pairs[arrays.pair_host[pairs] == host])

    def ask(self, price: Floats) -> tuple[float, int]:
        """Solve all knapsacks at prices; return the bound they prove and how many are new."""
        simple, arrays = self.simple, self.simple.arrays
        total = self.floor(price)
        new = 0
        for sack in self.sacks:
            worth = price[arrays.pair_class[sack.pairs]] - simple.pair[sack.pairs]
            most, pairs = sack.best(worth)
            part = simple.host[sack.host] - most
            total += min(0.0, part)
            if part < WORTH * max(1.0, abs(most)):
                new += self.add(sack.host, pairs)
        self.rounds += 1
        if total > self.bound:
            self.bound, self.price = total, price.copy()
        return total, new

    def floor(self, price: Floats) -> float:
        """Return the part of the bound that no host changes."""
        simple = self.simple
        soft = np.isfinite(simple.left)
        left = self.spare[soft] @ np.minimum(0.0, simple.left[soft] - price[soft])
        return float(simple.constant + self.copies @ price + left)

    def generate(self, clock: Clock) -> None:
        """Add patterns until the master is solved or time is up."""
        if not self.contents:
            self.ask(self.price)
        highs, done = None, 0
        while clock.left() > 0.05:
            matrix = self.master()
            if highs is None:
                highs = direct.load(matrix, Limits(clock.left(), seed=self.seed), relaxed=True)
            else:
                add_columns(highs, matrix, done)
            done = matrix.columns
            highs.setOptionValue("time_limit", highs.getRunTime() + clock.left())
            highs.run()
            if highs.getModelStatus() != direct.library().HighsModelStatus.kOptimal:
                return
            value = highs.getInfo().objective_function_value
            self.chosen = np.array(highs.getSolution().col_value)[len(self.copies) :]
            if value - self.bound <= ENOUGH * max(1.0, abs(value)):
                return
            price = np.array(highs.getSolution().row_dual)[: self.simple.arrays.classes]
            for smooth in SMOOTH:
                _, new = self.ask(smooth * self.price + (1 - smooth) * price)
                if new:
                    break
            else:
                return

    def master(self) -> Matrix:
        """Return the master: copies covered, one pattern per host; `left out` comes first."""
        simple, arrays = self.simple, self.simple.arrays
        classes, hosts, many = arrays.classes, len(arrays.hosts), len(self.hosts)
        none = np.empty(0, dtype=np.int64)
        big = 2 * float(np.abs(simple.pair).max(initial=1.0)) + float(simple.host.max(initial=0.0))
        soft = np.isfinite(simple.left)
        left = np.where(soft, simple.left, big)
        sizes = np.array([len(pairs) for pairs in self.contents], dtype=np.int64)
        column = np.concatenate(
            (
                np.arange(classes),
                classes + np.repeat(np.arange(many), sizes),
                classes + np.arange(many),
            )
        )
        row = np.concatenate(
            (
                np.arange(classes),
                arrays.pair_class[np.concatenate([*self.contents, none])],
                classes + np.array(self.hosts, dtype=np.int64),
            )
        )
        key, times = np.unique(row * (classes + many) + column, return_counts=True)
        row, column = np.divmod(key, classes + many)
        return Matrix(
            start=np.concatenate(([0], np.cumsum(np.bincount(row, minlength=classes + hosts)))),
            index=column,
            value=times.astype(float),
            row_lower=np.concatenate((self.copies.astype(float), np.full(hosts, -np.inf))),
            row_upper=np.concatenate((np.full(classes, np.inf), np.ones(hosts))),
            lower=np.zeros(classes + many),
            upper=np.concatenate((np.where(soft, self.spare, self.copies), np.ones(many))),
            cost=np.concatenate((left, self.costs)),
            integer=np.ones(classes + many, dtype=bool),
            whole=np.zeros(classes + many, dtype=bool),
            constant=simple.constant,
            core_rows=classes + hosts,
        )

    # --- whole solutions ---

    def rest(self, counts: Ints) -> "Patterns":
        """Return what is left to be placed when hosts with copies in `counts` are done with."""
        simple, arrays = self.simple, self.simple.arrays
        placed = np.bincount(arrays.pair_class, counts, minlength=arrays.classes).astype(np.int64)
        copies = np.maximum(self.copies - placed, 0)
        done = np.bincount(arrays.pair_host, counts, minlength=len(arrays.hosts)) > 0
        sacks = [sack.only(copies[arrays.pair_class]) for sack in self.sacks if not done[sack.host]]
        found = Patterns(
            simple, sacks, self.price, copies, np.minimum(self.spare, copies), self.seed
        )
        for host, pairs in zip(self.hosts, self.contents, strict=True):
            classes, many = np.unique(arrays.pair_class[pairs], return_counts=True)
            if not done[host] and (many <= copies[classes]).all():
                found.add(host, pairs)
        return found

    def dive(self, clock: Clock, chance: np.random.Generator) -> Ints:
        """Return counts of a solution, perhaps not complete: patterns fixed one after the other.

        Those whose share is largest come first; chance makes every dive another one.
        """
        arrays = self.simple.arrays
        counts: Ints = np.zeros(arrays.pairs, dtype=np.int64)
        now = self
        while now.sacks and now.copies.any() and clock.left() > 0.05:
            if now is not self:
                now.generate(clock)
            share = now.chosen[: len(now.hosts)]
            if share.max(initial=0.0) < WORTH:
                break
            fixed = np.zeros_like(counts)
            left = now.copies.copy()
            score = share * chance.uniform(1 - NOISE, 1, len(share))
            taken: set[int] = set()
            for spot in np.argsort(-score, kind="stable").tolist():
                host, pairs = now.hosts[spot], now.contents[spot]
                if (taken and share[spot] < SURE) or share[spot] < WORTH:
                    break
                many = np.bincount(arrays.pair_class[pairs], minlength=arrays.classes)
                if host not in taken and (many <= left).all():
                    np.add.at(fixed, pairs, 1)
                    left -= many
                    taken.add(host)
            if not taken:
                break
            counts += fixed
            now = now.rest(fixed)
        return counts

    # --- what is proven of pairs ---

    def hopeless(self, value: float) -> Bools:
        """Return the pairs that are in no plan cheaper than a value, by the best prices."""
        simple, arrays = self.simple, self.simple.arrays
        found: Bools = np.zeros(arrays.pairs, dtype=bool)
        most = value - self.grain() + WORTH  # what a cheaper plan costs at most
        for sack in self.sacks:
            worth = self.price[arrays.pair_class[sack.pairs]] - simple.pair[sack.pairs]
            here = min(0.0, simple.host[sack.host] - sack.best(worth)[0])
            least = self.bound - here + simple.host[sack.host] - sack.each(worth)
            found[sack.pairs[least > most]] = True
        return found

    def grain(self) -> float:
        """Return by how much two plans differ in cost at least, unless they cost the same."""
        simple = self.simple
        costs = np.concatenate((simple.pair, simple.host, simple.left[np.isfinite(simple.left)]))
        return float((costs == np.rint(costs)).all())


def add_columns(highs: Any, matrix: Matrix, first: int) -> None:
    """Add the columns of a matrix from the given one on to a loaded model."""
    row = matrix.row_of_entry()
    some = np.flatnonzero(matrix.index >= first)
    some = some[np.argsort(matrix.index[some], kind="stable")]
    count = matrix.columns - first
    start = np.searchsorted(matrix.index[some], np.arange(first, matrix.columns))
    highs.addCols(
        count,
        matrix.cost[first:],
        matrix.lower[first:],
        matrix.upper[first:],
        len(some),
        start.astype(np.int32),
        row[some].astype(np.int32),
        matrix.value[some],
    )

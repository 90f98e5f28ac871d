"""Large neighbourhood search: free what runs on a few neighbouring hosts, and solve that exactly.

The rest of the plan stays as it is and moves to the right-hand sides, so a part is a small model
with rows of every family. Hosts are neighbours when the copies of one could be at the other. With
prices it is known where a plan costs more than it must: searches start there, and copies at a
reduced cost above that surplus stay out, since they could not make the part better. Parts without
a host in common are solved at once, by whatever executor there is, and applied in a fixed order:
equal seeds give equal plans on any number of processes, deadlines aside.

P. Shaw, Using constraint programming and local search methods to solve vehicle routing problems,
1998; reduced cost fixing: H. Crowder and others, Solving large-scale zero-one linear programming
problems, 1983.
"""

from dataclasses import dataclass

import numpy as np

from placement.arrays import Arrays
from placement.assemble import Assembled
from placement.matrix import INF, Bools, Floats, Ints, Matrix
from placement.solvers import Limits
from placement.solvers import highs as direct

FEASIBLE = 1e-6


@dataclass(frozen=True, slots=True)
class Effort:
    """How hard a part is tried: nodes of branch and bound, relative gap, seed."""

    nodes: int
    gap: float
    seed: int


@dataclass(frozen=True, slots=True, eq=False)
class Part:
    """A small model cut out of a large one: `columns` are free, `start` is where they are now."""

    matrix: Matrix
    columns: Ints
    start: Floats
    effort: Effort


class Cutter:
    """Cuts parts out of one matrix, in time proportional to the part."""

    def __init__(self, matrix: Matrix) -> None:
        self.matrix = matrix
        entries = int(matrix.start[matrix.core_rows])
        column = matrix.index[:entries]
        self._order = np.argsort(column, kind="stable")
        self._row = matrix.row_of_entry()[:entries][self._order]
        self._value = matrix.value[:entries][self._order]
        self._start = np.searchsorted(column[self._order], np.arange(matrix.columns + 1))

    def part(self, x: Floats, activity: Floats, free: Ints, effort: Effort) -> Part:
        """Return the model over the free columns; `activity` is A @ x of the core rows."""
        matrix = self.matrix
        low, high = self._start[free], self._start[free + 1]
        lengths = high - low
        before = np.cumsum(lengths) - lengths
        entries = np.repeat(low - before, lengths) + np.arange(lengths.sum())
        column = np.repeat(np.arange(len(free)), lengths)
        rows, row = np.unique(self._row[entries], return_inverse=True)
        value = self._value[entries]
        mine = np.bincount(row, value * x[free][column], minlength=len(rows)).astype(float)
        fixed = activity[rows] - mine
        order = np.lexsort((column, row))
        return Part(
            Matrix(
                start=np.concatenate(([0], np.cumsum(np.bincount(row, minlength=len(rows))))),
                index=column[order],
                value=value[order],
                row_lower=matrix.row_lower[rows] - fixed,
                row_upper=matrix.row_upper[rows] - fixed,
                lower=matrix.lower[free],
                upper=matrix.upper[free],
                cost=matrix.cost[free],
                integer=matrix.integer[free],
                whole=matrix.whole[free],
                constant=0.0,
                core_rows=len(rows),
            ),
            free,
            x[free],
            effort,
        )

    def activity(self, x: Floats) -> Floats:
        """Return A @ x of the core rows."""
        products = self._value * np.repeat(x, np.diff(self._start))
        rows = self.matrix.core_rows
        return np.bincount(self._row, products, minlength=rows).astype(float)

    def allows(self, activity: Floats) -> bool:
        """Return whether all core rows hold."""
        core = self.matrix.core_rows
        low, high = self.matrix.row_lower[:core], self.matrix.row_upper[:core]
        slack = FEASIBLE * np.maximum(1.0, np.abs(np.where(np.isfinite(high), high, low)))
        slack = np.where(np.isfinite(slack), slack, FEASIBLE)
        return bool(((activity <= high + slack) & (activity >= low - slack)).all())


def solve_part(part: Part, seconds: float) -> Floats | None:
    """Return a better solution of a part, None if none is found. Runs in other processes, too."""
    before = float(part.matrix.cost @ part.start)
    highs = direct.load(part.matrix, Limits(seconds, part.effort.gap, 1, part.effort.seed))
    highs.setOptionValue("mip_max_nodes", part.effort.nodes)
    direct.begin(highs, part.start)
    highs.run()  # it has a solution: that there is none would be a mistake of presolve
    x = direct.read(highs, part.matrix, "highs").x
    if x is None:
        return None
    x[part.matrix.integer] = np.rint(x[part.matrix.integer])
    better = float(part.matrix.cost @ x) < before - 1e-9 * max(1.0, abs(before))
    return x if better else None


# --- which hosts, and what is free there ----------------------------------------------------------


@dataclass(frozen=True, slots=True, eq=False)
class Places:
    """Which columns are at which host and of which class, -1 for none; n columns are pairs."""

    host: Ints
    klass: Ints
    pair: Ints

    @classmethod
    def of(cls, assembled: Assembled) -> "Places":
        """Return the places of a model's columns."""
        count = assembled.matrix.columns
        host, klass, pair = (np.full(count, -1, dtype=np.int64) for _ in range(3))
        for block in assembled.matrix.column_blocks:
            columns = slice(block.first, block.first + block.count)
            if "h" in block.keys:
                host[columns] = block.keys["h"]
            if "c" in block.keys:
                klass[columns] = block.keys["c"]
        pair[assembled.model.n] = np.arange(assembled.model.arrays.pairs)
        return cls(host, klass, pair)

    def free(self, matrix: Matrix, x: Floats, hosts: Bools, useful: Bools) -> Ints:
        """Return the columns to free for some hosts: what may change when copies move among them.

        `useful` says of each pair whether it may get copies at all.
        """
        is_pair = self.pair >= 0
        inside = (self.host >= 0) & hosts[self.host]
        here = np.unique(self.klass[inside & is_pair & (x > 0.5)])
        member = np.zeros(int(self.klass.max(initial=0)) + 2, dtype=bool)
        member[here] = True
        mine = member[self.klass]  # class -1 is the last entry, never a member
        soft = (self.host < 0) & ~is_pair
        chosen = np.where(is_pair, useful[self.pair] | (x > 0.5), True)
        free = (inside & (mine | (self.klass < 0)) & chosen) | (
            soft & (mine | (self.klass < 0) | ~matrix.integer)
        )
        return np.flatnonzero(free)


class Neighbours:
    """Hosts by nearness: how many copies of one could be at another."""

    def __init__(self, arrays: Arrays) -> None:
        self.arrays = arrays
        self._by_host = np.argsort(arrays.pair_host, kind="stable")
        hosts = np.arange(len(arrays.hosts) + 1)
        self._start = np.searchsorted(arrays.pair_host[self._by_host], hosts)

    def around(self, host: int, counts: Ints, weight: Floats, closed: Bools, size: int) -> Ints:
        """Return a host and its nearest neighbours that are not closed, at most `size` in all.

        `weight` says of each pair how likely its class is to use it.
        """
        arrays = self.arrays
        pairs = self._by_host[self._start[host] : self._start[host + 1]]
        there = pairs[counts[pairs] > 0]
        classes = arrays.pair_class[there if len(there) else pairs]
        spans = [np.arange(arrays.start[c], arrays.start[c + 1]) for c in np.unique(classes)]
        if not spans:
            return np.array([host])
        near = np.concatenate(spans)
        score = np.bincount(arrays.pair_host[near], weight[near], minlength=len(arrays.hosts))
        score[closed] = -INF
        score[host] = INF
        best = np.argsort(-score, kind="stable")[:size]
        found: Ints = best[score[best] > 0]
        return found

"""A mixed integer linear program as plain arrays, and the builder that collects one.

`Matrix` is what every solver gets; all emitters carry the same. Columns and rows come in blocks
of one family each, added as numpy columns and never cell by cell, so that a million entries cost
milliseconds. Names are made only for who asks. Equal calls give equal matrices.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]

INF = float("inf")
ROUNDING = 1e-9  # sums of fractions are not exact


@dataclass(frozen=True, slots=True, eq=False)
class Block:
    """Columns or rows of one family: `count` of them from `first` on.

    Each key has a letter and one number per member: family ``n`` with keys c and h names its
    members such as ``n_c3_h7``.
    """

    family: str
    first: int
    count: int
    keys: Mapping[str, Ints]

    def names(self) -> list[str]:
        """Return the name of each member."""
        if not self.keys:
            return [f"{self.family}_{i}" for i in range(self.count)]
        parts = [[f"_{letter}{i}" for i in each.tolist()] for letter, each in self.keys.items()]
        return [self.family + "".join(each) for each in zip(*parts, strict=True)]


@dataclass(frozen=True, slots=True, eq=False)
class Matrix:
    """Minimise ``cost @ x + constant`` with ``row_lower <= A @ x <= row_upper`` in bounds.

    A has one row per constraint, in compressed sparse rows: the entries of row i are `index`
    and `value` from ``start[i]`` to ``start[i + 1]``, sorted by column, each column once.
    Bounds may be infinite. Columns that are `whole` but not `integer` may be taken as integers
    without loss: some best solution has them whole. The rows from `core_rows` on are implied
    by the others for integer columns: they only tighten the relaxation, and a solver may leave
    them out or add those that are violated.
    """

    start: Ints
    index: Ints
    value: Floats
    row_lower: Floats
    row_upper: Floats
    lower: Floats
    upper: Floats
    cost: Floats
    integer: Bools
    whole: Bools
    constant: float
    core_rows: int
    column_blocks: tuple[Block, ...] = ()
    row_blocks: tuple[Block, ...] = ()

    @property
    def columns(self) -> int:
        """Return the number of columns."""
        return len(self.cost)

    @property
    def rows(self) -> int:
        """Return the number of rows, with those that may be left out."""
        return len(self.row_lower)

    def column_names(self) -> list[str]:
        """Return the names of all columns, in order."""
        if not self.column_blocks:
            return [f"x{i}" for i in range(self.columns)]
        return _distinct([name for block in self.column_blocks for name in block.names()])

    def row_names(self) -> list[str]:
        """Return the names of all rows, in order."""
        if not self.row_blocks:
            return [f"r{i}" for i in range(self.rows)]
        return _distinct([name for block in self.row_blocks for name in block.names()])

    def row_of_entry(self) -> Ints:
        """Return the row of each entry, as in coordinate form."""
        return np.repeat(np.arange(self.rows, dtype=np.int64), np.diff(self.start))

    def activity(self, x: Floats) -> Floats:
        """Return A @ x."""
        products = self.value * x[self.index]
        found: Any = np.bincount(self.row_of_entry(), weights=products, minlength=self.rows)
        return np.asarray(found, dtype=float)

    def with_constant(self, constant: float) -> "Matrix":
        """Return the same with another constant."""
        return replace(self, constant=constant)

    def cut(self, rows: Bools, columns: Bools) -> "Matrix":
        """Return the part with these rows and columns, without the constant and without names.

        Entries of kept rows must be in kept columns.
        """
        position = np.cumsum(columns) - 1
        entries = rows[self.row_of_entry()]
        lengths = np.diff(self.start)[rows]
        return Matrix(
            start=np.concatenate(([0], np.cumsum(lengths))),
            index=position[self.index[entries]],
            value=self.value[entries],
            row_lower=self.row_lower[rows],
            row_upper=self.row_upper[rows],
            lower=self.lower[columns],
            upper=self.upper[columns],
            cost=self.cost[columns],
            integer=self.integer[columns],
            whole=self.whole[columns],
            constant=0.0,
            core_rows=int(rows[: self.core_rows].sum()),
        )


class Linear:
    """A linear expression over columns: parallel lists of columns and factors, and a constant."""

    __slots__ = ("columns", "constant", "factors")

    def __init__(self) -> None:
        self.columns: list[Ints] = []
        self.factors: list[Floats] = []
        self.constant = 0.0

    def add(self, columns: ArrayLike, factors: ArrayLike) -> None:
        """Add factors times columns, broadcast to one length."""
        where = np.atleast_1d(np.asarray(columns, dtype=np.int64))
        self.columns.append(where)
        self.factors.append(np.broadcast_to(np.asarray(factors, dtype=float), where.shape))

    def add_all(self, other: "Linear", factor: float) -> None:
        """Add factor times another expression."""
        self.columns += other.columns
        self.factors += [factor * each for each in other.factors]
        self.constant += factor * other.constant

    def joined(self) -> tuple[Ints, Floats]:
        """Return all columns and their factors; a column may come several times."""
        if not self.columns:
            return np.empty(0, np.int64), np.empty(0)
        return np.concatenate(self.columns), np.concatenate(self.factors)

    def dense(self, columns: int) -> Floats:
        """Return the factor of each of so many columns."""
        where, factors = self.joined()
        return np.bincount(where, weights=factors, minlength=columns).astype(float)


class Entries:
    """Entries of rows that are being collected: row within the block, column, value."""

    __slots__ = ("columns", "rows", "values")

    def __init__(self) -> None:
        self.rows: list[Ints] = []
        self.columns: list[Ints] = []
        self.values: list[Floats] = []

    def add(self, rows: ArrayLike, columns: ArrayLike, values: ArrayLike) -> None:
        """Add entries; the three broadcast to one length."""
        r, c, v = np.broadcast_arrays(
            np.atleast_1d(np.asarray(rows, dtype=np.int64)),
            np.atleast_1d(np.asarray(columns, dtype=np.int64)),
            np.atleast_1d(np.asarray(values, dtype=float)),
        )
        self.rows.append(r)
        self.columns.append(c)
        self.values.append(v)


class Builder:
    """Collects columns and rows, block by block, and makes the `Matrix`."""

    def __init__(self) -> None:
        self.columns = 0
        self._column_blocks: list[Block] = []
        self._bounds: list[tuple[Floats, Floats, Bools, Bools]] = []
        self._core: list[_Rows] = []
        self._implied: list[_Rows] = []

    def add_columns(
        self,
        family: str,
        count: int,
        upper: ArrayLike,
        *,
        lower: ArrayLike = 0.0,
        integer: bool = False,
        whole: bool = False,
        **keys: ArrayLike,
    ) -> Ints:
        """Add columns of a family and return their numbers; see `Matrix` for `whole`."""
        first = self.columns
        self.columns += count
        arrays = {k: np.broadcast_to(np.asarray(v, np.int64), (count,)) for k, v in keys.items()}
        self._column_blocks.append(Block(family, first, count, arrays))
        kinds = np.full(count, integer), np.full(count, integer or whole)
        self._bounds.append((_wide(lower, count), _wide(upper, count), *kinds))
        return np.arange(first, self.columns)

    def add_rows(
        self,
        family: str,
        count: int,
        entries: Entries,
        *,
        lower: ArrayLike = -INF,
        upper: ArrayLike = INF,
        implied: bool = False,
        **keys: ArrayLike,
    ) -> None:
        """Add rows of a family; `implied` ones only tighten the relaxation."""
        if not count:
            return
        arrays = {k: np.broadcast_to(np.asarray(v, np.int64), (count,)) for k, v in keys.items()}
        rows = _Rows(family, count, entries, _wide(lower, count), _wide(upper, count), arrays)
        (self._implied if implied else self._core).append(rows)

    def add_row(
        self, family: str, expression: Linear, *, lower: float = -INF, upper: float = INF
    ) -> None:
        """Add one row for an expression; its constant moves to the bounds."""
        entries = Entries()
        columns, factors = expression.joined()
        entries.add(np.zeros(len(columns), np.int64), columns, factors)
        shift = expression.constant
        self.add_rows(family, 1, entries, lower=lower - shift, upper=upper - shift)

    def matrix(self, objective: Linear) -> Matrix:
        """Return everything collected, with an objective to minimise."""
        blocks, start, index, value, low, high = [], [np.zeros(1, np.int64)], [], [], [], []
        first = entries = 0
        for rows in (*self._core, *self._implied):
            row, columns, values = rows.sorted()
            ends = np.cumsum(np.bincount(row, minlength=rows.count))
            start.append(entries + ends)
            entries += len(row)
            index.append(columns)
            value.append(values)
            low.append(rows.lower)
            high.append(rows.upper)
            blocks.append(Block(rows.family, first, rows.count, rows.keys))
            first += rows.count
        bounds = zip(*self._bounds, strict=True) if self._bounds else ((), (), (), ())
        lower, upper, integer, whole = bounds
        return Matrix(
            start=np.concatenate(start),
            index=_joined(index, np.int64),
            value=_joined(value, np.float64),
            row_lower=_joined(low, np.float64),
            row_upper=_joined(high, np.float64),
            lower=_joined(lower, np.float64),
            upper=_joined(upper, np.float64),
            cost=objective.dense(self.columns),
            integer=_joined(integer, np.bool_),
            whole=_joined(whole, np.bool_),
            constant=objective.constant,
            core_rows=sum(rows.count for rows in self._core),
            column_blocks=tuple(self._column_blocks),
            row_blocks=tuple(blocks),
        )


@dataclass(frozen=True, slots=True, eq=False)
class _Rows:
    family: str
    count: int
    entries: Entries
    lower: Floats
    upper: Floats
    keys: Mapping[str, Ints]

    def sorted(self) -> tuple[Ints, Ints, Floats]:
        """Return the entries by row and column; those of one cell added up, zeros left out."""
        row = _joined(self.entries.rows, np.int64)
        column = _joined(self.entries.columns, np.int64)
        value = _joined(self.entries.values, np.float64)
        order = np.lexsort((column, row))
        row, column, value = row[order], column[order], value[order]
        if len(row) > 1:
            new = np.concatenate(([True], (np.diff(row) != 0) | (np.diff(column) != 0)))
            if not new.all():
                value = np.add.reduceat(value, np.flatnonzero(new))
                row, column = row[new], column[new]
        kept = value != 0
        return (row, column, value) if kept.all() else (row[kept], column[kept], value[kept])


def components(matrix: Matrix) -> tuple[Ints, Ints]:
    """Return the part of each row and of each column; parts share no row with each other.

    Parts are numbered from 0 in the order of their first column. Rows without entries are in -1.
    """
    label = np.arange(matrix.columns)
    lengths = np.diff(matrix.start)
    full = lengths > 0
    heads = matrix.start[:-1][full]
    while len(heads):
        least = np.minimum.reduceat(label[matrix.index], heads)
        found = label.copy()
        np.minimum.at(found, matrix.index, np.repeat(least, lengths[full]))
        found = found[found]  # a label is itself a column, whose label may be less
        if (found == label).all():
            break
        label = found
    _, part = np.unique(label, return_inverse=True)
    row_part = np.full(matrix.rows, -1)
    if len(heads):
        row_part[full] = part[matrix.index[heads]]
    return row_part, part


def _distinct(names: list[str]) -> list[str]:
    """Return names with a number added to those that came before."""
    seen: dict[str, int] = {}
    found = []
    for name in names:
        count = seen.get(name, 0)
        seen[name] = count + 1
        found.append(f"{name}_again{count}" if count else name)
    return found


def _wide(value: ArrayLike, count: int) -> Floats:
    return np.array(np.broadcast_to(np.asarray(value, dtype=float), (count,)))


def _joined(arrays: Any, kind: Any) -> Any:
    arrays = tuple(arrays)
    return np.concatenate(arrays).astype(kind, copy=False) if arrays else np.empty(0, kind)

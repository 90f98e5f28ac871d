"""The columns of the model, each group made when somebody first asks for it.

A `Model` starts with the counts n and what belongs to them. The families of rows in
`placement.rows` and the terms in `placement.objectives` ask it for more columns: hosts that are on,
shares of requests, copies that stay, flows on links. So a model has no column that nothing uses.

Notation: c class, h host, f flavour, p population, k resource, s slice.

    n[c,h,f]   copies of c on h in flavour f: whole, 0 to the most that fit   (one per pair)
    u[c]       copies of c left out                                           (soft demands)
    y[h]       h is on
    alpha[s]   s is admitted                                                  (slices with revenue)
    P[c]       c has a copy                                                   (soft, under a rule)
    keep[c,h]  copies of c that run on h and stay
    v          how much a wish is broken
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from placement.arrays import Arrays
from placement.matrix import Bools, Builder, Entries, Floats, Ints, Linear
from placement.problem import Demand, Options, Slice
from placement.rules import Rule

FRACTIONS = ("preserve", "overbook", "serve-after-failure", "percentile")  # amounts not in copies


@dataclass(frozen=True, slots=True, eq=False)
class Shares:
    """Columns a[c,p,g]: the share of p's requests to c that copies in group g of hosts serve.

    Column i is of rate row `rate[i]` of the arrays, and group `group[i]`. `unserved` has one column
    per rate row of a soft class, -1 elsewhere. Classes whose only copy serves all have none.
    """

    column: Ints
    rate: Ints
    group: Ints
    unserved: Ints


@dataclass(frozen=True, slots=True, eq=False)
class Flows:
    """Columns f[t,e]: the share of traffic t that takes arc e; column ``first + t * arcs + e``."""

    first: int
    traffic: tuple[tuple[str, str], ...]
    mbps: Floats
    arcs: tuple[tuple[str, str], ...]
    latency_ms: Floats
    cost: Floats

    def of(self, t: int) -> Ints:
        """Return the columns of one traffic, by arc."""
        return self.first + t * len(self.arcs) + np.arange(len(self.arcs))


@dataclass(frozen=True, slots=True, eq=False)
class Stays:
    """How many copies that run now stay: entry i of the arrays' ``now`` is the sum of its columns.

    Column `column[j]` belongs to entry `entry[j]`; an entry without columns cannot stay at all.
    """

    entry: Ints
    column: Ints


@dataclass(slots=True, eq=False)
class Model:
    """A model being built. `broken` collects the weighted amounts of broken wishes."""

    arrays: Arrays
    options: Options
    builder: Builder
    n: Ints
    left_out: Ints  # column u of each class, -1 where all copies are wanted
    admitted: Mapping[str, int]  # column alpha of each slice that may be refused
    slice_of: Mapping[str, Slice]
    class_of: Mapping[str, int]
    broken: Linear
    y: Ints | None = None
    shares: Shares | None = None
    flows: Flows | None = None
    stays: Stays | None = None
    wishes: int = 0
    presence: dict[int, int] = field(default_factory=dict)

    @classmethod
    def of(cls, arrays: Arrays, options: Options) -> "Model":
        """Return the model with its counts, and no rows yet."""
        builder = Builder()
        n = builder.add_columns(
            "n",
            arrays.pairs,
            arrays.most,
            integer=True,
            c=arrays.pair_class,
            h=arrays.pair_host,
            f=arrays.pair_flavour,
        )
        soft = np.flatnonzero(arrays.fewest < arrays.copies)
        left_out = np.full(arrays.classes, -1, dtype=np.int64)
        left_out[soft] = builder.add_columns(
            "u", len(soft), (arrays.copies - arrays.fewest)[soft], integer=True, c=soft
        )
        problem = arrays.problem
        admitted = {
            each.name: int(builder.add_columns("alpha", 1, 1, integer=True, s=s)[0])
            for s, each in enumerate(problem.slices)
            if each.revenue is not None
        }
        slice_of = {name: each for each in problem.slices for name in each.demands}
        class_of = arrays.class_of()
        return cls(arrays, options, builder, n, left_out, admitted, slice_of, class_of, Linear())

    # --- columns on demand ----------------------------------------------------------------------

    def on(self) -> Ints:
        """Return the columns y, one per host."""
        if self.y is None:
            hosts = len(self.arrays.hosts)
            self.y = self.builder.add_columns("y", hosts, 1, integer=True, h=np.arange(hosts))
        return self.y

    def admission(self, c: int) -> int | None:
        """Return the column that says whether the class may run at all; None if it must."""
        each = self.slice_of.get(self.arrays.demand(c).name)
        return self.admitted.get(each.name) if each else None

    def present(self, c: int) -> int | None:
        """Return a column that is 1 if a class has a copy; None if it certainly has one.

        sum over h,f of n[c,h,f] <= copies[c] * P[c]
        """
        if self.arrays.fewest[c] > 0:
            return self.admission(c)
        if c not in self.presence:
            column = int(self.builder.add_columns("P", 1, 1, integer=True, c=c)[0])
            entries = Entries()
            entries.add(0, self.n[self.arrays.of(c)], 1.0)
            entries.add(0, column, -float(max(self.arrays.copies[c], 1)))
            self.builder.add_rows("present", 1, entries, upper=0.0, c=c)
            self.presence[c] = column
        return self.presence[c]

    def wish(self, rule: Rule, count: int, upper: float, *, whole: bool = False) -> Ints | None:
        """Return columns for how much a wish is broken, each up to `upper`; None for a must."""
        if rule.must:
            return None
        numbers = np.arange(self.wishes, self.wishes + count)
        self.wishes += count
        columns = self.builder.add_columns(
            "v", count, upper, integer=whole, whole=rule.kind not in FRACTIONS, i=numbers
        )
        self.broken.add(columns, rule.weight)
        return columns

    # --- what rows ask again and again ----------------------------------------------------------

    def pairs_of(self, demands: frozenset[str]) -> Ints:
        """Return the pairs of some demands, in order."""
        classes = sorted({self.class_of[name] for name in demands})
        spans = [np.arange(*self.arrays.of(c).indices(self.arrays.pairs)) for c in classes]
        return np.concatenate(spans) if spans else np.empty(0, dtype=np.int64)

    def demand(self, name: str) -> tuple[int, Demand]:
        """Return the class of a demand that is alone in it, and the demand."""
        c = self.class_of[name]
        return c, self.arrays.demand(c)

    def mask_of(self, names: frozenset[str]) -> Bools:
        """Return which hosts are named, as an array over hosts."""
        return np.array([name in names for name in self.arrays.hosts], dtype=bool)

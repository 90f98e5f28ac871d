"""What prices prove: a bound from any prices of copies and of room, over all pairs of a problem.

Charge each copy of class c the price p[c] for being placed and each unit of room at host h the
price r[h,k] >= 0. Then no plan of a simple model costs less than (A. M. Geoffrion, Lagrangean
relaxation for integer programming, 1974):

    sum over c of copies[c] p[c] + sum over soft c of (copies[c] - fewest[c]) min(0, left[c] - p[c])
    + sum over h of min(0, host[h] - sum over k of r[h,k] room[h,k]
                           + sum over c,f of most[c,h,f] min(0, d[c,h,f]))
    with d[c,h,f] = pair[c,h,f] - p[c] + sum over k of r[h,k] need[c,h,f,k]

Whatever the prices are it holds, so they may come from the LP of few pairs, from several parts of
a problem, or from a solver stopped early. With the duals of the LP it is the LP's bound with all
its links. Pairs that were left out join class by class, so that memory stays small; those with
d < 0 could make a plan better.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from placement.arrays import Arrays, compile_problem, fits, least_of_each
from placement.assemble import Assembled
from placement.ladder.simple import Simple
from placement.matrix import Bools, Floats, Ints
from placement.pricing import pair_costs, row_prices
from placement.problem import Options
from placement.solvers.highs import Relaxation

CHUNK_PAIRS = 1_000_000  # pairs looked at at once
PER_CLASS = 5  # at most so many pairs of a class are added at once
WORTH = -1e-7  # a reduced cost above is rounding


@dataclass(frozen=True, slots=True, eq=False)
class Prices:
    """The price of placing one copy of each class (C), and of a unit of room (H x K)."""

    copy: Floats
    room: Floats

    @classmethod
    def of(cls, assembled: Assembled, relaxation: Relaxation) -> "Prices":
        """Return the duals of an LP relaxation."""
        copy = row_prices(assembled, relaxation, "copies", ("c",))
        room = row_prices(assembled, relaxation, "capacity", ("h", "k"))
        return cls(copy, np.maximum(-room, 0.0))


@dataclass(frozen=True, slots=True, eq=False)
class Priced:
    """What prices say of a simple model: a bound, and where a plan costs more than it must.

    `pair` is d of each pair, `host` the part of each host in the bound before it is cut at 0.
    """

    bound: float
    pair: Floats
    host: Floats


def priced(simple: Simple, prices: Prices, pull: Floats | float = 0.0) -> Priced:
    """Return the bound that prices prove; `pull` is what pairs left out add at each host."""
    arrays = simple.arrays
    reduced = _reduced(arrays, simple.pair, prices)
    gain = np.where(reduced < 0, reduced * arrays.most, 0.0)
    host = simple.host - (prices.room * arrays.room).sum(axis=1)
    host += np.bincount(arrays.pair_host, gain, minlength=len(arrays.hosts))
    host = host + pull
    soft = np.isfinite(simple.left)
    left = (arrays.copies - arrays.fewest)[soft] * np.minimum(
        0.0, simple.left[soft] - prices.copy[soft]
    )
    total = simple.constant + arrays.copies @ prices.copy + np.minimum(host, 0.0).sum() + left.sum()
    return Priced(float(total), reduced, host)


def excess(simple: Simple, prices: Prices, found: Priced, counts: Ints) -> Floats:
    """Return by how much each host costs more than its part of the bound; never below 0.

    The sum over all hosts is the distance between a plan (without copies left out) and the bound.
    """
    arrays = simple.arrays
    paid = (simple.pair - prices.copy[arrays.pair_class]) * counts
    copies = np.bincount(arrays.pair_host, counts, minlength=len(arrays.hosts))
    total = np.bincount(arrays.pair_host, paid, minlength=len(arrays.hosts))
    gap = total + np.where(copies > 0, simple.host, 0.0) - np.minimum(found.host, 0.0)
    return np.maximum(gap, 0.0)


def _reduced(arrays: Arrays, pair: Floats, prices: Prices) -> Floats:
    room = prices.room[arrays.pair_host]
    reduced: Floats = pair - prices.copy[arrays.pair_class] + (arrays.need * room).sum(axis=1)
    return reduced


# --- pairs that were left out ---------------------------------------------------------------------


@dataclass(frozen=True, slots=True, eq=False)
class LeftOut:
    """What pairs left out change: the bound at each host (H); and those worth having."""

    pull: Floats
    worth: tuple[Arrays, ...]


def left_out(
    arrays: Arrays,
    options: Options,
    prices: Prices,
    nearest: int | None,
    *,
    at_most: int = PER_CLASS,
) -> LeftOut:
    """Price the pairs that the `nearest` filter left out; classes they cannot help are skipped."""
    pull: Floats = np.zeros(len(arrays.hosts))
    worth: list[Arrays] = []
    if nearest is None:
        return LeftOut(pull, ())
    for classes in chunks(np.flatnonzero(~_complete(arrays, options, prices, nearest)), arrays):
        every = everywhere(arrays, classes)
        costs = pair_costs(every, options.weights)
        mine = Prices(prices.copy[classes], prices.room)
        reduced = _reduced(every, costs, mine)
        known = arrays.has(classes[every.pair_class], every.pair_host)
        missing = ~known & (reduced < WORTH)
        pull += np.bincount(
            every.pair_host[missing],
            reduced[missing] * every.most[missing],
            minlength=len(arrays.hosts),
        )
        if missing.any():
            some = np.flatnonzero(missing)
            best = np.sort(least_of_each(every.pair_class, reduced, some, at_most))
            worth.append(only(renamed(every, classes), best))
    return LeftOut(pull, tuple(worth))


def everywhere(arrays: Arrays, classes: Ints) -> Arrays:
    """Return some classes with all their pairs; class i of them is ``classes[i]``."""
    problem = arrays.problem
    some = tuple(problem.demands[arrays.members[c][0]] for c in classes.tolist())
    every = compile_problem(replace(problem, demands=some))
    need = np.zeros((every.pairs, len(arrays.resources)))
    for k, name in enumerate(every.resources):
        need[:, arrays.resources.index(name)] = every.need[:, k]
    sharing = np.array([each.share_host for each in some], dtype=bool)
    limit = np.where(sharing, arrays.copies[classes], arrays.many[classes])[every.pair_class]
    return replace(
        every,
        resources=arrays.resources,
        room=arrays.room,
        physical=arrays.physical,
        need=need,
        most=np.minimum(limit, fits(arrays.room[every.pair_host], need)).astype(np.int64),
        total_rate=arrays.total_rate,
    )


def renamed(every: Arrays, classes: Ints) -> Arrays:
    """Return the same pairs with the classes' numbers in the whole problem."""
    return replace(every, pair_class=classes[every.pair_class])


def only(arrays: Arrays, pairs: Ints) -> Arrays:
    """Return some of the pairs; the rest stays, so ``start`` is of no use."""
    return replace(
        arrays,
        pair_class=arrays.pair_class[pairs],
        pair_host=arrays.pair_host[pairs],
        pair_flavour=arrays.pair_flavour[pairs],
        need=arrays.need[pairs],
        most=arrays.most[pairs],
    )


def joined(arrays: Arrays, more: tuple[Arrays, ...]) -> Arrays:
    """Return the arrays with more pairs, which must not be there yet."""
    parts = (arrays, *more)
    c = np.concatenate([each.pair_class for each in parts])
    h = np.concatenate([each.pair_host for each in parts])
    f = np.concatenate([each.pair_flavour for each in parts])
    order = np.lexsort((f, h, c))
    return replace(
        arrays,
        pair_class=c[order],
        pair_host=h[order],
        pair_flavour=f[order],
        need=np.concatenate([each.need for each in parts])[order],
        most=np.concatenate([each.most for each in parts])[order],
        start=np.searchsorted(c[order], np.arange(arrays.classes + 1)),
    )


def chunks(classes: Ints, arrays: Arrays) -> Iterator[Ints]:
    """Yield some classes, so many at once that their pairs with all hosts take little memory."""
    step = max(1, CHUNK_PAIRS // max(len(arrays.hosts), 1))
    for first in range(0, len(classes), step):
        yield classes[first : first + step]


def _complete(arrays: Arrays, options: Options, prices: Prices, nearest: int) -> Bools:
    """Return the classes whose missing pairs are too far to be worth anything.

    A missing pair is at least as far as the last of the nearest; all it costs besides is not below
    0. So it has d >= weight * rate * that latency - p[c].
    """
    sizes = np.diff(arrays.start)
    complete: Bools = np.asarray(sizes < nearest)
    plain = np.array([len(arrays.demand(c).flavours) < 2 for c in range(arrays.classes)], bool)
    weight = options.weights.get("latency_ms", 0.0)
    uphill = all(host.busy_w >= host.idle_w for host in arrays.problem.hosts)
    if not (uphill and weight > 0 and arrays.total_rate):
        return np.asarray(complete & plain)
    rate = np.bincount(arrays.rate_class, arrays.rate, minlength=arrays.classes)
    mean = arrays.mean_latency()
    order = np.lexsort((mean, arrays.pair_class))
    last = np.minimum(arrays.start[:-1] + nearest, arrays.start[1:]) - 1
    radius = mean[order][np.maximum(last, 0)] if arrays.pairs else 0.0
    far: Bools = weight * rate / arrays.total_rate * radius >= prices.copy
    found: Bools = plain & (complete | far)
    return found

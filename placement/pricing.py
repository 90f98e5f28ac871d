"""Pairs that were left out, priced by the LP relaxation: which of them could make a plan better.

With `Options.nearest` a class has few candidate hosts. A pair that is missing cannot lower the LP
bound unless its reduced cost is negative:

    cost[c,h,f] - price of placing c - sum over k of need[c,h,f,k] * price of room[h,k] < 0

Add what `missing` returns through ``extra`` of `placement.arrays.compile_problem`, and repeat: when
nothing is missing, the bound of the few pairs is the bound of all. It is exact for models of the
families `copies`, `capacity` and `link`; others only make it a good guess, and `sure` tells.
"""

from collections.abc import Mapping

import numpy as np

from placement.arrays import Arrays, least_of_each
from placement.assemble import Assembled
from placement.matrix import Floats, Linear
from placement.model import Model
from placement.objectives import TERMS
from placement.problem import Options
from placement.solvers.highs import Relaxation

SURE = frozenset({"copies", "capacity", "link"})
LEAST = 1e-7  # a reduced cost below zero by less is rounding


def sure(assembled: Assembled) -> bool:
    """Return whether pricing proves the bound: no other family has rows."""
    return {block.family for block in assembled.matrix.row_blocks} <= SURE


def missing(
    every: Arrays, few: Assembled, relaxation: Relaxation, options: Options, at_most: int = 5
) -> frozenset[tuple[str, str]]:
    """Return pairs (demand, host) of `every` that the model of few pairs lacks and would gain by.

    At most so many per class, the most negative first. Both must be compiled from one problem.
    """
    arrays = few.model.arrays
    reduced = pair_costs(every, options.weights)
    reduced -= row_prices(few, relaxation, "copies", ("c",))[every.pair_class]
    room = row_prices(few, relaxation, "capacity", ("h", "k"))
    reduced -= (every.need * room[every.pair_host]).sum(axis=1)
    known = arrays.has(every.pair_class, every.pair_host)
    wanted = np.flatnonzero(~known & (reduced < -LEAST))
    chosen = least_of_each(every.pair_class, reduced, wanted, at_most)
    return frozenset(
        (every.demand(c).name, every.hosts[h])
        for c, h in zip(
            every.pair_class[chosen].tolist(), every.pair_host[chosen].tolist(), strict=True
        )
    )


def pair_costs(arrays: Arrays, weights: Mapping[str, float]) -> Floats:
    """Return what one copy of each pair adds to the objective by itself."""
    model = Model.of(arrays, Options())
    total = Linear()
    for name, weight in weights.items():
        if weight and name in TERMS:
            total.add_all(TERMS[name](model), weight)
    costs: Floats = total.dense(model.builder.columns)[model.n]
    return costs


def row_prices(
    few: Assembled, relaxation: Relaxation, family: str, keys: tuple[str, ...]
) -> Floats:
    """Return the price of each row of a family, by its keys; 0 where there is no such row."""
    arrays = few.model.arrays
    sizes = {"c": arrays.classes, "h": len(arrays.hosts), "k": len(arrays.resources)}
    found = np.zeros([sizes[key] for key in keys])
    for block in few.matrix.row_blocks:
        if block.family == family:
            where = tuple(block.keys[key] for key in keys)
            found[where] = relaxation.row_price[block.first : block.first + block.count]
    return found

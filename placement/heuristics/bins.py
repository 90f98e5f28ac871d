"""Bin packing: first, best and worst fit, as demands come or the largest first, and dot product.

They look at room and at nothing else. Several resources count as shares of the largest host's room.

D. S. Johnson, "Near-optimal bin packing algorithms", 1973. R. Panigrahy, K. Talwar, L. Uyeda,
U. Wieder, "Heuristics for vector bin packing", Microsoft Research, 2011, for the dot product.
"""

import numpy as np

from placement.heuristics.packing import Packing, Score, fill, in_order, pack, start
from placement.matrix import ROUNDING, Bools, Floats, Ints
from placement.problem import Options, Plan, Problem


def first_fit(problem: Problem, _options: Options) -> Plan:
    """Return the plan with each demand, as they come, at the first host that takes it."""
    return pack(problem, _first, name="first-fit")


def best_fit(problem: Problem, _options: Options) -> Plan:
    """Return the plan with each demand, as they come, where it leaves least room."""
    return pack(problem, _tight, name="best-fit")


def worst_fit(problem: Problem, _options: Options) -> Plan:
    """Return the plan with each demand, as they come, where it leaves most room."""
    return pack(problem, _loose, name="worst-fit")


def first_fit_decreasing(problem: Problem, _options: Options) -> Plan:
    """Return the plan of first fit, the largest demand first."""
    return pack(problem, _first, name="first-fit-decreasing", largest_first=True)


def best_fit_decreasing(problem: Problem, _options: Options) -> Plan:
    """Return the plan of best fit, the largest demand first."""
    return pack(problem, _tight, name="best-fit-decreasing", largest_first=True)


def dot_product(problem: Problem, _options: Options) -> Plan:
    """Return the plan that fills one host after the other with what suits it best.

    That is the copy whose need has the largest dot product with the room that is left, resources
    weighted by how much of them all demands want. What then still has no place goes by first fit.
    """
    packing = start(problem)
    arrays = packing.arrays
    left = arrays.copies.copy()
    asked = np.zeros(len(arrays.resources))
    if arrays.pairs:
        heads = arrays.start[:-1][np.diff(arrays.start) > 0]
        asked = (arrays.need[heads] * arrays.copies[arrays.pair_class[heads], None]).sum(axis=0)
    weight = packing.share**2 * asked * packing.share
    by_host = np.argsort(arrays.pair_host, kind="stable")
    first = np.searchsorted(arrays.pair_host[by_host], np.arange(len(arrays.hosts) + 1))
    for h in range(len(arrays.hosts)):
        pairs = by_host[first[h] : first[h + 1]]
        while len(pairs := pairs[_open_at(packing, pairs, left)]):
            score = arrays.need[pairs] @ (weight * (arrays.room[h] - packing.used[h]))
            pair = int(pairs[np.argmax(score)])
            packing.take(pair)
            left[arrays.pair_class[pair]] -= 1
    fill(packing, _first(packing), in_order(packing), name="dot-product")
    return packing.plan()


def random(problem: Problem, options: Options) -> Plan:
    """Return the plan with demands in random order, each at any host that takes it: the floor."""
    packing = start(problem)
    chance = np.random.default_rng(options.seed)
    order = in_order(packing, keys=chance.random(len(problem.demands)))
    fill(packing, lambda pairs: (chance.random(len(pairs)),), order, name="random")
    return packing.plan()


def _open_at(packing: Packing, pairs: Ints, left: Ints) -> Bools:
    """Return which pairs of one host, each of another class, can take one more copy."""
    arrays = packing.arrays
    c, host = arrays.pair_class[pairs], arrays.pair_host[pairs]
    fits = (packing.used[host] + arrays.need[pairs] <= arrays.room[host] + ROUNDING).all(axis=1)
    fits &= (left[c] > 0) & (packing.placed[c, host] < packing.limit[c])
    for i in np.flatnonzero(fits):
        if int(c[i]) in packing.apart or int(c[i]) in packing.beside:
            fits[i] = packing.may(pairs[i : i + 1])[0]
    return fits


def _first(_packing: Packing) -> Score:
    return lambda pairs: (np.zeros(len(pairs)),)


def _tight(packing: Packing) -> Score:
    return lambda pairs: (_left(packing, pairs),)


def _loose(packing: Packing) -> Score:
    return lambda pairs: (-_left(packing, pairs),)


def _left(packing: Packing, pairs: Ints) -> Floats:
    """Return what pairs would leave of their hosts, as shares summed over resources."""
    host = packing.arrays.pair_host[pairs]
    left = packing.arrays.room[host] - packing.used[host] - packing.arrays.need[pairs]
    return np.asarray(left @ packing.share)

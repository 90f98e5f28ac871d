"""Large warm problems exactly: only the pairs that can be in a plan better than what is known.

The LP relaxation is solved with few pairs for each service; its prices tell which others are worth
adding (column generation). Each service has one pair, so by Lagrange no plan is below what the
prices of the rows are worth plus the least reduced cost of each service; and one that uses a pair
is above that by as much as the pair's is above the least of its service. So the exact way gets the
pairs of least reduced cost, and what it proves of those, or the bound for those that were left out
if that is lower, holds for all.
"""

from dataclasses import replace
from time import perf_counter

import numpy as np

from placement.matrix import Bools, Floats, Ints
from placement.solvers import Limits
from placement.solvers.highs import Relaxation, relax
from placement.warm.arrays import Arrays
from placement.warm.exact import CLOSE, Answer, Model, exact, true_value
from placement.warm.problem import WarmOptions

FIRST, MORE = 8, 6  # pairs of each service in the first LP, and added to it in each round
ROUNDS = 40
PAIRS = (4_000, 20_000)  # that the exact way gets: for a good plan, then for the proof
SHARES = (0.5, 1.0)  # of the time that is left, for each of them
LP_SHARE = 0.5  # of the time, at most
WORTH_IT = 1e-9  # waiting clients
NEAR = 1e-4  # relative: so near to the LP over all pairs is near enough


def priced(arrays: Arrays, options: WarmOptions, start: tuple[Ints, Ints] | None) -> Answer:
    """Return the best plan found and what is proven, as `exact` does for smaller problems.

    Raises `Infeasible` as `exact` does.
    """
    since = perf_counter()
    end = since + LP_SHARE * options.deadline_s
    if start is None:  # some of the pairs could not prove that there is no plan
        return exact(arrays, options, None)
    load = arrays.load_of_all()
    taken = _least(arrays, arrays.cost, FIRST)
    taken[start[0]] = True
    bound, reduced = 0.0, np.zeros(arrays.pairs)
    for _ in range(ROUNDS):
        limits = Limits(max(0.01, end - perf_counter()), 0.0, options.threads, options.seed)
        found = relax(Model(arrays.part(taken), load).matrix(), limits)
        if found is None:
            break  # out of time: what the last prices prove holds
        prices = _reduced(arrays, found, taken)
        least = np.minimum(0.0, np.minimum.reduceat(prices, arrays.first[:-1]))
        at_most = found.bound - float(np.minimum(0.0, prices[taken]).sum()) + float(least.sum())
        if not bound or at_most > bound:
            bound, reduced = at_most, prices - least[arrays.service]
        missing = ~taken & (prices < -WORTH_IT)
        if found.bound - bound <= NEAR * found.bound or not missing.any():
            break
        taken |= missing & _least(arrays, np.where(taken, np.inf, prices), MORE)
    best, proven = start, bound
    for count, share in zip(PAIRS, SHARES, strict=True):
        few = _smallest(reduced, count)
        room = true_value(arrays, *best) - bound
        few &= reduced <= room + WORTH_IT
        few[best[0]] = True
        left_out = float(reduced[~few].min(initial=np.inf))
        place = np.cumsum(few) - 1
        begin = place[best[0]], best[1]
        answer = exact(arrays.part(few), _left(options, since, share), begin, load)
        chosen = np.flatnonzero(few)[answer.chosen]
        best = chosen, answer.kept
        proven = max(proven, min(answer.bound, bound + left_out))
        value = true_value(arrays, *best)
        if value - proven <= max(options.gap, CLOSE) * value:
            break
    spent = perf_counter() - since - answer.build_s
    return replace(answer, chosen=chosen, bound=proven, solve_s=spent)


def _left(options: WarmOptions, since: float, share: float = 1.0) -> WarmOptions:
    left = share * (options.deadline_s - (perf_counter() - since))
    return replace(options, deadline_s=max(0.01, left))


def _reduced(arrays: Arrays, found: Relaxation, taken: Bools) -> Floats:
    """Return the reduced cost of every pair at the prices of an LP with some of them.

    The row `joined` of a pair that is not in the LP is priced at nothing, which is dual feasible.
    """
    services, hosts = len(arrays.problem.services), len(arrays.problem.hosts)
    sites, kinds = len(arrays.sites), len(arrays.resources)
    price = found.row_price
    room = price[services : services + hosts * kinds].reshape(hosts, kinds)
    after = services + hosts * kinds + sites  # the rows `one` are in between
    load = price[after : after + sites]
    reduced = arrays.cost - price[arrays.service] - (arrays.needs * room[arrays.host]).sum(axis=1)
    pooled = arrays.site >= 0
    reduced[pooled] -= arrays.erlangs[pooled] * load[arrays.site[pooled]]
    reduced[taken] = found.reduced[: int(taken.sum())]
    return np.asarray(reduced, dtype=float)


def _least(arrays: Arrays, cost: Floats, count: int) -> Bools:
    """Return the pairs of least cost of each service, so many of each."""
    order = np.lexsort((cost, arrays.service))
    rank = np.empty(arrays.pairs, dtype=np.int64)
    rank[order] = np.arange(arrays.pairs) - arrays.first[arrays.service[order]]
    return np.asarray(rank < count)


def _smallest(reduced: Floats, count: int) -> Bools:
    """Return the pairs of least reduced cost, so many in all."""
    few = np.zeros(len(reduced), dtype=bool)
    few[np.argsort(reduced, kind="stable")[:count]] = True
    return few

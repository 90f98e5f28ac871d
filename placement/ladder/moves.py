"""Moves on a board: place, round, drop, shift. Quick, without a solver, and never for the worse.

- *place*: one class after the other, each at its cheapest host with room; a host that is off costs
  what switching it on would.
- *round*: keep the whole part of an LP solution, place the fractional few by price.
- *drop*: empty a host where its copies fit elsewhere for less than the host costs.
- *shift*: move copies to cheaper hosts that are on.
"""

import numpy as np

from placement.ladder.simple import Board, Simple
from placement.matrix import Bools, Floats, Ints

SAVED = 1e-9  # less saved is rounding
PASSES = 6


def by_size(simple: Simple) -> Ints:
    """Return the classes, those first whose copies take the largest share of a host."""
    arrays = simple.arrays
    largest = np.zeros(arrays.classes)
    np.maximum.at(largest, arrays.pair_class, simple.share)
    return np.argsort(-largest, kind="stable")


def place(board: Board, order: Ints, price: Floats, opening: Floats) -> None:
    """Place all copies that wait, class by class; what finds no room keeps waiting.

    `price` is per pair, `opening` comes on top for a pair whose host is off. Soft copies are left
    out where that is cheaper.
    """
    arrays, left = board.simple.arrays, board.simple.left
    for c in order[board.waiting[order] > 0].tolist():
        pairs = arrays.of(c)
        hosts = arrays.pair_host[pairs]
        while board.waiting[c] > 0 and len(hosts):
            fits = board.fits(c)
            score = price[pairs] + np.where(board.copies[hosts] > 0, 0.0, opening[pairs])
            score[fits < 1] = np.inf
            best = int(np.argmin(score))
            if fits[best] < 1 or score[best] > left[c]:
                break
            board.put(pairs.start + best, int(min(board.waiting[c], fits[best])))


def bound_one_by_one(simple: Simple, counts: Ints) -> Board:
    """Return the plan of who takes demands as they come: each where it is cheapest just then."""
    board = Board(simple, counts)
    opening = simple.host[simple.arrays.pair_host]
    place(board, np.arange(simple.arrays.classes), simple.pair, opening)
    return board


def greedy(simple: Simple) -> Board:
    """Return the plan that places large demands first, hosts charged by the share that is taken."""
    board = Board(simple, np.zeros(simple.arrays.pairs, dtype=np.int64))
    opening = simple.host[simple.arrays.pair_host] * simple.share
    place(board, by_size(simple), simple.pair, opening)
    return board


def rounded(simple: Simple, whole: Ints, room_price: Floats, opening: Floats) -> Board:
    """Return the plan of an LP solution: its whole part, then the rest by cost and price of room.

    `opening` is what switching a host on counts, per pair: the price of room has a part already.
    """
    arrays = simple.arrays
    board = Board(simple, whole)
    price = simple.pair + (arrays.need * room_price[arrays.pair_host]).sum(axis=1)
    place(board, by_size(simple), price, opening)
    return board


def polish(board: Board) -> None:
    """Drop and shift until neither saves anything."""
    for _ in range(PASSES):
        before = board.cost
        drop(board)
        shift(board)
        if board.cost > before - SAVED:
            break


def drop(board: Board) -> None:
    """Empty hosts whose copies fit elsewhere for less than the host costs, emptiest first."""
    simple = board.simple
    arrays = simple.arrays
    used = 1 - (board.free / np.maximum(arrays.room, SAVED)).min(axis=1)
    worth = (board.copies > 0) & (simple.host > 0) & (_least_to_empty(board) < simple.host)
    for host in np.argsort(used, kind="stable").tolist():
        if not worth[host]:
            continue
        pairs = board.pairs_at(host)
        pairs = pairs[np.argsort(-simple.share[pairs], kind="stable")]
        _empty(board, host, pairs)


def _least_to_empty(board: Board) -> Floats:
    """Return what moving all copies of each host costs at least.

    It stays a least cost while hosts are emptied one by one: there is less and less room on others.
    """
    simple, arrays = board.simple, board.simple.arrays
    open_ = np.flatnonzero(_open(board))
    order = open_[np.lexsort((simple.pair[open_], arrays.pair_class[open_]))]
    first = np.searchsorted(arrays.pair_class[order], np.arange(arrays.classes))
    ends = np.searchsorted(arrays.pair_class[order], np.arange(arrays.classes), side="right")
    here = np.flatnonzero(board.counts)
    c, host = arrays.pair_class[here], arrays.pair_host[here]
    extra = np.full(len(here), np.inf)
    place, waiting = first[c], np.arange(len(here), dtype=np.int64)
    while len(waiting):  # the cheapest of the class that is not on the same host
        waiting = waiting[place[waiting] < ends[c[waiting]]]
        there = order[place[waiting]]
        other = arrays.pair_host[there] != host[waiting]
        found = waiting[other]
        extra[found] = simple.pair[there[other]] - simple.pair[here[found]]
        waiting = waiting[~other]
        place[waiting] += 1
    paid = extra * board.counts[here]
    least: Floats = np.bincount(host, paid, minlength=len(arrays.hosts)).astype(float)
    return least


def _open(board: Board) -> Bools:
    """Return the pairs with room for one copy more, on hosts that are on."""
    arrays = board.simple.arrays
    found: Bools = board.copies[arrays.pair_host] > 0
    for k in range(arrays.room.shape[1]):
        found &= arrays.need[:, k] <= board.free[arrays.pair_host, k]
    return found


def _empty(board: Board, host: int, pairs: Ints) -> None:
    """Move the copies of one host to others that are on, or leave all as it was."""
    simple, arrays = board.simple, board.simple.arrays
    budget = simple.host[host] - SAVED
    done: list[tuple[int, int]] = []
    for pair in pairs.tolist():
        c, count = int(arrays.pair_class[pair]), int(board.counts[pair])
        mine = arrays.of(c)
        while count and budget > 0:
            fits = board.fits(c)
            there = arrays.pair_host[mine]
            extra = simple.pair[mine] - simple.pair[pair]
            extra[(fits < 1) | (there == host) | (board.copies[there] < 1)] = np.inf
            best = int(np.argmin(extra))
            if not np.isfinite(extra[best]):
                budget = -1.0
                break
            k = int(min(count, fits[best]))
            budget -= k * extra[best]
            for each, n in ((pair, -k), (mine.start + best, k)):
                board.put(each, n)
                done.append((each, n))
            count -= k
        if budget <= 0:
            for each, n in reversed(done):
                board.put(each, -n)
            return


def shift(board: Board) -> None:
    """Move copies to cheaper hosts that are on and have room, the largest saving first."""
    simple, arrays = board.simple, board.simple.arrays
    some = _open(board)
    cheapest = np.full(arrays.classes, np.inf)
    np.minimum.at(cheapest, arrays.pair_class[some], simple.pair[some])
    here = np.flatnonzero(board.counts)
    saved = simple.pair[here] - cheapest[arrays.pair_class[here]]
    worth = saved > SAVED
    here = here[worth][np.argsort(-saved[worth], kind="stable")]
    for pair in here.tolist():
        c = int(arrays.pair_class[pair])
        mine = arrays.of(c)
        there = arrays.pair_host[mine]
        cost = np.where((board.fits(c) >= 1) & (board.copies[there] > 0), simple.pair[mine], np.inf)
        best = int(np.argmin(cost))
        if cost[best] < simple.pair[pair] - SAVED:
            k = int(min(board.counts[pair], board.fits(c)[best]))
            board.put(pair, -k)
            board.put(mine.start + best, k)

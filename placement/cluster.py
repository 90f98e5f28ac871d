"""Things of one size that talk to each other, put together where there are slots: quick starts.

The quadratic form of placing traffic, for who needs a good plan in milliseconds to begin from; it
knows nothing but traffic, distances and slots.

G. Karypis, V. Kumar, "A fast and high quality multilevel scheme for partitioning irregular graphs",
SIAM Journal on Scientific Computing 20(1), 1998 (growing). B. Kernighan, S. Lin, "An efficient
heuristic procedure for partitioning graphs", Bell System Technical Journal 49(2), 1970 (swaps).
"""

import numpy as np

from placement.matrix import Bools, Floats, Ints

BETTER = 1e-9  # by which a step must be better, or it is rounding


def cluster(traffic: Floats, distance: Floats, slots: Ints, allowed: Bools) -> Ints | None:
    """Return a place for each of N things, None if none was found. H places.

    `traffic` (N x N) and `distance` (H x H) are symmetric, with zeros on the diagonal; the sum of
    traffic times distance over all pairs is to be small. `slots` (H) is how many things fit at each
    place, `allowed` (N x H) where each may be.
    """
    place = _grown(traffic, slots, allowed)
    if place is None:
        return None
    for _ in range(len(place) * len(slots) * 10):  # a cost that falls comes to an end anyway
        if not (
            _moved(place, traffic, distance, slots, allowed)
            or _swapped(place, traffic, distance, allowed)
        ):
            break
    return place


def cost_of(place: Ints, traffic: Floats, distance: Floats) -> float:
    """Return the sum of traffic times distance over all pairs."""
    return float((traffic * distance[np.ix_(place, place)]).sum() / 2)


def _grown(traffic: Floats, slots: Ints, allowed: Bools) -> Ints | None:
    """Fill one place after the other, the largest first, with what talks most to what is there.

    Things of few places come before all others, or their slots would be gone.
    """
    place = np.full(len(traffic), -1, dtype=np.int64)
    left = slots.copy()
    fixed = allowed.sum(axis=1) < len(slots)
    for i in np.lexsort((np.arange(len(traffic)), allowed.sum(axis=1))).tolist():
        if not fixed[i]:
            break
        open_places = np.flatnonzero(allowed[i] & (left > 0))
        if not len(open_places):
            return None
        there = [float(traffic[i, place == h].sum()) for h in open_places.tolist()]
        place[i] = open_places[int(np.argmax(there))]
        left[place[i]] -= 1
    for h in np.argsort(-slots, kind="stable").tolist():
        while left[h] > 0 and (place < 0).any():
            pull = traffic[:, place == h].sum(axis=1) + 1e-9 * traffic[:, place >= 0].sum(axis=1)
            place[int(np.argmax(np.where(place < 0, pull, -1.0)))] = h
            left[h] -= 1
    return None if (place < 0).any() else place


def _moved(place: Ints, traffic: Floats, distance: Floats, slots: Ints, allowed: Bools) -> bool:
    """Move one thing to a place with room, the best of all such steps; say whether it is better."""
    there = traffic @ distance[place]  # what each thing costs at each place
    gain = there[np.arange(len(place)), place][:, None] - there
    room = np.bincount(place, minlength=len(slots)) < slots
    gain = np.where(allowed & room[None, :], gain, 0.0)
    i, h = np.unravel_index(int(np.argmax(gain)), gain.shape)
    if gain[i, h] <= BETTER:
        return False
    place[i] = h
    return True


def _swapped(place: Ints, traffic: Floats, distance: Floats, allowed: Bools) -> bool:
    """Swap the places of two things, the best of all pairs; say whether that is better."""
    there = traffic @ distance[place]
    crossed = there[:, place]  # of i at the place of j
    now = np.diagonal(crossed)
    between = 2 * traffic * distance[np.ix_(place, place)]
    gain = now[:, None] + now[None, :] - crossed - crossed.T - between
    may = allowed[:, place]
    gain = np.where(may & may.T, gain, 0.0)
    i, j = np.unravel_index(int(np.argmax(gain)), gain.shape)
    if gain[i, j] <= BETTER:
        return False
    place[i], place[j] = place[j], place[i]
    return True

"""Things that talk put together: never better than the best, and only where they may be."""

from itertools import product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from placement.cluster import cluster, cost_of
from placement.matrix import Bools, Floats, Ints


def least(traffic: Floats, distance: Floats, slots: Ints, allowed: Bools) -> float:
    """Return the cost of the best of all ways, infinite if there is none."""
    found = np.inf
    for chosen in product(range(len(slots)), repeat=len(traffic)):
        place = np.array(chosen)
        full = np.bincount(place, minlength=len(slots)) > slots
        if not full.any() and allowed[np.arange(len(place)), place].all():
            found = min(found, cost_of(place, traffic, distance))
    return float(found)


@given(seed=st.integers(0, 10**9))
def test_things_have_slots_where_they_may_be(seed: int) -> None:
    random = np.random.default_rng(seed)
    things, places = int(random.integers(1, 6)), int(random.integers(1, 4))
    traffic = np.triu(random.integers(0, 5, (things, things)), 1).astype(float)
    distance = 2 - np.eye(places) * 2
    slots = random.integers(0, 4, places)
    allowed = random.random((things, places)) < random.choice([0.6, 1.1])
    best = least(traffic + traffic.T, distance, slots, allowed)
    found = cluster(traffic + traffic.T, distance, slots, allowed)
    if found is None:
        assert best == np.inf or not allowed.all()
        return
    assert (np.bincount(found, minlength=places) <= slots).all()
    assert allowed[np.arange(things), found].all()
    assert cost_of(found, traffic + traffic.T, distance) >= best


def test_groups_that_talk_are_found() -> None:
    """Four rings of five, joined by one weak link each, have a place each."""
    traffic = np.zeros((20, 20))
    for ring in range(4):
        for i in range(5):
            a, b = 5 * ring + i, 5 * ring + (i + 1) % 5
            traffic[a, b] = traffic[b, a] = 10
        a, b = 5 * ring, (5 * ring + 7) % 20
        traffic[a, b] = traffic[b, a] = 1
    mixed = np.random.default_rng(1).permutation(20)
    traffic = traffic[np.ix_(mixed, mixed)]
    distance = 1 - np.eye(4)
    found = cluster(traffic, distance, np.full(4, 5), np.ones((20, 4), dtype=bool))
    assert found is not None
    assert cost_of(found, traffic, distance) == pytest.approx(4)

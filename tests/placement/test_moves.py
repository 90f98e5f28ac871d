"""Moves of local search: what each says it changes is what it changes, and it can be undone."""

import numpy as np
import pytest
from hypothesis import given, note, settings
from hypothesis import strategies as st

from placement.check import violations
from placement.evaluate import evaluate, value_of
from placement.heuristics import bins
from placement.heuristics.moves import Moves
from placement.heuristics.packing import Packing, start
from placement.heuristics.search import load
from placement.matrix import Floats
from placement.problem import Infeasible, Options, Problem
from placement.registry import algorithm, missing
from tests.placement import tiny
from tests.placement.test_every_plan import weights_of

FAMILIES = [
    family
    for family in tiny.FAMILIES
    if not all(missing(algorithm("tabu"), tiny.draw(s, family), Options()) for s in range(5))
]


@pytest.mark.parametrize("family", FAMILIES)
@settings(max_examples=25)
@given(seed=st.integers(0, 10**9))
def test_what_a_move_says_is_what_it_does(family: str, seed: int) -> None:
    problem = tiny.draw(seed, family)
    weights = weights_of(seed) | {"migrations": 0.7, "latency_ms": 1.0}
    options = Options(weights=weights, seed=seed)
    if missing(algorithm("tabu"), problem, options):
        return
    packing = start_of(problem, options)
    if packing is None:
        return
    moves = Moves.of(packing, options)
    if not len(moves.free):
        return
    for _ in range(30):
        changes = moves.draw()
        if not changes:
            continue
        before, value, counts = moves.places(changes), moves.value, packing.counts.copy()
        delta = moves.go(changes)
        note(f"{changes} {delta}")
        if delta is not None and moves.chance.random() < 0.3:
            moves.back(before, delta)
            delta = None
        if delta is None:
            assert (packing.counts == counts).all()
            assert moves.value == pytest.approx(value)
        plan = packing.plan()
        assert violations(problem, plan) == ()
        assert moves.value == pytest.approx(value_of(evaluate(problem, plan), weights), abs=1e-7)
        assert np.allclose(packing.used, again(packing))


def start_of(problem: Problem, options: Options) -> Packing | None:
    try:
        plan = bins.first_fit(problem, options)
        packing = start(problem)
    except Infeasible:
        return None
    load(packing, plan)
    return packing


def again(packing: Packing) -> Floats:
    used = np.zeros_like(packing.used)
    np.add.at(used, packing.arrays.pair_host, packing.counts[:, None] * packing.arrays.need)
    return used

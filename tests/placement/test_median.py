"""The p-median: against all choices of places, and its baselines against scores by hand."""

from dataclasses import replace
from itertools import combinations
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from placement.matrix import Floats
from placement.median import (
    ALGORITHMS,
    MedianOptions,
    MedianProblem,
    model,
    solve_median,
)
from placement.problem import Infeasible, Malformed
from placement.solvers import Limits, solver

EXACT = MedianOptions("exact")


def named(distance: Floats, count: int, **more: Any) -> MedianProblem:
    clients, places = distance.shape
    return MedianProblem(
        tuple(f"c{i}" for i in range(clients)),
        tuple(f"p{j}" for j in range(places)),
        distance,
        count,
        **more,
    )


def drawn(seed: int) -> MedianProblem:
    """Return a small question; in some of them there are pairs without a path."""
    random = np.random.default_rng(seed)
    clients, places = random.integers(1, 8, 2).tolist()
    distance = random.integers(0, 20, (clients, places)).astype(float)
    distance[random.random((clients, places)) < random.choice([0.0, 0.4])] = np.inf
    weight = None if seed % 2 else random.integers(0, 4, clients).astype(float)
    count = int(random.integers(1, places + 1))
    return named(distance, count, weight=weight, hops=np.ones((places, places)))


def points(seed: int, number: int, count: int) -> MedianProblem:
    """Return points in a square."""
    at = np.random.default_rng(seed).random((number, 2))
    return named(np.hypot(*(at[:, None] - at[None]).transpose(2, 0, 1)), count)


def least(problem: MedianProblem) -> float:
    """Return the value of the best choice of places, infinite if none reaches every client."""
    weight = np.ones(len(problem.clients)) if problem.weight is None else problem.weight
    nearest = [
        problem.distance[:, list(some)].min(axis=1)
        for some in combinations(range(len(problem.places)), problem.count)
    ]
    return min((float(weight @ far) for far in nearest if np.isfinite(far).all()), default=np.inf)


@given(seed=st.integers(0, 10**9), algorithm=st.sampled_from(ALGORITHMS))
def test_no_choice_of_places_is_better(seed: int, algorithm: str) -> None:
    problem, proves = drawn(seed), algorithm in {"auto", "exact"}
    best = least(problem)
    try:
        plan = solve_median(problem, MedianOptions(algorithm))
    except Infeasible as error:
        assert error.proven == proves  # noqa: PT017
        assert best == np.inf or not proves
        return
    assert plan.bound - 1e-9 <= best <= plan.value + 1e-9
    if proves:
        assert plan.value == pytest.approx(best)
        assert plan.gap == pytest.approx(0.0, abs=1e-6)
    assert len(plan.opened) == problem.count
    weight = np.ones(len(problem.clients)) if problem.weight is None else problem.weight
    assert plan.value == pytest.approx(float(weight @ list(plan.distances.values())))
    for i, client in enumerate(problem.clients):
        opened = [problem.distance[i, problem.places.index(name)] for name in plan.opened]
        assert plan.distances[client] == min(opened)
        served = problem.places.index(plan.serves[client])
        assert problem.distance[i, served] == min(opened)


@pytest.mark.parametrize("name", ["highs", "highs-direct", "cbc"])
def test_the_model_alone_has_the_same_optimum(name: str) -> None:
    for seed in range(4):
        problem = points(seed, 9, 1 + seed)
        matrix, _, _ = model(problem.distance, problem.count)
        outcome = solver(name, matrix.columns)(matrix, Limits(), None)
        assert outcome.x is not None
        assert float(matrix.cost @ outcome.x) == pytest.approx(least(problem))


def test_a_client_has_no_column_for_places_that_cannot_be_its_nearest() -> None:
    matrix, client, place = model(np.array([[1.0, 2.0, 3.0], [5.0, 4.0, np.inf]]), 2)
    assert list(zip(client.tolist(), place.tolist(), strict=True)) == [
        (0, 0),
        (0, 1),
        (1, 0),
        (1, 1),
    ]
    assert matrix.columns == 3 + 4


def test_what_the_bound_does_not_settle_the_solver_does() -> None:
    """Of these points the Lagrangian bound is below the optimum, so that a model is made."""
    problem = points(3, 60, 12)
    plan = solve_median(problem, EXACT)
    assert plan.solver == "highs"
    assert plan.gap == pytest.approx(0.0, abs=1e-6)
    found = solve_median(problem, replace(EXACT, algorithm="interchange"))
    assert found.value >= plan.value - 1e-9
    assert found.bound <= plan.value + 1e-9
    assert found.gap < 0.1


def test_the_interchange_is_no_worse_than_what_it_begins_from() -> None:
    problem = points(5, 100, 20)
    value = {
        name: solve_median(problem, MedianOptions(name)).value
        for name in ("greedy", "interchange", "random")
    }
    assert value["interchange"] < value["greedy"] < value["random"]
    elsewhere = solve_median(problem, MedianOptions("interchange", seed=4)).value
    assert elsewhere == pytest.approx(value["interchange"], rel=0.05)


def test_hot_spots_have_many_neighbours_and_pressure_is_where_the_middle_is() -> None:
    """Four leaves around h, and a way h, x, y, z: h has 5 at one hop, 1 at two and 1 at three."""
    links = [("h", leaf) for leaf in "abcd"] + [("h", "x"), ("x", "y"), ("y", "z")]
    names = tuple("abcdhxyz")
    hops = np.full((8, 8), np.inf)
    np.fill_diagonal(hops, 0)
    for a, b in links:
        i, j = names.index(a), names.index(b)
        hops[i, j] = hops[j, i] = 1
    for k in range(8):
        hops = np.minimum(hops, hops[:, k, None] + hops[None, k, :])
    problem = MedianProblem(names, names, hops, 2, hops=hops)
    # scores: h 5^3 + 1^2 + 1 = 127; x 2^3 + 5^2 + 0 = 33; y 2^3 + 1^2 + 4 = 13; a 1 + 5^2 + 1 = 27
    assert solve_median(problem, MedianOptions("hot-spot")).opened == ("h", "x")
    # sums of distances: h 10, x 12, y 18, a 16: the two least, side by side
    assert solve_median(problem, MedianOptions("pressure")).opened == ("h", "x")
    assert solve_median(problem, EXACT).value == 6


def test_parts_that_are_not_joined_need_a_place_each() -> None:
    apart = np.array([[0.0, np.inf], [np.inf, 0.0]])
    with pytest.raises(Infeasible, match="c1: one place cannot serve all") as caught:
        solve_median(named(apart, 1), EXACT)
    assert caught.value.proven
    assert solve_median(named(apart, 2), EXACT).value == 0


ONE = np.ones((2, 3))


@pytest.mark.parametrize(
    ("problem", "options", "message"),
    [
        (named(ONE, 0), EXACT, "count: must be 1 to 3"),
        (named(ONE, 4), EXACT, "count: must be 1 to 3"),
        (named(-ONE, 1), EXACT, "distance: must be at least 0"),
        (named(ONE * np.nan, 1), EXACT, "distance: must be at least 0"),
        (named(ONE, 1, weight=np.ones(3)), EXACT, "weight: must be 2 finite"),
        (named(ONE, 1, weight=np.array([1.0, np.inf])), EXACT, "weight: must be 2 finite"),
        (named(ONE, 1, hops=np.ones((2, 2))), EXACT, "hops: must be 3 x 3"),
        (MedianProblem(("a", "a"), ("p",), ONE[:, :1], 1), EXACT, "clients: must be at least one"),
        (MedianProblem(("a",), (), ONE[:1, :0], 1), EXACT, "places: must be at least one"),
        (MedianProblem(("a",), ("p",), ONE, 1), EXACT, "distance: must be 1 x 1"),
        (named(ONE, 1), MedianOptions("magic"), "no p-median algorithm 'magic'; known: auto"),
        (named(ONE, 1), MedianOptions("hot-spot"), "hops: hot-spot counts links"),
        (named(ONE, 1), MedianOptions(solver="magic"), "no solver named 'magic'"),
        (named(ONE, 1), MedianOptions(deadline_s=0), "deadline must be above 0"),
    ],
)
def test_senseless_questions_are_refused(
    problem: MedianProblem, options: MedianOptions, message: str
) -> None:
    with pytest.raises(Malformed, match=message):
        solve_median(problem, options)

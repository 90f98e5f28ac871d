"""What searches found when: falling values, rising bounds, the same for the same seed."""

from itertools import pairwise

import pytest

from placement import Options, generate, solve
from placement.problem import Moment
from placement.tracing import Watch, later

PROBLEM = generate.generate("uniform", 5, hosts=8, services=24, utilisation=0.5).problem


@pytest.mark.parametrize(
    "options",
    [
        Options(algorithm="ladder", gap=0.001),
        Options(algorithm="exact", gap=0.01),
        Options(algorithm="exact", solver="highs-direct", gap=0.01),
        Options(algorithm="simulated-annealing"),
        Options(algorithm="tabu"),
        Options(algorithm="nsga2"),
    ],
    ids=lambda options: f"{options.algorithm} {options.solver}",
)
def test_a_trace_falls_to_the_plan(options: Options) -> None:
    plan, again = solve(PROBLEM, options), solve(PROBLEM, options)
    assert plan.trace
    for one, other in pairwise(plan.trace):
        assert one.seconds <= other.seconds
        assert one.value >= other.value
        assert one.bound <= other.bound + 1e-9
    assert plan.trace[-1].value == pytest.approx(plan.value)
    assert 0 <= plan.trace[0].seconds <= plan.trace[-1].seconds <= plan.seconds + 0.05
    assert [(m.value, m.bound) for m in plan.trace] == [(m.value, m.bound) for m in again.trace]


def test_an_order_has_no_trace_since_its_values_are_of_several_terms() -> None:
    assert solve(PROBLEM, Options(order=("latency_ms", "energy_w"), gap=0.05)).trace == ()


def test_only_what_differs_is_kept_and_the_last() -> None:
    watch = Watch()
    watch.note(float("inf"), 1.0, at=0.0)
    for at, value, bound in [(1, 10, -1), (2, 9.999, 0), (3, 9, 0), (4, 9, 8), (5, 8.9999, 9)]:
        watch.note(value, bound, at=at)
    kept = [(1, 10, 0), (3, 9, 0), (4, 9, 8), (5, 8.9999, 8.9999)]
    assert watch.trace() == tuple(Moment(*each) for each in kept)
    watch.note(8.9998, 8.9998, at=6)
    assert watch.trace()[-1] == Moment(6, 8.9998, 8.9998)
    assert Watch().trace() == ()


def test_a_later_trace_has_later_moments() -> None:
    assert later((Moment(1.0, 5.0, 2.0),), 0.5) == (Moment(1.5, 5.0, 2.0),)

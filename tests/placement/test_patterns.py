"""Column generation: its knapsacks, its bound, and what it says of pairs, against all plans."""

from itertools import product
from random import Random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from placement.arrays import compile_problem
from placement.check import violations
from placement.exact import Clock
from placement.ladder import climb as ladder
from placement.ladder.climb import Climber
from placement.ladder.patterns import Knapsack, Patterns, whole_knapsacks
from placement.ladder.simple import Board, Simple
from placement.matrix import Floats, Ints
from placement.problem import Demand, Flavour, Host, Options, Problem
from placement.solving import solve

SEEDS = st.integers(0, 10**9)
WEIGHTS = {"cost_hour": 1.0, "unplaced": 30.0}


def assignment(seed: int, hosts: int, demands: int, *, soft: bool = False) -> Problem:
    """Return a problem of nearly full hosts, where what is cheap is large."""
    random = Random(seed)  # noqa: S311 - not for secrets
    names = [f"h{i}" for i in range(hosts)]
    load = [{name: random.randint(1, 25) for name in names} for _ in range(demands)]
    room = [max(30, round(0.9 * sum(each[name] for each in load) / hosts)) for name in names]
    opening = random.choice([0.0, 40.0])
    return Problem(
        tuple(
            Host(name, {"load": float(room[i])}, host_hour=opening) for i, name in enumerate(names)
        ),
        tuple(
            Demand(
                f"d{j}",
                flavours=(
                    Flavour("", resources_at={n: {"load": float(k)} for n, k in each.items()}),
                ),
                cost_at={n: float(26 - k + random.randint(0, 8)) for n, k in each.items()},
                least=0 if soft and j % 2 else None,
            )
            for j, each in enumerate(load)
        ),
    )


def simple_of(problem: Problem) -> Simple:
    found = Climber(problem, Options(weights=WEIGHTS)).simple
    assert found is not None
    return found


def generated(simple: Simple) -> Patterns:
    patterns = Patterns.of(simple, np.full(simple.arrays.classes, 10.0), 0)
    assert patterns is not None
    patterns.generate(Clock.of(20))
    return patterns


def all_plans(simple: Simple) -> list[tuple[float, Ints]]:
    """Return the cost and the counts of every plan of a simple model with single copies."""
    arrays, found = simple.arrays, []
    choices = [[*range(arrays.start[c], arrays.start[c + 1]), -1] for c in range(arrays.classes)]
    for chosen in product(*choices):
        counts = np.zeros(arrays.pairs, dtype=np.int64)
        counts[[pair for pair in chosen if pair >= 0]] = 1
        board = Board(simple, counts)
        if (board.free >= 0).all() and not len(board.stranded):
            found.append((board.cost, counts))
    return found


@settings(max_examples=200, deadline=None)
@given(
    items=st.lists(st.tuples(st.integers(0, 6), st.integers(-5, 9)), min_size=1, max_size=7),
    room=st.integers(0, 15),
)
def test_a_knapsack_is_worth_what_the_best_of_all_contents_is(
    items: list[tuple[int, int]], room: int
) -> None:
    items = [(min(need, room), worth) for need, worth in items]  # pairs that do not fit are none
    needs, worths = np.array([need for need, _ in items]), np.array([float(w) for _, w in items])
    sack = Knapsack(0, np.arange(len(items)), needs, room)
    contents = [np.array(each, dtype=bool) for each in product((False, True), repeat=len(items))]
    contents = [each for each in contents if needs[each].sum() <= room]
    most, chosen = sack.best(worths)
    assert most == max(worths[each].sum() for each in contents)
    assert worths[chosen].sum() == most
    assert needs[chosen].sum() <= room
    forced = [max(worths[c].sum() for c in contents if c[i]) for i in range(len(items))]
    assert sack.each(worths).tolist() == forced


@settings(max_examples=60, deadline=None)
@given(seed=SEEDS, soft=st.booleans())
def test_what_it_proves_is_true_of_every_plan(seed: int, soft: bool) -> None:
    simple = simple_of(assignment(seed, 3, 5, soft=soft))
    if whole_knapsacks(simple) is None:
        return  # everything fits everywhere
    patterns = generated(simple)
    plans = all_plans(simple)
    best = min((cost for cost, _ in plans), default=np.inf)
    assert patterns.bound <= best + 1e-6
    for value in sorted({cost for cost, _ in plans})[:6]:
        hopeless = patterns.hopeless(value)
        assert not any(counts[hopeless].any() for cost, counts in plans if cost < value - 1e-9)


def test_the_bound_is_above_that_of_the_relaxation_and_shuts_out_pairs() -> None:
    problem = assignment(4, 5, 30)
    climber = Climber(problem, Options(weights=WEIGHTS, deadline_s=30))
    assert climber.simple is not None
    list(climber.rounding())
    patterns = generated(climber.simple)
    best = solve(problem, Options(weights=WEIGHTS, deadline_s=30)).value
    assert climber.bound + 0.5 < patterns.bound <= best + 1e-6
    assert patterns.hopeless(best + 1).any()


def test_a_dive_keeps_to_the_room_and_fixes_most() -> None:
    simple = simple_of(assignment(7, 8, 60))
    patterns = generated(simple)
    counts = patterns.dive(Clock.of(30), np.random.default_rng(0))
    board = Board(simple, counts)
    assert (board.free >= 0).all()
    assert (board.waiting >= 0).all()
    assert board.waiting.sum() <= 6


def test_the_ladder_takes_its_plans_and_its_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ladder, "SMALL_COLUMNS", 0)  # else the exact model is solved first
    problem = assignment(1, 12, 70)
    steps = [*ladder.climb(problem, Options(weights=WEIGHTS, deadline_s=25, gap=0.01))]
    assert "patterns" in {step.rung for step in steps}
    values, bounds = [step.value for step in steps], [step.bound for step in steps]
    assert values == sorted(values, reverse=True)
    assert bounds == sorted(bounds)
    assert all(violations(problem, step.plan()) == () for step in steps if step.x is not None)
    assert steps[-1].gap < 0.05


@pytest.mark.parametrize(
    ("demand", "room"),
    [
        (Demand("d", {"cpu": 1, "memory_mib": 4}), {"cpu": 2, "memory_mib": 8}),
        (Demand("d", {"cpu": 0.25}), {"cpu": 0.6}),
    ],
    ids=["two scarce resources", "needs that are not whole"],
)
def test_other_models_have_no_patterns(demand: Demand, room: dict[str, float]) -> None:
    demands = tuple(Demand(f"d{i}", demand.resources, cost_at={"a": float(i)}) for i in range(4))
    assert whole_knapsacks(simple_of(Problem((Host("a", room), Host("b", room)), demands))) is None


def test_the_nearest_hosts_of_a_demand_without_requests_are_the_cheapest() -> None:
    cost: Floats = np.array([5.0, 1.0, 4.0, 2.0])
    hosts = tuple(Host(f"h{i}", {"cpu": 4}) for i in range(4))
    demand = Demand("d", {"cpu": 1}, cost_at={f"h{i}": each for i, each in enumerate(cost)})
    arrays = compile_problem(Problem(hosts, (demand,)), nearest=2)
    assert [arrays.hosts[h] for h in arrays.pair_host] == ["h1", "h3"]

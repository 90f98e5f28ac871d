"""Fronts: against all plans of tiny problems, and their indicators against values by hand."""

from collections.abc import Callable
from random import Random
from time import perf_counter
from typing import Any

import pytest
from hypothesis import example, given, note, settings
from hypothesis import strategies as st

from placement.check import violations
from placement.evaluate import evaluate
from placement.front import ParetoFront, undominated
from placement.fronts import augmecon, exact_front, front, nsga2_front, payoff, weighted
from placement.generate import generate
from placement.problem import Demand, Host, Infeasible, Malformed, Options, Plan, Problem
from placement.registry import algorithm, missing
from placement.solving import solve
from tests.placement import tiny

MakeHost = Callable[..., Host]
MakeDemand = Callable[..., Demand]
TERMS = ("latency_ms", "energy_w", "cost_hour", "migrations", "wake_ms", "hosts_on", "unplaced")
FAST = Options(solver="highs-direct")


def every_point(problem: Problem, terms: tuple[str, ...]) -> set[tuple[float, ...]]:
    """Return the points of the front, found by trying all plans."""
    plans = [Plan(plan.hosts, 0.0, evaluate(problem, plan)) for plan in tiny.every_plan(problem)]
    return rounded(ParetoFront.of(terms, plans))


def rounded(found: ParetoFront) -> set[tuple[float, ...]]:
    return {tuple(round(float(value), 4) for value in point) for point in found.points}


@pytest.mark.parametrize("family", ["plain", "soft", "flavours", "spread", "revenue"])
@settings(max_examples=20)
@given(seed=st.integers(0, 10**9))
@example(seed=9836922)  # flavours: hosts without a path, whose 10,000 ms times 1e-6 exceed a step
def test_the_exact_front_has_every_point(family: str, seed: int) -> None:
    problem = tiny.draw(seed, family)
    terms = tuple(Random(seed).sample(TERMS, 2))  # noqa: S311 - not for secrets
    wanted = every_point(problem, terms)
    note(f"{problem} {terms} {wanted}")
    if not wanted:
        with pytest.raises(Infeasible):
            front(problem, terms, FAST)
        return
    found = front(problem, terms, FAST)
    assert found.proven
    assert rounded(found) == wanted
    assert all(violations(problem, plan) == () for plan in found.plans)


def test_points_far_nearer_than_the_ends_are_two(host: MakeHost, demand: MakeDemand) -> None:
    """A missing path counts 10,000 ms; beside that, the two plans without one differ by 0.05 ms."""
    hosts = (host("near", host_hour=9), host("next", host_hour=5), host("lost"))
    problem = Problem(hosts, (demand("web", rates={"p": 1.0}),), {"p": {"near": 1.0, "next": 1.05}})
    found = exact_front(problem, ("cost_hour", "latency_ms"), FAST)
    assert found.proven
    assert rounded(found) == {(9.0, 1.0), (5.0, 1.05), (0.0, 10000.0)}


@pytest.mark.parametrize("points", [None, 6])
def test_a_front_tells_how_far_it_is(points: int | None) -> None:
    told: list[tuple[int, float]] = []
    problem = generate("waxman", 7, nodes=14, services=12, utilisation=0.4).problem
    terms = ("latency_ms", "energy_w")
    front(problem, terms, FAST, points=points, progress=lambda *each: told.append(each))
    assert [found for found, _ in told] == list(range(1, len(told) + 1))
    shares = [share for _, share in told]
    assert shares == sorted(shares)
    assert shares[-1] == pytest.approx(1.0, abs=1e-6)


def test_the_deadline_of_a_front_is_for_the_whole(problem_of_minutes: Problem) -> None:
    since = perf_counter()
    found = exact_front(problem_of_minutes, ("latency_ms", "energy_w"), Options(deadline_s=4))
    assert perf_counter() - since < 4 * 4  # loosely: others use this machine
    assert found.plans
    assert not found.proven


@pytest.fixture
def problem_of_minutes() -> Problem:
    """Return what no solver finishes in seconds: all services differ, and hosts are tight."""
    return generate("waxman", 3, nodes=40, services=60, utilisation=0.6).problem


@settings(max_examples=15)
@given(seed=st.integers(0, 10**9), size=st.sampled_from([2, 3]))
def test_augmecon_finds_only_points_of_the_front(seed: int, size: int) -> None:
    problem = tiny.draw(seed, "soft")
    terms = tuple(Random(seed).sample(TERMS, size))  # noqa: S311
    wanted = every_point(problem, terms)
    if not wanted:
        return
    found = rounded(augmecon(problem, terms, FAST, points=4))
    note(f"{problem} {terms} {wanted} {found}")
    assert found <= wanted
    assert len(found) >= min(2, len(wanted))


def test_a_fine_grid_of_augmecon_finds_all(host: MakeHost, demand: MakeDemand) -> None:
    problem = trade_off(host, demand)
    terms = ("latency_ms", "cost_hour")
    found = augmecon(problem, terms, FAST, points=30)
    assert rounded(found) == every_point(problem, terms)
    assert len(found.plans) > 3


def trade_off(host: MakeHost, demand: MakeDemand) -> Problem:
    """Return a problem where near hosts are dear."""
    hosts = tuple(host(f"h{n}", cpu=2, host_hour=9 - 2 * n) for n in range(4))
    demands = tuple(demand(f"d{n}", rates={"p": 1.0 + n}) for n in range(3))
    return Problem(hosts, demands, {"p": {f"h{n}": 1.0 + n**2 for n in range(4)}})


def test_a_grid_of_bounds_and_three_terms(host: MakeHost, demand: MakeDemand) -> None:
    problem = trade_off(host, demand)
    terms = ("latency_ms", "cost_hour")
    every = exact_front(problem, terms, FAST)
    some = exact_front(problem, terms, FAST, points=4)
    assert rounded(some) <= rounded(every)
    assert 2 <= len(some.plans) < len(every.plans)
    assert not some.proven
    assert every.additive_epsilon(some) == 0
    assert some.igd_plus(every) > 0
    three = front(problem, (*terms, "hosts_on"), Options(seed=3))
    assert three.terms == (*terms, "hosts_on")
    assert rounded(three) <= every_point(problem, (*terms, "hosts_on"))


def test_nsga2_is_near_the_exact_front_and_repeats_itself(
    host: MakeHost, demand: MakeDemand
) -> None:
    problem, terms = trade_off(host, demand), ("latency_ms", "cost_hour")
    exact = exact_front(problem, terms, FAST)
    found = nsga2_front(problem, terms, Options(seed=1))
    assert found.additive_epsilon(exact) < 0.2
    reference = exact.points.max(axis=0) + 1
    assert exact.hypervolume(reference) >= found.hypervolume(reference) > 0
    assert (found.points == nsga2_front(problem, terms, Options(seed=1)).points).all()


@settings(max_examples=10)
@given(seed=st.integers(0, 10**9))
def test_nsga2_plans_are_right(seed: int) -> None:
    problem, terms = tiny.draw(seed, "soft"), ("latency_ms", "energy_w", "unplaced")
    assert not missing(algorithm("nsga2"), problem, Options())
    try:
        found = nsga2_front(problem, terms, Options(seed=seed))
    except Infeasible as error:
        assert not (error.proven and any(tiny.every_plan(problem)))  # noqa: PT017
        return
    assert undominated(found.points).all()
    assert found.plans


def test_most_is_served_first_and_then_cost_counts(host: MakeHost, demand: MakeDemand) -> None:
    """The lecture's order: as much demand as can be served, then the cheapest way."""
    problem = Problem(
        (host("dear", cpu=2, host_hour=9), host("cheap", cpu=1, host_hour=1)),
        tuple(demand(f"d{n}", rates={"p": 1.0 + n}, least=0) for n in range(4)),
        {"p": {"dear": 1.0, "cheap": 2.0}},
    )
    plan = solve(problem, Options(order=("unserved_rps", "cost_hour"), weights={}))
    assert plan.terms["unserved_rps"] == pytest.approx(1.0)  # all but the least asked for
    assert plan.terms["cost_hour"] == pytest.approx(10.0)
    cheap = solve(problem, Options(order=("cost_hour", "unserved_rps"), weights={}))
    assert cheap.terms["cost_hour"] == 0


def test_terms_of_any_unit_count_by_their_share(host: MakeHost, demand: MakeDemand) -> None:
    problem = trade_off(host, demand)
    terms = ("latency_ms", "cost_hour")
    table = payoff(problem, terms, FAST)
    assert table.ideal["latency_ms"] < table.nadir["latency_ms"]
    shares = table.weights({"latency_ms": 1.0, "cost_hour": 1.0})
    span = table.nadir["cost_hour"] - table.ideal["cost_hour"]
    assert shares["cost_hour"] == pytest.approx(1 / span)
    assert table.weights({"latency_ms": 0.5})["latency_ms"] < 1
    plan = weighted(problem, {"latency_ms": 1.0, "cost_hour": 1.0}, FAST)
    point = tuple(round(plan.terms[name], 4) for name in terms)
    assert point in every_point(problem, terms)


# --- the value ----------------------------------------------------------------------------------


def made(*points: tuple[float, ...]) -> ParetoFront:
    names = ("a", "b", "c")[: len(points[0])]
    return ParetoFront.of(names, [Plan({}, 0.0, dict(zip(names, p, strict=True))) for p in points])


def test_dominated_and_equal_plans_are_left_out() -> None:
    assert made((1, 3), (2, 2), (2, 3), (2, 2), (3, 1)).points.tolist() == [[1, 3], [2, 2], [3, 1]]


def test_the_hypervolume_is_what_one_counts() -> None:
    assert made((1, 3), (2, 2), (3, 1)).hypervolume((4, 4)) == 6
    assert made((1, 1, 1)).hypervolume((3, 3, 2)) == 4
    assert made((1, 2, 1), (2, 1, 1)).hypervolume((3, 3, 3)) == 6
    assert made((1, 3), (3, 1)).hypervolume() == 0
    with pytest.raises(Malformed, match="2 values, one per term"):
        made((1, 3)).hypervolume((1,))


def test_distances_to_another_front() -> None:
    near, far = made((0, 1), (1, 0)), made((0.5, 2), (2, 0.5))
    assert near.additive_epsilon(far) == 0
    assert far.additive_epsilon(near) == pytest.approx(0.5)
    assert near.igd_plus(far) == 0
    assert far.igd_plus(near) == pytest.approx((0.25**2 + 0.5**2) ** 0.5)
    with pytest.raises(Malformed, match="same terms"):
        near.igd_plus(made((1, 1, 1)))


def test_the_knee_is_where_giving_up_stops_to_pay() -> None:
    assert made((0, 100), (1, 20), (10, 0)).knee().terms == {"a": 1, "b": 20}


@pytest.mark.parametrize(
    ("terms", "message"),
    [
        ((), "at least one term"),
        (("energy_w", "energy_w"), "each once"),
        (("energy_w", "joy"), "terms: no such term: 'joy'; known: latency_ms"),
        ("energy_w", "not 'energy_w'"),
    ],
)
def test_senseless_terms_are_refused(
    host: MakeHost, demand: MakeDemand, terms: tuple[str, ...], message: str
) -> None:
    with pytest.raises(Malformed, match=message):
        payoff(trade_off(host, demand), terms)


def test_an_exact_front_is_one_of_two_terms(host: MakeHost, demand: MakeDemand) -> None:
    three: Any = ("energy_w", "cost_hour", "latency_ms")
    with pytest.raises(Malformed, match="two terms, not 3; use front"):
        exact_front(trade_off(host, demand), three)


def three_hosts() -> Problem:
    """Return a cheap, a frugal and a middling host; the last is far."""
    hosts = (
        Host("cheap", {"cpu": 9}, host_hour=1, idle_w=9),
        Host("frugal", {"cpu": 9}, host_hour=5, idle_w=1),
        Host("middling", {"cpu": 9}, host_hour=2, idle_w=2),
    )
    far = {"p": {"cheap": 5, "frugal": 2, "middling": 50}}
    return Problem(hosts, (Demand("x", rates={"p": 1.0}),), far)


def test_a_limit_on_the_worst_latency_holds_for_the_whole_front() -> None:
    options = Options(limits={"worst_latency_ms": 10})
    for limit, count in ((options, 2), (Options(), 3)):
        front = exact_front(three_hosts(), ("cost_hour", "energy_w"), limit)
        assert len(front.plans) == count


@pytest.mark.parametrize(
    "terms", [("worst_latency_ms", "cost_hour"), ("energy_w", "worst_latency_ms")]
)
def test_the_worst_latency_has_an_exact_front(terms: tuple[str, str]) -> None:
    front = exact_front(three_hosts(), terms)
    assert front.proven
    points = [(1, 2)] if terms[0] == "energy_w" else [(2, 5), (5, 1)]
    assert rounded(front) == set(points)


@pytest.mark.parametrize("ask", [augmecon, payoff])
def test_the_worst_latency_is_in_no_sum(ask: Any) -> None:
    terms = ("worst_latency_ms", "cost_hour")
    if ask is payoff:
        assert ask(three_hosts(), terms).ideal == {"worst_latency_ms": 2, "cost_hour": 1}
        return
    with pytest.raises(Malformed, match="worst_latency_ms cannot be summed; use exact_front"):
        ask(three_hosts(), terms)


def test_the_bound_of_each_point_is_one_on_the_first_term() -> None:
    front = exact_front(three_hosts(), ("latency_ms", "cost_hour"))
    assert [plan.bound for plan in front.plans] == pytest.approx([2.0, 2.0])


@pytest.mark.parametrize(
    ("term", "points"),
    [("latency_ms", None), ("latency_ms", 1000), ("worst_latency_ms", None)],
)
def test_a_front_of_quick_points_ends_at_the_deadline(term: str, points: int | None) -> None:
    """Each point takes milliseconds, which is always left, so that none is too late by itself."""
    random = Random(3)  # noqa: S311 - not for secrets
    hosts = tuple(
        Host(f"h{i}", {"cpu": 80.0}, unit_hour={"cpu": random.uniform(1, 9)}) for i in range(6)
    )
    demands = tuple(
        Demand(f"d{i}", {"cpu": random.uniform(0.5, 2)}, rates={f"p{i % 4}": 1.0})
        for i in range(12)
    )
    latency = {f"p{i}": {h.name: random.uniform(1, 30) for h in hosts} for i in range(4)}
    found: list[int] = []
    try:
        front(
            Problem(hosts, demands, latency_ms=latency),
            (term, "cost_hour"),
            Options(deadline_s=0.01),
            points=points,
            progress=lambda count, _: found.append(count),
        )
    except Infeasible as late:  # others use this machine, and 10 ms are not much
        assert not late.proven  # noqa: PT017
    assert len(found) < 3

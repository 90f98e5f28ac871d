"""The registry, the two greedy algorithms, and the question of a wake."""

from collections.abc import Callable
from dataclasses import replace
from time import perf_counter

import pytest

from placement.heuristics import ALGORITHMS, algorithm
from placement.heuristics.greedy_latency import place_one
from placement.problem import Demand, Infeasible, Malformed, Options, Problem, Resources, Site

MakeSite = Callable[..., Site]
MakeDemand = Callable[..., Demand]


@pytest.fixture
def problem(site: MakeSite, demand: MakeDemand) -> Problem:
    """Return three sites, c nearest to p and a nearest to q."""
    return Problem(
        (site("a"), site("b"), site("c")),
        (demand("web", rates={"p": 3.0, "q": 1.0}), demand("db"), demand("log")),
        {"p": {"a": 9.0, "b": 5.0, "c": 1.0}, "q": {"a": 1.0, "b": 5.0, "c": 9.0}},
    )


def test_every_algorithm_is_found_by_name_and_answers(problem: Problem) -> None:
    for name in ALGORITHMS:
        plan = algorithm(name)(problem, Options())
        assert plan.algorithm == name
        assert set(plan.sites) == {"web", "db", "log"}


def test_an_unknown_algorithm_lists_the_known_ones() -> None:
    with pytest.raises(Malformed, match="'magic'; known: first-fit, greedy-latency, milp"):
        algorithm("magic")


def test_every_algorithm_refuses_a_term_it_does_not_know(problem: Problem) -> None:
    for name in ALGORITHMS:
        with pytest.raises(Malformed, match=r"weights\.joy: no such term"):
            algorithm(name)(problem, Options(weights={"joy": 1.0}))


def test_first_fit_takes_the_first_and_greedy_the_nearest(problem: Problem) -> None:
    assert algorithm("first-fit")(problem, Options()).sites["web"] == ("a",)
    assert algorithm("greedy-latency")(problem, Options()).sites["web"] == ("c",)


@pytest.mark.parametrize("name", ALGORITHMS)
def test_what_copies_take_beside_their_own_memory_counts(
    site: MakeSite, demand: MakeDemand, name: str
) -> None:
    names = ("one", "two", "three")
    problem = Problem(
        (site("a", memory_mib=30), site("b", memory_mib=10)),
        tuple(demand(each, memory_mib=10) for each in names),
        extra_mib={each: {"a": 2} for each in names},
    )
    placed = algorithm(name)(problem, Options()).sites
    assert sorted(placed.values()) == [("a",), ("a",), ("b",)], "three would fit in 30 MiB"
    alone = replace(problem, sites=problem.sites[:1])
    with pytest.raises(Infeasible, match="needs 12 MiB of memory, 6 free"):
        algorithm(name)(alone, Options())
    with pytest.raises(Malformed, match=r"extra_mib\.one\.a"):
        algorithm(name)(replace(problem, extra_mib={"one": {"a": -1}}), Options())


def test_first_fit_gives_up_where_the_milp_does_not(site: MakeSite, demand: MakeDemand) -> None:
    problem = Problem(
        (site("a", cpu=2), site("b", cpu=1)),
        (demand("small", cpu=1), demand("large", cpu=2)),
    )
    with pytest.raises(Infeasible) as caught:
        algorithm("first-fit")(problem, Options())
    assert caught.value.reasons == {
        "large": "first-fit found no site: b: needs 2 CPU, 1 free; a: needs 2 CPU, 1 free"
    }
    assert algorithm("milp")(problem, Options()).sites == {"small": ("b",), "large": ("a",)}
    assert algorithm("greedy-latency")(problem, Options()).sites["large"] == ("a",)


def test_partners_are_placed_first_whatever_the_order(site: MakeSite, demand: MakeDemand) -> None:
    cache = demand("cache", together_with=frozenset({"db"}))
    db = demand("db", only_on=frozenset({"b"}))
    problem = Problem((site("a"), site("b")), (cache, db))
    assert algorithm("first-fit")(problem, Options()).sites == {"cache": ("b",), "db": ("b",)}


# --- place_one ----------------------------------------------------------------------------------


def test_all_sites_come_nearest_first_on_average_or_for_who_asks(problem: Problem) -> None:
    assert place_one(problem, "web", {}).sites == ("c", "b", "a")
    assert place_one(problem, "web", {}, population="q").sites == ("a", "b", "c")


def test_a_full_site_is_left_out_with_the_reason(problem: Problem) -> None:
    used = {"c": Resources(1, 900), "b": Resources(3.5, 0)}
    ranking = place_one(problem, "web", used)
    assert ranking.sites == ("a",)
    assert ranking.reasons == {
        "c": "needs 256 MiB of memory, 124 free",
        "b": "needs 1 CPU, 0.5 free",
    }


def test_near_ties_go_to_the_plan_then_to_sites_that_are_on_then_to_free_memory(
    site: MakeSite, demand: MakeDemand
) -> None:
    sites = (site("big", memory_mib=4096), site("on"), site("plan2"), site("plan1"), site("z"))
    latency = {"p": {"big": 2.1, "on": 2.9, "plan2": 2.5, "plan1": 2.5, "z": 1.5}}
    problem = Problem(sites, (demand("web", rates={"p": 1.0}),), latency)
    ranking = place_one(problem, "web", {"on": Resources(1, 1)}, ["plan1", "plan2"])
    assert ranking.sites == ("z", "plan1", "plan2", "on", "big")


def test_the_last_resort_is_the_name(site: MakeSite, demand: MakeDemand) -> None:
    problem = Problem((site("b"), site("a")), (demand("web"),))
    assert place_one(problem, "web", {}).sites == ("a", "b")


@pytest.mark.parametrize(
    ("current", "rules", "sites", "reason"),
    [
        ({"web": ("c",)}, {}, ("b", "a"), "a copy of it runs there already"),
        ({"db": ("c",)}, {"apart_from": frozenset({"db"})}, ("b", "a"), "must be apart from db"),
        ({"log": ("c", "b")}, {}, ("a",), "must be apart from log"),
        ({"db": ("a",)}, {"together_with": frozenset({"db"})}, ("a",), "must be together with db"),
    ],
)
def test_what_runs_already_closes_sites(
    current: dict[str, tuple[str, ...]],
    rules: dict[str, frozenset[str]],
    sites: tuple[str, ...],
    reason: str,
    problem: Problem,
) -> None:
    web, db, log = problem.demands
    demands = (replace(web, **rules), db, replace(log, apart_from=frozenset({"web"})))  # type: ignore[arg-type]
    ranking = place_one(replace(problem, demands=demands, current=current), "web", {})
    assert ranking.sites == sites
    assert set(ranking.reasons.values()) == {reason}


def test_a_partner_that_waits_elsewhere_is_joined(problem: Problem) -> None:
    web, db, log = problem.demands
    demands = (web, db, replace(log, together_with=frozenset({"web"})))
    ranking = place_one(replace(problem, demands=demands, current={"log": ("a",)}), "web", {})
    assert ranking.sites == ("a",)


def test_the_latency_bound_also_holds_for_who_asks(problem: Problem) -> None:
    (web, *others) = problem.demands
    bounded = replace(web, rates={"q": 1.0}, latency_bound_ms=5.0)
    problem = replace(problem, demands=(bounded, *others))
    assert place_one(problem, "web", {}).sites == ("a", "b")
    ranking = place_one(problem, "web", {}, population="p")
    assert ranking.sites == ("b",)
    assert ranking.reasons["a"] == "9 ms from p, bound 5 ms"


def test_an_unknown_demand_lists_the_known_ones(problem: Problem) -> None:
    with pytest.raises(Malformed, match="no demand named 'wbe'; known: db, log, web"):
        place_one(problem, "wbe", {})


def test_a_wake_is_placed_in_far_less_than_its_guest_boots(demand: MakeDemand) -> None:
    """Ask with 100 sites and 20 populations: the aim is 1 ms, the limit is for a slow machine."""
    names = [f"s{n}" for n in range(100)]
    rates = {f"p{n}": 1.0 for n in range(20)}
    problem = Problem(
        tuple(Site(name, Resources(8, 8192)) for name in names),
        tuple(demand(f"d{n}", rates=rates, latency_bound_ms=90.0) for n in range(50)),
        {p: {name: float(n) for n, name in enumerate(names)} for p in rates},
    )
    used = {name: Resources(7.5 if n % 2 else 1, 100) for n, name in enumerate(names)}

    def seconds() -> float:
        started = perf_counter()
        assert place_one(problem, "d49", used).sites[0] == "s0"
        return perf_counter() - started

    assert min(seconds() for _ in range(20)) < 0.020

"""The registry, the two greedy algorithms, and the question of a wake."""

from collections.abc import Callable
from dataclasses import replace
from time import perf_counter

import pytest

from placement.heuristics.greedy_latency import place_one
from placement.problem import (
    Amounts,
    Demand,
    Flavour,
    Host,
    Infeasible,
    Malformed,
    Options,
    Plan,
    Problem,
)
from placement.registry import ALGORITHMS
from placement.rules import Beside, Fence, Rule, Split
from placement.solving import solve

MakeHost = Callable[..., Host]
MakeDemand = Callable[..., Demand]


@pytest.fixture
def problem(host: MakeHost, demand: MakeDemand) -> Problem:
    """Return three hosts, c nearest to p and a nearest to q."""
    return Problem(
        (host("a"), host("b"), host("c")),
        (demand("web", rates={"p": 3.0, "q": 1.0}), demand("db"), demand("log")),
        {"p": {"a": 9.0, "b": 5.0, "c": 1.0}, "q": {"a": 1.0, "b": 5.0, "c": 9.0}},
    )


def placed(name: str, problem: Problem) -> Plan:
    return solve(problem, Options(algorithm=name))


def taken(cpu: float, memory_mib: float) -> Amounts:
    return {"cpu": cpu, "memory_mib": memory_mib}


def test_first_fit_takes_the_first_and_greedy_the_nearest(problem: Problem) -> None:
    assert placed("first-fit", problem).hosts["web"] == ("a",)
    assert placed("greedy-latency", problem).hosts["web"] == ("c",)


def test_first_fit_gives_up_where_the_milp_does_not(host: MakeHost, demand: MakeDemand) -> None:
    problem = Problem(
        (host("a", cpu=2), host("b", cpu=1)),
        (demand("small", cpu=1), demand("large", cpu=2)),
    )
    with pytest.raises(Infeasible) as caught:
        placed("first-fit", problem)
    assert caught.value.reasons == {"large": "first-fit found no host: b, a: needs 2 CPU, 1 free"}
    assert placed("exact", problem).hosts == {"small": ("b",), "large": ("a",)}
    assert placed("greedy-latency", problem).hosts["large"] == ("a",)


@pytest.mark.parametrize("name", [each.name for each in ALGORITHMS])
def test_what_copies_take_on_a_host_beside_their_own_memory_counts(
    host: MakeHost, demand: MakeDemand, name: str
) -> None:
    on_xen = Flavour("", resources_at={"a": {"memory_mib": 12}})
    demands = tuple(
        demand(each, memory_mib=10, flavours=(on_xen,)) for each in ("one", "two", "three")
    )
    problem = Problem((host("a", memory_mib=30), host("b", memory_mib=10)), demands)
    hosts = placed(name, problem).hosts
    assert sorted(hosts.values()) == [("a",), ("a",), ("b",)], "three would fit in 30 MiB"
    why = r"needs 12 MiB of memory, 6 free|36 memory_mib demanded"
    with pytest.raises(Infeasible, match="no plan was found" if name == "partition" else why):
        placed(name, replace(problem, hosts=problem.hosts[:1]))


def test_partners_are_placed_first_whatever_the_order(host: MakeHost, demand: MakeDemand) -> None:
    rules = (Beside("cache", "db"), Fence(frozenset({"db"}), frozenset({"b"})))
    problem = Problem((host("a"), host("b")), (demand("cache"), demand("db")), rules=rules)
    assert placed("first-fit", problem).hosts == {"cache": ("b",), "db": ("b",)}


# --- place_one ----------------------------------------------------------------------------------


def test_all_hosts_come_nearest_first_on_average_or_for_who_asks(problem: Problem) -> None:
    assert place_one(problem, "web", {}).hosts == ("c", "b", "a")
    assert place_one(problem, "web", {}, population="q").hosts == ("a", "b", "c")


def test_a_full_host_is_left_out_with_the_reason(problem: Problem) -> None:
    used = {"c": taken(1, 900), "b": taken(3.5, 0)}
    ranking = place_one(problem, "web", used)
    assert ranking.hosts == ("a",)
    assert ranking.reasons == {
        "c": "needs 256 MiB of memory, 124 free",
        "b": "needs 1 CPU, 0.5 free",
    }


def test_near_ties_go_to_the_plan_then_to_hosts_that_are_on_then_to_free_memory(
    host: MakeHost, demand: MakeDemand
) -> None:
    hosts = (host("big", memory_mib=4096), host("on"), host("plan2"), host("plan1"), host("z"))
    latency = {"p": {"big": 2.1, "on": 2.9, "plan2": 2.5, "plan1": 2.5, "z": 1.5}}
    problem = Problem(hosts, (demand("web", rates={"p": 1.0}),), latency)
    ranking = place_one(problem, "web", {"on": taken(1, 1)}, ["plan1", "plan2"])
    assert ranking.hosts == ("z", "plan1", "plan2", "on", "big")


def test_the_last_resort_is_the_name(host: MakeHost, demand: MakeDemand) -> None:
    problem = Problem((host("b"), host("a")), (demand("web"),))
    assert place_one(problem, "web", {}).hosts == ("a", "b")


APART = Split((frozenset({"web"}), frozenset({"db"})))


@pytest.mark.parametrize(
    ("current", "rules", "hosts", "reason"),
    [
        ({"web": ("c",)}, (), ("b", "a"), "a copy of it runs there already"),
        ({"db": ("c",)}, (APART,), ("b", "a"), "must be apart from db"),
        ({"db": ("a",)}, (Beside("web", "db"),), ("a",), "must be together with db"),
        ({"log": ("a",)}, (Beside("log", "web"),), ("a",), "must be together with log"),
    ],
)
def test_what_runs_already_closes_hosts(
    current: dict[str, tuple[str, ...]],
    rules: tuple[Rule, ...],
    hosts: tuple[str, ...],
    reason: str,
    problem: Problem,
) -> None:
    ranking = place_one(replace(problem, rules=rules, current=current), "web", {})
    assert ranking.hosts == hosts
    assert set(ranking.reasons.values()) == {reason}


def test_the_latency_bound_also_holds_for_who_asks(problem: Problem) -> None:
    (web, *others) = problem.demands
    bounded = replace(web, rates={"q": 1.0}, latency_bound_ms=5.0)
    problem = replace(problem, demands=(bounded, *others))
    assert place_one(problem, "web", {}).hosts == ("a", "b")
    ranking = place_one(problem, "web", {}, population="p")
    assert ranking.hosts == ("b",)
    assert ranking.reasons["a"] == "9 ms from p, bound 5 ms"


def test_an_unknown_demand_lists_the_known_ones(problem: Problem) -> None:
    with pytest.raises(Malformed, match="no demand named 'wbe'; known: db, log, web"):
        place_one(problem, "wbe", {})


def test_a_wake_is_placed_in_far_less_than_its_guest_boots(demand: MakeDemand) -> None:
    """Ask with 100 hosts and 20 populations: the aim is 1 ms, the limit is for a slow machine."""
    names = [f"s{n}" for n in range(100)]
    rates = {f"p{n}": 1.0 for n in range(20)}
    problem = Problem(
        tuple(Host(name, taken(8, 8192)) for name in names),
        tuple(demand(f"d{n}", rates=rates, latency_bound_ms=90.0) for n in range(50)),
        {p: {name: float(n) for n, name in enumerate(names)} for p in rates},
    )
    used = {name: taken(7.5 if n % 2 else 1, 100) for n, name in enumerate(names)}

    def seconds() -> float:
        started = perf_counter()
        assert place_one(problem, "d49", used).hosts[0] == "s0"
        return perf_counter() - started

    assert min(seconds() for _ in range(20)) < 0.020

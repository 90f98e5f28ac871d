"""What each heuristic is known for, on problems where that shows; and that seeds decide."""

from collections.abc import Callable
from dataclasses import replace
from random import Random

import pytest

from placement.check import violations
from placement.evaluate import evaluate, value_of
from placement.heuristics import vlsp
from placement.problem import (
    DEFAULT_WEIGHTS,
    Demand,
    Flavour,
    Host,
    Infeasible,
    Options,
    Plan,
    Problem,
    Traffic,
)
from placement.registry import ALGORITHMS, algorithm
from placement.rules import Spread
from placement.solving import solve

MakeHost = Callable[..., Host]
MakeDemand = Callable[..., Demand]
HEURISTICS = [e.name for e in ALGORITHMS if e.function.startswith("placement.heuristics.")]
SEARCHES = ("simulated-annealing", "tabu", "nsga2")


def bare(name: str, problem: Problem, seed: int = 0) -> Plan:
    plan = algorithm(name).load()(problem, Options(algorithm=name, seed=seed))
    assert violations(problem, plan) == ()
    return plan


def where(name: str, problem: Problem) -> str:
    """Return the host of each demand, as one word."""
    plan = bare(name, problem)
    return "".join("".join(plan.hosts[demand.name]) or "-" for demand in problem.demands)


def sized(rooms: str, needs: str) -> Problem:
    hosts = (Host(n, {"cpu": int(r)}) for n, r in zip("abc", rooms, strict=False))
    demands = (Demand(f"d{i}", {"cpu": int(need)}) for i, need in enumerate(needs))
    return Problem(tuple(hosts), tuple(demands))


@pytest.mark.parametrize(
    ("name", "rooms", "needs", "expected"),
    [
        ("first-fit", "575", "2313", "aabb"),
        ("best-fit", "754", "4112", "cbbb"),
        ("worst-fit", "754", "3112", "aabb"),
        ("first-fit-decreasing", "44", "2231", "bbaa"),
        ("best-fit-decreasing", "654", "1243", "abcb"),
        ("least-used", "888", "1111", "aabc"),
        ("nup", "999", "11111111", "aaaaabbb"),
        ("only-cloud", "585", "4422", "bbaa"),
        ("dot-product", "55", "3232", "aabb"),
    ],
)
def test_by_size(name: str, rooms: str, needs: str, expected: str) -> None:
    """Hosts a, b, c have so many cores; equal demands are dealt out by host."""
    assert where(name, sized(rooms, needs)) == expected


def test_dot_product_puts_together_what_fits_together(host: MakeHost, demand: MakeDemand) -> None:
    needs = [(3, 100), (3, 100), (1, 300), (1, 300)]
    demands = tuple(demand(f"d{n}", *need) for n, need in enumerate(needs))
    problem = Problem((host("a", 4, 400), host("b", 4, 400)), demands)
    assert where("dot-product", problem) in {"abab", "abba", "baab", "baba"}


@pytest.fixture
def tree(host: MakeHost, demand: MakeDemand) -> Problem:
    """Return a device, a fog node, a small node aside, and a cloud, north of one population."""
    return Problem(
        (
            host("d", cpu=2),
            host("s", cpu=1),
            host("f", cpu=4),
            host("c", cpu=64, memory_mib=65536),
        ),
        tuple(demand(f"x{n}", 1, 64, rates={"p": 1.0}) for n in range(8)),
        {"p": {"d": 1.0, "s": 2.0, "f": 5.0, "c": 50.0}},
    )


def test_from_the_edge_to_the_cloud(tree: Problem) -> None:
    assert where("nearest", tree) == "ddsffffc"
    assert where("edgewards", tree) == "ddffffcc"  # the small node is not on the way north
    assert where("only-cloud", tree) == "cccccccc"


def test_least_busy_looks_at_traffic_then_at_requests(host: MakeHost, demand: MakeDemand) -> None:
    problem = Problem(
        (host("a"), host("b")),
        (demand("x"), demand("y", rates={"p": 5.0}), demand("z"), demand("q")),
        {"p": {"a": 1.0, "b": 1.0}},
        traffic=(Traffic("x", "z", 9.0),),
    )
    assert where("least-busy", problem) == "abba"


def test_energy_efficient_takes_the_host_that_draws_least(
    host: MakeHost, demand: MakeDemand
) -> None:
    hosts = (host("a", idle_w=50, busy_w=60), host("b", idle_w=10, busy_w=100))
    problem = Problem(hosts, tuple(demand(f"d{n}", 1, 64) for n in range(4)))
    assert where("energy-efficient", problem) == "aabb"  # alike; 32.5 W on b, then 52.5 on a


def test_a_block_of_vlsp_is_five() -> None:
    assert vlsp.BLOCK == 5


def mid(seed: int, hosts: int = 12, demands: int = 60) -> Problem:
    """Return a problem of some size with two resources, flavours and copies."""
    random = Random(seed)  # noqa: S311 - not for secrets
    small = Flavour("small", {"cpu": 0.5}, boot_ms=3)
    return Problem(
        tuple(
            Host(
                f"h{n}",
                {"cpu": random.choice([8, 16]), "memory_mib": random.choice([8192, 16384])},
                site=f"s{n // 3}",
                idle_w=random.choice([20, 60]),
                busy_w=120,
                host_hour=random.choice([0, 1]),
            )
            for n in range(hosts)
        ),
        tuple(
            Demand(
                f"d{n}",
                {"cpu": random.choice([0.5, 1, 2]), "memory_mib": random.choice([256, 1024])},
                replicas=random.choice([1, 1, 1, 2, 3]),
                flavours=(small, Flavour("large", {"cpu": 2})) if random.random() < 0.2 else (),
                rates={f"p{random.randrange(4)}": random.uniform(1, 9)},
            )
            for n in range(demands)
        ),
        {f"p{p}": {f"s{s}": 1 + 10 * abs(p - s) for s in range(hosts // 3)} for p in range(4)},
        rules=(Spread(frozenset({"d0", "d1"})),),
    )


@pytest.mark.parametrize("name", [*HEURISTICS, "partition"])
def test_equal_seeds_give_equal_plans(name: str) -> None:
    problem = mid(3, demands=8 if name in SEARCHES else 35)
    if name == "partition":  # it minds no rule about several demands
        problem = replace(problem, rules=())
    first, again = bare(name, problem, seed=4), bare(name, problem, seed=4)
    assert (first.hosts, first.flavours) == (again.hosts, again.flavours)
    if name == "random":
        assert bare(name, problem, seed=5).hosts != first.hosts


def test_search_improves_on_every_greedy_plan_and_is_near_the_best() -> None:
    problem = mid(1, demands=20)

    def value(name: str) -> float:
        return value_of(evaluate(problem, bare(name, problem)), DEFAULT_WEIGHTS)

    best = solve(problem, Options(solver="highs-direct", deadline_s=30))
    greedy = {name: value(name) for name in HEURISTICS if name not in SEARCHES}
    for name in ("simulated-annealing", "tabu"):
        assert best.bound - 1e-6 <= value(name) <= min(greedy.values())
        assert value(name) <= 1.25 * best.value
    assert greedy["random"] > best.value


@pytest.mark.parametrize("name", HEURISTICS)
def test_what_cannot_be_placed_is_named(name: str, host: MakeHost, demand: MakeDemand) -> None:
    full = Problem((host("a", cpu=2),), (demand("x", 1), demand("y", 2)))
    with pytest.raises(Infeasible) as caught:
        bare(name, full)
    assert not caught.value.proven
    assert caught.value.reasons
    never = Problem((host("a", cpu=2),), (demand("x", 3),))
    with pytest.raises(Infeasible) as caught:
        bare(name, never)
    assert caught.value.proven

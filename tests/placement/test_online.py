"""One copy more as arrays: the same answers as the light one, kept up to date, and quick."""

import statistics
from dataclasses import replace
from time import perf_counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.placement_scale import instance
from placement.check import violations
from placement.heuristics import greedy_latency
from placement.online import Online, Spot, place_one
from placement.problem import Demand, Flavour, Host, Malformed, Plan, Problem
from placement.rules import Beside
from tests.placement import tiny

KEPT = ("plain", "labels", "unfit", "overcommit", "latency bound", "share host", "flavours")
RULES = ("ban", "fence", "quarantine", "spread", "split", "beside")


def used(problem: Problem) -> dict[str, dict[str, float]]:
    """Return what runs now takes at each host."""
    found: dict[str, dict[str, float]] = {host.name: {} for host in problem.hosts}
    for demand in problem.demands:
        for host in problem.current.get(demand.name, ()):
            flavours = demand.flavours or (Flavour(""),)
            fit = [each for each in flavours if host not in each.unfit] or [flavours[0]]
            amounts = {**demand.resources, **fit[0].resources, **fit[0].resources_at.get(host, {})}
            for name, units in amounts.items():
                found[host][name] = found[host].get(name, 0.0) + units
    return found


@pytest.mark.parametrize("family", [*KEPT, *RULES])
@settings(max_examples=40)
@given(seed=st.integers(0, 10**9), asks=st.sampled_from(["", "p1", "p2"]))
def test_the_answer_is_that_of_the_light_one(family: str, seed: int, asks: str) -> None:
    problem = tiny.draw(seed, family)
    plan = Plan({d.name: tuple(h.name for h in problem.hosts[1:]) for d in problem.demands}, 0.0)
    online = Online(problem, plan)
    for demand in problem.demands:
        ranking = greedy_latency.place_one(
            problem, demand.name, used(problem), plan.hosts[demand.name], population=asks
        )
        assert online.rank(demand.name, population=asks) == ranking.hosts
        spot = online.place_one(demand.name, population=asks)
        assert (spot.host if spot else None) == next(iter(ranking.hosts), None)


def test_a_copy_that_must_be_beside_another_may_be_anywhere_in_its_domain() -> None:
    hosts = tuple(Host(name, {"cpu": 2}, site=name[0]) for name in ("e1", "e2", "w1"))
    rule = Beside("web", "db", "site")
    problem = Problem(
        hosts, (Demand("web"), Demand("db", replicas=2)), current={"db": ("e1",)}, rules=(rule,)
    )
    assert Online(problem).rank("web") == ("e1", "e2")
    assert greedy_latency.place_one(problem, "web", {}).hosts == ("e1", "e2")
    waiting = replace(problem, current={"web": ("w1",)})
    assert (
        greedy_latency.place_one(waiting, "db", {}).hosts == Online(waiting).rank("db") == ("w1",)
    )
    both = replace(problem, current={"web": ("w1",), "db": ("w1",)})
    assert greedy_latency.place_one(both, "db", {}).hosts == Online(both).rank("db") == ("e1", "e2")


def test_what_is_bound_takes_room_and_what_is_released_gives_it_back() -> None:
    host, demand = Host("a", {"cpu": 2.0}), Demand("web", {"cpu": 1.5}, share_host=True)
    online = Online(Problem((host,), (demand,)))
    spot = online.place_one("web")
    assert spot == Spot("a", "")
    online.bind("web", spot)
    assert online.place_one("web") is None
    online.release("web", spot)
    assert online.place_one("web") == spot
    with pytest.raises(Malformed, match="no copy of it runs at 'a'"):
        online.release("web", spot)


def test_copies_placed_one_by_one_are_a_plan() -> None:
    problem = instance(20, 120)
    online = Online(problem)
    hosts = {}
    for demand in problem.demands:
        spot = online.place_one(demand.name)
        assert spot is not None
        online.bind(demand.name, spot)
        hosts[demand.name] = (spot.host,)
    assert violations(problem, Plan(hosts, 0.0)) == ()


def test_the_first_flavour_that_fits_is_taken() -> None:
    small = Flavour("small", {"cpu": 1.0}, unfit={"a": "no"})
    large = Flavour("large", {"cpu": 3.0}, resources_at={"b": {"cpu": 9.0}})
    demand = Demand("web", flavours=(large, small))
    problem = Problem((Host("a", {"cpu": 4.0}), Host("b", {"cpu": 4.0})), (demand,))
    assert place_one(problem, None, "web") == Spot("a", "large")
    taken = replace(problem, current={"web": ("a",)})
    assert place_one(taken, None, "web") == Spot("b", "small")


def test_unknown_names_are_told() -> None:
    online = Online(Problem((Host("a", {}),), (Demand("web"),)))
    with pytest.raises(Malformed, match="no demand named 'wbe'; known: web"):
        online.place_one("wbe")
    with pytest.raises(Malformed, match="no host named 'b'"):
        online.bind("web", Spot("b", ""))
    with pytest.raises(Malformed, match="no flavour 'x'"):
        online.bind("web", Spot("a", "x"))


def test_a_thousand_hosts_take_far_less_than_a_boot() -> None:
    """The aim is 1 ms; the limit is for a slow machine that does other things, too."""
    online = Online(instance(1_000, 200, utilisation=0.05, populations=50))
    taken = []
    for i in range(200):
        since = perf_counter()
        online.place_one(f"s{i:03}")
        taken.append(perf_counter() - since)
    assert statistics.median(taken) < 0.02

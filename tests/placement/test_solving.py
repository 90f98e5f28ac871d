"""From a question to an answer: the registry, bounds that are always there, and reasons why not."""

import re
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from typing import Any

import pytest

from placement import clash, rules
from placement.explain import explain
from placement.online import Online
from placement.problem import (
    Demand,
    Flavour,
    Host,
    Infeasible,
    Link,
    Malformed,
    Options,
    Plan,
    Problem,
    Slice,
    SolverFailed,
    Traffic,
)
from placement.registry import ALGORITHMS, FEATURES, Algorithm, algorithm, missing, names, refuse
from placement.solving import solve
from tests.placement import tiny

MakeHost = Callable[..., Host]
MakeDemand = Callable[..., Demand]


@pytest.fixture
def problem(host: MakeHost, demand: MakeDemand) -> Problem:
    """Return two hosts, one near, and two demands that want it."""
    return Problem(
        (host("near", cpu=2), host("far", cpu=8)),
        (demand("web", 2, rates={"p": 2.0}), demand("db", 2, rates={"p": 1.0})),
        {"p": {"near": 1.0, "far": 5.0}},
    )


@pytest.mark.parametrize("name", names())
def test_every_algorithm_proves_a_bound(problem: Problem, name: str) -> None:
    plan = solve(problem, Options(algorithm=name))
    assert plan.algorithm == name
    assert 0 < plan.bound <= plan.value
    assert plan.gap == pytest.approx((plan.value - plan.bound) / plan.value)
    assert plan.why["web"].startswith(f"{name} chose ")


@pytest.mark.parametrize("solver", ["highs", "highs-direct", "cbc"])
def test_a_plan_just_beyond_a_limit_is_none(
    host: MakeHost, demand: MakeDemand, solver: str
) -> None:
    """At tolerances of 1e-6, 2e-7 of a request that goes to near makes up for what is too much."""
    problem = Problem(
        (host("near", host_hour=1), host("lost"), host("lost too")),
        (demand("web", replicas=2, rates={"p": 1.0, "q": 1.0}),),
        {"p": {"near": 1.0}, "q": {"near": 2.0, "lost": 6.0, "lost too": 8.0}},
    )
    options = Options(weights={"cost_hour": 1.0}, solver=solver)
    lost = solve(problem, options).terms["latency_ms"]
    assert lost == pytest.approx(5003.0)
    plan = solve(problem, replace(options, limits={"latency_ms": lost - 0.001}))
    assert plan.terms["latency_ms"] < 3
    assert plan.terms["cost_hour"] == pytest.approx(1.0)


def test_what_an_algorithm_ignores_is_refused(problem: Problem) -> None:
    ruled = replace(problem, rules=(rules.Gather(frozenset({"web", "db"})),))
    with pytest.raises(Malformed, match="first-fit ignores rule gather; use exact"):
        solve(ruled, Options(algorithm="first-fit"))
    wish = replace(ruled, rules=(replace(ruled.rules[0], must=False),))
    assert solve(wish, Options(algorithm="first-fit")).terms["broken"] == 1
    with pytest.raises(Malformed, match="ignores order"):
        solve(problem, Options(algorithm="greedy-latency", order=("energy_w",)))


def test_spread_is_minded_on_hosts_and_refused_on_sites(problem: Problem) -> None:
    both = frozenset({"web", "db"})
    apart = replace(problem, rules=(rules.Spread(both),))
    plan = solve(apart, Options(algorithm="greedy-latency"))
    assert {plan.hosts["web"], plan.hosts["db"]} == {("near",), ("far",)}
    with pytest.raises(Malformed, match="ignores rule spread"):
        refuse(
            algorithm("first-fit"), replace(problem, rules=(rules.Spread(both, "site"),)), Options()
        )


@pytest.mark.parametrize("name", ["greedy-latency", "first-fit", "tabu"])
def test_spread_parts_copies_that_may_share_a_host(problem: Problem, name: str) -> None:
    web = replace(problem.demands[0], resources={"cpu": 1}, replicas=2, share_host=True)
    rule = rules.Spread(frozenset({"web"}))
    db = replace(problem.demands[1], resources={"cpu": 1})
    apart = replace(problem, demands=(web, db), rules=(rule,))
    assert set(solve(apart, Options(algorithm=name)).hosts["web"]) == {"near", "far"}
    alone = replace(apart, hosts=problem.hosts[:1])
    with pytest.raises(Infeasible, match="web: 2 hosts wanted, 1 can take it"):
        solve(alone, Options(algorithm=name))
    online = Online(replace(apart, current={"web": ("near",)}))
    assert online.rank("web") == ("far",)


def test_the_exact_algorithm_ignores_nothing() -> None:
    for family in tiny.FAMILIES:
        assert missing(ALGORITHMS[0], tiny.draw(1, family), Options()) == ()
    assert ALGORITHMS[0].features == FEATURES


def test_an_unknown_algorithm_lists_the_known_ones() -> None:
    with pytest.raises(Malformed, match=r"'magic'; known: auto, best-fit, .*exact, first-fit"):
        algorithm("magic")


def broken(problem: Problem, _options: Options) -> Plan:
    """Place everything on one host, whether it fits or not."""
    return Plan({demand.name: ("near",) for demand in problem.demands}, value=0.0)


def test_a_plan_that_the_judge_refuses_is_never_given_out(
    problem: Problem, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "placement.registry.ALGORITHMS",
        (Algorithm("broken", "tests.placement.test_solving:broken"),),
    )
    with pytest.raises(SolverFailed, match="broken gave a wrong plan: near: 4 cpu planned, 2"):
        solve(problem, Options(algorithm="broken"))


@cache
def least(seed: int, family: str) -> float | None:
    """Return the value of the best plan, None if there is no plan."""
    try:
        return solve(tiny.draw(seed, family), Options(solver="highs-direct")).value
    except Infeasible as error:
        assert error.proven  # noqa: PT017
        return None


@pytest.mark.parametrize("family", tiny.FAMILIES)
@pytest.mark.parametrize("name", [name for name in names() if name != "exact"])
def test_a_heuristic_finds_a_right_plan_or_none(name: str, family: str) -> None:
    for seed in range(2 if name == "nsga2" else 6):
        drawn = tiny.draw(seed, family)
        if missing(algorithm(name), drawn, Options()):
            continue
        best = least(seed, family)
        try:
            plan = solve(drawn, Options(algorithm=name, solver="highs-direct"))
        except Infeasible as error:
            assert best is not None or error.proven or error.reasons  # noqa: PT017
            continue
        assert best is not None
        assert plan.value >= best - 1e-6
        assert plan.bound <= best + 1e-6


@pytest.mark.parametrize(
    ("options", "field"),
    [
        (Options(weights={"joy": 1.0}), "weights.joy"),
        (Options(weights={"energy_w": -1.0}), "weights.energy_w"),
        (Options(limits={"energy_w": float("nan")}), "limits.energy_w"),
        (Options(order=("joy",)), "order"),
        (Options(order=("energy_w", "energy_w")), "order"),
        (Options(order=["energy_w"]), "order"),  # type: ignore[arg-type] # as from a program
        (Options(weights=3), "weights"),  # type: ignore[arg-type] # as above
        (Options(deadline_s=0), "deadline_s"),
        (Options(gap=-0.1), "gap"),
        (Options(gap="small"), "gap"),  # type: ignore[arg-type] # as above
        (Options(seed=1.5), "seed"),  # type: ignore[arg-type] # as above
        (Options(nearest=0), "nearest"),
        (Options(weights={"worst_latency_ms": 1.0, "energy_w": 1.0}), "worst_latency_ms"),
    ],
)
def test_senseless_options_are_refused(problem: Problem, options: Options, field: str) -> None:
    with pytest.raises(Malformed) as caught:
        solve(problem, options)
    assert caught.value.field == field


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        (
            {"rules": (rules.Ban("web", frozenset({"far"})),)},  # type: ignore[arg-type] # a slip
            "rules[0].demands: must be a set of names, not 'web'",
        ),
        (
            {"rules": (rules.Split((["web"],)),)},  # type: ignore[arg-type] # as above
            "rules[0].sets[0]: must be a set of names, not ['web']",
        ),
        (
            {"demands": (Demand("web", {"cpu": 1}, replicas=1.5),)},  # type: ignore[arg-type]
            "demands[0].replicas: must be a whole number, not 1.5",
        ),
        (
            {"demands": (Demand("web", {"cpu": "1"}),)},  # type: ignore[dict-item]
            "demands[0].resources.cpu: must be a number from 0 to 1e+12, not '1'",
        ),
        (
            {"demands": (Demand("web", 1),)},  # type: ignore[arg-type]
            "demands[0].resources: must be a mapping (name: number), not 1",
        ),
        (
            {"slices": tuple(Slice(name, frozenset({"web"}), {}) for name in "ab")},
            "slices: 'web' is in 2 slices, and can be in one only",
        ),
    ],
)
def test_slips_of_a_program_are_told_by_their_field(
    problem: Problem, changes: dict[str, Any], told: str
) -> None:
    with pytest.raises(Malformed) as caught:
        solve(replace(problem, **changes))
    assert str(caught.value) == told


# --- why not --------------------------------------------------------------------------------------


def test_a_small_set_of_constraints_that_clash_is_named(host: MakeHost, demand: MakeDemand) -> None:
    problem = Problem(
        (host("a"), host("b"), host("c")),
        (demand("web", replicas=2), demand("db"), demand("log"), demand("mail")),
        rules=(
            rules.Fence(frozenset({"web"}), frozenset({"a", "b"})),
            rules.Split((frozenset({"web"}), frozenset({"db"}))),
            rules.Ban(frozenset({"db"}), frozenset({"c"})),
            rules.Spread(frozenset({"log", "mail"})),
        ),
    )
    with pytest.raises(Infeasible) as caught:
        solve(problem)
    assert caught.value.proven
    assert set(caught.value.clash) == {
        "2 copies of web",
        "copies of web on different hosts",
        "the copy of db",
        "fence of web",
        "split of db, web",
        "ban of db",
    }


def test_who_is_left_over_is_told_with_what_is_short(host: MakeHost, demand: MakeDemand) -> None:
    with pytest.raises(Infeasible) as caught:
        solve(Problem((host("a", cpu=3),), (demand("web", 2), demand("db", 2))))
    (reason,) = caught.value.reasons.values()
    assert reason == "1 of 1 copies find no host beside the others (4 cpu demanded in all, 3 there)"
    assert set(caught.value.clash) == {"the copy of web", "the copy of db", "cpu of the hosts"}


def test_what_is_short_in_all_is_counted_once(
    host: MakeHost, demand: MakeDemand, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It takes all demands times all hosts; once for each who is left over took half a minute."""
    count = clash._totals
    counted: list[Problem] = []
    monkeypatch.setattr(clash, "_totals", lambda problem: counted.append(problem) or count(problem))
    with pytest.raises(Infeasible) as caught:
        solve(Problem((host("a", cpu=3),), tuple(demand(f"d{i}", 2) for i in range(4))))
    assert len(caught.value.reasons) == 3
    assert len(counted) == 1


def test_a_demand_that_fits_nowhere_says_why_for_each_host(
    host: MakeHost, demand: MakeDemand
) -> None:
    problem = Problem(
        (host("a", cpu=1), host("b")), (demand("web", 2),), unfit={"web": {"b": "no"}}
    )
    with pytest.raises(Infeasible) as caught:
        solve(problem)
    assert caught.value.reasons == {
        "web": "1 host wanted, none can take it: a: needs 2 CPU, 1 free; b: no"
    }


@pytest.mark.parametrize(
    "host",
    [
        Host("a", {"cpu": 1}),
        Host("a", {"cpu": 1, "gpu": 1}, overcommit={"gpu": 0}),
        Host("a", {"cpu": 1, "gpu": 3e9}),
    ],
)
def test_a_resource_that_is_missing_is_named_whatever_its_unit(host: Host) -> None:
    with pytest.raises(Infeasible) as caught:
        solve(Problem((host,), (Demand("web", {"gpu": 4e9}),)))
    assert caught.value.clash == ("the copy of web", "gpu of the hosts")


def test_limits_are_named_with_what_they_exclude(host: MakeHost, demand: MakeDemand) -> None:
    hosts = (host("a", cpu=2, host_hour=3.0), host("b", cpu=2))
    problem = Problem(hosts, (demand("web", 2), demand("db", 2)))
    limits = {"hosts_on": 2.0, "cost_hour": 1.0}
    with pytest.raises(Infeasible) as caught:
        solve(problem, Options(limits=limits))
    assert set(caught.value.clash) == {
        "the copy of web",
        "the copy of db",
        "cpu of the hosts",
        "cost_hour of 1 at most",
    }


def test_traffic_needs_links_that_lead_there(host: MakeHost, demand: MakeDemand) -> None:
    hosts = (host("a", cpu=1, site="west"), host("b", cpu=1, site="east"))
    problem = Problem(
        hosts,
        (demand("web"), demand("db")),
        links=(Link("west", "north"),),
        traffic=(Traffic("web", "db", 1.0),),
    )
    with pytest.raises(Infeasible) as caught:
        solve(problem, Options(weights={"cost_hour": 1.0}))
    assert set(caught.value.clash) >= {"cpu of the hosts", "links that lead not everywhere"}
    with pytest.raises(Malformed, match="first-fit ignores traffic"):
        solve(problem, Options(algorithm="first-fit"))
    roomy = replace(problem, hosts=(hosts[0], host("b", cpu=2, site="east")))
    assert solve(roomy, Options(weights={"cost_hour": 1.0})).hosts == {"web": ("b",), "db": ("b",)}


@pytest.mark.parametrize("name", ["highs", "highs-direct"])
def test_a_model_that_highs_refuses_says_nothing_about_plans(name: str) -> None:
    """Each number is allowed; their product is not one that HiGHS takes."""
    large = Host("a", {"cpu": 1e12}, overcommit={"cpu": 1e12}, idle_w=1.0)
    with pytest.raises(SolverFailed, match="HiGHS refused the model"):
        solve(Problem((large,), (Demand("web", {"cpu": 1}),)), Options(solver=name))


@pytest.mark.parametrize("family", tiny.FAMILIES)
def test_whoever_has_no_plan_is_told_a_set_that_truly_clashes(family: str) -> None:
    told = 0
    for seed in range(30):
        try:
            solve(tiny.draw(seed, family), Options(solver="highs-direct"))
        except Infeasible as error:
            assert error.proven  # noqa: PT017
            assert error.reasons or error.clash  # noqa: PT017
            told += bool(error.clash)
        if told == 2:
            return


# --- why there ------------------------------------------------------------------------------------


def test_why_tells_latencies_only_of_what_is_asked_for(problem: Problem) -> None:
    quiet = Demand("quiet", {"cpu": 1}, flavours=(Flavour("arm"),))
    none = Demand("none", {"cpu": 1}, replicas=0)
    why = solve(replace(problem, demands=(*problem.demands, quiet, none))).why
    assert why["web"] == "exact chose near (1.0 ms) (mean one-way latency)"
    assert re.fullmatch(r"exact chose (near|far) \(arm\)", why["quiet"])
    assert why["none"] == "exact chose no host"


def test_a_copy_is_explained_by_the_second_best_host(problem: Problem) -> None:
    plan = solve(problem)
    (there,) = explain(problem, plan, "web")
    assert there.host == "near"
    (other,) = there.alternatives
    assert other.change is not None
    assert other.change == pytest.approx(2 * 4 / 3)
    assert str(there).startswith(
        "web is on near: the next best, far, changes the value by +2.66667"
    )
    (back,) = explain(problem, plan, "db")
    assert back.alternatives[0].why_not == "near: 4 cpu planned, 2 there"
    assert str(back) == ("db is on far: no other host can take it (near: 4 cpu planned, 2 there)")
    with pytest.raises(Malformed, match="no demand named 'cat'"):
        explain(problem, plan, "cat")

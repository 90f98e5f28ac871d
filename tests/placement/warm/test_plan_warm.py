"""Warm plans against every plan there is, the judge, and each other."""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from itertools import product
from random import Random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from placement.problem import Infeasible, Malformed
from placement.warm import (
    COLD,
    PAUSED,
    POOLED,
    READY,
    Place,
    Recipe,
    Rest,
    Sleeper,
    Spare,
    WarmHost,
    WarmOptions,
    WarmPlan,
    WarmProblem,
    WarmTarget,
    plan_warm,
    pricing,
)
from placement.warm.check import violations
from placement.warm.evaluate import evaluate, worth
from placement.warm.generate import warm_problem

EXACT, GREEDY = WarmOptions(algorithm="exact"), WarmOptions(algorithm="greedy")
PRICED = WarmOptions(algorithm="exact", mib_price=2e-4)
MIB = "memory_mib"


def tiny(seed: int) -> WarmProblem:
    """Return a problem small enough to try every plan, with a recipe."""
    rng = Random(f"tiny {seed}")  # noqa: S311 - not for secrets
    problem = warm_problem(
        seed,
        hosts=2,
        services=3,
        recipes=1,
        share=rng.choice([0.2, 0.5, 1.0]),
        idle_s=rng.choice([0.0, 5.0]),
        requests_s=rng.choice([0.02, 0.5]),
        bound_ms=rng.choice([None, None, 12.0]),
    )
    few = tuple(
        replace(recipe, at={h: replace(spare, most=2) for h, spare in recipe.at.items()})
        for recipe in problem.recipes
    )
    return replace(problem, recipes=few)


def every_plan(problem: WarmProblem) -> Iterator[WarmPlan]:
    """Yield all plans that the judge accepts."""
    hosts = [host.name for host in problem.hosts]
    rungs = [POOLED, *(rest.rung for rest in problem.services[0].rests[hosts[0]])]
    places = [Place(*each) for each in product(hosts, rungs)]
    names = [service.name for service in problem.services]
    for counts in product(range(3), repeat=len(hosts)):
        pools = {recipe.name: dict(zip(hosts, counts, strict=True)) for recipe in problem.recipes}
        for chosen in product(places, repeat=len(names)):
            plan = WarmPlan(dict(zip(names, chosen, strict=True)), pools)
            if not violations(problem, plan):
                yield plan


def service(name: str = "web", mib: float = 100.0, **more: Any) -> Sleeper:
    """Return a service that may rest cold or paused on hosts a and b, 1 request/s from home."""
    given: dict[str, Any] = {"rates": {"home": 1.0}, "asleep": 0.5} | more
    rests = (Rest(COLD, 1.0), Rest(PAUSED, 0.01, {MIB: mib}))
    return Sleeper(name, {"a": rests, "b": rests}, **given)


def problem(*services: Sleeper, mib: float = 250.0, **more: Any) -> WarmProblem:
    hosts = (WarmHost("a", {MIB: mib}), WarmHost("b", {MIB: mib}))
    latency: Mapping[str, Mapping[str, float]] = {"home": {"a": 2.0, "b": 30.0}}
    return WarmProblem(hosts, services, latency_ms=latency, **more)


# --- every plan -----------------------------------------------------------------------------------


@settings(max_examples=12, deadline=None)
@given(seed=st.integers(0, 10**6))
def test_no_plan_is_better_than_the_exact_one(seed: int) -> None:
    asked = tiny(seed)
    for options in (EXACT, PRICED):
        try:
            found = plan_warm(asked, options)
        except Infeasible:
            assert not [*every_plan(asked)]
            continue
        best = min(worth(evaluate(asked, plan), options) for plan in every_plan(asked))
        assert found.value == pytest.approx(best, rel=1e-6, abs=1e-9)
        assert found.bound <= best + 1e-9
        assert found.gap < 1e-6


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10**6), recipes=st.integers(0, 2))
def test_the_greedy_plan_is_right_and_between_cold_and_exact(seed: int, recipes: int) -> None:
    asked = warm_problem(seed, hosts=3, services=12, recipes=recipes)
    quick, best = plan_warm(asked, GREEDY), plan_warm(asked, replace(EXACT, gap=0.02))
    cold = plan_warm(asked.cold(), GREEDY)
    assert quick.value >= best.bound - 1e-9
    assert quick.value >= quick.bound
    assert quick.value <= cold.value + 1e-9
    assert best.value <= quick.value + 1e-9


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10**6))
def test_on_one_host_with_one_rung_greedy_saves_half_of_the_best_at_least(seed: int) -> None:
    rng = Random(f"knapsack {seed}")  # noqa: S311 - not for secrets
    services = tuple(
        Sleeper(
            f"s{i}",
            {"a": (Rest(COLD, rng.uniform(0.1, 9)), Rest(PAUSED, 0.0, {MIB: rng.randint(1, 99)}))},
            rates={"home": rng.uniform(0.01, 1)},
            asleep=1.0,
        )
        for i in range(8)
    )
    asked = WarmProblem((WarmHost("a", {MIB: 100.0}),), services, latency_ms={"home": {"a": 0.0}})
    cold = plan_warm(asked.cold(), GREEDY).value
    assert cold - plan_warm(asked, GREEDY).value >= (cold - plan_warm(asked, EXACT).value) / 2


@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 10**6))
def test_more_memory_is_never_worse(seed: int) -> None:
    asked = warm_problem(seed, hosts=2, services=8, recipes=1, share=0.2)
    values = []
    for times in (1.0, 1.5, 4.0):
        hosts = tuple(
            WarmHost(host.name, {name: times * each for name, each in host.room.items()})
            for host in asked.hosts
        )
        values.append(plan_warm(replace(asked, hosts=hosts), EXACT).value)
    assert values == sorted(values, reverse=True) or values == pytest.approx(
        sorted(values, reverse=True), rel=1e-6
    )


@pytest.mark.parametrize("recipes", [0, 2])
def test_what_is_proven_of_the_pairs_that_are_worth_it_holds_for_all(
    monkeypatch: pytest.MonkeyPatch, recipes: int
) -> None:
    """Few pairs are given to the exact way, as if the problem were large."""
    asked = warm_problem(5, hosts=6, services=20, recipes=recipes)
    best = plan_warm(asked, replace(EXACT, gap=0.001))
    monkeypatch.setattr(pricing, "FIRST", 2)
    monkeypatch.setattr(pricing, "MORE", 1)
    for pairs in ((30, 60), (100, 400)):
        monkeypatch.setattr(pricing, "PAIRS", pairs)
        found = plan_warm(asked, replace(EXACT, gap=0.001, deadline_s=10.0))
        assert found.bound <= best.value + 1e-9
        assert best.bound <= found.value + 1e-9
        assert found.bound > (0.0 if recipes else 0.5) * best.value


def test_every_solver_finds_the_same() -> None:
    asked = warm_problem(3, hosts=2, services=8, recipes=1)
    values = [
        plan_warm(asked, replace(EXACT, solver=name)).value for name in ("highs", "highs-direct")
    ]
    assert values[0] == pytest.approx(values[1], rel=1e-6)


def test_equal_questions_have_equal_answers() -> None:
    one, two = (plan_warm(warm_problem(4, recipes=2, services=30), GREEDY) for _ in range(2))
    assert (one.places, one.pools) == (two.places, two.pools)


# --- what is chosen -------------------------------------------------------------------------------


@pytest.mark.parametrize("options", [EXACT, GREEDY], ids=["exact", "greedy"])
def test_the_most_asked_are_warm_and_near(options: WarmOptions) -> None:
    often, seldom = service("often"), service("seldom", rates={"home": 0.01})
    tight = replace(problem(often, seldom), hosts=(WarmHost("a", {MIB: 150.0}), WarmHost("b", {})))
    plan = plan_warm(tight, options)
    assert plan.places == {"often": Place("a", PAUSED), "seldom": Place("a", COLD)}
    assert plan.targets(tight) == (WarmTarget("often", "a", PAUSED),)
    assert plan.terms["waking"] == pytest.approx(0.5 * 0.01 + 0.01 * 0.5 * 1.0)
    assert plan.terms["travelling"] == pytest.approx(1.01 * 0.002)


def test_the_quick_plan_need_not_be_proven() -> None:
    tight = replace(problem(service("a"), service("b")), hosts=(WarmHost("a", {MIB: 150.0}),))
    proven, quick = plan_warm(tight, GREEDY), plan_warm(tight, replace(GREEDY, bound=False))
    assert quick.places == proven.places
    assert (proven.bound > 0, quick.bound) == (True, 0.0)


def test_a_price_keeps_memory_free() -> None:
    asked = problem(service("often"), service("seldom", rates={"home": 0.001}))
    plan = plan_warm(asked, WarmOptions(mib_price=1e-4))
    assert [plan.places[name].rung for name in ("often", "seldom")] == [PAUSED, COLD]
    assert plan.value == pytest.approx(worth(plan.terms, WarmOptions(mib_price=1e-4)))


@pytest.mark.parametrize("options", [EXACT, GREEDY], ids=["exact", "greedy"])
def test_seldom_asked_services_of_one_recipe_share_an_instance(options: WarmOptions) -> None:
    some = [service(f"s{i}", rates={"home": 0.01}, recipe="hello") for i in range(20)]
    spare = Spare({MIB: 100.0}, adopt_s=0.02, miss_s=1.0, refill_s=1.0)
    asked = problem(*some, recipes=(Recipe("hello", {"a": spare, "b": spare}),))
    asked = replace(asked, hosts=(WarmHost("a", {MIB: 150.0}), WarmHost("b")))
    plan = plan_warm(asked, options)
    assert plan.pools == {"hello": {"a": 1}}
    assert set(plan.places.values()) == {Place("a", POOLED)}
    assert WarmTarget("hello", "a", PAUSED, 1, anonymous=True) in plan.targets(asked)
    missed = 0.1 / 1.1  # 20 services x 0.01/s x 1/2 x 1 s to replace = 0.1 erlangs; B(1, 0.1)
    each_s = 0.02 + missed * 0.98
    assert plan.terms["waking"] == pytest.approx(20 * 0.01 * 0.5 * each_s)


def test_who_never_sleeps_holds_its_memory() -> None:
    always = Sleeper("db", {"b": (Rest(READY, 0.0, {MIB: 200.0}),)}, rates={"home": 1.0})
    plan = plan_warm(problem(always, service(rates={"home": 9.0})))
    assert plan.places == {"db": Place("b", READY), "web": Place("a", PAUSED)}


# --- what cannot be -------------------------------------------------------------------------------


@pytest.mark.parametrize("options", [EXACT, GREEDY], ids=["exact", "greedy"])
@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (replace(service(), rests={}), "web: no host can run it"),
        (service(latency_bound_ms=1.0), "web: no host that can run it is near enough"),
        (
            replace(service(), rests={"a": (Rest(READY, 0.0, {MIB: 300.0}),)}),
            "web: no host has room for it by itself",
        ),
    ],
    ids=["nowhere", "far", "large"],
)
def test_a_service_that_can_rest_nowhere_is_told(
    options: WarmOptions, wrong: Sleeper, said: str
) -> None:
    with pytest.raises(Infeasible, match=said) as told:
        plan_warm(problem(wrong, service("other")), options)
    assert told.value.reasons.keys() == {"web"}


def test_those_that_do_not_fit_together_are_told() -> None:
    always = [
        Sleeper(name, {"a": (Rest(READY, 0.0, {MIB: 200.0}),)}, rates={"home": 1.0})
        for name in ("one", "two")
    ]
    with pytest.raises(Infeasible, match="not all of these fit") as told:
        plan_warm(problem(*always, service()), EXACT)
    assert (set(told.value.reasons), told.value.proven) == ({"one", "two"}, True)
    with pytest.raises(Infeasible) as told:
        plan_warm(problem(*always, service()), GREEDY)
    assert not told.value.proven


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (problem(service(), service()), "services: the name 'web' is used 2 times"),
        (problem(service(asleep=1.5)), r"services\[0\].asleep: is a probability"),
        (problem(service(rates={"home": -1.0})), r"services\[0\].rates.home: must be a number"),
        (problem(service(recipe="x")), r"services\[0\].recipe: there is no recipe 'x'"),
        (
            problem(service(), recipes=(Recipe("r", {"a": Spare({}, 2.0, 1.0, 1.0)}),)),
            r"recipes\[0\].at.a.adopt_s: is longer",
        ),
        (
            problem(service(), recipes=(Recipe("r", {"a": Spare({}, 0.0, 1.0, 1.0, 1000)}),)),
            r"recipes\[0\].at.a.most: must be",
        ),
        (
            problem(replace(service(), rests={"a": (Rest(POOLED, 1.0),)})),
            "comes of a recipe",
        ),
    ],
    ids=str,
)
def test_senseless_questions_are_refused(wrong: WarmProblem, said: str) -> None:
    with pytest.raises(Malformed, match=said):
        plan_warm(wrong)


@pytest.mark.parametrize(
    "options",
    [{"algorithm": "magic"}, {"gap": -1}, {"mib_price": -1}, {"deadline_s": 0}, {"solver": "x"}],
    ids=str,
)
def test_senseless_options_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(Malformed, match=next(iter(options))):
        plan_warm(problem(service()), WarmOptions(**options))


# --- the judge ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("plan", "said"),
    [
        (WarmPlan({}), "web: the plan says not where it rests"),
        (WarmPlan({"web": Place("c", COLD)}), "web at c: there is no such host"),
        (WarmPlan({"web": Place("a", READY)}), "web at a: it cannot rest ready there"),
        (WarmPlan({"web": Place("b", COLD)}), "web at b: farther than 20 ms from home"),
        (WarmPlan({"web": Place("a", PAUSED)}), "a: 300 memory_mib held, 250 there"),
        (WarmPlan({"web": Place("a", POOLED)}), "web at a: nothing of recipe r is kept there"),
        (
            WarmPlan({"web": Place("a", COLD)}, {"r": {"a": 9}}),
            "r at a: 9 kept, 0 to 8 can be",
        ),
        (WarmPlan({"web": Place("a", COLD)}, {"r": {"b": 1}}), "no anonymous instance can be"),
        (WarmPlan({"web": Place("a", COLD)}, {"q": {"a": 1}}), "q: there is no such recipe"),
        (
            WarmPlan({"web": Place("a", COLD), "who": Place("a", COLD)}),
            "who: there is no such service",
        ),
    ],
    ids=lambda each: each if isinstance(each, str) else "",
)
def test_the_judge_finds_what_is_wrong(plan: WarmPlan, said: str) -> None:
    asked = problem(
        service(mib=300.0, latency_bound_ms=20.0, recipe="r"),
        recipes=(Recipe("r", {"a": Spare({MIB: 10.0}, 0.01, 1.0, 1.0)}),),
    )
    assert [wrong for wrong in violations(asked, plan) if said in wrong]

"""What runs now beside a plan: what sleeps, what is missing, and what breaks rules."""

from dataclasses import replace
from ipaddress import IPv4Address

import pytest

from orchestrator.model import Instance, InstanceState
from orchestrator.present import Worth, worth_now
from placement import solve
from placement.problem import Demand, Flavour, Host, Options, Plan, Problem
from placement.rules import Ban, Beside

NEAR_MS, FAR_MS = 1.0, 11.0
QUESTION = Problem(
    hosts=(
        Host("near", {"cpu": 2}, idle_w=10, busy_w=10),
        Host("far", {"cpu": 2}, idle_w=5, busy_w=5),
    ),
    demands=(
        Demand("web", {"cpu": 1}, rates={"home": 1.0}),
        Demand("api", {"cpu": 1}, rates={"home": 1.0}),
    ),
    latency_ms={"home": {"near": NEAR_MS, "far": FAR_MS}},
)
LATENCY = {"latency_ms": 1.0}
PLAN = Plan({"web": ("near",), "api": ("near",)}, 0.0)


def instance(
    service: str, host: str, state: InstanceState = InstanceState.READY, number: int = 0
) -> Instance:
    address = IPv4Address(f"192.0.2.{number + 1}")
    return Instance(f"{service}-{number}", service, host, address, "52:54:00:00:00:01", state, 0.0)


def worth(*instances: Instance, question: Problem = QUESTION, plan: Plan = PLAN) -> Worth:
    return worth_now(question, plan, LATENCY, instances)


def test_what_the_plan_has_is_worth_what_the_plan_is() -> None:
    """The planner and this agree, term by term."""
    plan = solve(QUESTION, Options(algorithm="exact"))
    now = worth_now(
        QUESTION,
        plan,
        Options().counts,
        [instance(name, *plan.hosts[name]) for name in ("web", "api")],
    )
    assert (now.asleep, now.wrong) == ((), ())
    assert now.value == pytest.approx(plan.value)
    assert now.terms == pytest.approx(plan.terms)


def test_the_difference_is_what_the_moves_gain() -> None:
    now = worth(instance("web", "far"), instance("api", "near"))
    assert now.value == pytest.approx((FAR_MS + NEAR_MS) / 2)
    assert now.terms["energy_w"] == 15
    assert (now.terms["migrations"], now.wrong) == (0.0, ())


def test_what_sleeps_counts_where_it_rests_else_where_the_plan_has_it() -> None:
    rests = worth(instance("web", "far", InstanceState.SAVED), instance("api", "near"))
    assert (rests.value, rests.asleep) == (pytest.approx((FAR_MS + NEAR_MS) / 2), ("web",))
    ends = worth(instance("web", "far", InstanceState.STOPPING), instance("api", "near"))
    assert (ends.value, ends.asleep) == (pytest.approx(NEAR_MS), ("web",))
    assert worth() == replace(ends, asleep=("api", "web"))
    boots = worth(instance("web", "far", InstanceState.BOOTING))
    assert (boots.value, boots.asleep) == (pytest.approx((FAR_MS + NEAR_MS) / 2), ("api",))


def test_missing_copies_are_told_instead_of_a_number() -> None:
    web, api = QUESTION.demands
    question = replace(QUESTION, demands=(replace(web, replicas=2), api))
    plan = replace(PLAN, hosts={**PLAN.hosts, "web": ("near", "far")})
    now = worth(instance("web", "far"), question=question, plan=plan)
    assert now == Worth(asleep=("api",), wrong=("web: 1 of 2 copies run",))
    sleeps = worth(instance("web", "far", InstanceState.PAUSED), question=question, plan=plan)
    assert (sleeps.wrong, sleeps.terms["latency_ms"]) == ((), NEAR_MS)


def test_what_is_on_a_lost_host_is_missing() -> None:
    now = worth_now(QUESTION, PLAN, LATENCY, [instance("web", "far")], {"far": "power cut"})
    assert now.wrong == ("web: 0 of 1 copies run (far cannot be reached)",)
    assert (now.value, now.terms) == (None, {})


def test_broken_rules_are_told_beside_the_numbers() -> None:
    question = replace(
        QUESTION,
        rules=(Ban(frozenset({"web", "api"}), frozenset({"far"})), Beside("web", "api")),
        unfit={"web": {"far": "drained"}},
    )
    now = worth(instance("web", "far"), question=question)
    assert now.value == pytest.approx((FAR_MS + NEAR_MS) / 2)
    assert len([each for each in now.wrong if "if all" not in each]) == 2  # not of api, asleep
    assert "if all were awake: broken: beside of api, web" in now.wrong[2]
    assert any("drained" in each for each in now.wrong)
    twice = worth(instance("web", "far"), instance("web", "near", number=1))
    assert twice.wrong == ("web: 2 copies run, 1 are wanted",)


def test_what_sleeps_fills_no_host_but_would() -> None:
    """To make room for it may be all that a plan is for."""
    question = replace(QUESTION, hosts=(Host("near", {"cpu": 1}), Host("far", {"cpu": 1})))
    now = worth(
        instance("web", "near"), instance("api", "near", InstanceState.PAUSED), question=question
    )
    assert now.wrong == ("if all were awake: near: 2 cpu planned, 1 there",)


def test_a_host_counts_in_the_flavour_that_it_runs() -> None:
    small = Flavour("small", {"cpu": 1}, unfit={"far": "boots large"})
    large = Flavour("large", {"cpu": 2}, unfit={"near": "boots small"})
    web, api = QUESTION.demands
    question = replace(QUESTION, demands=(replace(web, flavours=(small, large)), api))
    now = worth(instance("web", "far"), instance("api", "near"), question=question)
    assert (now.terms["utilisation"], now.wrong) == (1.0, ())


def test_services_that_the_lab_has_no_more_count_nothing() -> None:
    assert worth(instance("old", "far")).wrong == ()

"""The judge: right plans pass, and each kind of wrong one is told in a sentence."""

import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import pytest

from placement import rules
from placement.check import violations
from placement.evaluate import evaluate
from placement.problem import (
    MAKE_BEFORE_BREAK,
    NEAREST_COPY,
    Chain,
    Demand,
    Flavour,
    Host,
    Link,
    Plan,
    Problem,
    Slice,
    Traffic,
)

ALL = frozenset({"web", "db"})
WEB = frozenset({"web"})
DB = frozenset({"db"})


@pytest.fixture
def problem(host: Callable[..., Host], demand: Callable[..., Demand]) -> Problem:
    """Return three hosts at two sites, two copies of web and one of db."""
    return Problem(
        (
            host("a", site="east", idle_w=10.0, busy_w=50.0, host_hour=2.0),
            host("b", site="east", unit_hour={"cpu": 0.5}),
            host("c", site="west", domains={"rack": "r"}),
        ),
        (
            demand("web", replicas=2, rates={"p": 2.0}, cost_at={"a": 3.0}),
            demand("db", 2, 512, rates={"p": 1.0}),
        ),
        {"p": {"east": 1.0, "c": 9.0}},
        current={"web": ("a", "b"), "db": ("c",)},
    )


GOOD = {"web": ("a", "c"), "db": ("b",)}


def wrong(problem: Problem, hosts: Mapping[str, tuple[str, ...]], **more: Any) -> str:
    return "; ".join(violations(problem, Plan(hosts, value=0.0, **more)))


def test_a_right_plan_passes(problem: Problem) -> None:
    assert wrong(problem, GOOD) == ""


@pytest.mark.parametrize(
    ("hosts", "more", "said"),
    [
        ({**GOOD, "cat": ("a",)}, {}, "cat: nobody demanded it"),
        ({**GOOD, "db": ("moon",)}, {}, "db: there is no host moon"),
        ({**GOOD, "db": ()}, {}, "db: 0 copies planned, 1 demanded"),
        ({**GOOD, "web": ("a", "b", "c")}, {}, "web: 3 copies planned, 2 demanded"),
        ({**GOOD, "web": ("a", "a")}, {}, "web: 2 copies share a"),
        (GOOD, {"flavours": {"web": ("x", "")}}, "web: no flavour 'x'"),
        (GOOD, {"flavours": {"web": ("",)}}, "web: 1 flavours for its copies"),
        (GOOD, {"admitted": frozenset({"x"})}, "x: no such slice to admit"),
        (GOOD, {"served": {"web": {"p": {"b": 1.0}}}}, "web: p cannot be served at b"),
        (GOOD, {"served": {"web": {"p": {"a": 0.5}}}}, "web: 0.5 of the requests of p are served"),
        (GOOD, {"served": {"web": {"p": {"a": math.nan}}}}, "web: p cannot be served at a"),
        (GOOD, {"served": {"cat": {}}}, "cat: nobody demanded it"),
        (GOOD, {"flavours": {"cat": ("",)}}, "cat: nobody demanded it"),
    ],
)
def test_what_is_no_plan_of_this_problem_is_told(
    problem: Problem, hosts: dict[str, tuple[str, ...]], more: dict[str, Any], said: str
) -> None:
    assert said in wrong(problem, hosts, **more)


def changed(problem: Problem, name: str, **fields: Any) -> Problem:
    demands = tuple(replace(d, **fields) if d.name == name else d for d in problem.demands)
    return replace(problem, demands=demands)


CHANGES: list[tuple[Callable[[Problem], Problem], dict[str, Any], str]] = [
    (lambda p: changed(p, "db", resources={"cpu": 5}), {}, "b: 5 cpu planned, 4 there"),
    (lambda p: changed(p, "db", resources={"gpu": 1}), {}, "b: 1 gpu planned, 0 there"),
    (lambda p: replace(p, unfit={"db": {"b": "wrong kind"}}), {}, "db at b: the host cannot run"),
    (
        lambda p: changed(p, "db", flavours=(Flavour("x", unfit={"b": "not Xen"}),)),
        {"flavours": {"db": ("x",)}},
        "db at b: the host cannot run it: not Xen",
    ),
    (lambda p: changed(p, "db", labels=frozenset({("k", "v")})), {}, "has no label k=v"),
    (lambda p: changed(p, "web", latency_bound_ms=5.0), {}, "web at c: farther than 5 ms from p"),
    (
        lambda p: replace(changed(p, "web", latency_bound_ms=5.0), latency_ms={}),
        {},
        "p has no path to it",
    ),
    (
        lambda p: changed(p, "db", latency_bound_ms=0.5, bound_for=NEAREST_COPY),
        {},
        "db: no copy within 0.5 ms of p",
    ),
    (lambda p: changed(p, "db", copy_rps=1.0), {}, "the plan says not whom they serve"),
    (
        lambda p: changed(p, "db", copy_rps=0.5),
        {"served": {"db": {"p": {"b": 1.0}}}},
        "db at b: 1 requests/s, 0.5 can be served",
    ),
    (
        lambda p: changed(p, "db", latency_bound_ms=0.5, bound_for=NEAREST_COPY),
        {"served": {"db": {"p": {"b": 1.0}}}},
        "is served at b, which is too far",
    ),
    (
        lambda p: changed(p, "web", flavours=(Flavour("x"), Flavour("y")), one_flavour=True),
        {"flavours": {"web": ("x", "y")}},
        "web: copies in 2 flavours, one is wanted",
    ),
    (
        lambda p: changed(p, "web", move=MAKE_BEFORE_BREAK, resources={"memory_mib": 700}),
        {},
        "b: 1212 memory_mib needed while copies move, 1024 there",
    ),
    (
        lambda p: replace(p, slices=(Slice("s", DB, isolated=True),)),
        {"hosts": {"web": ("a", "b"), "db": ("b",)}},
        "b: web shares it with the isolated slice s",
    ),
    (
        lambda p: replace(p, slices=(Slice("s", DB, {"cpu": 0.9}),)),
        {},
        "a: 4.6 cpu used or kept for slices, 4 there",
    ),
    (
        lambda p: replace(p, slices=(Slice("s", DB, revenue=1.0),)),
        {},
        "db: 1 copies planned, 0 demanded (its slice is refused)",
    ),
    (
        lambda p: replace(
            p, traffic=(Traffic("web", "db", 1.0, 2.0),), links=(Link("east", "west", None, 9.0),)
        ),
        {},
        "web to db: 4.5 ms, bound 2",
    ),
    (
        lambda p: replace(
            p, traffic=(Traffic("web", "db", 1.0),), links=(Link("east", "north", None, 9.0),)
        ),
        {},
        "web to db: no links lead there from west",
    ),
    (
        lambda p: replace(p, chains=(Chain("c", ("web", "db"), 3.0, "p"),)),
        {"hosts": {"web": ("a", "c"), "db": ("b",)}},
        "chain c: 9 ms, bound 3",
    ),
]


@pytest.mark.parametrize(("change", "more", "said"), CHANGES)
def test_what_a_problem_forbids_is_told(
    problem: Problem, change: Callable[[Problem], Problem], more: dict[str, Any], said: str
) -> None:
    given = dict(more)
    hosts = given.pop("hosts", GOOD)
    assert said not in wrong(problem, hosts, **given)
    assert said in wrong(change(problem), hosts, **given)


RULES: list[tuple[rules.Rule, dict[str, tuple[str, ...]], float]] = [
    (rules.Ban(ALL, frozenset({"a", "b"})), GOOD, 2),
    (rules.Fence(ALL, frozenset({"a", "b"})), GOOD, 1),
    (rules.Spread(ALL, "site"), GOOD, 1),
    (rules.Gather(ALL, "site"), GOOD, 1),
    (rules.Among(ALL, (frozenset({"a"}), frozenset({"b", "c"}))), GOOD, 1),
    (rules.Split((WEB, DB), "site"), GOOD, 1),
    (rules.SplitAmong((WEB, DB), (frozenset({"a"}), frozenset({"b"}))), GOOD, 1),
    (rules.Lonely(WEB), {"web": ("a", "b"), "db": ("a",)}, 1),
    (rules.Beside("web", "db", "site"), GOOD, 1),
    (rules.Occupy(ALL, "site", 3), GOOD, 1),
    (rules.Root(ALL), GOOD, 2),
    (rules.Quarantine(frozenset({"c"})), GOOD, 2),
    (rules.Preserve(DB, "cpu", 6.0), GOOD, 2),
    (rules.Overbook(frozenset({"b"}), "cpu", 0.25), GOOD, 1),
    (rules.MaxOnline(frozenset({"a", "b", "c"}), 1), GOOD, 2),
    (rules.MaxSkew(WEB, "site", 1), {"web": ("a", "b"), "db": ("c",)}, 1),
    (rules.Survive(WEB, "site", 1), {"web": ("a", "b"), "db": ("c",)}, 1),
    (rules.ServeAfterFailure(ALL), GOOD, 1),
    (rules.Percentile(ALL, 0.9, 0.5), GOOD, 2.7),
    (rules.MigrationBudget(1), GOOD, 1),
]


@pytest.mark.parametrize(("rule", "hosts", "amount"), RULES, ids=lambda each: type(each).__name__)
def test_each_rule_has_its_amount(
    problem: Problem, rule: rules.Rule, hosts: dict[str, tuple[str, ...]], amount: float
) -> None:
    assert f"broken: {rule.kind}" in wrong(replace(problem, rules=(rule,)), hosts)
    wish = replace(rule, must=False, weight=10.0)
    wished = replace(problem, rules=(wish,))
    assert wrong(wished, hosts) == ""
    assert evaluate(wished, Plan(hosts, value=0.0))["broken"] == pytest.approx(10 * amount)


def test_every_rule_is_judged_here() -> None:
    assert {type(rule) for rule, _, _ in RULES} == set(rules.Rule.__args__)


def test_the_terms_of_a_plan_are_what_their_words_say(problem: Problem) -> None:
    """Each number worked out by hand."""
    problem = replace(
        problem,
        traffic=(Traffic("web", "db", 8.0),),
        demands=(
            replace(problem.demands[0], boot_ms=100.0, cold=0.5, least=1),
            problem.demands[1],
        ),
        slices=(Slice("s", frozenset(), revenue=4.0),),
    )
    assert evaluate(problem, Plan(GOOD, value=0.0)) == pytest.approx(
        {
            "latency_ms": 1.0,  # all are nearest to the east
            "wake_ms": 2 / 3 * 0.5 * 100,
            "energy_w": 10 + 40 / 4,
            "cost_hour": 2.0 + 2 * 0.5 + 3.0,
            "network_mbps": 8 / 2,  # one of two copies sends across
            "hosts_on": 3,
            "utilisation": 0.5,  # two of four cores, and 512 of 1024 MiB, on b
            "migrations": 2,  # one copy of web, and db
            "broken": 0,
            "unplaced": 0,
            "unserved_rps": 0,
            "lost_revenue": 4,
            "worst_latency_ms": 1,
        }
    )
    fewer = evaluate(problem, Plan({"web": (), "db": ("c",)}, value=0.0))
    assert fewer["unplaced"] == 2
    assert fewer["unserved_rps"] == 2
    assert fewer["worst_latency_ms"] == 9

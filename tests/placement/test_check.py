"""The judge finds every kind of bad plan, and nothing wrong with a good one."""

from collections.abc import Callable, Mapping

import pytest

from placement.check import violations
from placement.problem import Demand, Plan, Problem, Site

SSD = frozenset({("disk", "ssd")})
GOOD: Mapping[str, tuple[str, ...]] = {
    "web": ("a", "b"),
    "db": ("a",),
    "batch": ("c",),
    "cache": ("a",),
}


@pytest.fixture
def problem(site: Callable[..., Site], demand: Callable[..., Demand]) -> Problem:
    return Problem(
        (site("a", labels=SSD), site("b"), site("c", cpu=1), site("d", labels=SSD)),
        (
            demand("web", replicas=2, never_on=frozenset({"d"})),
            demand("db", labels=SSD, apart_from=frozenset({"batch"})),
            demand("batch", memory_mib=800, only_on=frozenset({"b", "c", "d"})),
            demand("cache", rates={"p": 1.0, "silent": 0.0}, latency_bound_ms=5.0,
                   together_with=frozenset({"db"})),
        ),
        {"p": {"a": 1.0, "c": 2.0, "d": 9.0}},
        unfit={"cache": {"b": "its kernel is for Xen"}},
        extra_mib={"batch": {"d": 225}},
    )  # fmt: skip


def test_a_good_plan_passes(problem: Problem) -> None:
    assert violations(problem, Plan(GOOD, value=0.0)) == ()


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"ghost": ("a",)}, "ghost: nobody demanded it"),
        ({"web": ("a", "moon")}, "web: there is no site moon"),
        ({"web": ("a",)}, "web: 1 copies planned, 2 demanded"),
        ({"db": ()}, "db: 0 copies planned, 1 demanded"),
        ({"web": ("a", "b", "c")}, "web: 3 copies planned, 2 demanded"),
        ({"web": ("b", "b")}, "web: 2 copies share b"),
        ({"web": ("a", "c")}, "c: 2 CPU planned, 1 there"),
        ({"web": ("a", "c")}, "c: 1056 MiB planned, 1024 there"),
        ({"batch": ("d",)}, "d: 1025 MiB planned, 1024 there"),
        ({"batch": ("a",)}, "batch at a: may run only on b, c, d"),
        ({"web": ("a", "d")}, "web at d: may never run there"),
        ({"db": ("b",)}, "db at b: the site has no label disk=ssd"),
        ({"cache": ("d",)}, "cache at d: farther than 5 ms from p"),
        ({"cache": ("b",)}, "cache at b: p has no path to it"),
        ({"cache": ("b",)}, "cache at b: the site cannot run it: its kernel is for Xen"),
        ({"batch": ("d",), "db": ("d",)}, "db and batch must be apart, both are at d"),
        ({"cache": ("c",)}, "cache must be together with db, which is not at c"),
    ],
)
def test_a_bad_plan_is_rejected(
    change: dict[str, tuple[str, ...]], complaint: str, problem: Problem
) -> None:
    assert complaint in violations(problem, Plan({**GOOD, **change}, value=0.0))


def test_a_missing_demand_is_noticed(problem: Problem) -> None:
    plan = Plan({name: sites for name, sites in GOOD.items() if name != "web"}, value=0.0)
    assert violations(problem, plan) == ("web: 0 copies planned, 2 demanded",)

"""Each term worked out by hand, in its unit."""

from collections.abc import Callable

import pytest

from placement.objectives import UNREACHABLE_MS, evaluate, plan_of
from placement.problem import Demand, Options, Problem, Site

MakeSite = Callable[..., Site]
MakeDemand = Callable[..., Demand]


def test_latency_is_the_mean_over_requests_to_the_nearest_copy(
    site: MakeSite, demand: MakeDemand
) -> None:
    problem = Problem(
        (site("a"), site("b")),
        (
            demand("web", replicas=2, rates={"p": 3.0, "q": 1.0}),
            demand("db", rates={"p": 6.0}),
            demand("idle"),
        ),
        {"p": {"a": 2.0, "b": 10.0}, "q": {"b": 4.0, "a": 8.0}},
    )
    terms = evaluate(problem, {"web": ["a", "b"], "db": ["b"], "idle": ["a"]})
    assert terms["latency_ms"] == pytest.approx((3 * 2 + 1 * 4 + 6 * 10) / 10)


def test_a_site_without_path_is_charged_as_very_far(site: MakeSite, demand: MakeDemand) -> None:
    problem = Problem((site("a"),), (demand("web", rates={"p": 3.0}),))
    assert evaluate(problem, {"web": ["a"]})["latency_ms"] == UNREACHABLE_MS


def test_energy_is_idle_power_once_and_the_share_of_busy_cores(
    site: MakeSite, demand: MakeDemand
) -> None:
    sites = (site("a", cpu=4, idle_w=20, busy_w=60), site("off", idle_w=99, busy_w=99))
    problem = Problem(sites, (demand("web", cpu=1), demand("db", cpu=2)))
    assert evaluate(problem, {"web": ["a"], "db": ["a"]})["energy_w"] == pytest.approx(
        20 + 40 * 0.75
    )


def test_cost_is_host_and_cores_and_gib_per_hour(site: MakeSite, demand: MakeDemand) -> None:
    sites = (site("a", host_hour=1.0, cpu_hour=0.5, gib_hour=0.25), site("off", host_hour=9.0))
    problem = Problem(sites, (demand("web", cpu=2, memory_mib=512), demand("db", cpu=1)))
    terms = evaluate(problem, {"web": ["a"], "db": ["a"]})
    assert terms["cost_hour"] == pytest.approx(1.0 + 0.5 * 3 + 0.25 * 0.75)


@pytest.mark.parametrize(
    ("now", "planned", "moved"),
    [
        ((), ["a", "b"], 0),
        (("a",), ["a", "b"], 0),
        (("a",), ["b", "c"], 1),
        (("a", "b"), ["c", "d"], 2),
        (("a", "b", "c"), ["a", "b"], 0),
        (("gone",), ["a", "b"], 1),
        (("a", "b", "c"), ["d", "a"], 1),
    ],
)
def test_migrations_count_copies_that_move_not_those_that_start_or_stop(
    now: tuple[str, ...], planned: list[str], moved: int, site: MakeSite, demand: MakeDemand
) -> None:
    sites = tuple(site(name) for name in "abcd")
    problem = Problem(sites, (demand("web", replicas=2),), current={"web": now})
    assert evaluate(problem, {"web": planned})["migrations"] == moved


def test_a_plan_is_weighted_and_names_the_nearest_site_first(
    site: MakeSite, demand: MakeDemand
) -> None:
    problem = Problem(
        (site("a", idle_w=10, busy_w=10), site("b")),
        (demand("web", replicas=2, rates={"p": 1.0}),),
        {"p": {"a": 8.0, "b": 2.0}},
    )
    options = Options(weights={"latency_ms": 1.0, "energy_w": 0.5})
    plan = plan_of(problem, {"web": ["a", "b"]}, options, algorithm="hand", started=0.0, bound=7.5)
    assert plan.sites["web"] == ("b", "a")
    assert plan.value == pytest.approx(2.0 + 0.5 * 10)
    assert plan.bound == pytest.approx(7.0)
    assert plan.why["web"] == "hand chose b (2.0 ms), a (8.0 ms) (mean one-way latency)"

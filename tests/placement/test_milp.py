"""The model row family by row family, the reasons it gives, and what it believes of its solvers."""

import importlib.util
import os
import random
from collections.abc import Callable
from pathlib import Path

import pytest

from placement import candidates, milp
from placement.check import violations
from placement.problem import (
    Demand,
    Infeasible,
    Malformed,
    Options,
    Problem,
    Resources,
    Site,
    SolverFailed,
)

GOLDEN = Path(__file__).parent.parent / "golden" / "placement"
HAS_HIGHS = importlib.util.find_spec("highspy") is not None
SOLVERS = [
    "cbc",
    pytest.param("highs", marks=pytest.mark.skipif(not HAS_HIGHS, reason="no highspy here")),
]
MakeSite = Callable[..., Site]
MakeDemand = Callable[..., Demand]


# --- leaving a family out gives another answer --------------------------------------------------


def problem_that_needs(family: str, site: MakeSite, demand: MakeDemand) -> Problem:
    """Return a problem whose best plan would be better, and wrong, without one family of rows."""
    latency = {"home": {"near": 1.0, "far": 20.0}, "away": {"near": 20.0, "far": 2.0}}
    near, far = site("near", idle_w=500), site("far")
    web = demand("web", rates={"home": 1.0})
    db = demand("db", rates={"home": 1.0})
    match family:
        case "replicas":
            problem = Problem((near,), (demand("web", cpu=1),))
        case "capacity":
            problem = Problem((site("near", cpu=1), far), (web, db), latency)
        case "site_on":
            # A demand that needs nothing: the rows of capacity do not switch its site on.
            free = demand("web", cpu=0, memory_mib=0, rates={"home": 1.0})
            problem = Problem((site("near", idle_w=5000), far), (free,), latency)
        case "apart_from":
            web = demand("web", rates={"home": 1.0}, apart_from=frozenset({"db"}))
            problem = Problem((site("near"), far), (web, db), latency)
        case "together_with":
            web = demand("web", rates={"away": 1.0}, together_with=frozenset({"db"}))
            problem = Problem((site("near"), far), (web, db), latency)
        case "served":
            both = demand("web", replicas=2, rates={"home": 1.0, "away": 3.0})
            problem = Problem((near, far), (both,), latency)
        case "served_by":
            sites = (site("near", host_hour=9), site("far", host_hour=1), site("mid"))
            latency = {"home": {"near": 0.0, "far": 3.0, "mid": 3.0}}
            problem = Problem(sites, (demand("web", replicas=2, rates={"home": 1.0}),), latency)
        case _:
            raise AssertionError(f"no problem shows what {family} is for")
    return problem


@pytest.mark.parametrize("family", milp.FAMILIES)
def test_leaving_out_a_family_gives_another_answer(
    family: str, site: MakeSite, demand: MakeDemand, monkeypatch: pytest.MonkeyPatch
) -> None:
    problem = problem_that_needs(family, site, demand)
    whole = milp.solve(problem, Options())
    assert violations(problem, whole) == ()
    assert whole.gap == pytest.approx(0.0, abs=1e-6)
    monkeypatch.delitem(milp.FAMILIES, family)
    partial = milp.solve(problem, Options())
    assert partial.bound is not None
    assert whole.bound is not None
    assert partial.bound <= whole.bound + 1e-6
    assert partial.sites != whole.sites or partial.bound < whole.bound - 1e-6


@pytest.mark.parametrize(
    ("rule", "change"),
    [
        ("only_on", {"only_on": frozenset({"far"})}),
        ("never_on", {"never_on": frozenset({"near"})}),
        ("labels", {"labels": frozenset({("disk", "ssd")})}),
        ("fit", {}),
        ("size", {"cpu": 6}),
        ("latency_bound", {"latency_bound_ms": 10.0, "rates": {"home": 9.0, "away": 1.0}}),
    ],
)
def test_leaving_out_a_rule_for_candidates_gives_another_answer(
    rule: str,
    change: dict[str, object],
    site: MakeSite,
    demand: MakeDemand,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    latency = {
        "home": {"near": 1.0, "mid": 9.0, "far": 20.0},
        "away": {"near": 20.0, "mid": 9.0, "far": 2.0},
    }
    ssd = frozenset({("disk", "ssd")})
    sites = (site("near"), site("mid", labels=ssd), site("far", cpu=8, labels=ssd))
    unfit = {"web": {"near": "wrong kind"}} if rule == "fit" else {}
    web = demand("web", **{"rates": {"home": 1.0}, **change})
    problem = Problem(sites, (web,), latency, unfit=unfit)
    whole = milp.solve(problem, Options())
    assert violations(problem, whole) == ()
    others = tuple(each for each in candidates.RULES if each.__name__ != rule)
    assert len(others) == len(candidates.RULES) - 1
    monkeypatch.setattr(candidates, "RULES", others)
    if rule == "size":
        # The rows of capacity say the same of one demand; the rule keeps its variables away.
        assert len(candidates.candidates(problem, problem.demands[0]).sites) == 3
    else:
        assert milp.solve(problem, Options()).sites != whole.sites


def test_demands_that_are_all_apart_share_one_row(site: MakeSite, demand: MakeDemand) -> None:
    names = ("a", "b", "c")
    trio = [demand(n, apart_from=frozenset(names) - {n}) for n in names]
    problem = Problem((site("s"),), (*trio, demand("d", apart_from=frozenset({"a"}))))
    cliques = sorted(sorted(each) for each in milp._cliques(problem))
    assert cliques == [["a", "b", "c"], ["a", "d"]]


# --- reasons ------------------------------------------------------------------------------------


def reasons_of(problem: Problem) -> dict[str, str]:
    with pytest.raises(Infeasible) as caught:
        milp.solve(problem, Options())
    return caught.value.reasons


def test_a_demand_without_candidates_says_why_of_each_site(
    site: MakeSite, demand: MakeDemand
) -> None:
    web = demand(
        "web", memory_mib=2048, rates={"home": 1.0}, latency_bound_ms=5.0, never_on={"banned"}
    )
    sites = [site(n, memory_mib=4096) for n in ("banned", "far", "lost")] + [site("small")]
    latency = {"home": {"banned": 1.0, "far": 9.0, "small": 1.0}}
    (reason,) = reasons_of(Problem(tuple(sites), (web, demand("fine")), latency)).values()
    for clause in (
        "banned: one of the sites it must avoid",
        "far: 9 ms from home, bound 5 ms",
        "lost: no path from home",
        "small: needs 2048 MiB of memory, 1024 free",
    ):
        assert clause in reason


def test_too_little_memory_in_all_is_said_with_the_amounts(
    site: MakeSite, demand: MakeDemand
) -> None:
    reasons = reasons_of(
        Problem((site("a"), site("b")), tuple(demand(f"d{n}", memory_mib=900) for n in range(3)))
    )
    (reason,) = reasons.values()
    assert "2700 MiB of memory demanded in all, 2048 there" in reason
    assert "needs 900 MiB of memory, 124 free" in reason


@pytest.mark.parametrize(
    ("demands", "clause"),
    [
        ([{"replicas": 3}], "3 site(s) wanted, 2 can take it"),
        ([{"apart_from": {"d1"}, "together_with": {"d1"}}, {}], "must be"),
        (
            [{"replicas": 2, "together_with": {"d1"}}, {}],
            "2 copies, but only 1 of d1, with which each must share a site",
        ),
        (
            [{"apart_from": {"d1", "d2"}}, {"apart_from": {"d2"}}, {}],
            "must be apart from",
        ),
    ],
)
def test_constraints_that_clash_are_named(
    demands: list[dict[str, object]], clause: str, site: MakeSite, demand: MakeDemand
) -> None:
    made = tuple(
        demand(f"d{n}", **{k: v if isinstance(v, int) else frozenset(v) for k, v in d.items()})  # type: ignore[call-overload]
        for n, d in enumerate(demands)
    )
    assert clause in " ".join(reasons_of(Problem((site("a"), site("b")), made)).values())


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (Options(weights={"joy": 1.0}), "weights.joy: no such term; known: latency_ms, energy_w"),
        (Options(weights={"energy_w": -1.0}), "at least 0"),
        (Options(solver="abacus"), "no solver named 'abacus'; known: auto, highs, cbc"),
        (Options(time_limit_s=0.0), "time_limit_s"),
        (Options(gap=float("nan")), "gap"),
    ],
)
def test_options_that_make_no_sense_are_refused(
    options: Options, words: str, site: MakeSite, demand: MakeDemand
) -> None:
    with pytest.raises(Malformed, match=words):
        milp.solve(Problem((site("a"),), (demand("d"),)), options)


# --- solvers ------------------------------------------------------------------------------------


def knapsacks(demands: int, sites: int) -> Problem:
    """Return a problem that takes a solver some work: seeded, all different, nearly full."""
    rng = random.Random(7)  # noqa: S311 - a test needs repeatable numbers, not secrets
    names = [f"s{n}" for n in range(sites)]
    watts = {name: rng.randint(50, 100) for name in names}
    return Problem(
        tuple(Site(n, Resources(64, 1024), idle_w=w, busy_w=w) for n, w in watts.items()),
        tuple(
            Demand(f"d{n}", Resources(1, rng.randint(50, 300)), rates={f"p{n}": 1.0})
            for n in range(demands)
        ),
        {f"p{n}": {name: rng.uniform(1, 20) for name in names} for n in range(demands)},
    )


@pytest.mark.parametrize("solver", SOLVERS)
def test_a_plan_stopped_by_time_has_the_solvers_own_bound(solver: str) -> None:
    problem = knapsacks(80, 20)
    weights = {"latency_ms": 80.0, "energy_w": 1.0}
    plan = milp.solve(problem, Options(weights=weights, time_limit_s=2, solver=solver))
    assert violations(problem, plan) == ()
    assert plan.bound is not None
    assert plan.gap == pytest.approx((plan.value - plan.bound) / plan.value)
    assert 0 < plan.bound <= plan.value


@pytest.mark.parametrize("solver", SOLVERS)
def test_the_bound_holds_when_a_gap_is_allowed(solver: str) -> None:
    problem = knapsacks(20, 6)
    weights = {"latency_ms": 20.0, "energy_w": 1.0}
    loose = milp.solve(problem, Options(weights=weights, gap=0.2, solver=solver))
    exact = milp.solve(problem, Options(weights=weights, solver=solver))
    assert exact.gap == pytest.approx(0.0, abs=1e-6)
    if loose.bound is not None and loose.gap is not None:
        assert loose.bound <= exact.value + 1e-6
        assert loose.gap <= 0.2 + 1e-6
    assert exact.value <= loose.value <= exact.value * 1.25 + 1e-6


def test_no_plan_in_time_is_not_called_proof(
    site: MakeSite, demand: MakeDemand, monkeypatch: pytest.MonkeyPatch
) -> None:
    late = milp.Outcome(found=False, infeasible=False, bound=1.0)
    monkeypatch.setitem(milp.SOLVERS, "cbc", lambda _lp, _options: late)
    with pytest.raises(Infeasible, match="no plan was found within 2 s"):
        milp.solve(Problem((site("a"),), (demand("d"),)), Options(time_limit_s=2, solver="cbc"))


def test_a_solver_that_cannot_run_is_no_verdict_on_the_problem(
    site: MakeSite, demand: MakeDemand, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(milp, "_cbc_path", lambda: "/nonexistent/cbc")
    with pytest.raises(SolverFailed, match="solver cbc could not be run"):
        milp.solve(Problem((site("a"),), (demand("d"),)), Options(solver="cbc"))


def test_nothing_to_place_needs_no_solver(site: MakeSite, demand: MakeDemand) -> None:
    asleep = demand("d", replicas=0, rates={"home": 1.0})
    plan = milp.solve(Problem((site("a"),), (asleep,)), Options())
    assert (plan.sites, plan.value, plan.gap) == ({"d": ()}, 0.0, 0.0)


def test_names_that_lp_text_cannot_hold_are_kept_apart(site: MakeSite, demand: MakeDemand) -> None:
    problem = Problem((site("a b"), site("a-b")), (demand("x>y"), demand("x y")))
    assert violations(problem, milp.solve(problem, Options())) == ()


# --- the text of the model ----------------------------------------------------------------------


def test_the_model_of_a_small_problem_is_as_agreed(
    site: MakeSite, demand: MakeDemand, tmp_path: Path
) -> None:
    sites = (site("near", idle_w=20, busy_w=60, host_hour=0.5), site("far"), site("mid"))
    problem = Problem(
        sites,
        (
            demand("web", replicas=2, rates={"home": 3.0, "away": 1.0}),
            demand("db", rates={"home": 4.0}, latency_bound_ms=8.0, together_with={"web"}),
            demand("batch", apart_from=frozenset({"db"})),
        ),
        {"home": {"near": 1.0, "mid": 5.0, "far": 20.0}, "away": {"far": 2.0, "mid": 9.0}},
        current={"batch": ("near",)},
    )
    written = tmp_path / "three_sites.lp"
    milp.write_lp(problem, Options(), written)
    golden = GOLDEN / written.name
    if os.environ.get("UPDATE_GOLDEN"):
        golden.write_text(written.read_text())
    assert written.read_text() == golden.read_text()

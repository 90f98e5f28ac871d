"""The matrix: the same in every solver's hands, each family in it for a reason, and as written."""

import os
import re
import subprocess
import sys
from dataclasses import replace
from itertools import product
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from placement import model, pricing, rules
from placement.arrays import compile_problem
from placement.assemble import ALWAYS, FAMILIES, Assembled, assemble, value_of
from placement.candidates import candidates
from placement.check import violations
from placement.exact import Clock, run, start_of
from placement.expand import plan_of_solution
from placement.matrix import Matrix, components
from placement.objectives import TERMS
from placement.problem import (
    MAKE_BEFORE_BREAK,
    NEAREST_COPY,
    Chain,
    Demand,
    Flavour,
    Host,
    Link,
    Malformed,
    Options,
    Problem,
    Slice,
    SolverFailed,
    Traffic,
)
from placement.solvers import SOLVERS, Limits, Outcome, cpsat, highs, solver, through_pulp
from placement.solving import solve
from tests.placement import tiny

GOLDEN = Path(__file__).parents[1] / "golden" / "placement"
WEIGHTS = {"latency_ms": 1.0, "energy_w": 0.05, "cost_hour": 0.7, "migrations": 2.0, "broken": 1.0}
SEEDS = st.integers(0, 10**9)


def built(problem: Problem, *, without: frozenset[str] = frozenset()) -> Assembled:
    options = Options(weights=WEIGHTS)
    arrays = compile_problem(problem)
    return assemble(arrays, options, weights=WEIGHTS, limits={}, without=without)


# --- all carry the same matrix --------------------------------------------------------------------


def dense(matrix: Matrix) -> np.ndarray[tuple[int, ...], np.dtype[np.float64]]:
    found = np.zeros((matrix.rows, matrix.columns))
    found[matrix.row_of_entry(), matrix.index] = matrix.value
    return found


@pytest.mark.parametrize("family", tiny.FAMILIES)
def test_pulp_carries_the_same_matrix(family: str) -> None:
    matrix = built(tiny.draw(7, family)).matrix
    emitted = through_pulp.emit(matrix)
    back = through_pulp._matrix_of(emitted.problem, emitted.variables)
    ours, theirs = [], []
    for i, row in enumerate(dense(matrix)):
        low, high = matrix.row_lower[i], matrix.row_upper[i]
        if low == high:
            ours.append((*row, low, high))
            continue
        ours += [(*row, -np.inf, high)] * bool(np.isfinite(high))
        ours += [(*row, low, np.inf)] * bool(np.isfinite(low))
    for i, row in enumerate(dense(back)):
        theirs.append((*row, back.row_lower[i], back.row_upper[i]))
    assert theirs == ours
    for field in ("lower", "upper", "cost", "integer"):
        assert getattr(back, field).tolist() == getattr(matrix, field).tolist()
    assert back.constant == matrix.constant


@pytest.mark.parametrize("family", tiny.FAMILIES)
def test_highs_carries_the_same_matrix(family: str) -> None:
    matrix = built(tiny.draw(7, family)).matrix
    lp = highs.load(matrix, Limits()).getLp()
    assert [lp.num_col_, lp.num_row_] == [matrix.columns, matrix.rows]
    found = np.zeros((matrix.rows, matrix.columns))
    starts = list(lp.a_matrix_.start_)
    by_row = len(starts) == matrix.rows + 1 and "Row" in str(lp.a_matrix_.format_)
    for i in range(len(starts) - 1):
        for at in range(starts[i], starts[i + 1]):
            j = lp.a_matrix_.index_[at]
            found[(i, j) if by_row else (j, i)] = lp.a_matrix_.value_[at]
    assert np.array_equal(found, dense(matrix))
    assert np.array_equal(lp.col_cost_, matrix.cost)
    assert np.array_equal(lp.col_upper_, matrix.upper)
    assert np.array_equal(lp.row_lower_, matrix.row_lower)
    assert np.array_equal(lp.row_upper_, matrix.row_upper)
    assert [str(each).endswith("kInteger") for each in lp.integrality_] == matrix.integer.tolist()


SAME_IN_CP_SAT = """
import sys
import numpy as np
from placement.matrix import Matrix
from placement.solvers.cpsat import ARRAYS, FAR, emit

def compare(file):
    with np.load(file) as found:
        matrix = Matrix(**{name: found[name] for name in ARRAYS}, constant=0.0, core_rows=0)
    model, columns, scale = emit(matrix)
    proto = model.proto
    assert len(proto.constraints) == matrix.rows, file
    for i, row in enumerate(proto.constraints):
        entries = slice(matrix.start[i], matrix.start[i + 1])
        assert list(row.linear.vars) == matrix.index[entries].tolist(), file
        times = np.array(list(row.linear.coeffs)) / matrix.value[entries]
        times = times if len(times) else np.ones(1)
        assert np.allclose(times, times[:1]), file
        for side, bound in zip(row.linear.domain, (matrix.row_lower[i], matrix.row_upper[i])):
            wanted = np.sign(bound) * FAR if np.isinf(bound) else bound * times[0]
            assert abs(side - wanted) < 1.0, (file, side, wanted)
    costs = np.zeros(matrix.columns)
    costs[list(proto.objective.vars)] = list(proto.objective.coeffs)
    assert np.allclose(costs / scale, matrix.cost, atol=1e-6), file

for file in sys.argv[1:]:
    compare(file)
"""


def test_cp_sat_carries_the_same_matrix(tmp_path: Path) -> None:
    """Checked in a process of its own, since OR-tools and highspy cannot be in one."""
    files = []
    for family in tiny.FAMILIES:
        matrix = built(tiny.draw(7, family)).matrix
        files.append(str(tmp_path / f"{family}.npz"))
        np.savez(files[-1], **{name: getattr(matrix, name) for name in cpsat.ARRAYS})
    done = subprocess.run(
        [sys.executable, "-c", SAME_IN_CP_SAT, *files],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def agree(matrix: Matrix, other: Outcome) -> None:
    """Check that a solver says what HiGHS does."""
    first = solver("highs-direct", 1)(matrix, Limits(), None)
    assert first.infeasible == other.infeasible
    assert (first.x is None) == (other.x is None)
    if first.x is not None and other.x is not None:
        one, two = (float(matrix.cost @ each.x) for each in (first, other))
        assert one == pytest.approx(two, rel=1e-5, abs=1e-5)
        assert other.bound == pytest.approx(two + matrix.constant, rel=1e-3, abs=1e-2)


@pytest.mark.parametrize("name", ["highs", "cbc"])
@pytest.mark.parametrize("family", tiny.FAMILIES)
def test_every_solver_finds_the_same_value(family: str, name: str) -> None:
    for seed in range(3):
        matrix = built(tiny.draw(seed, family)).matrix
        agree(matrix, solver(name, 1)(matrix, Limits(), None))


@pytest.mark.parametrize("name", SOLVERS)
def test_every_solver_takes_a_start_of_which_a_part_is_unknown(name: str) -> None:
    matrix = built(next(iter(SMALL.values()))).matrix
    best = solver("highs-direct", 1)(matrix, Limits(), None)
    assert best.x is not None
    start = best.x.copy()
    start[::2] = np.nan
    agree(matrix, solver(name, 1)(matrix, Limits(), start))


def test_cp_sat_finds_the_same_value(tmp_path: Path) -> None:
    """One process answers all: it starts in half a second, and each answer takes milliseconds."""
    asked: dict[Path, Matrix] = {}
    refused = 0
    for family, seed in product(tiny.FAMILIES, range(3)):
        matrix = built(tiny.draw(seed, family)).matrix
        folder = tmp_path / f"{family} {seed}"
        folder.mkdir()
        if matrix.whole.all():
            cpsat.ask(folder, matrix, Limits())
            asked[folder] = matrix
        else:
            with pytest.raises(SolverFailed, match="takes whole columns only"):
                cpsat.ask(folder, matrix, Limits())
            refused += 1
    done = cpsat.run(*asked)
    assert done.returncode == 0, done.stderr
    for folder, matrix in asked.items():
        agree(matrix, cpsat.told(folder, matrix))
    assert len(asked) > refused > 0


def test_cp_sat_is_a_solver_like_the_others(host: type, demand: type) -> None:
    far = {"p": {"a": 5.0, "b": 2.0}}
    problem = Problem((host("a"), host("b")), (demand("web", rates={"p": 1.0}),), far)
    options = Options(weights={"latency_ms": 1.0}, solver="cp-sat")
    plan = solve(problem, options)
    assert (plan.hosts["web"], plan.value, plan.solver) == (("b",), 2.0, "cp-sat")
    assert plan.gap == pytest.approx(0.0, abs=1e-6)


def test_an_unknown_solver_lists_the_known_ones(host: type, demand: type) -> None:
    problem = Problem((host("a"),), (demand("web"),))
    with pytest.raises(Malformed, match="'magic'; known: auto, highs, highs-direct, cbc, cp-sat"):
        solve(problem, Options(solver="magic"))
    assert set(SOLVERS) == {"highs", "highs-direct", "cbc", "cp-sat"}


def test_rows_of_ones_own_bind() -> None:
    """A user adds a row to the pulp problem: here, that the nearest host is not taken."""
    problem = Problem(
        (Host("near", {"cpu": 4}), Host("far", {"cpu": 4})),
        (Demand("web", {"cpu": 1}, rates={"p": 1.0}),),
        {"p": {"near": 1.0, "far": 9.0}},
    )
    found = built(problem)
    emitted = through_pulp.emit(found.matrix)
    names = {variable.name: variable for variable in emitted.variables}
    lp = emitted.problem
    lp += names["n_c0_h0_f0"] <= 0, "not_near"
    outcome = through_pulp.solve_emitted(emitted, found.matrix, Limits())
    assert outcome.x is not None
    assert plan_of_solution(found.model, outcome.x).hosts["web"] == ("far",)


# --- each family is there for a reason ------------------------------------------------------------

LEFT_OUT = {
    **{kind.kind: kind.kind for kind in FAMILIES if kind.kind not in {"ban", "fence"}},
    "slice_shares": "share",
    "slice_isolation": "isolated",
    "network_bounds": "traffic",
    "both_sides": "both sides",
    "one_flavour": "one flavour",
    "apart": "flavours",
    "counts": "plain",
    "capacity": "plain",
}


FIRST_SEED = {"both_sides": 320}  # it changes little; those before are just slow


def test_every_family_is_tried() -> None:
    links = {"links"}  # implied by capacity but for copies that need nothing: see below
    assert set(LEFT_OUT) | links | {"ban", "fence"} >= set(ALWAYS) | {k.kind for k in FAMILIES}
    assert set(rules.demands_of.__annotations__)  # the catalogue is the one of the model


@pytest.mark.parametrize(("name", "family"), LEFT_OUT.items())
def test_a_family_left_out_changes_the_answer(name: str, family: str) -> None:
    """Somewhere among a few hundred problems, the plan without it is wrong, or another's value."""
    first = FIRST_SEED.get(name, 0)
    for seed in range(first, first + 400):
        problem = tiny.draw(seed, family)
        if all(not rule.must for rule in problem.rules) and problem.rules:
            continue
        whole, part = built(problem), built(problem, without=frozenset({name}))
        right = run(whole.matrix, Options(solver="highs-direct"), Clock.of(30))
        loose = run(part.matrix, Options(solver="highs-direct"), Clock.of(30))
        if loose.x is None:
            continue
        if right.x is None or violations(problem, plan_of_solution(part.model, loose.x)):
            return
    pytest.fail(f"without {name} nothing changes")


def test_shares_left_out_change_the_answer() -> None:
    """Nothing but the bound asks for the near host."""
    problem = Problem(
        (Host("a", {"cpu": 1}), Host("b", {"cpu": 1}), Host("near", {"cpu": 1}, host_hour=9.0)),
        (
            Demand(
                "web",
                {"cpu": 1},
                replicas=2,
                rates={"p": 1.0},
                latency_bound_ms=5.0,
                bound_for=NEAREST_COPY,
            ),
        ),
        {"p": {"a": 9.0, "b": 9.0, "near": 1.0}},
    )
    options = Options(weights={"cost_hour": 1.0})
    assert solve(problem, options).value == 9.0
    found = assemble(
        compile_problem(problem),
        options,
        weights=options.weights,
        limits={},
        without=frozenset({"shares"}),
    )
    outcome = run(found.matrix, options, Clock.of(30))
    assert outcome.x is not None
    assert violations(problem, plan_of_solution(found.model, outcome.x))


def test_links_count_copies_that_need_nothing() -> None:
    problem = Problem(
        (Host("a", {"cpu": 1}, host_hour=5.0), Host("b", {"cpu": 1}, host_hour=1.0)),
        (Demand("free"),),
    )
    assert solve(problem, Options(weights={"cost_hour": 1.0})).hosts["free"] == ("b",)
    found = built(problem, without=frozenset({"links"}))
    outcome = run(found.matrix, Options(solver="highs-direct"), Clock.of(30))
    assert outcome.bound == 0.0


@pytest.mark.parametrize("family", [f for f in tiny.FAMILIES if f not in {"plain", "soft"}])
@settings(max_examples=8)
@given(seed=SEEDS)
def test_a_constraint_less_never_makes_the_best_worse(family: str, seed: int) -> None:
    problem = tiny.draw(seed, family)
    slices = tuple(replace(each, share={}, isolated=False) for each in problem.slices)
    demands = tuple(
        replace(
            d,
            labels=frozenset(),
            one_flavour=False,
            share_host=True,
            latency_bound_ms=d.latency_bound_ms if d.bound_for == NEAREST_COPY else None,
        )
        for d in problem.demands
    )
    links = tuple(replace(each, capacity_mbps=None) for each in problem.links)
    looser = replace(
        problem, rules=problem.rules[1:], unfit={}, slices=slices, links=links, demands=demands
    )
    values = []
    for each in (problem, looser):
        outcome = run(built(each).matrix, Options(solver="highs-direct"), Clock.of(30))
        values.append(np.inf if outcome.x is None else outcome.bound)
    assert values[1] <= values[0] + 1e-6


# --- arrays ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("family", tiny.FAMILIES)
def test_pairs_are_the_candidates_that_people_are_told(family: str) -> None:
    for seed in range(20):
        problem = replace(tiny.draw(seed, family), chains=())
        arrays = compile_problem(problem)
        for name, c in arrays.class_of().items():
            demand = next(each for each in problem.demands if each.name == name)
            told = candidates(problem, demand).hosts if demand.replicas else ()
            found = [arrays.hosts[h] for h in np.unique(arrays.pair_host[arrays.of(c)])]
            assert tuple(found) == told


def test_identical_demands_are_one_class_and_expand_where_they_run() -> None:
    hosts = tuple(Host(f"h{i}", {"cpu": 4}) for i in range(4))
    demands = tuple(Demand(f"d{i}", {"cpu": 1}, rates={"p": 1.0}) for i in range(8))
    current = {"d7": ("h0",), "d2": ("h1",)}
    problem = Problem(hosts, demands, {"p": {"h0": 1, "h1": 2, "h2": 3, "h3": 4}}, current)
    arrays = compile_problem(problem)
    assert arrays.members == (tuple(range(8)),)
    plan = solve(problem, Options(weights={"latency_ms": 1.0, "migrations": 1.0}))
    assert plan.hosts["d7"] == ("h0",)
    assert plan.hosts["d2"] == ("h1",)
    assert plan.terms["migrations"] == 0
    assert plan.bound == pytest.approx(plan.value)


def test_requests_that_may_go_unserved_are_counted_for_each_of_two_identical_demands() -> None:
    hosts = tuple(Host(name, {"cpu": 1}) for name in "ab")
    demands = tuple(
        Demand(
            name,
            {"cpu": 1},
            least=0,
            rates={"p": 1.0},
            latency_bound_ms=5.0,
            bound_for=NEAREST_COPY,
        )
        for name in ("one", "two")
    )
    problem = Problem(hosts, demands, {"p": {"a": 1.0, "b": 1.0}})
    plan = solve(problem, Options(weights={"unserved_rps": 1.0, "hosts_on": 0.6}))
    assert plan.value == pytest.approx(1.2)
    assert plan.bound == pytest.approx(1.2)


def test_copies_of_one_demand_never_share_a_host_in_a_class() -> None:
    hosts = tuple(Host(f"h{i}", {"cpu": 3}) for i in range(4))
    demands = tuple(Demand(f"d{i}", {"cpu": 1}, replicas=3) for i in range(4))
    plan = solve(Problem(hosts, demands), Options(weights={"energy_w": 1.0}))
    assert all(len(set(plan.hosts[d.name])) == 3 for d in demands)


def test_the_nearest_hosts_are_widened_until_there_is_a_plan_and_the_bound_stays_true() -> None:
    hosts = tuple(Host(f"h{i}", {"cpu": 1}) for i in range(6))
    demands = tuple(Demand(f"d{i}", {"cpu": 1}, rates={"p": 1.0}) for i in range(5))
    problem = Problem(hosts, demands, {"p": {f"h{i}": float(i) for i in range(6)}})
    exact = solve(problem, Options(weights={"latency_ms": 1.0}))
    near = solve(problem, Options(weights={"latency_ms": 1.0}, nearest=1))
    assert near.value == pytest.approx(exact.value)
    assert 0 < near.bound <= exact.value + 1e-9
    kept = compile_problem(problem, nearest=1, extra={("d0", "h4")})
    assert [kept.hosts[h] for h in kept.pair_host] == ["h0", "h4"]


def test_missing_pairs_are_priced_back_in_until_the_bound_is_that_of_all() -> None:
    random = Random(5)  # noqa: S311 - not for secrets
    hosts = tuple(
        Host(f"h{i}", {"cpu": 4, "memory_mib": 4096}, idle_w=float(random.randint(5, 60)))
        for i in range(12)
    )
    demands = tuple(
        Demand(f"d{i}", {"cpu": random.choice([0.7, 1.1, 1.9])}, rates={f"p{i % 4}": 1.0})
        for i in range(24)
    )
    latency = {f"p{i}": {h.name: random.uniform(1, 30) for h in hosts} for i in range(4)}
    problem = Problem(hosts, demands, latency)
    options = Options(weights={"latency_ms": 1.0, "energy_w": 0.05})
    every = compile_problem(problem)
    whole = assemble(every, options, weights=options.weights, limits={})
    extra: frozenset[tuple[str, str]] = frozenset()
    bounds = []
    for _ in range(20):
        few = assemble(
            compile_problem(problem, nearest=3, extra=extra),
            options,
            weights=options.weights,
            limits={},
        )
        assert pricing.sure(few)
        found = highs.relax(few.matrix, Limits())
        assert found is not None
        bounds.append(found.bound)
        more = pricing.missing(every, few, found, options)
        assert not more & extra
        if not more:
            break
        extra |= more
    best = highs.relax(whole.matrix, Limits())
    assert best is not None
    assert bounds[0] > bounds[-1]
    assert bounds[-1] == pytest.approx(best.bound, rel=1e-6)


def test_highs_is_not_believed_at_once_that_there_is_no_solution() -> None:
    """CBC and HiGHS without presolve find one; with presolve HiGHS 1.15.1 says there is none."""
    solver_of = highs.library().Highs()
    solver_of.setOptionValue("output_flag", False)
    solver_of.readModel(str(Path(__file__).with_name("highs_presolve.mps")))
    highs.run(solver_of)
    assert solver_of.getModelStatus() == highs.library().HighsModelStatus.kOptimal


def test_a_start_is_no_worse_than_itself() -> None:
    problem = tiny.draw(3, "plain")
    plan = solve(problem, Options(weights=WEIGHTS))
    again = solve(problem, Options(weights=WEIGHTS, start=plan))
    assert again.value == pytest.approx(plan.value)
    found = built(problem)
    x = start_of(found, plan)
    assert x is not None
    assert np.nansum(x) == sum(len(each) for each in plan.hosts.values())


def test_parts_that_share_nothing_are_told_apart() -> None:
    hosts = tuple(Host(f"h{i}", {"cpu": 1}, idle_w=1.0) for i in range(4))
    demands = tuple(Demand(f"d{i}", {"cpu": 1}) for i in range(2))
    fences = tuple(
        rules.Fence(frozenset({f"d{i}"}), frozenset({f"h{2 * i}", f"h{2 * i + 1}"}))
        for i in range(2)
    )
    matrix = built(Problem(hosts, demands, rules=fences)).matrix
    _, part = components(matrix)
    assert part.max() + 1 == 2


@given(seed=SEEDS)
@settings(max_examples=20)
def test_the_terms_over_columns_are_those_of_the_plan(seed: int) -> None:
    """Compare `objectives` with `evaluate` at a solution where each term counts."""
    problem = tiny.draw(seed, Random(seed).choice(["plain", "soft", "flavours"]))  # noqa: S311
    weights = dict.fromkeys(TERMS, 1.0)
    options = Options(weights=weights)
    found = assemble(compile_problem(problem), options, weights=weights, limits={})
    outcome = run(found.matrix, replace(options, solver="highs-direct"), Clock.of(30))
    if outcome.x is None:
        return
    plan = solve(problem, options)
    total = sum(value_of(found.terms[name], outcome.x) for name in TERMS)
    assert total == pytest.approx(plan.value, rel=1e-5, abs=1e-5)


# --- as written -----------------------------------------------------------------------------------

SMALL = {
    "assignment": Problem(
        (Host("a", {"cpu": 4, "memory_mib": 1024}, idle_w=10, busy_w=30), Host("b", {"cpu": 8})),
        (Demand("web", {"cpu": 1}, replicas=2, rates={"p": 2.0}), Demand("db", {"cpu": 2})),
        {"p": {"a": 1.0, "b": 5.0}},
        rules=(rules.Split((frozenset({"web"}), frozenset({"db"})), must=False, weight=2.0),),
    ),
    "traffic": Problem(
        (Host("a", {"cpu": 2}, site="east"), Host("b", {"cpu": 2}, site="west")),
        (Demand("web", {"cpu": 1}), Demand("db", {"cpu": 2})),
        links=(Link("east", "west", 10.0, 2.0),),
        traffic=(Traffic("web", "db", 4.0, 5.0),),
    ),
    "resilience": Problem(
        tuple(Host(f"h{i}", {"cpu": 2}, site=f"s{i % 2}") for i in range(3)),
        (Demand("web", {"cpu": 1}, replicas=2, rates={"p": 3.0}, copy_rps=3.0),),
        {"p": {"s0": 1.0, "s1": 2.0}},
        rules=(
            rules.Survive(frozenset({"web"})),
            rules.ServeAfterFailure(frozenset({"web"})),
        ),
    ),
}


WEB, DB = frozenset({"web"}), frozenset({"db"})
TWO = Problem(
    (
        Host("a", {"cpu": 4, "memory_mib": 512}, site="east"),
        Host("b", {"cpu": 8, "memory_mib": 512}, site="west"),
    ),
    (
        Demand("web", {"cpu": 1, "memory_mib": 64}, replicas=2, rates={"p": 2.0}, share_host=True),
        Demand("db", {"cpu": 2, "memory_mib": 256}),
    ),
    {"p": {"a": 1.0, "b": 5.0}},
    current={"web": ("a",), "db": ("b",)},
)
A, B = frozenset({"a"}), frozenset({"b"})
RULED: tuple[rules.Rule, ...] = (  # the kinds that have rows: the others close pairs
    rules.Spread(WEB | DB, "site"),
    rules.Gather(WEB | DB, "site"),
    rules.Among(WEB, (A, B)),
    rules.Split((WEB, DB), "site"),
    rules.SplitAmong((WEB, DB), (A, B)),
    rules.Lonely(WEB),
    rules.Beside("db", "web", "site"),
    rules.Occupy(WEB, "site", 2),
    rules.Root(WEB),
    rules.Quarantine(B),
    rules.Preserve(DB, "cpu", 3.0),
    rules.Overbook(A, "cpu", 0.5),
    rules.MaxOnline(A | B, 1),
    rules.MaxSkew(WEB, "site", 1),
    rules.Survive(WEB),
    rules.ServeAfterFailure(WEB, 5.0),
    rules.Percentile(WEB, 0.9, 2.0),
    rules.MigrationBudget(1),
)
SMALL |= {  # as a must, and as a wish
    rule.kind: replace(TWO, rules=(rule, replace(rule, must=False, weight=2.0))) for rule in RULED
}


def of_web(**fields: Any) -> Problem:
    return replace(TWO, demands=(replace(TWO.demands[0], **fields), TWO.demands[1]))


FLAVOURS = (Flavour("small", {"cpu": 0.5}, unfit={"b": "Xen"}), Flavour("large"))
SMALL |= {
    "flavours": of_web(flavours=FLAVOURS, share_host=False),
    "one_flavour": of_web(flavours=FLAVOURS, one_flavour=True),
    "nearest_copy": of_web(least=0, latency_bound_ms=2.0, bound_for=NEAREST_COPY),
    "soft_and_full": of_web(least=1, copy_rps=1.5),
    "both_sides": of_web(move=MAKE_BEFORE_BREAK),
    "slices": replace(
        TWO,
        slices=(
            Slice("one", WEB, {"cpu": 0.25}, revenue=3.0),
            Slice("two", DB, isolated=True),
        ),
    ),
    "chain": replace(
        of_web(replicas=1),
        chains=(Chain("c", ("web", "db"), 4.0, "p", 2.0),),
        links=(Link("east", "west", 3.0, 2.0),),
    ),
}


def test_every_family_of_rows_is_in_a_golden_file() -> None:
    """Whoever adds a family adds a model here."""
    seen = {
        block.family for problem in SMALL.values() for block in built(problem).matrix.row_blocks
    }
    text = "".join(
        file.read_text() for file in sorted(Path(model.__file__).parent.glob("rows/*.py"))
    )
    families = set(re.findall(r'add_rows\(\s*"(\w+)"', text))
    assert families == {name for name in seen if name in families}
    assert len(families) > 30


@pytest.mark.parametrize("name", SMALL)
def test_small_models_read_as_they_did(name: str, tmp_path: Path) -> None:
    """Golden files; delete one, and the test writes it anew and fails once."""
    emitted = through_pulp.emit(built(SMALL[name]).matrix)
    file = tmp_path / "model.lp"
    emitted.problem.writeLP(str(file))
    golden = GOLDEN / f"{name}.lp"
    if not golden.exists():
        golden.parent.mkdir(parents=True, exist_ok=True)
        golden.write_text(file.read_text())
        pytest.fail(f"{golden} was not there and is written now: look at it")
    assert file.read_text() == golden.read_text()

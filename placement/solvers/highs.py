"""HiGHS by its arrays: the whole model in one call, links added only where they are violated.

J. Hall and others, HiGHS, https://highs.dev (MIT). `load` is what every other module uses that
wants to keep a HiGHS object and change it; `relax` gives the LP relaxation with its prices.
"""

import math
from dataclasses import dataclass, replace
from time import perf_counter
from typing import Any

import numpy as np

from placement.matrix import Bools, Floats, Ints, Matrix
from placement.problem import Moment, SolverFailed
from placement.solvers import Limits, Outcome, trivial
from placement.tracing import Watch, later

ALL_LINKS = 20_000  # up to so many implied rows are simply given to the solver
ROUNDS = 5  # of adding violated implied rows
VIOLATED = 1e-6
FEASIBLE = 2  # kSolutionStatusFeasible


@dataclass(frozen=True, slots=True, eq=False)
class Relaxation:
    """The optimum of the LP relaxation: a bound on every plan, a point, and prices.

    `row_price` is the dual of each row (0 for implied rows that were never added), `reduced` the
    reduced cost of each column. `added` are the implied rows that were.
    """

    bound: float
    x: Floats
    row_price: Floats
    reduced: Floats
    added: Ints


def load(matrix: Matrix, limits: Limits, *, relaxed: bool = False, rows: Ints | None = None) -> Any:
    """Return a Highs object with the model; `rows` of the implied ones, None for all of them."""
    highspy = library()
    taken = _rows(matrix, rows)
    highs = highspy.Highs()
    highs.setOptionValue("output_flag", False)
    highspy.Highs.resetGlobalScheduler(True)
    highs.setOptionValue("threads", limits.threads)
    highs.setOptionValue("random_seed", limits.seed % 2**31)
    highs.setOptionValue("time_limit", max(0.01, limits.seconds))
    highs.setOptionValue("mip_rel_gap", limits.gap)
    highs.setOptionValue("mip_abs_gap", 1e-9)
    highs.setOptionValue("mip_feasibility_tolerance", limits.tolerance)
    pass_model(highs, taken, relaxed=relaxed)
    return highs


def pass_model(highs: Any, matrix: Matrix, *, relaxed: bool) -> None:
    """Hand a model over in one call; `SolverFailed` where HiGHS does not take it."""
    if highs.passModel(lp_of(matrix, relaxed=relaxed)) == library().HighsStatus.kError:
        raise SolverFailed("HiGHS refused the model: are some numbers far too large?")


def solve(matrix: Matrix, limits: Limits, start: Floats | None = None) -> Outcome:
    """Return what HiGHS finds within the limits, beginning from a solution if there is one."""
    if (nothing := trivial(matrix, "highs-direct")) is not None:
        return nothing
    since = perf_counter()
    rows: Ints | None = None
    bound = -math.inf
    if matrix.rows - matrix.core_rows > ALL_LINKS:
        relaxation = relax(matrix, replace(limits, seconds=limits.seconds / 2, gap=0.0))
        rows = relaxation.added if relaxation else np.empty(0, np.int64)
        bound = relaxation.bound if relaxation else bound
    left = replace(limits, seconds=limits.seconds - (perf_counter() - since))
    highs = load(matrix, left, rows=rows)
    if start is not None:
        begin(highs, start)
    loaded = perf_counter() - since
    trace = later(watched(highs), loaded)
    outcome = read(highs, matrix, "highs-direct")
    return replace(outcome, bound=max(bound, outcome.bound), trace=trace)


def watched(highs: Any) -> tuple[Moment, ...]:
    """Run as `run` does, and return when better solutions were found."""
    watch = Watch()

    def note(event: Any) -> None:
        told = event.data_out
        watch.note(told.objective_function_value, told.mip_dual_bound)

    highs.cbMipImprovingSolution.subscribe(note)
    try:
        run(highs)
    finally:
        highs.cbMipImprovingSolution.unsubscribe(note)
    return watch.trace()


def relax(matrix: Matrix, limits: Limits) -> Relaxation | None:
    """Return the LP relaxation with violated implied rows added in rounds; None if not solved.

    None means out of time, or no solution at all, which `solve` then tells.
    """
    since = perf_counter()
    implied = matrix.rows - matrix.core_rows
    added = np.arange(implied) if implied <= ALL_LINKS else np.empty(0, dtype=np.int64)
    highs = load(matrix, limits, relaxed=True, rows=added)
    highspy = library()
    x = np.empty(0)
    for _ in range(ROUNDS):
        highs.run()
        if highs.getModelStatus() != highspy.HighsModelStatus.kOptimal:
            return None
        x = np.array(highs.getSolution().col_value)
        new = np.setdiff1d(violated(matrix, x), added)
        if not len(new) or perf_counter() - since > limits.seconds:
            break
        add(highs, matrix, new)
        added = np.concatenate((added, new))
    else:
        highs.run()
        if highs.getModelStatus() != highspy.HighsModelStatus.kOptimal:
            return None
    solution = highs.getSolution()
    price = np.zeros(matrix.rows)
    dual = np.array(solution.row_dual)
    price[: matrix.core_rows] = dual[: matrix.core_rows]
    price[matrix.core_rows + added] = dual[matrix.core_rows :][: len(added)]
    return Relaxation(
        bound=highs.getInfo().objective_function_value,
        x=np.array(solution.col_value),
        row_price=price,
        reduced=np.array(solution.col_dual),
        added=np.sort(added),
    )


def run(highs: Any) -> None:
    """Run, and believe that there is no solution only when it is found without presolve, too.

    The presolve of HiGHS 1.15.1 calls some models infeasible that are not, such as one with a
    continuous column that is a constant minus whole ones (tests/placement/highs_presolve.mps). With
    a solution to begin from, HiGHS then calls that one optimal, and has no bound.
    """
    highs.run()
    kinds, info = library().HighsModelStatus, highs.getInfo()
    status, mixed = highs.getModelStatus(), info.mip_node_count >= 0
    unproven = mixed and status == kinds.kOptimal and math.isinf(info.mip_dual_bound)
    if unproven or status in (kinds.kInfeasible, kinds.kUnboundedOrInfeasible):
        begun = highs.getSolution()
        highs.setOptionValue("presolve", "off")
        highs.clearSolver()
        if unproven:
            highs.setSolution(begun)
        highs.run()


def read(highs: Any, matrix: Matrix, name: str) -> Outcome:
    """Return what a Highs object says after a run; bound and solution from it alone."""
    highspy = library()
    status, info = highs.getModelStatus(), highs.getInfo()
    kinds = highspy.HighsModelStatus
    if status in (kinds.kInfeasible, kinds.kUnboundedOrInfeasible):
        return Outcome(None, math.inf, infeasible=True, solver=name)
    x = None
    if info.primal_solution_status == FEASIBLE:
        x = np.array(highs.getSolution().col_value)
    bound = info.mip_dual_bound if matrix.integer.any() else -math.inf
    if not matrix.integer.any() and status == kinds.kOptimal:
        bound = info.objective_function_value
    return Outcome(x, bound if math.isfinite(bound) else -math.inf, infeasible=False, solver=name)


def library() -> Any:
    """Return highspy; `SolverFailed` where it is not installed."""
    try:
        import highspy  # noqa: PLC0415 - 40 MB, only for who solves
    except ImportError as error:
        raise SolverFailed("HiGHS is not installed: pip install highspy, or use cbc") from error
    return highspy


def _rows(matrix: Matrix, implied: Ints | None) -> Matrix:
    """Return the matrix with all its core rows and some of the implied ones, in their order."""
    if implied is None or len(implied) == matrix.rows - matrix.core_rows:
        return matrix
    kept: Bools = np.zeros(matrix.rows, dtype=bool)
    kept[: matrix.core_rows] = True
    kept[matrix.core_rows + implied] = True
    return matrix.cut(kept, np.ones(matrix.columns, dtype=bool)).with_constant(matrix.constant)


def lp_of(matrix: Matrix, *, relaxed: bool) -> Any:
    """Return a matrix as a HighsLp, for ``passModel``."""
    highspy = library()
    lp = highspy.HighsLp()
    lp.num_col_, lp.num_row_ = matrix.columns, matrix.rows
    lp.col_cost_, lp.offset_ = matrix.cost, matrix.constant
    lp.col_lower_, lp.col_upper_ = matrix.lower, matrix.upper
    lp.row_lower_, lp.row_upper_ = matrix.row_lower, matrix.row_upper
    lp.a_matrix_.format_ = highspy.MatrixFormat.kRowwise
    lp.a_matrix_.num_col_, lp.a_matrix_.num_row_ = matrix.columns, matrix.rows
    lp.a_matrix_.start_ = matrix.start.astype(np.int32)
    lp.a_matrix_.index_ = matrix.index.astype(np.int32)
    lp.a_matrix_.value_ = matrix.value
    if not relaxed and matrix.integer.any():
        kinds = (highspy.HighsVarType.kContinuous, highspy.HighsVarType.kInteger)
        lp.integrality_ = [kinds[each] for each in matrix.integer.tolist()]
    return lp


def begin(highs: Any, start: Floats) -> None:
    """Give a loaded model a solution to begin from; HiGHS completes what is not a number."""
    known = np.flatnonzero(~np.isnan(start))
    if len(known) < len(start):
        highs.setSolution(len(known), known.astype(np.int32), start[known])
        return
    solution = library().HighsSolution()
    solution.col_value = start.tolist()
    highs.setSolution(solution)


def violated(matrix: Matrix, x: Floats) -> Ints:
    """Return the implied rows that a point violates, by their place among the implied ones."""
    first = int(matrix.start[matrix.core_rows])
    lengths = np.diff(matrix.start[matrix.core_rows :])
    row = np.repeat(np.arange(len(lengths)), lengths)
    activity = np.bincount(
        row, matrix.value[first:] * x[matrix.index[first:]], minlength=len(lengths)
    )
    low, high = matrix.row_lower[matrix.core_rows :], matrix.row_upper[matrix.core_rows :]
    return np.flatnonzero((activity > high + VIOLATED) | (activity < low - VIOLATED))


def add(highs: Any, matrix: Matrix, implied: Ints) -> None:
    """Add implied rows to a loaded model; the basis is kept."""
    kept = np.zeros(matrix.rows, dtype=bool)
    kept[matrix.core_rows + implied] = True
    part = matrix.cut(kept, np.ones(matrix.columns, dtype=bool))
    highs.addRows(
        part.rows,
        part.row_lower,
        part.row_upper,
        len(part.value),
        part.start[:-1].astype(np.int32),
        part.index.astype(np.int32),
        part.value,
    )

"""The model as a pulp problem, for reading and for adding rows of one's own, and pulp's solvers.

`emit` uses pulp's quick constructors; `ArrayHiGHS` hands a pulp problem to HiGHS in one call, not
row by row. Bound and solution are read from the solver itself: pulp calls whatever was found
before the time limit "optimal". These are the only modules that import pulp.
"""

import math
import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter
from typing import Any

import numpy as np
import pulp as _pulp

from placement.matrix import Bools, Floats, Matrix
from placement.problem import Moment, SolverFailed
from placement.solvers import COARSE, Limits, Outcome, highs, trivial
from placement.tracing import later

pulp: Any = _pulp  # annotated in part only, and not as its own examples use it

CBC_BOUND_DIGITS = 0.0005  # CBC prints its bound with three decimals


@dataclass(frozen=True, slots=True)
class Emitted:
    """A pulp problem, and its variables in the order of the matrix's columns."""

    problem: Any
    variables: list[Any]


class ArrayHiGHS(pulp.HiGHS):  # type: ignore[misc]
    """pulp's HiGHS, but that a model is handed over as arrays, with a solution to begin from."""

    def __init__(self, start: Mapping[int, float], **options: Any) -> None:
        """Take pulp's options, and values of variables, by their ``id``, to begin from."""
        super().__init__(msg=False, **options)
        self.start = start
        self.begun = 0.0
        self.trace: tuple[Moment, ...] = ()

    def callSolver(self, lp: Any) -> None:  # noqa: N802 - pulp's name
        """Run; pulp calls this once the model is handed over."""
        self.begun = perf_counter()
        self.trace = highs.watched(lp.solverModel)

    def buildSolverModel(self, lp: Any) -> None:  # noqa: N802 - pulp's name
        """Hand over the model; pulp calls this between making the solver and running it."""
        variables = lp.variables()
        matrix = _matrix_of(lp, variables)
        highs.pass_model(lp.solverModel, matrix, relaxed=not self.mip)
        if self.start:
            values = [self.start.get(id(variable), math.nan) for variable in variables]
            highs.begin(lp.solverModel, np.array(values))


def emit(matrix: Matrix, name: str = "placement") -> Emitted:
    """Return a matrix as a pulp problem; rows with two different bounds become two."""
    lp = pulp.LpProblem(name, pulp.LpMinimize)
    kinds = (pulp.LpContinuous, pulp.LpInteger)
    columns = zip(
        matrix.column_names(),
        _or_none(matrix.lower),
        _or_none(matrix.upper),
        matrix.integer.tolist(),
        strict=True,
    )
    variables = [lp.add_variable(n, low, high, kinds[whole]) for n, low, high, whole in columns]
    costs = np.flatnonzero(matrix.cost)
    lp.setObjective(
        pulp.LpAffineExpression(
            zip([variables[j] for j in costs], matrix.cost[costs].tolist(), strict=True),
            constant=matrix.constant,
        )
    )
    index, value, start = matrix.index.tolist(), matrix.value.tolist(), matrix.start.tolist()
    for i, (row, low, high) in enumerate(
        zip(matrix.row_names(), matrix.row_lower.tolist(), matrix.row_upper.tolist(), strict=True)
    ):
        entries = slice(start[i], start[i + 1])
        terms = list(zip([variables[j] for j in index[entries]], value[entries], strict=True))
        for sense, right, suffix in _senses(low, high):
            expression = pulp.LpAffineExpression(terms)
            lp.addConstraint(pulp.LpConstraint(expression, sense, row + suffix, right))
    lp._add_variables(variables)  # also those that no row has
    return Emitted(lp, variables)


def solve_highs(matrix: Matrix, limits: Limits, start: Floats | None = None) -> Outcome:
    """Return what HiGHS finds through pulp."""
    if (nothing := trivial(matrix, "highs")) is not None:
        return nothing
    since = perf_counter()
    emitted = emit(matrix)
    built = perf_counter() - since
    outcome = solve_emitted(emitted, matrix, limits, start)
    return replace(outcome, trace=later(outcome.trace, built))


def solve_emitted(
    emitted: Emitted, matrix: Matrix, limits: Limits, start: Floats | None = None
) -> Outcome:
    """Return what HiGHS finds for a pulp problem to which rows may have been added.

    `x` is by the columns of the matrix the problem was made of.
    """
    lp = emitted.problem
    begin = {} if start is None else dict(zip(map(id, emitted.variables), start, strict=True))
    highs.library().Highs.resetGlobalScheduler(True)
    options = {
        "random_seed": limits.seed % 2**31,
        "mip_feasibility_tolerance": limits.tolerance,
    }
    solver = ArrayHiGHS(
        begin,
        timeLimit=max(0.01, limits.seconds),
        gapRel=limits.gap,
        gapAbs=1e-9,
        threads=limits.threads,
        **options,
    )
    since = perf_counter()
    lp.solve(solver)
    outcome = highs.read(lp.solverModel, matrix, "highs")
    place = [variable.index for variable in emitted.variables]  # pulp sorts, and may add one
    x = None if outcome.x is None else outcome.x[place]
    return replace(outcome, x=x, trace=later(solver.trace, solver.begun - since))


def solve_cbc(matrix: Matrix, limits: Limits, start: Floats | None = None) -> Outcome:
    """Return what CBC finds: the fallback, far weaker than HiGHS.

    The CBC on PATH, else the one that some releases of pulp bring.
    """
    if (nothing := trivial(matrix, "cbc")) is not None:
        return nothing
    rows = np.diff(matrix.start) > 0
    possible = (matrix.row_lower <= 0) & (matrix.row_upper >= 0)
    if not possible[~rows].all():
        return Outcome(None, math.inf, infeasible=True, solver="cbc")
    used = matrix.cost != 0  # CBC cannot read columns that are nowhere
    used[matrix.index] = True
    x = np.clip(0.0, matrix.lower, matrix.upper)
    if not used.any():
        return Outcome(x, matrix.constant, infeasible=False, solver="cbc")
    emitted = emit(matrix.cut(rows, used))
    if start is not None:
        for variable, value in zip(emitted.variables, start[used].tolist(), strict=True):
            if not math.isnan(value):  # what is not known has no value, which is how it begins
                variable.setInitialValue(value, check=False)
    text = _run_cbc(emitted.problem, limits, warm=start is not None)
    return _read_cbc(emitted, matrix, x, used, text)


def _run_cbc(lp: Any, limits: Limits, *, warm: bool) -> str:
    """Solve, and return what CBC printed."""
    with TemporaryDirectory(prefix="placement-cbc-") as folder:
        log = Path(folder) / "log"
        command = pulp.COIN_CMD(
            path=_cbc_path(),
            msg=False,
            timeLimit=max(1.0, limits.seconds),
            gapRel=limits.gap,
            logPath=str(log),
            warmStart=warm,
            options=_cbc_tolerances(limits.tolerance),
        )
        try:
            lp.solve(command)
        except (pulp.PulpSolverError, OSError) as error:
            raise SolverFailed(f"cbc could not be run: {error}") from error
        return log.read_text(errors="replace")


def _cbc_tolerances(tolerance: float) -> list[str]:
    """Return what makes CBC keep to finer tolerances than its own, which its preprocessing has."""
    if tolerance >= COARSE:
        return []
    fine = f"{tolerance:g}"
    return [f"integerTolerance {fine}", f"primalTolerance {fine}", "preprocess off"]


def _read_cbc(emitted: Emitted, matrix: Matrix, x: Floats, used: Bools, text: str) -> Outcome:
    lp = emitted.problem
    if lp.status == pulp.LpStatusInfeasible:
        return Outcome(None, math.inf, infeasible=True, solver="cbc")
    bound = -math.inf
    if printed := re.search(r"^Lower bound:\s+(\S+)$", text, re.MULTILINE):
        bound = float(printed[1]) - CBC_BOUND_DIGITS + matrix.constant
    if lp.sol_status not in (pulp.LpSolutionOptimal, pulp.LpSolutionIntegerFeasible):
        return Outcome(None, bound, infeasible=False, solver="cbc")
    x[used] = [v.varValue or 0.0 for v in emitted.variables]
    proven = lp.sol_status == pulp.LpSolutionOptimal and "(within gap tolerance)" not in text
    if math.isinf(bound) and proven:
        bound = float(matrix.cost @ x) + matrix.constant
    return Outcome(x, bound, infeasible=False, solver="cbc")


def _cbc_path() -> str:
    if (found := shutil.which("cbc")) is not None:
        return found
    bundled = getattr(getattr(pulp, "PULP_CBC_CMD", None), "pulp_cbc_path", None)
    if bundled and Path(str(bundled)).is_file():
        return str(bundled)
    raise SolverFailed("cbc is not installed: install coinor-cbc, or use highs")


def _or_none(bounds: Floats) -> list[float | None]:
    return [each if math.isfinite(each) else None for each in bounds.tolist()]


def _senses(low: float, high: float) -> list[tuple[int, float, str]]:
    if low == high:
        return [(pulp.LpConstraintEQ, low, "")]
    senses = []
    if math.isfinite(high):
        senses.append((pulp.LpConstraintLE, high, ""))
    if math.isfinite(low):
        senses.append((pulp.LpConstraintGE, low, "_low" if senses else ""))
    return senses


def _matrix_of(lp: Any, variables: list[Any]) -> Matrix:
    """Return a pulp problem as a matrix, columns in the order given."""
    for i, variable in enumerate(variables):
        variable.index = i
    rows = lp.constraints()
    lengths = np.array([len(row) for row in rows], dtype=np.int64)
    start = np.concatenate(([0], np.cumsum(lengths)))
    index = np.fromiter((v.index for row in rows for v in row.keys()), np.int64, int(start[-1]))  # noqa: SIM118
    value = np.fromiter((c for row in rows for c in row.values()), np.float64, int(start[-1]))
    for i, row in enumerate(rows):
        row.index = i
    cost = np.zeros(len(variables))
    for variable, factor in lp.objective.items():
        cost[variable.index] = factor
    low = [(-math.inf if v.lowBound is None else v.lowBound) for v in variables]
    high = [(math.inf if v.upBound is None else v.upBound) for v in variables]
    integer = np.array([v.cat == pulp.LpInteger for v in variables], dtype=bool)
    none = [(row.getLb(), row.getUb()) for row in rows]
    return Matrix(
        start=start,
        index=index,
        value=value,
        row_lower=np.array([-math.inf if a is None else a for a, _ in none], dtype=float),
        row_upper=np.array([math.inf if b is None else b for _, b in none], dtype=float),
        lower=np.array(low, dtype=float),
        upper=np.array(high, dtype=float),
        cost=cost if lp.sense == pulp.LpMinimize else -cost,
        integer=integer,
        whole=integer,
        constant=float(lp.objective.constant),
        core_rows=len(rows),
    )

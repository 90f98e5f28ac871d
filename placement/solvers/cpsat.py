"""CP-SAT of OR-tools, for small models with many rules; OR-tools is optional and never needed.

It knows whole numbers only: columns must be whole (continuous shares of copies that fill up, flows
and utilisation are not), and rows and costs are scaled. Rows whose factors need more digits than
`DIGITS` are refused, not rounded; costs are rounded, and the bound allows for it.

It runs in a process of its own (``python -m placement.solvers.cpsat FOLDER``): OR-tools and highspy
each bring a library of the same name, and whoever comes second cannot be imported.
"""

import math
import os
import subprocess
import sys
from dataclasses import asdict
from fractions import Fraction
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from placement.matrix import Floats, Matrix
from placement.problem import SolverFailed
from placement.solvers import Limits, Outcome, trivial

DIGITS = 10**9  # the largest common denominator of a row
COSTS = 1e12  # costs are scaled so that their sum stays below
FAR = 10**12  # stands for no bound of a row
SLACK = 1e-6  # of a row's bound: what was computed in floats may be off by so much

QUESTION, ANSWER = "question.npz", "answer.npz"  # what the two processes tell each other
ARRAYS = (
    "start",
    "index",
    "value",
    "row_lower",
    "row_upper",
    "lower",
    "upper",
    "cost",
    "integer",
    "whole",
)


def solve(matrix: Matrix, limits: Limits, start: Floats | None = None) -> Outcome:
    """Return what CP-SAT finds within the limits; `SolverFailed` where it cannot say the model."""
    if (nothing := trivial(matrix, "cp-sat")) is not None:
        return nothing
    with TemporaryDirectory(prefix="placement-cpsat-") as name:
        ask(Path(name), matrix, limits, start)
        done = run(Path(name))
        if done.returncode or not (Path(name) / ANSWER).exists():
            raise SolverFailed(f"cp-sat could not be run: {_last_line(done.stderr)}")
        return told(Path(name), matrix)


def ask(folder: Path, matrix: Matrix, limits: Limits, start: Floats | None = None) -> None:
    """Write a question to a folder; `SolverFailed` where CP-SAT cannot say the model."""
    if not matrix.whole.all():
        name = matrix.column_names()[int(np.flatnonzero(~matrix.whole)[0])]
        raise SolverFailed(f"cp-sat takes whole columns only, and {name} is not; use highs")
    np.savez(
        folder / QUESTION,
        **{field: getattr(matrix, field) for field in ARRAYS},
        hint=np.full(matrix.columns, math.nan) if start is None else start,
        limits=np.array(list(asdict(limits).values()), dtype=float),
    )


def run(*folders: Path) -> subprocess.CompletedProcess[str]:
    """Have the questions in folders answered by one process, which starts in half a second."""
    return subprocess.run(
        [sys.executable, "-m", "placement.solvers.cpsat", *map(str, folders)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        capture_output=True,
        text=True,
        check=False,
    )


def told(folder: Path, matrix: Matrix) -> Outcome:
    """Return the answer that lies in a folder."""
    with np.load(folder / ANSWER) as answer:
        x, bound = answer["x"], float(answer["bound"])
        infeasible = bool(answer["infeasible"])
    return Outcome(x if len(x) else None, bound + matrix.constant, infeasible, "cp-sat")


def answer(folder: Path) -> None:
    """Solve the question in a folder, and write the answer beside it."""
    with np.load(folder / QUESTION) as question:
        arrays = {field: question[field] for field in ARRAYS}
        hint, given = question["hint"].tolist(), question["limits"].tolist()
    matrix = Matrix(**arrays, constant=0.0, core_rows=len(arrays["row_lower"]))
    limits = Limits(given[0], given[1], int(given[2]), int(given[3]))
    x, bound, infeasible = _solved(matrix, limits, hint)
    np.savez(folder / ANSWER, x=x, bound=bound, infeasible=infeasible)


def _solved(matrix: Matrix, limits: Limits, hint: list[float]) -> tuple[Floats, float, bool]:
    cp_model = library()
    model, columns, scale = emit(matrix)
    for column, value in zip(columns, hint, strict=True):
        if not math.isnan(value):
            model.add_hint(column, round(value))
    solver: Any = cp_model.CpSolver()
    solver.parameters.max_time_in_seconds = max(0.01, limits.seconds)
    solver.parameters.relative_gap_limit = limits.gap
    solver.parameters.num_workers = limits.threads
    solver.parameters.random_seed = limits.seed % 2**31
    status = solver.solve(model)
    if status == cp_model.INFEASIBLE:
        return np.empty(0), math.inf, True
    if status not in (cp_model.OPTIMAL, cp_model.FEASIBLE):
        return np.empty(0), -math.inf, False
    rounding = 0.5 * float(np.where(matrix.cost != 0, uppers(matrix), 0).sum())
    bound = (solver.best_objective_bound - rounding) / scale
    return np.array([float(solver.value(column)) for column in columns]), bound, False


def emit(matrix: Matrix) -> tuple[Any, list[Any], float]:
    """Return a CpModel, its columns in the order of the matrix's, and the scale of its costs."""
    cp_model = library()
    model: Any = cp_model.CpModel()
    most_of = uppers(matrix)
    columns = [
        model.new_int_var(round(low), math.floor(high), name)
        for name, low, high in zip(
            matrix.column_names(), matrix.lower.tolist(), most_of.tolist(), strict=True
        )
    ]
    names = matrix.row_names()
    for i in range(matrix.rows):
        entries = slice(int(matrix.start[i]), int(matrix.start[i + 1]))
        factors, times = _whole(matrix.value[entries].tolist(), names[i])
        low, high = float(matrix.row_lower[i]), float(matrix.row_upper[i])
        expression = cp_model.LinearExpr.weighted_sum(
            [columns[j] for j in matrix.index[entries].tolist()], factors
        )
        least = -FAR if math.isinf(low) else math.ceil(low * times - SLACK * max(1, times))
        most = FAR if math.isinf(high) else math.floor(high * times + SLACK * max(1, times))
        if least > most:  # no whole number is between; CP-SAT calls such a row invalid
            model.add_bool_or([])
            continue
        model.add_linear_constraint(expression, least, most).with_name(names[i])
    size = float(np.abs(matrix.cost * most_of).sum())
    scale = COSTS / size if size else 1.0
    costs = np.rint(matrix.cost * scale).astype(np.int64).tolist()
    model.minimize(cp_model.LinearExpr.weighted_sum(columns, costs))
    return model, columns, scale


def uppers(matrix: Matrix) -> Floats:
    """Return an upper bound of each column, since CP-SAT needs one that is not far.

    A column without one is by how much a wish is broken: no more than the other columns of a row
    can be off. `SolverFailed` where that is not so.
    """
    free = np.isinf(matrix.upper)
    row, column = matrix.row_of_entry(), matrix.index
    size = np.abs(matrix.value)
    open_entry = free[column]
    several = np.bincount(row[open_entry], minlength=matrix.rows) > 1
    if several.any() or (matrix.cost[free] < 0).any():
        raise SolverFailed("cp-sat needs a bound for each column; use highs")
    widest = np.where(free, 0.0, np.maximum(np.abs(matrix.lower), np.abs(matrix.upper)))
    off = np.bincount(row, size * widest[column], minlength=matrix.rows)
    for side in (matrix.row_lower, matrix.row_upper):
        off = off + np.where(np.isinf(side), 0.0, np.abs(side))
    least = np.zeros(matrix.columns)
    np.maximum.at(least, column[open_entry], (off[row] / size)[open_entry])
    return np.where(free, np.maximum(np.ceil(least), matrix.lower), matrix.upper)


def library() -> Any:
    """Return OR-tools' cp_model; `SolverFailed` where it cannot be imported."""
    try:
        from ortools.sat.python import cp_model  # noqa: PLC0415 - optional
    except ImportError as error:
        raise SolverFailed(f"OR-tools is not there (pip install ortools): {error}") from error
    return cp_model


def _last_line(text: str) -> str:
    return (text.strip().splitlines() or ["it said nothing"])[-1]


def _whole(factors: list[float], name: str) -> tuple[list[int], int]:
    """Return factors times their common denominator, and that."""
    exact = [Fraction(each).limit_denominator(10**7) for each in factors]
    times = math.lcm(*(each.denominator for each in exact)) if exact else 1
    if times > DIGITS:
        raise SolverFailed(f"row {name} has factors that cp-sat cannot take whole; use highs")
    return [int(each * times) for each in exact], times


if __name__ == "__main__":
    for argument in sys.argv[1:]:
        answer(Path(argument))

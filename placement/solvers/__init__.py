"""The solvers: a `Matrix` in, an `Outcome` out, each with its own bound and never pulp's word.

A solver is named here by ``"module:function"`` and loaded when asked for. ``auto`` is HiGHS,
through pulp where models are small enough to look at, else as arrays; CBC where there is no HiGHS.
"""

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from typing import cast

import numpy as np

from placement.matrix import Floats, Matrix
from placement.problem import Malformed, Moment

COARSE, FINE = 1e-6, 1e-9  # tolerances: what solvers have anyway, and for rows that bound a term
PULP_COLUMNS = 5_000  # above, pulp's own work is felt: 0.1 s at 20,000 columns, 1 s at 200,000


@dataclass(frozen=True, slots=True)
class Limits:
    """How long a solver may take, and how near to the best is near enough (relative).

    `tolerance` is how far columns may be from whole numbers, and from their bounds. It buys that
    much times a column's factor in each row: of a term in which a missing path counts 10,000 ms,
    0.01 ms at 1e-6. Where a plan exceeds a limit by less, HiGHS and CBC take it for one within the
    limit: they return it, or find out and drop all that is left with it, which is worse.
    """

    seconds: float = 60.0
    gap: float = 0.0
    threads: int = 1
    seed: int = 0
    tolerance: float = COARSE


@dataclass(frozen=True, slots=True, eq=False)
class Outcome:
    """What a solver said.

    `x` is its best solution, None if it has none; `infeasible` that it proved there is none.
    `bound` is below the cost of every solution, constant included, and -inf if it proved nothing.
    `trace` has when better solutions were found, if the solver tells.
    """

    x: Floats | None
    bound: float
    infeasible: bool
    solver: str
    trace: tuple[Moment, ...] = ()

    @property
    def found(self) -> bool:
        """Return whether there is a solution."""
        return self.x is not None


Solver = Callable[[Matrix, Limits, Floats | None], Outcome]

SOLVERS: dict[str, str] = {
    "highs": "placement.solvers.through_pulp:solve_highs",
    "highs-direct": "placement.solvers.highs:solve",
    "cbc": "placement.solvers.through_pulp:solve_cbc",
    "cp-sat": "placement.solvers.cpsat:solve",
}


def solver(name: str, columns: int) -> Solver:
    """Return a solver by name; `Malformed` lists the known ones."""
    if name == "auto":
        found = find_spec("highspy") is not None
        name = ("highs" if columns <= PULP_COLUMNS else "highs-direct") if found else "cbc"
    check_name(name)
    module, _, function = SOLVERS[name].partition(":")
    return cast(Solver, getattr(import_module(module), function))


def check_name(name: str) -> None:
    """Raise `Malformed`, which lists the known ones, if no solver has that name."""
    if name not in SOLVERS:
        known = ", ".join(("auto", *SOLVERS))
        raise Malformed("solver", f"no solver named {name!r}; known: {known}")


def trivial(matrix: Matrix, name: str) -> Outcome | None:
    """Return the outcome of a matrix without columns, None if it has some."""
    if matrix.columns:
        return None
    right = bool(((matrix.row_lower <= 1e-9) & (matrix.row_upper >= -1e-9)).all())
    x = np.empty(0) if right else None
    return Outcome(x, matrix.constant, not right, name)

"""The LP relaxation in steps: at first without links, which is quick, then with those it violates.

Few of the many links matter (a twentieth at most), and all of them at once cost a hundred times the
time. Between two steps the plan made from the last solution is already there.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np

from placement.matrix import Floats, Ints, Matrix
from placement.solvers import Limits
from placement.solvers import highs as direct
from placement.solvers.highs import Relaxation


@dataclass(slots=True, eq=False)
class Relaxing:
    """An LP relaxation that can be tightened; `found` is its last optimum."""

    matrix: Matrix
    highs: Any
    added: Ints
    found: Relaxation | None = None

    @classmethod
    def of(cls, matrix: Matrix, limits: Limits, links: Ints | None = None) -> "Relaxing":
        """Return the relaxation of a model with these of its links at first, not solved yet."""
        rows = np.empty(0, dtype=np.int64) if links is None else np.sort(links)
        return cls(matrix, direct.load(matrix, limits, relaxed=True, rows=rows), rows)

    def solve(self, seconds: float) -> Relaxation | None:
        """Return the optimum; None when it is not found in time, or when there is none."""
        self.highs.setOptionValue("time_limit", self.highs.getRunTime() + max(seconds, 0.01))
        direct.run(self.highs)
        if self.highs.getModelStatus() != direct.library().HighsModelStatus.kOptimal:
            return None
        solution = self.highs.getSolution()
        dual, core = np.array(solution.row_dual), self.matrix.core_rows
        price = np.zeros(self.matrix.rows)
        price[:core] = dual[:core]
        price[core + self.added] = dual[core : core + len(self.added)]
        self.found = Relaxation(
            bound=self.highs.getInfo().objective_function_value,
            x=np.array(solution.col_value),
            row_price=price,
            reduced=np.array(solution.col_dual),
            added=np.sort(self.added),
        )
        return self.found

    def tighten(self) -> bool:
        """Add the links that the last optimum violates; return whether there were any."""
        if self.found is None:
            return False
        new: Ints = np.setdiff1d(direct.violated(self.matrix, self.found.x), self.added)
        if len(new):
            direct.add(self.highs, self.matrix, new)
            self.added = np.concatenate((self.added, new))
        return len(new) > 0


def whole(matrix: Matrix, x: Floats) -> bool:
    """Return whether a point is whole where it must be."""
    must = x[matrix.integer]
    return bool((np.abs(must - np.rint(must)) < 1e-6).all())

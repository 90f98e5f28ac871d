"""How far populations are from hosts, and how far a request may go."""

import math
from collections.abc import Mapping

import numpy as np

from placement.matrix import ROUNDING, Floats
from placement.problem import Problem

UNREACHABLE_MS = 10_000.0  # charged where there is no path; longer than any real one


def worst_cap(limits: Mapping[str, float]) -> float | None:
    """Return how far any request may go by the limits; None if anywhere, even without a path."""
    worst = limits.get("worst_latency_ms", math.inf)
    return None if worst >= UNREACHABLE_MS else worst + ROUNDING


def latency_table(problem: Problem, populations: tuple[str, ...]) -> Floats:
    """Return the latency in ms of each population to each host, infinite where there is no path."""
    names = [host.name for host in problem.hosts]
    table = np.full((len(populations), len(names)), math.inf)
    for p, population in enumerate(populations):
        row = problem.latency_ms.get(population)
        if not row:
            continue
        found = [*row.values()] if [*row] == names else [row.get(name) for name in names]
        if None in found:
            found = [
                row.get(host.domain("site"), math.inf) if ms is None else ms
                for host, ms in zip(problem.hosts, found, strict=True)
            ]
        table[p] = found
    return table

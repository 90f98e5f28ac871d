"""Where should each service run? A pure library: a `Problem` in, a `Plan` out.

``from placement import Problem, Host, Demand, Options, solve, rules`` is all a notebook needs.
"""

from placement import rules
from placement.problem import (
    Chain,
    Demand,
    Flavour,
    Host,
    Infeasible,
    Link,
    Malformed,
    Options,
    Plan,
    Problem,
    Slice,
    SolverFailed,
    Traffic,
)


def solve(problem: Problem, options: Options | None = None) -> Plan:
    """Return the best plan found; see `placement.solving.solve`."""
    from placement import solving  # noqa: PLC0415 - numpy and a solver, only for who solves

    return solving.solve(problem, options)


__all__ = [
    "Chain",
    "Demand",
    "Flavour",
    "Host",
    "Infeasible",
    "Link",
    "Malformed",
    "Options",
    "Plan",
    "Problem",
    "Slice",
    "SolverFailed",
    "Traffic",
    "rules",
    "solve",
]

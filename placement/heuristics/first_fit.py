"""First fit: each demand, in the problem's order, at the first host that takes it.

The baseline every paper compares with. It looks at nothing but feasibility.
"""

from placement.candidates import feasible
from placement.heuristics import fill
from placement.problem import Options, Plan, Problem


def first_fit(problem: Problem, _options: Options) -> Plan:
    """Return the first-fit plan; see `placement.heuristics.fill` for what it raises."""
    return fill(problem, name="first-fit", order=problem.demands, rank=feasible)

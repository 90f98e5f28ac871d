"""`plan_warm`: one call from a question of warm instances to an answer that the judge has seen."""

from dataclasses import replace
from time import perf_counter

from placement.problem import Infeasible, SolverFailed
from placement.warm import exact as exactly
from placement.warm import pricing
from placement.warm.arrays import Arrays, compile_warm
from placement.warm.check import violations
from placement.warm.evaluate import evaluate, worth
from placement.warm.greedy import greedy
from placement.warm.problem import WarmOptions, WarmPlan, WarmProblem
from placement.warm.validate import check_options, validate

EXACT_PAIRS = 500_000  # up to so many, `auto` is exact


def plan_warm(problem: WarmProblem, options: WarmOptions | None = None) -> WarmPlan:
    """Return the best warm plan that the chosen algorithm finds before the deadline.

    Raises:
        Infeasible: some services can rest nowhere, with a reason for each; if not ``proven``, none
            was found.
        Malformed: problem or options make no sense.
        SolverFailed: the solver could not be run, or gave a plan that the judge refuses.

    """
    options = options or WarmOptions()
    validate(problem)
    check_options(options)
    since = perf_counter()
    arrays = compile_warm(problem, options.mib_price)
    built = perf_counter() - since
    name = options.algorithm
    if name == "auto":
        name = "exact" if arrays.pairs <= EXACT_PAIRS else "greedy"
    left = replace(options, deadline_s=max(0.01, options.deadline_s - built))
    plan = _exact(arrays, left) if name == "exact" else _greedy(arrays, left)
    if wrong := violations(problem, plan):
        raise SolverFailed(f"{name} gave a wrong warm plan: {'; '.join(wrong)}")
    terms = evaluate(problem, plan)
    value = worth(terms, options)
    bound = max(0.0, min(plan.bound, value))
    return replace(
        plan,
        terms=terms,
        value=value,
        bound=bound,
        gap=(value - bound) / value if value > 0 else 0.0,
        algorithm=name,
        build_s=plan.build_s + built,
    )


def _exact(arrays: Arrays, options: WarmOptions) -> WarmPlan:
    since = perf_counter()
    try:
        start = greedy(arrays)
    except Infeasible:  # the greedy way may miss what there is
        start = None
    way = pricing.priced if arrays.pairs > pricing.PAIRS[-1] else exactly.exact
    begun = perf_counter() - since
    left = max(0.01, options.deadline_s - begun)
    found = way(arrays, replace(options, deadline_s=left), start)
    return replace(
        arrays.plan(found.chosen, found.kept),
        bound=found.bound,
        solver=found.solver,
        build_s=found.build_s,
        solve_s=found.solve_s + begun,
    )


def _greedy(arrays: Arrays, options: WarmOptions) -> WarmPlan:
    since = perf_counter()
    plan = arrays.plan(*greedy(arrays))
    spent = perf_counter() - since
    left = max(0.01, options.deadline_s - spent)
    bound = _bound(arrays, replace(options, deadline_s=left)) if options.bound else 0.0
    return replace(plan, bound=bound, solve_s=spent)


def _bound(arrays: Arrays, options: WarmOptions) -> float:
    try:
        return exactly.relaxed_bound(arrays, options)
    except SolverFailed:
        return 0.0  # no LP solver here: 0 is below every plan

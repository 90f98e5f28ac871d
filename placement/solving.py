"""`solve`: one call from a question to an answer, whichever algorithm gives it.

It refuses senseless problems and algorithms that would ignore a part of them, asks the independent
judge about every plan, and sees to it that a plan always has a proven bound.
"""

from dataclasses import replace
from time import perf_counter

from placement.check import violations
from placement.evaluate import UNITS
from placement.expand import judged
from placement.problem import Infeasible, Malformed, Options, Plan, Problem, SolverFailed
from placement.registry import Function, algorithm, refuse
from placement.validate import check_options, validate


def solve(problem: Problem, options: Options | None = None) -> Plan:
    """Return the best plan that the chosen algorithm finds before the deadline.

    Raises:
        Infeasible: there is none, with what clashes; or none was found (then ``proven`` is False).
        Malformed: problem or options make no sense, or the algorithm ignores part of them.
        SolverFailed: the solver could not be run, or gave a plan that the judge refuses.

    """
    options = options or Options()
    chosen = algorithm(options.algorithm)
    check_question(problem, options)
    refuse(chosen, problem, options)
    plan, wrong = answer(chosen.load(), problem, options, name=chosen.name)
    if wrong:
        raise SolverFailed(f"{chosen.name} gave a wrong plan: {'; '.join(wrong)}")
    return plan


def check_question(problem: Problem, options: Options) -> None:
    """Raise `Malformed` if a problem or options make no sense."""
    validate(problem)
    check_options(options, UNITS)


def answer(
    function: Function, problem: Problem, options: Options, *, name: str
) -> tuple[Plan, tuple[str, ...]]:
    """Return the plan that a function finds, and what the judge objects to in it.

    A right plan is complete: with its terms, value, bound and gap, and the time it took, in which
    that of a bound from elsewhere does not count. A wrong one is as the function gave it. Raises
    `Infeasible` as `solve` does.
    """
    since = perf_counter()
    plan = _found(function, problem, options)
    spent = perf_counter() - since
    if not isinstance(plan, Plan):
        raise Malformed("algorithm", f"{name} returned {plan!r:.60}, which is no Plan")
    if wrong := violations(problem, plan):
        return plan, wrong
    if not plan.bound and spent < options.deadline_s:
        left = replace(options, deadline_s=options.deadline_s - spent)
        plan = replace(plan, bound=_bound(problem, left))
    complete = judged(
        problem,
        plan,
        options.counts,
        bound=plan.bound,
        algorithm=name,
        solver=plan.solver,
        build_s=plan.build_s,
        solve_s=plan.solve_s or spent,
    )
    return complete, ()


def _found(function: Function, problem: Problem, options: Options) -> Plan:
    """Return the bare plan of an algorithm, or say why there is none."""
    from placement.exact import NoPlan  # noqa: PLC0415 - numpy, only for who solves

    since = perf_counter()
    try:
        return function(problem, options)
    except NoPlan as no:
        if no.proven:
            from placement.clash import infeasible  # noqa: PLC0415 - as above

            raise infeasible(problem, options) from no
        late = perf_counter() - since >= options.deadline_s
        when = f"within {options.deadline_s:g} s" if late else f"by {options.algorithm}"
        told = {demand.name: f"no plan was found {when}" for demand in problem.demands}
        raise Infeasible(told, proven=False) from no


def _bound(problem: Problem, options: Options) -> float:
    from placement.exact import Clock, relaxed_bound  # noqa: PLC0415 - as above

    try:
        return max(0.0, relaxed_bound(problem, options, Clock.of(options.deadline_s)))
    except (SolverFailed, Malformed):
        return 0.0  # no LP solver here, or a term that has no relaxation: 0 is below every plan

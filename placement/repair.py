"""Repair: a plan that has become wrong is made right again by touching only what is wrong.

What runs is `problem.current`. Copies on hosts that are gone or may not be used, copies on hosts
that are too full, and demands of broken must-rules are freed; everything else stays. Where that is
not enough, what shares hosts with them is freed too, then everything: three small models instead of
a large one. A budget bounds how many copies may move in all. The idea is BtrPlace's repair mode (F.
Hermenier and others, BtrPlace: a flexible consolidation manager, 2013).
"""

from collections.abc import Iterator
from dataclasses import replace
from time import perf_counter

import numpy as np

from placement.amounts import State, amount
from placement.arrays import ROUNDING, Arrays, compile_problem, worst_cap
from placement.assemble import Assembled, assemble
from placement.check import violations
from placement.exact import Clock, run
from placement.expand import judged, plan_of_solution
from placement.ladder.neighbourhoods import Cutter, Effort
from placement.ladder.simple import Simple
from placement.matrix import Bools, Ints, Matrix
from placement.problem import Infeasible, Options, Plan, Problem, SolverFailed
from placement.rules import MigrationBudget, demands_of
from placement.solvers import Outcome
from placement.validate import validate

NEAREST = 20  # candidate hosts of each demand, beside where it runs, where there are more pairs
PAIRS = 200_000  # than these
GAP = 1e-4  # relative
STAYING = 1000.0  # times what moving a copy counts: the least change first, what it costs second


def repair(problem: Problem, options: Options | None = None, budget: int | None = None) -> Plan:
    """Return a plan without violations that moves as few of the running copies as it can.

    `budget` is the most copies that may move. The bound of the plan is 0: the best plan of all may
    be far from what runs.

    Raises:
        Infeasible: no repair within the budget was found; `proven` only where everything was free.
        Malformed: the problem makes no sense.

    """
    options = options or Options()
    since, clock = perf_counter(), Clock.of(options.deadline_s)
    validate(problem)
    asked = problem
    if budget is not None:
        asked = replace(problem, rules=(*problem.rules, MigrationBudget(budget)))
    arrays = _arrays(asked, options)
    weights = {name: weight for name, weight in options.weights.items() if weight}
    moving = {**weights, "migrations": STAYING * max(1.0, *weights.values())}
    assembled = assemble(arrays, options, weights=moving, limits=options.limits)
    now = _now(arrays)
    proven = False
    for free in _wider(arrays, now, asked):
        left = replace(options, deadline_s=clock.left())
        outcome = _solved(assembled, now, free, left)
        if outcome.x is not None:
            plan = plan_of_solution(assembled.model, outcome.x)
            if wrong := violations(asked, plan):
                raise SolverFailed(f"repair gave a wrong plan: {'; '.join(wrong)}")
            seconds = perf_counter() - since
            return judged(problem, plan, weights, bound=0.0, algorithm="repair", solve_s=seconds)
        proven = outcome.infeasible and bool(free.all()) and arrays.pairs <= PAIRS
    within = "" if budget is None else f" that moves {budget} copies at most"
    raise Infeasible({}, (f"no repair was found{within}",), proven=proven)


def _arrays(problem: Problem, options: Options) -> Arrays:
    many = len(problem.hosts) * len(problem.demands) > PAIRS
    nearest = options.nearest or (NEAREST if many else None)
    return compile_problem(problem, nearest=nearest, worst_ms=worst_cap(options.limits))


def _now(arrays: Arrays) -> Ints:
    """Return how many copies run at each pair now, in the first flavour that it has."""
    counts = np.zeros(arrays.pairs, dtype=np.int64)
    hosts = max(len(arrays.hosts), 1)
    key = arrays.pair_class * hosts + arrays.pair_host
    wanted = arrays.now_class * hosts + arrays.now_host
    spot = np.searchsorted(key, wanted)
    here = spot < len(key)
    here[here] = key[spot[here]] == wanted[here]
    counts[spot[here]] = np.minimum(arrays.now_count[here], arrays.most[spot[here]])
    return counts


def _wider(arrays: Arrays, now: Ints, problem: Problem) -> Iterator[Bools]:
    """Yield the classes to free: what is wrong, what is near it, all."""
    wrong = _wrong(arrays, now, problem)
    yield wrong
    hosts = np.zeros(len(arrays.hosts), dtype=bool)
    hosts[arrays.pair_host[wrong[arrays.pair_class]]] = True
    near = wrong.copy()
    near[arrays.pair_class[(now > 0) & hosts[arrays.pair_host]]] = True
    if near.sum() > wrong.sum():
        yield near
    if not near.all():
        yield np.ones(arrays.classes, dtype=bool)


def _wrong(arrays: Arrays, now: Ints, problem: Problem) -> Bools:
    """Return the classes that a violation is about."""
    placed = np.bincount(arrays.pair_class, now, minlength=arrays.classes)
    runs = np.bincount(arrays.now_class, arrays.now_count, minlength=arrays.classes)
    wrong: Bools = np.asarray((placed < arrays.fewest) | (placed != runs))
    used = np.zeros_like(arrays.room)
    np.add.at(used, arrays.pair_host, arrays.need * now[:, None])
    full: Bools = np.any(used > arrays.room + ROUNDING, axis=1)
    wrong[arrays.pair_class[(now > 0) & full[arrays.pair_host]]] = True
    state = State.of(problem, Plan(problem.current, 0.0))
    class_of = arrays.class_of()
    for rule in problem.rules:
        if rule.must and not isinstance(rule, MigrationBudget) and amount(state, rule) > 0:
            wrong[[class_of[name] for name in demands_of(rule)]] = True
    return wrong


def _solved(assembled: Assembled, now: Ints, free: Bools, options: Options) -> Outcome:
    """Return the best solution in which only copies of free classes move."""
    exactly = replace(options, solver="highs-direct", gap=GAP)
    simple = Simple.of(assembled)
    matrix, arrays = assembled.matrix, assembled.model.arrays
    clock = Clock.of(options.deadline_s)
    if simple is None:
        return run(_held(assembled, now, free), exactly, clock)
    x = simple.columns(now)
    model, mine = assembled.model, free[arrays.pair_class]
    chosen = [model.n[mine], model.left_out[free & (model.left_out >= 0)]]
    if model.y is not None:
        chosen.append(model.y[np.unique(arrays.pair_host[mine])])
    columns = np.sort(np.concatenate(chosen))
    cutter = Cutter(matrix)
    part = cutter.part(x, cutter.activity(x), columns, Effort(0, GAP, options.seed))
    outcome = run(part.matrix, exactly, clock)
    if outcome.x is None:
        return outcome
    x[columns] = outcome.x
    return replace(outcome, x=x)


def _held(assembled: Assembled, now: Ints, free: Bools) -> Matrix:
    """Return the model with all copies of classes that are not free where they are."""
    arrays, matrix = assembled.model.arrays, assembled.matrix
    lower, upper = matrix.lower.copy(), matrix.upper.copy()
    held = ~free[arrays.pair_class]
    columns = assembled.model.n[held]
    lower[columns] = upper[columns] = now[held]
    return replace(matrix, lower=lower, upper=upper)

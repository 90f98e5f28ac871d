"""Repair: a plan that has become wrong is made right again by touching only what is wrong.

What runs is `problem.current`. Copies on hosts that are gone or may not be used, copies on hosts
that are too full, and demands of broken must-rules are freed; everything else stays. Where that is
not enough, all copies of those demands are freed, then of those beside them, then everything: small
models before a large one. A budget bounds how many copies may move in all. The idea is BtrPlace's
repair mode (F. Hermenier and others, BtrPlace: a flexible consolidation manager, 2013).
"""

from collections.abc import Iterator
from dataclasses import replace
from time import perf_counter

import numpy as np

from placement.amounts import State, amount
from placement.arrays import Arrays, compile_problem
from placement.assemble import Assembled, assemble
from placement.check import violations
from placement.clash import infeasible
from placement.exact import Clock, run
from placement.expand import judged, plan_of_solution
from placement.latencies import worst_cap
from placement.matrix import ROUNDING, Bools, Ints, Matrix
from placement.problem import Infeasible, Options, Plan, Problem, SolverFailed
from placement.rules import MigrationBudget, demands_of
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
    nearest = _nearest(asked, options)
    everywhere = nearest is None
    arrays = compile_problem(asked, nearest=nearest, worst_ms=worst_cap(options.limits))
    weights = {name: weight for name, weight in options.weights.items() if weight}
    moving = {**weights, "migrations": STAYING * max(1.0, *weights.values())}
    assembled = assemble(arrays, options, weights=moving, limits=options.limits)
    now = _now(arrays)
    proven = False
    for low, high in _wider(arrays, now, asked):
        held = _held(assembled, low, high)
        outcome = run(held, replace(options, solver="highs-direct", gap=GAP), clock)
        if outcome.x is not None:
            plan = plan_of_solution(assembled.model, outcome.x)
            if wrong := violations(asked, plan):
                raise SolverFailed(f"repair gave a wrong plan: {'; '.join(wrong)}")
            seconds = perf_counter() - since
            return judged(problem, plan, weights, bound=0.0, algorithm="repair", solve_s=seconds)
        proven = (
            outcome.infeasible
            and bool((high == arrays.most).all())
            and not low.any()
            and everywhere
        )
    if proven and budget is None:
        raise infeasible(problem, options)
    within = "" if budget is None else f" that moves {budget} copies at most"
    raise Infeasible({}, (f"no repair was found{within}",), proven=proven)


def _nearest(problem: Problem, options: Options) -> int | None:
    many = len(problem.hosts) * len(problem.demands) > PAIRS
    return options.nearest or (NEAREST if many else None)


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


def _wider(arrays: Arrays, now: Ints, problem: Problem) -> Iterator[tuple[Ints, Ints]]:
    """Yield the fewest and the most copies at each pair: what is wrong is free, then more, all."""
    classes, pairs = _wrong(arrays, now, problem)
    touched = classes.copy()
    touched[arrays.pair_class[pairs]] = True
    involved = touched[arrays.pair_class]
    high = np.where(involved, arrays.most, now)
    yield np.where(pairs, 0, now), high
    near: Bools = np.zeros(len(arrays.hosts), dtype=bool)
    near[arrays.pair_host[involved]] = True
    more = involved.copy()
    more[np.isin(arrays.pair_class, arrays.pair_class[(now > 0) & near[arrays.pair_host]])] = True
    yield np.where(involved, 0, now), high
    yield np.where(more, 0, now), np.where(more, arrays.most, now)
    yield np.zeros_like(now), arrays.most


def _wrong(arrays: Arrays, now: Ints, problem: Problem) -> tuple[Bools, Bools]:
    """Return the classes with copies to place or to end, and the pairs that copies must leave."""
    placed = np.bincount(arrays.pair_class, now, minlength=arrays.classes)
    runs = np.bincount(arrays.now_class, arrays.now_count, minlength=arrays.classes)
    classes: Bools = np.asarray((placed < arrays.fewest) | (placed != runs))
    pairs: Bools = np.asarray((placed > arrays.copies)[arrays.pair_class] & (now > 0))
    used = np.zeros_like(arrays.room)
    np.add.at(used, arrays.pair_host, arrays.need * now[:, None])
    full: Bools = np.any(used > arrays.room + ROUNDING, axis=1)
    pairs |= (now > 0) & full[arrays.pair_host]
    state = State.of(problem, Plan(problem.current, 0.0))
    class_of = arrays.class_of()
    for rule in problem.rules:
        if rule.must and not isinstance(rule, MigrationBudget) and amount(state, rule) > 0:
            broken = [class_of[name] for name in demands_of(rule)]
            classes[broken] = True
            pairs |= np.isin(arrays.pair_class, broken)
    return classes, pairs


def _held(assembled: Assembled, low: Ints, high: Ints) -> Matrix:
    """Return the model with so many copies at each pair, at least and at most."""
    matrix, n = assembled.matrix, assembled.model.n
    lower, upper = matrix.lower.copy(), matrix.upper.copy()
    lower[n], upper[n] = low, high
    return replace(matrix, lower=lower, upper=upper)

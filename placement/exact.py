"""The exact algorithm: the whole model, solved to the gap or until the deadline.

One objective is one model. A lexicographic order is one model per term, each with the terms before
as limits. The worst latency is found by bisection over the latencies that occur, since its
relaxation says nothing.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from time import perf_counter

import numpy as np

from placement.arrays import compile_problem
from placement.assemble import Assembled, assemble
from placement.evaluate import evaluate
from placement.expand import plan_of_solution
from placement.latencies import UNREACHABLE_MS, latency_table, worst_cap
from placement.matrix import Floats, Matrix, components
from placement.objectives import WORST
from placement.problem import Malformed, Options, Plan, Problem
from placement.solvers import COARSE, FINE, Limits, Outcome, solver
from placement.tracing import later

PART_COLUMNS = 2_000  # independent parts are solved in batches of about that many columns


@dataclass(frozen=True, slots=True)
class Clock:
    """When time is up, by ``time.perf_counter``."""

    end: float

    @classmethod
    def of(cls, seconds: float) -> "Clock":
        """Return a clock that starts now."""
        return cls(perf_counter() + seconds)

    def left(self) -> float:
        """Return the seconds left, a little at least."""
        return max(0.01, self.end - perf_counter())


class NoPlan(Exception):  # noqa: N818
    """There is no plan within the limits of one stage (`proven`), or none was found in time."""

    def __init__(self, *, proven: bool) -> None:
        super().__init__("no plan" if proven else "no plan was found in time")
        self.proven = proven


def exact(problem: Problem, options: Options) -> Plan:
    """Return the best plan found and the bound proven, for weights, an order, or limits.

    Raises:
        NoPlan: there is none, or none was found before the deadline.
        Malformed: the options ask for the worst latency in a sum.

    """
    clock = Clock.of(options.deadline_s)
    weights = {name: weight for name, weight in options.weights.items() if weight}
    if WORST in weights and (len(weights) > 1 or options.order):
        raise Malformed(WORST, "can be a limit, or alone in weights or in an order, not in a sum")
    stages: list[Mapping[str, float]] = [{name: 1.0} for name in options.order]
    if weights or not stages:
        stages.append(weights)
    limits = dict(options.limits)
    bound: float | None = None
    plan = options.start
    build_s = solve_s = 0.0
    for stage in stages:
        try:
            now = replace(options, start=plan, limits=limits)
            plan = (
                _bisected(problem, now, clock)
                if WORST in stage
                else _stage(problem, now, stage, clock)
            )
        except NoPlan:
            if bound is None or plan is None:
                raise
            break  # out of time: the terms before stay as good as they are
        build_s, solve_s = build_s + plan.build_s, solve_s + plan.solve_s
        bound = plan.bound if bound is None else bound
        terms = evaluate(problem, plan)
        for name in stage if options.order else ():
            limits[name] = min(limits.get(name, math.inf), _loose(terms[name], options.slack))
    if plan is None:
        raise NoPlan(proven=False)
    trace = plan.trace if len(stages) == 1 else ()  # else the values are of several terms
    return replace(plan, bound=bound or 0.0, build_s=build_s, solve_s=solve_s, trace=trace)


def _loose(value: float, slack: float) -> float:
    return value * (1 + slack) + 1e-6


def _stage(problem: Problem, options: Options, weights: Mapping[str, float], clock: Clock) -> Plan:
    """Return the plan of one objective, with its bound and times."""
    since = perf_counter()
    arrays = compile_problem(problem, nearest=options.nearest, worst_ms=worst_cap(options.limits))
    assembled = assemble(arrays, options, weights=weights, limits=options.limits)
    built = perf_counter()
    start = None if options.start is None else start_of(assembled, options.start)
    outcome = run(assembled.matrix, options, clock, start)
    wide = options.nearest is not None and _restricts(assembled, options.nearest)
    if outcome.x is None:
        if wide and options.nearest is not None:
            more = replace(options, nearest=2 * options.nearest)
            return _stage(problem, more, weights, clock)
        raise NoPlan(proven=outcome.infeasible)
    return replace(
        plan_of_solution(assembled.model, outcome.x),
        bound=0.0 if wide or math.isinf(outcome.bound) else outcome.bound,
        solver=outcome.solver,
        build_s=built - since,
        solve_s=perf_counter() - built,
        trace=later(outcome.trace, built - since),
    )


def _restricts(assembled: Assembled, nearest: int) -> bool:
    """Return whether some class may have more hosts than it was given."""
    arrays = assembled.model.arrays
    return bool(arrays.classes) and nearest < len(arrays.hosts)


def _bisected(problem: Problem, options: Options, clock: Clock) -> Plan:
    """Return a plan whose worst latency is least: one question of feasibility per step."""
    rated = {
        population: 1
        for demand in problem.demands
        if demand.replicas
        for population, rate in demand.rates.items()
        if rate > 0
    }
    table = np.minimum(latency_table(problem, tuple(rated)), UNREACHABLE_MS)
    steps = np.unique(np.concatenate((table.ravel(), [0.0, UNREACHABLE_MS])))
    steps = steps[steps <= options.limits.get(WORST, math.inf)]
    low, high = 0, len(steps) - 1
    best = _feasible(problem, options, float(steps[high]), clock)
    build_s, solve_s, late = best.build_s, best.solve_s, False
    while low < high:
        middle = (low + high) // 2
        try:
            found = _feasible(problem, options, float(steps[middle]), clock)
        except NoPlan as no:
            late = late or not no.proven
            low = middle + 1
            continue
        best, high = found, middle
        build_s, solve_s = build_s + found.build_s, solve_s + found.solve_s
    bound = 0.0 if late else float(steps[high])
    return replace(best, bound=bound, build_s=build_s, solve_s=solve_s)


def _feasible(problem: Problem, options: Options, worst_ms: float, clock: Clock) -> Plan:
    return _stage(problem, replace(options, limits={**options.limits, WORST: worst_ms}), {}, clock)


# --- one matrix ---------------------------------------------------------------------------------


def run(matrix: Matrix, options: Options, clock: Clock, start: Floats | None = None) -> Outcome:
    """Solve a matrix, part by part where parts share nothing."""
    row_part, part = components(matrix)
    sizes = np.bincount(part) if len(part) else np.zeros(0, dtype=np.int64)
    batch = np.cumsum(sizes) // PART_COLUMNS
    if len(sizes) < 2 or batch[-1] == batch[0]:
        return _solved(matrix, options, clock, start)
    empty = row_part < 0
    if not ((matrix.row_lower[empty] <= 0) & (matrix.row_upper[empty] >= 0)).all():
        return Outcome(None, math.inf, infeasible=True, solver="presolve")
    x = np.zeros(matrix.columns)
    bound, name = matrix.constant, ""
    for number in np.unique(batch):
        columns = batch[part] == number
        rows = np.zeros(matrix.rows, dtype=bool)
        rows[~empty] = batch[row_part[~empty]] == number
        begin = None if start is None else start[columns]
        outcome = _solved(matrix.cut(rows, columns), options, clock, begin)
        if outcome.x is None:
            return outcome
        x[columns] = outcome.x
        bound, name = bound + outcome.bound, outcome.solver
    return Outcome(x, bound, infeasible=False, solver=name)


def _solved(matrix: Matrix, options: Options, clock: Clock, start: Floats | None) -> Outcome:
    bounded = bool(options.order or options.limits.keys() - {WORST})
    tolerance = FINE if bounded else COARSE
    limits = Limits(clock.left(), options.gap, options.threads, options.seed, tolerance)
    return solver(options.solver, matrix.columns)(matrix, limits, start)


def start_of(assembled: Assembled, plan: Plan) -> Floats | None:
    """Return a plan as values of the model's columns, those it says nothing about not a number.

    None where it uses hosts that the model has not: then it is no start.
    """
    arrays = assembled.model.arrays
    number = {name: h for h, name in enumerate(arrays.hosts)}
    spot = {
        key: i
        for i, key in enumerate(
            zip(
                arrays.pair_class.tolist(),
                arrays.pair_host.tolist(),
                arrays.pair_flavour.tolist(),
                strict=True,
            )
        )
    }
    counts = np.zeros(arrays.pairs)
    for name, c in arrays.class_of().items():
        names = [flavour.name for flavour in arrays.demand(c).flavours] or [""]
        hosts = plan.hosts.get(name, ())
        chosen = plan.flavours.get(name) or (names[0],) * len(hosts)
        for host, flavour in zip(hosts, chosen, strict=False):
            f = names.index(flavour) if flavour in names else 0
            pair = spot.get((c, number.get(host, -1), f))
            if pair is None:
                return None
            counts[pair] += 1
    x = np.full(assembled.matrix.columns, math.nan)
    x[assembled.model.n] = counts
    return x


def relaxed_bound(problem: Problem, options: Options, clock: Clock) -> float:
    """Return the bound of the LP relaxation over all pairs; 0 if it is not found in time.

    Where only the nearest hosts are candidates, missing pairs are priced in until none is worth it.
    """
    from placement import pricing  # noqa: PLC0415 - with the 40 MB of HiGHS, only for who solves
    from placement.solvers.highs import relax  # noqa: PLC0415 - as above

    weights = {name: weight for name, weight in options.counts.items() if weight}
    if WORST in weights:
        return 0.0
    worst_ms = worst_cap(options.limits)
    every = compile_problem(problem, worst_ms=worst_ms)
    nearest, extra = options.nearest, frozenset[tuple[str, str]]()
    while True:
        few = every
        if nearest is not None:
            few = compile_problem(problem, nearest=nearest, worst_ms=worst_ms, extra=extra)
        assembled = assemble(few, options, weights=weights, limits=options.limits)
        if not assembled.matrix.columns:
            return assembled.matrix.constant
        if nearest is not None and not pricing.sure(assembled):
            nearest = None
            continue
        found = relax(assembled.matrix, Limits(clock.left(), seed=options.seed))
        if found is None and nearest is not None:
            nearest = None if nearest >= len(every.hosts) else 2 * nearest
        elif found is None or clock.left() <= 0.01:
            return 0.0 if found is None or nearest is not None else found.bound
        else:
            more = (
                frozenset()
                if nearest is None
                else pricing.missing(every, assembled, found, replace(options, weights=weights))
            )
            if more <= extra:
                return found.bound
            extra |= more

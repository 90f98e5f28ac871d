"""Several objectives: scaled weighted sums, the augmented ε-constraint method, and whole fronts.

A lexicographic order and a plain ε-constraint are options of `placement.solve` already (`order` and
`limits`). Here is what asks many questions: the payoff table, by which terms get a common scale;
AUGMECON over a grid; the exact front of two terms; and fronts of plans that NSGA-II found.

A weighted sum finds only plans on the convex hull of the front (supported ones).

G. Mavrotas, "Effective implementation of the ε-constraint method in multi-objective mathematical
programming problems", Applied Mathematics and Computation 213(2), 2009.
"""

import math
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product
from typing import Any

import numpy as np

from placement.arrays import compile_problem
from placement.assemble import Assembled, assemble
from placement.check import violations
from placement.evaluate import UNITS
from placement.exact import Clock
from placement.expand import judged, plan_of_solution
from placement.front import ParetoFront
from placement.latencies import worst_cap
from placement.matrix import Floats
from placement.objectives import WORST
from placement.problem import Infeasible, Malformed, Options, Plan, Problem, SolverFailed
from placement.solvers import FINE, Limits, highs
from placement.solving import solve
from placement.validate import check_options, validate

AUGMENTED = 1e-3  # what the other terms count in AUGMECON: their share of the first one's range
STEP = 10 * FINE  # of its largest factor: what tolerances buy, so a term must fall by more
UNLIMITED = 1e18
LATE_S = 0.02  # no other point is begun with so little time left

Progress = Callable[[int, float], None]  # points found so far, and the share that is searched
PROVEN = 1e-6  # a relative gap that is rounding only
TINY = 1e-6  # values nearer than a solver's tolerance are one


@dataclass(frozen=True, slots=True)
class Payoff:
    """The best value of each term (`ideal`), and the worst it has where others are best (`nadir`).

    `plans[term]` is best in that term, and then in the others in their order. With more than two
    terms the nadir is an estimate, as always with payoff tables.
    """

    plans: Mapping[str, Plan]
    ideal: Mapping[str, float]
    nadir: Mapping[str, float]

    def weights(self, shares: Mapping[str, float]) -> dict[str, float]:
        """Return weights for `Options` that make each term count by its share, whatever its unit.

        A term whose ideal is its nadir is in conflict with nothing, and counts by itself.
        """
        return {
            name: share / span if (span := self.nadir[name] - self.ideal[name]) > 0 else share
            for name, share in shares.items()
        }


def payoff(problem: Problem, terms: Sequence[str], options: Options | None = None) -> Payoff:
    """Return the payoff table: one lexicographic plan per term.

    Raises:
        Infeasible, Malformed, SolverFailed: as `placement.solve` does.

    """
    options = _checked(problem, terms, options)
    plans = {
        name: solve(
            problem,
            replace(options, weights={}, order=(name, *(t for t in terms if t != name))),
        )
        for name in terms
    }
    values = {name: [plan.terms[name] for plan in plans.values()] for name in terms}
    return Payoff(
        plans,
        ideal={name: min(found) for name, found in values.items()},
        nadir={name: max(found) for name, found in values.items()},
    )


def weighted(problem: Problem, shares: Mapping[str, float], options: Options | None = None) -> Plan:
    """Return the plan of least weighted sum, each term scaled to its range in the payoff table.

    Raises:
        Infeasible, Malformed, SolverFailed: as `placement.solve` does.

    """
    _summed(shares)
    options = _checked(problem, tuple(shares), options)
    weights = payoff(problem, tuple(shares), options).weights(shares)
    return solve(problem, replace(options, weights=weights, order=()))


def augmecon(
    problem: Problem, terms: Sequence[str], options: Options | None = None, *, points: int = 8
) -> ParetoFront:
    """Return a front by the augmented ε-constraint method, for two terms or more.

    The first term is minimised while the others are bounded by each step of a grid between their
    nadir and ideal. They count a little in the objective too, so that no plan is found that another
    equals in the first term and beats in the rest. A step that a plan has jumped over is skipped.

    Raises:
        Infeasible, Malformed, SolverFailed: as `placement.solve` does.

    """
    _summed(terms)
    options = _checked(problem, terms, options)
    table = payoff(problem, terms, options)
    first, *rest = terms
    span = {name: table.nadir[name] - table.ideal[name] for name in terms}
    little = {n: AUGMENTED * span[first] / span[n] if span[n] > 0 else 1e-6 for n in rest}
    weights = {first: 1.0} | {name: max(weight, 1e-9) for name, weight in little.items()}
    grids = [
        np.linspace(table.nadir[n], table.ideal[n], points if span[n] > 0 else 1) for n in rest
    ]
    plans = list(table.plans.values())
    empty: list[tuple[float, ...]] = []
    for limits in product(*(grid.tolist() for grid in grids)):
        if any(all(a <= b for a, b in zip(limits, other, strict=True)) for other in empty):
            continue  # a looser bound has no plan already
        if _known(plans, rest, limits, points, span):
            continue
        bounds = {
            n: limit + 1e-9 * max(1.0, abs(limit)) for n, limit in zip(rest, limits, strict=True)
        }
        now = replace(options, weights=weights, order=(), limits={**options.limits, **bounds})
        try:
            plans.append(solve(problem, now))
        except Infeasible as error:
            if not error.proven:
                raise
            empty.append(limits)
    return ParetoFront.of(terms, plans)


def _known(
    plans: list[Plan],
    rest: Sequence[str],
    limits: Sequence[float],
    points: int,
    span: Mapping[str, float],
) -> bool:
    """Return whether the last plan keeps these limits, too: asking again would give it again."""
    if len(rest) > 1 or not plans:
        return False
    (name,), (limit,) = rest, limits
    step = span[name] / max(1, points - 1)
    last = plans[-1].terms[name]
    return len(plans) > len(rest) + 1 and last <= limit and limit - last < points * step


def nsga2_front(
    problem: Problem, terms: Sequence[str], options: Options | None = None
) -> ParetoFront:
    """Return the front that NSGA-II finds over any terms; every plan is judged.

    Raises:
        Infeasible: it found no plan at all.
        Malformed: the problem has something that NSGA-II ignores.

    """
    from placement.heuristics.evolution import evolve  # noqa: PLC0415 - only for who asks
    from placement.registry import algorithm, refuse  # noqa: PLC0415 - as above

    options = _checked(problem, terms, options)
    refuse(algorithm("nsga2"), problem, options)
    found = [each.plan for each in evolve(problem, tuple(terms), options)]
    return ParetoFront.of(terms, [_judged(problem, plan, terms, "nsga2") for plan in found])


def front(
    problem: Problem,
    terms: Sequence[str],
    options: Options | None = None,
    *,
    points: int | None = None,
    progress: Progress | None = None,
) -> ParetoFront:
    """Return the exact front of two terms, or of more terms the one that NSGA-II finds.

    With `points` it is a grid of so many bounds on the second term, with all the plans between left
    out; else all points of the front. `progress` is called after each point of an exact front.

    Raises:
        Infeasible, Malformed, SolverFailed: as `placement.solve` does.

    """
    if len(terms) != 2:
        return nsga2_front(problem, terms, options)
    return exact_front(problem, (terms[0], terms[1]), options, points=points, progress=progress)


# --- the exact front of two terms ---------------------------------------------------------------


def exact_front(
    problem: Problem,
    terms: tuple[str, str],
    options: Options | None = None,
    *,
    points: int | None = None,
    progress: Progress | None = None,
) -> ParetoFront:
    """Return the front of two terms, from one HiGHS object whose bounds and costs change.

    Each point is found in two steps: the least first term within the bound on the second, then the
    least second term with that first one. The bound then falls below it, until there is no plan.
    With `points` the bound rises over a grid instead, where the last plan is always a start.
    The worst latency, which has few values, is bounded below each of them in turn.
    The deadline is for the whole; a quarter of it for each end of the front.
    The front is `proven` if all points were asked for and none ran out of time or gap.
    `progress` is called after each point.

    Raises:
        Infeasible: there is no plan.
        Malformed: the terms are not two; and as `placement.solve` does.
        SolverFailed: as `placement.solve` does.

    """
    options = _checked(problem, terms, options)
    if len(terms) != 2:
        raise Malformed("terms", f"an exact front is one of two terms, not {len(terms)}; use front")
    clock = Clock.of(options.deadline_s)
    if WORST in terms:
        return _front_of_worst(problem, terms, options, progress)
    sharp = replace(options, deadline_s=options.deadline_s / 4, slack=0.0)
    ends = payoff(problem, terms, sharp)
    least = ends.plans[terms[0]].bound
    plans = [_judged(problem, plan, terms, "exact", least) for plan in ends.plans.values()]
    sure = options.gap == 0 and all(plan.gap < PROVEN for plan in ends.plans.values())
    if any(ends.nadir[name] - ends.ideal[name] <= TINY for name in terms):
        return ParetoFront.of(terms, plans, proven=sure)  # one plan is best in both
    sweep = _Sweep.of(problem, terms, replace(options, deadline_s=clock.left()))
    low, high = ends.ideal[terms[1]], ends.nadir[terms[1]]
    found = sweep.rising(low, high, points) if points else sweep.falling(low, high)
    for plan in found:
        plans.append(_judged(problem, plan, terms, "exact", least))
        if progress is not None:
            there = (plans[-1].terms[terms[1]] - low) / (high - low)
            progress(len(plans) - 2, min(1.0, max(0.0, there if points else 1.0 - there)))
    return ParetoFront.of(terms, plans, proven=sure and points is None and not sweep.late)


def _front_of_worst(
    problem: Problem, terms: tuple[str, str], options: Options, progress: Progress | None
) -> ParetoFront:
    """Return the front of the worst latency and another term: less of the one in each step."""
    clock = Clock.of(options.deadline_s)
    (other,) = set(terms) - {WORST}
    plans: list[Plan] = []
    sure, limits = options.gap == 0, dict(options.limits)
    while not plans or plans[-1].terms[WORST] > TINY:
        if plans:
            limits[WORST] = plans[-1].terms[WORST] - TINY
        now = replace(options, weights={}, order=(other, WORST), limits=limits)
        try:
            plans.append(solve(problem, replace(now, deadline_s=clock.left())))
        except Infeasible as error:
            if not plans:
                raise
            sure = sure and error.proven
            break
        sure = sure and plans[-1].gap < PROVEN
        if progress is not None:
            progress(len(plans), 1.0 - plans[-1].terms[WORST] / max(plans[0].terms[WORST], TINY))
        if clock.left() <= LATE_S:
            sure = sure and plans[-1].terms[WORST] <= TINY
            break
    least = plans[0].bound
    if terms[0] == WORST:
        least = plans[-1].terms[WORST] if sure else 0.0
    found = [_judged(problem, plan, terms, "exact", least) for plan in plans]
    return ParetoFront.of(terms, found, proven=sure)


@dataclass(slots=True, eq=False)
class _Sweep:
    """The loaded model of two terms, with a row that bounds each."""

    problem: Problem
    assembled: Assembled
    highs: Any
    rows: tuple[int, int]
    costs: tuple[Floats, Floats]
    shift: tuple[float, float]
    limits: tuple[float, float]  # that hold anyway
    clock: Clock
    last: Floats | None = None
    late: bool = False

    @classmethod
    def of(cls, problem: Problem, terms: tuple[str, str], options: Options) -> "_Sweep":
        loose = {**dict.fromkeys(terms, UNLIMITED), **options.limits}
        arrays = compile_problem(problem, worst_ms=worst_cap(options.limits))
        assembled = assemble(arrays, options, weights={terms[0]: 1.0, terms[1]: 1.0}, limits=loose)
        matrix = assembled.matrix
        first = {block.family: block.first for block in matrix.row_blocks}
        rows = [first[f"limit_{name}"] for name in terms]
        linear = [assembled.terms[name] for name in terms]
        clock = Clock.of(options.deadline_s)
        loaded = highs.load(
            matrix, Limits(clock.left(), options.gap, options.threads, options.seed, FINE)
        )
        costs = [each.dense(matrix.columns) for each in linear]
        shift = [each.constant for each in linear]
        return cls(
            problem,
            assembled,
            loaded,
            (rows[0], rows[1]),
            (costs[0], costs[1]),
            (shift[0], shift[1]),
            (loose[terms[0]], loose[terms[1]]),
            clock,
        )

    def falling(self, low: float, high: float) -> Iterator[Plan]:
        """Yield a plan for every point, the second term falling."""
        step = max(STEP * float(np.abs(self.costs[1]).max(initial=0.0)), TINY)
        bound = high
        while bound >= low - step / 2 and (x := self._point(bound)) is not None:
            yield plan_of_solution(self.assembled.model, x)
            if self._over():
                return
            bound = min(bound, self._value(1, x)) - step

    def rising(self, low: float, high: float, points: int) -> Iterator[Plan]:
        """Yield a plan for each bound of a grid, the bound rising."""
        for bound in np.linspace(low, high, points).tolist():
            if (x := self._point(bound)) is not None:
                yield plan_of_solution(self.assembled.model, x)
            if self._over():
                return

    def _over(self) -> bool:
        """Return whether time is up, though small models are solved in what is always left."""
        self.late = self.late or self.clock.left() <= LATE_S
        return self.clock.left() <= LATE_S

    def _point(self, bound: float) -> Floats | None:
        """Return the solution of least first term, then least second, within a bound on that."""
        self._bound(0, self.limits[0])
        self._bound(1, min(bound + 1e-9 * max(1.0, abs(bound)), self.limits[1]))
        if (x := self._least(0, self.last)) is None:
            return None
        least = self._value(0, x)
        self._bound(0, min(least + 1e-7 * max(1.0, abs(least)), self.limits[0]))
        again = self._least(1, x)
        self.last = x if again is None else again
        return self.last

    def _bound(self, term: int, limit: float) -> None:
        self.highs.changeRowBounds(self.rows[term], -math.inf, limit - self.shift[term])

    def _value(self, term: int, x: Floats) -> float:
        return float(self.costs[term] @ x) + self.shift[term]

    def _least(self, term: int, begin: Floats | None) -> Floats | None:
        """Return the columns with the least of one term; None if there is no plan or no time."""
        matrix = self.assembled.matrix
        number = np.arange(matrix.columns, dtype=np.int32)
        self.highs.changeColsCost(matrix.columns, number, self.costs[term])
        self.highs.changeObjectiveOffset(self.shift[term])
        self.highs.setOptionValue("presolve", "choose")
        # HiGHS limits each run of a MIP, but of an LP all runs together
        before = 0.0 if matrix.integer.any() else self.highs.getRunTime()
        self.highs.setOptionValue("time_limit", before + self.clock.left())
        if begin is not None:
            highs.begin(self.highs, begin)
        highs.run(self.highs)
        found = highs.read(self.highs, matrix, "highs-direct")
        self.late = self._over() or self.late or (found.x is None and not found.infeasible)
        return found.x


# --- parts --------------------------------------------------------------------------------------


def _checked(problem: Problem, terms: Sequence[str], options: Options | None) -> Options:
    """Return the options, once problem, terms and options make sense."""
    options = options or Options()
    validate(problem)
    if isinstance(terms, str) or not terms or len(set(terms)) < len(terms):
        raise Malformed("terms", f"at least one term is needed, each once, not {terms!r}")
    if unknown := [name for name in terms if name not in UNITS]:
        raise Malformed("terms", f"no such term: {unknown[0]!r}; known: {', '.join(UNITS)}")
    check_options(replace(options, order=()), UNITS)
    return options


def _summed(terms: Collection[str]) -> None:
    if WORST in terms:
        raise Malformed("terms", f"{WORST} cannot be summed; use exact_front or nsga2_front")


def _judged(
    problem: Problem, plan: Plan, terms: Sequence[str], algorithm: str, least: float = 0.0
) -> Plan:
    """Return a plan with its terms, valued by the first one, of which `least` is a bound.

    `SolverFailed` if it is wrong.
    """
    if wrong := violations(problem, plan):
        raise SolverFailed(f"{algorithm} gave a wrong plan: {'; '.join(wrong)}")
    return judged(problem, plan, {terms[0]: 1.0}, bound=least, algorithm=algorithm)

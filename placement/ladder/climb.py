"""The ladder itself: bind, greedy, rounding, prices, neighbourhoods, exact; each from the last.

`climb` yields a `Step` whenever there is a better plan or a better bound. Whoever takes the last
step within the deadline has the best of all rungs, and a bound that is proven.

| rung | needs | what it does |
|---|---|---|
| `bind` | a simple model | demands as they come, each where it is cheapest just then |
| `greedy` | a simple model | large demands first, hosts charged by share |
| `rounding` | a simple model | LP solution rounded, then drop and shift |
| `restricted` | any other model | what the LP has whole is kept, the rest is a small MILP |
| `prices` | a simple model | the bound over all pairs; missing pairs added, links tightened |
| `patterns` | a simple model with one scarce resource | column generation and dives |
| `knapsacks` | a simple model | where copies are of few kinds: the bound of whole copies |
| `neighbourhoods` | | large neighbourhood search, parts in parallel |
| `exact` | | the whole model, from the best plan |
"""

import math
from collections.abc import Iterator
from concurrent.futures import Executor
from dataclasses import dataclass, replace
from time import perf_counter

import numpy as np

from placement.arrays import Arrays, compile_problem, least_of_each
from placement.assemble import Assembled, assemble
from placement.exact import Clock, NoPlan, exact, run, start_of
from placement.expand import plan_of_solution
from placement.ladder import moves
from placement.ladder.knapsacks import Knapsacks, worthwhile
from placement.ladder.patterns import Patterns, whole_knapsacks
from placement.ladder.pool import pool
from placement.ladder.prices import Prices, everywhere, joined, left_out, only, priced, renamed
from placement.ladder.relaxing import Relaxing, whole
from placement.ladder.search import Search
from placement.ladder.simple import Board, Simple
from placement.latencies import worst_cap
from placement.matrix import Floats, Ints, Matrix
from placement.objectives import WORST
from placement.problem import Malformed, Options, Plan, Problem
from placement.solvers import Limits, Outcome
from placement.solvers import highs as direct
from placement.tracing import Watch

NEAREST = 20  # candidate hosts per class where there are more pairs than PAIRS
PAIRS = 50_000
COST_PAIRS = 200_000  # the same where no demand has requests: what is cheap is then less sure
TIGHTENINGS = 6  # rounds of adding links and missing pairs
STALE = 3e-4  # relative: a round that tightens the bound by less is the last
WIDENINGS = 2  # of them those that may add missing pairs, which solves the LP anew
ROUNDS_PER_STEP = 12  # rounds of the search between two steps of the knapsacks, 10 s at 1,000 hosts
MATTERS = 1e-3  # of the bound: what missing pairs must cost it to be added
DECISIVE = 0.1  # of the value: that much, and they are added in every round
EXACT_PAIRS = 5_000  # up to so many `auto` is the exact algorithm
EXACT_COLUMNS = 20_000  # up to so many columns the exact model is worth a try at the end
SMALL_COLUMNS = 2_000  # up to so many it is solved at once
EXACT_SHARE = 0.3  # of the time left for a restricted model
FIRST_SHARE = 0.15  # of the time for the exact model at once, where patterns could follow
DIVES_SHARE = 0.3  # of the time left for dives
DIVES = 4  # dives in a row without a better plan: the last
SEARCH_SHARE = 0.35  # of the time left for the search, where the exact model may prove its plan


@dataclass(frozen=True, slots=True, eq=False)
class Step:
    """A plan and a bound, `seconds` after the start; `value` is infinite while there is no plan."""

    rung: str
    seconds: float
    value: float
    bound: float
    assembled: Assembled
    x: Floats | None

    @property
    def gap(self) -> float:
        """Return the relative distance of value and bound."""
        if math.isinf(self.value):
            return math.inf
        return (self.value - self.bound) / max(abs(self.value), 1e-9)

    def plan(self) -> Plan:
        """Return the bare plan; `placement.expand.judged` fills in its terms."""
        if self.x is None:
            raise NoPlan(proven=False)
        plan = plan_of_solution(self.assembled.model, self.x)
        return replace(plan, bound=max(self.bound, 0.0), solver="highs-direct")


def ladder(problem: Problem, options: Options) -> Plan:
    """Return the best plan of the ladder within the deadline, and the bound that is proven.

    Raises:
        NoPlan: there is none, or none was found before the deadline.
        Malformed: the options ask for the worst latency in a sum.

    """
    watch, last = Watch(), None
    for step in climb(problem, options):
        watch.note(step.value, step.bound)
        last = step
    if last is None:
        raise NoPlan(proven=False)
    return replace(last.plan(), solve_s=perf_counter() - watch.since, trace=watch.trace())


def auto(problem: Problem, options: Options) -> Plan:
    """Return the plan of the exact algorithm where the model is small, else of the ladder.

    Terms in order, and the worst latency, are for the exact algorithm whatever the size.
    """
    pairs = len(problem.hosts) * sum(max(1, len(d.flavours)) for d in problem.demands)
    if pairs <= EXACT_PAIRS or options.order or options.weights.get(WORST):
        return exact(problem, options)
    return ladder(problem, options)


def climb(problem: Problem, options: Options, executor: Executor | None = None) -> Iterator[Step]:
    """Yield better and better plans and bounds of a validated problem.

    `options.threads` processes solve parts at once, or those of `executor`.

    Raises:
        NoPlan: it is proven that there is none.
        Malformed: the options ask for the worst latency in a sum.

    """
    if options.weights.get(WORST):
        raise Malformed(WORST, "cannot be summed; use the algorithm exact")
    climber = Climber(problem, options)
    yield from climber.climb(executor)


class Climber:
    """One climb: the model, the best solution, and the best bound so far."""

    def __init__(
        self,
        problem: Problem,
        options: Options,
        *,
        extra: frozenset[tuple[str, str]] = frozenset(),
    ) -> None:
        self.since = perf_counter()
        self.clock = Clock.of(options.deadline_s)
        self.options = options
        self.weights = {name: weight for name, weight in options.weights.items() if weight}
        self.nearest = _nearest(problem, options)
        self.arrays = compile_problem(
            problem, nearest=self.nearest, worst_ms=worst_cap(options.limits), extra=extra
        )
        self.assembled = self._assembled()
        self.simple = Simple.of(self.assembled)
        few = self.arrays.classes * len(problem.hosts) <= PAIRS
        if self.nearest is not None and options.nearest is None and (few or self.simple is None):
            self.nearest = None  # nothing prices missing pairs in where there are other rows
            self.arrays = compile_problem(problem, worst_ms=worst_cap(options.limits))
            self.assembled = self._assembled()
            self.simple = Simple.of(self.assembled)
        self.x: Floats | None = None
        self.value = math.inf
        self.bound = 0.0
        self.prices: Prices | None = None
        self.patterns: Patterns | None = None

    # --- the rungs, in order ------------------------------------------------------------------

    def climb(self, executor: Executor | None) -> Iterator[Step]:
        """Yield the steps of all rungs."""
        if not self.assembled.matrix.columns:
            yield from self._exact()
            return
        if self.simple is not None:
            yield from self.boards()
        elif self._begin():
            yield self._step("bind")
        if self.nearest is None and self.assembled.matrix.columns <= SMALL_COLUMNS:
            patterned = self.simple is not None and whole_knapsacks(self.simple) is not None
            yield from self._exact(FIRST_SHARE if patterned else 1.0)
            if not patterned or self._done:
                return
        if self.simple is not None:
            yield from self.rounding()
            yield from self._patterns()
        else:
            yield from self._restricted()
        if self.x is not None and not self._done:
            yield from self._neighbourhoods(executor)
        if not self._done and (self.x is None or self._is_small):
            yield from self._exact()

    @property
    def _is_small(self) -> bool:
        return self.assembled.matrix.columns <= EXACT_COLUMNS

    @property
    def _done(self) -> bool:
        gap = (self.value - self.bound) / max(abs(self.value), 1e-9)
        return self.clock.left() <= 0.02 or (self.x is not None and gap <= self.options.gap + 1e-9)

    def boards(self, rungs: tuple[str, ...] = ("bind", "greedy")) -> Iterator[Step]:
        """Bind and greedy; where copies find no room, more of the hosts become candidates."""
        for rung in rungs:
            board = self._board(rung)
            while len(board.stranded) and self.nearest is not None and self._widen(board):
                board = self._board(rung)
            if self._offer(board):
                yield self._step(rung)

    def _board(self, rung: str) -> Board:
        simple = self._simple
        if rung == "greedy":
            return moves.greedy(simple)
        return moves.bound_one_by_one(simple, self._kept())

    def _kept(self) -> Ints:
        """Return the copies of the plan to start from, as far as it still holds."""
        arrays, plan = self.arrays, self.options.start
        none = np.zeros(arrays.pairs, dtype=np.int64)
        problem = arrays.problem
        if plan is None:
            plan = Plan(problem.current, 0.0) if problem.current else None
        begin = None if plan is None else start_of(self.assembled, plan)
        if begin is None:
            return none
        board = Board(self._simple, none)
        counts = begin[self.assembled.model.n].astype(np.int64)
        for pair in np.flatnonzero(counts).tolist():
            c = int(arrays.pair_class[pair])
            k = min(counts[pair], board.fits(c)[pair - arrays.start[c]], board.waiting[c])
            if k > 0:
                board.put(pair, int(k))
        return board.counts

    def _widen(self, board: Board) -> bool:
        """Give classes that found no room the nearest hosts with some; return whether any had."""
        classes = board.stranded
        every = everywhere(self.arrays, classes)
        room = (every.need <= board.free[every.pair_host]).all(axis=1)
        known = self.arrays.has(classes[every.pair_class], every.pair_host)
        wanted = np.flatnonzero(room & ~known)
        far = every.mean_latency()
        chosen = np.sort(least_of_each(every.pair_class, far, wanted, NEAREST))
        if len(chosen):
            self._with(only(renamed(every, classes), chosen))
        return len(chosen) > 0

    def _with(self, *more: Arrays, links: Ints | None = None) -> Ints:
        """Take more pairs into the model; the best solution keeps its counts.

        Returns where the links, given by their place among the implied rows, are now.
        """
        arrays = joined(self.arrays, more)
        place = _places_of(arrays, self.arrays)
        old = None if self.x is None else self._simple.counts(self.x)
        linked = [np.flatnonzero((each.need > 0).any(axis=1)) for each in (self.arrays, arrays)]
        self.arrays = arrays
        self.assembled = self._assembled()
        self.simple = Simple.of(self.assembled)
        if old is not None:
            counts = np.zeros(arrays.pairs, dtype=np.int64)
            counts[place] = old
            self.x = self._simple.columns(counts)
        before, after = linked
        none = np.empty(0, dtype=np.int64)
        return none if links is None else np.searchsorted(after, place[before[links]])

    def rounding(self) -> Iterator[Step]:
        """Solve the LP and round it, then tighten its links and price missing pairs in."""
        limits = Limits(self.clock.left(), threads=1, seed=self.options.seed)
        relaxing = Relaxing.of(self.assembled.matrix, limits)
        widened = 0
        for _ in range(TIGHTENINGS):
            found = relaxing.solve(self.clock.left())
            if found is None:
                return
            prices = Prices.of(self.assembled, found)
            if self._round(found.x, prices):
                yield self._step("rounding")
            rest = left_out(self.arrays, self._priced_options, prices, self.nearest)
            bound = priced(self._simple, prices, rest.pull).bound
            stale = bound < self.bound * (1 + STALE)
            if bound > self.bound or self.prices is None:
                self.bound, self.prices = max(bound, self.bound), prices
                yield self._step("prices")
            pull = -rest.pull.sum()
            few = widened < WIDENINGS and pull > MATTERS * abs(bound)
            wider = few or pull > DECISIVE * self.value
            settled = stale or whole(self.assembled.matrix, found.x)
            if self._done or (settled and not wider):
                return
            tighter = relaxing.tighten()
            if wider:
                widened += 1
                links = self._with(*rest.worth, links=relaxing.added)
                relaxing = Relaxing.of(self.assembled.matrix, limits, links)
            elif not tighter:
                return

    def _round(self, x: Floats, prices: Prices) -> bool:
        """Round an LP solution in several ways and polish the best; return whether it is better."""
        simple = self._simple
        counts = simple.counts(x)
        hosts = self.arrays.pair_host
        y = self.assembled.model.y
        on = np.zeros(len(self.arrays.hosts)) if y is None else np.clip(x[y], 0.0, 1.0)
        share = simple.host[hosts] * simple.share
        off = (simple.host * (1.0 - on))[hosts]
        boards = [
            moves.rounded(simple, counts, prices.room, opening)
            for opening in (off, share, 0.0 * share)
        ]
        complete = [board for board in boards if not len(board.stranded)]
        if not complete:
            return False
        best = min(complete, key=lambda board: board.cost)
        moves.polish(best)
        return self._offer(best)

    def _restricted(self) -> Iterator[Step]:
        """Keep what the LP has whole and solve the rest; the bound is that of the LP."""
        matrix = self.assembled.matrix
        found = direct.relax(matrix, Limits(self.clock.left(), threads=1, seed=self.options.seed))
        if found is None:
            return
        if found.bound > self.bound:
            self.bound = found.bound
            yield self._step("prices")
        n = self.assembled.model.n
        near = np.abs(found.x[n] - np.rint(found.x[n])) < 1e-6
        kept = n[near & (np.rint(found.x[n]) > 0)]
        x = np.full(matrix.columns, math.nan)
        x[kept] = np.rint(found.x[kept])
        outcome = self._around(x, kept)
        if outcome.x is not None and self._take(outcome.x):
            yield self._step("restricted")

    def _patterns(self) -> Iterator[Step]:
        """Generate patterns for a better bound, then dive for better plans while that helps."""
        if self.prices is None or self.nearest is not None or self._done:
            return
        simple, room = self._simple, self.prices.room
        patterns = Patterns.of(simple, self.prices.copy, self.options.seed)
        if patterns is None:
            return
        if self.x is not None:
            patterns.begin(simple.counts(self.x))
        clock = Clock.of(DIVES_SHARE * self.clock.left())
        patterns.generate(clock)
        self.patterns = patterns
        if patterns.bound > self.bound:
            self.bound = patterns.bound
            yield self._step("patterns")
        chance, failed = np.random.default_rng(self.options.seed), 0
        opening = simple.host[self.arrays.pair_host] * simple.share
        while failed < DIVES and clock.left() > 0.1 and not self._done:
            board = moves.rounded(simple, patterns.dive(clock, chance), room, opening)
            moves.polish(board)
            better = self._offer(board)
            failed = 0 if better else failed + 1
            if better:
                yield self._step("patterns")

    def _neighbourhoods(self, executor: Executor | None) -> Iterator[Step]:
        if self.x is None:
            return
        proves = self._is_small and self.nearest is None  # the exact model that follows
        clock = Clock.of(SEARCH_SHARE * self.clock.left()) if proves else self.clock
        search = Search(self.assembled, self.x, self.simple, self.prices)
        sacks = self._sacks()
        with pool(executor, self.options.threads) as workers:
            for better in search.rounds(clock, workers, self.options.seed):
                if better and self._take(search.x):
                    yield self._step("neighbourhoods")
                turn = search.round % ROUNDS_PER_STEP == 0 and not self._done
                if sacks and turn and not sacks.stale and self._tighter(sacks, workers):
                    yield self._step("knapsacks")
                if self._done:
                    return

    def _sacks(self) -> Knapsacks | None:
        if self.simple is None or self.prices is None or not worthwhile(self.simple):
            return None
        return Knapsacks(self.simple, self._priced_options, self.prices, self.nearest)

    def _tighter(self, sacks: Knapsacks, workers: Executor | None) -> bool:
        """Fill hosts with whole copies; return whether that is a better bound."""
        before = self.bound
        sacks.step(self.value, workers)
        self.bound = max(self.bound, sacks.bound)
        return self.bound > before

    def _exact(self, share: float = 1.0) -> Iterator[Step]:
        """Solve the whole model from the best solution, without pairs that cannot improve it."""
        options = replace(self.options, solver="highs-direct")
        clock = self.clock if share == 1.0 else Clock.of(share * self.clock.left())
        outcome = run(self._hopeful(), options, clock, self.x)
        if outcome.x is None and self.x is None:
            if outcome.infeasible and self.nearest is None:
                raise NoPlan(proven=True)
            return
        better = outcome.x is not None and self._take(outcome.x)
        proves = self.nearest is None and math.isfinite(outcome.bound)
        tighter = proves and outcome.bound > self.bound
        if tighter:
            self.bound = min(outcome.bound, self.value)
        if better or tighter:
            yield self._step("exact")

    def _hopeful(self) -> Matrix:
        """Return the model without the pairs of which it is proven that no better plan has them."""
        matrix = self.assembled.matrix
        if self.patterns is None or self.x is None:
            return matrix
        n, upper = self.assembled.model.n, matrix.upper.copy()
        out = self.patterns.hopeless(self.value) & (self.x[n] < 0.5)
        upper[n[out]] = 0.0
        return replace(matrix, upper=upper)

    # --- what the rungs share -----------------------------------------------------------------

    @property
    def _simple(self) -> Simple:
        if self.simple is None:
            raise AssertionError("asked for by rungs of simple models only")
        return self.simple

    @property
    def _priced_options(self) -> Options:
        return replace(self.options, weights=self.weights)

    def _assembled(self) -> Assembled:
        return assemble(self.arrays, self.options, weights=self.weights, limits=self.options.limits)

    def _begin(self) -> bool:
        """Complete the plan to start from, or what runs now, if it is one for this model."""
        problem = self.arrays.problem
        plan = self.options.start or (Plan(problem.current, 0.0) if problem.current else None)
        begin = None if plan is None else start_of(self.assembled, plan)
        if begin is None:
            return False
        outcome = self._around(begin, self.assembled.model.n)
        return outcome.x is not None and self._take(outcome.x)

    def _around(self, x: Floats, fixed: Ints) -> Outcome:
        """Solve the model with some columns held as they are in x."""
        matrix = self.assembled.matrix
        lower, upper = matrix.lower.copy(), matrix.upper.copy()
        inside = (x[fixed] >= lower[fixed] - 1e-9) & (x[fixed] <= upper[fixed] + 1e-9)
        if not inside.all():
            return Outcome(None, -math.inf, infeasible=True, solver="")
        lower[fixed] = upper[fixed] = x[fixed]
        held = replace(matrix, lower=lower, upper=upper)
        seconds = EXACT_SHARE * self.clock.left()
        options = replace(self.options, gap=max(self.options.gap, 1e-3), solver="highs-direct")
        return run(held, options, Clock.of(seconds))

    def _offer(self, board: Board) -> bool:
        """Take a board's plan if it is complete and better."""
        return not len(board.stranded) and self._take(self._simple.columns(board.counts))

    def _take(self, x: Floats) -> bool:
        """Take a solution if it is better than the best."""
        matrix = self.assembled.matrix
        value = float((matrix.cost * x).sum()) + matrix.constant
        if value >= self.value - 1e-9 * max(1.0, abs(self.value)) and self.x is not None:
            return False
        self.x, self.value = x.copy(), value
        return True

    def _step(self, rung: str) -> Step:
        x = None if self.x is None else self.x.copy()
        seconds = perf_counter() - self.since
        bound = min(self.bound, self.value)
        return Step(rung, seconds, self.value, bound, self.assembled, x)


def _nearest(problem: Problem, options: Options) -> int | None:
    """Return how many hosts to look at for each demand."""
    if options.nearest is not None:
        return options.nearest if options.nearest < len(problem.hosts) else None
    rated = any(demand.rates for demand in problem.demands)
    most = PAIRS if rated else COST_PAIRS
    large = len(problem.hosts) * len(problem.demands) > most and len(problem.hosts) > 2 * NEAREST
    return NEAREST if large else None


def _places_of(arrays: Arrays, older: Arrays) -> Ints:
    """Return where the pairs of older arrays are now."""
    width = 1 + int(arrays.pair_flavour.max(initial=0))
    hosts = max(len(arrays.hosts), 1)

    def key(each: Arrays) -> Ints:
        found: Ints = (each.pair_class * hosts + each.pair_host) * width + each.pair_flavour
        return found

    return np.searchsorted(key(arrays), key(older))

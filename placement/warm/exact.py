"""Warm instances exactly: a mixed integer program, tightened until its value is the true one.

Columns and rows, with pairs i of services s, sites p (a recipe on a host) and counts k:

    x_i, z_pk in {0, 1}, A_pk >= 0, o_p >= 0
    choose    Σ_{i of s} x_i = 1                                  for each service
    capacity  Σ_i need_i x_i + Σ_pk k need_p z_pk <= room         for each host and resource
    one       Σ_k z_pk <= 1                                       for each site
    load      Σ_{i of p} erlangs_i x_i = Σ_k A_pk                 for each site
    link      A_pk <= most_p z_pk                                 for each site and count
    joined    x_i <= Σ_k z_pk                                     for each pooled pair
    misses    o_p >= Σ_k f_k'(t) A_pk + (f_k(t) - t f_k'(t)) z_pk for each site and tangent t
    minimise  Σ cost_i x_i + Σ k price_p z_pk + Σ (miss_p - adopt_p) / refill_p o_p

f_k(A) = A B(k, A) is convex in A, so each tangent is below it and every model of this kind bounds
the problem from below. A solution whose misses are higher in truth adds a tangent at its own load
(J. E. Kelley, The cutting-plane method for solving convex programs, J. SIAM 8, 1960), until the
best plan is within the gap of the bound. Each service's `load` is spread over the counts, so that a
row of misses is one of the convex hull of the counts.
"""

import math
from dataclasses import dataclass
from time import perf_counter

import numpy as np

from placement.exact import Clock, run
from placement.matrix import Builder, Entries, Floats, Ints, Linear, Matrix
from placement.problem import Infeasible, Options
from placement.solvers import Limits, Outcome
from placement.warm.arrays import Arrays, forced
from placement.warm.formulas import overflow, overflow_slope
from placement.warm.problem import WarmOptions

FIRST_TANGENTS = (0.25, 0.5, 1.0)  # of the load of all who could use a site
ROUNDS = 30
CLOSE = 1e-9  # relative: what rounding leaves between a plan and its bound


@dataclass(frozen=True, slots=True, eq=False)
class Answer:
    """The best plan as pairs and counts, what is proven, and who solved it in how long."""

    chosen: Ints
    kept: Ints
    bound: float
    solver: str
    build_s: float
    solve_s: float


def exact(
    arrays: Arrays,
    options: WarmOptions,
    start: tuple[Ints, Ints] | None,
    load_of_all: Floats | None = None,
) -> Answer:
    """Return the best plan found before the deadline, beginning from one if there is any.

    `load_of_all` is that of a problem of which these are some of the pairs. Raises `Infeasible`:
    services that must hold something do not fit, or none was found in time.
    """
    since = perf_counter()
    clock = Clock.of(options.deadline_s)
    model = Model(arrays, load_of_all)
    best, value = start, math.inf if start is None else true_value(arrays, *start)
    bound, solver, solve_s = -math.inf, "", 0.0
    for _ in range(ROUNDS):
        matrix = model.matrix()
        asked = perf_counter()
        outcome = run(
            matrix, _options(options), clock, None if best is None else model.start(*best)
        )
        solve_s += perf_counter() - asked
        solver = outcome.solver
        if outcome.x is None:
            if best is None:
                raise _none(arrays, outcome)
            break
        bound = max(bound, outcome.bound)
        found = model.read(outcome.x)
        if (worth := true_value(arrays, *found)) < value:
            best, value = found, worth
        near = value - bound <= max(options.gap, CLOSE) * abs(value) + CLOSE
        if near or clock.left() <= 0.01 or not model.tighten(outcome.x):
            break
    if best is None:
        raise Infeasible({}, proven=False)
    build_s = perf_counter() - since - solve_s
    return Answer(*best, bound, solver, build_s, solve_s)


def relaxed_bound(arrays: Arrays, options: WarmOptions) -> float:
    """Return the bound of the LP relaxation with its first tangents; 0 if it is not solved."""
    from placement.solvers.highs import relax  # noqa: PLC0415 - with the 40 MB of HiGHS

    matrix = Model(arrays).matrix()
    if not matrix.columns:
        return matrix.constant
    found = relax(matrix, Limits(options.deadline_s, 0.0, options.threads, options.seed))
    return 0.0 if found is None else max(0.0, found.bound)


def true_value(arrays: Arrays, chosen: Ints, kept: Ints) -> float:
    """Return what a plan is worth, with the misses of its pools as they are."""
    erlangs = loads(arrays, chosen)
    misses = sum(
        _miss_rate(arrays, p) * overflow(int(kept[p]), float(erlangs[p]))
        for p in np.flatnonzero(kept).tolist()
    )
    return float(arrays.cost[chosen].sum() + (kept * arrays.spare_cost).sum() + misses)


def loads(arrays: Arrays, chosen: Ints) -> Floats:
    """Return the load in erlangs that a plan puts on each site."""
    pooled = chosen[arrays.site[chosen] >= 0]
    found = np.bincount(
        arrays.site[pooled], weights=arrays.erlangs[pooled], minlength=len(arrays.sites)
    )
    return found.astype(float)


def _miss_rate(arrays: Arrays, site: int) -> float:
    """Return the clients that wait longer for each erlang that overflows."""
    spare = arrays.sites[site].spare
    return (spare.miss_s - spare.adopt_s) / spare.refill_s if spare.refill_s > 0 else 0.0


def _options(options: WarmOptions) -> Options:
    return Options(
        gap=options.gap, solver=options.solver, threads=options.threads, seed=options.seed
    )


def _none(arrays: Arrays, outcome: Outcome) -> Infeasible:
    """Return why there is no plan: only what holds something everywhere can fail to fit."""
    names = [arrays.problem.services[s].name for s in np.flatnonzero(forced(arrays)).tolist()]
    if not outcome.infeasible:
        return Infeasible(dict.fromkeys(names, "no plan was found in time"), proven=False)
    why = "it may rest nowhere without holding something, and not all of these fit"
    clash = tuple(f"room of {host.name}" for host in arrays.problem.hosts)
    return Infeasible(dict.fromkeys(names, why), clash)


class Model:
    """The program of one problem; `tighten` adds tangents to it."""

    def __init__(self, arrays: Arrays, load_of_all: Floats | None = None) -> None:
        self.arrays = arrays
        most = [site.spare.most for site in arrays.sites]
        self.of_count: Ints = np.repeat(np.arange(len(most)), most)
        self.count: Ints = np.concatenate([np.arange(1, m + 1) for m in most] or [_no_ints()])
        pooled = np.flatnonzero(arrays.site >= 0)
        self.pooled: Ints = pooled
        self.load_of_all = arrays.load_of_all() if load_of_all is None else load_of_all
        self.tangents: list[tuple[int, float]] = [
            (p, share * load)
            for p, load in enumerate(self.load_of_all.tolist())
            for share in FIRST_TANGENTS
            if load > 0
        ]
        n, counts = arrays.pairs, len(self.count)
        self.x = np.arange(n)
        self.z = n + np.arange(counts)
        self.spread = n + counts + np.arange(counts)
        self.o = n + 2 * counts + np.arange(len(most))

    def matrix(self) -> Matrix:
        """Return the program with the tangents so far."""
        arrays, builder = self.arrays, Builder()
        builder.add_columns("x", arrays.pairs, 1.0, integer=True, s=arrays.service, h=arrays.host)
        p, k = self.of_count, self.count
        builder.add_columns("z", len(k), 1.0, integer=True, p=p, k=k)
        builder.add_columns("A", len(k), self.load_of_all[p], p=p, k=k)
        builder.add_columns(
            "o", len(arrays.sites), self.load_of_all, p=np.arange(len(arrays.sites))
        )
        self._add_choices(builder)
        self._add_capacity(builder)
        self._add_pools(builder)
        self._add_misses(builder)
        objective = Linear()
        objective.add(self.x, arrays.cost)
        objective.add(self.z, self.count * arrays.spare_cost[self.of_count])
        objective.add(self.o, [_miss_rate(arrays, p) for p in range(len(arrays.sites))])
        return builder.matrix(objective)

    def start(self, chosen: Ints, kept: Ints) -> Floats:
        """Return a plan as values of the columns."""
        arrays = self.arrays
        values = np.zeros(len(self.x) + 2 * len(self.count) + len(self.o))
        values[chosen] = 1.0
        erlangs = loads(arrays, chosen)
        on = self.count == kept[self.of_count]
        values[self.z[on]] = 1.0
        values[self.spread[on]] = erlangs[self.of_count[on]]
        for p in np.flatnonzero(kept).tolist():
            values[self.o[p]] = overflow(int(kept[p]), float(erlangs[p]))
        return values

    def read(self, values: Floats) -> tuple[Ints, Ints]:
        """Return the pairs and counts of a solution."""
        arrays = self.arrays
        chosen = np.array(
            [
                span.start + int(np.argmax(values[span]))
                for span in map(arrays.of, range(len(arrays.first) - 1))
            ],
            dtype=np.int64,
        )
        kept = np.zeros(len(arrays.sites), dtype=np.int64)
        on = values[self.z] > 0.5
        kept[self.of_count[on]] = self.count[on]
        return chosen, kept

    def tighten(self, values: Floats) -> bool:
        """Add a tangent at each load whose misses are more than the model has; False if none."""
        chosen, kept = self.read(values)
        erlangs = loads(self.arrays, chosen)
        wrong = [
            p
            for p in np.flatnonzero(kept).tolist()
            if overflow(int(kept[p]), float(erlangs[p])) > values[self.o[p]] + CLOSE
        ]
        self.tangents += [(p, float(erlangs[p])) for p in wrong]
        return bool(wrong)

    # --- rows ---

    def _add_choices(self, builder: Builder) -> None:
        services = len(self.arrays.problem.services)
        rows = Entries()
        rows.add(self.arrays.service, self.x, 1.0)
        builder.add_rows("choose", services, rows, lower=1.0, upper=1.0, s=np.arange(services))

    def _add_capacity(self, builder: Builder) -> None:
        arrays = self.arrays
        kinds = len(arrays.resources)
        hosts = len(arrays.problem.hosts)
        at = np.array([site.host for site in arrays.sites], dtype=np.int64)
        rows = Entries()
        for r in range(kinds):
            rows.add(arrays.host * kinds + r, self.x, arrays.needs[:, r])
            if len(self.count):
                needs = self.count * arrays.spare_needs[self.of_count, r]
                rows.add(at[self.of_count] * kinds + r, self.z, needs)
        keys = np.divmod(np.arange(hosts * kinds), max(1, kinds))
        room = arrays.room.ravel()
        builder.add_rows("capacity", hosts * kinds, rows, upper=room, h=keys[0], r=keys[1])

    def _add_pools(self, builder: Builder) -> None:
        sites = len(self.arrays.sites)
        one, load, link, joined = Entries(), Entries(), Entries(), Entries()
        one.add(self.of_count, self.z, 1.0)
        load.add(self.arrays.site[self.pooled], self.pooled, self.arrays.erlangs[self.pooled])
        load.add(self.of_count, self.spread, -1.0)
        link.add(np.arange(len(self.count)), self.spread, 1.0)
        link.add(np.arange(len(self.count)), self.z, -self.load_of_all[self.of_count])
        joined.add(np.arange(len(self.pooled)), self.pooled, 1.0)
        sums = _runs(self.of_count, sites)
        for row, site in enumerate(self.arrays.site[self.pooled].tolist()):
            joined.add(row, self.z[sums[site]], -1.0)
        p = np.arange(sites)
        builder.add_rows("one", sites, one, upper=1.0, p=p)
        builder.add_rows("load", sites, load, lower=0.0, upper=0.0, p=p)
        builder.add_rows("link", len(self.count), link, upper=0.0, p=self.of_count, k=self.count)
        builder.add_rows("joined", len(self.pooled), joined, upper=0.0, i=self.pooled)

    def _add_misses(self, builder: Builder) -> None:
        rows = Entries()
        sums = _runs(self.of_count, len(self.arrays.sites))
        for row, (site, load) in enumerate(self.tangents):
            rows.add(row, self.o[site], 1.0)
            for place in range(sums[site].start, sums[site].stop):
                kept = int(self.count[place])
                slope = overflow_slope(kept, load)
                rows.add(row, self.spread[place], -slope)
                rows.add(row, self.z[place], slope * load - overflow(kept, load))
        at = np.array([site for site, _ in self.tangents], dtype=np.int64)
        builder.add_rows("misses", len(self.tangents), rows, lower=0.0, p=at)


def _runs(of: Ints, count: int) -> list[slice]:
    """Return where in a sorted array each of so many numbers is."""
    ends = np.searchsorted(of, np.arange(count + 1))
    return [slice(int(ends[i]), int(ends[i + 1])) for i in range(count)]


def _no_ints() -> Ints:
    return np.empty(0, dtype=np.int64)

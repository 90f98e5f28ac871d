"""The p-median: which `count` places to open, so that clients are near to the nearest of them.

`solve_median(problem, options)` answers a `MedianProblem`: exactly by the model of ReVelle and
Swain, or by one of `placement.median_heuristics`; always with a proven bound. edgewake asks it
where monitoring is gathered (`orchestrator.aggregation`).

C. ReVelle, R. Swain, "Central facilities location", Geographical Analysis 2(1), 1970. The bound:
G. Cornuejols, M. Fisher, G. Nemhauser, "Location of bank accounts to optimize float", Management
Science 23(8), 1977.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from time import perf_counter

import numpy as np

from placement import median_heuristics as heuristics
from placement.exact import Clock
from placement.matrix import Bools, Builder, Entries, Floats, Ints, Linear, Matrix
from placement.median_heuristics import Costs
from placement.problem import Infeasible, Malformed
from placement.solvers import Limits, check_name, solver

EXACT_COLUMNS = 150_000  # up to so many, `auto` is exact
STEPS = 300  # of the subgradient
PATIENCE = 10  # steps without a better bound after which the next are half as long
ROUNDING = 1e-9  # of a value

HEURISTICS: Mapping[str, Callable[[Costs, int], Ints]] = {
    "greedy": heuristics.greedy,
    "interchange": heuristics.interchange,
    "random": heuristics.random,
    "pressure": heuristics.pressure,
    "hot-spot": heuristics.hot_spot,
}
ALGORITHMS = ("auto", "exact", *HEURISTICS)


@dataclass(frozen=True, slots=True, eq=False)
class MedianProblem:
    """A question. N clients, M places.

    `distance` is N x M, in any unit, infinite where there is no path. `weight` (N, all 1 if it is
    None) is what one unit of distance counts for each client. `count` places are opened. `hops`
    (M x M) are the links on the way between places, for `hot-spot` only.
    """

    clients: tuple[str, ...]
    places: tuple[str, ...]
    distance: Floats
    count: int
    weight: Floats | None = None
    hops: Floats | None = None


@dataclass(frozen=True, slots=True)
class MedianOptions:
    """How to answer: one of `ALGORITHMS`, a solver by name, seconds, relative gap, and a seed.

    `auto` is exact up to 150,000 columns, else the interchange.
    """

    algorithm: str = "auto"
    solver: str = "auto"
    deadline_s: float = 30.0
    gap: float = 0.0
    seed: int = 0


@dataclass(frozen=True, slots=True)
class MedianPlan:
    """An answer: the places opened, the one that serves each client, and how far that is.

    `value` is the sum of weight times distance, `bound` proven to be below it for any plan, `gap`
    their relative distance. `seconds` is for all of it.
    """

    opened: tuple[str, ...]
    serves: Mapping[str, str]
    value: float
    distances: Mapping[str, float] = field(default_factory=dict)
    bound: float = 0.0
    algorithm: str = ""
    solver: str = ""
    seconds: float = 0.0

    @property
    def gap(self) -> float:
        """Return how far the value may be from the best, relative to it."""
        return (self.value - self.bound) / self.value if self.value > 0 else 0.0


def solve_median(problem: MedianProblem, options: MedianOptions | None = None) -> MedianPlan:
    """Return the places to open.

    Raises:
        Infeasible: no `count` places are near enough for every client to have a path; if not
            ``proven``, none were found.
        Malformed: problem or options make no sense.
        SolverFailed: the solver could not be run.

    """
    options = options or MedianOptions()
    _check(problem, options)
    since, clock = perf_counter(), Clock.of(options.deadline_s)
    costs = _costs(problem)
    name, used = options.algorithm, ""
    best = HEURISTICS.get(name, heuristics.interchange)(costs, options.seed)
    lagrange = _lagrange(costs, best, clock)
    bound = lagrange.value
    if name not in HEURISTICS:
        kept = _worthy(costs, best, lagrange)
        small = kept.sum() * (len(problem.clients) + 1) <= EXACT_COLUMNS
        name = ("exact" if small else "interchange") if name == "auto" else name
        if name == "exact":
            best, proven, used = _exact(costs, best, kept, options, clock)
            bound = max(bound, proven)
    if costs.value(best) >= costs.far:
        raise _unreachable(problem, best, proven=name == "exact" and bound >= costs.far)
    plan = _plan(problem, best)
    bound = max(0.0, min(bound, plan.value))
    seconds = perf_counter() - since
    return replace(plan, bound=bound, algorithm=name, solver=used, seconds=seconds)


# --- the question ---------------------------------------------------------------------------------


def _check(problem: MedianProblem, options: MedianOptions) -> None:
    clients, places = len(problem.clients), len(problem.places)
    for name, many in (("clients", problem.clients), ("places", problem.places)):
        if not many or len(set(many)) < len(many):
            raise Malformed(name, "must be at least one, each with a name of its own")
    if problem.distance.shape != (clients, places):
        raise Malformed("distance", f"must be {clients} x {places}, not {problem.distance.shape}")
    if not (problem.distance >= 0).all():
        raise Malformed("distance", "must be at least 0, or infinite where there is no path")
    weight = _weight(problem)
    if weight.shape != (clients,) or not ((weight >= 0) & (weight < math.inf)).all():
        raise Malformed("weight", f"must be {clients} finite numbers of at least 0")
    if problem.hops is not None and problem.hops.shape != (places, places):
        raise Malformed("hops", f"must be {places} x {places}, not {problem.hops.shape}")
    if not 1 <= problem.count <= places:
        raise Malformed("count", f"must be 1 to {places}, the number of places")
    _check_options(problem, options)


def _check_options(problem: MedianProblem, options: MedianOptions) -> None:
    if options.algorithm not in ALGORITHMS:
        known = ", ".join(ALGORITHMS)
        raise Malformed("algorithm", f"no p-median algorithm {options.algorithm!r}; known: {known}")
    if options.algorithm == "hot-spot" and problem.hops is None:
        raise Malformed("hops", "hot-spot counts links between places, which are not given")
    if not options.deadline_s > 0 or not options.gap >= 0:
        raise Malformed("options", "the deadline must be above 0, and the gap at least 0")
    if options.solver != "auto":
        check_name(options.solver)


def _weight(problem: MedianProblem) -> Floats:
    return np.ones(len(problem.clients)) if problem.weight is None else problem.weight


def _costs(problem: MedianProblem) -> Costs:
    weight = _weight(problem)
    within = np.isfinite(problem.distance)
    cost = np.where(within, problem.distance, 0.0) * weight[:, None]
    far = 1.0 + 2.0 * float(cost.max(axis=1).sum())
    cost = np.where(within, cost, far)
    return Costs(cost, far, problem.distance, problem.count, problem.hops)


def _plan(problem: MedianProblem, best: Ints) -> MedianPlan:
    """Return a plan of the places opened, with nothing proven yet."""
    nearest = best[problem.distance[:, best].argmin(axis=1)]
    distance = problem.distance[np.arange(len(nearest)), nearest]
    names = [problem.places[j] for j in nearest.tolist()]
    return MedianPlan(
        opened=tuple(problem.places[j] for j in best.tolist()),
        serves=dict(zip(problem.clients, names, strict=True)),
        distances=dict(zip(problem.clients, distance.tolist(), strict=True)),
        value=float(_weight(problem) @ distance),
    )


def _unreachable(problem: MedianProblem, best: Ints, *, proven: bool) -> Infeasible:
    alone = np.flatnonzero(~np.isfinite(problem.distance[:, best]).any(axis=1)).tolist()
    places = "one place" if problem.count == 1 else f"{problem.count} places"
    reason = f"{places} cannot serve all: it has no path to any of those opened"
    return Infeasible({problem.clients[i]: reason for i in alone}, proven=proven)


# --- the bound ------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, eq=False)
class _Bound:
    """A lower bound, and what each place saves at its prices (M, at most 0); `chosen` save most."""

    value: float
    reduced: Floats
    chosen: Ints


def _lagrange(costs: Costs, best: Ints, clock: Clock) -> _Bound:
    """Return the best Lagrangian bound of a subgradient search, each client's service relaxed.

    max over u of: sum over i of u[i] + the `count` least of sum over i of min(0, cost[i,j] - u[i])
    """
    upper = costs.value(best)
    price = costs.cost[:, best].min(axis=1)
    found = _Bound(-math.inf, np.zeros(costs.cost.shape[1]), best)
    scale, stale = 2.0, 0
    for step in range(STEPS):
        reduced = np.minimum(costs.cost - price[:, None], 0.0).sum(axis=0)
        chosen = np.argpartition(reduced, costs.count - 1)[: costs.count]
        value = float(price.sum() + reduced[chosen].sum())
        stale += 1
        if value > found.value:
            stale = 0 if value > found.value + ROUNDING * max(1.0, upper) else stale
            found = _Bound(value, reduced, chosen)
        slope = 1.0 - (costs.cost[:, chosen] < price[:, None]).sum(axis=1)
        size = float(slope @ slope)
        done = found.value >= upper - ROUNDING * max(1.0, upper)
        if done or not size or scale < 1e-4 or (step and clock.left() <= 0.01):
            break
        if stale >= PATIENCE:
            scale, stale = scale / 2, 0
        price = np.maximum(0.0, price + scale * (1.01 * upper - value) / size * slope)
    return found


def _worthy(costs: Costs, best: Ints, bound: _Bound) -> Bools:
    """Return the places that some plan better than the best known may open, and those of it."""
    last = float(bound.reduced[bound.chosen].max())
    least = bound.value + np.maximum(bound.reduced - last, 0.0)
    upper = costs.value(best)
    kept: Bools = least < upper - ROUNDING * max(1.0, upper)
    kept[best] = True
    return kept


# --- the model ------------------------------------------------------------------------------------


def _exact(
    costs: Costs, best: Ints, kept: Bools, options: MedianOptions, clock: Clock
) -> tuple[Ints, float, str]:
    """Return the best places, a bound, and the solver, over the places that are kept."""
    places = np.flatnonzero(kept)
    upper = costs.value(best)
    if len(places) == costs.count:
        return best, upper, ""
    cost = costs.cost[:, places]
    matrix, client, place = model(np.where(cost < costs.far, cost, math.inf), costs.count)
    opened = np.isin(places, best)
    some = np.where(opened[None, :], cost, math.inf).argmin(axis=1)
    start = np.concatenate((opened.astype(float), (some[client] == place).astype(float)))
    limits = Limits(clock.left(), options.gap, seed=options.seed)
    begin = None if upper >= costs.far else start
    outcome = solver(options.solver, matrix.columns)(matrix, limits, begin)
    if outcome.x is None:
        return best, upper if outcome.infeasible else outcome.bound, outcome.solver
    found = places[outcome.x[: len(places)] > 0.5]
    best = found if costs.value(found) < upper else best
    return best, outcome.bound, outcome.solver


def model(cost: Floats, count: int) -> tuple[Matrix, Ints, Ints]:
    """Return the model, and client and place of each column x; the columns y of places come first.

    min sum over i,j of cost[i,j] * x[i,j], where sum over j of x[i,j] = 1, x[i,j] <= y[j], and sum
    over j of y[j] = count. A client never goes to one of its count - 1 farthest places, since some
    nearer one is open: those columns are left out, as are infinite costs.
    """
    clients, places = cost.shape
    builder = Builder()
    y = builder.add_columns("y", places, 1, integer=True, j=np.arange(places))
    order = np.argsort(cost, axis=1, kind="stable")[:, : places - count + 1]
    client = np.repeat(np.arange(clients), order.shape[1])
    place = np.sort(order, axis=1).ravel()
    near = np.isfinite(cost[client, place])
    client, place = client[near], place[near]
    x = builder.add_columns("x", len(client), 1, whole=True, i=client, j=place)
    served, open_first, opened = Entries(), Entries(), Entries()
    served.add(client, x, 1.0)
    builder.add_rows("served", clients, served, lower=1.0, upper=1.0, i=np.arange(clients))
    number = np.arange(len(x))
    open_first.add(number, x, 1.0)
    open_first.add(number, y[place], -1.0)
    builder.add_rows("open", len(x), open_first, upper=0.0, i=client, j=place)
    opened.add(0, y, 1.0)
    builder.add_rows("count", 1, opened, lower=float(count), upper=float(count))
    objective = Linear()
    objective.add(x, cost[client, place])
    return builder.matrix(objective), client, place

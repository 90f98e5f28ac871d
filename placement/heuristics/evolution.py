"""NSGA-II: many plans at once, none better than another in all terms, for fronts of any dimension.

A plan is encoded as a key per demand, which gives the order in which demands are packed, and a
weight per cost, by which each takes its host. So every child is a plan that fits, or none.

K. Deb, A. Pratap, S. Agarwal, T. Meyarivan, "A fast and elitist multiobjective genetic algorithm:
NSGA-II", IEEE Transactions on Evolutionary Computation 6(2), 2002.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from time import perf_counter

import numpy as np

from placement.evaluate import evaluate, value_of
from placement.heuristics.moves import host_costs, pair_costs
from placement.heuristics.packing import Packing, Score, fill, in_order, start
from placement.matrix import Floats, Ints
from placement.problem import Infeasible, Options, Plan, Problem
from placement.tracing import Watch

POPULATION, GENERATIONS = 40, 40
IDLE = 10  # generations without a new point after which no more are bred
MUTATED = 0.1  # share of keys that change in a child
COSTS = ("latency_ms", "wake_ms", "energy_w", "cost_hour", "hosts_on")  # what may draw a copy


@dataclass(frozen=True, slots=True, eq=False)
class Found:
    """A plan, the values of its terms, and the keys and weights it was made from."""

    plan: Plan
    point: Floats
    genes: Floats


def nsga2(problem: Problem, options: Options) -> Plan:
    """Return the plan of least value among those of a front over the weighted terms.

    Raises:
        Infeasible: no order of the demands that was tried could be packed.

    """
    terms = tuple(name for name, weight in options.weights.items() if weight)
    weights = np.array([options.weights[name] for name in terms])
    watch = Watch()

    def note(found: list[Found]) -> None:
        if terms:
            watch.note(min(float(weights @ each.point) for each in found))

    found = evolve(problem, terms or ("hosts_on",), options, note)
    best = min(found, key=lambda each: value_of(evaluate(problem, each.plan), options.weights))
    return replace(best.plan, trace=watch.trace())


def evolve(
    problem: Problem,
    terms: tuple[str, ...],
    options: Options,
    note: Callable[[list[Found]], None] = lambda _found: None,
) -> list[Found]:
    """Return plans none of which is better than another in all terms, by the first term.

    `note` is called with the population after each generation.

    Raises:
        Infeasible: no order of the demands that was tried could be packed.

    """
    end = perf_counter() + options.deadline_s
    chance = np.random.default_rng(options.seed)
    decoder = _Decoder(problem, terms)
    found: list[Found] = []
    failed: Infeasible | None = None
    for genes in decoder.first(chance):
        try:
            found.append(decoder.decode(genes))
        except Infeasible as error:
            failed = error
    if not found:
        raise failed or Infeasible({}, proven=False)
    found = _survivors(found)
    note(found)
    idle = 0
    for _ in range(GENERATIONS):
        before = {tuple(each.point) for each in found}
        found = _survivors([*found, *_children(found, decoder, chance, end)])
        note(found)
        idle = 0 if {tuple(each.point) for each in found} - before else idle + 1
        if idle == IDLE or perf_counter() > end:
            break
    points = np.array([each.point for each in found])
    first = [found[i] for i in np.flatnonzero(ranks(points) == 0)]
    unique = {tuple(np.round(each.point, 9)): each for each in reversed(first)}
    return [unique[key] for key in sorted(unique)]


def _children(
    parents: list[Found], decoder: "_Decoder", chance: np.random.Generator, end: float
) -> Iterator[Found]:
    """Yield a generation of children, as far as they can be packed before the end."""
    for _ in range(POPULATION):
        if perf_counter() > end:
            return
        try:
            yield decoder.decode(_child(parents, chance))
        except Infeasible:
            continue  # this order cannot be packed; others can


class _Decoder:
    """Makes a plan from genes: keys of the demands, then weights of the costs."""

    def __init__(self, problem: Problem, terms: tuple[str, ...]) -> None:
        self.problem, self.terms = problem, terms
        self.empty = start(problem)
        arrays = self.empty.arrays
        self.pairs = np.stack([_scaled(pair_costs(arrays, name)) for name in COSTS])
        self.hosts = np.stack([_scaled(host_costs(arrays, name)) for name in COSTS])
        self.keys = len(problem.demands)

    def first(self, chance: np.random.Generator) -> list[Floats]:
        """Return the genes to begin with: each cost alone, largest first, then random ones."""
        size = self.empty.size()[self.empty.of]
        largest = 1 - size / max(float(size.max(initial=0.0)), 1e-9)
        alone = [np.concatenate((largest, row)) for row in np.eye(len(COSTS))]
        return alone + [
            np.concatenate((chance.random(self.keys), chance.dirichlet(np.ones(len(COSTS)))))
            for _ in range(POPULATION - len(alone))
        ]

    def decode(self, genes: Floats) -> Found:
        packing = Packing.of_arrays(self.empty.arrays)
        order = in_order(packing, keys=genes[: self.keys])
        weights = genes[self.keys :]
        fill(packing, self._score(packing, weights), order, name="nsga2")
        plan = packing.plan()
        terms = evaluate(self.problem, plan)
        return Found(plan, np.array([terms[name] for name in self.terms]), genes)

    def _score(self, packing: Packing, weights: Floats) -> Score:
        pair, on = weights @ self.pairs, weights @ self.hosts

        def score(pairs: Ints) -> tuple[Floats, ...]:
            host = packing.arrays.pair_host[pairs]
            return (pair[pairs] + np.where(packing.tally[0, host] > 0, 0.0, on[host]),)

        return score


def _scaled(costs: Floats) -> Floats:
    most = float(np.abs(costs).max(initial=0.0))
    return costs / most if most else costs


def _child(parents: list[Found], chance: np.random.Generator) -> Floats:
    """Return genes mixed from two parents, each the better of two, some of them changed."""
    one, two = (parents[int(chance.integers(len(parents), size=2).min())].genes for _ in range(2))
    genes = np.where(chance.random(len(one)) < 0.5, one, two)
    changed = chance.random(len(genes)) < MUTATED
    return np.where(changed, chance.random(len(genes)), genes)


def _survivors(found: list[Found]) -> list[Found]:
    """Return the best, by rank and then by how empty it is around them; best first."""
    points = np.array([each.point for each in found])
    _, unique = np.unique(np.round(points, 9), axis=0, return_index=True)
    found = [found[i] for i in sorted(unique.tolist())]
    points = np.array([each.point for each in found])
    rank = ranks(points)
    alone = np.zeros(len(found))
    for each in np.unique(rank):
        inside = np.flatnonzero(rank == each)
        alone[inside] = crowding(points[inside])
    order = np.lexsort((-alone, rank))
    return [found[i] for i in order[:POPULATION]]


def ranks(points: Floats) -> Ints:
    """Return 0 for points that none dominates, 1 for those that only these dominate, and so on."""
    worse = (points[:, None] >= points[None]).all(axis=2) & (points[:, None] > points[None]).any(
        axis=2
    )
    rank = np.full(len(points), -1, np.int64)
    step = 0
    while (rank < 0).any():
        left = rank < 0
        rank[left & ~(worse & left[None]).any(axis=1)] = step
        step += 1
    return rank


def crowding(points: Floats) -> Floats:
    """Return how far apart the neighbours of each point are, summed over terms."""
    alone = np.zeros(len(points))
    for column in points.T:
        order = np.argsort(column, kind="stable")
        span = column[order[-1]] - column[order[0]]
        alone[order[[0, -1]]] = np.inf
        if span > 0:
            alone[order[1:-1]] += (column[order[2:]] - column[order[:-2]]) / span
    return alone

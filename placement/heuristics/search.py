"""Local search on the moves of `placement.heuristics.moves`: simulated annealing and tabu.

Both begin from the best of three greedy plans. The number of steps depends on the problem alone, so
equal seeds give equal plans unless the deadline comes first.

S. Kirkpatrick, C. D. Gelatt, M. P. Vecchi, "Optimization by simulated annealing", Science 220,
1983. F. Glover, "Tabu search, part I", ORSA Journal on Computing 1(3), 1989.
"""

import math
from collections.abc import Callable
from dataclasses import replace
from time import perf_counter

import numpy as np

from placement.evaluate import evaluate, value_of
from placement.heuristics import bins, edge, greedy_latency
from placement.heuristics.moves import Change, Moves, cooled
from placement.heuristics.packing import Packing, start
from placement.matrix import Ints
from placement.problem import Infeasible, Options, Plan, Problem
from placement.tracing import Watch

STEPS_PER_COPY = 400
MOST_STEPS = 60_000
HOT, COLD = 0.5, 1e-3  # temperatures, as shares of the mean change of a random move
SAMPLES = 60  # random moves that set the temperature
NEIGHBOURS = 24  # moves looked at in one step of tabu
TENURE = 12  # steps for which a copy may not come back

GREEDY: tuple[Callable[[Problem, Options], Plan], ...] = (
    greedy_latency.greedy_latency,
    edge.nearest,
    bins.best_fit_decreasing,
)


def simulated_annealing(problem: Problem, options: Options) -> Plan:
    """Return the best plan seen while random moves are taken ever less often if they cost.

    Raises:
        Infeasible: no greedy heuristic found a plan to begin from.

    """
    watch = Watch()
    moves, end = _begin(problem, options)
    if not len(moves.free):
        return moves.packing.plan()
    steps = min(MOST_STEPS, STEPS_PER_COPY * len(moves.free))
    hot, cold = _temperatures(moves)
    best, counts = moves.value, moves.packing.counts.copy()
    watch.note(best)
    for step in range(steps):
        if step % 64 == 0 and perf_counter() > end:
            break
        changes = moves.draw()
        if not changes:
            continue
        before = moves.places(changes)
        delta = moves.go(changes)
        if delta is None:
            continue
        if delta > 0 and moves.chance.random() >= math.exp(-delta / cooled(hot, cold, step, steps)):
            moves.back(before, delta)
        elif moves.value < best - 1e-9:
            best, counts = moves.value, moves.packing.counts.copy()
            watch.note(best)
    return replace(_plan(moves, counts), trace=watch.trace())


def tabu(problem: Problem, options: Options) -> Plan:
    """Return the best plan seen while the best of some moves is made, though not back at once.

    A copy may come back to a host only after a while, or where that gives the best plan so far.

    Raises:
        Infeasible: no greedy heuristic found a plan to begin from.

    """
    watch = Watch()
    moves, end = _begin(problem, options)
    if not len(moves.free):
        return moves.packing.plan()
    steps = min(MOST_STEPS, STEPS_PER_COPY * len(moves.free)) // NEIGHBOURS
    best, counts = moves.value, moves.packing.counts.copy()
    watch.note(best)
    until: dict[tuple[int, int], int] = {}
    for step in range(steps):
        if perf_counter() > end:
            break
        chosen: list[Change] = []
        least = math.inf
        for _ in range(NEIGHBOURS):
            changes = moves.draw()
            before = moves.places(changes)
            delta = moves.go(changes) if changes else None
            if delta is None:
                continue
            closed = any(until.get(_key(moves, pair), -1) >= step for _, pair in changes)
            if delta < least and (not closed or moves.value < best - 1e-9):
                chosen, least = changes, delta
            moves.back(before, delta)
        for _, pair in moves.places(chosen):
            until[_key(moves, pair)] = step + TENURE
        if chosen and moves.go(chosen) is not None and moves.value < best - 1e-9:
            best, counts = moves.value, moves.packing.counts.copy()
            watch.note(best)
    return replace(_plan(moves, counts), trace=watch.trace())


def _key(moves: Moves, pair: int) -> tuple[int, int]:
    arrays = moves.packing.arrays
    return int(arrays.pair_class[pair]), int(arrays.pair_host[pair])


def _begin(problem: Problem, options: Options) -> tuple[Moves, float]:
    """Return the moves from the best greedy plan, and when time is up."""
    end = perf_counter() + options.deadline_s
    found: list[tuple[float, int, Plan]] = []
    for number, greedy in enumerate(GREEDY):
        try:
            plan = greedy(problem, options)
        except Infeasible as error:
            if error.proven:
                raise
            failed = error
        else:
            value = value_of(evaluate(problem, plan), options.weights)
            found.append((value, number, plan))
    if not found:
        raise failed
    packing = start(problem)
    _, _, plan = min(found)
    load(packing, plan)
    return Moves.of(packing, options), end


def load(packing: Packing, plan: Plan) -> None:
    """Put the copies of a plan into an empty packing."""
    arrays = packing.arrays
    keys = zip(
        arrays.pair_class.tolist(),
        arrays.pair_host.tolist(),
        arrays.pair_flavour.tolist(),
        strict=True,
    )
    spot = {key: pair for pair, key in enumerate(keys)}
    host = {name: h for h, name in enumerate(arrays.hosts)}
    for i, demand in enumerate(arrays.problem.demands):
        flavour = {each.name: f for f, each in enumerate(demand.flavours)}
        for name, chosen in zip(plan.hosts[demand.name], plan.flavours[demand.name], strict=True):
            packing.take(spot[int(packing.of[i]), host[name], flavour.get(chosen, 0)])


def _temperatures(moves: Moves) -> tuple[float, float]:
    """Return the first and the last temperature, from what random moves change."""
    sizes = []
    for _ in range(SAMPLES):
        changes = moves.draw()
        before = moves.places(changes)
        delta = moves.go(changes) if changes else None
        if delta is not None:
            sizes.append(abs(delta))
            moves.back(before, delta)
    mean = float(np.mean(sizes)) if sizes else 0.0
    return max(HOT * mean, 1e-9), max(COLD * mean, 1e-12)


def _plan(moves: Moves, counts: Ints) -> Plan:
    moves.packing.counts[:] = counts
    return moves.packing.plan()

"""Fast placement without proof: the registry of algorithms, and the loop that heuristics share.

An algorithm takes a problem and options and returns a plan, or raises `Infeasible` when it finds
none (which is proof only when the MILP says it). It is named here by ``"module:object"`` and
loaded when asked for, so that nobody pays for a solver that is not used.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from importlib import import_module
from time import perf_counter
from typing import cast

from placement.candidates import hopeless, summary
from placement.objectives import plan_of
from placement.problem import (
    Demand,
    Infeasible,
    Malformed,
    Options,
    Plan,
    Problem,
    Ranking,
    Resources,
    validate,
)

Algorithm = Callable[[Problem, Options], Plan]
Rank = Callable[[Problem, Demand, Mapping[str, Resources], Mapping[str, list[str]]], Ranking]

ALGORITHMS: dict[str, str] = {
    "milp": "placement.milp:solve",
    "first-fit": "placement.heuristics.first_fit:first_fit",
    "greedy-latency": "placement.heuristics.greedy_latency:greedy_latency",
}


def algorithm(name: str) -> Algorithm:
    """Return an algorithm by name; `Malformed` lists the known ones."""
    if name not in ALGORITHMS:
        known = ", ".join(sorted(ALGORITHMS))
        raise Malformed("algorithm", f"no placement algorithm named {name!r}; known: {known}")
    module, _, attribute = ALGORITHMS[name].partition(":")
    return cast(Algorithm, getattr(import_module(module), attribute))


def fill(
    problem: Problem, options: Options, *, name: str, order: Iterable[Demand], rank: Rank
) -> Plan:
    """Place one copy after the other at the first site of its ranking, and never take one back.

    Demands come in the given order, except that those one must be together with come before it.

    Raises:
        Infeasible: with every demand that found no site.
        Malformed: the problem makes no sense.

    """
    started = perf_counter()
    validate(problem)
    reasons = hopeless(problem)
    if reasons:
        raise Infeasible(reasons)
    used: dict[str, Resources] = {}
    placed: dict[str, list[str]] = {demand.name: [] for demand in problem.demands}
    for demand in _partners_first(problem, order):
        for _ in range(demand.replicas):
            ranking = rank(problem, demand, used, placed)
            if not ranking.sites:
                reasons[demand.name] = f"{name} found no site: {summary(ranking.reasons)}"
                break
            site = ranking.sites[0]
            placed[demand.name].append(site)
            used[site] = used.get(site, Resources(0.0, 0.0)) + problem.need(demand, site)
    if reasons:
        raise Infeasible(reasons)
    return plan_of(problem, placed, options, algorithm=name, started=started)


def _partners_first(problem: Problem, order: Iterable[Demand]) -> Iterator[Demand]:
    by_name = {demand.name: demand for demand in problem.demands}
    seen: set[str] = set()

    def visit(demand: Demand) -> Iterator[Demand]:
        if demand.name not in seen:
            seen.add(demand.name)
            for other in sorted(demand.together_with):
                yield from visit(by_name[other])
            yield demand

    for demand in order:
        yield from visit(demand)

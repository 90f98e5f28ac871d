"""Which routers gather what the others measure: aggregation points, as a p-median.

For ``edgewake plan aggregation`` and whoever runs monitoring. It turns a topology into a
`placement.median` problem and the answer back into names of routers; it starts nothing.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from orchestrator.errors import EdgewakeError, TopologyError
from orchestrator.topology import Topology
from placement.matrix import Floats
from placement.median import MedianOptions, MedianPlan, MedianProblem, solve_median
from placement.median_heuristics import HOPS
from placement.problem import Infeasible, Malformed, SolverFailed

COMPARED = ("exact", "interchange", "greedy", "pressure", "hot-spot", "random")


@dataclass(frozen=True, slots=True)
class Compared:
    """What one algorithm found: a plan, or in `why` that it found none."""

    algorithm: str
    plan: MedianPlan | None
    why: str = ""


def aggregation(
    topology: Topology,
    count: int,
    *,
    weights: Mapping[str, float] | None = None,
    options: MedianOptions | None = None,
) -> MedianPlan:
    """Return `count` routers that are aggregation points, and the one each router reports to.

    The sum over routers of weight times latency (ms, one way) to the nearest point is least.
    `weights` say how much a router reports; one that is not named counts 1.

    Raises:
        EdgewakeError: no such number of points reaches every router, or it makes no sense.
        TopologyError: there are no routers, or a weight is of none.

    """
    return _solved(question(topology, count, weights), options or MedianOptions())


def compare(
    topology: Topology,
    count: int,
    *,
    algorithms: Sequence[str] = COMPARED,
    weights: Mapping[str, float] | None = None,
    options: MedianOptions | None = None,
) -> tuple[Compared, ...]:
    """Return what each algorithm finds, in their order; errors as `aggregation` but where none."""
    asked, options = question(topology, count, weights), options or MedianOptions()
    return tuple(_compared(asked, name, options) for name in algorithms)


def question(
    topology: Topology, count: int, weights: Mapping[str, float] | None = None
) -> MedianProblem:
    """Return the p-median problem: every router is a client, and a place for a point."""
    names = tuple(router.name for router in topology.routers)
    weights = weights or {}
    if not names:
        raise TopologyError("there are no routers", hint="the lab file needs some in 'routers'")
    if unknown := sorted(weights.keys() - set(names)):
        raise TopologyError(f"there is no router named {unknown[0]!r}, whose weight is given")
    number = {name: i for i, name in enumerate(names)}
    distance = np.full((len(names), len(names)), np.inf)
    for name, row in topology.router_latencies().items():
        for other, ms in row.items():
            distance[number[name], number[other]] = ms
    return MedianProblem(
        clients=names,
        places=names,
        distance=distance,
        count=count,
        weight=np.array([weights.get(name, 1.0) for name in names]),
        hops=_hops(topology, number),
    )


def _hops(topology: Topology, number: Mapping[str, int]) -> Floats:
    """Return the links between routers that are few links apart, infinite for all others."""
    near: dict[int, set[int]] = {i: set() for i in number.values()}
    for link in topology.links:
        if link.a in number and link.b in number:
            near[number[link.a]].add(number[link.b])
            near[number[link.b]].add(number[link.a])
    hops = np.full((len(number), len(number)), np.inf)
    for start in number.values():
        seen = edge = {start}
        for away in range(HOPS + 1):
            hops[start, list(edge)] = away
            edge = {end for each in edge for end in near[each]} - seen
            seen = seen | edge
    return hops


def _compared(asked: MedianProblem, name: str, options: MedianOptions) -> Compared:
    try:
        return Compared(name, _solved(asked, replace(options, algorithm=name)))
    except EdgewakeError as error:
        return Compared(name, None, error.message)


def _solved(asked: MedianProblem, options: MedianOptions) -> MedianPlan:
    try:
        return solve_median(asked, options)
    except Infeasible as error:
        raise EdgewakeError(
            f"no aggregation points {'exist' if error.proven else 'were found'}: {error}",
            hint="ask for more points, or link the parts of the network",
        ) from error
    except Malformed as error:
        raise EdgewakeError(f"aggregation points cannot be planned: {error}") from error
    except SolverFailed as error:
        raise EdgewakeError(f"the solver gave no aggregation points: {error}") from error

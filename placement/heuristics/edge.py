"""Baselines of edge computing papers: nearest, edgewards, and all in the cloud.

H. Gupta, A. V. Dastjerdi, S. K. Ghosh, R. Buyya, "iFogSim", Software: Practice and Experience
47(9), 2017, for the last two. There the devices are a tree; here the way north from a population
goes over hosts that are each farther and larger than all before.
"""

import numpy as np

from placement.heuristics.packing import Packing, Score, pack
from placement.matrix import Floats, Ints
from placement.problem import CPU, SITE, Options, Plan, Problem


def nearest(problem: Problem, _options: Options) -> Plan:
    """Return the plan with each demand, as they come, at the host of least mean latency."""
    return pack(problem, _nearest, name="nearest")


def edgewards(problem: Problem, _options: Options) -> Plan:
    """Return the plan with each demand as near the edge as its way north allows.

    The way begins at the host nearest to the population with the highest rate. Where no host on
    the way has room, the nearest other one is taken.
    """
    return pack(problem, _edgewards, name="edgewards")


def only_cloud(problem: Problem, _options: Options) -> Plan:
    """Return the plan with all demands at the site with most cpu, then at the next largest."""
    return pack(problem, _cloud, name="only-cloud")


def _nearest(packing: Packing) -> Score:
    mean = packing.arrays.mean_latency()
    return lambda pairs: (mean[pairs],)


def _edgewards(packing: Packing) -> Score:
    arrays = packing.arrays
    mean = arrays.mean_latency()
    ways = [_way_north(row, arrays.room[:, arrays.resources.index(CPU)]) for row in arrays.latency]
    main = np.full(arrays.classes, -1)
    for r in np.argsort(arrays.rate, kind="stable").tolist():  # the highest rate is written last
        main[arrays.rate_class[r]] = arrays.rate_population[r]

    def score(pairs: Ints) -> tuple[Floats, ...]:
        host, population = arrays.pair_host[pairs], main[arrays.pair_class[pairs[0]]]
        if population < 0:
            return (mean[pairs],)
        return ways[population][host], arrays.latency[population, host]

    return score


def _way_north(latency: Floats, cpu: Floats) -> Floats:
    """Return the step of each host on the way north, infinite where it is not on it."""
    step = np.full(len(latency), np.inf)
    order = np.lexsort((-cpu, latency))
    largest, count = -1.0, 0
    for h in order.tolist():
        if np.isfinite(latency[h]) and cpu[h] > largest:
            step[h], largest, count = count, cpu[h], count + 1
    return step


def _cloud(packing: Packing) -> Score:
    arrays = packing.arrays
    site, names = arrays.domains(SITE)
    room = arrays.room[:, arrays.resources.index(CPU)]
    cpu: Floats = np.bincount(site, room, minlength=len(names)).astype(float)
    return lambda pairs: (-cpu[site[arrays.pair_host[pairs]]],)

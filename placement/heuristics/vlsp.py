"""The placement engines of VLSP, the Very Lightweight Service Platform, as baselines.

VLSP places one virtual router after the other on the host that its engine picks, from what its
probes read. Here copies take the place of routers, and what a host holds that of the readings.
An engine of VLSP picks a host without asking whether there is room; here hosts without are passed
over.

L. Mamatas, S. Clayman, A. Galis, "A service-aware virtualized software-defined infrastructure",
IEEE Communications Magazine 53(4), 2015. Upstream: stuartclayman/VLSP, usr/globalcontroller:
LeastUsedLoadBalancer, LeastBusyPlacement, NupPlacement, EnergyEfficientPlacement.
"""

import numpy as np

from placement.evaluate import traffic_of
from placement.heuristics.packing import Packing, Score, pack
from placement.matrix import Floats, Ints
from placement.problem import CPU, Options, Plan, Problem

BLOCK = 5  # routers in a block: the constant in VLSP's NupPlacement


def least_used(problem: Problem, _options: Options) -> Plan:
    """Return the plan of LeastUsed: the host with the least share in use of what it can hold.

    VLSP divides routers by the most routers of a host; here it is the largest share of any
    resource. The first empty host is taken at once.
    """
    return pack(problem, _used, name="least-used")


def least_busy(problem: Problem, _options: Options) -> Plan:
    """Return the plan of LeastBusy: the host whose copies have the least volume of traffic.

    The volume is Mbit/s in and out, spread over the copies of a demand; then requests per second.
    """
    return pack(problem, _busy, name="least-busy")


def nup(problem: Problem, _options: Options) -> Plan:
    """Return the plan of Nup: the first host with a block of five begun, else the emptiest one."""
    return pack(problem, _blocks, name="nup")


def energy_efficient(problem: Problem, _options: Options) -> Plan:
    """Return the plan of EnergyEfficient: the host that draws the least power with the copy on it.

    As there, it is the power of the host, and not by how much it rises. VLSP's linear model has
    coefficients for cpu, memory and network; the one here is that of `placement.problem.Host`.
    """
    return pack(problem, _energy, name="energy-efficient")


def _used(packing: Packing) -> Score:
    room = packing.arrays.room

    def score(pairs: Ints) -> tuple[Floats, ...]:
        host = packing.arrays.pair_host[pairs]
        there = room[host]
        share = np.divide(packing.used[host], there, out=np.zeros(there.shape), where=there > 0)
        return (share.max(axis=1, initial=0.0),)

    return score


def _busy(packing: Packing) -> Score:
    arrays = packing.arrays
    number = arrays.class_of()
    volume = np.zeros(arrays.classes)
    for ends, mbps in traffic_of(arrays.problem).items():
        for name in ends:
            volume[number[name]] += mbps
    copies = np.maximum(arrays.replicas, 1)
    rate = np.bincount(arrays.rate_class, arrays.rate, minlength=arrays.classes)
    packing.watch(np.stack((volume / copies, rate / copies)))

    def score(pairs: Ints) -> tuple[Floats, ...]:
        busy = packing.tally[:, arrays.pair_host[pairs]]
        return busy[0], busy[1]

    return score


def _blocks(packing: Packing) -> Score:
    def score(pairs: Ints) -> tuple[Floats, ...]:
        count = packing.tally[0, packing.arrays.pair_host[pairs]]
        begun = count % BLOCK != 0
        return np.where(begun, 0.0, 1.0), np.where(begun, 0.0, count)

    return score


def _energy(packing: Packing) -> Score:
    arrays = packing.arrays
    k = arrays.resources.index(CPU)
    idle = np.array([host.idle_w for host in arrays.problem.hosts])
    busy = np.array([host.busy_w for host in arrays.problem.hosts])
    slope = np.divide(
        busy - idle, arrays.room[:, k], where=arrays.room[:, k] > 0, out=np.zeros(len(idle))
    )

    def score(pairs: Ints) -> tuple[Floats, ...]:
        host = arrays.pair_host[pairs]
        return (idle[host] + slope[host] * (packing.used[host, k] + arrays.need[pairs, k]),)

    return score

"""The ways between two places of a lab's network, for people: hops and latency, best first.

In a network that runs, packets take the cheapest ways by weight. Where the lab only counts with
routers and links, it is the fastest way, which is what placement and steering go by.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import islice, pairwise

from orchestrator.errors import NotInNetwork, TopologyError
from orchestrator.model import Lab
from orchestrator.network import Network
from orchestrator.network_edits import some
from orchestrator.routing import Paths
from orchestrator.topology import HOST, POPULATION, ROUTER, Topology

MOST_WAYS = 8  # that are told of equal ones


@dataclass(frozen=True, slots=True)
class Way:
    """A way: the names along it, and its latency in one direction."""

    hops: tuple[str, ...]
    latency_ms: float


@dataclass(frozen=True, slots=True)
class Ways:
    """The best ways, at most `MOST_WAYS`, and whether there are `more` that are as good.

    `by` is ``weight`` or ``latency``; `cost` the sum of that along each, None if there is no way.
    """

    by: str
    cost: float | None = None
    ways: tuple[Way, ...] = ()
    more: bool = False


def ways(network: Network, lab: Lab, a: str, b: str) -> Ways:
    """Return the ways of packets between two routers, populations or hosts."""
    start, end = (_router_of(network, lab, place) for place in (a, b))
    paths = Paths(network)
    found = list(islice(paths.paths(start, end), MOST_WAYS + 1))
    if not found:
        return Ways("weight")
    late = {frozenset((link.a, link.b)): link.quality.latency_ms for link in network.links}
    return Ways(
        "weight",
        paths.cost(start, end),
        tuple(
            Way(way, sum(late[frozenset(hop)] for hop in pairwise(way)))
            for way in found[:MOST_WAYS]
        ),
        len(found) > MOST_WAYS,
    )


def fastest(lab: Lab, a: str, b: str) -> Ways:
    """Return the fastest way between two routers, populations or hosts of a lab."""
    topology = Topology.of(lab)
    start, end = (_node_of(lab, place) for place in (a, b))
    try:
        latency = topology.latency_ms(start, end)
    except TopologyError:  # there is no path
        return Ways("latency")
    return Ways("latency", latency, (Way(topology.path(start, end), latency),))


def _router_of(network: Network, lab: Lab, place: str) -> str:
    """Return the router that a name stands for: itself, or where that host or population hangs."""
    routers = {router.name for router in network.routers}
    if place in routers:
        return place
    at = {stub.name: stub.router for stub in network.stubs}
    at |= {population.name: population.router for population in lab.populations}
    at |= {host.name: host.router for host in lab.hosts if host.router}
    if at.get(place) in routers:
        return at[place]
    raise _unknown(network.name, place, routers | at.keys())


def _node_of(lab: Lab, place: str) -> str:
    """Return a name as the topology has it; of a router and a host of that name, the router."""
    nodes = {population.name: f"{POPULATION}:{population.name}" for population in lab.populations}
    nodes |= {host.name: f"{HOST}:{host.name}" for host in lab.hosts}
    nodes |= {router.name: f"{ROUTER}:{router.name}" for router in lab.routers}
    if place not in nodes:
        raise _unknown(lab.name, place, nodes.keys())
    return nodes[place]


def _unknown(network: str, place: str, known: Iterable[str]) -> NotInNetwork:
    return NotInNetwork(
        f"network {network} has no router, clients or host {place!r}",
        hint=f"there are {some(sorted(known))}",
    )

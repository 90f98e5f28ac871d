"""Which way packets go in a virtual network: shortest paths by weight, as values.

For back ends that install routes (`forwarding`) and for whoever asks for ways (`Paths`). Weights
are counted exactly, in decimals as they are written, so 0.1 + 0.2 ties with 0.3 and no rounding can
make two routers send a packet to and fro. Knows nothing of the kernel, nor of routing daemons.
"""

import heapq
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from ipaddress import IPv4Network, IPv6Network, ip_network
from math import inf, lcm

from orchestrator.network import Network, Stub, VirtualRouter

Prefix = IPv4Network | IPv6Network

_FAR = -1  # no cost: there is no way


@dataclass(frozen=True, slots=True)
class Route:
    """To `prefix` by way of any of the neighbours `via` (names, sorted), which are equally good."""

    prefix: Prefix
    via: tuple[str, ...]


def forwarding(network: Network) -> dict[str, tuple[Route, ...]]:
    """Return the routes of every router of a network: IPv4 before IPv6, then by prefix.

    They lead to each other router's own addresses and to each stub's subnets. What hangs on the
    router itself needs no route, and what cannot be reached has none. A subnet at several routers
    is reached at the nearest of them.
    """
    graph = _Graph(network)
    routes: dict[str, list[Route]] = {router.name: [] for router in network.routers}
    for routers, prefixes in _prefixes_by_routers(network).items():
        costs = graph.costs_to(routers)
        for name, found in routes.items():
            if via := graph.nearer(name, costs):
                found += [Route(prefix, via) for prefix in prefixes]
    return {name: tuple(sorted(found, key=_order)) for name, found in routes.items()}


class Paths:
    """Answers questions about ways through a network; what it computes for one router it keeps.

    For one thread at a time. Costs are sums of weights over links that are up. KeyError: there is
    no such router.
    """

    def __init__(self, network: Network) -> None:
        self._graph = _Graph(network)
        self._searches: dict[str, _Search] = {}

    def cost(self, a: str, b: str) -> float:
        """Return what the cheapest way costs; infinite if there is none."""
        return self._graph.cost(a, self._costs(a, b))

    def path(self, a: str, b: str) -> tuple[str, ...]:
        """Return the routers along a cheapest way, both ends included; empty if there is none.

        Of equal ones, the first by name.
        """
        return next(self.paths(a, b), ())

    def paths(self, a: str, b: str) -> Iterator[tuple[str, ...]]:
        """Yield all cheapest ways, in order of their routers' names; there can be very many."""
        costs = self._costs(a, b)
        ahead: list[tuple[str, ...]] = [(a,)]
        while ahead:
            way = ahead.pop()
            if way[-1] == b:
                yield way
            ahead += [(*way, hop) for hop in reversed(self._graph.nearer(way[-1], costs))]

    def _costs(self, a: str, b: str) -> list[int]:
        """Return the costs to b from a and from all that are nearer."""
        if b not in self._searches:
            self._searches[b] = self._graph.search((b,))
        return self._searches[b].until(self._graph.number(a))


class _Graph:
    """The links that are up, from both ends, with routers as numbers in order of their names.

    Costs are whole multiples of 1 / `scale`, by number of the router; `_FAR` if there is no way.
    """

    def __init__(self, network: Network) -> None:
        up = [(link, Fraction(repr(link.weight))) for link in network.links if link.up]
        self._scale = lcm(*(weight.denominator for _, weight in up))
        self._names = sorted(router.name for router in network.routers)
        self._numbers = {name: number for number, name in enumerate(self._names)}
        self._links: list[list[tuple[int, int]]] = [[] for _ in self._names]
        for link, weight in up:
            self._join(self._numbers[link.a], self._numbers[link.b], int(weight * self._scale))
        for links in self._links:
            links.sort()

    def _join(self, a: int, b: int, weight: int) -> None:
        self._links[a].append((b, weight))
        self._links[b].append((a, weight))

    def number(self, name: str) -> int:
        """Return the number of a router."""
        return self._numbers[name]

    def search(self, targets: Iterable[str]) -> "_Search":
        """Return a search for the costs to the nearest target."""
        return _Search(self._links, sorted(self._numbers[target] for target in targets))

    def costs_to(self, targets: Iterable[str]) -> list[int]:
        """Return the cost to the nearest target from each router."""
        return self.search(targets).until(None)

    def cost(self, name: str, costs: list[int]) -> float:
        """Return the cost from a router as a sum of weights."""
        cost = costs[self._numbers[name]]
        return inf if cost == _FAR else cost / self._scale

    def nearer(self, name: str, costs: list[int]) -> tuple[str, ...]:
        """Return the neighbours over which a cheapest way leads, sorted; none from a target."""
        number = self._numbers[name]
        here = costs[number]
        return tuple(
            self._names[other]
            for other, weight in self._links[number]
            if costs[other] != _FAR and costs[other] + weight == here
        )


class _Search:
    """A search from targets outwards (Dijkstra 1959), which goes on from where it stopped.

    What is ahead is one whole number each, cost before router: that is three times as fast as pairs
    of them.
    """

    def __init__(self, links: list[list[tuple[int, int]]], targets: list[int]) -> None:
        self._links = links
        self._costs = [_FAR] * len(links)
        self._ahead = targets
        for number in targets:
            self._costs[number] = 0

    def until(self, wanted: int | None) -> list[int]:
        """Search until the cost from one router is known, or from all; return the costs.

        Right are all that are not more than the wanted one.
        """
        costs, links, ahead, count = self._costs, self._links, self._ahead, len(self._costs)
        while ahead:
            if wanted is not None and 0 <= costs[wanted] * count <= ahead[0]:
                break
            cost, number = divmod(heapq.heappop(ahead), count)
            if cost > costs[number]:
                continue
            for neighbour, weight in links[number]:
                further = cost + weight
                if costs[neighbour] < 0 or further < costs[neighbour]:
                    costs[neighbour] = further
                    heapq.heappush(ahead, further * count + neighbour)
        return costs


def _prefixes_by_routers(network: Network) -> dict[frozenset[str], list[Prefix]]:
    """Return what is reached, by the routers that have it; most often there is one of them."""
    routers: dict[Prefix, set[str]] = defaultdict(set)
    for router in network.routers:
        for prefix in _own(router):
            routers[prefix].add(router.name)
    for stub in network.stubs:
        for prefix in _subnets(stub):
            routers[prefix].add(stub.router)
    grouped: dict[frozenset[str], list[Prefix]] = defaultdict(list)
    for prefix, names in routers.items():
        grouped[frozenset(names)].append(prefix)
    return grouped


def _own(router: VirtualRouter) -> list[Prefix]:
    addresses = (router.address, router.address6)
    return [ip_network(address) for address in addresses if address is not None]


def _subnets(stub: Stub) -> list[Prefix]:
    return [subnet for subnet in (stub.subnet, stub.subnet6) if subnet is not None]


def _order(route: Route) -> tuple[int, int, int]:
    prefix = route.prefix
    return prefix.version, int(prefix.network_address), prefix.prefixlen

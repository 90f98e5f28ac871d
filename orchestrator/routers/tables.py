"""The routes that are wanted on one machine, and in which order to install them.

Routes of both families go by way of the link-local IPv6 address at the other end of a link
(RFC 8950), from the router's own address, so that links need no addresses of their own and what a
router has to say of a packet comes from the router.

While routes change, some routers have the new ones and some the old. If, for each prefix, a router
gets its new route only after all routers on its new ways have theirs, then no packet ever goes
round in a circle: from a router that has changed it takes new routes to the end, and before that it
follows the old ways, which have no circle either. `depths` says that order. (It is the one of
RFC 6976, without its timers, since here one place tells all routers.)
"""

from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Network, ip_network

from orchestrator.linux.rtnetlink import Target
from orchestrator.network import Network, Routing, Stub, StubKind, VirtualRouter
from orchestrator.routers.layout import CLIENT_DEVICE, Layout, gateways_of
from orchestrator.routers.names import IPAddress, link_local, namespace_of
from orchestrator.routing import Prefix, Route, forwarding

_ANYWHERE = (IPv4Network("0.0.0.0/0"), IPv6Network("::/0"))


@dataclass(frozen=True, slots=True)
class Road:
    """A route whose devices have no numbers yet: hops as names of devices, with gateways."""

    hops: tuple[tuple[str, bytes], ...]
    source: bytes = b""


Table = dict[Target, Road]


@dataclass(frozen=True, slots=True)
class Tables:
    """Routes by namespace, "" for the machine's own; `routes` are all routers', by names."""

    tables: dict[str, Table]
    routes: dict[str, tuple[Route, ...]]


def tables_for(network: Network, layout: Layout) -> Tables:
    """Return the routes of the namespaces of a layout; a router's own only if they are static."""
    routes = forwarding(network) if network.routing is Routing.STATIC else {}
    here = {node.name for node in layout.nodes if node.router}
    stubs = [stub for stub in network.stubs if stub.router in here]
    tables = {node.namespace: Table() for node in layout.nodes}
    for name in here & routes.keys():
        tables[namespace_of(network.name, name)] = _of_router(network.router(name), layout, routes)
    for stub in stubs:
        if stub.kind is StubKind.CLIENTS:
            way = dict(_through(stub, CLIENT_DEVICE, _ANYWHERE))
            tables[namespace_of(network.name, stub.name)] = way
    tables[""] = _of_machine(network, stubs)
    return Tables(tables, routes)


def target_of(prefix: Prefix) -> Target:
    """Return a prefix as the kernel is told it."""
    return Target(prefix.network_address.packed, prefix.prefixlen)


def depths(
    routes: dict[str, tuple[Route, ...]], prefixes: frozenset[Target]
) -> dict[tuple[str, Target], int]:
    """Return, by router and prefix, the hops of the longest way: who is to have its route first.

    0 is next to those who have the prefix themselves. Ways must have no circles.
    """
    ways: dict[Target, dict[str, tuple[str, ...]]] = defaultdict(dict)
    for router, known in routes.items():
        for route in known:
            if (target := target_of(route.prefix)) in prefixes:
                ways[target][router] = route.via
    return {
        (router, target): depth for target, via in ways.items() for router, depth in _depths(via)
    }


def _depths(via: dict[str, tuple[str, ...]]) -> Iterator[tuple[str, int]]:
    behind: dict[str, list[str]] = defaultdict(list)
    for router, hops in via.items():
        for hop in hops:
            behind[hop].append(router)
    missing = {router: len(hops) for router, hops in via.items()}
    ready = [hop for hop in behind if hop not in via]
    depth = -1
    while ready:
        if depth >= 0:
            yield from ((router, depth) for router in ready)
        depth += 1
        reached = []
        for hop in ready:
            for router in behind[hop]:
                missing[router] -= 1
                if not missing[router]:
                    reached.append(router)
        ready = reached


def _of_router(
    router: VirtualRouter, layout: Layout, routes: dict[str, tuple[Route, ...]]
) -> Table:
    gateways = {
        end.peer: (end.device, link_local(end.peer_mac).packed)
        for cable in layout.cables
        for end in cable.ends
        if end.node == router.name and end.peer_mac
    }
    return {
        target_of(route.prefix): Road(
            tuple(gateways[peer] for peer in route.via), _source(router, route.prefix)
        )
        for route in routes[router.name]
    }


def _source(router: VirtualRouter, prefix: Prefix) -> bytes:
    address = router.address if prefix.version == 4 else router.address6
    return b"" if address is None else address.packed


def _of_machine(network: Network, stubs: Iterable[Stub]) -> Table:
    """Return the ways from the machine into the network, through the first stub that has them."""
    table = Table()
    for stub in sorted(stubs, key=lambda each: each.name, reverse=True):
        if stub.kind is StubKind.BRIDGE:
            table |= dict(_through(stub, stub.bridge, elsewhere(network, stub)))
    for stub in stubs:  # the machine is in these itself
        if stub.kind is StubKind.BRIDGE:
            for subnet in _subnets(stub):
                table.pop(target_of(subnet), None)
    return table


def bridged(network: Network, routers: Collection[str]) -> list[Stub]:
    """Return the bridges that hang on some routers."""
    return [
        stub for stub in network.stubs if stub.kind is StubKind.BRIDGE and stub.router in routers
    ]


def elsewhere(network: Network, stub: Stub) -> Iterator[Prefix]:
    """Yield what a stub reaches through its router."""
    for router in network.routers:
        yield from (ip_network(each) for each in _addresses(router))
    for other in network.stubs:
        if other != stub:
            yield from _subnets(other)


def _through(stub: Stub, device: str, prefixes: Iterable[Prefix]) -> Iterator[tuple[Target, Road]]:
    gateways = {gateway.version: gateway.packed for gateway in gateways_of(stub)}
    for prefix in prefixes:
        if prefix.version in gateways:
            yield target_of(prefix), Road(((device, gateways[prefix.version]),))


def _addresses(router: VirtualRouter) -> tuple[IPAddress, ...]:
    both = (router.address, router.address6)
    return tuple(address for address in both if address is not None)


def _subnets(stub: Stub) -> tuple[Prefix, ...]:
    return tuple(subnet for subnet in (stub.subnet, stub.subnet6) if subnet is not None)

"""A network as what is wanted of one machine's kernel: namespaces, and devices joined in pairs.

The `netns` back end makes it so; `tables` has the routes. Only values are made here, and nothing is
asked of the kernel: what its link engines can do is an argument.

Links are unnumbered: a router has its addresses on `lo`, and a link's devices have link-local IPv6
addresses only, which come from their MAC addresses, and with OSPF the router's IPv4 address too.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from enum import StrEnum
from ipaddress import ip_interface

from orchestrator.errors import CannotNetwork
from orchestrator.linux.rtnetlink import Interface
from orchestrator.network import (
    LinkEngine,
    LinkState,
    Network,
    Quality,
    Routing,
    SliceShare,
    Stub,
    StubKind,
    VirtualLink,
    VirtualRouter,
)
from orchestrator.routers import shaping
from orchestrator.routers.names import (
    ALIAS_MAX,
    IPAddress,
    clients_mark,
    device_to,
    link_mark,
    mac_of,
    namespace_of,
    port_of,
    router_mark,
    stub_mark,
    tunnel_numbers,
)

CLIENT_DEVICE = "eth0"
_NO_CROSSING = "it cannot cross machines"


class Build(StrEnum):
    """What two joined devices are."""

    VETH = "veth"
    TAP = "tap"  # two, and a process of ours between them
    VXLAN = "vxlan"  # one, and one on another machine


@dataclass(frozen=True, slots=True)
class Node:
    """A namespace of ours: a router, or the clients of a stub. `addresses` are those of `lo`."""

    name: str
    namespace: str
    mark: str
    addresses: tuple[Interface, ...]
    router: bool


@dataclass(frozen=True, slots=True)
class End:
    """A device. `namespace` is empty for the machine's own; `bridge` names whose port it is."""

    node: str
    peer: str
    namespace: str
    device: str
    mac: bytes
    peer_mac: bytes = b""  # empty: whoever is there is found by asking
    addresses: tuple[Interface, ...] = ()
    bridge: str = ""


@dataclass(frozen=True, slots=True)
class Tunnel:
    """How a link crosses machines: its number, and both machines' addresses as bytes."""

    number: int
    local: bytes
    remote: bytes


@dataclass(frozen=True, slots=True)
class Cable:
    """A link or a stub's connection: one or two ends on this machine, with one mark."""

    name: str
    build: Build
    ends: tuple[End, ...]
    mark: str
    engine: LinkEngine = LinkEngine.NONE
    quality: Quality = field(default_factory=Quality)
    slices: tuple[SliceShare, ...] = ()
    up: bool = True
    stub: bool = False
    tunnel: Tunnel | None = None


@dataclass(frozen=True, slots=True)
class Layout:
    """What is wanted of one machine, but for its routes."""

    nodes: tuple[Node, ...]
    cables: tuple[Cable, ...]

    def names(self) -> set[str]:
        """Return the names of all routers, links and stubs."""
        return {node.name for node in self.nodes} | {cable.name for cable in self.cables}

    def routers(self) -> frozenset[str]:
        """Return the names of this machine's routers."""
        return frozenset(node.name for node in self.nodes if node.router)


def lay_out(network: Network, mark: str, machine: str, engines: dict[LinkEngine, str]) -> Layout:
    """Return what a network wants of a machine; CannotNetwork if that cannot be had."""
    return _checked(_Drawing(network, mark, machine, engines).layout())


def engine_for(
    link: VirtualLink, forced: LinkEngine | None, engines: dict[LinkEngine, str]
) -> LinkEngine:
    """Return what is to make a link slow, as `shaping.choose` says; errors name the link."""
    try:
        return shaping.choose(link.quality, forced, engines)
    except CannotNetwork as error:
        raise CannotNetwork(f"link {link.name}: {error.message}", hint=error.hint) from error


class _Drawing:
    def __init__(
        self, network: Network, mark: str, machine: str, engines: dict[LinkEngine, str]
    ) -> None:
        self._network, self._mark, self._machine = network, mark, machine
        self._engines = engines
        self._routers = {router.name: router for router in network.routers}
        self._links = {(link.a, link.b): link for link in network.links}
        self._numbers = tunnel_numbers(
            network.name, [link.name for link in network.links if self._crosses(link)]
        )

    def layout(self) -> Layout:
        here = {name for name, router in self._routers.items() if router.machine == self._machine}
        links = [link for link in self._network.links if {link.a, link.b} & here]
        stubs = [stub for stub in self._network.stubs if stub.router in here]
        return Layout(
            nodes=(*map(self._router, sorted(here)), *self._clients(stubs)),
            cables=(*map(self._link, links), *map(self._stub, stubs)),
        )

    def _namespace(self, node: str) -> str:
        return namespace_of(self._network.name, node)

    # --- nodes ------------------------------------------------------------------------------------

    def _router(self, name: str) -> Node:
        mark = router_mark(self._mark, self._network.name, name)
        return Node(name, self._namespace(name), mark, _own(self._routers[name]), router=True)

    def _clients(self, stubs: Iterable[Stub]) -> Iterator[Node]:
        for stub in stubs:
            if stub.kind is StubKind.CLIENTS:
                mark = clients_mark(self._mark, self._network.name, stub.name)
                yield Node(stub.name, self._namespace(stub.name), mark, (), router=False)

    # --- cables -----------------------------------------------------------------------------------

    def _link(self, link: VirtualLink) -> Cable:
        crosses = self._crosses(link)
        engine = self._engine(link, crosses=crosses)
        build = Build.TAP if engine is LinkEngine.USER else Build.VETH
        build = Build.VXLAN if crosses else build
        return Cable(
            name=link.name,
            build=build,
            ends=tuple(self._link_ends(link, build)),
            mark=link_mark(self._mark, LinkState(link, engine)),
            engine=engine,
            quality=link.quality,
            slices=link.slices,
            up=link.up,
            tunnel=self._tunnel(link) if crosses else None,
        )

    def _link_ends(self, link: VirtualLink, build: Build) -> Iterator[End]:
        macs = {
            each: mac_of(self._network.name, link.name, each, build) for each in (link.a, link.b)
        }
        for here, there in ((link.a, link.b), (link.b, link.a)):
            if self._routers[here].machine == self._machine:
                namespace, device = self._namespace(here), device_to(there)
                own = self._on_links(self._routers[here])
                yield End(here, there, namespace, device, macs[here], macs[there], own)

    def _on_links(self, router: VirtualRouter) -> tuple[Interface, ...]:
        """Return the address that links have beside link-local ones: OSPFv2 takes an IPv4 one."""
        if self._network.routing is Routing.OSPF:
            return (ip_interface(router.address),)
        return ()

    def _engine(self, link: VirtualLink, *, crosses: bool) -> LinkEngine:
        engines = self._engines | ({LinkEngine.USER: _NO_CROSSING} if crosses else {})
        return engine_for(link, self._network.engine, engines)

    def _crosses(self, link: VirtualLink) -> bool:
        return self._routers[link.a].machine != self._routers[link.b].machine

    def _tunnel(self, link: VirtualLink) -> Tunnel:
        a, b = (self._routers[name].machine for name in (link.a, link.b))
        there = b if a == self._machine else a
        local, remote = self._underlay(self._machine, link), self._underlay(there, link)
        if len(local) != len(remote):
            raise CannotNetwork(
                f"link {link.name}: one machine has an IPv4 address and the other an IPv6 one",
                hint="give both machines an underlay address of the same family",
            )
        return Tunnel(self._numbers[link.name], local, remote)

    def _underlay(self, machine: str, link: VirtualLink) -> bytes:
        for each in self._network.machines:
            if each.name == machine:
                return each.underlay.packed
        raise CannotNetwork(
            f"link {link.name} crosses machines, and the address of "
            f"{machine or 'this machine'} is not known",
            hint="say at which address the others reach it",
        )

    def _stub(self, stub: Stub) -> Cable:
        router = End(
            stub.router,
            stub.name,
            self._namespace(stub.router),
            device_to(stub.name),
            mac_of(self._mark, stub.name, "router"),
            addresses=tuple(_in_subnets(stub, 0)),
        )
        mark = stub_mark(self._mark, stub.name, gateways_of(stub))
        ends = (router, self._clients_or_bridge(stub))
        return Cable(stub.name, Build.VETH, ends, mark, stub=True)

    def _clients_or_bridge(self, stub: Stub) -> End:
        outer = mac_of(self._mark, stub.name, "stub")
        if stub.kind is StubKind.BRIDGE:
            port = port_of(self._mark, stub.name)
            return End(stub.name, stub.router, "", port, outer, bridge=stub.bridge)
        namespace, addresses = self._namespace(stub.name), tuple(_in_subnets(stub, 1))
        return End(stub.name, stub.router, namespace, CLIENT_DEVICE, outer, addresses=addresses)


def gateways_of(stub: Stub) -> tuple[IPAddress, ...]:
    """Return the addresses that a router has in a stub."""
    return tuple(each for each in (stub.gateway, stub.gateway6) if each is not None)


def _own(router: VirtualRouter) -> tuple[Interface, ...]:
    addresses = (router.address, router.address6)
    return tuple(ip_interface(each) for each in addresses if each is not None)


def _in_subnets(stub: Stub, offset: int) -> Iterator[Interface]:
    """Yield the addresses so many after the gateways, with the subnets they are in."""
    for gateway, subnet in ((stub.gateway, stub.subnet), (stub.gateway6, stub.subnet6)):
        if gateway is not None and subnet is not None:
            yield ip_interface(f"{gateway + offset}/{subnet.prefixlen}")


def _checked(layout: Layout) -> Layout:
    marks = [(each.name, each.mark) for each in layout.nodes]
    marks += [(each.name, each.mark) for each in layout.cables]
    for name, mark in marks:
        if len(mark) > ALIAS_MAX:
            raise CannotNetwork(
                f"{name}: its name is too long for the kernel to keep as a mark",
                hint="choose shorter names of routers, or of the network",
            )
    return layout

"""The virtual network that a lab wants, with all that its file leaves to rules: addresses, ends.

`network_of` is for whoever hands a network to `orchestrator.routers`. The rules keep no state and
depend on names, so that adding a router hardly ever gives another one a new address. What a lab
file says wrongly is told by `orchestrator.lab_network_checks`, with the rules of this page.
"""

import hashlib
from collections.abc import Iterator, Mapping
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network

from orchestrator.errors import CannotNetwork
from orchestrator.model import BRIDGE, GuestNetwork, Host, Lab, Link, Population
from orchestrator.network import (
    App,
    Network,
    Quality,
    SliceShare,
    Stub,
    StubKind,
    VirtualLink,
    VirtualRouter,
)
from orchestrator.programs.catalogue import addresses, app


def network_of(lab: Lab) -> Network:
    """Return the network that a lab wants; one without anything if the lab does not run it.

    Populations become clients' stubs. A host with a router becomes a stub to its guests' bridge, if
    that is on the router's machine; with `memory:` it has none. Raises CannotNetwork for a lab that
    no lab file says: one that was not checked.
    """
    settings = lab.network
    if not settings.run:
        return Network(lab.name)
    return Network(
        name=lab.name,
        routers=_routers(lab),
        links=tuple(_link(link, lab) for link in lab.links),
        stubs=(*map(_clients, lab.populations), *_bridges(lab)),
        routing=settings.routing,
        engine=settings.engine,
        machines=settings.machines,
    )


def apps_of(lab: Lab) -> tuple[App, ...]:
    """Return the programs that a lab wants on its routers; none if it does not run its network.

    Raises CannotNetwork, also for a program that asks for a host without a stub.
    """
    if not lab.network.run:
        return ()
    known = addresses(network_of(lab)).__getitem__
    try:
        return tuple(
            app(each.name, router.name, each.run, dict(each.parameters), known)
            for router in lab.routers
            for each in router.apps
        )
    except ValueError as error:
        raise CannotNetwork(f"lab {lab.name}: {error}") from error


def this_machine(lab: Lab) -> str:
    """Return which of the lab's machines this is, whose host is not elsewhere; empty if unclear."""
    here = {host.name for host in lab.hosts if not host.is_elsewhere}
    ours = [machine.name for machine in lab.network.machines if machine.name in here]
    return ours[0] if len(ours) == 1 else ""


# --- routers and links ----------------------------------------------------------------------------


def room(subnet: IPv4Network | IPv6Network) -> int:
    """Return how many routers can have an address of a subnet: all but its first and last."""
    return max(0, subnet.num_addresses - 2)


def _routers(lab: Lab) -> tuple[VirtualRouter, ...]:
    subnet, subnet6 = lab.network.subnet, lab.network.subnet6
    places = _places(lab, subnet, {each.name: each.address for each in lab.routers})
    places6 = _places(lab, subnet6, {each.name: each.address6 for each in lab.routers})
    return tuple(
        VirtualRouter(
            router.name,
            router.address or subnet[places[router.name]],
            router.address6 or subnet6[places6[router.name]],
            machine=router.host,
        )
        for router in lab.routers
    )


def one_more(
    lab: Lab,
    network: Network,
    name: str,
    addresses: tuple[IPv4Address | None, IPv6Address | None] = (None, None),
    machine: str = "",
) -> VirtualRouter:
    """Return a router that people add to the network of a lab that runs.

    An address that is not given is chosen as for one of the lab file, and free.
    """
    subnet, subnet6 = lab.network.subnet, lab.network.subnet6
    four = {each.name: each.address for each in network.routers if each.name != name}
    six = {each.name: each.address6 for each in network.routers if each.name != name}
    given, given6 = addresses
    address = given or subnet[_places(lab, subnet, {**four, name: None})[name]]
    taken = {each: address6 for each, address6 in six.items() if address6 is not None}
    address6 = given6 or subnet6[_places(lab, subnet6, {**taken, name: None})[name]]
    return VirtualRouter(name, address, address6, machine)


def _places(
    lab: Lab,
    subnet: IPv4Network | IPv6Network,
    own: Mapping[str, IPv4Address | IPv6Address | None],
) -> dict[str, int]:
    """Choose a place in a subnet for each name without an address: by its hash, or the next free.

    In the order of names, so that the same routers get the same places however they are listed.
    """
    first, places, many = int(subnet.network_address), {}, room(subnet)
    taken = {int(address) - first for address in own.values() if address and address in subnet}
    for name in sorted(name for name, address in own.items() if address is None):
        if len(taken) >= many:
            raise CannotNetwork(
                f"lab {lab.name}: {subnet} has no address left for router {name}",
                hint="make it larger, or give routers addresses of their own",
            )
        digest = hashlib.sha256(f"edgewake router {name}".encode()).digest()
        place = 1 + int.from_bytes(digest) % many
        while place in taken:
            place = 1 + place % many
        taken.add(place)
        places[name] = place
    return places


def _link(link: Link, lab: Lab) -> VirtualLink:
    routers = {router.name for router in lab.routers}
    for end in (link.a, link.b):
        if end not in routers:
            raise CannotNetwork(
                f"link {link.a}--{link.b}: {end} is not a router",
                hint="attach a host to a router (hosts.NAME.router), and link that",
            )
    a, b = sorted((link.a, link.b))
    quality = Quality(link.latency_ms, link.jitter_ms, link.loss, link.bandwidth_mbps)
    return VirtualLink(a, b, quality, link.weight, link.up, _shares(lab))


def _shares(lab: Lab) -> tuple[SliceShare, ...]:
    """Return what slices have of each link: all subnets of their populations are theirs."""
    subnets = {population.name: population.subnets for population in lab.populations}
    return tuple(
        SliceShare(
            each.name,
            tuple(subnet for name in sorted(each.populations) for subnet in subnets[name]),
            each.mbps,
        )
        for each in lab.slices
        if each.mbps
    )


# --- what hangs on routers ------------------------------------------------------------------------


def client_subnets(population: Population) -> tuple[IPv4Network | None, IPv6Network | None]:
    """Return the first subnet of each family that has room for a router and its clients."""
    four = (each for each in population.subnets if isinstance(each, IPv4Network))
    six = (each for each in population.subnets if isinstance(each, IPv6Network))
    return next(filter(_is_usable, four), None), next(filter(_is_usable, six), None)


def _is_usable(subnet: IPv4Network | IPv6Network) -> bool:
    odd = subnet.is_loopback or subnet.is_multicast or subnet.is_link_local or not subnet.prefixlen
    return room(subnet) > 1 and not odd


def _clients(population: Population) -> Stub:
    subnet, subnet6 = client_subnets(population)
    if subnet is None:
        raise CannotNetwork(
            f"clients {population.name}: none of their subnets is an IPv4 one for a router and them"
        )
    return Stub(
        name=population.name,
        router=population.router,
        kind=StubKind.CLIENTS,
        subnet=subnet,
        gateway=subnet[1],
        subnet6=subnet6,
        gateway6=subnet6[1] if subnet6 else None,
    )


def attached(lab: Lab) -> tuple[Host, ...]:
    """Return the hosts whose guests' bridge is on the machine of the router that they name."""
    machines = {router.name: router.host for router in lab.routers}
    return tuple(
        host
        for host in lab.hosts
        if host.router
        and host.driver != "memory"
        and machines[host.router] in {host.name, *(() if host.is_elsewhere else ("",))}
    )


def bridge_of(host: Host) -> str:
    """Return the bridge of a host's guests; empty if only libvirt knows it."""
    network = host.network
    if network.name.startswith(BRIDGE):
        return network.name.removeprefix(BRIDGE)
    return network.bridge or (network.name if host.driver in ("netns", "spt") else "")


def stations(lab: Lab) -> dict[str, IPv4Address | None]:
    """Return the address that each attached host's router takes among the guests; None: no room.

    It is the highest that is in no pool, and neither the gateway's nor another router's.
    """
    found: dict[str, IPv4Address | None] = {}
    at: dict[tuple[str, str], IPv4Address | None] = {}
    for host in attached(lab):
        place = (bridge_of(host), host.router)
        if place not in at:
            at[place] = _free(host.network, lab, frozenset(filter(None, at.values())))
        found[host.name] = at[place]
    return found


def _free(network: GuestNetwork, lab: Lab, taken: frozenset[IPv4Address]) -> IPv4Address | None:
    pools = [(host.network.first, host.network.last) for host in lab.hosts]
    gateways = {host.network.gateway for host in lab.hosts}
    address = network.subnet.broadcast_address - 1
    while address > network.subnet.network_address:
        inside = [first for first, last in pools if first <= address <= last]
        if not inside and address not in gateways and address not in taken:
            return address
        address = min(inside, default=address) - 1
    return None


def _bridges(lab: Lab) -> Iterator[Stub]:
    """Yield a stub for each bridge and router; hosts that share both are one station."""
    addresses = stations(lab)
    seen = set()
    for host in attached(lab):
        bridge, address, network = bridge_of(host), addresses[host.name], host.network
        if not bridge or address is None:
            raise CannotNetwork(
                f"host {host.name}: router {host.router} cannot be attached to its guests",
                hint="the network needs a bridge with a name, and an address outside of `pool`",
            )
        if (bridge, host.router) not in seen:
            seen.add((bridge, host.router))
            yield Stub(
                name=host.name,
                router=host.router,
                kind=StubKind.BRIDGE,
                subnet=network.subnet,
                gateway=address,
                subnet6=network.subnet6,
                gateway6=network.address6(address),
                bridge=bridge,
            )

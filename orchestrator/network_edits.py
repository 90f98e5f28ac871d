"""What people may change of a virtual network that runs, as values: another network, or why not.

For `orchestrator.live_network` and the command line, which set what comes out. Errors are
`CannotNetwork`, or `NotInNetwork` where there is nothing of that name.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

from orchestrator.errors import CannotNetwork, NotInNetwork
from orchestrator.network import Network, Quality, SliceShare, Stub, VirtualLink, VirtualRouter

Thing = TypeVar("Thing")

_MOST_NAMES = 20  # in a message


@dataclass(frozen=True, slots=True)
class LinkWish:
    """What a link is to become; None leaves what is, or for a new link the lab file's default.

    Units are those of `Quality`.
    """

    latency_ms: float | None = None
    jitter_ms: float | None = None
    loss: float | None = None
    bandwidth_mbps: float | None = None
    weight: float | None = None
    up: bool | None = None


def ends_of(network: Network, name: str) -> tuple[str, str]:
    """Return the routers that a link's name, ``a--b`` or ``b--a``, would join, sorted by name.

    The link need not be there; the routers must be.
    """
    known = {router.name for router in network.routers}
    for a, b in _halves(name):
        if {a, b} <= known and a != b:
            return (a, b) if a < b else (b, a)
    raise NotInNetwork(
        f"{name} does not join two routers of network {network.name}",
        hint=f"write A--B; there are {some(sorted(known))}",
    )


def link_named(network: Network, name: str) -> VirtualLink:
    """Return the link of a name, whichever end comes first; NotInNetwork lists those there are."""
    return named(network.name, "link", name, {link.name: link for link in network.links})


def router_named(network: Network, name: str) -> VirtualRouter:
    """Return the router of a name; NotInNetwork lists those there are."""
    return named(network.name, "router", name, {each.name: each for each in network.routers})


def named(network: str, noun: str, name: str, known: Mapping[str, Thing]) -> Thing:
    """Return the thing of a name; of a link, whichever end comes first."""
    for each in (name, *(f"{b}--{a}" for a, b in _halves(name))):
        if each in known:
            return known[each]
    raise NotInNetwork(
        f"network {network} has no {noun} {name}", hint=f"there are {some([*known])}"
    )


def with_link(network: Network, name: str, wish: LinkWish) -> Network:
    """Return a network in which there is this link, as wished."""
    a, b = ends_of(network, name)
    was = next((link for link in network.links if (link.a, link.b) == (a, b)), None)
    if was is None:
        link = changed(VirtualLink(a, b, slices=_slices(network)), wish)
        return replace(network, links=(*network.links, link))
    link = changed(was, wish)
    return replace(network, links=tuple(link if each is was else each for each in network.links))


def changed(link: VirtualLink, wish: LinkWish) -> VirtualLink:
    """Return a link as wished; CannotNetwork if no such link can be."""
    quality = Quality(
        latency_ms=_chosen(wish.latency_ms, link.quality.latency_ms),
        jitter_ms=_chosen(wish.jitter_ms, link.quality.jitter_ms),
        loss=_chosen(wish.loss, link.quality.loss),
        bandwidth_mbps=link.quality.bandwidth_mbps
        if wish.bandwidth_mbps is None
        else wish.bandwidth_mbps,
    )
    if quality.loss > 1:
        raise CannotNetwork(f"{link.name}: more than all packets cannot be lost")
    if quality.bandwidth_mbps == 0:
        raise CannotNetwork(
            f"{link.name}: a link without bandwidth carries nothing", hint="take it down instead"
        )
    if quality.jitter_ms > quality.latency_ms:
        raise CannotNetwork(
            f"{link.name}: jitter would be more than latency: no packet arrives before it left"
        )
    weight = _chosen(wish.weight, link.weight)
    return replace(link, quality=quality, weight=weight, up=link.up if wish.up is None else wish.up)


def without_link(network: Network, name: str) -> Network:
    """Return a network without a link."""
    gone = link_named(network, name)
    return replace(network, links=tuple(link for link in network.links if link is not gone))


def with_router(network: Network, router: VirtualRouter) -> Network:
    """Return a network in which there is this router; its links stay, if it has any."""
    if any(stub.name == router.name for stub in network.stubs):
        raise CannotNetwork(f"router {router.name}: clients or a host have that name")
    for other in network.routers:
        if other.name != router.name and _share(other, router):
            raise CannotNetwork(f"router {router.name}: {other.name} has that address already")
    for stub in network.stubs:
        if subnet := _holds(stub, router):
            raise CannotNetwork(
                f"router {router.name}: its address is in {subnet}, where {stub.name} is",
                hint="leave the address out, and one is chosen",
            )
    for address in (router.address, router.address6):
        if address is not None and (address.is_multicast or address.is_loopback):
            raise CannotNetwork(f"router {router.name}: {address} cannot be a router's address")
    machines = {"", *(machine.name for machine in network.machines)}
    if router.machine not in machines:
        known = some([machine.name for machine in network.machines])
        raise CannotNetwork(
            f"router {router.name}: {router.machine} is none of network.machines",
            hint=f"there are {known}",
        )
    there = any(each.name == router.name for each in network.routers)
    routers = tuple(router if each.name == router.name else each for each in network.routers)
    return replace(network, routers=routers if there else (*routers, router))


def without_router(network: Network, name: str) -> Network:
    """Return a network without a router and its links; one that others hang on stays."""
    router_named(network, name)
    hanging = [stub.name for stub in network.stubs if stub.router == name]
    if hanging:
        raise CannotNetwork(
            f"router {name}: {some(hanging)} would be cut off",
            hint="attach them to another router in the lab file, and apply it",
        )
    if len(network.routers) == 1:
        raise CannotNetwork(
            f"router {name} is the last one", hint="`edgewake net remove` removes the whole network"
        )
    return replace(
        network,
        routers=tuple(router for router in network.routers if router.name != name),
        links=tuple(link for link in network.links if name not in {link.a, link.b}),
    )


def some(names: Sequence[str]) -> str:
    """Return names as a message has them: the first, and how many more."""
    more = f" and {len(names) - _MOST_NAMES} more" if len(names) > _MOST_NAMES else ""
    return (", ".join(names[:_MOST_NAMES]) or "none") + more


# --- inside -------------------------------------------------------------------------------------


def _chosen(wish: float | None, was: float) -> float:
    return was if wish is None else wish


def _slices(network: Network) -> tuple[SliceShare, ...]:
    """Return what tenants have of each link: the lab file says it of all of them."""
    return network.links[0].slices if network.links else ()


def _share(one: VirtualRouter, other: VirtualRouter) -> bool:
    return one.address == other.address or (
        one.address6 is not None and one.address6 == other.address6
    )


def _holds(stub: Stub, router: VirtualRouter) -> str:
    """Return the subnet of a stub that a router's address is in; empty if none is."""
    if router.address in stub.subnet:
        return str(stub.subnet)
    if stub.subnet6 and router.address6 and router.address6 in stub.subnet6:
        return str(stub.subnet6)
    return ""


def _halves(name: str) -> list[tuple[str, str]]:
    """Return the two names that a link's name may be made of; names may have hyphens, too."""
    places = (at for at in range(1, len(name) - 2) if name[at : at + 2] == "--")
    return [(name[:at], name[at + 2 :]) for at in places]

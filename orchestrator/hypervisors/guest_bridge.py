"""A host's guest network as a Linux bridge of ours: made as the lab wants it, refused, or removed.

For back ends that plug their guests into bridges without libvirt. A bridge is ours when its alias
is the mark given; any other is only used, when the lab says `create: false`, and never changed.
"""

from contextlib import ExitStack
from ipaddress import IPv4Interface, IPv6Interface

from orchestrator.errors import StartFailed
from orchestrator.linux.bridges import NAME_MAX, Interface, Link, Links
from orchestrator.model import GuestNetwork, mac_of


def bridge_of(network: GuestNetwork) -> str:
    """Return the name of a network's bridge: the network's own, unless it names one."""
    return network.bridge or network.name


def bridge_addresses(network: GuestNetwork) -> frozenset[Interface]:
    """Return the host's own addresses on a network."""
    found: set[Interface] = {IPv4Interface((network.gateway, network.subnet.prefixlen))}
    gateway6 = network.address6(network.gateway)
    if gateway6 is not None and network.subnet6 is not None:
        found.add(IPv6Interface((gateway6, network.subnet6.prefixlen)))
    return frozenset(found)


class GuestBridge:
    """One network of one host; `links` is open. Methods raise `StartFailed` and OSError.

    For one caller at a time: two that make the same bridge at once may be refused as foreign.
    """

    def __init__(self, links: Links, host: str, mark: str, network: GuestNetwork) -> None:
        self._links, self._host, self._mark, self._network = links, host, mark, network
        self._name = bridge_of(network)
        self._check_name()
        self._link = links.find(self._name)

    def make(self) -> None:
        """Make the bridge exist with the network's addresses, unless that would cut off guests."""
        addresses = bridge_addresses(self._network)
        with ExitStack() as undo:
            link = self._link
            if link is None:
                gateway_mac = mac_of(self._network.gateway)
                link = self._links.add_bridge(self._name, self._mark, gateway_mac)
                undo.callback(self._links.remove, link)
            elif link.alias != self._mark:
                raise self._refused(
                    f"{self._name} exists here and is not ours",
                    "choose another name, or write `create: false` to use it as it is",
                )
            elif self._links.addresses(link) not in (frozenset(), addresses):
                self._check_unplugged(link)
            self._links.bring_up(link, addresses)
            undo.pop_all()

    def remove(self) -> None:
        """Remove the bridge if it is ours and nobody's card is plugged in."""
        if self._link is not None and self._link.alias == self._mark:
            self._check_unplugged(self._link)
            self._links.remove(self._link)

    def check(self) -> None:
        """Refuse to go on unless the bridge, anybody's, is there and up."""
        if self._link is None or self._link.kind != "bridge":
            hint = "make it, or write `create: true` to have it made"
            raise self._refused(f"bridge {self._name} does not exist here", hint)
        if not self._link.up:
            raise self._refused(f"{self._name} is down", f"`ip link set {self._name} up`")

    def _check_unplugged(self, link: Link) -> None:
        plugged = len(self._links.ports(link))
        if plugged:
            raise self._refused(
                f"{self._name} has {plugged} guest cards plugged in", "stop those guests first"
            )

    def _check_name(self) -> None:
        name = self._name
        if not 1 <= len(name) <= NAME_MAX or "/" in name or name.split() != [name]:
            raise self._refused(
                f"{name!r} cannot be the name of a bridge",
                f"give it a `bridge` of 1 to {NAME_MAX} characters, no blank, no slash",
            )

    def _refused(self, message: str, hint: str) -> StartFailed:
        return StartFailed(self._host, f"network {self._network.name}: {message}", hint=hint)

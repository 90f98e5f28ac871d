"""The network of a host's entry in a lab file: one that is there, or one that is to be made.

Pure, for `host_advice`: a network that others reach is taken with addresses that neither the host
nor the lab has; else a private subnet is chosen that nobody uses as far as we know.
"""

import re
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Interface, IPv4Network

from orchestrator.host_probe import FoundNetwork, HostFacts
from orchestrator.model import Host, Lab

CANDIDATES = tuple(IPv4Network(f"10.213.{third}.0/24") for third in range(110, 250))
POOL_MOST = 50  # addresses of a network that is not ours alone
LONGEST_BRIDGE = 15
LONGEST_PREFIX = 29  # fewer addresses are too few for a host, a gateway and guests
SHARED_MODES = frozenset({"bridge", "route"})  # guests there can be reached by others
NETWORK_NAME = re.compile(r"[A-Za-z0-9_.-]{1,50}")  # in a lab file

Range = tuple[IPv4Address, IPv4Address]  # the first and the last of it


@dataclass(frozen=True, slots=True)
class Network:
    """The `network` of a lab file's host; `remark` is what the user has to check."""

    name: str
    subnet: IPv4Network
    gateway: IPv4Address
    first: IPv4Address
    last: IPv4Address
    bridge: str = ""  # to be made; empty for a network that exists
    remark: str = ""


def lab_pools(lab: Lab | None) -> tuple[Range, ...]:
    """Return the addresses on guests' networks that a lab uses: pools, gateways, and its hosts'."""
    return tuple(each for host in (lab.hosts if lab else ()) for each in _used_by(host))


def _used_by(host: Host) -> Iterator[Range]:
    network = host.network
    yield network.first, network.last
    yield network.gateway, network.gateway
    with suppress(ValueError):  # a name, or none
        own = IPv4Address(host.migration_address)
        yield own, own


def existing_networks(facts: HostFacts, taken: Iterable[Range]) -> Iterator[Network]:
    """Yield the host's networks that others reach, with addresses that are not `taken`."""
    there = tuple(taken)
    for found, ours, gateway in _shared(facts):
        pool = _upper(ours.network, ((ours.ip, ours.ip), (gateway, gateway), *there))
        if pool:
            remark = "make sure that nobody else has these, and no DHCP server gives them out"
            yield Network(found.name, ours.network, gateway, *pool, remark=remark)


def full_networks(facts: HostFacts, taken: Iterable[Range]) -> Iterator[tuple[str, IPv4Network]]:
    """Yield name and subnet of those of which `taken` leaves no address free."""
    free = {network.name for network in existing_networks(facts, taken)}
    for found, ours, _ in _shared(facts):
        if found.name not in free:
            yield found.name, ours.network


def _shared(facts: HostFacts) -> Iterator[tuple[FoundNetwork, IPv4Interface, IPv4Address]]:
    """Yield networks that others reach and whose subnet is known: the host's address, gateway."""
    addresses, gateways = dict(facts.shell.addresses), dict(facts.shell.gateways)
    for found in facts.networks or ():
        if (
            not found.active
            or found.mode not in SHARED_MODES
            or not NETWORK_NAME.fullmatch(found.name)
        ):
            continue
        ours = found.address or addresses.get(found.bridge)
        if ours is None or ours.network.prefixlen > LONGEST_PREFIX:
            continue
        gateway = gateways.get(found.bridge, ours.ip)
        yield found, ours, gateway if gateway in ours.network else ours.ip


def _upper(subnet: IPv4Network, taken: Iterable[Range]) -> Range | None:
    """Return a run of free addresses, as high in the subnet as there is one; None if none is."""
    last = subnet.broadcast_address - 1
    ranges = sorted(taken, key=lambda each: each[1], reverse=True)
    for low, high in ranges:
        if low <= last <= high:
            last = low - 1
    if last <= subnet.network_address:
        return None
    below = (high + 1 for _, high in ranges if high < last)
    return max((subnet.network_address + 1, last - POOL_MOST + 1, *below)), last


def made_network(facts: HostFacts, name: str, busy: set[IPv4Network]) -> Network | None:
    """Return a network to be made, in a private /24 that nobody uses as far as we know."""
    if facts.networks is None:
        return None
    there = {each.address.network for each in facts.networks if each.address}
    there |= {address.network for _, address in facts.shell.addresses}
    subnet = next((each for each in CANDIDATES if not _overlaps(each, busy | there)), None)
    if subnet is None:
        return None
    base = subnet.network_address
    return Network(
        name=f"edgewake-{name}",
        subnet=subnet,
        gateway=base + 1,
        first=base + 10,
        last=base + 250,
        bridge=f"ew-{name}"[:LONGEST_BRIDGE].rstrip("-"),
    )


def _overlaps(subnet: IPv4Network, others: Iterable[IPv4Network]) -> bool:
    return any(subnet.overlaps(other) for other in others)

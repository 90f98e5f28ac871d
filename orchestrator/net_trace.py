"""Which way packets really go in a virtual network, by the names of its routers and clients.

For `orchestrator.cli_net`; `orchestrator.linux.tracing` sends the packets.
"""

from collections.abc import Callable
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address

from orchestrator.errors import CannotNetwork
from orchestrator.linux import namespaces
from orchestrator.linux.tracing import trace
from orchestrator.network import Network

Address = IPv4Address | IPv6Address


@dataclass(frozen=True, slots=True)
class Passed:
    """A node that packets passed, and how long there and back (ms); all empty if nobody answered.

    `node` is empty for an address that the network does not have.
    """

    node: str = ""
    address: Address | None = None
    round_trip_ms: float | None = None


def traced(
    network: Network, a: str, b: str, namespace_of: Callable[[str, str], str], *, six: bool
) -> list[Passed]:
    """Send packets from one router or population of clients to another; CannotNetwork if it fails.

    `namespace_of` returns the namespace of a network's node. With `six`, over IPv6.
    """
    addresses = _addresses(network, six=six)
    for node in (a, b):
        if node not in addresses:
            raise CannotNetwork(
                f"{node} has no IPv{6 if six else 4} address to send packets from and to"
            )
    try:
        hops = namespaces.inside(namespace_of(network.name, a), lambda: trace(addresses[b]))
    except FileNotFoundError as error:
        raise CannotNetwork(
            f"{a} is not on this machine", hint="is it set? edgewake net show LAB"
        ) from error
    except PermissionError as error:
        raise CannotNetwork(f"{a} to {b}: {error.strerror or error}", hint="run as root") from error
    except OSError as error:
        raise CannotNetwork(f"{a} to {b}: {error.strerror or error}") from error
    names = {address: node for node, address in addresses.items()} | _gateways(network)
    return [
        Passed(names.get(hop.address, ""), hop.address, hop.round_trip_ms)
        if hop.address
        else Passed()
        for hop in hops
    ]


def _addresses(network: Network, *, six: bool) -> dict[str, Address]:
    """Return the addresses of one family of all that packets can be sent from and to."""
    found: dict[str, Address | None] = {
        router.name: router.address6 if six else router.address for router in network.routers
    }
    for stub in network.stubs:
        gateway = stub.gateway6 if six else stub.gateway
        if not stub.bridge and gateway is not None:
            found[stub.name] = gateway + 1
    return {node: address for node, address in found.items() if address is not None}


def _gateways(network: Network) -> dict[Address, str]:
    """Return whose the routers' addresses in stubs are."""
    return {
        gateway: stub.router
        for stub in network.stubs
        for gateway in (stub.gateway, stub.gateway6)
        if gateway is not None
    }

"""Sees to it that a network takes no route away from the machine that it is made on.

For the `netns` back end: the machine gets routes into the network through the bridges of guests.
One to a prefix that it has a route to would be put in that one's place; and one to a part of a
subnet that the machine itself is in would cut it off from whoever is there.
"""

from ipaddress import IPv4Network, IPv6Network, ip_network

from orchestrator.errors import CannotNetwork
from orchestrator.linux.rtnetlink import Target
from orchestrator.routers.kernel import Kernel
from orchestrator.routers.tables import Tables

_HINT = "choose other subnets in the lab file (network.subnet, clients, hosts)"


def refuse_routes(tables: Tables, kernel: Kernel) -> None:
    """Raise CannotNetwork if the machine has a route of others that one of ours would replace."""
    wanted = tables.tables[""]
    if not wanted:
        return
    socket = kernel.machine.socket
    stubs = (kernel.stub_of(device) for device in kernel.machine.devices)
    ours = {gateway for _, gateways in stubs for gateway in gateways}
    gateways = {gateway for road in wanted.values() for _, gateway in road.hops}
    for target, way in socket.routes().items():
        if target in wanted and not {hop.gateway for hop in way.hops} <= ours | gateways:
            raise CannotNetwork(
                f"another virtual network on this machine has {_shown(target)}, too", hint=_HINT
            )
    for target, own in socket.others_routes().items():
        for each in wanted:
            if each == target or (own and _overlap(each, target)):
                raise CannotNetwork(
                    f"this machine has a route to {_shown(target)} of its own, and one to "
                    f"{_shown(each)} would take packets from it",
                    hint=_HINT,
                )


def _overlap(a: Target, b: Target) -> bool:
    first, second = _network(a), _network(b)
    return first.version == second.version and first.overlaps(second)


def _shown(target: Target) -> str:
    return str(_network(target))


def _network(target: Target) -> IPv4Network | IPv6Network:
    return ip_network((target.address, target.length))

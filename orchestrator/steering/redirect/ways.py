"""Where an instance on this machine can be reached: the port of a bridge, by its card's address.

Read from the bridge's forwarding database, which knows a card once it has sent something. An
instance that has been silent for long is asked for its address again.
"""

import socket
from contextlib import suppress
from ipaddress import IPv4Address
from pathlib import Path

from orchestrator.model import BRIDGE, Host, mac_of
from orchestrator.steering.redirect.commands import Commands

_DISCARD = 9  # RFC 863
_SYSTEM = Path("/proc/sys/net/ipv4")


def bridge_of(host: Host) -> str:
    """Return the bridge of a host's guests, as the lab file names it."""
    return host.network.bridge or host.network.name.removeprefix(BRIDGE)


def port_of(host: Host, address: IPv4Address, commands: Commands) -> str:
    """Return the device behind which an instance is; empty if nobody knows (yet).

    Then it is asked for its address, so that a later call finds it.
    """
    mac = mac_of(address)
    for entry in commands.ask("bridge", "-j", "fdb", "show", "br", bridge_of(host)):
        if entry["mac"] == mac and "permanent" not in (entry.get("state"), *entry.get("flags", ())):
            return str(entry["ifname"])
    with suppress(OSError), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as anyone:
        anyone.sendto(b"", (str(address), _DISCARD))
    return ""


def obstacles(bridge: str) -> list[str]:
    """Return what keeps answers of instances from going back to clients, as sentences."""
    found = []
    if _number("ip_forward") == 0:
        found.append("this machine does not forward packets: sysctl net.ipv4.ip_forward=1")
    if max(_number("conf/all/rp_filter"), _number(f"conf/{bridge}/rp_filter")) == 1:
        found.append(
            f"it drops what comes from public addresses on {bridge}: "
            f"sysctl net.ipv4.conf.{bridge}.rp_filter=2"
        )
    return found


def _number(name: str) -> int:
    try:
        return int((_SYSTEM / name).read_text())
    except (OSError, ValueError):
        return -1

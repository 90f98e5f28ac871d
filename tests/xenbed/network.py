"""The bed's ends on this machine: free ports on the loopback, a free subnet, a tap on a bridge.

A bridge carries an alias that names the bed's folder, and nothing without it is ever removed. The
tap is not persistent: the kernel removes it with the process that has it open, however that ends.
"""

import fcntl
import json
import os
import socket
import struct
import subprocess
import time
import zlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Interface, IPv4Network
from pathlib import Path

from tests.xenbed.errors import BedError

SUBNETS = tuple(IPv4Network(f"10.213.{third}.0/24") for third in range(90, 110))
PORTS = range(27000, 29900)  # below what Linux gives to outgoing connections

_TUNSETIFF = 0x400454CA  # Linux include/uapi/linux/if_tun.h
DYING_S = 1.0
_IFF_TAP, _IFF_NO_PI, _IFF_VNET_HDR = 0x0002, 0x1000, 0x4000


@dataclass(frozen=True, slots=True)
class Lan:
    """The guests' network: this machine's address is the subnet's first, on `bridge`.

    `bridge` is empty when the network is one inside QEMU, which this machine has no address on.
    """

    bridge: str
    subnet: IPv4Network

    @property
    def gateway(self) -> IPv4Address:
        return self.subnet[1]


def tap_name(bed: str) -> str:
    """Return the name of a bed's tap; names of beds are short enough for it."""
    return f"xbt-{bed}"


def bridge_name(bed: str) -> str:
    """Return the name of the bridge that a bed makes."""
    return f"xbb-{bed}"


def alias(folder: Path) -> str:
    """Return the mark on what belongs to the bed in that folder."""
    return f"edgewake xenbed {folder}"[:255]


def is_free(port: int) -> bool:
    """Return whether nobody listens on a TCP port of the loopback."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def choose_ports(
    count: int, start_at: str, taken: Iterable[int] = (), free: Callable[[int], bool] = is_free
) -> tuple[int, ...]:
    """Return free ports; the search starts where `start_at` says, so that a bed keeps its ports.

    Raises `BedError` if there are too few.
    """
    reserved = frozenset(taken)
    first = zlib.crc32(start_at.encode()) % len(PORTS)
    chosen: list[int] = []
    for port in (*PORTS[first:], *PORTS[:first]):
        if len(chosen) == count:
            break
        if port not in reserved and free(port):
            chosen.append(port)
    if len(chosen) < count:
        raise BedError(f"no {count} ports are free in {PORTS.start}-{PORTS.stop - 1} on 127.0.0.1")
    return tuple(chosen)


def choose_subnet(taken: Iterable[IPv4Network]) -> IPv4Network:
    """Return the first of `SUBNETS` that overlaps nothing taken. Raises `BedError`."""
    used = tuple(taken)
    for subnet in SUBNETS:
        if not any(subnet.overlaps(other) for other in used):
            return subnet
    raise BedError(f"all of {SUBNETS[0]} to {SUBNETS[-1]} are in use; name one with --subnet")


def routed_subnets() -> tuple[IPv4Network, ...]:
    """Return the IPv4 subnets this machine has a route to, other than the default route."""
    routes = json.loads(_ip("-j", "-4", "route", "show"))
    return tuple(IPv4Network(each["dst"]) for each in routes if each["dst"] != "default")


def make_bridge(lan: Lan, mark: str) -> None:
    """Make the bridge of a network, with this machine's address on it. Raises `BedError`.

    One that carries the mark and has no ports is of a bed that was killed, and is made anew.
    """
    remove_bridge(lan.bridge, mark)
    if exists(lan.bridge):
        raise BedError(
            f"there is a device {lan.bridge} that is in use or no bed's; see `ip -d link show "
            f"{lan.bridge}`, or give the bed another name"
        )
    _ip("link", "add", lan.bridge, "type", "bridge", "forward_delay", "0")
    try:
        _ip("link", "set", lan.bridge, "alias", mark, "up")
        address = IPv4Interface((lan.gateway, lan.subnet.prefixlen))
        _ip("address", "add", str(address), "dev", lan.bridge)
    except BaseException:
        _ip("link", "delete", lan.bridge)
        raise


def open_tap(name: str, bridge: str, mark: str) -> int:
    """Make a tap that is a port of `bridge`, and return its descriptor. Raises `BedError`."""
    try:
        tap = os.open("/dev/net/tun", os.O_RDWR | os.O_CLOEXEC)
    except OSError as error:
        raise BedError(
            f"/dev/net/tun: {error.strerror}; without it, use a network inside QEMU: --user-network"
        ) from error
    try:
        flags = _IFF_TAP | _IFF_NO_PI | _IFF_VNET_HDR
        fcntl.ioctl(tap, _TUNSETIFF, struct.pack("16sH22x", name.encode(), flags))
        _ip("link", "set", name, "alias", mark, "master", bridge, "up")
    except OSError as error:
        os.close(tap)
        raise BedError(f"the tap {name} cannot be made: {error.strerror}") from error
    except BedError:
        os.close(tap)
        raise
    return tap


def remove_bridge(name: str, mark: str) -> bool:
    """Remove a bridge if it is there, carries the mark and has no ports; return whether.

    A QEMU that was just killed lets go of its tap a moment after it has ceased to be found.
    """
    found = _links(name)
    if not found or found[0].get("ifalias") != mark:
        return False
    deadline = time.monotonic() + DYING_S
    while any(each.get("master") == name for each in _links()):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    _ip("link", "delete", name)
    return True


def exists(name: str) -> bool:
    """Return whether this machine has a network device of that name."""
    return Path("/sys/class/net", name).exists()


def _links(name: str = "") -> list[dict[str, str]]:
    if name and not exists(name):
        return []
    links: list[dict[str, str]] = json.loads(_ip("-j", "link", "show", *([name] if name else [])))
    return links


def _ip(*arguments: str) -> str:
    try:
        done = subprocess.run(["ip", *arguments], capture_output=True, text=True, check=False)
    except FileNotFoundError as error:
        raise BedError("the program ip is not here; install the Debian package iproute2") from error
    if done.returncode:
        raise BedError(f"ip {' '.join(arguments)}: {done.stderr.strip()}")
    return done.stdout

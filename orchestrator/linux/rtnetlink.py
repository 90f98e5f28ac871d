"""Talks with the kernel about devices, addresses, neighbours and routes, many at a time.

For back ends with thousands of routes. pyroute2 takes half a millisecond to write a route and a
tenth of one to read it; here it is a thirtieth and a tenth of that, since requests are written
once, sent a hundred at a time, and nothing is read but what is used. What is rare (shaping, taps)
is better asked of pyroute2. Decides nothing. Every OSError raised names what was being done, with
the kernel's own words where it has some. rtnetlink(7), netlink(7).
"""

import os
import socket
import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from errno import EINTR
from ipaddress import IPv4Interface, IPv6Address, IPv6Interface, ip_interface
from types import TracebackType
from typing import NamedTuple, Self

from orchestrator.linux import namespaces

Interface = IPv4Interface | IPv6Interface

UP, RUNNING = 0x01, 0x40  # linux/if.h IFF_UP, IFF_RUNNING
PROTOCOL = 0xED  # the origin of our routes and addresses; linux/rtnetlink.h has it for nobody

_AT_ONCE = 100  # the answers to so many fit into a socket's default buffer
_TRIES = 8  # of a reading that others' changes got into (NLM_F_DUMP_INTR)
_BUFFER = 1 << 18

# linux/netlink.h
_REQUEST, _ACK, _DUMP = 0x01, 0x04, 0x300
_REPLACE, _EXCL, _CREATE = 0x100, 0x200, 0x400
_INTERRUPTED = 0x10
_ERROR, _DONE = 2, 3
_SOL_NETLINK, _CAP_ACK, _EXT_ACK, _STRICT = 270, 10, 11, 12
_CAPPED, _TLVS, _TEXT = 0x100, 0x200, 1  # NLM_F_CAPPED, NLM_F_ACK_TLVS, NLMSGERR_ATTR_MSG

# linux/rtnetlink.h
_NEW_LINK, _DEL_LINK, _GET_LINK = 16, 17, 18
_NEW_ADDRESS, _DEL_ADDRESS, _GET_ADDRESS = 20, 21, 22
_NEW_ROUTE, _DEL_ROUTE, _GET_ROUTE = 24, 25, 26
_NEW_NEIGHBOUR, _GET_NEIGHBOUR = 28, 30
_GET_QDISC = 38
_MAIN, _UNICAST = 254, 1  # RT_TABLE_MAIN, RTN_UNICAST
_BY_KERNEL = 2  # RTPROT_KERNEL
_RTA_DST, _RTA_OIF, _RTA_GATEWAY, _RTA_PREFSRC, _RTA_MULTIPATH, _RTA_VIA = 1, 4, 5, 7, 9, 18
_ONLINK = 4  # RTNH_F_ONLINK
_LINK_LOCAL = b"\xfe\x80"  # RFC 4291, 2.5.6

# linux/if_link.h
_IFLA_ADDRESS, _IFLA_NAME, _IFLA_MTU, _IFLA_MASTER, _IFLA_LINKINFO = 1, 3, 4, 10, 18
_IFLA_ALIAS, _IFLA_STATS64, _IFLA_NET_NS_FD = 20, 23, 28
_INFO_KIND, _INFO_DATA, _VETH_PEER = 1, 2, 1
_VXLAN_ID, _VXLAN_GROUP, _VXLAN_LOCAL, _VXLAN_LEARNING, _VXLAN_PORT = 1, 2, 4, 7, 15
_VXLAN_GROUP6, _VXLAN_LOCAL6 = 16, 17

# linux/if_addr.h, linux/neighbour.h, linux/pkt_sched.h
_IFA_ADDRESS, _IFA_LOCAL, _IFA_PROTO, _NO_DAD = 1, 2, 11, 0x02
_NDA_DST, _NDA_LLADDR, _PERMANENT = 1, 2, 0x80
_ROOT, _TCA_STATS2, _STATS_QUEUE = 0xFFFFFFFF, 7, 3

_HEADER = struct.Struct("=IHHII")
_ATTRIBUTE = struct.Struct("=HH")
_LINK = struct.Struct("=BxHiII")
_ADDRESS = struct.Struct("=BBBBI")
_ROUTE = struct.Struct("=BBBBBBBBI")
_NEIGHBOUR = struct.Struct("=BxxxiHBB")
_QDISC = struct.Struct("=BxxxiIII")
_HOP = struct.Struct("=HBBi")
_INDEX = struct.Struct("=I")


class Request(NamedTuple):
    """Something to be done: `what` says it in errors, `kind` and `flags` as in netlink(7).

    The kernel's errors in `fine` (numbers) are none, such as ENODEV where something is to go.
    """

    what: str
    kind: int
    flags: int
    body: bytes
    fine: frozenset[int] = frozenset()


@dataclass(frozen=True, slots=True)
class Counters:
    """What a device has carried since it was made (struct rtnl_link_stats64)."""

    rx_packets: int = 0
    tx_packets: int = 0
    rx_bytes: int = 0
    tx_bytes: int = 0
    tx_dropped: int = 0


@dataclass(frozen=True, slots=True)
class Device:
    """A network device; `kind` is the kernel's word, `master` the index of its bridge or 0.

    One that is `up` carries packets only when it is `running`, which it is soon after its other end
    is up, too.
    """

    index: int
    name: str
    alias: str
    mac: bytes
    kind: str
    up: bool
    running: bool
    mtu: int
    master: int
    counters: Counters


class Address(NamedTuple):
    """An address of a device (its index); `ours` if its origin is (`PROTOCOL`)."""

    device: int
    interface: Interface
    ours: bool


class Hop(NamedTuple):
    """The next station of a route: a device's index and a gateway's address (4 or 16 bytes)."""

    device: int
    gateway: bytes


class Target(NamedTuple):
    """Where a route leads: a prefix, its address as bytes."""

    address: bytes
    length: int


class Way(NamedTuple):
    """How a route gets there: by equally good hops, sorted, from our address `source` or b""."""

    hops: tuple[Hop, ...]
    source: bytes = b""


class Socket:
    """A socket to the kernel inside a namespace ("": the calling thread's), until closed.

    One thread at a time may use it; any thread may.
    """

    def __init__(self, namespace: str = "") -> None:
        self._socket = namespaces.inside(namespace, _open) if namespace else _open()
        self._number = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Let go. May be called twice."""
        self._socket.close()

    def do(self, requests: Iterable[Request]) -> None:
        """Do all of them in order; OSError for the first that failed, after the others."""
        todo = list(requests)
        errors: list[OSError] = []
        for first in range(0, len(todo), _AT_ONCE):
            errors += self._do(todo[first : first + _AT_ONCE])
        if errors:
            raise errors[0]

    def devices(self) -> list[Device]:
        """Return all devices with their counters."""
        found = self._dump(_GET_LINK, _LINK.pack(0, 0, 0, 0, 0))
        return [_device(message) for message in found]

    def addresses(self) -> set[Address]:
        """Return all addresses of all devices."""
        found = self._dump(_GET_ADDRESS, _ADDRESS.pack(0, 0, 0, 0, 0))
        return {_address(message) for message in found}

    def permanent_neighbours(self) -> set[tuple[int, IPv6Address, bytes]]:
        """Return index, address and MAC address of the IPv6 neighbours that are not asked for."""
        found = self._dump(_GET_NEIGHBOUR, _NEIGHBOUR.pack(socket.AF_INET6, 0, 0, 0, 0))
        return set(_neighbours(found))

    def routes(self) -> dict[Target, Way]:
        """Return the routes in the main table whose origin is ours (`PROTOCOL`)."""
        return {
            target: way
            for family in (socket.AF_INET, socket.AF_INET6)
            for target, way in self._routes(family)
        }

    def others_routes(self) -> dict[Target, bool]:
        """Return the routes in the main table of other origins, and which are of own addresses.

        Those are the kernel's: whatever has such an address is at the other end of a wire.
        """
        found = {}
        for family in (socket.AF_INET, socket.AF_INET6):
            for message in self._dump(_GET_ROUTE, _ROUTE.pack(family, 0, 0, 0, _MAIN, 0, 0, 0, 0)):
                origin = _ROUTE.unpack_from(message)[5]
                if origin != PROTOCOL:
                    found[_route(message)[0]] = origin == _BY_KERNEL
        return found

    def drops(self) -> dict[int, int]:
        """Return by device's index how many packets its root queueing discipline has dropped."""
        drops = {}
        for message in self._dump(_GET_QDISC, _QDISC.pack(0, 0, 0, 0, 0)):
            _, index, _, parent, _ = _QDISC.unpack_from(message)
            if parent == _ROOT:
                counted = _attributes(message, _QDISC.size).get(_TCA_STATS2, b"")
                queue = _attributes(counted).get(_STATS_QUEUE, bytes(12))
                drops[index] = _INDEX.unpack_from(queue, 8)[0]  # struct gnet_stats_queue
        return drops

    def _routes(self, family: int) -> Iterator[tuple[Target, Way]]:
        wanted = _ROUTE.pack(family, 0, 0, 0, _MAIN, PROTOCOL, 0, 0, 0)
        return map(_route, self._dump(_GET_ROUTE, wanted))

    def _do(self, requests: list[Request]) -> list[OSError]:
        waiting = {self._number + 1 + offset: each for offset, each in enumerate(requests)}
        self._number += len(requests)
        self._socket.send(
            b"".join(
                _message(each.kind, _REQUEST | _ACK | each.flags, number, each.body)
                for number, each in waiting.items()
            )
        )
        errors = []
        while waiting:
            for kind, flags, number, body in _messages(self._socket.recv(_BUFFER)):
                if kind == _ERROR and (request := waiting.pop(number, None)):
                    code = -struct.unpack_from("=i", body)[0]
                    if code and code not in request.fine:
                        said = _said(flags, body) or os.strerror(code)
                        errors.append(OSError(code, said, request.what))
        return errors

    def _dump(self, kind: int, body: bytes) -> list[bytes]:
        """Return the bodies of all messages of a kind."""
        for _ in range(_TRIES):
            found, whole = self._dump_once(kind, body)
            if whole:
                return found
        raise OSError(EINTR, "others changed it again and again", f"reading (message {kind})")

    def _dump_once(self, wanted: int, body: bytes) -> tuple[list[bytes], bool]:
        self._number += 1
        self._socket.send(_message(wanted, _REQUEST | _DUMP, self._number, body))
        found: list[bytes] = []
        whole = True
        while True:
            for kind, flags, number, answer in _messages(self._socket.recv(_BUFFER)):
                if number != self._number:
                    continue
                whole = whole and not flags & _INTERRUPTED
                if kind == _DONE:
                    return found, whole
                if kind == _ERROR:
                    code = -struct.unpack_from("=i", answer)[0]
                    raise OSError(code, os.strerror(code), f"reading (message {wanted})")
                found.append(answer)


# --- requests -------------------------------------------------------------------------------------


def add_veth(name: str, mac: bytes, peer: str, peer_mac: bytes, peer_namespace: int) -> Request:
    """Make a pair of devices: one here, one in the namespace that an open file stands for."""
    other = (
        _LINK.pack(0, 0, 0, 0, 0)
        + _text(_IFLA_NAME, peer)
        + _attribute(_IFLA_ADDRESS, peer_mac)
        + _attribute(_IFLA_NET_NS_FD, _INDEX.pack(peer_namespace))
    )
    return _add_device(name, mac, "veth", _attribute(_VETH_PEER, other))


def add_vxlan(
    name: str, mac: bytes, *, number: int, local: bytes, remote: bytes, mtu: int, namespace: int
) -> Request:
    """Make one end of a tunnel to another machine (RFC 7348) in an open file's namespace.

    Its packets come and go where the request is made, between those addresses (4 or 16 bytes).
    """
    here, there = (
        (_VXLAN_LOCAL, _VXLAN_GROUP) if len(local) == 4 else (_VXLAN_LOCAL6, _VXLAN_GROUP6)
    )
    data = (
        _attribute(_VXLAN_ID, _INDEX.pack(number))
        + _attribute(here, local)
        + _attribute(there, remote)
        + _attribute(_VXLAN_PORT, struct.pack(">H", 4789))  # IANA's; the kernel's own is older
        + _attribute(_VXLAN_LEARNING, b"\0")
    )
    more = _attribute(_IFLA_MTU, _INDEX.pack(mtu)) + _attribute(
        _IFLA_NET_NS_FD, _INDEX.pack(namespace)
    )
    return _add_device(name, mac, "vxlan", data, more)


def set_device(
    index: int,
    what: str,
    *,
    up: bool | None = None,
    name: str | None = None,
    alias: str | None = None,
    mac: bytes | None = None,
    master: int | None = None,
) -> Request:
    """Change a device; None leaves as it is. `what` names it in errors."""
    attributes = b""
    if name is not None:
        attributes += _text(_IFLA_NAME, name)
    if alias is not None:
        attributes += _attribute(_IFLA_ALIAS, alias.encode())
    if mac is not None:
        attributes += _attribute(_IFLA_ADDRESS, mac)
    if master is not None:
        attributes += _attribute(_IFLA_MASTER, _INDEX.pack(master))
    flags = _LINK.pack(0, 0, index, UP if up else 0, 0 if up is None else UP)
    return Request(f"device {what}", _NEW_LINK, 0, flags + attributes)


def settle_device(index: int, what: str) -> Request:
    """Have the kernel finish what follows when a device gets a carrier (Linux 6.9 and later).

    Until then it may lose packets although it says that it is running: net/core/link_watch.c works
    at its own pace, but is waited for when one device is asked after (net/core/rtnetlink.c,
    rtnl_getlink).
    """
    return Request(f"device {what}", _GET_LINK, 0, _LINK.pack(0, 0, index, 0, 0))


def remove_device(index: int, what: str, *, fine: frozenset[int] = frozenset()) -> Request:
    """Remove a device."""
    body = _LINK.pack(0, 0, index, 0, 0)
    return Request(f"removing device {what}", _DEL_LINK, 0, body, fine)


def add_address(index: int, address: Interface) -> Request:
    """Give a device an address, which works at once (no duplicate address detection)."""
    return _address_request("address", _NEW_ADDRESS, _CREATE | _REPLACE, index, address)


def remove_address(index: int, address: Interface) -> Request:
    """Take an address from a device."""
    return _address_request("removing address", _DEL_ADDRESS, 0, index, address)


def add_neighbour(index: int, address: IPv6Address, mac: bytes) -> Request:
    """Say which MAC address a neighbour has, so that nobody has to ask for it."""
    body = (
        _NEIGHBOUR.pack(socket.AF_INET6, index, _PERMANENT, 0, 0)
        + _attribute(_NDA_DST, address.packed)
        + _attribute(_NDA_LLADDR, mac)
    )
    return Request(f"neighbour {address}", _NEW_NEIGHBOUR, _CREATE | _REPLACE, body)


def put_route(target: Target, way: Way) -> Request:
    """Install a route, or put it in the place of the one that leads to the same prefix."""
    attributes = _attribute(_RTA_DST, target.address) if target.length else b""
    if way.source:
        attributes += _attribute(_RTA_PREFSRC, way.source)
    if len(way.hops) == 1:
        (hop,) = way.hops
        attributes += _gateway(hop, target) + _attribute(_RTA_OIF, _INDEX.pack(hop.device))
    else:
        attributes += _attribute(
            _RTA_MULTIPATH, b"".join(_multipath(hop, target) for hop in way.hops)
        )
    # A bridge need not have an address in the gateway's subnet.
    onlink = len(way.hops) == 1 and not way.hops[0].gateway.startswith(_LINK_LOCAL)
    body = _route_header(target, onlink=onlink) + attributes
    return Request(f"route to {_shown(target)}", _NEW_ROUTE, _CREATE | _REPLACE, body)


def remove_route(target: Target, *, fine: frozenset[int] = frozenset()) -> Request:
    """Remove a route whose origin is ours."""
    body = _route_header(target, onlink=False)
    if target.length:
        body += _attribute(_RTA_DST, target.address)
    return Request(f"removing the route to {_shown(target)}", _DEL_ROUTE, 0, body, fine)


def _add_device(name: str, mac: bytes, kind: str, data: bytes, more: bytes = b"") -> Request:
    info = _text(_INFO_KIND, kind) + _attribute(_INFO_DATA, data)
    body = (
        _LINK.pack(0, 0, 0, 0, 0)
        + _text(_IFLA_NAME, name)
        + _attribute(_IFLA_ADDRESS, mac)
        + _attribute(_IFLA_LINKINFO, info)
        + more
    )
    return Request(f"{kind} device {name}", _NEW_LINK, _CREATE | _EXCL, body)


def _address_request(what: str, kind: int, flags: int, index: int, address: Interface) -> Request:
    family = socket.AF_INET if address.version == 4 else socket.AF_INET6
    no_dad = _NO_DAD if address.version == 6 else 0
    body = _ADDRESS.pack(family, address.network.prefixlen, no_dad, 0, index)
    for each in (_IFA_ADDRESS, _IFA_LOCAL):
        body += _attribute(each, address.ip.packed)
    if kind == _NEW_ADDRESS:
        body += _attribute(_IFA_PROTO, bytes([PROTOCOL]))
    return Request(f"{what} {address}", kind, flags, body)


def _route_header(target: Target, *, onlink: bool) -> bytes:
    family = socket.AF_INET if len(target.address) == 4 else socket.AF_INET6
    flags = _ONLINK if onlink else 0
    return _ROUTE.pack(family, target.length, 0, 0, _MAIN, PROTOCOL, 0, _UNICAST, flags)


def _multipath(hop: Hop, target: Target) -> bytes:
    gateway = _gateway(hop, target)
    return _HOP.pack(_HOP.size + len(gateway), 0, 0, hop.device) + gateway


def _gateway(hop: Hop, target: Target) -> bytes:
    if len(hop.gateway) == len(target.address):
        return _attribute(_RTA_GATEWAY, hop.gateway)
    return _attribute(_RTA_VIA, struct.pack("=H", socket.AF_INET6) + hop.gateway)  # RFC 8950


def _shown(target: Target) -> str:
    family = socket.AF_INET if len(target.address) == 4 else socket.AF_INET6
    return f"{socket.inet_ntop(family, target.address)}/{target.length}"


def _text(kind: int, text: str) -> bytes:
    return _attribute(kind, text.encode() + b"\0")


def _attribute(kind: int, data: bytes) -> bytes:
    return _ATTRIBUTE.pack(4 + len(data), kind) + data + bytes(-len(data) % 4)


def _message(kind: int, flags: int, number: int, body: bytes) -> bytes:
    return _HEADER.pack(_HEADER.size + len(body), kind, flags, number, 0) + body


# --- answers --------------------------------------------------------------------------------------


def _open() -> socket.socket:
    opened = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0)
    try:
        for option in (_CAP_ACK, _EXT_ACK, _STRICT):
            opened.setsockopt(_SOL_NETLINK, option, 1)
        opened.bind((0, 0))
    except BaseException:
        opened.close()
        raise
    return opened


def _messages(data: bytes) -> Iterator[tuple[int, int, int, bytes]]:
    """Yield kind, flags, number and body of each message."""
    at = 0
    while at < len(data):
        length, kind, flags, number, _ = _HEADER.unpack_from(data, at)
        yield kind, flags, number, data[at + _HEADER.size : at + length]
        at += (length + 3) & ~3


def _attributes(data: bytes, at: int = 0) -> dict[int, bytes]:
    found = {}
    while at + 4 <= len(data):
        length, kind = _ATTRIBUTE.unpack_from(data, at)
        found[kind & 0x3FFF] = data[at + 4 : at + length]
        at += (length + 3) & ~3
    return found


def _said(flags: int, body: bytes) -> str:
    """Return the kernel's own words about an error, if it has some."""
    if not (flags & _TLVS and flags & _CAPPED):
        return ""
    return _string(_attributes(body, 4 + _HEADER.size).get(_TEXT, b""))


def _device(message: bytes) -> Device:
    _, _, index, flags, _ = _LINK.unpack_from(message)
    told = _attributes(message, _LINK.size)
    info = _attributes(told.get(_IFLA_LINKINFO, b""))
    rx_packets, tx_packets, rx_bytes, tx_bytes, _, _, _, tx_dropped = struct.unpack_from(
        "=8Q", told.get(_IFLA_STATS64, bytes(64))
    )
    return Device(
        index=index,
        name=_string(told[_IFLA_NAME]),
        alias=_string(told.get(_IFLA_ALIAS, b"")),
        mac=told.get(_IFLA_ADDRESS, b""),
        kind=_string(info.get(_INFO_KIND, b"")),
        up=bool(flags & UP),
        running=bool(flags & RUNNING),
        mtu=_INDEX.unpack(told.get(_IFLA_MTU, bytes(4)))[0],
        master=_INDEX.unpack(told.get(_IFLA_MASTER, bytes(4)))[0],
        counters=Counters(rx_packets, tx_packets, rx_bytes, tx_bytes, tx_dropped),
    )


def _address(message: bytes) -> Address:
    _, length, _, _, index = _ADDRESS.unpack_from(message)
    told = _attributes(message, _ADDRESS.size)
    packed = told.get(_IFA_LOCAL) or told[_IFA_ADDRESS]  # IPv6 has the latter only
    ours = told.get(_IFA_PROTO) == bytes([PROTOCOL])
    return Address(index, ip_interface((packed, length)), ours)


def _neighbours(messages: Iterable[bytes]) -> Iterator[tuple[int, IPv6Address, bytes]]:
    for message in messages:
        _, index, state, _, _ = _NEIGHBOUR.unpack_from(message)
        told = _attributes(message, _NEIGHBOUR.size)
        if state & _PERMANENT and _NDA_LLADDR in told:
            yield index, IPv6Address(told[_NDA_DST]), told[_NDA_LLADDR]


def _route(message: bytes) -> tuple[Target, Way]:
    family, length, *_ = _ROUTE.unpack_from(message)
    told = _attributes(message, _ROUTE.size)
    address = told.get(_RTA_DST, bytes(4 if family == socket.AF_INET else 16))
    if _RTA_MULTIPATH in told:
        hops = tuple(sorted(_hops(told[_RTA_MULTIPATH])))
    else:
        hops = (_hop(_INDEX.unpack(told.get(_RTA_OIF, bytes(4)))[0], told),)
    return Target(address, length), Way(hops, told.get(_RTA_PREFSRC, b""))


def _hops(data: bytes) -> Iterator[Hop]:
    at = 0
    while at < len(data):
        length, _, _, index = _HOP.unpack_from(data, at)
        yield _hop(index, _attributes(data[at + _HOP.size : at + length]))
        at += (length + 3) & ~3


def _hop(index: int, told: dict[int, bytes]) -> Hop:
    return Hop(index, told.get(_RTA_GATEWAY) or told.get(_RTA_VIA, b"")[2:])


def _string(data: bytes) -> str:
    return data.rstrip(b"\0").decode(errors="replace")

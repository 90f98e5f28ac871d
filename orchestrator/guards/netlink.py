"""What a guard asks of the kernel's routing, as raw rtnetlink(7).

On the path of a wake: a request takes some 20 µs, and nothing has to be imported for it.
Every OSError raised is the kernel's own, with what was asked for.
"""

import os
import socket
import struct
from contextlib import closing
from dataclasses import dataclass
from errno import EEXIST, ESRCH
from ipaddress import IPv4Address, IPv6Address, ip_address

Address = IPv4Address | IPv6Address

PROTOCOL = 237  # of our routes, for `ip route`; linux/rtnetlink.h leaves those above 192 to users

_NETLINK_ROUTE = 0
_ERROR = 2  # linux/netlink.h NLMSG_ERROR
_REQUEST, _ACK, _REPLACE, _CREATE = 0x1, 0x4, 0x100, 0x400
_NEW_LINK, _NEW_ROUTE, _DEL_ROUTE, _GET_ROUTE, _NEW_NEIGHBOUR = 16, 24, 25, 26, 28
_UP = 1  # linux/if.h IFF_UP
_IFLA_MTU, _IFLA_TXQLEN, _IFLA_IFALIAS = 4, 13, 20
_RTA_DST, _RTA_OIF, _RTA_GATEWAY, _RTA_PREFSRC = 1, 4, 5, 7
_NDA_DST, _NDA_LLADDR = 1, 2
_STALE = 0x04  # linux/neighbour.h NUD_STALE
_TABLE_MAIN, _SCOPE_LINK, _UNICAST = 254, 253, 1

_HEAD = struct.Struct("=IHHII")  # length, type, flags, sequence, port
_ROUTE = struct.Struct("=BBBBBBBBI")  # family, bits of target, source, tos, table, ..., flags
_LINK = struct.Struct("=BxHiII")  # family, type, index, flags, mask
_NEIGHBOUR = struct.Struct("=BxxxiHBB")  # family, index, state, flags, type


@dataclass(frozen=True, slots=True)
class Way:
    """How this machine reaches an address: by which interface, as whom, and through whom if so."""

    interface: str
    source: Address | None
    gateway: Address | None


def way_to(address: Address) -> Way:
    """Return how an address is reached."""
    route = _ROUTE.pack(_family(address), address.max_prefixlen, 0, 0, 0, 0, 0, 0, 0)
    answer = _ask(_GET_ROUTE, 0, route + _attribute(_RTA_DST, address.packed), f"way to {address}")
    found = _attributes(answer[_HEAD.size + _ROUTE.size :])
    return Way(
        socket.if_indextoname(struct.unpack("=I", found[_RTA_OIF])[0]),
        _address(found.get(_RTA_PREFSRC)),
        _address(found.get(_RTA_GATEWAY)),
    )


def add_route(address: Address, index: int, source: Address | None) -> None:
    """Lead packets for one address to an interface; our own have that source, if it is given."""
    attributes = _attribute(_RTA_DST, address.packed) + _attribute(_RTA_OIF, _number(index))
    if source is not None:
        attributes += _attribute(_RTA_PREFSRC, source.packed)
    what = f"route to {address}"
    _ask(_NEW_ROUTE, _ACK | _CREATE | _REPLACE, _host_route(address) + attributes, what)


def remove_route(address: Address, index: int) -> None:
    """Take such a route back; one that is gone already is no error."""
    attributes = _attribute(_RTA_DST, address.packed) + _attribute(_RTA_OIF, _number(index))
    try:
        _ask(_DEL_ROUTE, _ACK, _host_route(address) + attributes, f"route to {address}")
    except OSError as error:
        if error.errno != ESRCH:
            raise


def hint(address: Address, index: int, mac: str) -> None:
    """Note which MAC an address has: usable at once, and checked by the kernel when it is used."""
    neighbour = _NEIGHBOUR.pack(_family(address), index, _STALE, 0, 0)
    attributes = _attribute(_NDA_DST, address.packed)
    attributes += _attribute(_NDA_LLADDR, bytes.fromhex(mac.replace(":", "")))
    _ask(_NEW_NEIGHBOUR, _ACK | _CREATE | _REPLACE, neighbour + attributes, f"card of {address}")


def set_up(index: int, mtu: int, queue: int, alias: str) -> None:
    """Switch an interface on, with that MTU, alias, and room for so many packets to be read."""
    link = _LINK.pack(socket.AF_UNSPEC, 0, index, _UP, _UP)
    attributes = _attribute(_IFLA_MTU, _number(mtu)) + _attribute(_IFLA_TXQLEN, _number(queue))
    attributes += _attribute(_IFLA_IFALIAS, alias.encode())
    _ask(_NEW_LINK, _ACK, link + attributes, f"interface {index}")


def _host_route(address: Address) -> bytes:
    scope = _SCOPE_LINK if address.version == 4 else 0
    bits = address.max_prefixlen
    return _ROUTE.pack(_family(address), bits, 0, 0, _TABLE_MAIN, PROTOCOL, scope, _UNICAST, 0)


def _ask(kind: int, flags: int, body: bytes, what: str) -> bytes:
    message = _HEAD.pack(_HEAD.size + len(body), kind, _REQUEST | flags, 1, 0) + body
    with closing(socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, _NETLINK_ROUTE)) as netlink:
        netlink.send(message)
        answer = netlink.recv(65536)
    if _HEAD.unpack_from(answer)[1] == _ERROR:
        error = -struct.unpack_from("=i", answer, _HEAD.size)[0]
        if error not in (0, EEXIST):
            raise OSError(error, os.strerror(error), what)
    return answer


def _family(address: Address) -> int:
    return socket.AF_INET if address.version == 4 else socket.AF_INET6


def _number(number: int) -> bytes:
    return struct.pack("=I", number)


def _attribute(kind: int, value: bytes) -> bytes:
    head = struct.pack("=HH", 4 + len(value), kind)
    return head + value + bytes(-len(value) % 4)


def _attributes(data: bytes) -> dict[int, bytes]:
    found = {}
    while len(data) >= 4:
        length, kind = struct.unpack_from("=HH", data)
        if length < 4:
            break
        found[kind] = data[4:length]
        data = data[(length + 3) & ~3 :]
    return found


def _address(packed: bytes | None) -> Address | None:
    return ip_address(packed) if packed else None

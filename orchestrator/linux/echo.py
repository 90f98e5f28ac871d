"""Asks an address whether it answers: an ICMP echo request, sent from where the caller is.

For checks in network namespaces (`namespaces.inside`). Takes CAP_NET_RAW.
"""

import secrets
import select
import socket
import struct
import time
from collections.abc import Iterator
from ipaddress import IPv4Address, IPv6Address

_REQUEST, _REPLY = 8, 0  # RFC 792
_REQUEST6, _REPLY6 = 128, 129  # RFC 4443
_HEADER = struct.Struct("!BBHHH")


def answers(address: IPv4Address | IPv6Address, within_s: float, every_s: float = 0.2) -> bool:
    """Return whether an address answers within a time; asked again every so often.

    False as well if there is no way there. Raises OSError without the right to ask.
    """
    six = address.version == 6
    family, protocol = (socket.AF_INET6, socket.IPPROTO_ICMPV6) if six else _FOUR
    mark, number = secrets.randbits(16), 0
    end = time.monotonic() + within_s
    with socket.socket(family, socket.SOCK_RAW, protocol) as asking:
        while True:
            number += 1
            sent = _sent(asking, address, _request(mark, number, six=six))
            again = min(end, time.monotonic() + every_s)
            for data in _until(asking, again if sent else time.monotonic()):
                if _is_reply(data, mark, six=six):
                    return True
            if time.monotonic() >= end:
                return False
            if not sent:
                time.sleep(max(0.0, again - time.monotonic()))


_FOUR = (socket.AF_INET, socket.IPPROTO_ICMP)


def _sent(asking: socket.socket, address: IPv4Address | IPv6Address, data: bytes) -> bool:
    try:
        asking.sendto(data, (str(address), 0))
    except PermissionError:
        raise
    except OSError:  # no route, or no neighbour: now
        return False
    return True


def _until(asking: socket.socket, end: float) -> Iterator[bytes]:
    while (left := end - time.monotonic()) > 0:
        if select.select([asking], [], [], left)[0]:
            yield asking.recv(2048)


def _request(mark: int, number: int, *, six: bool) -> bytes:
    number &= 0xFFFF
    if six:  # the kernel fills in the checksum (RFC 3542, section 3.1)
        return _HEADER.pack(_REQUEST6, 0, 0, mark, number)
    return _HEADER.pack(_REQUEST, 0, _checksum(_REQUEST << 8, mark, number), mark, number)


def _checksum(*words: int) -> int:
    """Return the Internet checksum of these words (RFC 1071)."""
    total = sum(words)
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def _is_reply(data: bytes, mark: int, *, six: bool) -> bool:
    start = 0 if six else (data[0] & 0x0F) * 4  # over IPv4 there is the header, too (raw(7))
    if len(data) < start + _HEADER.size:
        return False
    kind, _, _, told, _ = _HEADER.unpack_from(data, start)
    wanted = _REPLY6 if six else _REPLY
    return bool(kind == wanted and told == mark)

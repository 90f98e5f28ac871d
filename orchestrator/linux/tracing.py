"""Which way packets really go: hops found by packets that may go so far and no farther.

As traceroute(8) does it with UDP. Each router that ends a packet's life says so with ICMP (RFC 792,
RFC 4443), and the kernel puts that into the socket's error queue (ip(7), IP_RECVERR), which takes
no rights. For the network namespace of the thread that asks.
"""

import select
import socket
import struct
import time
from contextlib import suppress
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address

_FIRST_PORT = 33434  # traceroute(8): nobody is expected to listen there
_TRIES = 3
_HEADER = struct.Struct("=IBBBBII")  # linux/errqueue.h, struct sock_extended_err
_ICMP, _ICMP6 = 2, 3  # SO_EE_ORIGIN_*
_TIME_EXCEEDED = {_ICMP: 11, _ICMP6: 3}  # RFC 792, RFC 4443
_RECVERR = {4: (socket.IPPROTO_IP, 11), 6: (socket.IPPROTO_IPV6, 25)}  # linux/in.h, in6.h
_TTL = {
    4: (socket.IPPROTO_IP, socket.IP_TTL),
    6: (socket.IPPROTO_IPV6, socket.IPV6_UNICAST_HOPS),
}

Address = IPv4Address | IPv6Address


@dataclass(frozen=True, slots=True)
class Hop:
    """Who ended a packet's life, and after how long (ms, there and back); None: nobody said."""

    address: Address | None
    round_trip_ms: float | None = None


def trace(
    destination: Address, *, source: Address | None = None, most: int = 30, patience_s: float = 2.0
) -> tuple[Hop, ...]:
    """Return the hops to an address, itself the last unless it was not reached.

    Ends after `most` hops, or after three of which nothing is heard. Raises OSError when there is
    no route.
    """
    hops: list[Hop] = []
    for distance in range(1, most + 1):
        hop, ended = _hop(destination, source, distance, patience_s)
        hops.append(hop)
        if ended or [each.address for each in hops[-3:]] == [None] * 3:
            break
    return tuple(hops)


def _hop(
    destination: Address, source: Address | None, distance: int, patience_s: float
) -> tuple[Hop, bool]:
    """Return who is so many hops away, and whether it is the end of the way."""
    family = socket.AF_INET if destination.version == 4 else socket.AF_INET6
    for attempt in range(_TRIES):
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.setsockopt(*_RECVERR[destination.version], 1)
            probe.setsockopt(*_TTL[destination.version], distance)
            if source is not None:
                probe.bind((str(source), 0))
            sent = time.monotonic()
            probe.sendto(b"edgewake", (str(destination), _FIRST_PORT + distance + 64 * attempt))
            told = _answer(probe, sent + patience_s / _TRIES)
            if told is not None:
                address, ended = told
                return Hop(address, (time.monotonic() - sent) * 1000), ended
    return Hop(None), False


def _answer(probe: socket.socket, deadline: float) -> tuple[Address, bool] | None:
    """Wait for the ICMP message about a packet; None if none comes."""
    poll = select.poll()
    poll.register(probe, 0)  # POLLERR is always told
    while (left := deadline - time.monotonic()) > 0:
        if not poll.poll(left * 1000):
            return None
        with suppress(BlockingIOError):
            _, controls, _, _ = probe.recvmsg(512, 512, socket.MSG_ERRQUEUE | socket.MSG_DONTWAIT)
            for level, kind, data in controls:
                if (level, kind) in _RECVERR.values():
                    return _told(data)
    return None


def _told(data: bytes) -> tuple[Address, bool]:
    number, origin, kind, *_ = _HEADER.unpack_from(data)
    offender = data[_HEADER.size :]  # a struct sockaddr_in or sockaddr_in6
    if origin == _ICMP:
        return IPv4Address(offender[4:8]), kind != _TIME_EXCEEDED[_ICMP]
    if origin == _ICMP6:
        return IPv6Address(offender[8:24]), kind != _TIME_EXCEEDED[_ICMP6]
    raise OSError(number, "this machine itself could not send")

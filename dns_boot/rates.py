"""Response rate limiting: nobody can make us flood a third party with answers to forged questions.

For the UDP sockets. Replies are counted per network of clients and kind of answer, as NSD and Knot
DNS do. Beyond the rate they are dropped but for every n-th, which is sent short and truncated: a
client that really asked comes again over TCP. A client with a good cookie is not counted at all.
"""

import socket
import threading
import time
from collections.abc import Sequence
from enum import IntEnum
from ipaddress import IPv4Network, IPv6Network, ip_network

from dns_boot.names import HEADER_BYTES, TC, opt_of, skip_name

Network = IPv4Network | IPv6Network

LOOPBACK: tuple[Network, ...] = (ip_network("127.0.0.0/8"), ip_network("::1/128"))
IPV6_PREFIX = 56  # what one customer gets at least (RFC 6177); /24 for IPv4, as everybody has it
MAX_COUNTED = 16_384  # networks with a counter of their own, per kind of answer and second
SHARED = 4096  # counters that all others share
MAX_REMEMBERED = 16_384  # client addresses whose network is known, about 3 MB

NXDOMAIN = 3
_RCODE = 0xF

_MAPPED = "::ffff:"  # an IPv4 client of a socket that listens on ::


class Kind(IntEnum):
    """What is counted apart, so that a flood of odd names does not silence good answers."""

    ANSWER = 0
    NODATA = 1
    NXDOMAIN = 2
    ERROR = 3


SEND, DROP, TRUNCATE = 0, 1, 2  # what becomes of a reply; no enum, which would cost as much again


class Limiter:
    """Counts replies in seconds. Safe to use from several threads; then it may count one less.

    A network begins each second with half of what it had in the last one, and may come to twice the
    rate: so it may send a short burst, and a flood that goes on is limited as a whole and not let
    through anew every second (as in NSD).

    `per_second` is for a network and kind of answer, 0 for no limit; of the replies beyond it every
    `slip`-th is sent truncated, none if `slip` is 0. Loopback and `exempt` are not limited.
    """

    def __init__(
        self, per_second: int = 200, slip: int = 2, exempt: Sequence[Network] = ()
    ) -> None:
        self.per_second = per_second
        self.slip = slip
        self.exempt = tuple(exempt)
        self._most = 2 * per_second
        self._networks = _Networks((*LOOPBACK, *exempt))
        self._buckets: dict[str, bytes | None] = {}
        self._now: tuple[dict[bytes | int, int], ...] = _no_counts()
        self._before: tuple[dict[bytes | int, int], ...] = _no_counts()
        self._ends = 0.0
        self._lock = threading.Lock()

    def judge(self, address: str, kind: int) -> int:
        """Count a reply to an address; return SEND, DROP or TRUNCATE. Costs less than 1 µs."""
        try:
            bucket: bytes | int | None = self._buckets[address]
        except KeyError:
            bucket = self._bucket(address)
        if bucket is None:
            return SEND
        if time.monotonic() >= self._ends:
            self._turn()
        counts = self._now[kind]
        count = counts.get(bucket)
        if count is None:
            if len(counts) >= MAX_COUNTED:
                bucket = hash(bucket) % SHARED
                count = counts.get(bucket, 0)
            else:
                count = self._before[kind].get(bucket, 0) >> 1
        counts[bucket] = count = count + 1
        if count <= self._most:
            return SEND
        return TRUNCATE if self.slip and count % self.slip == 0 else DROP

    def _turn(self) -> None:
        with self._lock:
            now = time.monotonic()
            if now >= self._ends:
                self._before = self._now if now < self._ends + 1 else _no_counts()
                self._now = _no_counts()
                self._ends = now + 1

    def _bucket(self, address: str) -> bytes | None:
        """Return the network that an address is counted with; None if it is not limited."""
        packed = _packed(address)
        bucket = None if not self.per_second or packed in self._networks else _prefix(packed)
        if len(self._buckets) >= MAX_REMEMBERED:
            self._buckets = {}
        self._buckets[address] = bucket
        return bucket


class _Networks:
    """Tells whether an address is in one of some networks."""

    def __init__(self, networks: Sequence[Network]) -> None:
        self._by_size: dict[int, set[tuple[int, int]]] = {4: set(), 16: set()}
        for net in networks:
            host_bits = net.max_prefixlen - net.prefixlen
            wanted = int(net.network_address) >> host_bits
            self._by_size[net.max_prefixlen // 8].add((host_bits, wanted))

    def __contains__(self, packed: bytes) -> bool:
        number = int.from_bytes(packed, "big")
        for host_bits, wanted in self._by_size[len(packed)]:
            if number >> host_bits == wanted:
                return True
        return False


def network_of(address: str) -> bytes:
    """Return the network that an address is counted with: its first bytes, a /24 or a /56."""
    return _prefix(_packed(address))


def _packed(address: str) -> bytes:
    bare = address.partition("%")[0].removeprefix(_MAPPED)
    return socket.inet_pton(socket.AF_INET6 if ":" in bare else socket.AF_INET, bare)


def _prefix(packed: bytes) -> bytes:
    return packed[:3] if len(packed) == 4 else packed[: IPV6_PREFIX // 8]


def _no_counts() -> tuple[dict[bytes | int, int], ...]:
    return tuple({} for _ in Kind)


def kind_of(reply: bytes) -> Kind:
    """Return what a reply is counted as."""
    rcode = reply[3] & 0xF
    if rcode:
        return Kind.NXDOMAIN if rcode == NXDOMAIN else Kind.ERROR
    return Kind.ANSWER if reply[6:8] != b"\0\0" else Kind.NODATA


def truncated(reply: bytes) -> bytes:
    """Return a reply without its records but OPT, and with the TC bit.

    One without a question, as to what could not be read, is as short as can be already.
    """
    if reply[4:6] == b"\0\0":
        return reply
    flags = int.from_bytes(reply[2:4], "big") & ~_RCODE | TC
    end = skip_name(reply, HEADER_BYTES) + 4
    span = opt_of(reply)
    opt = b"" if span is None else reply[slice(*span)]
    counts = b"\0\1\0\0\0\0\0" + bytes((1 if opt else 0,))
    return reply[:2] + flags.to_bytes(2, "big") + counts + reply[HEADER_BYTES:end] + opt

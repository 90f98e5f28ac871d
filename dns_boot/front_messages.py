"""What the DNS processes of one port say to each other, as bytes of one datagram each.

For `dns_boot.front_parent` and `dns_boot.front_child`, which are always of the same installation:
there is no version. Times are monotonic seconds, which all processes of a machine share.
"""

import json
import socket
import struct
from collections.abc import Collection, Iterable, Iterator, Mapping
from ipaddress import ip_network

from dns_boot.cookies import Cookies
from dns_boot.packed import Entry
from dns_boot.rates import Limiter
from dns_boot.udp import IP_PKTINFO, Peer

MAX_BYTES = 65_536
FORGOTTEN_AT_ONCE = 500  # services of one message; with more, everything is forgotten
REPORTED_AT_ONCE = 500

# The first byte. Parent to child: keep an entry, forget services, forget all. Child to parent:
# ready to serve, these services were asked for, what was to be forgotten is.
KEEP, FORGET, CLEAR, READY, ASKED, FORGOTTEN = b"+", b"-", b"0", b"r", b"a", b"f"

_NUMBER = struct.Struct("!Q")
_TIME = struct.Struct("!d")
_SIZE = struct.Struct("!H")
_PEER = struct.Struct("!HIIBB")  # port, flow, scope, length of the address and of the packet info
_ENTRY = struct.Struct("!BBBH40s")  # form, kind, lengths of service and question, headers
_HEADER_BYTES = 10


# --- how to serve -----------------------------------------------------------------------------


def pack_setup(cookies: Cookies, limiter: Limiter) -> bytes:
    """Return what a child needs to answer as its parent does."""
    setup = {
        "cookies": cookies.mode,
        "master": cookies.master.hex(),
        "per_second": limiter.per_second,
        "slip": limiter.slip,
        "exempt": [str(network) for network in limiter.exempt],
    }
    return json.dumps(setup).encode()


def read_setup(message: bytes) -> tuple[Cookies, Limiter]:
    """Return the child's cookies and limiter."""
    setup = json.loads(message)
    exempt = tuple(ip_network(text) for text in setup["exempt"])
    return (
        Cookies(setup["cookies"], bytes.fromhex(setup["master"])),
        Limiter(setup["per_second"], setup["slip"], exempt),
    )


# --- queries handed on ------------------------------------------------------------------------


def pack_query(packet: bytes, peer: Peer) -> bytes:
    """Return a query and where it came from; `peer` is as `dns_boot.udp` has it."""
    with_info = isinstance(peer[0], tuple)
    address, infos = peer if with_info else (peer, ())
    host, port, *rest = address
    flow, scope = rest or (0, 0)
    text: bytes = host.encode()
    info: bytes = infos[0][2] if infos else b""
    return _PEER.pack(port, flow, scope, len(text), len(info)) + text + info + packet


def read_query(message: bytes, family: int, *, with_info: bool) -> tuple[bytes, Peer]:
    """Return the query and its peer, for a socket of that address family."""
    port, flow, scope, text_end, info_end = _PEER.unpack_from(message)
    text_end += _PEER.size
    info_end += text_end
    host, info = message[_PEER.size : text_end].decode(), message[text_end:info_end]
    address = (host, port, flow, scope) if family == socket.AF_INET6 else (host, port)
    if not with_info:
        return message[info_end:], address
    if family == socket.AF_INET6:
        level, kind = socket.IPPROTO_IPV6, socket.IPV6_PKTINFO
    else:
        level, kind = socket.IPPROTO_IP, IP_PKTINFO
    return message[info_end:], (address, [(level, kind, info)] if info else [])


# --- entries ----------------------------------------------------------------------------------


def pack_entry(form: int, question: bytes, entry: Entry) -> bytes:
    """Return an entry to keep."""
    service = entry.service.encode()
    head = _ENTRY.pack(form, entry.kind, len(service), len(question), b"".join(entry.headers))
    return KEEP + head + service + question + entry.tail


def read_entry(message: bytes) -> tuple[int, bytes, Entry]:
    """Return form, question and entry."""
    form, kind, service_end, question_end, joined = _ENTRY.unpack_from(message, 1)
    start = 1 + _ENTRY.size
    service_end += start
    question_end += service_end
    headers = tuple(joined[at : at + _HEADER_BYTES] for at in range(0, len(joined), _HEADER_BYTES))
    entry = Entry(message[start:service_end].decode(), kind, headers, message[question_end:])
    return form, message[service_end:question_end], entry


def pack_forget(number: int, services: Collection[str] | None) -> bytes:
    """Return the order to forget services, or all if there are many, and to confirm it."""
    if services is None or len(services) > FORGOTTEN_AT_ONCE:
        return CLEAR + _NUMBER.pack(number)
    return FORGET + _NUMBER.pack(number) + _pack_texts(services)


def read_forget(message: bytes) -> tuple[int, tuple[str, ...] | None]:
    """Return the number to confirm, and the services."""
    (number,) = _NUMBER.unpack_from(message, 1)
    if message[:1] == CLEAR:
        return number, None
    return number, tuple(text for text, _ in _read_texts(message, 1 + _NUMBER.size, 0))


# --- reports ----------------------------------------------------------------------------------


def pack_forgotten(number: int) -> bytes:
    """Return the word that what was to be forgotten is."""
    return FORGOTTEN + _NUMBER.pack(number)


def read_forgotten(message: bytes) -> int:
    """Return the number that is confirmed."""
    (number,) = _NUMBER.unpack_from(message, 1)
    return int(number)


def pack_asked(asked: Mapping[str, float]) -> Iterator[bytes]:
    """Yield reports of when services were last asked for."""
    items = tuple(asked.items())
    for start in range(0, len(items), REPORTED_AT_ONCE):
        parts = (
            _pack_texts((service,)) + _TIME.pack(at)
            for service, at in items[start : start + REPORTED_AT_ONCE]
        )
        yield ASKED + b"".join(parts)


def read_asked(message: bytes) -> Iterator[tuple[str, float]]:
    """Yield services and when each was last asked for."""
    for service, rest in _read_texts(message, 1, _TIME.size):
        (at,) = _TIME.unpack(rest)
        yield service, at


def _pack_texts(texts: Iterable[str]) -> bytes:
    encoded = (text.encode() for text in texts)
    return b"".join(_SIZE.pack(len(text)) + text for text in encoded)


def _read_texts(message: bytes, offset: int, rest: int) -> Iterator[tuple[str, bytes]]:
    """Yield texts, each with the `rest` bytes that follow it."""
    while offset < len(message):
        (size,) = _SIZE.unpack_from(message, offset)
        start = offset + _SIZE.size
        offset = start + size + rest
        yield message[start : start + size].decode(), message[start + size : offset]

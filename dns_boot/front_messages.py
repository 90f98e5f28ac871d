"""What the DNS processes of one port say to each other, as bytes of one datagram each.

For `dns_boot.front_parent` and `dns_boot.front_child`, which are always of the same installation:
there is no version. Times are monotonic seconds, which all processes of a machine share.
"""

import json
import socket
import struct
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from ipaddress import ip_network

from dns_boot.clients import Clients
from dns_boot.cookies import Cookies
from dns_boot.packed import Counted, Entry
from dns_boot.rates import Limiter
from dns_boot.samples import Sample
from dns_boot.udp import IP_PKTINFO, Peer
from orchestrator.model import Population

MAX_BYTES = 65_536
FORGOTTEN_AT_ONCE = 500  # services of one message; with more, everything is forgotten
REPORTED_AT_ONCE = 500
MOST_CLIENTS = 60_000  # bytes about populations; beyond, children do not know them

# The first byte. Parent to child: keep an entry, forget services, forget all and have new clients.
# Child to parent: ready to serve, these services were asked for, what was to be forgotten is, these
# answers were counted, and these were noted.
KEEP, FORGET, CLEAR, READY, ASKED, FORGOTTEN = b"+", b"-", b"0", b"r", b"a", b"f"
COUNTED, NOTED = b"c", b"n"
COUNTED_AT_ONCE = 200  # lines of one message
NOTED_AT_ONCE = 10  # samples of one message: at most 11 KB

_NUMBER = struct.Struct("!Q")
_TIME = struct.Struct("!d")
_SIZE = struct.Struct("!H")
_PEER = struct.Struct("!HIIBB")  # port, flow, scope, length of the address and of the packet info
_SAMPLE = struct.Struct("!ddHB")  # when it was sent, seconds it took, port, length of the address
_ENTRY = struct.Struct("!BBBH40s")  # form, kind, lengths of service and key, headers
_HEADER_BYTES = 10


# --- how to serve -----------------------------------------------------------------------------


def pack_setup(cookies: Cookies, limiter: Limiter, clients: Clients | None, room: int = 0) -> bytes:
    """Return what a child needs to answer as its parent does, and how many samples it is to note.

    None, if `room` is 0; else so many a second.
    """
    setup = {
        "room": room,
        "cookies": cookies.mode,
        "master": cookies.master.hex(),
        "per_second": limiter.per_second,
        "slip": limiter.slip,
        "exempt": [str(network) for network in limiter.exempt],
        "clients": _rows(clients),
    }
    return json.dumps(setup).encode()


def read_setup(message: bytes) -> tuple[Cookies, Limiter, Clients | None, int]:
    """Return the child's cookies and limiter, how it tells clients apart, and its room."""
    setup = json.loads(message)
    exempt = tuple(ip_network(text) for text in setup["exempt"])
    return (
        Cookies(setup["cookies"], bytes.fromhex(setup["master"])),
        Limiter(setup["per_second"], setup["slip"], exempt),
        _clients(setup["clients"]),
        setup["room"],
    )


def _rows(clients: Clients | None) -> Sequence[Sequence[str]] | None:
    """Return populations, each with its subnets; None if that is too much for a message."""
    if clients is None:
        return None
    rows = [(each.name, *map(str, each.subnets)) for each in clients.populations]
    return rows if len(json.dumps(rows)) <= MOST_CLIENTS else None


def _clients(rows: Sequence[Sequence[str]] | None) -> Clients | None:
    if rows is None:
        return None
    return Clients([Population(row[0], tuple(map(ip_network, row[1:])), "") for row in rows])


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


def pack_entry(form: int, key: bytes, entry: Entry) -> bytes:
    """Return an entry to keep."""
    service = entry.service.encode()
    head = _ENTRY.pack(form, entry.kind, len(service), len(key), b"".join(entry.headers))
    return KEEP + head + service + key + _pack_parts(entry.tails)


def read_entry(message: bytes) -> tuple[int, bytes, Entry]:
    """Return form, key and entry."""
    form, kind, service_end, key_end, joined = _ENTRY.unpack_from(message, 1)
    start = 1 + _ENTRY.size
    service_end += start
    key_end += service_end
    headers = tuple(joined[at : at + _HEADER_BYTES] for at in range(0, len(joined), _HEADER_BYTES))
    tails = tuple(tail for tail, _ in _read_parts(message, key_end, 0))
    entry = Entry(message[start:service_end].decode(), kind, headers, tails)
    return form, message[service_end:key_end], entry


def pack_forget(number: int, services: Collection[str] | None, clients: Clients | None) -> bytes:
    """Return the order to forget services, or all if there are many, and to confirm it.

    Who is to forget all is told anew how to tell clients apart.
    """
    if services is None or len(services) > FORGOTTEN_AT_ONCE:
        return CLEAR + _NUMBER.pack(number) + json.dumps(_rows(clients)).encode()
    return FORGET + _NUMBER.pack(number) + _pack_parts(map(str.encode, services))


def read_forget(message: bytes) -> tuple[int, tuple[str, ...] | None, Clients | None]:
    """Return the number to confirm, the services, and for all of them how to tell clients apart."""
    (number,) = _NUMBER.unpack_from(message, 1)
    start = 1 + _NUMBER.size
    if message[:1] == CLEAR:
        return number, None, _clients(json.loads(message[start:]))
    return number, tuple(part.decode() for part, _ in _read_parts(message, start, 0)), None


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
            _pack_parts((service.encode(),)) + _TIME.pack(at)
            for service, at in items[start : start + REPORTED_AT_ONCE]
        )
        yield ASKED + b"".join(parts)


def read_asked(message: bytes) -> Iterator[tuple[str, float]]:
    """Yield services and when each was last asked for."""
    for service, rest in _read_parts(message, 1, _TIME.size):
        (at,) = _TIME.unpack(rest)
        yield service.decode(), at


def pack_counted(counts: Mapping[Counted, int]) -> Iterator[bytes]:
    """Yield reports of what was answered."""
    lines = [(*key, number) for key, number in counts.items()]
    for start in range(0, len(lines), COUNTED_AT_ONCE):
        yield COUNTED + json.dumps(lines[start : start + COUNTED_AT_ONCE]).encode()


def read_counted(message: bytes) -> Counter[Counted]:
    """Return what was answered."""
    return Counter(
        {
            (qtype, rcode, outcome, service): number
            for qtype, rcode, outcome, service, number in json.loads(message[1:])
        }
    )


def pack_noted(samples: Sequence[Sample], answers: int) -> Iterator[bytes]:
    """Yield reports of samples, and of how many answers those of each message are."""
    for start in range(0, len(samples), NOTED_AT_ONCE):
        some = samples[start : start + NOTED_AT_ONCE]
        stands_for = answers * (start + len(some)) // len(samples) - answers * start // len(samples)
        yield NOTED + _NUMBER.pack(stands_for) + b"".join(map(_pack_sample, some))


def _pack_sample(sample: Sample) -> bytes:
    address = sample.address.encode()
    head = _SAMPLE.pack(sample.at, sample.took_s, sample.port, len(address))
    return _pack_parts((head + address + sample.packet, sample.reply))


def read_noted(message: bytes) -> tuple[list[Sample], int]:
    """Return samples, and how many answers they are."""
    (answers,) = _NUMBER.unpack_from(message, 1)
    parts = [part for part, _ in _read_parts(message, 1 + _NUMBER.size, 0)]
    samples = []
    for query, reply in zip(parts[::2], parts[1::2], strict=True):
        at, took_s, port, length = _SAMPLE.unpack_from(query)
        end = _SAMPLE.size + length
        address = query[_SAMPLE.size : end].decode()
        samples.append(Sample(at, took_s, query[end:], reply, address, port))
    return samples, int(answers)


# --- all of them ------------------------------------------------------------------------------


def received(sock: socket.socket, most: int) -> Iterator[bytes]:
    """Yield messages that are there, up to `most`, then none; an empty one if the other is gone."""
    for _ in range(most):
        try:
            message = sock.recv(MAX_BYTES, socket.MSG_DONTWAIT)
        except BlockingIOError:
            return
        except ConnectionError:
            message = b""
        yield message
        if not message:
            return


def _pack_parts(parts: Iterable[bytes]) -> bytes:
    return b"".join(_SIZE.pack(len(part)) + part for part in parts)


def _read_parts(message: bytes, offset: int, rest: int) -> Iterator[tuple[bytes, bytes]]:
    """Yield parts, each with the `rest` bytes that follow it."""
    while offset < len(message):
        (size,) = _SIZE.unpack_from(message, offset)
        start = offset + _SIZE.size
        offset = start + size + rest
        yield message[start : start + size], message[start + size : offset]

"""Names and questions: what a DNS query says, and which service a name stands for.

For the resolver and the packed answers. Everything that comes from the network is read here, with
every length checked before it is used, so that no other module meets a packet that lies about
itself. What to answer is left to `dns_boot.resolver` and `dns_boot.answers`.
"""

import logging
import re
import struct
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from dns_boot import cookies
from orchestrator.errors import EdgewakeError

if TYPE_CHECKING:  # the further DNS processes do without all that the nouns need
    from orchestrator.steering.base import Route

logger = logging.getLogger(__name__)

Name = tuple[bytes, ...]
"""The labels of a name, lower case unless said otherwise, without the root label."""

HEADER_BYTES = 12
MAX_LABEL_BYTES = 63  # RFC 1035, section 2.3.4
MAX_NAME_BYTES = 255  # RFC 1035, section 2.3.4; with length bytes and the root label
MIN_UDP_BYTES = 512  # RFC 1035, section 2.3.4
EDNS_UDP_BYTES = 1232  # what we send and accept: no IPv6 path fragments it (DNS Flag Day 2020)

QR, AA, TC, RD, RA, CD = 0x8000, 0x0400, 0x0200, 0x0100, 0x0080, 0x0010
OPCODE = 0x7800
FORMERR, NOTIMP = 1, 4
OPT, TSIG = 41, 250
OPT_BYTES = 11  # of an OPT record, before its options
SUBNET_OPTION = 8  # RFC 7871, section 6
DO = 0x8000

_LABEL = re.compile(r"(?!-)[a-z0-9_-]{1,63}(?<!-)")
_HEADER = struct.Struct("!6H")
TYPE_CLASS = struct.Struct("!HH")
RECORD = struct.Struct("!HHIH")
_OPTION = struct.Struct("!HH")


class FormatError(ValueError):
    """A packet, or a part of one, that is not as RFC 1035 and RFC 6891 want it."""


@dataclass(frozen=True, slots=True)
class Edns:
    """What the client said in its OPT record (RFC 6891); `size` is its UDP size in bytes.

    `cookie` is the data of its COOKIE option, later of the one for the reply; empty for none.
    `subnet` is the data of its EDNS Client Subnet option, as it came; None for none.
    """

    size: int
    version: int
    do: bool
    cookie: bytes = b""
    subnet: bytes | None = None


@dataclass(frozen=True, slots=True)
class Query:
    """One well-formed question. `name` is lower case; `flags` is the header's second word.

    `question` is the question section, byte for byte as the client wrote it. `tsig_at` is where the
    TSIG record begins that ends the packet; 0 if it is not signed.
    """

    id: int
    flags: int
    question: bytes
    name: Name
    qtype: int
    qclass: int
    edns: Edns | None
    tsig_at: int = 0

    @property
    def udp_limit(self) -> int:
        """The longest reply in bytes that the client and we are ready for over UDP."""
        if self.edns is None:
            return MIN_UDP_BYTES
        return max(MIN_UDP_BYTES, min(self.edns.size, EDNS_UDP_BYTES))


@dataclass(frozen=True, slots=True)
class Malformed:
    """A packet whose header can be read, and the rcode that is all it will be told."""

    id: int
    flags: int
    rcode: int


def parse_query(packet: bytes) -> Query | Malformed | None:
    """Return what a packet asks, why it cannot be answered, or None if it is to be dropped.

    Dropped are packets too short for a header, and responses: to answer one could start an endless
    exchange between two servers.
    """
    if len(packet) < HEADER_BYTES:
        return None
    ident, flags, questions, *counts = _HEADER.unpack_from(packet)
    if flags & QR:
        return None
    if flags & OPCODE:
        return Malformed(ident, flags, NOTIMP)
    try:
        return _read_query(packet, ident, flags, questions, counts)
    except FormatError:
        return Malformed(ident, flags, FORMERR)


def _read_query(
    packet: bytes, ident: int, flags: int, questions: int, counts: Sequence[int]
) -> Query:
    if questions != 1:
        raise FormatError(f"{questions} questions")
    labels, end = read_name(packet, HEADER_BYTES)
    qtype, qclass = unpack(TYPE_CLASS, packet, end)
    end += TYPE_CLASS.size
    edns, tsig_at = _read_records(packet, end, counts)
    return Query(
        id=ident,
        flags=flags,
        question=packet[HEADER_BYTES:end],
        name=tuple(label.lower() for label in labels),  # ASCII letters only (RFC 4343)
        qtype=qtype,
        qclass=qclass,
        edns=edns,
        tsig_at=tsig_at,
    )


def read_name(packet: bytes, offset: int) -> tuple[Name, int]:
    """Return the labels of the uncompressed name at `offset`, and where it ends.

    A question has nothing before it that it could point to, so a pointer is a FormatError here.
    """
    labels = []
    start = offset
    while length := byte_at(packet, offset):
        if length > MAX_LABEL_BYTES:
            raise FormatError("a compressed or unknown label in a question")
        labels.append(packet[offset + 1 : offset + 1 + length])
        offset += 1 + length
        if offset - start >= MAX_NAME_BYTES:
            raise FormatError("a name of more than 255 bytes")
    return tuple(labels), offset + 1


def _read_records(packet: bytes, offset: int, counts: Sequence[int]) -> tuple[Edns | None, int]:
    """Walk over all records after the question; return OPT, and where a TSIG record begins."""
    answers, authorities, additionals = counts
    edns, tsig_at = None, 0
    for index in range(answers + authorities + additionals):
        if tsig_at:
            raise FormatError("a record after the signature")  # RFC 8945, section 5.1
        start, is_root = offset, byte_at(packet, offset) == 0
        offset = skip_name(packet, offset)
        rtype, rclass, ttl, length = unpack(RECORD, packet, offset)
        offset += RECORD.size
        if offset + length > len(packet):
            raise FormatError("a record longer than its packet")
        if rtype == OPT:
            if edns is not None or not is_root or index < answers + authorities:
                raise FormatError("an OPT record where it must not be")
            version = ttl >> 16 & 0xFF  # what options look like in another one, nobody knows
            options = {} if version else _read_options(packet, offset, offset + length)
            edns = Edns(
                size=rclass,
                version=version,
                do=bool(ttl & DO),
                cookie=_cookie(options),
                subnet=options.get(SUBNET_OPTION),
            )
        elif rtype == TSIG:
            if index < answers + authorities:
                raise FormatError("a signature where it must not be")
            tsig_at = start
        offset += length
    if offset != len(packet):
        raise FormatError("bytes after the last record")
    return edns, tsig_at


def tsig_in(message: bytes) -> int:
    """Return where the TSIG record of a message with one question begins; 0 if it has none.

    Raises FormatError.
    """
    _, _, questions, *counts = unpack(_HEADER, message, 0)
    if questions != 1:
        raise FormatError(f"{questions} questions")
    return _read_records(message, skip_name(message, HEADER_BYTES) + TYPE_CLASS.size, counts)[1]


def skip_name(packet: bytes, offset: int) -> int:
    """Return where a name ends. Pointers are stepped over and never followed: no loop."""
    while length := byte_at(packet, offset):
        if length >= 0xC0:
            return offset + 2
        if length > MAX_LABEL_BYTES:
            raise FormatError("an unknown kind of label")
        offset += 1 + length
    return offset + 1


def _read_options(packet: bytes, offset: int, end: int) -> dict[int, bytes]:
    """Return the first option of each code, with its data."""
    options: dict[int, bytes] = {}
    while offset < end:
        code, length = unpack(_OPTION, packet, offset)
        offset += _OPTION.size + length
        options.setdefault(code, packet[offset - length : offset])
    if offset != end:
        raise FormatError("an EDNS option longer than its record")
    return options


def _cookie(options: Mapping[int, bytes]) -> bytes:
    cookie = options.get(cookies.OPTION)
    if cookie is not None and len(cookie) not in cookies.LENGTHS:
        raise FormatError("a cookie of a wrong length")  # RFC 7873, section 5.2.2
    return cookie or b""


def opt_of(message: bytes) -> tuple[int, int] | None:
    """Return where the OPT record of a message begins and ends; None without one that is whole."""
    questions, *counts = _HEADER.unpack_from(message)[2:]
    offset = HEADER_BYTES
    try:
        for _ in range(questions):
            offset = skip_name(message, offset) + TYPE_CLASS.size
        for _ in range(sum(counts)):
            start, offset = offset, skip_name(message, offset)
            rtype, _, _, length = unpack(RECORD, message, offset)
            offset += RECORD.size + length
            if rtype == OPT:
                return (start, offset) if offset <= len(message) else None
    except FormatError:
        return None
    return None


def byte_at(packet: bytes, offset: int) -> int:
    """Return a byte of a name; FormatError behind the end of its packet."""
    try:
        return packet[offset]
    except IndexError:
        raise FormatError("a name that goes on after the end of its packet") from None


def unpack(layout: struct.Struct, packet: bytes, offset: int) -> tuple[int, ...]:
    """Return the numbers of a layout in a packet; FormatError behind the end of it."""
    if offset + layout.size > len(packet):
        raise FormatError("a packet that ends too early")
    return layout.unpack_from(packet, offset)


def name_of(text: str) -> Name:
    """Return the name that a text such as ``web.edge.example`` stands for, in lower case.

    Raises EdgewakeError if it is no host name: labels of letters, digits, hyphens and underscores.
    """
    labels = text.lower().removesuffix(".").split(".")
    name = tuple(label.encode() for label in labels)
    if not all(_LABEL.fullmatch(label) for label in labels) or len(wire(name)) > MAX_NAME_BYTES:
        raise EdgewakeError(
            f"{text!r} is not a DNS name",
            hint="use labels of 1 to 63 letters, digits, hyphens or underscores, "
            "none of them starting or ending with a hyphen, 253 characters in all",
        )
    return name


def wire(name: Name) -> bytes:
    """Return the name as it stands in an uncompressed question."""
    return b"".join(bytes((len(label),)) + label for label in name) + b"\0"


class NameTable:
    """Which names exist in a zone, and which service each stands for. Never changed once made.

    `generation` tells one table from the next; `wires` holds the names as they stand in a packet.
    Endpoints change with every wake, names only with the lab: a table that is made `like` an older
    one with the same names takes those over instead of reading them again.
    """

    def __init__(
        self,
        zone: Name,
        routes: "Iterable[Route]",
        *,
        own: Iterable[Name] = (),
        generation: int = 0,
        like: "NameTable | None" = None,
    ) -> None:
        self.zone = zone
        self.generation = generation
        self._by_service = {route.service.name: route for route in routes}
        self._named = {name: route.service.names for name, route in self._by_service.items()}
        self._services: dict[Name, str] = {}
        self._existing: set[Name] = set()
        self.wires: frozenset[bytes] = frozenset()
        if like is not None and like._named == self._named:
            self._services, self._existing, self.wires = like._services, like._existing, like.wires
            return
        for service, names in self._named.items():
            for text in names:
                self._add(text, service)
        existing = (*self._services, *(name for name in own if self.covers(name)))
        self._existing = {zone}.union(*(self._with_ancestors(name) for name in existing))
        self.wires = frozenset(wire(name) for name in self._existing)

    def _add(self, text: str, service: str) -> None:
        """Add one name; a name that cannot be answered must not take the others with it."""
        try:
            name = name_of(text)
        except EdgewakeError as error:
            logger.warning("service %s: %s", service, error)
            return
        if not self.covers(name):
            logger.warning("service %s: %s is outside of our zone", service, text)
        elif self._services.setdefault(name, service) != service:
            logger.warning("service %s: %s belongs to another one", service, text)

    def _with_ancestors(self, name: Name) -> set[Name]:
        """Return the name and the (empty) non-terminals between it and the zone (RFC 8020)."""
        return {name[depth:] for depth in range(len(name) - len(self.zone))}

    @property
    def services(self) -> frozenset[Name]:
        """The names that stand for services."""
        return frozenset(self._services)

    def covers(self, name: Name) -> bool:
        """Say whether a name is in the zone."""
        below = len(name) - len(self.zone)
        return below >= 0 and name[below:] == self.zone

    def exists(self, name: Name) -> bool:
        """Say whether a name of the zone exists, be it only because something is below it."""
        return name in self._existing

    def route(self, name: Name) -> "Route | None":
        """Return the route of the service that a name stands for."""
        service = self._services.get(name)
        return None if service is None else self._by_service[service]

    def route_of(self, service: str) -> "Route | None":
        """Return the route of the service of this name (the lab's name for it)."""
        return self._by_service.get(service)

    def moved(self, older: "NameTable") -> frozenset[str] | None:
        """Return the services whose endpoints, or their turns, are others than in an older table.

        None if more than that differs: names, or what a service is.
        """
        if self._by_service.keys() != older._by_service.keys():
            return None
        moved = set()
        for name, route in self._by_service.items():
            other = older._by_service[name]
            same = route.service is other.service or route.service == other.service
            if not same or route.ipv6 != other.ipv6:
                return None
            if route is other:
                continue
            turns, others = (route.turns, route.theirs), (other.turns, other.theirs)
            if route.endpoints != other.endpoints or turns != others:
                moved.add(name)
        return frozenset(moved)

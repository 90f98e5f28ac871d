"""Multicast DNS on the wire (RFC 6762): what a packet asks and already knows, and what we answer.

For `dns_boot.mdns`; pure. A packet may ask several questions and list answers that its sender has,
with compressed names. Every length is checked, and a pointer may only lead backwards.
"""

import struct
from collections.abc import Iterable
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address

from dns_boot.names import (
    HEADER_BYTES,
    MAX_LABEL_BYTES,
    MAX_NAME_BYTES,
    OPCODE,
    QR,
    FormatError,
    Name,
    byte_at,
    unpack,
    wire,
)

A, AAAA, ANY = 1, 28, 255
IN = 1
TOP_BIT = 0x8000  # of the class: in a question "answer me alone", in an answer "forget others"
RESPONSE = 0x8400  # a response, authoritative (RFC 6762, section 18)
MOST_RECORDS = 200  # of a packet that is read; no honest one has so many
MOST_POINTERS = 32  # of one name: a chain of thousands, read for each record, takes 0.1 s a packet
LEGACY_TTL_S = 10  # RFC 6762, section 6.7: for those who know nothing of multicast DNS

_HEADER = struct.Struct("!6H")
_QUESTION = struct.Struct("!HH")
_RECORD = struct.Struct("!HHIH")

Address = IPv4Address | IPv6Address


@dataclass(frozen=True, slots=True)
class Question:
    """One question; `unicast` says that its sender wants an answer of its own."""

    name: Name
    qtype: int
    unicast: bool


@dataclass(frozen=True, slots=True)
class MdnsQuery:
    """What a packet asks. `known` are addresses that its sender has, with what is left of them."""

    id: int
    questions: tuple[Question, ...]
    known: dict[tuple[Name, Address], int]

    def knows(self, name: Name, address: Address, ttl_s: int) -> bool:
        """Say whether the sender has an address for long enough not to be told (section 7.1)."""
        return self.known.get((name, address), -1) >= ttl_s / 2


def read(packet: bytes) -> MdnsQuery | None:
    """Return what a packet asks; None for one that is no query. Raises FormatError."""
    if len(packet) < HEADER_BYTES:
        raise FormatError("a packet without a header")
    ident, flags, asked, answers, authorities, additionals = _HEADER.unpack_from(packet)
    if flags & (QR | OPCODE):
        return None
    if asked + answers + authorities + additionals > MOST_RECORDS:
        raise FormatError("a packet with too many records")
    offset, questions = HEADER_BYTES, []
    for _ in range(asked):
        name, offset = read_name(packet, offset)
        qtype, qclass = unpack(_QUESTION, packet, offset)
        offset += _QUESTION.size
        if qclass & ~TOP_BIT in {IN, ANY}:
            questions.append(Question(name, qtype, bool(qclass & TOP_BIT)))
    known: dict[tuple[Name, Address], int] = {}
    for _ in range(answers):
        name, offset = read_name(packet, offset)
        rtype, _, ttl_s, length = unpack(_RECORD, packet, offset)
        offset += _RECORD.size
        data = packet[offset : offset + length]
        if len(data) != length:
            raise FormatError("a record longer than its packet")
        offset += length
        if (rtype, length) in {(A, 4), (AAAA, 16)}:
            known[name, ip_address(data)] = ttl_s
    return MdnsQuery(ident, tuple(questions), known)


def read_name(packet: bytes, offset: int) -> tuple[Name, int]:
    """Return the labels of a name in lower case, and where it ends. Raises FormatError."""
    labels: list[bytes] = []
    size, end, start, pointers = 1, 0, offset, 0
    while (length := byte_at(packet, offset)) != 0:
        if length > MAX_LABEL_BYTES:
            target = (length & 0x3F) << 8 | byte_at(packet, offset + 1)
            pointers += 1
            if length < 0xC0 or target >= start or pointers > MOST_POINTERS:
                raise FormatError("a pointer that leads nowhere")
            end, offset, start = end or offset + 2, target, target
            continue
        label = packet[offset + 1 : offset + 1 + length]
        size += 1 + length
        if len(label) != length or size > MAX_NAME_BYTES:
            raise FormatError("a name that is cut or too long")
        labels.append(label.lower())
        offset += 1 + length
    return tuple(labels), end or offset + 1


def response(name: Name, addresses: Iterable[Address], ttl_s: int) -> bytes:
    """Return what is said to everybody: these are all the addresses of a name."""
    records = [_record(name, address, IN | TOP_BIT, ttl_s) for address in addresses]
    return _HEADER.pack(0, RESPONSE, 0, len(records), 0, 0) + b"".join(records)


def legacy_response(
    ident: int, question: Question, addresses: Iterable[Address], ttl_s: int
) -> bytes:
    """Return what is said to one who asked as in plain DNS (RFC 6762, section 6.7)."""
    ttl_s = min(ttl_s, LEGACY_TTL_S)
    records = [_record(question.name, address, IN, ttl_s) for address in addresses]
    asked = wire(question.name) + _QUESTION.pack(question.qtype, IN)
    return _HEADER.pack(ident, RESPONSE, 1, len(records), 0, 0) + asked + b"".join(records)


def _record(name: Name, address: Address, rclass: int, ttl_s: int) -> bytes:
    rtype = A if address.version == 4 else AAAA
    packed = address.packed
    return wire(name) + _RECORD.pack(rtype, rclass, ttl_s, len(packed)) + packed

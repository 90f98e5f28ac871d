"""Queries and replies as text for people, from bytes that anybody may have sent.

For `dns_boot.log`. Names are in presentation form (RFC 1035, section 5.1): what is no plain
character is escaped, so that a name can end no line and hide nothing; and they are cut.
"""

from ipaddress import ip_address

from dns_boot.names import (
    HEADER_BYTES,
    RECORD,
    TYPE_CLASS,
    FormatError,
    read_name,
    skip_name,
    unpack,
)
from dns_boot.packed import NO_REPLY

LONGEST_NAME = 260  # characters shown; a plain name has at most 253
MOST_ANSWERS = 8
OTHER = 0  # what is counted for a type that has no word here

TYPES = {
    OTHER: "other",
    1: "A",
    2: "NS",
    5: "CNAME",
    6: "SOA",
    12: "PTR",
    15: "MX",
    16: "TXT",
    28: "AAAA",
    33: "SRV",
    35: "NAPTR",
    41: "OPT",
    43: "DS",
    46: "RRSIG",
    48: "DNSKEY",
    52: "TLSA",
    64: "SVCB",
    65: "HTTPS",
    251: "IXFR",
    252: "AXFR",
    255: "ANY",
    257: "CAA",
}
RCODES = {
    0: "NOERROR",
    1: "FORMERR",
    2: "SERVFAIL",
    3: "NXDOMAIN",
    4: "NOTIMP",
    5: "REFUSED",
    9: "NOTAUTH",
    16: "BADVERS",
    23: "BADCOOKIE",
}
_ESCAPED = frozenset(b'."\\;()@$')
_A, _AAAA = 1, 28


def counted_type(qtype: int) -> int:
    """Return what a type is counted as: nobody may have us count 65,536 of them."""
    return qtype if qtype in TYPES else OTHER


def type_word(qtype: int) -> str:
    """Return the word for a type, ``TYPE123`` (RFC 3597) where there is none here."""
    return TYPES[qtype] if qtype in TYPES and qtype != OTHER else f"TYPE{qtype}"


def rcode_word(rcode: int) -> str:
    """Return the word for a response code; empty for no reply."""
    return "" if rcode == NO_REPLY else RCODES.get(rcode, f"RCODE{rcode}")


def shown(name: tuple[bytes, ...]) -> str:
    """Return a name as text; ``.`` is the root."""
    text = ".".join("".join(map(_character, label)) for label in name) or "."
    return text if len(text) <= LONGEST_NAME else text[:LONGEST_NAME] + "..."


def _character(byte: int) -> str:
    if byte in _ESCAPED:
        return "\\" + chr(byte)
    return chr(byte) if 0x21 <= byte <= 0x7E else f"\\{byte:03d}"


def question_of(packet: bytes) -> tuple[tuple[bytes, ...], int]:
    """Return the name, as it was written, and the type that a packet asks for.

    FormatError if it asks for nothing that can be read.
    """
    name, end = read_name(packet, HEADER_BYTES)
    qtype, _ = unpack(TYPE_CLASS, packet, end)
    return name, qtype


def answers_of(reply: bytes) -> tuple[str, ...]:
    """Return the first answers of a reply: addresses, and the types of other records."""
    found: list[str] = []
    try:
        offset = skip_name(reply, HEADER_BYTES) + TYPE_CLASS.size
        for _ in range(min(int.from_bytes(reply[6:8], "big"), MOST_ANSWERS)):
            offset = skip_name(reply, offset)
            rtype, _, _, length = unpack(RECORD, reply, offset)
            offset += RECORD.size
            data, offset = reply[offset : offset + length], offset + length
            is_address = (rtype, len(data)) in {(_A, 4), (_AAAA, 16)}
            found.append(str(ip_address(data)) if is_address else type_word(rtype))
    except FormatError:  # it was cut
        pass
    return tuple(found)

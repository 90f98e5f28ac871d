"""What a rule means: whether it is true of the bytes of a packet. The compilers are held to this.

Exactly:

- A rule speaks of IP. A frame with another EtherType than 0x0800 and 0x86DD (ARP, a VLAN tag) is
  not meant by any rule, not even by ``not tcp``. A bare IP packet's version is in its first bits.
- What a packet does not have, or is cut off before, is not there; a test of that is false, and so
  ``not`` of it true. Thus ``dst port 80`` is false of an ICMP packet and ``not dst port 80`` true.
- IPv4: the length of the header is believed, so options are passed over. Ports are there for TCP,
  UDP and SCTP, but not in fragments beyond the first. Checksums and lengths are not looked at.
- IPv6: the protocol is what the fixed header says comes next. What is behind an extension header
  is not looked at: such a packet has that header's number as its protocol, and no ports. A fragment
  is a packet with a fragment header (44) there.
"""

from dataclasses import dataclass
from enum import Enum

from orchestrator.rules.tree import (
    FRAGMENT_HEADER,
    WITH_PORTS,
    Address,
    And,
    Dscp,
    Fragment,
    Not,
    Or,
    Port,
    Protocol,
    Rule,
    Side,
    Test,
    Version,
)

ETHERTYPES = {0x0800: 4, 0x86DD: 6}
ETHERNET_HEADER = 14  # octets


class Layer(Enum):
    """What the first octet of a packet is the first of."""

    ETHERNET = "ethernet"
    IP = "ip"


@dataclass(frozen=True, slots=True)
class Headers:
    """What rules ask of a packet; None for what it does not have."""

    version: int
    protocol: int | None
    source: int | None
    target: int | None
    source_port: int | None
    target_port: int | None
    dscp: int | None
    fragment: bool | None


def evaluate(rule: Rule, packet: bytes, layer: Layer = Layer.ETHERNET) -> bool:
    """Say whether a rule is true of a packet, which may be cut short or be no packet at all."""
    headers = read(packet, layer)
    return headers is not None and _holds(rule, headers)


def read(packet: bytes, layer: Layer = Layer.ETHERNET) -> Headers | None:
    """Return the headers of an IP packet; None if it is none."""
    if layer is Layer.ETHERNET:
        version = ETHERTYPES.get(_number(packet, 12, 2) or 0)
        packet = packet[ETHERNET_HEADER:]
    else:
        version = packet[0] >> 4 if packet else None
    if version == 4:
        return _read4(packet)
    return _read6(packet) if version == 6 else None


def _read4(packet: bytes) -> Headers:
    first, tos, flags = (_number(packet, *at) for at in ((0, 1), (1, 1), (6, 2)))
    protocol = _number(packet, 9, 1)
    ports: tuple[int | None, int | None] = None, None
    if first is not None and flags is not None and not flags & 0x1FFF and protocol in WITH_PORTS:
        start = (first & 0xF) * 4
        ports = _number(packet, start, 2), _number(packet, start + 2, 2)
    return Headers(
        4,
        protocol,
        _number(packet, 12, 4),
        _number(packet, 16, 4),
        *ports,
        None if tos is None else tos >> 2,
        None if flags is None else bool(flags & 0x3FFF),
    )


def _read6(packet: bytes) -> Headers:
    start = _number(packet, 0, 2)
    protocol = _number(packet, 6, 1)
    ports: tuple[int | None, int | None] = None, None
    if protocol in WITH_PORTS:
        ports = _number(packet, 40, 2), _number(packet, 42, 2)
    return Headers(
        6,
        protocol,
        _number(packet, 8, 16),
        _number(packet, 24, 16),
        *ports,
        None if start is None else start >> 6 & 0x3F,
        None if protocol is None else protocol == FRAGMENT_HEADER,
    )


def _number(packet: bytes, start: int, size: int) -> int | None:
    field = packet[start : start + size]
    return int.from_bytes(field) if len(field) == size else None


def _holds(rule: Rule, headers: Headers) -> bool:
    match rule:
        case And(parts):
            return all(_holds(part, headers) for part in parts)
        case Or(parts):
            return any(_holds(part, headers) for part in parts)
        case Not(part):
            return not _holds(part, headers)
        case _:
            return _is(rule, headers)


def _is(test: Test, headers: Headers) -> bool:
    match test:
        case Version(number):
            true = headers.version == number
        case Protocol(number):
            true = headers.protocol == number
        case Dscp(number):
            true = headers.dscp == number
        case Fragment():
            true = headers.fragment is True
        case Port(side, first, last):
            port = headers.source_port if side is Side.SRC else headers.target_port
            true = port is not None and first <= port <= last
        case Address():
            true = _is_in(test, headers)
    return true


def _is_in(test: Address, headers: Headers) -> bool:
    address = headers.source if test.side is Side.SRC else headers.target
    if address is None or test.network.version != headers.version:
        return False
    return address & int(test.network.netmask) == int(test.network.network_address)

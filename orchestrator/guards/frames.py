"""Frames that ask for an address on one layer 2, and the answers to them.

Pure. ARP for IPv4 over Ethernet (RFC 826) and IPv6 neighbour solicitation and advertisement (RFC
4861); and the programs that let a packet socket see only those, and frames to certain cards.
"""

import struct
from collections.abc import Iterable
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address

from orchestrator.packet_filter import (
    IF_EQUAL,
    LOAD_BYTE,
    LOAD_HALF,
    LOAD_WORD,
    RETURN,
    Instruction,
)

_ETHERNET = struct.Struct("!6s6sH")
_ARP = struct.Struct("!HHBBH6s4s6s4s")
_ARP_HEAD = (1, 0x0800, 6, 4)
_REQUEST, _REPLY = 1, 2
_ETH_ARP, _ETH_IPV6 = 0x0806, 0x86DD
_ICMP6, _SOLICITATION, _ADVERTISEMENT = 58, 135, 136
_SOLICITED_OVERRIDE = 0x60000000
_TARGET_CARD = bytes((2, 1))  # option: target link-layer address, 8 octets
_HOPS = 255

_WHOLE = 0xFFFF


@dataclass(frozen=True, slots=True)
class Question:
    """Somebody's frame that asks which card has an address."""

    card: bytes
    source: IPv4Address | IPv6Address
    target: IPv4Address | IPv6Address

    def answer(self, card: bytes) -> bytes:
        """Return the frame that answers in the name of a card."""
        if self.target.version == 4:
            arp = _ARP.pack(
                *_ARP_HEAD, _REPLY, card, self.target.packed, self.card, self.source.packed
            )
            return _ETHERNET.pack(self.card, card, _ETH_ARP) + arp
        body = struct.pack("!BBHI", _ADVERTISEMENT, 0, 0, _SOLICITED_OVERRIDE)
        body += self.target.packed + _TARGET_CARD + card
        ends = self.target.packed + self.source.packed
        total = _checksum(ends + struct.pack("!II", len(body), _ICMP6) + body)
        body = body[:2] + struct.pack("!H", total) + body[4:]
        head = struct.pack("!IHBB", 6 << 28, len(body), _ICMP6, _HOPS)
        return _ETHERNET.pack(self.card, card, _ETH_IPV6) + head + ends + body


def question(frame: bytes) -> Question | None:
    """Return what a frame asks; None if it asks nothing, or only whether an address is free."""
    if len(frame) < _ETHERNET.size:
        return None
    kind = int.from_bytes(frame[12:14])
    asked = _arp(frame) if kind == _ETH_ARP else _solicitation(frame) if kind == _ETH_IPV6 else None
    if asked is None or asked.source.is_unspecified or asked.source == asked.target:
        return None
    return asked


def _arp(frame: bytes) -> Question | None:
    if len(frame) < _ETHERNET.size + _ARP.size:
        return None
    *head, operation, card, source, _, target = _ARP.unpack_from(frame, _ETHERNET.size)
    if tuple(head) != _ARP_HEAD or operation != _REQUEST:
        return None
    return Question(card, IPv4Address(source), IPv4Address(target))


def _solicitation(frame: bytes) -> Question | None:
    if len(frame) < 78 or frame[20] != _ICMP6 or frame[54] != _SOLICITATION or frame[21] != _HOPS:
        return None
    return Question(frame[6:12], IPv6Address(frame[22:38]), IPv6Address(frame[62:78]))


def _checksum(data: bytes) -> int:
    total: int = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def program(cards: Iterable[bytes] = ()) -> tuple[Instruction, ...]:
    """Return the program that passes questions, and all frames to these cards."""
    found: list[Instruction] = []
    for card in cards:
        high, low = struct.unpack("!IH", card)
        found += [
            (LOAD_WORD, 0, 0, 0),
            (IF_EQUAL, 0, 3, high),
            (LOAD_HALF, 0, 0, 4),
            (IF_EQUAL, 0, 1, low),
            (RETURN, 0, 0, _WHOLE),
        ]
    found += [
        (LOAD_HALF, 0, 0, 12),
        (IF_EQUAL, 0, 3, _ETH_ARP),
        (LOAD_HALF, 0, 0, 20),
        (IF_EQUAL, 6, 0, _REQUEST),
        (RETURN, 0, 0, 0),
        (IF_EQUAL, 0, 5, _ETH_IPV6),
        (LOAD_BYTE, 0, 0, 20),
        (IF_EQUAL, 0, 3, _ICMP6),
        (LOAD_BYTE, 0, 0, 54),
        (IF_EQUAL, 0, 1, _SOLICITATION),
        (RETURN, 0, 0, _WHOLE),
        (RETURN, 0, 0, 0),
    ]
    return tuple(found)

"""Compiles a rule to keys of cls_flower, as tc-flower(8) names them: one set for each filter.

The kernel's flower reads no ports of fragments, not even of the first one, which has them: those
match no port here. And it looks behind extension headers of IPv6, where our rules do not: so a rule
about IPv6 packets and what they carry is not what flower can say.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Network
from itertools import product

from orchestrator.errors import CannotSay
from orchestrator.rules.lower import (
    PORTS,
    VERSIONS,
    Atom,
    Box,
    Quantity,
    bits,
    boxes,
    prefixes,
)
from orchestrator.rules.tree import ICMP, SCTP, TCP, UDP, Rule

MOST_FILTERS = 512

Pair = tuple[str, str]

_PROTOCOLS = {ICMP: "icmp", TCP: "tcp", UDP: "udp", SCTP: "sctp"}
_NAMES = {
    Quantity.SOURCE: "src_ip",
    Quantity.TARGET: "dst_ip",
    Quantity.SOURCE_PORT: "src_port",
    Quantity.TARGET_PORT: "dst_port",
}


@dataclass(frozen=True, slots=True)
class Keys:
    """One filter: the version of IP, and keys with values, such as ``("dst_port", "80")``."""

    version: int
    pairs: tuple[Pair, ...]


def to_flower(rule: Rule, versions: tuple[int, ...] = VERSIONS) -> tuple[Keys, ...]:
    """Return the filters of which one matches where a rule is true, but for first fragments.

    Raises `CannotSay` for what flower cannot say, and for what would need too many filters.
    """
    found: dict[Keys, None] = {}
    for box in boxes(rule, versions):
        if box.version == 6 and box.get(Quantity.PROTOCOL):
            raise CannotSay(
                "flower looks behind extension headers of IPv6, and rules do not",
                hint="say 'ip version 4', or use another back end",
            )
        for pairs in product(*(list(_pairs(atom, box)) for atom in box.atoms)):
            found[Keys(box.version, tuple(each for pair in pairs for each in pair))] = None
            if len(found) > MOST_FILTERS:
                raise CannotSay(
                    f"as flower filters this rule would be more than {MOST_FILTERS}",
                    hint="use narrower tests, or a back end that runs classic BPF",
                )
    return tuple(found)


def _pairs(atom: Atom, box: Box) -> Iterator[tuple[Pair, ...]]:
    """Yield the keys for an atom, one tuple for each way in which it can be true."""
    match atom.quantity:
        case Quantity.PROTOCOL:
            for number in range(atom.low, atom.high + 1):
                yield (("ip_proto", _PROTOCOLS.get(number, str(number))),)
        case Quantity.FRAGMENT:
            yield (("ip_flags", "frag" if atom.low else "nofrag"),)
        case Quantity.OFFSET:
            yield from _offset(atom, box)
        case Quantity.DSCP:
            for value, given in prefixes(atom.low, atom.high, 6):
                mask = 0x100 - (1 << (8 - given))
                yield (("ip_tos", f"{value << 2:#x}/{mask:#x}"),)
        case Quantity.SOURCE | Quantity.TARGET:
            for value, given in prefixes(atom.low, atom.high, bits(atom.quantity, box.version)):
                network = (IPv4Network if box.version == 4 else IPv6Network)((value, given))
                yield ((_NAMES[atom.quantity], str(network)),)
        case _:
            ends = (atom.low,) if atom.low == atom.high else (atom.low, atom.high)
            yield ((_NAMES[atom.quantity], "-".join(map(str, ends))),)


def _offset(atom: Atom, box: Box) -> Iterator[tuple[Pair, ...]]:
    """Yield which fragments are meant; where ports are, no fragment at all."""
    if atom.low:
        yield (("ip_flags", "frag/nofirstfrag"),)
        return
    if box.get(Quantity.FRAGMENT) is None:
        yield (("ip_flags", "nofrag"),)
    if not any(each.quantity in PORTS for each in box.atoms):
        yield (("ip_flags", "frag/firstfrag"),)

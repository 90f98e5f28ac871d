"""Compiles a rule to lists of masked words, for cls_u32: one selector matches if all its words do.

A range is cut into prefixes, so one box of a rule can need several selectors. u32 has no header
length to count from in a flat list, so in IPv4 ports are asked for with each length that a header
can have: 20 to 60 octets. Headers that claim to be shorter, which the kernel drops anyway, have no
ports here. A selector that a packet is too short for does not match.
"""

from collections.abc import Iterator
from dataclasses import dataclass
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
from orchestrator.rules.tree import Rule

MOST_SELECTORS = 512

_LENGTHS4 = range(5, 16)  # of a header, in words
_HEADER6 = 40  # octets
_WORD = 4
_LOW = 0xFFFFFFFF


@dataclass(frozen=True, slots=True, order=True)
class Word:
    """The four octets at `offset` from the IP header, masked, are `value`."""

    offset: int
    mask: int
    value: int


@dataclass(frozen=True, slots=True)
class Selector:
    """Packets of a version of IP that all these words are true of; there is at least one."""

    version: int
    words: tuple[Word, ...]


@dataclass(frozen=True, slots=True)
class _Place:
    """Where a quantity is: its last octet ends at `end`, and `shift` bits below it are not its."""

    end: int
    shift: int = 0


_PLACES4 = {
    Quantity.PROTOCOL: _Place(10),
    Quantity.FRAGMENT: _Place(8),
    Quantity.OFFSET: _Place(8),
    Quantity.DSCP: _Place(2, 2),
    Quantity.SOURCE: _Place(16),
    Quantity.TARGET: _Place(20),
}
_PLACES6 = {
    Quantity.PROTOCOL: _Place(7),
    Quantity.DSCP: _Place(2, 6),
    Quantity.SOURCE: _Place(24),
    Quantity.TARGET: _Place(40),
}
_PORTS = {Quantity.SOURCE_PORT: 2, Quantity.TARGET_PORT: 4}  # where they end, behind the header


def to_u32(rule: Rule, versions: tuple[int, ...] = VERSIONS) -> tuple[Selector, ...]:
    """Return selectors of which one matches where a rule is true; CannotSay if they are too many.

    The same as `lower.boxes` says holds for packets whose headers are not whole.
    """
    found: dict[Selector, None] = {}
    for box in boxes(rule, versions):
        for selector in _selectors(box):
            found[selector] = None
            if len(found) > MOST_SELECTORS:
                raise CannotSay(
                    f"as u32 filters this rule would be more than {MOST_SELECTORS}",
                    hint="use narrower tests, or a back end that runs classic BPF",
                )
    return tuple(found)


def _selectors(box: Box) -> Iterator[Selector]:
    ports = any(atom.quantity in PORTS for atom in box.atoms)
    lengths = _LENGTHS4 if ports and box.version == 4 else (None,)
    for length in lengths:
        header = _HEADER6 if length is None else length * 4
        says = [] if length is None else [(0x0F000000, length << 24, 0)]
        for parts in product(*(list(_parts(atom, box.version, header)) for atom in box.atoms)):
            words: dict[int, tuple[int, int]] = {}
            for mask, value, offset in [*says, *(piece for part in parts for piece in part)]:
                before = words.get(offset, (0, 0))
                words[offset] = before[0] | mask, before[1] | value
            words = words or {0: (0, 0)}
            yield Selector(box.version, tuple(Word(at, *words[at]) for at in sorted(words)))


_Piece = tuple[int, int, int]  # mask, value, offset


def _parts(atom: Atom, version: int, header: int) -> Iterator[list[_Piece]]:
    """Yield what each prefix of an atom's range asks of which words."""
    width = bits(atom.quantity, version)
    place = (_PLACES4 if version == 4 else _PLACES6).get(atom.quantity)
    place = place or _Place(header + _PORTS[atom.quantity])
    for value, given in prefixes(atom.low, atom.high, width):
        mask = (1 << width) - (1 << (width - given))
        yield list(_pieces(mask << place.shift, value << place.shift, place.end))


def _pieces(mask: int, value: int, end: int) -> Iterator[_Piece]:
    """Cut what is asked of the octets before `end` into aligned words.

    The last word is asked for in any case: with it, the whole field is there.
    """
    below = -end % _WORD * 8  # bits of the last word that come after
    mask, value, at = mask << below, value << below, end - end % -_WORD - _WORD
    yield mask & _LOW, value & _LOW, at
    while mask := mask >> 32:
        value, at = value >> 32, at - _WORD
        if mask & _LOW:
            yield mask & _LOW, value & _LOW, at

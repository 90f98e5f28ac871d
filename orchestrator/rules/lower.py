"""A rule for one version of IP, as what filters can ask: whether a number is in a range.

What compilers start from. `lower` makes atoms of tests; `boxes` is the normal form for filters that
are lists: each box is an "and" of ranges, and the rule is the "or" of its boxes, without any "not".
"""

from collections.abc import Iterator
from dataclasses import dataclass
from enum import IntEnum

from orchestrator.errors import CannotSay
from orchestrator.rules.tree import (
    FRAGMENT_HEADER,
    WITH_PORTS,
    Address,
    And,
    Dscp,
    Formula,
    Fragment,
    Not,
    Or,
    Port,
    Protocol,
    Rule,
    Side,
    Test,
    Version,
    all_of,
    any_of,
)

VERSIONS = (4, 6)
MOST_BOXES = 128


class Quantity(IntEnum):
    """A number in a packet, in the order in which filters had best ask.

    Of an IPv4 header's half word of fragment flags and offset, FRAGMENT is what makes the packet a
    piece (more to come, and offset) and OFFSET the offset alone; IPv6 has neither.
    """

    PROTOCOL = 0
    FRAGMENT = 1
    OFFSET = 2
    DSCP = 3
    SOURCE = 4
    TARGET = 5
    SOURCE_PORT = 6
    TARGET_PORT = 7


PORTS = frozenset({Quantity.SOURCE_PORT, Quantity.TARGET_PORT})

_BITS = {
    Quantity.PROTOCOL: 8,
    Quantity.FRAGMENT: 14,
    Quantity.OFFSET: 13,
    Quantity.DSCP: 6,
    Quantity.SOURCE_PORT: 16,
    Quantity.TARGET_PORT: 16,
}


@dataclass(frozen=True, slots=True, order=True)
class Atom:
    """A quantity is there, and from `low` to `high`, both included."""

    quantity: Quantity
    low: int
    high: int


@dataclass(frozen=True, slots=True)
class Box:
    """All of these are true of a packet of that version; at most one atom for each quantity.

    A box that limits ports also limits the protocol to one that has them and, in IPv4, OFFSET to 0.
    """

    version: int
    atoms: tuple[Atom, ...]

    def get(self, quantity: Quantity) -> Atom | None:
        """Return what is asked of a quantity, or None."""
        return next((atom for atom in self.atoms if atom.quantity is quantity), None)


Ranges = dict[Quantity, tuple[int, int]]


def bits(quantity: Quantity, version: int) -> int:
    """Return how wide a quantity is."""
    return _BITS.get(quantity) or (32 if version == 4 else 128)


# --- tests to atoms -------------------------------------------------------------------------------


def lower(rule: Rule, version: int) -> Formula[Atom]:
    """Return the same as atoms, for packets of one version."""
    match rule:
        case And(parts):
            return all_of(*(lower(part, version) for part in parts))
        case Or(parts):
            return any_of(*(lower(part, version) for part in parts))
        case Not(part):
            return Not(lower(part, version))
        case _:
            return _lower(rule, version)


def _lower(test: Test, version: int) -> Formula[Atom]:
    match test:
        case Version(number):
            return And(()) if number == version else Or(())
        case Protocol(number):
            return Atom(Quantity.PROTOCOL, number, number)
        case Dscp(number):
            return Atom(Quantity.DSCP, number, number)
        case Address():
            return _address(test, version)
        case Port(side, first, last):
            quantity = Quantity.SOURCE_PORT if side is Side.SRC else Quantity.TARGET_PORT
            return all_of(has_ports(version), Atom(quantity, first, last))
        case Fragment():
            return _fragment(version)


def _address(test: Address, version: int) -> Formula[Atom]:
    if test.network.version != version:
        return Or(())
    quantity = Quantity.SOURCE if test.side is Side.SRC else Quantity.TARGET
    ends = test.network.network_address, test.network.broadcast_address
    return Atom(quantity, int(ends[0]), int(ends[1]))


def _fragment(version: int) -> Formula[Atom]:
    if version == 4:
        return Atom(Quantity.FRAGMENT, 1, _most(Quantity.FRAGMENT, version))
    return Atom(Quantity.PROTOCOL, FRAGMENT_HEADER, FRAGMENT_HEADER)


def has_ports(version: int) -> Formula[Atom]:
    """Return what is true of packets that have ports; asked before any port is."""
    protocols = any_of(*(Atom(Quantity.PROTOCOL, each, each) for each in WITH_PORTS))
    return all_of(protocols, Atom(Quantity.OFFSET, 0, 0)) if version == 4 else protocols


def _most(quantity: Quantity, version: int) -> int:
    return (1 << bits(quantity, version)) - 1


# --- normal form ----------------------------------------------------------------------------------


def boxes(rule: Rule, versions: tuple[int, ...] = VERSIONS) -> tuple[Box, ...]:
    """Return the normal form; raises `CannotSay` if it has more than `MOST_BOXES` boxes.

    A packet in a box is one that the rule is true of. The other way round it holds for packets
    whose headers are whole: a "not" of what a packet was cut off before is true, but in no box.
    """
    found = []
    for version in versions:
        ranges = _Boxes(version).of(lower(rule, version), wanted=True)
        found += [Box(version, _atoms(each)) for each in ranges]
    return tuple(found)


@dataclass(frozen=True, slots=True)
class _Boxes:
    version: int

    def of(self, formula: Formula[Atom], *, wanted: bool) -> list[Ranges]:
        """Return where a formula is true, or where it is not."""
        match formula:
            case Not(part):
                return self.of(part, wanted=not wanted)
            case And(parts) | Or(parts):
                lists = [self.of(part, wanted=wanted) for part in parts]
                if isinstance(formula, And) is wanted:
                    return self._product(lists)
                return self._sum([each for found in lists for each in found])
            case _:
                return self._outside(formula) if not wanted else [_range(formula)]

    def _outside(self, atom: Atom) -> list[Ranges]:
        most = _most(atom.quantity, self.version)
        ends = ((0, atom.low - 1), (atom.high + 1, most))
        outside: list[Ranges] = [{atom.quantity: end} for end in ends if end[0] <= end[1]]
        if atom.quantity in PORTS:  # what has no ports has none outside either
            return self._product([self.of(has_ports(self.version), wanted=True), outside])
        return outside

    def _product(self, lists: list[list[Ranges]]) -> list[Ranges]:
        product: list[Ranges] = [{}]
        for each in lists:
            both = (_both(left, right) for left in product for right in each)
            product = self._sum([ranges for ranges in both if ranges is not None])
        return product

    def _sum(self, found: list[Ranges]) -> list[Ranges]:
        """Return these without those that are within others."""
        kept: list[Ranges] = []
        for each in found:
            if not any(_within(each, other) for other in kept):
                kept = [other for other in kept if not _within(other, each)] + [each]
        if len(kept) > MOST_BOXES:
            raise CannotSay(
                f"as a list of filters this rule would have more than {MOST_BOXES}",
                hint="use fewer alternatives, or a back end that runs classic BPF",
            )
        return kept


def _both(left: Ranges, right: Ranges) -> Ranges | None:
    """Return where both are true; None if nowhere."""
    both = dict(left)
    for quantity, (low, high) in right.items():
        before = both.get(quantity, (low, high))
        both[quantity] = max(low, before[0]), min(high, before[1])
    empty = any(low > high for low, high in both.values())
    whole_piece = both.get(Quantity.FRAGMENT) == (0, 0) and both.get(Quantity.OFFSET, (0, 0))[0] > 0
    return None if empty or whole_piece else both


def _within(inner: Ranges, outer: Ranges) -> bool:
    return all(
        quantity in inner and low <= inner[quantity][0] and inner[quantity][1] <= high
        for quantity, (low, high) in outer.items()
    )


def _range(atom: Atom) -> Ranges:
    return {atom.quantity: (atom.low, atom.high)}


def _atoms(ranges: Ranges) -> tuple[Atom, ...]:
    return tuple(Atom(quantity, *ranges[quantity]) for quantity in sorted(ranges))


def prefixes(low: int, high: int, width: int) -> Iterator[tuple[int, int]]:
    """Yield the aligned blocks that a range is made of, in order: value, and bits that are given.

    ``80..83`` of 16 bits is (80, 14); there are at most twice as many blocks as bits.
    """
    while low <= high:
        size = (low & -low).bit_length() - 1 if low else width
        while low + (1 << size) - 1 > high:
            size -= 1
        yield low, width - size
        low += 1 << size

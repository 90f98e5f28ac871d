"""A traffic rule as a tree: tests of a packet's headers, and what joins them. Values only.

What each test means for which packet is written in `evaluate`. The joints are also used for trees
of other leaves, which compilers turn rules into.
"""

from dataclasses import dataclass
from enum import StrEnum
from ipaddress import IPv4Network, IPv6Network
from typing import Generic, TypeAlias, TypeVar

ICMP, TCP, UDP, FRAGMENT_HEADER, ICMP6, SCTP = 1, 6, 17, 44, 58, 132  # IANA protocol numbers
WITH_PORTS = (TCP, UDP, SCTP)  # both ports are the first four octets of their headers
PROTOCOL_NAMES = {"icmp": ICMP, "tcp": TCP, "udp": UDP, "icmp6": ICMP6, "sctp": SCTP}

MOST_PROTOCOL, MOST_PORT, MOST_DSCP = 0xFF, 0xFFFF, 0x3F

Leaf = TypeVar("Leaf")


class Side(StrEnum):
    """Whose address or port is meant."""

    SRC = "src"
    DST = "dst"


# --- tests --------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Version:
    """The packet is of this version of IP: 4 or 6. ValueError for any other."""

    number: int

    def __post_init__(self) -> None:
        if self.number not in (4, 6):
            raise ValueError(f"IP version {self.number}: there are 4 and 6")


@dataclass(frozen=True, slots=True)
class Protocol:
    """The packet carries this protocol, by its IANA number. ValueError beyond 0..255."""

    number: int

    def __post_init__(self) -> None:
        _check("protocol", self.number, MOST_PROTOCOL)


@dataclass(frozen=True, slots=True)
class Address:
    """The packet comes from, or goes to, an address in this network."""

    side: Side
    network: IPv4Network | IPv6Network


@dataclass(frozen=True, slots=True)
class Port:
    """The packet has a port from `first` to `last`, both included. ValueError if it is no range."""

    side: Side
    first: int
    last: int

    def __post_init__(self) -> None:
        _check("port", self.first, MOST_PORT)
        _check("port", self.last, MOST_PORT)
        if self.first > self.last:
            raise ValueError(f"ports {self.first}-{self.last}: the first is above the last")


@dataclass(frozen=True, slots=True)
class Dscp:
    """The packet has this differentiated services code point (RFC 2474). ValueError beyond 63."""

    number: int

    def __post_init__(self) -> None:
        _check("dscp", self.number, MOST_DSCP)


@dataclass(frozen=True, slots=True)
class Fragment:
    """The packet is a piece of a larger one, be it the first."""


Test: TypeAlias = Version | Protocol | Address | Port | Dscp | Fragment


def _check(what: str, number: int, most: int) -> None:
    if not 0 <= number <= most:
        raise ValueError(f"{what} {number}: it is from 0 to {most}")


# --- joints -------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class And(Generic[Leaf]):
    """True if all parts are; so without parts it is always true."""

    parts: "tuple[Formula[Leaf], ...]"


@dataclass(frozen=True, slots=True)
class Or(Generic[Leaf]):
    """True if any part is; so without parts it is never true."""

    parts: "tuple[Formula[Leaf], ...]"


@dataclass(frozen=True, slots=True)
class Not(Generic[Leaf]):
    """True if its part is not."""

    part: "Formula[Leaf]"


Formula: TypeAlias = And[Leaf] | Or[Leaf] | Not[Leaf] | Leaf
Rule: TypeAlias = Formula[Test]

ANY: And[Test] = And(())


def all_of(*parts: Formula[Leaf]) -> Formula[Leaf]:
    """Join by "and"; what is joined so already is taken apart, and one part stays as it is."""
    flat = tuple(
        inner for part in parts for inner in (part.parts if isinstance(part, And) else (part,))
    )
    return flat[0] if len(flat) == 1 else And(flat)


def any_of(*parts: Formula[Leaf]) -> Formula[Leaf]:
    """Join by "or"; what is joined so already is taken apart, and one part stays as it is."""
    flat = tuple(
        inner for part in parts for inner in (part.parts if isinstance(part, Or) else (part,))
    )
    return flat[0] if len(flat) == 1 else Or(flat)

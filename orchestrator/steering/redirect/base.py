"""The seam to redirectors: packets that arrive at an interface go out by another one instead.

A redirector stands for **one** machine and one owner. It is given the whole wanted list and makes
it so, touching only what differs and only what is its owner's. `tests/contracts/redirector.py`
holds every back end to this page. Nothing here knows services or instances.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

from orchestrator.rules.spell import text
from orchestrator.rules.tree import Rule


class Rung(StrEnum):
    """What steers the packets, in the order in which it is tried."""

    FLOWER = "flower"  # tc: flower, skbmod and mirred, as in the Viscum slides
    U32 = "u32"  # tc: u32 and mirred
    BPF = "bpf"  # tc: classic BPF and mirred
    NFT = "nft"  # nftables, netdev family


@dataclass(frozen=True, slots=True)
class Redirect:
    """Packets that arrive at `interface` and that `rule` is true of leave by `to_device` instead.

    They get the destination MAC `to_mac`; if it is empty they keep theirs, so whoever is behind the
    device must have the MAC of the interface. `name` is for people; it is unique in a list.
    """

    name: str
    rule: Rule
    interface: str
    to_device: str
    to_mac: str = ""

    def digest(self, *more: object) -> str:
        """Return 20 hexadecimal digits of what this one does, and of what else is given."""
        what = text(self.rule), self.interface, self.to_device, self.to_mac, *more
        return hashlib.sha256(repr(what).encode()).hexdigest()[:20]


@dataclass(frozen=True, slots=True)
class InPlace:
    """A redirect that is there: what steers it, and how many packets it has taken."""

    redirect: Redirect
    rung: Rung
    packets: int = 0


@dataclass(frozen=True, slots=True)
class Refused:
    """A redirect that could not be made, and why, as a sentence."""

    redirect: Redirect
    why: str


class Redirector(Protocol):
    """Redirects on one machine. Methods may be called from any thread, and may block.

    Errors are `CannotRedirect` and nothing else.
    """

    def set(self, wanted: Sequence[Redirect]) -> tuple[Refused, ...]:
        """Redirect exactly these from now on; return those that cannot be, and why.

        May be repeated, also after a crash in the middle. Those that stay the same are not touched.
        What is new is there before what is old is gone. One that cannot be made is not there at
        all, and does not keep the others from being made.
        """
        ...

    def in_place(self) -> tuple[InPlace, ...]:
        """Return which of those that were last wanted are there, whole, at this moment."""
        ...

    def rungs(self) -> dict[Rung, str]:
        """Return what can be used here: rung to why not, empty if it can."""
        ...

    def close(self) -> None:
        """Let go; redirects stay. May be called twice."""
        ...

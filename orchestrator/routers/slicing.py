"""Shares of a link's bandwidth: what each slice always gets of it, by the kernel's HTB.

A device gets a tree of classes at its root: one as wide as the link, in it one for each slice that
is guaranteed the slice's bandwidth and may borrow what others leave, and one for everything else.
A packet belongs to a slice if it comes from, or is for, one of the slice's subnets.

M. Devera, "Hierarchical token bucket theory", 2002; tc-htb(8), tc-u32(8).
"""

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Network
from typing import Any

from orchestrator.network import SliceShare
from orchestrator.routers.wire_schedule import burst_bytes

HANDLE = 0xED3_0000  # how our tree is known; minor 0, tc(8)

REST = 0xFFFF  # minor number of the class of what is in no slice
_LINK = 1  # and of that of the whole link
_LEAST_MBPS = 0.01  # HTB has no class without a rate
_IP, _IP6 = 0x0800, 0x86DD  # linux/if_ether.h
_OFFSETS = {4: (12, 16), 6: (8, 24)}  # of source and destination address in a header


@dataclass(frozen=True, slots=True)
class Class:
    """A class of the tree: `mbps` are its own, `most_mbps` what it may have with what others leave.

    Both are in megabits per second.
    """

    minor: int
    parent: int
    mbps: float
    most_mbps: float

    def words(self) -> str:
        """Return the class as tc-htb(8) spells it."""
        return (
            f"parent {HANDLE >> 16:x}:{self.parent or ''} classid {HANDLE >> 16:x}:{self.minor:x} "
            f"htb rate {self.mbps:g}mbit ceil {self.most_mbps:g}mbit"
        )


@dataclass(frozen=True, slots=True)
class Filter:
    """What leads packets from or to a subnet to a class; `priority` is its number, never shared."""

    priority: int
    minor: int
    subnet: IPv4Network | IPv6Network
    source: bool

    @property
    def protocol(self) -> int:
        """The EtherType of what it looks at."""
        return _IP if self.subnet.version == 4 else _IP6

    def matches(self) -> list[str]:
        """Return what tc-u32(8) compares: value/mask+offset, in words of 32 bits."""
        first = _OFFSETS[self.subnet.version][0 if self.source else 1]
        value, mask = self.subnet.network_address.packed, self.subnet.netmask.packed
        words = range(0, len(value), 4)
        found = [
            f"0x{value[at : at + 4].hex()}/0x{mask[at : at + 4].hex()}+{first + at}"
            for at in words
            if any(mask[at : at + 4])
        ]
        return found or [f"0x0/0x0+{first}"]


def classes(mbps: float, slices: Sequence[SliceShare]) -> tuple[Class, ...]:
    """Return the classes of a link as wide as `mbps` (megabits per second), parents first."""
    minors = _numbers((each.name for each in slices), 2, REST)
    rest = max(_LEAST_MBPS, mbps - sum(each.mbps for each in slices))
    return (
        Class(_LINK, 0, mbps, mbps),
        *(Class(minors[each.name], _LINK, max(_LEAST_MBPS, each.mbps), mbps) for each in slices),
        Class(REST, _LINK, rest, mbps),
    )


def filters(slices: Sequence[SliceShare]) -> tuple[Filter, ...]:
    """Return what leads packets to the classes of their slices."""
    minors = _numbers((each.name for each in slices), 2, REST)
    ways = {
        f"{each.name} {subnet} {source}": (minors[each.name], subnet, source)
        for each in slices
        for subnet in each.subnets
        for source in (True, False)
    }
    priorities = _numbers(ways, 1, 0xFFFF)
    return tuple(Filter(priorities[key], *way) for key, way in ways.items())


def share(ip: Any, index: int, mbps: float, slices: Sequence[SliceShare]) -> None:
    """Give the HTB of a device these classes, through a pyroute2 `IPRoute` of its namespace.

    Those that are there are changed without losing a packet. Raises pyroute2's `NetlinkError`.
    """
    wanted = {HANDLE | each.minor: each for each in classes(mbps, slices)}
    there = {
        found["handle"]
        for found in ip.get_classes(index)
        if found["handle"] & 0xFFFF_0000 == HANDLE
    }
    for handle, each in wanted.items():
        ip.tc(
            "change-class" if handle in there else "add-class",
            "htb",
            index=index,
            handle=handle,
            parent=HANDLE | each.parent,
            rate=f"{round(each.mbps * 1e6)}bit",
            ceil=f"{round(each.most_mbps * 1e6)}bit",
            burst=burst_bytes(each.mbps),
            cburst=burst_bytes(each.most_mbps),
        )
    _lead(ip, index, filters(slices))
    for handle in there - wanted.keys():
        ip.tc("del-class", index=index, handle=handle, parent=HANDLE | _LINK)


def _lead(ip: Any, index: int, wanted: Sequence[Filter]) -> None:
    there = {found["info"] >> 16: found["info"] for found in ip.get_filters(index, HANDLE)}
    for each in wanted:
        if each.priority not in there:
            ip.tc(
                "add-filter",
                "u32",
                index=index,
                parent=HANDLE,
                prio=each.priority,
                protocol=each.protocol,
                target=HANDLE | each.minor,
                keys=each.matches(),
            )
    for priority in there.keys() - {each.priority for each in wanted}:
        ip.tc("del-filter", index=index, parent=HANDLE, info=there[priority])


def _numbers(names: Iterable[str], first: int, end: int) -> dict[str, int]:
    """Return a number from `first` to below `end` for each name; others seldom change one's."""
    taken: dict[str, int] = {}
    for name in sorted(names):
        digest = hashlib.sha256(name.encode()).digest()
        number = first + int.from_bytes(digest[:4], "big") % (end - first)
        while number in taken.values():
            number = number + 1 if number + 1 < end else first
        taken[name] = number
    return taken

"""Compiles a rule to matches of nftables, in the language of nft(8), for netdev and inet families.

One text of matches for each box of the rule; which verdict follows is not said here. nftables
finds no ports behind an IPv4 header that is not sound (shorter than 20 octets, or longer than the
packet); the kernel drops those anyway.
"""

from ipaddress import IPv4Address, IPv6Address

from orchestrator.rules.lower import VERSIONS, Atom, Box, Quantity, bits, boxes
from orchestrator.rules.tree import Rule

_NAMES4 = {
    Quantity.PROTOCOL: "ip protocol",
    Quantity.FRAGMENT: "ip frag-off & 0x3fff",
    Quantity.OFFSET: "ip frag-off & 0x1fff",
    Quantity.DSCP: "ip dscp",
    Quantity.SOURCE: "ip saddr",
    Quantity.TARGET: "ip daddr",
    Quantity.SOURCE_PORT: "th sport",
    Quantity.TARGET_PORT: "th dport",
}
_NAMES6 = _NAMES4 | {
    Quantity.PROTOCOL: "ip6 nexthdr",
    Quantity.DSCP: "ip6 dscp",
    Quantity.SOURCE: "ip6 saddr",
    Quantity.TARGET: "ip6 daddr",
}
_VERSIONS = {4: "ether type ip", 6: "ether type ip6"}
_VERSIONS_INET = {4: "meta nfproto ipv4", 6: "meta nfproto ipv6"}  # where there may be no Ethernet


def to_nft(
    rule: Rule, versions: tuple[int, ...] = VERSIONS, *, inet: bool = False
) -> tuple[str, ...]:
    """Return matches such as ``ether type ip ip protocol 6 th dport 80``, true where the rule is.

    They are for tables of the netdev family, or of `inet`. CannotSay if there were too many;
    `lower.boxes` says what holds for packets that are cut off.
    """
    return tuple(dict.fromkeys(_matches(box, inet=inet) for box in boxes(rule, versions)))


def _matches(box: Box, *, inet: bool) -> str:
    version = (_VERSIONS_INET if inet else _VERSIONS)[box.version]
    return " ".join([version, *(_match(atom, box.version) for atom in box.atoms)])


def _match(atom: Atom, version: int) -> str:
    name = (_NAMES4 if version == 4 else _NAMES6)[atom.quantity]
    if atom.quantity in (Quantity.FRAGMENT, Quantity.OFFSET):
        return f"{name} {'!=' if atom.low else '=='} 0"
    if (atom.low, atom.high) == (0, (1 << bits(atom.quantity, version)) - 1):
        return f"{name} >= {_value(atom, 0, version)}"
    if atom.low == atom.high:
        return f"{name} {_value(atom, atom.low, version)}"
    return f"{name} {_value(atom, atom.low, version)}-{_value(atom, atom.high, version)}"


def _value(atom: Atom, number: int, version: int) -> str:
    if atom.quantity in (Quantity.SOURCE, Quantity.TARGET):
        return str(IPv4Address(number) if version == 4 else IPv6Address(number))
    return str(number)

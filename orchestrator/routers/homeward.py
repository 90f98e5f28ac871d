"""Leads what guests of this machine send into the network by the router of their own host.

Hosts on one machine share its routing table, in which there is one way to each prefix: the answers
of a host far away would take a short cut through a host nearby, and two hosts would talk past the
network. So what comes from a host's bridge is looked up first in a table of that bridge's own
(policy routing, ip-rule(8)).

The numbers of our tables begin with a hash of our mark. So rules are known as ours without a
record, and a crash leaves nothing that the next call would not find.
"""

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from errno import EEXIST, ENOENT, ESRCH
from ipaddress import IPv4Network, ip_address, ip_network
from typing import Any, NamedTuple

from orchestrator.linux import namespaces
from orchestrator.network import Network
from orchestrator.routers.names import IPAddress
from orchestrator.routers.tables import bridged, elsewhere
from orchestrator.routing import Prefix

PRIORITY = 8980  # before the rules of chains, whose tunnels take these ways too
PROTOCOL = 236  # of our rules and routes; 237 is that of chains and guards

_AF_INET, _AF_INET6 = 2, 10
_BRIDGES = 1 << 12  # tables of ours
_OWNERS = 1 << 18
_FIRST = 1 << 30
_ONLINK = 4  # linux/rtnetlink.h RTNH_F_ONLINK
_FINE = (EEXIST, ENOENT, ESRCH)


class _Rule(NamedTuple):
    family: int
    bridge: str
    table: int


class _Route(NamedTuple):
    prefix: Prefix
    gateway: IPAddress
    bridge: int  # its index


def lead(place: str, mark: str, network: Network, routers: frozenset[str]) -> None:
    """Have the guests behind each bridge use their router; undo this for bridges without one.

    `place` is the namespace that stands for the machine, and `routers` are those on it. What is so
    already is not disturbed. Raises OSError.
    """
    stubs = {stub.bridge: stub for stub in reversed(bridged(network, routers))}
    tables = _numbered(mark, stubs)
    first = _first(mark)
    with _netlink(place) as ip:
        indexes = {bridge: ip.link_lookup(ifname=bridge)[0] for bridge in stubs}
        wanted: dict[int, set[_Route]] = {}
        for bridge, stub in stubs.items():
            gateways = {each.version: each for each in (stub.gateway, stub.gateway6) if each}
            wanted[tables[bridge]] = {
                _Route(prefix, gateways[prefix.version], indexes[bridge])
                for prefix in elsewhere(network, stub)
                if prefix.version in gateways
            }
        rules = {
            _Rule(family, bridge, tables[bridge])
            for bridge, stub in stubs.items()
            for family in (_AF_INET, *((_AF_INET6,) if stub.gateway6 else ()))
        }
        there = {rule for rule in _rules(ip) if first <= rule.table < first + _BRIDGES}
        for table, routes in wanted.items():
            _settle(ip, table, routes)
        for rule in rules - there:
            _rule(ip, "add", rule)
        for rule in there - rules:
            _rule(ip, "del", rule)
        for table in {rule.table for rule in there} - wanted.keys():
            _settle(ip, table, set())


def _first(mark: str) -> int:
    digest = hashlib.sha256(f"{mark} tables".encode()).digest()
    return _FIRST + int.from_bytes(digest[:4]) % _OWNERS * _BRIDGES


def _numbered(mark: str, bridges: Iterable[str]) -> dict[str, int]:
    """Return a table for each bridge, which is the same whatever other bridges there are."""
    found: dict[str, int] = {}
    for bridge in sorted(bridges):
        place = int.from_bytes(hashlib.sha256(bridge.encode()).digest()[:4])
        while (table := _first(mark) + place % _BRIDGES) in found.values():
            place += 1
        found[bridge] = table
    return found


# --- the kernel -----------------------------------------------------------------------------------


@contextmanager
def _netlink(place: str) -> Iterator[Any]:
    from pyroute2 import IPRoute  # noqa: PLC0415 - 0.2 s, for those only who have guests
    from pyroute2.netlink.exceptions import NetlinkError  # noqa: PLC0415 - as above

    try:
        if place:
            with namespaces.netlink(place) as ip:
                yield ip
        else:
            with IPRoute() as ip:
                yield ip
    except NetlinkError as error:
        raise OSError(error.code, str(error), place or None) from error


def _rules(ip: Any) -> Iterator[_Rule]:
    for message in ip.get_rules():
        if message.get_attr("FRA_PROTOCOL") == PROTOCOL:
            bridge = message.get_attr("FRA_IIFNAME") or ""
            yield _Rule(message["family"], bridge, message.get_attr("FRA_TABLE"))


def _rule(ip: Any, verb: str, rule: _Rule) -> None:
    with _fine():
        ip.rule(
            verb,
            family=rule.family,
            priority=PRIORITY,
            iifname=rule.bridge,
            table=rule.table,
            protocol=PROTOCOL,
        )


def _settle(ip: Any, table: int, wanted: set[_Route]) -> None:
    """Make a table have these routes and no others."""
    there = {
        route
        for family in (_AF_INET, _AF_INET6)
        for message in ip.get_routes(family=family, table=table)
        if (route := _found(message))
    }
    for route in wanted - there:
        ip.route("replace", table=table, proto=PROTOCOL, flags=_ONLINK, **_told(route))
    kept = {route.prefix for route in wanted}
    for route in there - wanted:
        if route.prefix not in kept:  # else it was replaced
            with _fine():
                ip.route("del", table=table, **_told(route))


def _told(route: _Route) -> Mapping[str, Any]:
    four = isinstance(route.prefix, IPv4Network)
    return {
        "family": _AF_INET if four else _AF_INET6,
        "dst": str(route.prefix),
        "gateway": str(route.gateway),
        "oif": route.bridge,
    }


def _found(message: Any) -> _Route | None:
    prefix, gateway = message.get_attr("RTA_DST"), message.get_attr("RTA_GATEWAY")
    if not prefix or not gateway:
        return None
    return _Route(
        ip_network(f"{prefix}/{message['dst_len']}"),
        ip_address(gateway),
        message.get_attr("RTA_OIF"),
    )


@contextmanager
def _fine() -> Iterator[None]:
    """Pass over what is there already, and over what is gone already."""
    from pyroute2.netlink.exceptions import NetlinkError  # noqa: PLC0415 - as above

    try:
        yield
    except NetlinkError as error:
        if error.code not in _FINE:
            raise

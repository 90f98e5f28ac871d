"""Leads packets through the functions of service chains, in order, by routes in their namespaces.

Each station of a passage is a network namespace with an address. One station and the next are
joined by a VXLAN tunnel between these addresses (RFC 7348), so packets take the network's own way
from host to host, with its latency. In each station, packets to the target go into the tunnel to
the next one, and what comes from behind goes back the same way; neither packets nor programs are
changed. At the entries, which are routers of clients and the machine itself, packets to the target
go into a tunnel to the first station instead of their usual way.

Tunnels of ours carry our mark and the number of their table in their alias, which they are given
when all else of them is made; and whose they are begins their name, so one that a crash cut short
is found, too. Rules have that table; they are made after their tunnel and removed before it.

What is new is there before what it replaces is gone, and in functions before packets are led to
them: so no packet goes past a function while a passage changes.
"""

import hashlib
import logging
import os
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from errno import EEXIST, ENODEV, ENOENT, ESRCH
from ipaddress import IPv4Address, IPv6Address, ip_address
from itertools import pairwise
from pathlib import Path
from typing import Any

from orchestrator.errors import CannotNetwork, CannotSay
from orchestrator.linux import namespaces
from orchestrator.linux.bridges import NO_DAD
from orchestrator.steering import functions
from orchestrator.steering.functions import Function

PORT = 4790  # of our tunnels; the usual 4789 is left to others
PROTOCOL = 237  # of our rules and routes, as of the guards' (`ip route show proto 237`)
MACHINE = ""  # the name of the namespace we are in ourselves

_AHEAD, _RETURN = 0x6500_0000, 0x6600_0000  # our tables are one of these and the tunnel's VNI
_NOWHERE = 0x6700_0000  # and 24 bits of the owner: of rules that lead to no table
_TUNNEL, _FORWARD = 8990, 8991  # priorities of rules; main is 32766
_CONNECTED, _BACK, _ELSE = 8992, 8993, 8994
_AF_INET, _AF_INET6, _UDP = 2, 10, 17
_MAIN = 254  # linux/rtnetlink.h RT_TABLE_MAIN
_ONLINK = 4  # linux/rtnetlink.h RTNH_F_ONLINK

_PREFIX = "ewc"  # of our devices; four digits of their owner come next
_HINT = "run as root; the kernel needs VXLAN (`modprobe vxlan`), IPv6 and policy routing"

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Station:
    """A network namespace on the way, and the address at which its tunnels end.

    `address6` is its other one, if it has one; `function` what is done to packets there.
    """

    namespace: str
    address: IPv4Address
    address6: IPv6Address | None = None
    function: Function | None = None


@dataclass(frozen=True, slots=True)
class Passage:
    """A chain as it is to be: the last of its `stations` has the `target`.

    Without stations it is closed: what is for the target goes nowhere. `target6` is None where it
    has no IPv6 address.
    """

    name: str
    entries: tuple[Station, ...]
    stations: tuple[Station, ...]
    target: IPv4Address
    target6: IPv6Address | None = None


@dataclass(frozen=True, slots=True)
class _Tunnel:
    """One end of a tunnel. `towards` says that it leads to the target, else back."""

    device: str
    vni: int
    local: IPv4Address
    remote: IPv4Address
    table: int
    towards: bool

    @property
    def own(self) -> str:
        return "fe80::1" if self.towards else "fe80::2"

    @property
    def other(self) -> str:
        return "fe80::2" if self.towards else "fe80::1"

    @property
    def mac(self) -> str:
        number = self.vni.to_bytes(3, "big")
        return ":".join(f"{octet:02x}" for octet in (0x02, 0xEE, *number, 1 + (not self.towards)))


@dataclass(frozen=True, slots=True)
class _Rule:
    """A rule of policy routing; `to` and `source` are None for any."""

    priority: int
    family: int
    table: int
    to: IPv4Address | IPv6Address | None = None
    source: IPv4Address | IPv6Address | None = None

    @property
    def drops(self) -> bool:
        """Whether packets go nowhere; the table says then only whose the rule is."""
        return self.table & 0xFF00_0000 == _NOWHERE


_SHARED = frozenset(
    {
        _Rule(_TUNNEL, _AF_INET, _MAIN),
        _Rule(_CONNECTED, _AF_INET, _MAIN),
        _Rule(_CONNECTED, _AF_INET6, _MAIN),
    }
)


@dataclass(frozen=True, slots=True)
class _Wanted:
    """What one namespace is to have for all passages."""

    tunnels: frozenset[_Tunnel]
    rules: frozenset[_Rule]
    station: Station | None = None  # None: an entry, or nothing


class ChainPaths:
    """The passages that are set, for one owner."""

    def __init__(self, owner: str) -> None:
        self._owner = hashlib.sha256(owner.encode()).hexdigest()[:16]
        self._lock = threading.Lock()
        self._touched: set[str] | None = None  # namespaces that may have something of ours
        self._scripts: dict[str, str] = {}  # what stations do to packets, for nft(8)

    def set(self, passages: Sequence[Passage]) -> None:
        """Lead packets by exactly these passages from now on; may be repeated, also after a crash.

        What is the same already is not disturbed. A namespace that ended meanwhile is no error: all
        of ours in it ended with it. Raises `CannotNetwork` when the kernel refuses something; what
        could be set then is.
        """
        wanted = _by_namespace(self._owner, passages)
        with self._lock:
            if self._touched is None:  # from before a restart
                self._touched = {MACHINE, *(n for n in namespaces.names() if n.startswith("ew-"))}
            troubles: dict[str, str] = {}
            for name in sorted(self._touched | wanted.keys(), key=_turn(wanted)):
                try:
                    self._settle(name, wanted.get(name, _Wanted(frozenset(), frozenset())))
                except CannotSay as error:
                    troubles[name] = str(error)
                except OSError as error:
                    if name == MACHINE or name in namespaces.names():
                        troubles[name] = error.strerror or str(error)
            self._touched = {*wanted, *troubles}
            self._scripts = {n: each for n, each in self._scripts.items() if n in self._touched}
        if troubles:
            told = (f"{name or 'this machine'}: {why}" for name, why in troubles.items())
            raise CannotNetwork(f"chains cannot be set: {'; '.join(told)}", hint=_HINT)

    def _settle(self, name: str, wanted: _Wanted) -> None:
        with _netlink(name) as ip:
            found = self._tunnels(ip)
            for device in [device for device, (_, table) in found.items() if not table]:
                with _there_is_fine():
                    ip.link("del", index=found.pop(device)[0])
            new = [tunnel for tunnel in wanted.tunnels if tunnel.device not in found]
            for tunnel in new:
                self._add(ip, name, tunnel)
            try:
                self._function(name, wanted, was_there=bool(found), changed=bool(new))
            except (OSError, CannotSay):
                _shut(ip, wanted)
                raise
            if wanted.tunnels:
                _inside(name, lambda: _forward(name, wanted))
            tables = {_nowhere(self._owner), *(table for _, table in found.values())}
            there = frozenset(_rules(ip))
            ours = {rule for rule in there if rule.table in tables}
            for rule in sorted((wanted.rules | _shared(wanted.rules)) - there, key=_priority):
                _rule(ip, "add", rule)
            for rule in ours - wanted.rules:
                _rule(ip, "del", rule)
            for device in found.keys() - {tunnel.device for tunnel in wanted.tunnels}:
                with _there_is_fine():
                    ip.link("del", index=found[device][0])
            if not wanted.rules and there <= ours | _SHARED:
                for rule in there & _SHARED:
                    _rule(ip, "del", rule)

    def _function(self, name: str, wanted: _Wanted, *, was_there: bool, changed: bool) -> None:
        """Have a station do to packets what it is to do, and no more what it was.

        `was_there` says that it had tunnels before, and so perhaps what an earlier run left;
        `changed` that it has others now.
        """
        station = wanted.station
        if name == MACHINE or (wanted.rules and station is None):
            return  # an entry
        function = (station.function if station is not None else None) or Function()
        back = [tunnel.device for tunnel in wanted.tunnels if not tunnel.towards]
        both = (station.address, station.address6) if station is not None else ()
        own = [each for each in both if each is not None]
        script = functions.nft_text(f"edgewake_{self._owner}", function, back, own)
        before = self._scripts.get(name, None if was_there else "")
        if function != Function():
            due = changed or before != script
        else:
            due = bool(before) or (before is None and was_there)
        if due:
            if before is not None:
                self._scripts[name] = before
            functions.apply(name, script)
        self._scripts[name] = script if function != Function() else ""

    def _tunnels(self, ip: Any) -> dict[str, tuple[int, int]]:
        """Return index and table of each tunnel of ours, by its device; 0 if it is half made."""
        found = {}
        for message in ip.get_links():
            device, alias = message.get_attr("IFLA_IFNAME"), message.get_attr("IFLA_IFALIAS")
            owner, _, table = (alias or "").rpartition(":")
            if device.startswith(_PREFIX) and owner == self._mark:
                found[device] = message["index"], int(table)
            elif not alias and device.startswith(_prefix(self._owner)):
                found[device] = message["index"], 0
        return found

    def _add(self, ip: Any, name: str, tunnel: _Tunnel) -> None:
        """Make a tunnel; its mark is last, for that says that all the rest was done."""
        ip.link(
            "add",
            ifname=tunnel.device,
            kind="vxlan",
            address=tunnel.mac,
            vxlan_id=tunnel.vni,
            vxlan_local=str(tunnel.local),
            vxlan_group=str(tunnel.remote),
            vxlan_port=PORT,
            vxlan_learning=0,
            vxlan_ttl=64,
        )
        (index,) = ip.link_lookup(ifname=tunnel.device)
        _inside(name, lambda: _allow_ipv6(tunnel.device))
        ip.link("set", index=index, state="up")
        with _there_is_fine():
            ip.addr("add", index=index, address=tunnel.own, prefixlen=64, flags=NO_DAD)
        for family in (_AF_INET, _AF_INET6):
            _route(ip, family, index, tunnel)
        ip.link("set", index=index, ifalias=f"{self._mark}:{tunnel.table}")
        log.debug("%s: %s leads to %s", name or "this machine", tunnel.device, tunnel.remote)

    @property
    def _mark(self) -> str:
        return f"edgewake:{self._owner}:chain"


# --- what is wanted where -------------------------------------------------------------------------


def _prefix(owner: str) -> str:
    return _PREFIX + owner[:4]


def _turn(wanted: Mapping[str, _Wanted]) -> Callable[[str], tuple[int, str]]:
    """Return what sorts namespaces: first stations, and the machine last."""

    def key(name: str) -> tuple[int, str]:
        there = wanted.get(name)
        return (0 if there and there.station else 2 if name == MACHINE else 1), name

    return key


def _by_namespace(owner: str, passages: Sequence[Passage]) -> dict[str, _Wanted]:
    tunnels: dict[str, set[_Tunnel]] = {}
    rules: dict[str, set[_Rule]] = {}
    for passage in passages:
        if not passage.stations:
            for entry in passage.entries:
                tunnels.setdefault(entry.namespace, set())
                closing = _rules_ahead(passage, _nowhere(owner))
                rules.setdefault(entry.namespace, set()).update(closing)
            continue
        legs = [(entry, passage.stations[0]) for entry in passage.entries]
        legs += pairwise(passage.stations)
        for number, (near, far) in enumerate(legs):
            key = (owner, passage.name, near.namespace, far.namespace, near.address, far.address)
            digest = hashlib.sha256(" ".join(map(str, key)).encode()).digest()
            device, vni = _prefix(owner) + digest[:4].hex(), int.from_bytes(digest[5:8]) or 1
            ahead, back = _AHEAD + vni, _RETURN + vni
            tunnels.setdefault(near.namespace, set()).add(
                _Tunnel(device, vni, near.address, far.address, ahead, towards=True)
            )
            tunnels.setdefault(far.namespace, set()).add(
                _Tunnel(device, vni, far.address, near.address, back, towards=False)
            )
            rules.setdefault(near.namespace, set()).update(_rules_ahead(passage, ahead))
            if number >= len(passage.entries):  # the first station sends back by its own routes
                last = far is passage.stations[-1]
                rules.setdefault(far.namespace, set()).update(_rules_back(passage, back, last=last))
    stations = {station.namespace: station for each in passages for station in each.stations}
    return {
        name: _Wanted(frozenset(each), frozenset(rules.get(name, ())), stations.get(name))
        for name, each in tunnels.items()
    }


def _nowhere(owner: str) -> int:
    return _NOWHERE + int(owner[:6], 16)


def _targets(passage: Passage) -> Iterator[tuple[int, IPv4Address | IPv6Address]]:
    yield _AF_INET, passage.target
    if passage.target6 is not None:
        yield _AF_INET6, passage.target6


def _rules_ahead(passage: Passage, table: int) -> Iterator[_Rule]:
    for family, target in _targets(passage):
        yield _Rule(_FORWARD, family, table, to=target)


def _rules_back(passage: Passage, table: int, *, last: bool) -> Iterator[_Rule]:
    """Yield what leads back: the target's packets and, of one in the middle, its own answers.

    Those come last: of several chains, they are led back by one of them.
    """
    for family, target in _targets(passage):
        yield _Rule(_BACK, family, table, source=target)
        if not last:
            yield _Rule(_ELSE, family, table)


def _shared(rules: frozenset[_Rule]) -> frozenset[_Rule]:
    """Return the rules that lead to the main table, which those need: they are nobody's alone.

    What tunnels send goes its usual way, and from a station in the middle what is for the same
    network as itself.
    """
    if not rules:
        return frozenset()
    families = {rule.family for rule in rules if rule.priority == _ELSE}
    return frozenset(
        rule for rule in _SHARED if rule.priority == _TUNNEL or rule.family in families
    )


def _priority(rule: _Rule) -> int:
    return rule.priority


# --- the kernel -----------------------------------------------------------------------------------


@contextmanager
def _netlink(name: str) -> Iterator[Any]:
    from pyroute2 import IPRoute  # noqa: PLC0415 - 0.2 s, for those only who have chains
    from pyroute2.netlink.exceptions import NetlinkError  # noqa: PLC0415 - as above

    try:
        if name == MACHINE:
            with IPRoute() as ip:
                yield ip
        else:
            with namespaces.netlink(name) as ip:
                yield ip
    except NetlinkError as error:
        raise OSError(error.code, os.strerror(error.code), name) from error


def _shut(ip: Any, wanted: _Wanted) -> None:
    """Let nothing come to a station that cannot do what it is to do; the next `set` tries again."""
    for tunnel in wanted.tunnels:
        if not tunnel.towards:
            for index in ip.link_lookup(ifname=tunnel.device):
                with _there_is_fine():
                    ip.link("del", index=index)


def _inside(name: str, work: Callable[[], None]) -> None:
    if name == MACHINE:
        work()
    else:
        namespaces.inside(name, work)


def _forward(name: str, wanted: _Wanted) -> None:
    """Let the namespace we are in forward, and not mind which way packets come by."""
    conf = Path("/proc/sys/net")
    _write(conf / "ipv4/ip_forward", "1")
    if name != MACHINE or any(rule.family == _AF_INET6 for rule in wanted.rules):
        with suppress(FileNotFoundError):  # without IPv6 in the kernel
            _write(conf / "ipv6/conf/all/forwarding", "1")
    if name == MACHINE:  # others use it, too: no more than is needed (RFC 3704, loose)
        if any(_is_strict(each) for each in conf.glob("ipv4/conf/*/rp_filter")):
            _write(conf / "ipv4/conf/all/rp_filter", "2")
        return
    for device in ("all", *(tunnel.device for tunnel in wanted.tunnels)):
        _write(conf / f"ipv4/conf/{device}/rp_filter", "0")


def _is_strict(setting: Path) -> bool:
    with suppress(OSError):  # the device is gone
        return setting.read_text().strip() == "1"
    return False


def _allow_ipv6(device: str) -> None:
    """Let a tunnel have the address that its routes name, also where others have none."""
    with suppress(FileNotFoundError):  # as above
        _write(Path("/proc/sys/net/ipv6/conf") / device / "disable_ipv6", "0")


def _write(setting: Path, value: str) -> None:
    """Change a setting that is not so already: some machines let nobody write what they have."""
    if setting.read_text().strip() != value:
        setting.write_text(value)


def _route(ip: Any, family: int, index: int, tunnel: _Tunnel) -> None:
    """Lead everything in a tunnel's table into it; rules say what comes to that table."""
    with _there_is_fine():
        ip.route(
            "add",
            family=family,
            dst="default",
            oif=index,
            table=tunnel.table,
            proto=PROTOCOL,
            flags=_ONLINK,
            **(
                {"via": {"family": _AF_INET6, "addr": tunnel.other}}
                if family == _AF_INET
                else {"gateway": tunnel.other}
            ),
        )


def _rule(ip: Any, verb: str, rule: _Rule) -> None:
    selector: dict[str, Any] = {}
    if rule.to is not None:
        selector = {"dst": str(rule.to), "dst_len": rule.to.max_prefixlen}
    if rule.source is not None:
        selector = {"src": str(rule.source), "src_len": rule.source.max_prefixlen}
    if rule.priority == _TUNNEL:
        selector = {"ip_proto": _UDP, "dport_range": f"{PORT}:{PORT}"}
    if rule.priority == _CONNECTED:
        selector = {"suppress_prefixlen": 0}
    if rule.drops:
        selector["action"] = "blackhole"
    with _there_is_fine():
        ip.rule(
            verb,
            family=rule.family,
            priority=rule.priority,
            table=rule.table,
            protocol=PROTOCOL,
            **selector,
        )


def _rules(ip: Any) -> Iterator[_Rule]:
    """Yield the rules with our protocol number, whoever's."""
    for message in ip.get_rules():
        if message.get_attr("FRA_PROTOCOL") == PROTOCOL:
            to, source = message.get_attr("FRA_DST"), message.get_attr("FRA_SRC")
            yield _Rule(
                message.get_attr("FRA_PRIORITY") or 0,
                message["family"],
                message.get_attr("FRA_TABLE"),
                ip_address(to) if to else None,
                ip_address(source) if source else None,
            )


@contextmanager
def _there_is_fine() -> Iterator[None]:
    """Pass over what is there already, and over what is gone already."""
    from pyroute2.netlink.exceptions import NetlinkError  # noqa: PLC0415 - as above

    try:
        yield
    except NetlinkError as error:
        if error.code not in (EEXIST, ENOENT, ENODEV, ESRCH):
            raise

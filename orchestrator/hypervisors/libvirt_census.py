"""What runs on a host, as libvirt tells it: which domains, in what state, with what counters.

QEMU's driver answers all of it in one call. Xen's (libxl) has no such call: it takes one for all
domains, one for those that are paused, and one per network card of ours.
"""

from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any
from xml.etree import ElementTree as ET

import libvirt

from orchestrator.hypervisors.domain_xml import SLEEP_NAMESPACE
from orchestrator.model import GuestState, Mark

MarkOf = Callable[[libvirt.virDomain], Mark | None]

_STATES = {
    libvirt.VIR_DOMAIN_RUNNING: GuestState.RUNNING,
    libvirt.VIR_DOMAIN_BLOCKED: GuestState.RUNNING,
    libvirt.VIR_DOMAIN_PAUSED: GuestState.PAUSED,
}
_STATS = libvirt.VIR_DOMAIN_STATS_STATE | libvirt.VIR_DOMAIN_STATS_INTERFACE
# NOWAIT: a domain that is busy (being started, say) must not keep everyone waiting.
_STATS_OF = (
    libvirt.VIR_CONNECT_GET_ALL_DOMAINS_STATS_ACTIVE
    | libvirt.VIR_CONNECT_GET_ALL_DOMAINS_STATS_NOWAIT
)


@dataclass(frozen=True, slots=True)
class Seen:
    """A domain of ours. Counters are in bytes, from the guest's side."""

    domain: libvirt.virDomain
    mark: Mark
    state: GuestState
    rx_bytes: int
    tx_bytes: int


Census = tuple[list[Seen], list[libvirt.virDomain]]


def qemu_census(conn: libvirt.virConnect, mark_of: MarkOf) -> Census:
    """Return our domains, and all."""
    domains = conn.getAllDomainStats(_STATS, _STATS_OF)
    seen = []
    for domain, stats in domains:
        state = _STATES.get(stats.get("state.state", -1))
        mark = mark_of(domain) if state is not None else None
        if mark is not None and state is not None:
            received, sent = _counter(stats, "rx"), _counter(stats, "tx")
            seen.append(Seen(domain, mark, state, received, sent))
    return [_told_apart(one) for one in seen], [domain for domain, _ in domains]


def xen_census(conn: libvirt.virConnect, mark_of: MarkOf, busy: set[str]) -> Census:
    """Return our domains, and all.

    Nothing that would have to wait is asked of those whose UUID is in `busy`: their counters are 0.
    One that libvirt itself has kept waiting for is added: 30 s are too long to wait again.
    """
    domains = conn.listAllDomains(libvirt.VIR_CONNECT_LIST_DOMAINS_ACTIVE)
    marked = [(domain, mark) for domain in domains if (mark := mark_of(domain)) is not None]
    paused = _paused(conn) if marked else frozenset()
    seen = []
    for domain, mark in marked:
        resting = domain.UUIDString() in paused
        state = GuestState.PAUSED if resting else GuestState.RUNNING
        seen.append(Seen(domain, mark, state, *_xen_counters(domain, busy)))
    return [_told_apart(one) for one in seen], domains


def _paused(conn: libvirt.virConnect) -> frozenset[str]:
    found = conn.listAllDomains(libvirt.VIR_CONNECT_LIST_DOMAINS_PAUSED)
    return frozenset(domain.UUIDString() for domain in found)


def has_run(domain: libvirt.virDomain) -> bool:
    """Return whether a paused domain was ever let run; one that was not is half made.

    A virtual processor that never ran has used no time, which Xen accounts exactly and QEMU's
    driver in units of 10 ms.
    """
    with suppress(libvirt.libvirtError):
        processors: Any = domain.vcpus()  # Xen's driver has no such call
        return any(processor[2] for processor in processors[0])
    try:
        info: Any = domain.info()
    except libvirt.libvirtError:
        return False
    return bool(info[4])


def is_asleep(domain: libvirt.virDomain) -> bool:
    """Return whether a paused domain was paused by our own `sleep`."""
    try:
        domain.metadata(libvirt.VIR_DOMAIN_METADATA_ELEMENT, SLEEP_NAMESPACE)
    except libvirt.libvirtError:
        return False
    return True


def present(seen: Iterable[Seen]) -> list[Seen]:
    """Return those that have run, without what is being started or was left half made."""
    return [one for one in seen if one.state is not GuestState.HELD or has_run(one.domain)]


def _told_apart(seen: Seen) -> Seen:
    if seen.state is GuestState.PAUSED and not is_asleep(seen.domain):
        return Seen(seen.domain, seen.mark, GuestState.HELD, seen.rx_bytes, seen.tx_bytes)
    return seen


def _counter(stats: Mapping[str, Any], direction: str) -> int:
    """Return the bytes of all of a domain's cards; libvirt counts from the guest's side."""
    cards = range(stats.get("net.count", 0))
    return sum(stats.get(f"net.{card}.{direction}.bytes", 0) for card in cards)


def _xen_counters(domain: libvirt.virDomain, busy: set[str]) -> tuple[int, int]:
    """Return the bytes that all of a domain's cards received and sent; 0 if it has just ended."""
    received = sent = 0
    try:
        for card in _cards(domain) if domain.UUIDString() not in busy else ():
            counters: Any = domain.interfaceStats(card)
            received, sent = received + counters[0], sent + counters[4]
    except libvirt.libvirtError as error:
        if error.get_error_code() == libvirt.VIR_ERR_OPERATION_TIMEOUT:
            busy.add(domain.UUIDString())
    return received, sent


def _cards(domain: libvirt.virDomain) -> list[str]:
    root = ET.fromstring(domain.XMLDesc())  # noqa: S314 - written by libvirt, without a DTD
    names = (target.get("dev") for target in root.iterfind("devices/interface/target"))
    return [name for name in names if name]

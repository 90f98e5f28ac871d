"""What runs on a host, as libvirt tells it: which domains, in what state, with what counters.

QEMU's driver answers all of it in one call. Xen's (libxl) has no such call: it takes one for all
domains, one for those that are paused, one per domain of ours and one per network card of it.
"""

from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any
from xml.etree import ElementTree as ET

import libvirt

from orchestrator.hypervisors.domain_xml import SLEEP_NAMESPACE
from orchestrator.model import GuestState, Mark, RunningGuest

MarkOf = Callable[[libvirt.virDomain], Mark | None]

_STATES = {
    libvirt.VIR_DOMAIN_RUNNING: GuestState.RUNNING,
    libvirt.VIR_DOMAIN_BLOCKED: GuestState.RUNNING,
    libvirt.VIR_DOMAIN_PAUSED: GuestState.PAUSED,
}
# State and reason, on QEMU, until a domain's start or restore is through.
HALF_MADE = (libvirt.VIR_DOMAIN_PAUSED, libvirt.VIR_DOMAIN_PAUSED_STARTING_UP)
_STATS = (
    libvirt.VIR_DOMAIN_STATS_STATE
    | libvirt.VIR_DOMAIN_STATS_INTERFACE
    | libvirt.VIR_DOMAIN_STATS_CPU_TOTAL
)
# NOWAIT: a domain that is busy (being started, say) must not keep everyone waiting.
_STATS_OF = (
    libvirt.VIR_CONNECT_GET_ALL_DOMAINS_STATS_ACTIVE
    | libvirt.VIR_CONNECT_GET_ALL_DOMAINS_STATS_NOWAIT
)


_NOT_NOW = (
    libvirt.VIR_ERR_OPERATION_INVALID,
    libvirt.VIR_ERR_OPERATION_TIMEOUT,
    libvirt.VIR_ERR_NO_DOMAIN,
)


@dataclass(frozen=True, slots=True)
class Counters:
    """What a domain's cards received and sent, from its side, and the processor time it used."""

    rx_bytes: int = 0
    tx_bytes: int = 0
    rx_packets: int = 0
    cpu_s: float | None = None


@dataclass(frozen=True, slots=True)
class Seen:
    """A domain of ours."""

    domain: libvirt.virDomain
    mark: Mark
    state: GuestState
    counters: Counters

    def told(self) -> RunningGuest:
        """Return it as the guest that it is."""
        counted = self.counters
        return RunningGuest(
            self.mark,
            counted.rx_bytes,
            counted.tx_bytes,
            self.state,
            counted.rx_packets,
            counted.cpu_s,
        )


Run = tuple[str, int]  # a domain's UUID, and its number in this run of it
Cards = dict[Run, tuple[str, ...]]
Census = tuple[list[Seen], list[libvirt.virDomain]]


def qemu_census(conn: libvirt.virConnect, mark_of: MarkOf) -> Census:
    """Return our domains, and all."""
    domains = conn.getAllDomainStats(_STATS, _STATS_OF)
    seen = []
    for domain, stats in domains:
        if (stats.get("state.state"), stats.get("state.reason")) == HALF_MADE:
            continue  # its processor time would be libvirtd's own, if it has no process
        state = _STATES.get(stats.get("state.state", -1))
        mark = mark_of(domain) if state is not None else None
        if mark is not None and state is not None:
            seen.append(Seen(domain, mark, state, _qemu_counters(stats)))
    return [_told_apart(one) for one in seen], [domain for domain, _ in domains]


def xen_census(conn: libvirt.virConnect, mark_of: MarkOf, busy: set[str], cards: Cards) -> Census:
    """Return our domains, and all. `cards` remembers their network cards, which never change.

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
        seen.append(Seen(domain, mark, state, _xen_counters(domain, busy, cards)))
    for gone in set(cards) - {_run(one.domain) for one in seen}:
        cards.pop(gone, None)
    return [_told_apart(one) for one in seen], domains


def _run(domain: libvirt.virDomain) -> Run:
    return domain.UUIDString(), domain.ID()


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
        return replace(seen, state=GuestState.HELD)
    return seen


def _qemu_counters(stats: Mapping[str, Any]) -> Counters:
    """Return a domain's counters; its processor time is that of its control group, if it has one.

    libvirt counts from the guest's side.
    """
    cpu_ns = stats.get("cpu.time")
    return Counters(
        _cards_total(stats, "rx.bytes"),
        _cards_total(stats, "tx.bytes"),
        _cards_total(stats, "rx.pkts"),
        None if cpu_ns is None else cpu_ns / 1e9,
    )


def _cards_total(stats: Mapping[str, Any], counter: str) -> int:
    cards = range(stats.get("net.count", 0))
    return sum(stats.get(f"net.{card}.{counter}", 0) for card in cards)


def memory_bytes(domain: libvirt.virDomain, *, xen: bool) -> int | None:
    """Return the memory of the host that a domain takes; None if it does not run, or is busy."""
    kib: Any = None
    try:
        stats: Any = None if xen else domain.memoryStats()
        kib = domain.info()[2] if xen else stats.get("rss")
    except libvirt.libvirtError as error:
        if error.get_error_code() not in _NOT_NOW:
            raise
    return kib * 1024 if kib else None


def _xen_counters(domain: libvirt.virDomain, busy: set[str], cards: Cards) -> Counters:
    """Return a domain's counters; 0, or None, if it has just ended."""
    received = sent = packets = 0
    cpu_s = None
    try:
        if domain.UUIDString() not in busy:
            info: Any = domain.info()
            cpu_s = info[4] / 1e9
            for card in cards.get(_run(domain)) or _cards(domain, cards):
                counters: Any = domain.interfaceStats(card)
                received, sent = received + counters[0], sent + counters[4]
                packets += counters[1]
    except libvirt.libvirtError as error:
        if error.get_error_code() == libvirt.VIR_ERR_OPERATION_TIMEOUT:
            busy.add(domain.UUIDString())
    return Counters(received, sent, packets, cpu_s)


def _cards(domain: libvirt.virDomain, cards: Cards) -> tuple[str, ...]:
    root = ET.fromstring(domain.XMLDesc())  # noqa: S314 - written by libvirt, without a DTD
    names = (target.get("dev") for target in root.iterfind("devices/interface/target"))
    found = cards[_run(domain)] = tuple(name for name in names if name)
    return found

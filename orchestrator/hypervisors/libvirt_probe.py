"""What libvirt says about a host, as texts and numbers, for `orchestrator.host_probe` to read.

One connection of its own, opened and closed; nothing on the host is changed. What a driver does not
offer (Xen has no memory statistics, many hosts have no interface driver) is None, which is a
finding and no error.
"""

from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from threading import Thread
from typing import Any, TypeVar

import libvirt

from orchestrator.errors import HostUnreachable
from orchestrator.hypervisors.connection import Connection, Unopened
from orchestrator.hypervisors.connection_hints import explained
from orchestrator.hypervisors.libvirt_faults import connection_hint
from orchestrator.hypervisors.libvirt_line import LibvirtTransport, error_text

PROBE_S = 20.0  # the whole conversation; each question takes a round trip
MOST_OBJECTS = 200  # networks, interfaces or pools of a host that are looked at

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Described:
    """A network, interface or storage pool: its name, whether it is active, and its XML."""

    name: str
    active: bool
    xml: str


@dataclass(frozen=True, slots=True)
class Answers:
    """What one libvirt answered; None stands for what its drivers do not offer.

    Versions are libvirt's: a million for the first number, a thousand for the second. Memory is in
    MiB. `dom0` has memory, most memory and virtual processors of Xen's control domain;
    `guests_mib` is what all other running domains have in all.
    """

    kind: str
    version: int
    libvirt: int
    machine: str
    cores: int
    numa_nodes: int
    memory_mib: int
    free_mib: int | None
    capabilities: str
    domain_capabilities: str | None
    networks: tuple[Described, ...] | None
    interfaces: tuple[Described, ...] | None
    pools: tuple[Described, ...] | None
    dom0: tuple[int, int, int] | None
    guests_mib: int
    streams: bool


def ask(host: str, uri: str, timeout_s: float = PROBE_S) -> Answers:
    """Return what the libvirt at `uri` says; `host` names it in errors.

    Raises `HostUnreachable` if it cannot be reached, breaks off, or takes longer than `timeout_s`;
    what hangs then is left to a thread of its own.
    """
    future: Future[Answers] = Future()
    work = Thread(target=_answer, args=(future, uri), name=f"probe {uri}", daemon=True)
    work.start()
    try:
        return future.result(timeout_s)
    except TimeoutError:
        text = f"timed out: no answer within {timeout_s:g} s"
    except Unopened as error:
        text = str(error)
    raise HostUnreachable(host, f"no connection to {uri}: {text}", hint=connection_hint(text))


def _answer(future: "Future[Answers]", uri: str) -> None:
    try:
        with _opened(uri) as conn:
            future.set_result(_answers(conn))
    except libvirt.libvirtError as error:
        future.set_exception(Unopened(explained(uri, error_text(error))))
    except Exception as error:  # noqa: BLE001 - whoever waits must hear of it, whatever it is
        future.set_exception(error)


@contextmanager
def _opened(uri: str) -> Iterator[libvirt.virConnect]:
    transport = LibvirtTransport()
    # This `Connection` never holds the line, so that nobody tries again when it breaks.
    line = transport.open(uri, Connection(uri, transport))
    try:
        yield line.conn
    finally:
        transport.close(line)


def _answers(conn: libvirt.virConnect) -> Answers:
    info: Any = conn.getInfo()
    kind = conn.getType()
    dom0, guests_mib = _memory_of_domains(conn, kind)
    return Answers(
        kind=kind,
        version=conn.getVersion(),
        libvirt=conn.getLibVersion(),
        machine=str(info[0]),
        cores=int(info[2]),
        numa_nodes=int(info[4]),
        memory_mib=int(info[1]),
        free_mib=_offered(lambda: _free_mib(conn)),
        capabilities=conn.getCapabilities(),
        domain_capabilities=_offered(lambda: conn.getDomainCapabilities(None, None, None, None)),
        networks=_offered(lambda: _described(conn.listAllNetworks())),
        interfaces=_offered(lambda: _described(conn.listAllInterfaces())),
        pools=_offered(lambda: _described(conn.listAllStoragePools())),
        dom0=dom0,
        guests_mib=guests_mib,
        streams=_offered(lambda: conn.newStream(0)) is not None,
    )


def _offered(question: Callable[[], T]) -> T | None:
    """Return the answer, or None if the host's drivers do not know the question."""
    try:
        return question()
    except libvirt.libvirtError as error:
        if error.get_error_domain() in {libvirt.VIR_FROM_RPC, libvirt.VIR_FROM_REMOTE}:
            raise  # the connection broke
        return None


def _described(found: list[Any]) -> tuple[Described, ...]:
    """Return what is known of each object; one that goes while it is looked at is left out."""
    looked_at = (_offered(partial(_describe, each)) for each in found[:MOST_OBJECTS])
    return tuple(each for each in looked_at if each is not None)


def _describe(found: Any) -> Described:
    return Described(found.name(), found.isActive() == 1, found.XMLDesc(0))


def _free_mib(conn: libvirt.virConnect) -> int:
    """Return free memory, with what the kernel gives back when asked, where that is known."""
    stats: Any = _offered(lambda: conn.getMemoryStats(libvirt.VIR_NODE_MEMORY_STATS_ALL_CELLS))
    if stats is None:
        return conn.getFreeMemory() // 2**20
    return int(sum(stats.get(part, 0) for part in ("free", "buffers", "cached")) // 1024)


def _memory_of_domains(
    conn: libvirt.virConnect, kind: str
) -> tuple[tuple[int, int, int] | None, int]:
    """Return dom0's memory, most memory and processors, and the memory of all other domains."""
    dom0, guests_kib = None, 0
    for domain in conn.listAllDomains(libvirt.VIR_CONNECT_LIST_DOMAINS_ACTIVE):
        info: Any = _offered(domain.info)
        if info is None:
            continue
        if kind == "Xen" and domain.ID() == 0:
            dom0 = (int(info[2]) // 1024, int(info[1]) // 1024, int(info[3]))
        else:
            guests_kib += int(info[2])
    return dom0, guests_kib // 1024

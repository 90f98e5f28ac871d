"""Guests on one host through libvirt: connections, calls, events, and libvirt's errors made ours.

The only module that imports libvirt. What a domain looks like is `domain_xml`'s business. It holds
no wishes: control decides, this does. Domains are transient, so whatever ends is gone, and nothing
but what runs has to be found again after a restart.

Threads: libvirt wants one event loop per process; it runs in a daemon thread that must never wait
for a libvirt call, so it only sorts events into a queue that each driver empties from a thread of
its own. No lock is held during a call to libvirt, save one per instance that orders its own starts
and stops.
"""

import logging
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from queue import SimpleQueue
from typing import Any, TypeVar
from urllib.parse import urlsplit

import libvirt

from orchestrator.errors import HostUnreachable, HypervisorError, StartFailed
from orchestrator.hypervisors.base import (
    GuestEnded,
    HostBack,
    HostEvent,
    HostLost,
    Listener,
    Stamp,
)
from orchestrator.hypervisors.connection import OPEN_TIMEOUT_S, Connection, Connections, Unopened
from orchestrator.hypervisors.consoles import ConsoleLogs
from orchestrator.hypervisors.domain_xml import (
    MARK_NAMESPACE,
    Virt,
    domain_xml,
    network_uuid,
    network_xml,
    parse_mark,
    same_network,
)
from orchestrator.hypervisors.turns import Turns
from orchestrator.model import Capacity, Guest, GuestNetwork, Host, Mark, RunningGuest, guest_uuid

KEEPALIVE_S, KEEPALIVE_COUNT = 5, 3  # a silent host counts as lost after about 20 s

_UNREACHABLE_DOMAINS = frozenset({libvirt.VIR_FROM_RPC, libvirt.VIR_FROM_REMOTE})
_UNREACHABLE_CODES = frozenset(
    {
        libvirt.VIR_ERR_NO_CONNECT,
        libvirt.VIR_ERR_INVALID_CONN,
        libvirt.VIR_ERR_RPC,
        libvirt.VIR_ERR_AUTH_FAILED,
        libvirt.VIR_ERR_AUTH_CANCELLED,
        libvirt.VIR_ERR_AUTH_UNAVAILABLE,
    }
)
_HINTS = (  # what libvirt's text contains (in lower case), and what to do about it
    ("virtlogd-sock", "start virtlogd: run `make setup`"),
    ("failed to connect socket", "start libvirtd on that host: run `make setup` there"),
    ("no connection driver", "check the URI; for this machine it is qemu:///system"),
    ("connection refused", "is the host up, and libvirtd (or ssh) listening there?"),
    ("system bus", "polkit does not run there: connect as root"),
    ("polkit", "join the group libvirt, or run as root"),
    ("authentication", "check the credentials for this URI, and that you are in group libvirt"),
    ("cannot allocate memory", "the host has too little free memory; stop a guest or lower memory"),
    ("network not found", "apply the lab first, or name a network that exists there"),
    ("is not active", "start it with `virsh net-start`"),
    ("permission denied", "QEMU's user must be able to read the image and enter its folders"),
    ("could not open", "is the image on that host, readable by QEMU's user?"),
    ("no such file", "is the image on that host, at the same path?"),
    ("kvm", "KVM does not work there; use virt `qemu` (`edgewake doctor` says more)"),
)
_ENDS = {
    libvirt.VIR_DOMAIN_EVENT_STOPPED_SHUTDOWN: "shut down",
    libvirt.VIR_DOMAIN_EVENT_STOPPED_DESTROYED: "destroyed",
    libvirt.VIR_DOMAIN_EVENT_STOPPED_CRASHED: "crashed",
    libvirt.VIR_DOMAIN_EVENT_STOPPED_MIGRATED: "migrated",
    libvirt.VIR_DOMAIN_EVENT_STOPPED_SAVED: "saved",
    libvirt.VIR_DOMAIN_EVENT_STOPPED_FAILED: "failed",
}
_LOSSES = {
    libvirt.VIR_CONNECT_CLOSE_REASON_ERROR: "connection error",
    libvirt.VIR_CONNECT_CLOSE_REASON_EOF: "libvirt closed the connection",
    libvirt.VIR_CONNECT_CLOSE_REASON_KEEPALIVE: "no answer to keepalive",
}

T = TypeVar("T")

log = logging.getLogger(__name__)
_loop_lock = threading.Lock()


@cache
def _event_loop() -> threading.Thread:
    """Start libvirt's event loop for this process; hold `_loop_lock`. Never ends, as libvirt asks.

    Also keeps libvirt from printing errors that we raise anyway.
    """

    def run() -> None:
        while True:
            with suppress(libvirt.libvirtError):
                libvirt.virEventRunDefaultImpl()

    libvirt.registerErrorHandler(f=lambda _context, _error: None, ctx=None)
    libvirt.virEventRegisterDefaultImpl()
    thread = threading.Thread(target=run, name="libvirt-events", daemon=True)
    thread.start()
    return thread


@dataclass(frozen=True, slots=True)
class _Line:
    """An open connection, what undoes its registration, and a fact about the host behind it."""

    conn: libvirt.virConnect
    lifecycle: int
    has_dac: bool


class _LibvirtTransport:
    """Opens libvirt connections and feeds their events to `Connection`."""

    def open(self, uri: str, connection: Connection[_Line]) -> _Line:
        """Connect and register for events; `Unopened` with libvirt's own words."""

        def on_close(_conn: libvirt.virConnect, reason: int, _opaque: object) -> None:
            connection.lose(line, _LOSSES.get(reason, f"closed ({reason})"))

        def on_lifecycle(
            _conn: libvirt.virConnect,
            domain: libvirt.virDomain,
            event: int,
            detail: int,
            _opaque: object,
        ) -> None:
            if event == libvirt.VIR_DOMAIN_EVENT_SHUTDOWN:
                why = "shut down"  # QEMU's end, which libvirt may see 2 s later, is still to come
            elif event == libvirt.VIR_DOMAIN_EVENT_STOPPED:
                why = _ENDS.get(detail, f"stopped ({detail})")
            else:
                return
            for tenant in connection.tenants:
                tenant.ended(domain.UUIDString(), why)

        with _loop_lock:
            _event_loop()
        try:
            conn = libvirt.open(uri)
            with suppress(libvirt.libvirtError):  # not every transport has keepalive
                conn.setKeepAlive(KEEPALIVE_S, KEEPALIVE_COUNT)
            event = libvirt.VIR_DOMAIN_EVENT_ID_LIFECYCLE
            lifecycle = conn.domainEventRegisterAny(None, event, on_lifecycle, None)
            line = _Line(conn, lifecycle, "<model>dac</model>" in conn.getCapabilities())
            conn.registerCloseCallback(on_close, None)
        except libvirt.libvirtError as error:
            raise Unopened(_text(error)) from error
        return line

    def alive(self, line: _Line) -> bool:
        """Return whether the socket is open."""
        return line.conn.isAlive() == 1

    def close(self, line: _Line) -> None:
        """Close; callbacks go first, because they keep a connection open."""
        with suppress(libvirt.libvirtError):
            line.conn.unregisterCloseCallback()
        with suppress(libvirt.libvirtError):
            line.conn.domainEventDeregisterAny(line.lifecycle)
        with suppress(libvirt.libvirtError):
            line.conn.close()


# As process-wide as libvirt's own event loop; tests bring their own.
SHARED: Connections[_Line] = Connections(_LibvirtTransport())


class LibvirtHypervisor:
    """One host of the lab, driven through libvirt; see `base.Hypervisor` for the contract.

    `owner` marks what is ours. Consoles are logged in `console_dir`, on this machine: a host with a
    remote URI has none to show. `virt` is ``kvm`` or ``qemu``; None is ``qemu``, which always
    works. A guest ended by `stop` is not reported as `GuestEnded`.
    """

    def __init__(
        self,
        host: Host,
        owner: str,
        *,
        console_dir: Path,
        virt: Virt | None = None,
        connections: Connections[_Line] = SHARED,
    ) -> None:
        self.host = host
        self.owner = owner
        self._virt: Virt = virt or "qemu"
        self._consoles = None if urlsplit(host.uri).hostname else ConsoleLogs(console_dir)
        self._connections = connections
        self._turns = Turns()
        self._lock = threading.Lock()  # for the fields below; never held during a libvirt call
        self._closed = False
        self._guests: dict[str, str] = {}  # domain UUID → instance, of ours that run
        self._ending: Counter[str] = Counter()  # by UUID: ends that we caused and will hear of
        self._marks: dict[tuple[str, int], Mark] = {}  # by domain UUID and run; they never change
        self._listeners: tuple[Listener, ...] = ()
        self._events: SimpleQueue[HostEvent | None] = SimpleQueue()
        self._connection = connections.join(host.uri, self)

    # --- the contract ---------------------------------------------------------------------------

    def set_network(self, wanted: GuestNetwork | None) -> None:
        """Make the network exist as wanted (only if `wanted.create`); None removes ours."""
        name = wanted.name if wanted else self.host.network.name
        with self._translated(f"network {name}"):
            conn = self._connect().conn
            network = _lookup(conn.networkLookupByName, name)
            ours = network is not None and network.UUIDString() == network_uuid(self.owner, name)
            if wanted is None:
                if network is not None and ours:
                    self._remove_network(network)
            elif not wanted.create:
                self._check_foreign_network(network, name)
            elif network is not None and not ours:
                raise self._refused(
                    f"network {name} exists there and is not ours",
                    "choose another name, or write `create: false` to use it as it is",
                )
            else:
                self._make_network(conn, network, wanted)

    def start(self, guest: Guest, stamp: Stamp) -> None:
        """Start a guest and return when its processor runs; it has not answered anything yet."""
        with (
            self._turns.of(guest.name),
            self._translated(f"start {guest.name}"),
            ExitStack() as undo,
        ):
            line = self._connect()
            existing = _lookup(line.conn.lookupByName, guest.name)
            if existing is not None and self._runs_already(existing, guest):
                return
            xml = domain_xml(
                guest,
                virt=self._virt,
                console_log=self._consoles.fresh(guest.name) if self._consoles else None,
                keep_owners=line.has_dac,
            )
            domain = line.conn.createXML(xml, libvirt.VIR_DOMAIN_START_PAUSED)
            undo.callback(self._destroy, domain)
            with self._lock:
                self._guests[domain.UUIDString()] = guest.name
            stamp("define")
            domain.resume()
            undo.pop_all()
        stamp("start")

    def stop(self, instance: str) -> None:
        """End a guest of ours now. Stopping one that is not there does nothing."""
        with self._turns.of(instance), self._translated(f"stop {instance}"):
            uuid = guest_uuid(self.owner, instance)
            domain = _lookup(self._connect().conn.lookupByUUIDString, uuid)
            if domain is not None and self._mark_of(domain) is not None:
                self._destroy(domain)

    def running(self) -> tuple[RunningGuest, ...]:
        """Return our guests on this host, with their network counters, in one round trip."""
        with self._translated("list guests"):
            # NOWAIT: a domain that is busy (being started, say) must not keep everyone waiting.
            domains = self._connect().conn.getAllDomainStats(
                libvirt.VIR_DOMAIN_STATS_STATE | libvirt.VIR_DOMAIN_STATS_INTERFACE,
                libvirt.VIR_CONNECT_GET_ALL_DOMAINS_STATS_ACTIVE
                | libvirt.VIR_CONNECT_GET_ALL_DOMAINS_STATS_NOWAIT,
            )
            marked = [(domain, stats, self._mark_of(domain)) for domain, stats in domains]
        seen = {(domain.UUIDString(), domain.ID()) for domain, _ in domains}
        ours = [
            (domain.UUIDString(), mark, stats)
            for domain, stats, mark in marked
            if mark is not None and stats.get("state.state") == libvirt.VIR_DOMAIN_RUNNING
        ]
        with self._lock:
            self._marks = {key: mark for key, mark in self._marks.items() if key in seen}
            self._guests.update((uuid, mark.instance) for uuid, mark, _ in ours)
        return tuple(
            RunningGuest(mark, _counter(stats, "rx"), _counter(stats, "tx"))
            for _, mark, stats in ours
        )

    def free(self) -> Capacity:
        """Return what the host itself says is free now: memory, and its number of cores."""
        with self._translated("read free memory"):
            conn = self._connect().conn
            return Capacity(cpu=float(conn.getInfo()[2]), memory_mib=_free_mib(conn))

    def console(self, instance: str) -> bytes:
        """Return the last 64 KiB of a guest's console, also after its end; empty if unknown."""
        if self._consoles is None:
            return b""
        with self._translated(f"console of {instance}"):
            return self._consoles.tail(instance)

    def watch(self, listener: Listener) -> None:
        """Call `listener` for each event from now on, from a thread of the back end's own.

        A host that cannot be reached is the first event, and is tried until it is back.
        """
        with self._lock:
            first = not self._listeners
            self._listeners = (*self._listeners, listener)
        if first:
            name = f"events {self.host.name}"
            threading.Thread(target=self._deliver, name=name, daemon=True).start()
        try:
            self.running()  # so that ends of guests from before a restart are recognised
        except HypervisorError as error:
            self._connection.keep_trying(error.message)

    def close(self) -> None:
        """Let go of the connection. Guests go on running. May be called twice."""
        with self._lock:
            was_closed, self._closed = self._closed, True
        if not was_closed:
            self._connections.leave(self._connection, self)
            self._events.put(None)

    # --- what the shared connection tells us: never waits -----------------------------------------

    def ended(self, uuid: str, why: str) -> None:
        """Sort the end of some domain: foreign, caused by us, or news."""
        with self._lock:
            if self._ending[uuid]:
                self._ending[uuid] -= 1
                return
            instance = self._guests.pop(uuid, None)
        if instance is not None:
            self._put(GuestEnded(self.host.name, instance, why))

    def lost(self, why: str) -> None:
        """Pass on that the connection broke."""
        with self._lock:
            self._ending.clear()  # what we were to hear of, we never shall
        self._put(HostLost(self.host.name, why))

    def back(self) -> None:
        """Pass on that the connection was made again."""
        self._put(HostBack(self.host.name))

    def _put(self, event: HostEvent) -> None:
        if self._listeners:
            self._events.put(event)

    def _deliver(self) -> None:
        while (event := self._events.get()) is not None:
            if isinstance(event, HostBack):
                with suppress(HypervisorError):  # lost again: that event is on its way
                    self.running()
            for listener in self._listeners:
                try:
                    listener(event)
                except Exception:
                    log.exception("a listener failed on %s", event)

    # --- domains ----------------------------------------------------------------------------------

    def _runs_already(self, domain: libvirt.virDomain, guest: Guest) -> bool:
        """Return whether this domain is the guest, running; clear away a half-made one of ours."""
        mark = self._mark_of(domain)
        if mark is None:
            raise self._refused(
                f"a domain named {guest.name} exists there and is not ours",
                "rename or remove it, or give the lab another name",
            )
        state: Any = domain.info()  # the binding's annotations are wrong here
        if state[0] != libvirt.VIR_DOMAIN_RUNNING:
            self._destroy(domain)
            return False
        if mark != guest.mark:
            raise self._refused(f"{guest.name} runs there with another mark", "stop it first")
        with self._lock:
            self._guests[domain.UUIDString()] = guest.name
        return True

    def _destroy(self, domain: libvirt.virDomain) -> None:
        uuid = domain.UUIDString()
        with self._lock:
            self._guests.pop(uuid, None)
            self._ending[uuid] += 1
        try:
            domain.destroy()
        except libvirt.libvirtError as error:
            with self._lock:
                self._ending[uuid] = max(0, self._ending[uuid] - 1)
            gone = {libvirt.VIR_ERR_NO_DOMAIN, libvirt.VIR_ERR_OPERATION_INVALID}
            if error.get_error_code() not in gone:
                raise

    def _mark_of(self, domain: libvirt.virDomain) -> Mark | None:
        """Return a domain's mark if the domain is ours: owner, host, name and UUID all agree."""
        name, uuid = domain.name(), domain.UUIDString()
        if uuid != guest_uuid(self.owner, name):
            return None
        key = (uuid, domain.ID())
        with self._lock:
            if key in self._marks:
                return self._marks[key]
        mark = _read_mark(domain)
        if mark is None or (mark.owner, mark.host, mark.instance) != (
            self.owner,
            self.host.name,
            name,
        ):
            return None
        with self._lock:
            self._marks[key] = mark
        return mark

    # --- networks ---------------------------------------------------------------------------------

    def _make_network(
        self,
        conn: libvirt.virConnect,
        network: libvirt.virNetwork | None,
        wanted: GuestNetwork,
    ) -> None:
        xml = network_xml(self.owner, wanted)
        if network is not None:
            if _serves(network, xml):
                return
            self._remove_network(network)
        try:
            conn.networkCreateXML(xml)
        except libvirt.libvirtError:
            # Another driver of ours may share libvirt and network, and have been quicker.
            uuid = network_uuid(self.owner, wanted.name)
            rival = _lookup(conn.networkLookupByUUIDString, uuid)
            if rival is None or not _serves(rival, xml):
                raise

    def _remove_network(self, network: libvirt.virNetwork) -> None:
        if network.isActive():
            plugged = len(network.listAllPorts())
            if plugged:
                raise self._refused(
                    f"network {network.name()} has {plugged} guest cards plugged in",
                    "stop those guests first",
                )
            network.destroy()

    def _check_foreign_network(self, network: libvirt.virNetwork | None, name: str) -> None:
        if network is None:
            hint = "define it, or write `create: true` to have it made"
            raise self._refused(f"network {name} does not exist there", hint)
        if not network.isActive():
            hint = f"start it with `virsh net-start {name}`"
            raise self._refused(f"network {name} is not active there", hint)

    # --- connection and errors --------------------------------------------------------------------

    def _connect(self) -> _Line:
        if self._closed:
            raise HostUnreachable(self.host.name, "the driver was closed")
        where = f"no connection to {self.host.uri}"
        try:
            return self._connection.get()
        except TimeoutError:
            text = f"{where} within {OPEN_TIMEOUT_S:g} s"
            raise HostUnreachable(self.host.name, text, hint="is the host up?") from None
        except Unopened as error:
            hint = _hint(str(error))
            raise HostUnreachable(self.host.name, f"{where}: {error}", hint=hint) from error

    @contextmanager
    def _translated(self, what: str) -> Iterator[None]:
        """Turn what libvirt and the file system say into our two errors."""
        try:
            yield
        except libvirt.libvirtError as error:
            text = _text(error)
            kind = HostUnreachable if _is_unreachable(error) else StartFailed
            raise kind(self.host.name, f"{what}: {text}", hint=_hint(text)) from error
        except OSError as error:
            message = f"{what}: {error.filename}: {error.strerror}"
            raise self._refused(message, "run as the owner of that file, or as root") from error

    def _refused(self, message: str, hint: str) -> StartFailed:
        return StartFailed(self.host.name, message, hint=hint)


def _serves(network: libvirt.virNetwork, xml: str) -> bool:
    """Return whether a network is up and as this XML wants it."""
    return network.isActive() == 1 and same_network(network.XMLDesc(), xml)


def _lookup(find: Callable[[str], T], key: str) -> T | None:
    """Return what libvirt finds, or None when it says that there is no such thing."""
    try:
        return find(key)
    except libvirt.libvirtError as error:
        if error.get_error_code() in {libvirt.VIR_ERR_NO_DOMAIN, libvirt.VIR_ERR_NO_NETWORK}:
            return None
        raise


def _read_mark(domain: libvirt.virDomain) -> Mark | None:
    """Return the mark on a domain; None if it has none, or has just ended."""
    try:
        return parse_mark(domain.metadata(libvirt.VIR_DOMAIN_METADATA_ELEMENT, MARK_NAMESPACE))
    except libvirt.libvirtError as error:
        if error.get_error_code() in {
            libvirt.VIR_ERR_NO_DOMAIN,
            libvirt.VIR_ERR_NO_DOMAIN_METADATA,
        }:
            return None
        raise


def _counter(stats: dict[str, Any], direction: str) -> int:
    """Return the bytes of all of a domain's cards; libvirt counts from the guest's side."""
    cards = range(stats.get("net.count", 0))
    return sum(stats.get(f"net.{card}.{direction}.bytes", 0) for card in cards)


def _free_mib(conn: libvirt.virConnect) -> int:
    """Return free memory, counting what the kernel gives back when asked: buffers and cache."""
    with suppress(libvirt.libvirtError):  # not every driver has these figures (Xen has not)
        kib: Any = conn.getMemoryStats(libvirt.VIR_NODE_MEMORY_STATS_ALL_CELLS)
        return int(sum(kib.get(part, 0) for part in ("free", "buffers", "cached")) // 1024)
    return conn.getFreeMemory() // 2**20


def _text(error: libvirt.libvirtError) -> str:
    return error.get_error_message() or str(error)


def _hint(text: str) -> str:
    return next((hint for words, hint in _HINTS if words in text.lower()), "")


def _is_unreachable(error: libvirt.libvirtError) -> bool:
    return (
        error.get_error_domain() in _UNREACHABLE_DOMAINS
        or error.get_error_code() in _UNREACHABLE_CODES
    )

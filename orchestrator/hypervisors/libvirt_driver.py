"""Guests on one host through libvirt: calls, events, and libvirt's errors made ours.

Connections are `libvirt_line`'s business, what a domain looks like `domain_xml`'s, and files that
a guest needs on its host `depot`'s. It holds no wishes: control decides, this does. Domains are
transient, so whatever ends is gone, and nothing but what runs has to be found again after a
restart.

Threads: events come from a thread that must not be kept waiting, so they are sorted into a queue
that each driver empties from a thread of its own. No lock is held during a call to libvirt, save
one per instance that orders its own starts and stops.
"""

import logging
import threading
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import replace
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
from orchestrator.hypervisors.connection import OPEN_TIMEOUT_S, Connections, Unopened
from orchestrator.hypervisors.consoles import ConsoleLogs
from orchestrator.hypervisors.depot import Depot, Digests
from orchestrator.hypervisors.domain_xml import (
    MARK_NAMESPACE,
    Virt,
    domain_xml,
    network_uuid,
    network_xml,
    parse_mark,
    same_network,
)
from orchestrator.hypervisors.libvirt_line import SHARED, Line, error_text
from orchestrator.hypervisors.libvirt_pool import LibvirtPool, files_of
from orchestrator.hypervisors.turns import Turns
from orchestrator.model import Capacity, Guest, GuestNetwork, Host, Mark, RunningGuest, guest_uuid

DEPOT_DIR = Path("/var/lib/edgewake/depot")  # on the host; one folder per owner in it

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
SHUTDOWN_S = 1.0  # what a guest that obeys may take to end; hello takes a few milliseconds
SHUTDOWN_POLL_S = 0.01
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
    ("no space left", "free some there, or remove images that nothing uses"),
    ("no such file", "is the image on that host? one that was sent there is sent again"),
    ("could not open", "is the image on that host, readable by QEMU's user?"),
    ("virstorage", "that libvirt has no storage driver, which images and disks need: install it"),
    ("kvm", "KVM does not work there; use virt `qemu` (`edgewake doctor` says more)"),
)
_OVER = frozenset(
    {libvirt.VIR_DOMAIN_SHUTDOWN, libvirt.VIR_DOMAIN_SHUTOFF, libvirt.VIR_DOMAIN_CRASHED}
)

T = TypeVar("T")

log = logging.getLogger(__name__)


class LibvirtHypervisor:
    """One host of the lab, driven through libvirt; see `base.Hypervisor` for the contract.

    `owner` marks what is ours. Consoles are logged in `console_dir`, on this machine: a host with a
    remote URI has none to show. `virt` is ``kvm`` or ``qemu``; None is ``qemu``, which always
    works. A guest ended by `stop` is not reported as `GuestEnded`.

    Files of this machine are sent to a host with a remote URI, or if `far` says so, into a folder
    below `depot_dir` there; overlays of writable disks are there in any case. Drivers that share
    `digests` hash each file once.
    """

    def __init__(
        self,
        host: Host,
        owner: str,
        *,
        console_dir: Path,
        virt: Virt | None = None,
        far: bool | None = None,
        depot_dir: Path = DEPOT_DIR,
        digests: Digests | None = None,
        connections: Connections[Line] = SHARED,
    ) -> None:
        self.host = host
        self.owner = owner
        self._virt: Virt = virt or "qemu"
        remote = bool(urlsplit(host.uri).hostname)
        self._consoles = None if remote else ConsoleLogs(console_dir)
        self._depot_dir = depot_dir
        far = remote if far is None else far
        self._depot = Depot(host.name, owner, self._pool, far=far, digests=digests)
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
            undo.callback(self._depot.forget)  # what it was told is there may be gone
            undo.callback(self._drop, guest.name)
            xml = domain_xml(
                replace(guest, boot=self._depot.placed(guest.name, guest.boot)),
                virt=self._virt,
                console_log=self._consoles.fresh(guest.name) if self._consoles else None,
                keep_owners=line.user is not None,
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
            if domain is not None:
                mark = self._mark_of(domain)
                if mark is None:
                    return
                self._destroy(domain, ask_first=mark.obeys_shutdown)
            self._drop(instance)

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

    def collect(self, wanted: Collection[Path]) -> tuple[str, ...]:
        """Remove from the host what we sent there and nobody needs; return the names.

        `wanted` are files of this machine that may be booted soon. Images that any guest there
        uses stay, and so does all that is younger than `depot.GRACE_S`; overlays of guests that
        are gone, from a run of edgewake that crashed, are removed.
        """
        with self._translated("remove unused images"):
            return self._depot.collect(wanted, self._held)

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
        self._depot.forget()
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
            if isinstance(event, GuestEnded) and self._depot.may_hold(event.instance):
                # In a thread, because a start of the same instance may be under way for long.
                threading.Thread(target=self._clear, args=(event.instance,), daemon=True).start()
            for listener in self._listeners:
                try:
                    listener(event)
                except Exception:
                    log.exception("a listener failed on %s", event)

    # --- files ------------------------------------------------------------------------------------

    def _pool(self) -> LibvirtPool:
        line = self._connect()
        return LibvirtPool(line.conn, self.host.name, self.owner, self._depot_dir, line.user)

    def _clear(self, instance: str) -> None:
        """Remove the overlays of a guest that ended by itself, unless it was started anew."""
        with suppress(HypervisorError), self._turns.of(instance), self._translated("look for it"):
            uuid = guest_uuid(self.owner, instance)
            domain = _lookup(self._connect().conn.lookupByUUIDString, uuid)
            if domain is None or _state(domain) in _OVER:
                self._drop(instance)

    def _drop(self, instance: str) -> None:
        """Remove an instance's overlays; if that fails, its next start or `collect` does it."""
        try:
            with self._translated(f"remove the disks of {instance}"):
                self._depot.drop(instance)
        except HypervisorError as error:
            log.warning("%s", error)

    def _held(self) -> frozenset[Path]:
        """Return the files of the host that its guests use, anybody's."""
        domains = self._connect().conn.listAllDomains()
        return frozenset().union(*map(_files_of, domains))

    # --- domains ----------------------------------------------------------------------------------

    def _runs_already(self, domain: libvirt.virDomain, guest: Guest) -> bool:
        """Return whether this domain is the guest, running; clear away a half-made one of ours."""
        mark = self._mark_of(domain)
        if mark is None:
            raise self._refused(
                f"a domain named {guest.name} exists there and is not ours",
                "rename or remove it, or give the lab another name",
            )
        if _state(domain) != libvirt.VIR_DOMAIN_RUNNING:
            self._destroy(domain)
            return False
        if mark != guest.mark:
            raise self._refused(f"{guest.name} runs there with another mark", "stop it first")
        with self._lock:
            self._guests[domain.UUIDString()] = guest.name
        return True

    def _destroy(self, domain: libvirt.virDomain, *, ask_first: bool = False) -> None:
        """End a domain of ours; with `ask_first`, by its own hand if it does so soon."""
        uuid = domain.UUIDString()
        with self._lock:
            self._guests.pop(uuid, None)
            self._ending[uuid] += 1
        try:
            if not (ask_first and _shut_down(domain)):
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

    def _connect(self) -> Line:
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
            text = error_text(error)
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


def _state(domain: libvirt.virDomain) -> int:
    info: Any = domain.info()  # the binding's annotations are wrong here
    return int(info[0])


def _files_of(domain: libvirt.virDomain) -> frozenset[Path]:
    """Return the files that a domain uses; none if it has just ended."""
    xml = _lookup(lambda _name: domain.XMLDesc(), domain.name())
    return frozenset() if xml is None else files_of(xml)


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


def _shut_down(domain: libvirt.virDomain) -> bool:
    """Ask a guest to end, and return whether it did within `SHUTDOWN_S`."""
    deadline = time.monotonic() + SHUTDOWN_S
    try:
        domain.shutdown()
        while time.monotonic() < deadline:
            if not domain.isActive():
                return True
            time.sleep(SHUTDOWN_POLL_S)
    except libvirt.libvirtError as error:
        return error.get_error_code() == libvirt.VIR_ERR_NO_DOMAIN
    return False


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


def _hint(text: str) -> str:
    return next((hint for words, hint in _HINTS if words in text.lower()), "")


def _is_unreachable(error: libvirt.libvirtError) -> bool:
    return (
        error.get_error_domain() in _UNREACHABLE_DOMAINS
        or error.get_error_code() in _UNREACHABLE_CODES
    )

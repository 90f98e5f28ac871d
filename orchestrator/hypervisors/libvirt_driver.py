"""Guests on one host through libvirt, on QEMU or Xen: calls, events, and errors made ours.

Connections are `libvirt_line`'s business, what a domain looks like `domain_xml`'s, what libvirt
says of those that run `libvirt_census`'s, and files that a guest needs on its host `depot`'s. It
holds no wishes: control decides, this does. Domains are transient, so whatever ends is gone, and
nothing but what runs, and what was saved, has to be found again after a restart.

Threads: events come from a thread that must not be kept waiting, so they are sorted into a queue
that each driver empties from a thread of its own. No lock is held during a call to libvirt, save
one per instance that orders its own starts and stops.
"""

import logging
import threading
import time
from collections import Counter
from collections.abc import Collection, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit

import libvirt

from images.bootspec import BootSpec
from orchestrator.errors import HostUnreachable, HypervisorError, StartFailed
from orchestrator.hypervisors import connection_hints, libxl_log
from orchestrator.hypervisors import libvirt_census as census
from orchestrator.hypervisors.base import (
    Depth,
    GuestEnded,
    HostBack,
    HostEvent,
    HostLost,
    Hypervisor,
    Listener,
    Stamp,
    Tell,
)
from orchestrator.hypervisors.connection import OPEN_TIMEOUT_S, Connections, Unopened
from orchestrator.hypervisors.consoles import ConsoleLogs
from orchestrator.hypervisors.depot import Depot, Digests
from orchestrator.hypervisors.domain_xml import (
    MARK_NAMESPACE,
    SLEEP_ELEMENT,
    SLEEP_NAMESPACE,
    SLEEP_PREFIX,
    Virt,
    domain_xml,
    parse_mark,
    xen_domain_xml,
)
from orchestrator.hypervisors.libvirt_consoles import ConsoleStreams
from orchestrator.hypervisors.libvirt_errors import hint, is_unreachable, lookup
from orchestrator.hypervisors.libvirt_line import SHARED, Line, error_text
from orchestrator.hypervisors.libvirt_migration import address_of, carry_out
from orchestrator.hypervisors.libvirt_networks import Networks
from orchestrator.hypervisors.libvirt_pool import LibvirtPool, files_of
from orchestrator.hypervisors.listeners import Listeners
from orchestrator.hypervisors.migrated_xml import migrated_xml
from orchestrator.hypervisors.saved import SavedGuests
from orchestrator.hypervisors.turns import Turns
from orchestrator.hypervisors.xen_script import VifScript
from orchestrator.model import (
    Capacity,
    Guest,
    GuestNetwork,
    Host,
    Mark,
    RunningGuest,
    guest_uuid,
)

DEPOT_DIR = Path("/var/lib/edgewake/depot")  # on the host; one folder per owner in it

SHUTDOWN_S = 1.0  # what a guest that obeys may take to end; hello takes a few milliseconds
SHUTDOWN_POLL_S = 0.01
_AS_SENT = libvirt.VIR_DOMAIN_XML_MIGRATABLE | libvirt.VIR_DOMAIN_XML_SECURE
_OVER = frozenset(
    {libvirt.VIR_DOMAIN_SHUTDOWN, libvirt.VIR_DOMAIN_SHUTOFF, libvirt.VIR_DOMAIN_CRASHED}
)
# What Xen takes of a host's memory beside a PVH guest's own: 1 MiB for a processor and 8 KiB for
# each MiB (xen tools/libs/light/libxl_dom.c, libxl__get_required_paging_memory, counts 4 to 8), and
# some tables. Measured: 1.1 MiB for a guest of 8 MiB, 2.0 for 128, 5.0 for 512; PV guests: none.
XEN_GUEST_MIB, XEN_GUEST_SHARE = 2, 1 / 128

T = TypeVar("T")

log = logging.getLogger(__name__)


class LibvirtHypervisor:
    """One host of the lab, driven through libvirt; see `base.Hypervisor` for the contract.

    A host whose URI says ``xen`` runs PV and PVH guests, any other one QEMU's; on those, `virt` is
    ``kvm`` or ``qemu``, and None is ``qemu``, which always works. `owner` marks what is ours.
    Consoles are logged in `console_dir`, on this machine, also those of guests elsewhere. A guest
    ended by `stop` is not reported as `GuestEnded`.

    A host with a remote URI is another machine, unless `far` says otherwise: files of this one are
    sent there, into a folder below `depot_dir`, and consoles read over the connection, as they are
    from Xen in any case. Overlays of writable disks and saved guests are in that folder, too.
    Drivers that share `digests` hash each file once. `vif_script` is a script of a Xen host's own,
    such as ``vif-bridge``, to be used instead of ours.
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
        vif_script: str = "",
        connections: Connections[Line] = SHARED,
    ) -> None:
        self.host = host
        self.owner = owner
        self._virt: Virt = virt or "qemu"
        self._xen = urlsplit(host.uri).scheme.partition("+")[0] == "xen"
        far = bool(urlsplit(host.uri).hostname) if far is None else far
        self._consoles = ConsoleLogs(console_dir)
        streamed = far or self._xen
        self._streams = ConsoleStreams(host.name, self._consoles) if streamed else None
        self._depot_dir = depot_dir
        self._depot = Depot(host.name, owner, self._pool, far=far, digests=digests)
        self._networks = Networks(host.name, owner)
        self._saved = SavedGuests(self._pool)
        self._vif_script = VifScript(vif_script)
        self._connections = connections
        self._turns = Turns()
        self._lock = threading.Lock()  # for the fields below; never held during a libvirt call
        self._closed = False
        self._guests: dict[str, str] = {}  # domain UUID → instance, of ours that run
        self._ending: Counter[str] = Counter()  # by UUID: ends that we caused and will hear of
        self._busy: set[str] = set()  # UUIDs of domains that libvirt makes everyone wait for
        self._marks: dict[tuple[str, int], Mark] = {}  # by domain UUID and run; they never change
        self._listeners = Listeners(host.name, self._take_note)
        self._connection = connections.join(host.uri, self)

    # --- the contract ---------------------------------------------------------------------------

    def set_network(self, wanted: GuestNetwork | None) -> None:
        """Make the network exist as wanted (only if `wanted.create`); None removes ours."""
        name = wanted.name if wanted else self.host.network.name
        with self._translated(f"network {name}"):
            self._networks.set(self._connect().conn, name, wanted)

    def start(self, guest: Guest, stamp: Stamp) -> None:
        """Start a guest and return when its processor runs; it has not answered anything yet."""
        with (
            self._turns.of(guest.name),
            self._translated(f"start {guest.name}"),
            ExitStack() as undo,
        ):
            line = self._connect()
            existing = lookup(line.conn.lookupByName, guest.name)
            if existing is not None and self._runs_already(existing, guest):
                return
            undo.callback(self._forget)  # what it was told is there may be gone
            undo.callback(self._drop, guest.name)
            self._saved.drop(guest_uuid(self.owner, guest.name))
            domain = line.conn.createXML(self._xml(guest, line), libvirt.VIR_DOMAIN_START_PAUSED)
            undo.callback(self._destroy, domain)
            with self._lock:
                self._guests[domain.UUIDString()] = guest.name
            if self._streams:
                self._streams.begin(domain, guest.name)
            stamp("define")
            domain.resume()
            undo.pop_all()
        stamp("start")

    def stop(self, instance: str) -> None:
        """End a guest of ours now. Stopping one that is not there does nothing."""
        with self._turns.of(instance), self._translated(f"stop {instance}"):
            uuid = guest_uuid(self.owner, instance)
            domain = lookup(self._connect().conn.lookupByUUIDString, uuid)
            if domain is not None:
                mark = self._mark_of(domain)
                if mark is None:
                    return
                self._destroy(domain, ask_first=mark.obeys_shutdown)
            self._drop(instance)

    def sleep(self, instance: str, depth: Depth) -> None:
        """Put a guest of ours that runs to sleep; one that sleeps so already is left alone."""
        with self._turns.of(instance), self._translated(f"put {instance} to sleep"):
            uuid = guest_uuid(self.owner, instance)
            domain = lookup(self._connect().conn.lookupByUUIDString, uuid)
            if domain is None and depth is Depth.SAVED and uuid in self._saved.all():
                return
            if domain is None or self._mark_of(domain) is None:
                raise self._refused(f"{instance} does not run there", "start it first")
            if depth is Depth.SAVED:
                self._save(domain, instance)
            elif _state(domain) != libvirt.VIR_DOMAIN_PAUSED or not census.is_asleep(domain):
                _set_asleep(domain, SLEEP_ELEMENT)
                domain.suspend()

    def rouse(self, instance: str) -> None:
        """Let a guest of ours that sleeps run again; one that runs is left alone."""
        with self._turns.of(instance), self._translated(f"rouse {instance}"):
            conn, uuid = self._connect().conn, guest_uuid(self.owner, instance)
            domain = lookup(conn.lookupByUUIDString, uuid)
            if domain is None:
                if uuid not in self._saved.all():
                    raise self._refused(f"{instance} does not sleep there", "start it")
                self._restore(conn, uuid, instance)
            elif self._mark_of(domain) is None:
                raise self._refused(f"{instance} does not sleep there", "start it")
            elif _state(domain) == libvirt.VIR_DOMAIN_PAUSED:
                domain.resume()
                _set_asleep(domain, None)

    def migrate(self, guest: Guest, to: Hypervisor, tell: Tell) -> None:
        """Send a guest of ours, as it runs, to another host; return when it runs there."""
        what = f"migrate {guest.name} to {guest.mark.host}"
        if not isinstance(to, LibvirtHypervisor) or to._xen is not self._xen:
            raise self._refused(f"{what}: another hypervisor runs there", "boot it there")
        if to.host.uri == self.host.uri:
            raise self._refused(f"{what}: that is the same libvirt", "boot it there")
        with self._turns.of(guest.name), to._turns.of(guest.name):
            with self._translated(what):
                domain = self._leaving(guest)
            with to._translated(what):
                dest = to._connect()
                xml = to._awaited(guest, domain.XMLDesc(_AS_SENT), dest)
            self._send(domain, to, dest, xml, tell)
            to._take_over(guest.name)
            self._drop(guest.name)

    def saved(self) -> tuple[Mark, ...]:
        """Return the marks of our guests that sleep on the host's disk."""
        with self._translated("list saved guests"):
            active = {domain.UUIDString() for domain in self._connect().conn.listAllDomains()}
            found = self._saved.all()
        marks = [parse_mark(xml) for uuid, xml in found.items() if uuid not in active]
        return tuple(mark for mark in marks if mark is not None and self._is_ours(mark))

    def running(self) -> tuple[RunningGuest, ...]:
        """Return our guests in this host's memory, paused ones too, with their counters."""
        with self._translated("list guests"):
            conn = self._connect().conn
            if self._xen:
                found, domains = census.xen_census(conn, self._mark_of, self._busy)
            else:
                found, domains = census.qemu_census(conn, self._mark_of)
            present = census.present(found)
            if self._streams:
                self._streams.keep((one.mark.instance, one.domain) for one in present)
        seen = {(domain.UUIDString(), domain.ID()) for domain in domains}
        with self._lock:
            self._marks = {key: mark for key, mark in self._marks.items() if key in seen}
            self._guests.update((one.domain.UUIDString(), one.mark.instance) for one in present)
        return tuple(
            RunningGuest(one.mark, one.rx_bytes, one.tx_bytes, one.state) for one in present
        )

    def free(self) -> Capacity:
        """Return what the host itself says is free now: memory, and its number of cores.

        On Xen that is what one more guest could be given, without what Xen needs beside it.
        """
        with self._translated("read free memory"):
            conn = self._connect().conn
            free = _xen_free_mib(conn) if self._xen else _free_mib(conn)
            return Capacity(cpu=float(conn.getInfo()[2]), memory_mib=free)

    def console(self, instance: str) -> bytes:
        """Return the last 64 KiB of a guest's console, also after its end; empty if unknown."""
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
        self._listeners.add(listener)
        try:
            self.running()  # so that ends of guests from before a restart are recognised
            with suppress(StartFailed):  # the host answers, whatever is wrong with its storage
                self.saved()  # so that the first start need not wait for it
        except HypervisorError as error:
            self._connection.keep_trying(error.message)

    def close(self) -> None:
        """Let go of the connection. Guests go on running. May be called twice."""
        with self._lock:
            was_closed, self._closed = self._closed, True
        if not was_closed:
            if self._streams:
                self._streams.close()
            self._connections.leave(self._connection, self)
            self._listeners.close()

    # --- what the shared connection tells us: never waits -----------------------------------------

    def ended(self, uuid: str, why: str) -> None:
        """Sort the end of some domain: foreign, caused by us, or news."""
        with self._lock:
            if self._ending[uuid]:
                self._ending[uuid] -= 1
                return
            instance = self._guests.pop(uuid, None)
        if instance is not None:
            self._listeners.tell(GuestEnded(self.host.name, instance, why))

    def lost(self, why: str) -> None:
        """Pass on that the connection broke."""
        self._forget()
        if self._streams:
            self._streams.lost()
        self._busy.clear()
        with self._lock:
            self._ending.clear()  # what we were to hear of, we never shall
        self._listeners.tell(HostLost(self.host.name, why))

    def back(self) -> None:
        """Pass on that the connection was made again."""
        self._listeners.tell(HostBack(self.host.name))

    def _take_note(self, event: HostEvent) -> None:
        """Act on an event before anybody is told of it."""
        if isinstance(event, HostBack):
            with suppress(HypervisorError):  # lost again: that event is on its way
                self.running()
        if isinstance(event, GuestEnded) and self._depot.may_hold(event.instance):
            # In a thread, because a start of the same instance may be under way for long.
            threading.Thread(target=self._clear, args=(event.instance,), daemon=True).start()

    # --- files ------------------------------------------------------------------------------------

    def _pool(self) -> LibvirtPool:
        line = self._connect()
        return LibvirtPool(line.conn, self.host.name, self.owner, self._depot_dir, line.user)

    def _clear(self, instance: str) -> None:
        """Remove the overlays of a guest that ended by itself, unless it was started anew."""
        with suppress(HypervisorError), self._turns.of(instance), self._translated("look for it"):
            uuid = guest_uuid(self.owner, instance)
            domain = lookup(self._connect().conn.lookupByUUIDString, uuid)
            if domain is None or _state(domain) in _OVER:
                self._drop(instance)

    def _drop(self, instance: str) -> None:
        """Remove an instance's overlays; if that fails, its next start or `collect` does it."""
        try:
            with self._translated(f"remove the disks of {instance}"):
                self._depot.drop(instance)
                self._saved.drop(guest_uuid(self.owner, instance))
        except HypervisorError as error:
            log.warning("%s", error)

    def _held(self) -> frozenset[Path]:
        """Return the files of the host that its guests use, anybody's."""
        domains = self._connect().conn.listAllDomains()
        asleep = map(files_of, self._saved.all().values())
        return frozenset().union(*map(_files_of, domains), *asleep)

    def _forget(self) -> None:
        self._depot.forget()
        self._saved.forget()
        self._vif_script.forget()
        self._networks.forget()

    # --- sleep ------------------------------------------------------------------------------------

    def _save(self, domain: libvirt.virDomain, instance: str) -> None:
        uuid, xml = domain.UUIDString(), domain.XMLDesc(libvirt.VIR_DOMAIN_XML_SECURE)
        self._saved.drop(uuid, also_unfinished=True)
        with ExitStack() as undo:
            undo.callback(self._saved.drop, uuid, also_unfinished=True)
            file = self._saved.memory_file(uuid)
            with self._ending_by_us(uuid):
                domain.save(str(file))
            self._saved.add(uuid, xml)
            undo.pop_all()
        log.info("host %s: %s was saved", self.host.name, instance)

    def _restore(self, conn: libvirt.virConnect, uuid: str, instance: str) -> None:
        file = self._saved.memory_file(uuid)
        with ExitStack() as undo:
            unchanged: Any = None  # the binding's annotation forgets that this is allowed
            conn.restoreFlags(str(file), unchanged, libvirt.VIR_DOMAIN_SAVE_PAUSED)
            domain = conn.lookupByUUIDString(uuid)
            undo.callback(self._destroy, domain)
            with self._lock:
                self._guests[uuid] = instance
            if self._streams:
                self._streams.keep([(instance, domain)])
            # Before it runs: what it does from now on must not be undone by a second restore.
            self._saved.drop(uuid)
            domain.resume()
            undo.pop_all()

    # --- migration --------------------------------------------------------------------------------

    def _leaving(self, guest: Guest) -> libvirt.virDomain:
        """Return the domain of a guest of ours that runs and has nothing on its host's disk."""
        uuid = guest_uuid(self.owner, guest.name)
        domain = lookup(self._connect().conn.lookupByUUIDString, uuid)
        ours = domain is not None and self._mark_of(domain) is not None
        if domain is None or not ours or _state(domain) != libvirt.VIR_DOMAIN_RUNNING:
            raise self._refused(f"{guest.name} does not run there", "start it first")
        if (disk := self._depot.written_to(guest.boot)) is not None:
            raise self._refused(
                f"{guest.name} cannot be migrated: what it writes to {disk} stays there",
                "make the disk read-only, or boot it elsewhere",
            )
        return domain

    def _awaited(self, guest: Guest, xml: str, line: Line) -> str:
        """Bring here what a guest needs that another host is to send; return its description."""
        existing = lookup(line.conn.lookupByName, guest.name)
        if existing is not None:
            if self._mark_of(existing) is None:
                raise self._not_ours(guest.name)
            if _state(existing) == libvirt.VIR_DOMAIN_RUNNING:
                raise self._refused(f"{guest.name} runs there already", "stop one of the two")
            self._destroy(existing)  # what an attempt that was cut off has left
        self._saved.drop(guest_uuid(self.owner, guest.name))
        boot = self._for_xen(guest.boot, line) if self._xen else guest.boot
        placed = replace(guest, boot=self._depot.placed(guest.name, boot))
        try:
            return migrated_xml(
                xml,
                placed,
                console_log=None if self._streams else self._consoles.kept(guest.name),
                vif_script=self._script() if self._xen else "",
                keep_owners=line.user is not None,
            )
        except ValueError as error:
            raise self._refused(str(error), "boot it there") from error

    def _send(
        self,
        domain: libvirt.virDomain,
        to: "LibvirtHypervisor",
        dest: Line,
        xml: str,
        tell: Tell,
    ) -> None:
        what, uri = f"migrate {domain.name()} to {to.host.name}", address_of(to.host)
        uuid = domain.UUIDString()
        with self._translated(what), self._ending_by_us(uuid), self._held_up(uuid, to):
            try:
                carry_out(domain, dest.conn, xml, uri=uri, xen=self._xen, tell=tell)
            except libvirt.libvirtError as error:
                if is_unreachable(error) and dest.conn.isAlive() != 1:
                    raise HostUnreachable(to.host.name, f"{what}: {error_text(error)}") from error
                raise

    @contextmanager
    def _held_up(self, uuid: str, to: "LibvirtHypervisor") -> Iterator[None]:
        """Ask nothing of a domain that waits for the end of its migration, on either host."""
        for driver in (self, to):
            driver._busy.add(uuid)
        try:
            yield
        finally:
            for driver in (self, to):
                driver._busy.discard(uuid)

    def _take_over(self, instance: str) -> None:
        """Take note of a guest that another host has sent; what fails, `running` makes good."""
        uuid = guest_uuid(self.owner, instance)
        with self._lock:
            self._guests[uuid] = instance
        if self._streams:
            with suppress(HypervisorError), self._translated(f"console of {instance}"):
                # What the migration returned belongs to the other host's connection.
                domain = self._connect().conn.lookupByUUIDString(uuid)
                self._streams.keep([(instance, domain)])

    # --- domains ----------------------------------------------------------------------------------

    def _xml(self, guest: Guest, line: Line) -> str:
        if self._xen:
            guest = replace(guest, boot=self._for_xen(guest.boot, line))
        placed = replace(guest, boot=self._depot.placed(guest.name, guest.boot))
        if self._xen:
            return xen_domain_xml(placed, vif_script=self._script())
        return domain_xml(
            placed,
            virt=self._virt,
            console_log=None if self._streams else self._consoles.fresh(guest.name),
            keep_owners=line.user is not None,
        )

    def _for_xen(self, boot: BootSpec, line: Line) -> BootSpec:
        """Return `boot` with its cards on bridges: those on libvirt's networks get no script."""
        if boot.xenstore:
            keys = ", ".join(key for key, _value in boot.xenstore)
            raise self._refused(
                f"the guest wants Xenstore keys ({keys}), which libvirt cannot write",
                "put its settings on its command line",
            )
        bridges = (self._networks.bridge(line.conn, nic.network) for nic in boot.nics)
        cards = zip(boot.nics, bridges, strict=True)
        return replace(boot, nics=tuple(replace(nic, network=name) for nic, name in cards))

    def _script(self) -> str:
        """Return our vif script's path there; empty, for Xen's own, where it cannot be put."""
        try:
            return self._vif_script.path(self._pool())
        except libvirt.libvirtError as error:
            if is_unreachable(error):
                raise
            log.warning("host %s: Xen's own vif script is used: %s", self.host.name, error)
            return ""

    def _runs_already(self, domain: libvirt.virDomain, guest: Guest) -> bool:
        """Return whether this domain is the guest, running; clear away a half-made one of ours."""
        mark = self._mark_of(domain)
        if mark is None:
            raise self._not_ours(guest.name)
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
        try:
            with self._ending_by_us(domain.UUIDString()):
                if not (ask_first and _hears(domain) and _shut_down(domain)):
                    domain.destroy()
        except libvirt.libvirtError as error:
            gone = {libvirt.VIR_ERR_NO_DOMAIN, libvirt.VIR_ERR_OPERATION_INVALID}
            if error.get_error_code() not in gone:
                raise

    @contextmanager
    def _ending_by_us(self, uuid: str) -> Iterator[None]:
        """Let the end of a domain that is caused in here be no news."""
        with self._lock:
            instance = self._guests.pop(uuid, None)
            self._ending[uuid] += 1
        try:
            yield
        except libvirt.libvirtError:
            with self._lock:
                self._ending[uuid] = max(0, self._ending[uuid] - 1)
                if instance is not None:
                    self._guests.setdefault(uuid, instance)
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
        if mark is None or mark.instance != name or not self._is_ours(mark):
            return None
        with self._lock:
            self._marks[key] = mark
        return mark

    def _is_ours(self, mark: Mark) -> bool:
        return (mark.owner, mark.host) == (self.owner, self.host.name)

    # --- connection and errors --------------------------------------------------------------------

    def _connect(self) -> Line:
        if self._closed:
            raise HostUnreachable(self.host.name, "the driver was closed")
        where = f"no connection to {self.host.uri}"
        try:
            return self._connection.get()
        except TimeoutError:
            text = f"{where} within {OPEN_TIMEOUT_S:g} s"
            advice = connection_hints.hint("timed out")
            raise HostUnreachable(self.host.name, text, hint=advice) from None
        except Unopened as error:
            advice = connection_hints.hint(str(error)) or hint(str(error))
            raise HostUnreachable(self.host.name, f"{where}: {error}", hint=advice) from error

    @contextmanager
    def _translated(self, what: str) -> Iterator[None]:
        """Turn what libvirt and the file system say into our two errors."""
        try:
            yield
        except libvirt.libvirtError as error:
            text = error_text(error)
            if libxl_log.OPAQUE in text:
                raise self._by_libxl(what, text) from error
            kind = HostUnreachable if is_unreachable(error) else StartFailed
            raise kind(self.host.name, f"{what}: {text}", hint=hint(text)) from error
        except OSError as error:
            message = f"{what}: {error.filename}: {error.strerror}"
            raise self._refused(message, "run as the owner of that file, or as root") from error

    def _by_libxl(self, what: str, text: str) -> StartFailed:
        """Return libvirt's error with the cause, which only libxl's log there tells."""
        try:
            why, advice = libxl_log.cause(libxl_log.read_tail(self._connect().conn))
        except HostUnreachable:
            why, advice = "", ""
        advice = advice or f"see {libxl_log.FOLDER}/{libxl_log.FILE} there"
        return self._refused(f"{what}: {why or text}", advice)

    def _not_ours(self, name: str) -> StartFailed:
        return self._refused(
            f"a domain named {name} exists there and is not ours",
            "rename or remove it, or give the lab another name",
        )

    def _refused(self, message: str, advice: str) -> StartFailed:
        return StartFailed(self.host.name, message, hint=advice)


def _state(domain: libvirt.virDomain) -> int:
    info: Any = domain.info()  # the binding's annotations are wrong here
    return int(info[0])


def _files_of(domain: libvirt.virDomain) -> frozenset[Path]:
    """Return the files that a domain uses; none if it has just ended."""
    xml = lookup(lambda _name: domain.XMLDesc(), domain.name())
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


def _hears(domain: libvirt.virDomain) -> bool:
    """Return whether a guest can hear that it is asked to end, as far as libvirt knows.

    libxl waits 60 s for a guest that does not, and whoever looks at that domain waits with it.
    After a restart libvirtd takes paused Xen guests for running ones, so their state says too
    little.
    """
    running = _state(domain) == libvirt.VIR_DOMAIN_RUNNING
    return running and not census.is_asleep(domain) and census.has_run(domain)


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


def _set_asleep(domain: libvirt.virDomain, element: str | None) -> None:
    """Write on a domain that our own `sleep` paused it, or, with None, take that away."""
    kind, where = libvirt.VIR_DOMAIN_METADATA_ELEMENT, libvirt.VIR_DOMAIN_AFFECT_LIVE
    text: Any = element  # the binding's annotation forgets that None is allowed
    domain.setMetadata(kind, text, SLEEP_PREFIX, SLEEP_NAMESPACE, where)


def _free_mib(conn: libvirt.virConnect) -> int:
    """Return free memory, counting what the kernel gives back when asked: buffers and cache."""
    with suppress(libvirt.libvirtError):  # not every driver has these figures
        kib: Any = conn.getMemoryStats(libvirt.VIR_NODE_MEMORY_STATS_ALL_CELLS)
        return int(sum(kib.get(part, 0) for part in ("free", "buffers", "cached")) // 1024)
    return conn.getFreeMemory() // 2**20


def _xen_free_mib(conn: libvirt.virConnect) -> int:
    """Return the memory that one more guest could be given; dom0's is not counted as free."""
    free = conn.getFreeMemory() / 2**20
    return max(0, int((free - XEN_GUEST_MIB) / (1 + XEN_GUEST_SHARE)))

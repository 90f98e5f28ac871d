"""Guests on one host through libvirt, on QEMU or Xen: calls, events, and errors made ours.

Connections are `libvirt_line`'s business, what a domain looks like `domain_xml`'s, what libvirt
says of those that run `libvirt_census`'s, files that a guest needs on its host `depot`'s, and keys
in Xenstore, of which libvirt knows nothing, `xenstore`'s. It
holds no wishes: control decides, this does. Domains are transient, so whatever ends is gone, and
nothing but what runs, and what was saved, has to be found again after a restart.

Threads: events come from a thread that must not be kept waiting, so they are sorted into a queue
that each driver empties from a thread of its own. No lock is held during a call to libvirt, save
one per instance that orders its own starts and stops.
"""

import logging
import threading
from collections.abc import Collection, Iterator
from contextlib import (
    AbstractContextManager,
    ExitStack,
    contextmanager,
    nullcontext,
    suppress,
)
from dataclasses import replace
from pathlib import Path
from typing import Any

import libvirt

from images.bootspec import BootSpec
from orchestrator.digests import Digests
from orchestrator.errors import HostUnreachable, HypervisorError, NameHeld, StartFailed
from orchestrator.hypervisors import libvirt_census as census
from orchestrator.hypervisors import libvirt_domains as domains
from orchestrator.hypervisors import libvirt_tuning
from orchestrator.hypervisors.base import (
    Depth,
    GuestEnded,
    HostBack,
    HostEvent,
    HostLost,
    Hypervisor,
    KeyWatch,
    Listener,
    Stamp,
    Tell,
)
from orchestrator.hypervisors.connection import Connections
from orchestrator.hypervisors.depot import Depot
from orchestrator.hypervisors.domain_xml import (
    SLEEP_ELEMENT,
    Virt,
    domain_xml,
    parse_mark,
    xen_domain_xml,
)
from orchestrator.hypervisors.libvirt_calls import LibvirtCalls
from orchestrator.hypervisors.libvirt_consoles import ConsoleStreams
from orchestrator.hypervisors.libvirt_errors import is_unreachable, lookup
from orchestrator.hypervisors.libvirt_guests import OurGuests
from orchestrator.hypervisors.libvirt_half_made import HalfMade
from orchestrator.hypervisors.libvirt_line import CRASHED, SHARED, Line, error_text
from orchestrator.hypervisors.libvirt_migration import carry_out
from orchestrator.hypervisors.libvirt_networks import Networks
from orchestrator.hypervisors.libvirt_pool import LibvirtPool, files_of
from orchestrator.hypervisors.libxl_dumps import CrashDumps
from orchestrator.hypervisors.listeners import Listeners
from orchestrator.hypervisors.migrated_xml import migrated_xml
from orchestrator.hypervisors.migration_address import address_of, own_address_of
from orchestrator.hypervisors.saved import SavedGuests
from orchestrator.hypervisors.turns import Turns
from orchestrator.hypervisors.xen_script import VifScript
from orchestrator.hypervisors.xenstore import WriteKeys, Xenstore
from orchestrator.linux.consoles import ConsoleLogs
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

LOCKED_S = 2.0  # a Xen domain that is held so long is not held by a call of ours

_AS_SENT = libvirt.VIR_DOMAIN_XML_MIGRATABLE | libvirt.VIR_DOMAIN_XML_SECURE

log = logging.getLogger(__name__)


class LibvirtHypervisor(LibvirtCalls):
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
        self._xen = host.driver == "xen"
        far = host.is_elsewhere if far is None else far
        self._consoles = ConsoleLogs(console_dir)
        streamed = far or self._xen
        self._streams = ConsoleStreams(host.name, self._consoles) if streamed else None
        self._depot_dir = depot_dir
        self._depot = Depot(host.name, owner, self._pool, far=far, digests=digests)
        self._networks = Networks(host.name, owner)
        self._saved = SavedGuests(self._pool)
        self._vif_script = VifScript(vif_script)
        self._xenstore = Xenstore(host.name, host.uri) if self._xen else None
        self._dumps = CrashDumps(host.name, lambda: self._connect().conn)
        self._connections = connections
        self._turns = Turns()
        self._guests = OurGuests(host.name, owner)
        self._half_made = HalfMade(host.name, host.uri)
        self._lock = threading.Lock()  # for the field below
        self._closed = False
        self._busy: set[str] = set()  # UUIDs of domains that libvirt makes everyone wait for
        self._cards: census.Cards = {}
        self._listeners = Listeners(host.name, self._take_note)
        self._connection = connections.join(host.uri, self)

    # --- the contract ---------------------------------------------------------------------------

    def set_network(self, wanted: GuestNetwork | None) -> None:
        """Make the network exist as wanted (only if `wanted.create`); None removes ours."""
        name = wanted.name if wanted else self.host.network.name
        with self._translated(f"network {name}"):
            line = self._connect()
            if wanted is not None:
                self._check(line)
            self._networks.set(line.conn, name, wanted)

    def start(self, guest: Guest, stamp: Stamp) -> None:
        """Start a guest and return when its processor runs; it has not answered anything yet."""
        with (
            self._turns.of(guest.name),
            self._translated(f"start {guest.name}"),
            ExitStack() as undo,
        ):
            line = self._connect()
            self._check(line)
            existing = lookup(line.conn.lookupByName, guest.name)
            if existing is not None and self._runs_already(existing, guest):
                return
            if guest.mark.dumps_core:
                self._dumps.prune(guest.name)
            undo.callback(self._forget)  # what it was told is there may be gone
            undo.callback(self._drop, guest.name)
            self._saved.drop(guest_uuid(self.owner, guest.name))
            xml = self._xml(guest, line)
            stamp("asked")
            with self._writing_keys(guest.boot) as write_keys:
                domain = line.conn.createXML(xml, libvirt.VIR_DOMAIN_START_PAUSED)
                undo.callback(self._destroy, domain)
                write_keys(domain.ID())
            self._guests.runs(domain.UUIDString(), guest.mark)
            if self._streams:
                self._streams.begin(domain, guest.name)
            self._tune(domain, guest)
            stamp("define")
            domain.resume()
            undo.pop_all()
        stamp("start")
        log.debug("host %s: %s runs", self.host.name, guest.name)

    def stop(self, instance: str) -> None:
        """End a guest of ours now. Stopping one that is not there does nothing."""
        with self._turns.of(instance), self._translated(f"stop {instance}"):
            uuid = guest_uuid(self.owner, instance)
            domain = lookup(self._connect().conn.lookupByUUIDString, uuid)
            if domain is not None:
                mark = self._guests.mark_of(domain)
                if mark is None:
                    return
                if self._is_locked(domain, LOCKED_S):  # or it would be waited for, 30 s in vain
                    raise self._locked(f"stop {instance}")
                try:
                    self._destroy(domain, ask_first=mark.obeys_shutdown)
                except NameHeld as error:  # nothing of it runs, which is what is wanted
                    log.warning("%s", error)
            self._drop(instance)

    def sleep(self, instance: str, depth: Depth) -> None:
        """Put a guest of ours that runs to sleep; one that sleeps so already is left alone."""
        with self._turns.of(instance), self._translated(f"put {instance} to sleep"):
            uuid = guest_uuid(self.owner, instance)
            domain = lookup(self._connect().conn.lookupByUUIDString, uuid)
            if domain is None and depth is Depth.SAVED and uuid in self._saved.all():
                return
            if domain is None or self._guests.mark_of(domain) is None:
                raise self._refused(f"{instance} does not run there", "start it first")
            if depth is Depth.SAVED:
                self._save(domain, instance)
            elif not census.is_asleep(domain):
                domains.set_asleep(domain, SLEEP_ELEMENT)
                domain.suspend()
            elif domains.state(domain) != libvirt.VIR_DOMAIN_PAUSED:
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
            elif self._guests.mark_of(domain) is None:
                raise self._refused(f"{instance} does not sleep there", "start it")
            elif self._made(domain) == libvirt.VIR_DOMAIN_PAUSED:
                self._saved.drop(uuid)  # a restore was cut off: what is on the disk is of before
                domain.resume()
                if self._xen:  # elsewhere it says no more than that it has slept, and costs a wake
                    domains.set_asleep(domain, None)

    def claim(self, instance: str, mark: Mark) -> None:
        """Put another mark on a guest of ours that is in this host's memory."""
        with self._turns.of(instance), self._translated(f"claim {instance}"):
            uuid = guest_uuid(self.owner, instance)
            domain = lookup(self._connect().conn.lookupByUUIDString, uuid)
            if domain is None or self._guests.mark_of(domain) is None:
                raise self._refused(f"{instance} is not there", "start it")
            domains.set_mark(domain, mark)
            self._guests.marked(domain, mark)

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
            uri = own_address_of(to.host) if self._xen else address_of(to.host)
            with to._translated(what):
                dest = to._connect()
                xml = to._awaited(guest, domain.XMLDesc(_AS_SENT), dest)
            self._send(domain, to, dest, xml, uri=uri, tell=tell)
            to._take_over(guest)
            self._drop(guest.name)

    def saved(self) -> tuple[Mark, ...]:
        """Return the marks of our guests that sleep on the host's disk."""
        with self._translated("list saved guests"):
            active = {domain.UUIDString() for domain in self._connect().conn.listAllDomains()}
            found = self._saved.all()
        marks = [parse_mark(xml) for uuid, xml in found.items() if uuid not in active]
        return tuple(mark for mark in marks if mark is not None and self._guests.is_ours(mark))

    def running(self) -> tuple[RunningGuest, ...]:
        """Return our guests in this host's memory, paused ones too, with their counters."""
        with self._translated("list guests"):
            conn, mark_of = self._connect().conn, self._guests.mark_of
            if self._xen:
                found, there = census.xen_census(conn, mark_of, self._busy, self._cards)
            else:
                found, there = census.qemu_census(conn, mark_of)
            present = census.present(found)
            if self._streams:
                self._streams.keep((one.mark.instance, one.domain) for one in present)
        self._guests.seen(
            [(one.domain.UUIDString(), one.mark) for one in present],
            {(domain.UUIDString(), domain.ID()) for domain in there},
        )
        return tuple(one.told() for one in present)

    def free(self) -> Capacity:
        """Return what the host itself says is free now: memory, and its number of cores."""
        with self._translated("read free memory"):
            conn = self._connect().conn
            return Capacity(cpu=float(conn.getInfo()[2]), memory_mib=domains.free_mib(conn))

    def memory_bytes(self, instance: str) -> int | None:
        """Return what QEMU has in memory for a guest, or what Xen has given it."""
        with self._translated(f"read the memory of {instance}"):
            uuid = guest_uuid(self.owner, instance)
            domain = lookup(self._connect().conn.lookupByUUIDString, uuid)
            if domain is None or self._guests.mark_of(domain) is None:
                return None
            return census.memory_bytes(domain, xen=self._xen)

    def console(self, instance: str) -> bytes:
        """Return the last 64 KiB of a guest's console, also after its end; empty if unknown."""
        with self._translated(f"console of {instance}"):
            return self._consoles.tail(instance)

    def watch_key(self, instance: str, key: str) -> KeyWatch:
        """Return a Xenstore key of a guest of ours, such as ``data/ready``, to be watched."""
        with self._translated(f"watch {key} of {instance}"):
            uuid = guest_uuid(self.owner, instance)
            domain = lookup(self._connect().conn.lookupByUUIDString, uuid)
            if domain is None or self._guests.mark_of(domain) is None:
                raise self._refused(f"{instance} does not run there", "start it first")
            if self._xenstore is None:
                advice = "use another readiness probe"
                raise self._refused(f"{instance} is no Xen guest, and has no Xenstore", advice)
            return self._xenstore.watch(domain.ID(), key)

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
            self._remove_empty_pool()
            self._connections.leave(self._connection, self)
            self._listeners.close()

    # --- what the shared connection tells us: never waits -----------------------------------------

    def ended(self, uuid: str, why: str) -> None:
        """Sort the end of some domain: foreign, caused by us, or news."""
        if instance := self._guests.ended(uuid):
            self._listeners.tell(GuestEnded(self.host.name, instance, why))

    def lost(self, why: str) -> None:
        """Pass on that the connection broke."""
        self._forget()
        if self._streams:
            self._streams.lost()
        self._busy.clear()
        self._half_made.forget()
        self._guests.hear_nothing()
        self._listeners.tell(HostLost(self.host.name, why))

    def back(self) -> None:
        """Pass on that the connection was made again."""
        self._listeners.tell(HostBack(self.host.name))

    def _take_note(self, event: HostEvent) -> HostEvent:
        """Act on an event before anybody is told of it, and return what they are told."""
        if isinstance(event, HostBack):
            with suppress(HypervisorError):  # lost again: that event is on its way
                self.running()
        if isinstance(event, GuestEnded) and self._depot.may_hold(event.instance):
            # In a thread, because a start of the same instance may be under way for long.
            threading.Thread(target=self._clear, args=(event.instance,), daemon=True).start()
        if (
            isinstance(event, GuestEnded)
            and event.why == CRASHED
            and self._guests.dumps(event.instance)
        ):
            return replace(event, dump=self._dumps.of(event.instance))
        return event

    # --- files ------------------------------------------------------------------------------------

    def _remove_empty_pool(self) -> None:
        """Leave no empty folder behind, unless another host here may be about to use it."""
        line = self._connection.current
        if line is not None and self._connection.tenants == (self,):
            with suppress(libvirt.libvirtError):
                self._pool_behind(line).remove_if_empty()

    def _pool(self) -> LibvirtPool:
        return self._pool_behind(self._connect())

    def _pool_behind(self, line: Line) -> LibvirtPool:
        return LibvirtPool(line.conn, self.host.name, self.owner, self._depot_dir, line.user)

    def _clear(self, instance: str) -> None:
        """Remove the overlays of a guest that ended by itself, unless it was started anew."""
        with suppress(HypervisorError), self._turns.of(instance), self._translated("look for it"):
            uuid = guest_uuid(self.owner, instance)
            domain = lookup(self._connect().conn.lookupByUUIDString, uuid)
            if domain is None or domains.state(domain) in domains.OVER:
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
        there = self._connect().conn.listAllDomains()
        asleep = map(files_of, self._saved.all().values())
        return frozenset().union(*map(domains.files_used, there), *asleep)

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
            with self._guests.ending_by_us(uuid):
                self._let_go_of_console(instance)
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
            if mark := self._guests.mark_of(domain):
                self._guests.runs(uuid, mark)
            if self._streams:
                self._streams.keep([(instance, domain)])
            if self._xen:
                libvirt_tuning.cap_xen(domain)
            # Before it runs: what it does from now on must not be undone by a second restore.
            self._saved.drop(uuid)
            domain.resume()
            undo.pop_all()

    # --- migration --------------------------------------------------------------------------------

    def _leaving(self, guest: Guest) -> libvirt.virDomain:
        """Return the domain of a guest of ours that runs and has nothing on its host's disk."""
        uuid = guest_uuid(self.owner, guest.name)
        domain = lookup(self._connect().conn.lookupByUUIDString, uuid)
        ours = domain is not None and self._guests.mark_of(domain) is not None
        if domain is None or not ours or domains.state(domain) != libvirt.VIR_DOMAIN_RUNNING:
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
            if self._guests.mark_of(existing) is None:
                raise self._not_ours(guest.name)
            if domains.state(existing) == libvirt.VIR_DOMAIN_RUNNING:
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
                cpus=self.host.guest_cpus,
            )
        except ValueError as error:
            raise self._refused(str(error), "boot it there") from error

    def _send(
        self,
        domain: libvirt.virDomain,
        to: "LibvirtHypervisor",
        dest: Line,
        xml: str,
        *,
        uri: str,
        tell: Tell,
    ) -> None:
        what, uuid = f"migrate {domain.name()} to {to.host.name}", domain.UUIDString()
        with self._translated(what), self._guests.ending_by_us(uuid), self._held_up(domain, to):
            try:
                carry_out(domain, dest.conn, xml, uri=uri, xen=self._xen, tell=tell)
            except libvirt.libvirtError as error:
                if is_unreachable(error) and dest.conn.isAlive() != 1:
                    raise HostUnreachable(to.host.name, f"{what}: {error_text(error)}") from error
                if self._is_locked(domain):
                    raise self._locked(f"{what}: {error_text(error)}") from error
                raise

    @contextmanager
    def _held_up(self, domain: libvirt.virDomain, to: "LibvirtHypervisor") -> Iterator[None]:
        """Ask nothing of a domain that waits for the end of its migration, on either host.

        Nor afterwards of one that libvirt keeps locked, until its connection was lost: a libvirtd
        that was started anew has forgotten the lock.
        """
        uuid = domain.UUIDString()
        for driver in (self, to):
            driver._busy.add(uuid)
        try:
            yield
        finally:
            to._busy.discard(uuid)
            if not self._is_locked(domain):
                self._busy.discard(uuid)

    def _is_locked(self, domain: libvirt.virDomain, for_s: float = 0.0) -> bool:
        """Return whether Xen's driver holds a domain for a call that began so long ago."""
        return self._xen and domains.job_s(domain) > for_s

    def _locked(self, what: str) -> StartFailed:
        return self._refused(
            f"{what}; libvirt there keeps that guest locked, as after a migration that was refused "
            "or cut off",
            f"restart libvirtd on {self.host.name}; its guests go on",
        )

    def _take_over(self, guest: Guest) -> None:
        """Take note of a guest that another host has sent; what fails, `running` makes good."""
        uuid = guest_uuid(self.owner, guest.name)
        self._guests.runs(uuid, guest.mark)
        with suppress(HypervisorError), self._translated(f"look after {guest.name}"):
            # What the migration returned belongs to the other host's connection.
            domain = self._connect().conn.lookupByUUIDString(uuid)
            if self._xen:
                libvirt_tuning.cap_xen(domain)
            if self._streams:
                self._streams.keep([(guest.name, domain)])

    # --- domains ----------------------------------------------------------------------------------

    def _xml(self, guest: Guest, line: Line) -> str:
        if self._xen:
            guest = replace(guest, boot=self._for_xen(guest.boot, line))
        placed = replace(guest, boot=self._depot.placed(guest.name, guest.boot))
        if self._xen:
            return xen_domain_xml(
                placed,
                vif_script=self._script(),
                architecture=self.host.architecture,
                cpus=self.host.guest_cpus,
            )
        return domain_xml(
            placed,
            virt=self._virt,
            console_log=None if self._streams else self._consoles.fresh(guest.name),
            keep_owners=line.user is not None,
            architecture=self.host.architecture,
            cpus=self.host.guest_cpus,
        )

    def _tune(self, domain: libvirt.virDomain, guest: Guest) -> None:
        try:
            if self._xen:
                libvirt_tuning.cap_xen(domain)
            else:
                libvirt_tuning.tune_qemu(domain, guest)
        except libvirt_tuning.NoCap as error:
            raise self._refused(
                f"start {guest.name}: its service has a `cpu_cap`, and libvirt there has no "
                "cgroups to hold a guest to it",
                "mount the cgroup controller `cpu` there, or take `cpu_cap` away",
            ) from error

    def _for_xen(self, boot: BootSpec, line: Line) -> BootSpec:
        """Return `boot` with its cards on bridges: those on libvirt's networks get no script."""
        bridges = (self._networks.bridge(line.conn, nic.network) for nic in boot.nics)
        cards = zip(boot.nics, bridges, strict=True)
        return replace(boot, nics=tuple(replace(nic, network=name) for nic, name in cards))

    def _writing_keys(self, boot: BootSpec) -> AbstractContextManager[WriteKeys]:
        """Give what writes the Xenstore keys of a guest; there are none on QEMU."""
        if self._xenstore is None or not boot.xenstore:
            return nullcontext(lambda _domain: None)
        return self._xenstore.writing(dict(boot.xenstore))

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
        mark = self._guests.mark_of(domain)
        if mark is None:
            raise self._not_ours(guest.name)
        if domains.state(domain) != libvirt.VIR_DOMAIN_RUNNING:
            self._destroy(domain)
            return False
        if mark != guest.mark:
            raise self._refused(f"{guest.name} runs there with another mark", "stop it first")
        self._guests.runs(domain.UUIDString(), mark)
        return True

    def _made(self, domain: libvirt.virDomain) -> int:
        """Return a domain's state once its start, which another connection began, is through."""
        standing = domains.standing(domain)
        if standing == census.HALF_MADE:
            self._half_made.wait_for(domain)
            standing = domains.standing(domain)
        return standing[0]

    def _destroy(self, domain: libvirt.virDomain, *, ask_first: bool = False) -> None:
        """End a domain of ours; with `ask_first`, by its own hand if it does so soon.

        Raises `NameHeld` if libvirt does not let go of what was never started to the end.
        """
        try:
            with self._guests.ending_by_us(domain.UUIDString()):
                if domains.standing(domain) == census.HALF_MADE:
                    self._half_made.remove(domain)
                    return
                hears = ask_first and domains.can_hear(domain, xen=self._xen)
                if not (hears and domains.shut_down(domain)):
                    self._let_go_of_console(domain.name())
                    domain.destroy()
        except libvirt.libvirtError as error:
            gone = {libvirt.VIR_ERR_NO_DOMAIN, libvirt.VIR_ERR_OPERATION_INVALID}
            if error.get_error_code() not in gone:
                raise

    def _let_go_of_console(self, instance: str) -> None:
        if self._streams:
            self._streams.let_go(instance)

    def _not_ours(self, name: str) -> StartFailed:
        return self._refused(
            f"a domain named {name} exists there and is not ours",
            "rename or remove it, or give the lab another name",
        )

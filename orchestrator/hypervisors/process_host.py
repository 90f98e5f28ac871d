"""What hosts have in common whose guests are processes of this machine, without libvirt.

Networks are Linux bridges. A guest goes on when edgewake ends, and is found again by a record in
`folder`, which is written before anything of the guest is made, completed with the identity of its
process once that runs, and removed last. So whatever a crash leaves has a record, and one without a
living process is cleared away by `running`, or by the next `start` or `stop` of that guest.

How a guest is started, paused and taken apart is for the back ends: `spt`, `netns`.
"""

import hashlib
import logging
import os
import threading
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import ClassVar, Generic, TypeVar
from urllib.parse import urlsplit

from images.bootspec import Nic
from orchestrator.errors import HostUnreachable, HypervisorError, StartFailed
from orchestrator.hypervisors.base import (
    Depth,
    GuestEnded,
    HostLost,
    Hypervisor,
    KeyWatch,
    Listener,
    Stamp,
    Tell,
)
from orchestrator.hypervisors.guest_bridge import GuestBridge, bridge_of
from orchestrator.hypervisors.listeners import Listeners
from orchestrator.hypervisors.process_record import ProcessRecord, record_text
from orchestrator.linux.bridges import Link, Links
from orchestrator.linux.consoles import CONSOLE_BYTES, ConsoleLogs
from orchestrator.linux.processes import Exit, Process, Watch, open_process, own_user
from orchestrator.linux.records import Records
from orchestrator.model import (
    Capacity,
    Guest,
    GuestNetwork,
    GuestState,
    Host,
    Mark,
    RunningGuest,
)

LOG_BYTES = 2 * 2**20  # of console on disk for each guest, as virtlogd keeps by default
PATIENCE_S = 10.0  # for what takes milliseconds unless the machine is in trouble
GRACE_S = 0.5  # for a process that was asked to end, before it is killed

_HINTS = (  # what a system error contains, in lower case, and what to do about it
    ("/dev/net/tun", "load the kernel module: `modprobe tun`"),
    ("operation not permitted", "run as root, or give edgewake the capability CAP_NET_ADMIN"),
    ("permission denied", "run as the owner of that file, or as root"),
    ("util-linux", "install that package"),
    ("no space left", "free some there: each boot copies the guest's disks into that folder"),
)

log = logging.getLogger(__name__)

Record = TypeVar("Record", bound=ProcessRecord)


class ProcessHypervisor(ABC, Generic[Record]):
    """The machine we run on, as a host; see `base.Hypervisor` for the contract.

    `owner` marks what is ours. Records are in `folder`; consoles in `console_dir` (None: a folder
    in `folder`). A guest ended by `stop` is not reported as `GuestEnded`.

    A back end says in words who its `guests` are, at which `uri` such a host is, and why none can
    be saved to the disk (`not_saved`) or migrated (`not_migrated`).
    """

    guests: ClassVar[str]
    uri: ClassVar[str]
    not_saved: ClassVar[str]
    not_migrated: ClassVar[str]
    hints: ClassVar[tuple[tuple[str, str], ...]] = _HINTS

    def __init__(
        self, host: Host, owner: str, *, folder: Path, console_dir: Path | None = None
    ) -> None:
        self.host = host
        self.owner = owner
        self._records = Records(folder)
        self._consoles = ConsoleLogs(console_dir or folder / "console")
        self._mark = f"edgewake:{hashlib.sha256(owner.encode()).hexdigest()[:16]}:{host.name}"
        self._watch = Watch(f"guests of {host.name}", self._ended, self._bound_consoles)
        self._lock = threading.Lock()  # for the fields below
        self._closed = False
        self._logs: dict[str, Path] = {}  # consoles by instance, of the guests we follow
        self._listeners = Listeners(host.name)

    # --- the contract ---------------------------------------------------------------------------

    def set_network(self, wanted: GuestNetwork | None) -> None:
        """Make the bridge exist as wanted (only if `wanted.create`); None removes ours."""
        network = wanted or self.host.network
        name = bridge_of(network)
        with self._translated(f"network {network.name}"):
            self._check_reachable()
            self._living()  # so that no tap of a dead guest counts as plugged in
            with self._records.turn(f"bridge {name}"), Links() as links:
                bridge = GuestBridge(links, self.host.name, self._mark, network)
                if wanted is None:
                    bridge.remove()
                elif wanted.create:
                    bridge.make()
                else:
                    bridge.check()

    def start(self, guest: Guest, stamp: Stamp) -> None:
        """Start a guest and return when its processor runs; it has not answered anything yet."""
        with self._translated(f"start {guest.name}"), ExitStack() as turn:
            self._check_reachable()
            turn.enter_context(self._records.turn(guest.name))
            if self._runs_already(guest):
                return
            program = self._program(guest)
            with ExitStack() as undo:
                stamp("asked")
                record = self._record(guest)
                undo.callback(lambda: self._clear(record))  # as complete as it is by then
                self._records.write(guest.name, record_text(record))
                self._prepare(guest, record)
                stamp("define")
                record, process = self._launch(guest, record, program)
                undo.callback(process.close)
                self._records.write(guest.name, record_text(record))
                undo.pop_all()
            self._follow(record, process)
        stamp("start")
        log.debug("host %s: %s runs", self.host.name, guest.name)

    def stop(self, instance: str) -> None:
        """End a guest of ours now. Stopping one that is not there does nothing."""
        with self._translated(f"stop {instance}"), ExitStack() as turn:
            self._check_reachable()
            turn.enter_context(self._records.turn(instance))
            record = self._read(instance)
            if record is not None and self._is_ours(record):
                self._watch.let_go(instance)
                self._forget_log(instance)
                self._clear(record)

    def sleep(self, instance: str, depth: Depth) -> None:
        """Stop the processor of a guest of ours that runs; none can be saved to the disk."""
        with self._translated(f"put {instance} to sleep"), self._turn_of(instance) as record:
            if record is None:
                raise self._refused(f"{instance} does not run there", "start it first")
            if depth is not Depth.PAUSED:
                raise self._refused(f"{instance} cannot be {depth}: {self.not_saved}", "pause it")
            self._records.write(instance, record_text(replace(record, asleep=True)))
            self._pause(record)

    def rouse(self, instance: str) -> None:
        """Let a guest of ours that was stopped run again; one that runs is left alone."""
        with self._translated(f"rouse {instance}"), self._turn_of(instance) as record:
            if record is None:
                raise self._refused(f"{instance} does not sleep there", "start it")
            self._resume(record)
            self._records.write(instance, record_text(replace(record, asleep=False)))

    def claim(self, instance: str, mark: Mark) -> None:
        """Put another mark on a guest of ours: its record tells it."""
        with self._translated(f"claim {instance}"), self._turn_of(instance) as record:
            if record is None:
                raise self._refused(f"{instance} is not there", "start it")
            self._records.write(instance, record_text(replace(record, mark=mark)))

    def migrate(self, guest: Guest, to: Hypervisor, tell: Tell) -> None:  # noqa: ARG002
        """Raise `StartFailed`: such a guest cannot be handed over."""
        raise self._refused(
            f"{guest.name} cannot be migrated: {self.not_migrated}", "boot it elsewhere"
        )

    def saved(self) -> tuple[Mark, ...]:
        """Return nothing: no guest here sleeps on the disk."""
        return ()

    def running(self) -> tuple[RunningGuest, ...]:
        """Return our guests on this host, with their network counters, in one round trip."""
        with self._translated("list guests"):
            self._check_reachable()
            living = self._living()
            with Links() as links:
                cards = {link.name: link for link in links.all()} if living else {}
            return tuple(self._running(record, cards) for record in living)

    def free(self) -> Capacity:
        """Return the memory this machine could give to new processes, and its cores."""
        with self._translated("read free memory"):
            self._check_reachable()
            return Capacity(cpu=float(os.cpu_count() or 1), memory_mib=available_mib())

    def memory_bytes(self, instance: str) -> int | None:
        """Return the resident memory of a guest's first process; None if it does not run."""
        with self._translated(f"read the memory of {instance}"):
            self._check_reachable()
            record = self._read(instance)
            if record is None or record.process is None or not self._is_ours(record):
                return None
            process = open_process(record.process)
            if process is None:
                return None
            try:
                return process.memory_bytes()
            finally:
                process.close()

    def console(self, instance: str) -> bytes:
        """Return the last 64 KiB of a guest's console, also after its end; empty if unknown."""
        with self._translated(f"console of {instance}"):
            return self._consoles.tail(instance)

    def watch_key(self, instance: str, key: str) -> KeyWatch:
        """Raise `StartFailed`: only Xen has a Xenstore."""
        raise StartFailed(
            self.host.name,
            f"{instance} has no Xenstore, and so no key {key}",
            hint="use another readiness probe",
        )

    def watch(self, listener: Listener) -> None:
        """Call `listener` for each event from now on, from a thread of the back end's own."""
        self._listeners.add(listener)
        try:
            self.running()  # so that guests from before a restart are followed
        except HypervisorError as error:
            self._listeners.tell(HostLost(self.host.name, error.message))

    def close(self) -> None:
        """Let go of all guests, which go on running. May be called twice."""
        with self._lock:
            was_closed, self._closed = self._closed, True
        if not was_closed:
            self._watch.close()
            self._listeners.close()

    # --- what a back end does ---------------------------------------------------------------------

    @abstractmethod
    def _parse(self, text: str) -> Record:
        """Return the record that a text is; ValueError, KeyError or TypeError if it is none."""

    @abstractmethod
    def _program(self, guest: Guest) -> str:
        """Return the program to start; refuse what cannot be started, or not as it is asked for."""

    @abstractmethod
    def _record(self, guest: Guest) -> Record:
        """Return the record of a guest that is about to be made, and make its console."""

    @abstractmethod
    def _prepare(self, guest: Guest, record: Record) -> None:
        """Make what the guest needs before it runs. `_clear` follows if that fails."""

    @abstractmethod
    def _launch(self, guest: Guest, record: Record, program: str) -> tuple[Record, Process]:
        """Start the program; return its process, and the record completed with its identity."""

    @abstractmethod
    def _clear(self, record: Record) -> None:
        """End a guest and remove all there is of it, its record last; for who has the turn."""

    @abstractmethod
    def _pause(self, record: Record) -> None:
        """Stop the processor of a guest that lives, and return when it stands still."""

    @abstractmethod
    def _resume(self, record: Record) -> None:
        """Let the processor of a guest that lives run again, whoever stopped it."""

    @abstractmethod
    def _state(self, record: Record) -> GuestState:
        """Return what a guest that lives does."""

    @abstractmethod
    def _running(self, record: Record, cards: dict[str, Link]) -> RunningGuest:
        """Return a guest that lives with its counters; `cards` are the machine's, by name."""

    @abstractmethod
    def _words(self, instance: str, how: Exit) -> str:
        """Return how a guest ended, in words."""

    # --- events: `Watch` calls from its thread ----------------------------------------------------

    def _ended(self, instance: str, how: Exit) -> None:
        self._forget_log(instance)
        self._listeners.tell(GuestEnded(self.host.name, instance, self._words(instance, how)))
        self._clear_if_dead(instance)

    def _bound_consoles(self) -> None:
        """Keep a talkative guest from filling the disk; it appends, so it goes on at the start."""
        with self._lock:
            logs = tuple(self._logs.values())
        for file in logs:
            with suppress(FileNotFoundError):
                _bound(file)

    # --- guests that are there --------------------------------------------------------------------

    @contextmanager
    def _turn_of(self, instance: str) -> Iterator[Record | None]:
        """Take an instance's turn, and give its record if it is ours and lives."""
        self._check_reachable()
        with self._records.turn(instance):
            record = self._read(instance)
            lives = record is not None and self._is_ours(record) and self._adopt(record)
            yield record if lives else None

    def _runs_already(self, guest: Guest) -> bool:
        """Return whether it runs, with this mark; clear away what is left of an earlier one."""
        record = self._read(guest.name)
        if record is None:
            return False
        if not self._is_ours(record):
            raise self._refused(
                f"a guest named {guest.name} is recorded in {self._records.folder} and is not ours",
                "stop it with what started it, or give the lab another name",
            )
        if not self._adopt(record):
            self._clear(record)
            return False
        if record.mark != guest.mark:
            raise self._refused(f"{guest.name} runs here with another mark", "stop it first")
        if self._state(record) is not GuestState.RUNNING:
            self._watch.let_go(guest.name)
            self._clear(record)
            return False
        return True

    def _living(self) -> list[Record]:
        """Return our guests that live, followed from now on; clear away what others have left."""
        found = [self._read(name) for name in self._records.names()]
        ours = [record for record in found if record is not None and self._is_ours(record)]
        living = [record for record in ours if self._adopt(record)]
        for instance in {record.mark.instance for record in ours if record not in living}:
            if not self._watch.follows(instance):  # else its end is told first
                try:
                    self._clear_if_dead(instance)
                except (HypervisorError, OSError) as error:
                    log.warning("what is left of %s cannot be cleared away: %s", instance, error)
        return living

    def _adopt(self, record: Record) -> bool:
        """Return whether the process of a record lives; if so it is followed from now on."""
        process = open_process(record.process) if record.process else None
        if process is None:
            return False
        if process.ended():
            process.close()
            return False
        self._follow(record, process)
        return True

    def _follow(self, record: Record, process: Process) -> None:
        with self._lock:
            self._logs[record.mark.instance] = record.console
        self._watch.follow(record.mark.instance, process)

    def _forget_log(self, instance: str) -> None:
        with self._lock:
            self._logs.pop(instance, None)

    def _clear_if_dead(self, instance: str) -> None:
        """Clear away what is left of a guest, unless somebody else is at it just now."""
        with self._records.turn(instance, wait=False) as mine:
            record = self._read(instance) if mine else None
            if record is not None and self._is_ours(record) and not self._adopt(record):
                self._clear(record)

    # --- for back ends ----------------------------------------------------------------------------

    def _user(self, instance: str) -> int | None:
        """Return the uid a guest runs as: its own, and the same at each start.

        None when we are not root: then it runs as we do, without our capabilities.
        """
        return own_user(f"edgewake user {self.owner} {self.host.name} {instance}")

    def _check_memory(self, guest: Guest) -> None:
        wanted_mib, free_mib = guest.boot.memory_mib, available_mib()
        if wanted_mib > free_mib:
            raise self._refused(
                f"start {guest.name}: {wanted_mib} MiB of memory wanted, {free_mib} MiB free",
                "the host has too little free memory; stop a guest or lower memory",
            )

    def _bridge_for(self, guest: Guest, nic: Nic, links: Links) -> Link:
        """Return the bridge that a guest's card is to be plugged into; refuse if there is none."""
        network = self.host.network
        name = bridge_of(network) if nic.network == network.name else nic.network
        bridge = links.find(name)
        if bridge is None or bridge.kind != "bridge":
            raise self._refused(
                f"start {guest.name}: there is no bridge {name} for network {nic.network}",
                "apply the lab first, or name a bridge that exists",
            )
        return bridge

    def _end(self, process: Process, instance: str, *, grace_s: float) -> None:
        """End a process of a guest, and let go of it."""
        gone = process.end(grace_s=grace_s, patience_s=PATIENCE_S)
        process.close()
        if not gone:
            raise self._refused(
                f"process {process.identity.pid} of {instance} does not end",
                "it hangs in the kernel: see `dmesg`",
            )

    def _remove_cards(self, instance: str, names: Iterable[str]) -> None:
        """Remove devices of a guest of ours, if they are that: whoever took a name keeps it."""
        ours = {self._alias(instance), ""}  # none yet: cut short while made
        with Links() as links:
            for link in (links.find(name) for name in names):
                if link is not None and link.alias in ours:
                    links.remove(link)

    def _alias(self, instance: str) -> str:
        return f"{self._mark}:{instance}"

    # --- records ----------------------------------------------------------------------------------

    def _read(self, name: str) -> Record | None:
        text = self._records.read(name)
        try:
            return self._parse(text) if text is not None else None
        except (ValueError, KeyError, TypeError) as error:
            log.warning("the record of %s cannot be read, so counts as none: %r", name, error)
            return None

    def _is_ours(self, record: Record) -> bool:
        return (record.mark.owner, record.mark.host) == (self.owner, self.host.name)

    # --- errors -----------------------------------------------------------------------------------

    def _check_reachable(self) -> None:
        if self._closed:
            raise HostUnreachable(self.host.name, "the driver was closed")
        elsewhere = urlsplit(self.host.uri).hostname
        if elsewhere:
            raise HostUnreachable(
                self.host.name,
                f"{self.host.uri}: {self.guests} are started on this machine only",
                hint=f"run edgewake on {elsewhere}, with the URI `{self.uri}`",
            )

    @contextmanager
    def _translated(self, what: str) -> Iterator[None]:
        """Turn what the system says into our error."""
        try:
            yield
        except OSError as error:
            parts = [str(part) for part in (error.filename, error.strerror) if part]
            words = ": ".join([what, *(parts or [str(error)])])
            hint = next((hint for part, hint in self.hints if part in words.lower()), "")
            raise self._refused(words, hint) from error

    def _refused(self, message: str, hint: str) -> StartFailed:
        return StartFailed(self.host.name, message, hint=hint)


def available_mib() -> int:
    """Return what the kernel thinks it can give without swapping (proc(5): MemAvailable)."""
    lines = Path("/proc/meminfo").read_text().splitlines()
    (kib,) = (line.split()[1] for line in lines if line.startswith("MemAvailable:"))
    return int(kib) // 1024


def _bound(file: Path) -> None:
    """Put the end of a log that has grown too long aside, where `ConsoleLogs` looks for it."""
    if file.stat().st_size > LOG_BYTES:
        with file.open("rb") as stream:
            stream.seek(-CONSOLE_BYTES, os.SEEK_END)
            file.with_name(f"{file.name}.0").write_bytes(stream.read(CONSOLE_BYTES))
        os.truncate(file, 0)

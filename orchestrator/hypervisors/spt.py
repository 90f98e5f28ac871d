"""Solo5 guests on this machine, as processes of the `solo5-spt` tender: no KVM, no libvirt.

The tender loads a unikernel into its own address space, lets a seccomp filter forbid nearly every
system call, and jumps into it. Networks are Linux bridges, a guest's card is a tap device on one. A
guest's process goes on when edgewake ends, and is found again by a record in `folder`.

A record is written before anything of a guest is made, completed with the process's identity once
it runs, and removed last. So whatever a crash leaves has a record, and one without a living process
is cleared away by `running`, or by the next `start` or `stop` of that guest. Tap names are drawn
anew for each start: a tender started just before a crash is known by its arguments, and one that
comes too late finds no tap and ends.

As root, each guest runs as a user of its own that has no account, no rights and its taps only.
"""

import hashlib
import logging
import os
import secrets
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from urllib.parse import urlsplit

from orchestrator.errors import HostUnreachable, HypervisorError, StartFailed
from orchestrator.hypervisors import solo5
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
from orchestrator.hypervisors.bridges import Link, Links
from orchestrator.hypervisors.consoles import CONSOLE_BYTES, ConsoleLogs
from orchestrator.hypervisors.guest_bridge import GuestBridge, bridge_of
from orchestrator.hypervisors.listeners import Listeners
from orchestrator.hypervisors.processes import (
    Exit,
    Process,
    Watch,
    launch,
    open_process,
    processes_told,
    seccomp_filters,
)
from orchestrator.hypervisors.records import Records
from orchestrator.hypervisors.sparse import copy
from orchestrator.hypervisors.spt_record import GuestRecord, parse_record, record_text
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

# uids that systemd's table (docs/UIDS-GIDS.md) gives to nobody, and Debian's policy to local use.
_FIRST_USER, _USERS = 0x7000_0000, 2**27
_GRACE_S = 0.5  # the tender has no signal handler: SIGTERM ends it at once
_PATIENCE_S = 10.0  # for what takes milliseconds unless the machine is in trouble
_POLL_S = 0.0005
_HINTS = (  # what a system error contains, in lower case, and what to do about it
    ("/dev/net/tun", "load the kernel module: `modprobe tun`"),
    ("operation not permitted", "run as root, or give edgewake the capability CAP_NET_ADMIN"),
    ("permission denied", "run as the owner of that file, or as root"),
    ("util-linux", "install that package"),
    ("no space left", "free some there: each boot copies the guest's disks into that folder"),
)

log = logging.getLogger(__name__)


class SptHypervisor:
    """The machine we run on, as a host for Solo5 images; see `base.Hypervisor` for the contract.

    `owner` marks what is ours. Records, and copies of disks, are in `folder`; consoles in
    `console_dir` (None: a folder in `folder`). `tender` is the program, None the one that
    `EDGEWAKE_SOLO5_SPT` names or PATH has. A guest ended by `stop` is not reported as `GuestEnded`.
    """

    def __init__(
        self,
        host: Host,
        owner: str,
        *,
        folder: Path,
        tender: str | None = None,
        console_dir: Path | None = None,
    ) -> None:
        self.host = host
        self.owner = owner
        self._tender = tender
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
            tender = self._checked(guest)
            with ExitStack() as undo:
                stamp("asked")
                record = self._record(guest)
                undo.callback(self._clear, record)
                self._records.write(guest.name, record_text(record))
                self._copy_disks(guest, record)
                self._plug(guest, record)
                argv = solo5.tender_argv(tender, guest.boot, record.taps, record.copies)
                stamp("define")
                process = launch(argv, output=record.console, user=self._user(guest.name))
                undo.callback(process.close)
                self._await_run(guest, process, Path(tender).name)
                record = replace(record, process=process.identity)
                self._records.write(guest.name, record_text(record))
                undo.pop_all()
            self._follow(record, process)
        stamp("start")

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
        """Stop the processor of a guest of ours that runs; no tender can save one to the disk."""
        with self._translated(f"put {instance} to sleep"), self._turn_of(instance) as record:
            if record is None:
                raise self._refused(f"{instance} does not run there", "start it first")
            if depth is not Depth.PAUSED:
                raise self._refused(
                    f"{instance} cannot be {depth}: the tender has no such thing", "pause it"
                )
            self._records.write(instance, record_text(replace(record, asleep=True)))
            _signal(record, signal.SIGSTOP)

    def rouse(self, instance: str) -> None:
        """Let a guest of ours that was stopped run again; one that runs is left alone."""
        with self._translated(f"rouse {instance}"), self._turn_of(instance) as record:
            if record is None:
                raise self._refused(f"{instance} does not sleep there", "start it")
            _signal(record, signal.SIGCONT)
            self._records.write(instance, record_text(replace(record, asleep=False)))

    def migrate(self, guest: Guest, to: Hypervisor, tell: Tell) -> None:  # noqa: ARG002
        """Raise `StartFailed`: the tender cannot hand a guest over."""
        raise self._refused(
            f"{guest.name} cannot be migrated: solo5-spt has no live migration", "boot it elsewhere"
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
                taps = {link.name: link for link in links.all()} if living else {}
        return tuple(_running(record, taps) for record in living)

    def free(self) -> Capacity:
        """Return the memory this machine could give to new processes, and its cores."""
        with self._translated("read free memory"):
            self._check_reachable()
            return Capacity(cpu=float(os.cpu_count() or 1), memory_mib=_available_mib())

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

    # --- events: `Watch` calls from its thread ----------------------------------------------------

    def _ended(self, instance: str, how: Exit) -> None:
        self._forget_log(instance)
        self._listeners.tell(GuestEnded(self.host.name, instance, solo5.exit_words(how)))
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
    def _turn_of(self, instance: str) -> Iterator[GuestRecord | None]:
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
        if _state(record) is not GuestState.RUNNING:
            self._watch.let_go(guest.name)
            self._clear(record)
            return False
        return True

    def _living(self) -> list[GuestRecord]:
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

    def _adopt(self, record: GuestRecord) -> bool:
        """Return whether the process of a record lives; if so it is followed from now on."""
        process = open_process(record.process) if record.process else None
        if process is None:
            return False
        if process.ended():
            process.close()
            return False
        self._follow(record, process)
        return True

    def _follow(self, record: GuestRecord, process: Process) -> None:
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

    def _clear(self, record: GuestRecord) -> None:
        """End a guest and remove all there is of it, its record last; for who has the turn."""
        for process in _processes(record):
            gone = process.end(grace_s=_GRACE_S, patience_s=_PATIENCE_S)
            process.close()
            if not gone:
                raise self._refused(
                    f"process {process.identity.pid} of {record.mark.instance} does not end",
                    "it hangs in the kernel: see `dmesg`",
                )
        ours = {f"{self._mark}:{record.mark.instance}", ""}  # none yet: cut short while made
        with Links() as links:
            for link in (links.find(tap) for tap in record.taps):
                if link is not None and link.alias in ours:
                    links.remove(link)
        for file in record.copies:
            file.unlink(missing_ok=True)
        self._records.remove(record.mark.instance)

    # --- a guest in the making --------------------------------------------------------------------

    def _checked(self, guest: Guest) -> str:
        """Return the tender's path; refuse what it cannot do, or would silently do otherwise."""
        what = f"start {guest.name}"
        tender = solo5.find_tender(self._tender)
        if tender is None:
            wanted = f"{what}: Solo5's tender {self._tender or solo5.TENDER} is not installed here"
            raise self._refused(wanted, solo5.HOW_TO_INSTALL)
        for why, advice in solo5.objections(guest.boot):
            raise self._refused(f"{what}: {why}", advice)
        folder = str(self._records.folder)
        if guest.boot.disks and folder.split() != [folder]:
            raise self._refused(
                f"{what}: its disks would be in {folder}, and the tender takes no path with blanks",
                "use a state folder without them",
            )
        wanted_mib, free_mib = guest.boot.memory_mib, _available_mib()
        if wanted_mib > free_mib:
            raise self._refused(
                f"{what}: {wanted_mib} MiB of memory wanted, {free_mib} MiB free",
                "the host has too little free memory; stop a guest or lower memory",
            )
        return tender

    def _record(self, guest: Guest) -> GuestRecord:
        nics = guest.boot.nics
        taps = tuple(f"ewt{secrets.token_hex(6)}" for _ in nics)
        return GuestRecord(
            mark=guest.mark,
            taps=taps,
            nets=tuple(solo5.net_argument(nic, tap) for nic, tap in zip(nics, taps, strict=True)),
            copies=tuple(
                self._records.path(guest.name, f".{number}.disk")
                for number in range(len(guest.boot.disks))
            ),
            console=self._consoles.fresh(guest.name),
        )

    def _copy_disks(self, guest: Guest, record: GuestRecord) -> None:
        """Make the guest's disks: its own each, since the tender opens all of them for writing."""
        user = self._user(guest.name)
        for disk, own in zip(guest.boot.disks, record.copies, strict=True):
            copy(disk.path, own)
            if user is not None:
                os.chown(own, user, -1)

    def _plug(self, guest: Guest, record: GuestRecord) -> None:
        user = self._user(guest.name)
        network = self.host.network
        with Links() as links:
            for nic, tap in zip(guest.boot.nics, record.taps, strict=True):
                name = bridge_of(network) if nic.network == network.name else nic.network
                bridge = links.find(name)
                if bridge is None or bridge.kind != "bridge":
                    raise self._refused(
                        f"start {guest.name}: there is no bridge {name} for network {nic.network}",
                        "apply the lab first, or name a bridge that exists",
                    )
                alias = f"{self._mark}:{guest.name}"
                links.add_tap(tap, alias, bridge, os.geteuid() if user is None else user)

    def _user(self, instance: str) -> int | None:
        """Return the uid a guest runs as: its own, and the same at each start.

        None when we are not root: then it runs as we do, without our capabilities.
        """
        if os.geteuid() != 0:
            return None
        text = f"edgewake user {self.owner} {self.host.name} {instance}"
        return _FIRST_USER + int(hashlib.sha256(text.encode()).hexdigest(), 16) % _USERS

    def _await_run(self, guest: Guest, process: Process, program: str) -> None:
        """Wait until the tender has put its seccomp filter in place: the last it does by itself.

        A guest that has ended well by then did run: its end is told as any other.
        """
        inherited = seccomp_filters()
        deadline = time.monotonic() + _PATIENCE_S
        while not process.ended(_POLL_S):
            if seccomp_filters(process.identity.pid) > inherited:
                return
            if time.monotonic() > deadline:
                raise self._refused(
                    f"start {guest.name}: {program} has put no seccomp filter in place",
                    "is it Solo5's spt tender?",
                )
        how = process.exit()
        if how.code != 0:
            said = solo5.complaint(self._consoles.tail(guest.name), program)
            words = ": ".join(part for part in (solo5.exit_words(how), said) if part)
            raise self._refused(f"start {guest.name}: {words}", solo5.hint(said))

    # --- records ----------------------------------------------------------------------------------

    def _read(self, name: str) -> GuestRecord | None:
        text = self._records.read(name)
        try:
            return parse_record(text) if text is not None else None
        except (ValueError, KeyError, TypeError) as error:
            log.warning("the record of %s cannot be read, so counts as none: %r", name, error)
            return None

    def _is_ours(self, record: GuestRecord) -> bool:
        return (record.mark.owner, record.mark.host) == (self.owner, self.host.name)

    # --- errors -----------------------------------------------------------------------------------

    def _check_reachable(self) -> None:
        if self._closed:
            raise HostUnreachable(self.host.name, "the driver was closed")
        elsewhere = urlsplit(self.host.uri).hostname
        if elsewhere:
            raise HostUnreachable(
                self.host.name,
                f"{self.host.uri}: Solo5 guests are started on this machine only",
                hint=f"run edgewake on {elsewhere}, with the URI `spt:`",
            )

    @contextmanager
    def _translated(self, what: str) -> Iterator[None]:
        """Turn what the system says into our error."""
        try:
            yield
        except OSError as error:
            parts = [str(part) for part in (error.filename, error.strerror) if part]
            words = ": ".join([what, *(parts or [str(error)])])
            hint = next((hint for part, hint in _HINTS if part in words.lower()), "")
            raise self._refused(words, hint) from error

    def _refused(self, message: str, hint: str) -> StartFailed:
        return StartFailed(self.host.name, message, hint=hint)


def _processes(record: GuestRecord) -> Iterator[Process]:
    """Yield the process of a record, which whoever gets it closes."""
    if record.process is None:
        yield from (process for net in record.nets[:1] for process in processes_told(net))
    elif (process := open_process(record.process)) is not None:
        yield process


def _running(record: GuestRecord, links: dict[str, Link]) -> RunningGuest:
    taps = [links[tap] for tap in record.taps if tap in links]
    return RunningGuest(
        record.mark,
        rx_bytes=sum(tap.tx_bytes for tap in taps),
        tx_bytes=sum(tap.rx_bytes for tap in taps),
        state=_state(record),
        rx_packets=sum(tap.tx_packets for tap in taps),
        cpu_s=_cpu_s(record),
    )


def _state(record: GuestRecord) -> GuestState:
    for process in _processes(record):
        stopped = process.stopped()
        process.close()
        if stopped:
            return GuestState.PAUSED if record.asleep else GuestState.HELD
    return GuestState.RUNNING


def _cpu_s(record: GuestRecord) -> float | None:
    for process in _processes(record):
        used_s = process.cpu_s()
        process.close()
        return used_s
    return None


def _signal(record: GuestRecord, number: signal.Signals) -> None:
    """Stop a guest's process or let it go on, and return when it has: a signal takes a moment."""
    for process in _processes(record):
        process.send(number)
        deadline = time.monotonic() + _PATIENCE_S
        while process.stopped() is not (number is signal.SIGSTOP) and not process.ended(_POLL_S):
            if time.monotonic() > deadline:
                break
        process.close()


def _available_mib() -> int:
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

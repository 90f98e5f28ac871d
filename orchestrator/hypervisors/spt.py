"""Solo5 guests on this machine, as processes of the `solo5-spt` tender: no KVM, no libvirt.

The tender loads a unikernel into its own address space, lets a seccomp filter forbid nearly every
system call, and jumps into it. A guest's card is a tap device on a bridge; what else there is of a
guest, and how it is found again, is in `process_host`. Tap names are drawn anew for each start: a
tender started just before a crash is known by its arguments, and one that comes too late finds no
tap and ends.

As root, each guest runs as a user of its own that has no account, no rights and its taps only.
"""

import os
import secrets
import signal
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

from orchestrator.hypervisors import solo5
from orchestrator.hypervisors.process_host import (
    GRACE_S,
    PATIENCE_S,
    ProcessHypervisor,
)
from orchestrator.hypervisors.sparse import copy
from orchestrator.hypervisors.spt_record import GuestRecord, parse_record
from orchestrator.linux.bridges import Link, Links
from orchestrator.linux.processes import (
    Exit,
    Process,
    launch,
    open_process,
    processes_told,
    seccomp_filters,
)
from orchestrator.model import Guest, GuestState, Host, RunningGuest

_POLL_S = 0.0005


class SptHypervisor(ProcessHypervisor[GuestRecord]):
    """The machine we run on, as a host for Solo5 images; see `base.Hypervisor` for the contract.

    Copies of disks are in `folder`, too. `tender` is the program, None the one that
    `EDGEWAKE_SOLO5_SPT` names or PATH has.
    """

    guests = "Solo5 guests"
    uri = "spt:"
    not_saved = "the tender has no such thing"
    not_migrated = "solo5-spt has no live migration"

    def __init__(
        self,
        host: Host,
        owner: str,
        *,
        folder: Path,
        tender: str | None = None,
        console_dir: Path | None = None,
    ) -> None:
        super().__init__(host, owner, folder=folder, console_dir=console_dir)
        self._tender = tender

    # --- a guest that is there --------------------------------------------------------------------

    def _parse(self, text: str) -> GuestRecord:
        return parse_record(text)

    def _clear(self, record: GuestRecord) -> None:
        for process in _processes(record):
            self._end(process, record.mark.instance, grace_s=GRACE_S)
        self._remove_cards(record.mark.instance, record.taps)
        for file in record.copies:
            file.unlink(missing_ok=True)
        self._records.remove(record.mark.instance)

    def _pause(self, record: GuestRecord) -> None:
        _signal(record, signal.SIGSTOP)

    def _resume(self, record: GuestRecord) -> None:
        _signal(record, signal.SIGCONT)

    def _state(self, record: GuestRecord) -> GuestState:
        for process in _processes(record):
            stopped = process.stopped()
            process.close()
            if stopped:
                return GuestState.PAUSED if record.asleep else GuestState.HELD
        return GuestState.RUNNING

    def _running(self, record: GuestRecord, cards: dict[str, Link]) -> RunningGuest:
        taps = [cards[tap] for tap in record.taps if tap in cards]
        return RunningGuest(
            record.mark,
            rx_bytes=sum(tap.tx_bytes for tap in taps),
            tx_bytes=sum(tap.rx_bytes for tap in taps),
            state=self._state(record),
            rx_packets=sum(tap.tx_packets for tap in taps),
            cpu_s=_cpu_s(record),
        )

    def _words(self, instance: str, how: Exit) -> str:  # noqa: ARG002 - the tender says enough
        return solo5.exit_words(how)

    # --- a guest in the making --------------------------------------------------------------------

    def _program(self, guest: Guest) -> str:
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
        self._check_memory(guest)
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

    def _prepare(self, guest: Guest, record: GuestRecord) -> None:
        self._copy_disks(guest, record)
        self._plug(guest, record)

    def _launch(
        self, guest: Guest, record: GuestRecord, program: str
    ) -> tuple[GuestRecord, Process]:
        argv = solo5.tender_argv(program, guest.boot, record.taps, record.copies)
        with ExitStack() as undo:
            process = launch(argv, output=record.console, user=self._user(guest.name))
            undo.callback(process.close)
            self._await_run(guest, process, Path(program).name)
            undo.pop_all()
        return replace(record, process=process.identity), process

    def _copy_disks(self, guest: Guest, record: GuestRecord) -> None:
        """Make the guest's disks: its own each, since the tender opens all of them for writing."""
        user = self._user(guest.name)
        for disk, own in zip(guest.boot.disks, record.copies, strict=True):
            copy(disk.path, own)
            if user is not None:
                os.chown(own, user, -1)

    def _plug(self, guest: Guest, record: GuestRecord) -> None:
        user = self._user(guest.name)
        with Links() as links:
            for nic, tap in zip(guest.boot.nics, record.taps, strict=True):
                bridge = self._bridge_for(guest, nic, links)
                may_open = os.geteuid() if user is None else user
                links.add_tap(tap, self._alias(guest.name), bridge, may_open)

    def _await_run(self, guest: Guest, process: Process, program: str) -> None:
        """Wait until the tender has put its seccomp filter in place: the last it does by itself.

        A guest that has ended well by then did run: its end is told as any other.
        """
        inherited = seccomp_filters()
        deadline = time.monotonic() + PATIENCE_S
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


def _processes(record: GuestRecord) -> Iterator[Process]:
    """Yield the process of a record, which whoever gets it closes."""
    if record.process is None:
        yield from (process for net in record.nets[:1] for process in processes_told(net))
    elif (process := open_process(record.process)) is not None:
        yield process


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
        deadline = time.monotonic() + PATIENCE_S
        while process.stopped() is not (number is signal.SIGSTOP) and not process.ended(_POLL_S):
            if time.monotonic() > deadline:
                break
        process.close()

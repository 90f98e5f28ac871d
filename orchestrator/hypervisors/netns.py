"""Commands as guests on this machine, as plain processes: no hypervisor, no image, no libvirt.

A guest is a program in a network namespace with one card, whose other end is a port of the host's
bridge, in a sandbox (`linux.sandbox`) and a control group (`linux.cgroups`). It has its address
before it runs. What else there is of a guest, and how it is found again, is in `process_host`.

Names of namespaces and cards are drawn anew for each start. The end of a guest is the end of its
keeper, process 1 of its namespace of processes: the kernel ends whatever was started there. What a
crash left that is not yet in the record is found by its network namespace.
"""

import os
import secrets
import signal
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from images.bootspec import Command, GuestAddress
from orchestrator.hypervisors.netns_record import NetnsRecord, parse_record
from orchestrator.hypervisors.process_host import GRACE_S, PATIENCE_S, ProcessHypervisor
from orchestrator.linux import namespaces, sandbox
from orchestrator.linux.bridges import NO_DAD, FarEnd, Link, Links
from orchestrator.linux.cgroups import Cgroups, Limits
from orchestrator.linux.processes import Exit, Process, open_process
from orchestrator.model import Guest, GuestNetwork, GuestState, Host, RunningGuest

CARD = "eth0"
MOST_PROCESSES = 1024  # of a guest, threads included

_MIB = 2**20
_POLL_S = 0.0005
_SYSTEM = Path("/proc/sys/net")
_LOOPBACK = 1  # its index in every namespace
_HINTS = (  # what a system error contains, in lower case, and what to do about it
    ("operation not permitted", "run as root, with CAP_SYS_ADMIN and CAP_NET_ADMIN"),
    ("permission denied", "let all users run that program, and enter the folders above it"),
    ("no such file", "is it in the image's tree, with its interpreter and its libraries?"),
    ("exec format error", "a script begins with #! and its interpreter"),
    ("function not implemented", "it needs Linux 5.12 or later"),
    ("no filter of system calls", "say `seccomp: false` of the image"),
    ("in the package", "install that package"),
    ("no space left", "free some on that disk: what is made is written down there first"),
    ("read-only file system", "choose a state folder that can be written to"),
)


class NetnsHypervisor(ProcessHypervisor[NetnsRecord]):
    """The machine we run on, as a host for commands; see `base.Hypervisor` for the contract.

    `cgroups` is what limits and freezes guests, None what this machine has.
    """

    guests = "commands"
    uri = "netns:///"
    not_saved = "nothing here writes the memory of a process to the disk"
    not_migrated = "a process has no live migration"
    hints = _HINTS

    def __init__(
        self,
        host: Host,
        owner: str,
        *,
        folder: Path,
        console_dir: Path | None = None,
        cgroups: Cgroups | None = None,
    ) -> None:
        super().__init__(host, owner, folder=folder, console_dir=console_dir)
        self._cgroups = Cgroups.found() if cgroups is None else cgroups

    def world_of(self, instance: str) -> str:
        """Return the network namespace of a guest of ours; empty if there is no such guest."""
        record = self._read(instance)
        return record.world if record is not None and self._is_ours(record) else ""

    # --- a guest that is there --------------------------------------------------------------------

    def _parse(self, text: str) -> NetnsRecord:
        return parse_record(text)

    def _clear(self, record: NetnsRecord) -> None:
        instance = record.mark.instance
        if record.mark.obeys_shutdown and not record.asleep:
            self._ask_to_end(record)
        for process in _first(record):
            process.send(signal.SIGKILL)
            self._cgroups.thaw(record.world)  # of version 1, nobody ends who is frozen
            _reap(record)  # the keeper ends after the last of its processes is reaped
            self._end(process, instance, grace_s=0)
        self._remove_cards(instance, [record.card])
        namespaces.remove(record.world)
        self._cgroups.remove(record.world)
        self._records.remove(instance)

    def _ask_to_end(self, record: NetnsRecord) -> None:
        for process in _program(record):
            process.send(signal.SIGTERM)
            process.ended(GRACE_S)
            process.close()

    def _pause(self, record: NetnsRecord) -> None:
        if self._cgroups.freezes:
            self._cgroups.freeze(record.world)
            return
        deadline = time.monotonic() + PATIENCE_S
        while _signal_all(record, signal.SIGSTOP):
            if time.monotonic() > deadline:
                self._resume(record)
                raise self._refused(
                    f"{record.mark.instance} starts processes faster than they can be stopped",
                    "mount control groups with a freezer; see `edgewake doctor`",
                )
            time.sleep(_POLL_S)

    def _resume(self, record: NetnsRecord) -> None:
        self._cgroups.thaw(record.world)
        _signal_all(record, signal.SIGCONT)

    def _state(self, record: NetnsRecord) -> GuestState:
        stopped = self._cgroups.frozen(record.world)
        for process in () if stopped else _program(record):
            stopped = process.stopped()
            process.close()
        if not stopped:
            return GuestState.RUNNING
        return GuestState.PAUSED if record.asleep else GuestState.HELD

    def _running(self, record: NetnsRecord, cards: dict[str, Link]) -> RunningGuest:
        card = cards.get(record.card)
        return RunningGuest(
            record.mark,
            rx_bytes=card.tx_bytes if card else 0,
            tx_bytes=card.rx_bytes if card else 0,
            state=self._state(record),
            rx_packets=card.tx_packets if card else 0,
            cpu_s=self._cpu_s(record),
        )

    def _cpu_s(self, record: NetnsRecord) -> float | None:
        """Return what all its processes used; of the first, also what it used before it joined."""
        used_s = [self._cgroups.cpu_s(record.world)]
        for process in _program(record):
            used_s.append(process.cpu_s())
            process.close()
        return max((each for each in used_s if each is not None), default=None)

    def _words(self, instance: str, how: Exit) -> str:
        record = self._read(instance)
        if record is not None and self._cgroups.killed_for_memory(record.world):
            return f"{exit_words(how)}: it wanted more memory than it has"
        return exit_words(how)

    # --- a guest in the making --------------------------------------------------------------------

    def _program(self, guest: Guest) -> str:
        what, boot = f"start {guest.name}", guest.boot
        if boot.command is None:
            raise self._refused(f"{what}: it is no command", "place it on a host that boots images")
        if os.geteuid() != 0:
            raise self._refused(f"{what}: namespaces are made by root only", "run edgewake as root")
        if len(boot.nics) != 1:
            raise self._refused(f"{what}: it has {len(boot.nics)} network cards", "give it one")
        self._check_memory(guest)
        return boot.command.argv[0]

    def _record(self, guest: Guest) -> NetnsRecord:
        tag = secrets.token_hex(6)
        return NetnsRecord(
            mark=guest.mark,
            console=self._consoles.fresh(guest.name),
            world=f"ew-{tag}",
            card=f"ewp{tag}",
        )

    def _prepare(self, guest: Guest, record: NetnsRecord) -> None:
        (nic,) = guest.boot.nics
        address = _command(guest).address
        with Links() as links:
            bridge = self._bridge_for(guest, nic, links)
            ipv6 = any(each.version == 6 for each in (address.ipv6, *address.own) if each)
            namespaces.make(record.world, lambda: _set_up(ipv6=ipv6))
            inside = FarEnd(CARD, nic.mac, namespaces.FOLDER / record.world)
            links.add_pair(record.card, self._alias(guest.name), bridge, inside)
        _set_addresses(record.world, address, self.host.network)
        self._cgroups.make(record.world, _limits(guest))

    def _launch(
        self, guest: Guest, record: NetnsRecord, program: str
    ) -> tuple[NetnsRecord, Process]:
        command = _command(guest)
        surroundings = sandbox.Sandbox(
            namespace=record.world,
            tree=command.tree,
            user=self._user(guest.name) or 0,
            host_name=guest.name,
            scratch_bytes=guest.boot.memory_mib * _MIB // 2,
            processes=MOST_PROCESSES,
            filtered=command.filtered,
            cpus=self.host.guest_cpus,
            texts=_texts(guest.name, command) if command.tree == Path("/") else (),
        )
        started = sandbox.start(
            surroundings,
            sandbox.Command((program, *command.argv[1:]), dict(command.environment)),
            record.console,
        )
        keeper, process = started.keeper.identity, started.program.identity
        try:
            self._cgroups.add(record.world, (keeper.pid, process.pid))
        except BaseException:
            started.end()
            raise
        started.keeper.close()
        return replace(record, keeper=keeper, process=process), started.program


def exit_words(how: Exit) -> str:
    """Return how a program ended, in words."""
    if how.signal == signal.SIGSYS:
        return "killed by SIGSYS: it made a system call of another kind of processor"
    if how.signal is not None:
        return f"killed by {signal.Signals(how.signal).name}"
    if how.code is not None:
        return f"exit status {how.code}" if how.code else "exited"
    return "ended"


def _command(guest: Guest) -> Command:
    assert guest.boot.command is not None, "seen before anything was made"  # noqa: S101
    return guest.boot.command


def _limits(guest: Guest) -> Limits:
    return Limits(
        memory_bytes=guest.boot.memory_mib * _MIB,
        processes=MOST_PROCESSES,
        cpu=guest.cpu,
        cpu_cap=guest.cpu_cap,
    )


# --- its network ------------------------------------------------------------------------------


def _set_up(*, ipv6: bool) -> None:
    """Set what holds for a whole namespace, from inside, before it has a card."""
    (_SYSTEM / "ipv4/ip_unprivileged_port_start").write_text("0")
    if not (_SYSTEM / "ipv6").exists():
        return
    for name in ("all", "default"):
        (_SYSTEM / "ipv6/conf" / name / "disable_ipv6").write_text("0" if ipv6 else "1")
    # What it would say by itself: its counters are to stand still when nobody speaks with it.
    (_SYSTEM / "ipv6/conf/default/accept_ra").write_text("0")
    (_SYSTEM / "ipv6/conf/default/addr_gen_mode").write_text("1")


def _set_addresses(world: str, address: GuestAddress, network: GuestNetwork) -> None:
    with namespaces.netlink(world) as netlink:
        (card,) = netlink.link_lookup(ifname=CARD)
        netlink.link("set", index=_LOOPBACK, state="up")
        for own in address.own:
            bits = own.max_prefixlen
            netlink.addr("add", index=_LOOPBACK, address=str(own), prefixlen=bits)
        ipv4, ipv6 = address.ipv4, address.ipv6
        netlink.addr("add", index=card, address=str(ipv4.ip), prefixlen=ipv4.network.prefixlen)
        if ipv6 is not None:
            prefix = ipv6.network.prefixlen
            netlink.addr("add", index=card, address=str(ipv6.ip), prefixlen=prefix, flags=NO_DAD)
        netlink.link("set", index=card, state="up")
        gateway = address.gateway
        for router in (gateway, network.address6(gateway) if gateway and ipv6 else None):
            if router is not None:
                netlink.route("add", dst="default", gateway=str(router), oif=card)


def _texts(name: str, command: Command) -> tuple[tuple[str, str], ...]:
    """Return what a guest without a tree of its own finds where this machine knows other machines.

    It knows its own name, and no resolver: those of this machine are mostly out of its reach, and
    it would wait for each.
    """
    addresses = [
        command.address.ipv4.ip,
        *([command.address.ipv6.ip] if command.address.ipv6 else []),
    ]
    own = "".join(f"{address} {name}\n" for address in addresses)
    return (
        ("/etc/hosts", f"127.0.0.1 localhost\n::1 localhost\n{own}"),
        ("/etc/resolv.conf", "# no resolver; see docs/processes.md\n"),
    )


# --- its processes ----------------------------------------------------------------------------


def _first(record: NetnsRecord) -> Iterator[Process]:
    """Yield the keeper, or all that was started if the record does not tell it.

    Whoever gets a process closes it.
    """
    if record.keeper is None:
        yield from sandbox.strays(record.world)
    elif (process := open_process(record.keeper)) is not None:
        yield process


def _program(record: NetnsRecord) -> Iterator[Process]:
    """Yield the process of the program, which whoever gets it closes."""
    process = open_process(record.process) if record.process else None
    if process is not None:
        yield process


def _reap(record: NetnsRecord) -> None:
    for process in _program(record):
        if process.ended(PATIENCE_S):
            process.exit()
        process.close()


def _signal_all(record: NetnsRecord, number: signal.Signals) -> bool:
    """Stop all processes of a guest, or let them go on; return whether there was one to signal."""
    found = False
    for process in sandbox.strays(record.world):
        if process.stopped() is not (number is signal.SIGSTOP):
            process.send(number)
            found = True
        process.close()
    return found

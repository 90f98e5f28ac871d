"""A hypervisor that remembers guests instead of booting them, under the same contract as libvirt.

For tests of everything above the seam, for trying a lab file without a machine, and for measuring
our own share of a wake. A `MemoryMachine` is the machine: it outlives drivers, so a restart can be
played. A `MemoryHypervisor` is a driver on it, with levers (`fail`, `unreachable`, `kill`,
`hold`, `transfer`, `say`, `write_key`) that make happen what a real host does by itself.
"""

import logging
import os
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field, replace

from orchestrator.errors import HostUnreachable, StartFailed
from orchestrator.hypervisors.base import (
    Depth,
    GuestEnded,
    HostBack,
    HostLost,
    Hypervisor,
    Listener,
    Sent,
    Stamp,
    Tell,
)
from orchestrator.hypervisors.listeners import Listeners
from orchestrator.hypervisors.turns import Turns
from orchestrator.linux.consoles import CONSOLE_BYTES
from orchestrator.model import (
    Capacity,
    Guest,
    GuestNetwork,
    GuestState,
    Host,
    Mark,
    RunningGuest,
)

MIGRATE_LOOK_S = 0.005  # between two words about a migration

log = logging.getLogger(__name__)


@dataclass(slots=True)
class _Remembered:
    """A guest on a machine. `runs` is false while it is being built, and stays true in sleep."""

    guest: Guest
    runs: bool = False
    state: GuestState = GuestState.RUNNING
    started_at: float = 0.0
    rx_bytes: int = 0
    tx_bytes: int = 0
    rx_packets: int = 0
    cpu_s: float = 0.0
    keys: dict[str, bytes] = field(default_factory=dict)


class MemoryKey:
    """A key that is watched: a `base.KeyWatch` that `changed` wakes."""

    def __init__(self, read: Callable[[], bytes | None], leave: "Callable[[MemoryKey], None]"):
        self._read = read
        self._leave = leave
        self._news = os.eventfd(1, os.EFD_NONBLOCK | os.EFD_CLOEXEC)

    def fileno(self) -> int:
        """Return the file that is readable when there is news of the key."""
        return self._news

    def value(self) -> bytes | None:
        """Take the news; return what the key holds, None if it is not there."""
        os.eventfd_read(self._news)
        return self._read()

    def changed(self) -> None:
        """Let it be known that the key may have changed; with the machine's lock held."""
        os.eventfd_write(self._news, 1)

    def close(self) -> None:
        """Let go of the key. May be called twice."""
        self._leave(self)

    def closed(self) -> None:
        """Close the file; with the machine's lock held, and once."""
        os.close(self._news)


@dataclass(slots=True)
class MemoryMachine:
    """A machine with guests, networks (name → owner and shape) and what consoles have shown.

    Use `lock` around any look at the rest. Guests and networks put in by hand are foreign ones.
    """

    guests: dict[str, _Remembered] = field(default_factory=dict)
    saved: dict[str, _Remembered] = field(default_factory=dict)
    networks: dict[str, tuple[str, GuestNetwork | None]] = field(default_factory=dict)
    consoles: dict[str, bytes] = field(default_factory=dict)
    drivers: tuple["MemoryHypervisor", ...] = ()
    watched: set[MemoryKey] = field(default_factory=set)
    lock: threading.RLock = field(default_factory=threading.RLock)
    turns: Turns = field(default_factory=Turns)

    @property
    def used_mib(self) -> int:
        """Memory of all guests, whoever owns them."""
        return sum(kept.guest.boot.memory_mib for kept in self.guests.values())


class MemoryHypervisor:
    """One host of the lab, in memory; see `base.Hypervisor` for the contract.

    `boot_s` is how long `start` takes (seconds); `fail`, unless empty, is why the next starts fail;
    `migrate_s` is how long it takes to send a guest here. All may be set at any time. Drivers given
    the same `machine` see the same guests. A guest ended by `stop` is not reported as `GuestEnded`.
    """

    def __init__(
        self,
        host: Host,
        owner: str,
        *,
        machine: MemoryMachine | None = None,
        boot_s: float = 0.0,
        fail: str = "",
        migrate_s: float = 0.0,
    ) -> None:
        self.host = host
        self.owner = owner
        self.machine = machine or MemoryMachine()
        self.boot_s = boot_s
        self.fail = fail
        self.migrate_s = migrate_s
        self.starts: list[str] = []  # every instance ever built here, in order
        self._unreachable = ""
        self._closed = False
        self._listeners = Listeners(host.name)
        with self.machine.lock:
            self.machine.drivers = (*self.machine.drivers, self)

    # --- the contract ---------------------------------------------------------------------------

    def set_network(self, wanted: GuestNetwork | None) -> None:
        """Make the network exist as wanted (only if `wanted.create`); None removes ours."""
        name = wanted.name if wanted else self.host.network.name
        with self.machine.lock:
            self._check_reachable()
            owner, shape = self.machine.networks.get(name, ("", None))
            ours = name in self.machine.networks and owner == self.owner
            if wanted is None:
                if ours:
                    self._check_unplugged(name)
                    del self.machine.networks[name]
            elif wanted.create:
                if name in self.machine.networks and not ours:
                    raise self._refused(
                        f"network {name} exists there and is not ours",
                        "choose another name, or write `create: false` to use it as it is",
                    )
                if ours and shape != wanted:
                    self._check_unplugged(name)
                self.machine.networks[name] = (self.owner, wanted)

    def start(self, guest: Guest, stamp: Stamp) -> None:
        """Start a guest and return when its processor "runs", `boot_s` after being called."""
        with self.machine.turns.of(guest.name):
            with self.machine.lock:
                self._check_reachable()
                if self._runs_already(guest):
                    return
                self._check_start(guest)
                self.machine.saved.pop(guest.name, None)
                keys = {key: value.encode() for key, value in guest.boot.xenstore}
                kept = self.machine.guests[guest.name] = _Remembered(guest, keys=keys)
                self.machine.consoles[guest.name] = b""
                self.starts.append(guest.name)
            with ExitStack() as undo:
                undo.callback(self._forget, kept)
                stamp("asked")
                stamp("define")
                if self.boot_s:
                    time.sleep(self.boot_s)
                self._resume(kept)
                undo.pop_all()
        stamp("start")
        log.debug("host %s: %s runs", self.host.name, guest.name)

    def stop(self, instance: str) -> None:
        """End a guest of ours now. Stopping one that is not there does nothing."""
        with self.machine.turns.of(instance), self.machine.lock:
            self._check_reachable()
            kept = self.machine.guests.get(instance)
            if kept is not None and self._is_ours(kept):
                del self.machine.guests[instance]
                self._report(kept, "destroyed", but=self)
            if (asleep := self.machine.saved.get(instance)) and self._is_ours(asleep):
                del self.machine.saved[instance]

    def sleep(self, instance: str, depth: Depth) -> None:
        """Put a guest of ours that runs to sleep; one that sleeps so already is left alone."""
        with self.machine.turns.of(instance), self.machine.lock:
            self._check_reachable()
            kept = self._ours(self.machine.guests, instance)
            if kept is None and depth is Depth.SAVED and self._ours(self.machine.saved, instance):
                return
            if kept is None:
                raise self._refused(f"{instance} does not run there", "start it first")
            if depth is Depth.SAVED:
                self.machine.saved[instance] = self.machine.guests.pop(instance)
                self._report(kept, "saved", but=self)
            else:
                kept.state = GuestState.PAUSED

    def rouse(self, instance: str) -> None:
        """Let a guest of ours that sleeps run again; one that runs is left alone."""
        with self.machine.turns.of(instance), self.machine.lock:
            self._check_reachable()
            kept = self._ours(self.machine.guests, instance)
            if kept is None:
                kept = self._ours(self.machine.saved, instance)
                if kept is None:
                    raise self._refused(f"{instance} does not sleep there", "start it")
                self._check_memory(kept.guest, f"rouse {instance}")
                self.machine.guests[instance] = self.machine.saved.pop(instance)
            kept.state = GuestState.RUNNING

    def claim(self, instance: str, mark: Mark) -> None:
        """Put another mark on a guest of ours that is in the machine's memory."""
        with self.machine.turns.of(instance), self.machine.lock:
            self._check_reachable()
            if self.fail:
                raise self._refused(f"claim {instance}: {self.fail}", "")
            kept = self._ours(self.machine.guests, instance)
            if kept is None:
                raise self._refused(f"{instance} is not there", "start it")
            kept.guest = replace(kept.guest, mark=mark)

    def migrate(self, guest: Guest, to: Hypervisor, tell: Tell) -> None:
        """Send a guest of ours to another host in memory, `migrate_s` of that one long."""
        name, what = guest.name, f"migrate {guest.name} to {guest.mark.host}"
        if not isinstance(to, MemoryHypervisor) or to.machine is self.machine:
            raise self._refused(f"{what}: that is no other host in memory", "boot it there")
        with self.machine.turns.of(name), to.machine.turns.of(name), ExitStack() as undo:
            with self.machine.lock:
                self._check_reachable()
                leaving = self._ours(self.machine.guests, name)
                if leaving is None or leaving.state is not GuestState.RUNNING:
                    raise self._refused(f"{what}: it does not run there", "start it first")
            coming = to._expect(guest)
            undo.callback(to._forget, coming)
            self._send(leaving, to, tell)
            first, second = sorted((self.machine, to.machine), key=id)  # or two could meet
            with first.lock, second.lock:
                self._check_leaving(leaving, to)
                coming.rx_bytes, coming.tx_bytes = leaving.rx_bytes, leaving.tx_bytes
                coming.rx_packets, coming.cpu_s = leaving.rx_packets, leaving.cpu_s
                coming.runs, coming.started_at = True, leaving.started_at
                to.machine.consoles[name] = self.machine.consoles.get(name, b"")
                del self.machine.guests[name]
                self._report(leaving, "migrated", but=self)
            undo.pop_all()

    def saved(self) -> tuple[Mark, ...]:
        """Return the marks of our guests that sleep on the machine's "disk"."""
        with self.machine.lock:
            self._check_reachable()
            return tuple(
                kept.guest.mark for kept in self.machine.saved.values() if self._is_ours(kept)
            )

    def running(self) -> tuple[RunningGuest, ...]:
        """Return our guests on this host, with their network counters."""
        with self.machine.lock:
            self._check_reachable()
            return tuple(
                RunningGuest(
                    kept.guest.mark,
                    kept.rx_bytes,
                    kept.tx_bytes,
                    kept.state,
                    kept.rx_packets,
                    kept.cpu_s,
                )
                for kept in self.machine.guests.values()
                if kept.runs and self._is_ours(kept)
            )

    def free(self) -> Capacity:
        """Return the host's capacity without the memory of what runs, and all its cores."""
        with self.machine.lock:
            self._check_reachable()
            left = self.host.capacity.memory_mib - self.machine.used_mib
            return Capacity(cpu=self.host.capacity.cpu, memory_mib=left)

    def memory_bytes(self, instance: str) -> int | None:
        """Return the memory that a guest was promised: it has no other."""
        with self.machine.lock:
            self._check_reachable()
            kept = self._ours(self.machine.guests, instance)
            return kept.guest.boot.memory_mib << 20 if kept is not None else None

    def console(self, instance: str) -> bytes:
        """Return the last 64 KiB of a guest's console, also after its end; empty if unknown."""
        with self.machine.lock:
            return self.machine.consoles.get(instance, b"")

    def watch_key(self, instance: str, key: str) -> MemoryKey:
        """Return a Xenstore key of a guest of ours, such as ``data/ready``, to be watched."""
        with self.machine.lock:
            self._check_reachable()
            if self._ours(self.machine.guests, instance) is None:
                raise self._refused(f"{instance} does not run there", "start it first")
            watch = MemoryKey(lambda: self._key(instance, key), self._unwatch)
            self.machine.watched.add(watch)
            return watch

    def watch(self, listener: Listener) -> None:
        """Call `listener` for each event from now on; an unreachable host is the first event."""
        with self.machine.lock:
            self._listeners.add(listener)
            if self._unreachable:
                self._listeners.tell(HostLost(self.host.name, self._unreachable))

    def close(self) -> None:
        """Let go of the machine. Guests go on "running". May be called twice."""
        with self.machine.lock:
            if not self._closed:
                self._closed = True
                self.machine.drivers = tuple(d for d in self.machine.drivers if d is not self)
                self._listeners.close()

    # --- levers -----------------------------------------------------------------------------------

    def kill(self, instance: str, why: str = "crashed", *, dump: str = "") -> None:
        """Let a guest end by itself; KeyError if there is none of that name."""
        with self.machine.lock:
            self._report(self.machine.guests.pop(instance), why, dump=dump)

    def hold(self, instance: str) -> None:
        """Pause a guest behind every driver's back; KeyError if there is none of that name."""
        with self.machine.lock:
            self.machine.guests[instance].state = GuestState.HELD

    def transfer(
        self, instance: str, rx_bytes: int = 0, tx_bytes: int = 0, rx_packets: int = 1
    ) -> None:
        """Let a guest receive and send bytes; KeyError if there is none of that name."""
        with self.machine.lock:
            kept = self.machine.guests[instance]
            kept.rx_bytes += rx_bytes
            kept.tx_bytes += tx_bytes
            kept.rx_packets += rx_packets

    def work(self, instance: str, cpu_s: float) -> None:
        """Let a guest use processor time; KeyError if there is none of that name."""
        with self.machine.lock:
            self.machine.guests[instance].cpu_s += cpu_s

    def say(self, instance: str, text: str) -> None:
        """Let a guest print on its console."""
        with self.machine.lock:
            before = self.machine.consoles.get(instance, b"")
            self.machine.consoles[instance] = (before + text.encode())[-CONSOLE_BYTES:]

    def write_key(self, instance: str, key: str, value: str) -> None:
        """Let a guest write a key of its Xenstore; KeyError if there is none of that name."""
        with self.machine.lock:
            self.machine.guests[instance].keys[key] = value.encode()
            self._tell_watchers()

    def unreachable(self, why: str = "no route to host") -> None:
        """Cut the host off until `reachable`; its guests go on running."""
        with self.machine.lock:
            self._unreachable = why
            self._tell_watchers()
            self._listeners.tell(HostLost(self.host.name, why))

    def reachable(self) -> None:
        """End `unreachable`."""
        with self.machine.lock:
            self._unreachable = ""
            self._listeners.tell(HostBack(self.host.name))

    def is_running(self, instance: str) -> bool:
        """Return whether a guest of that name runs here, whoever owns it."""
        return self.started_at(instance) is not None

    def started_at(self, instance: str) -> float | None:
        """Return when a guest began to run (monotonic clock), or None if it does not run."""
        with self.machine.lock:
            kept = self.machine.guests.get(instance)
            return kept.started_at if kept is not None and kept.runs else None

    # --- inside -----------------------------------------------------------------------------------

    def _runs_already(self, guest: Guest) -> bool:
        kept = self.machine.guests.get(guest.name)
        if kept is None:
            return False
        if not self._is_ours(kept):
            raise self._refused(
                f"a domain named {guest.name} exists there and is not ours",
                "rename or remove it, or give the lab another name",
            )
        if kept.state is not GuestState.RUNNING:
            del self.machine.guests[guest.name]
            return False
        if kept.guest.mark != guest.mark:
            raise self._refused(f"{guest.name} runs there with another mark", "stop it first")
        return True

    def _ours(self, guests: dict[str, _Remembered], instance: str) -> _Remembered | None:
        kept = guests.get(instance)
        return kept if kept is not None and self._is_ours(kept) else None

    def _key(self, instance: str, key: str) -> bytes | None:
        with self.machine.lock:
            self._check_reachable()
            kept = self._ours(self.machine.guests, instance)
            return kept.keys.get(key) if kept else None

    def _tell_watchers(self) -> None:
        for watch in self.machine.watched:
            watch.changed()

    def _unwatch(self, watch: MemoryKey) -> None:
        with self.machine.lock:
            if watch in self.machine.watched:
                self.machine.watched.remove(watch)
                watch.closed()

    def _resume(self, kept: _Remembered) -> None:
        """Let a guest that was built run, unless something happened to it or its host meanwhile."""
        name = kept.guest.name
        with self.machine.lock:
            self._check_reachable()
            if self.machine.guests.get(name) is not kept:
                raise self._refused(f"start {name}: it ended while it was built", "")
            kept.runs, kept.started_at = True, time.monotonic()
            self.say(name, f"{name} is up\n")

    def _expect(self, guest: Guest) -> _Remembered:
        """Make room for a guest that another host is about to send."""
        with self.machine.lock:
            self._check_reachable()
            if self._runs_already(guest):
                raise self._refused(f"{guest.name} runs there already", "stop one of the two")
            self._check_start(guest)
            self.machine.saved.pop(guest.name, None)
            coming = self.machine.guests[guest.name] = _Remembered(guest)
            return coming

    def _send(self, leaving: _Remembered, to: "MemoryHypervisor", tell: Tell) -> None:
        """Take the time that a migration takes, and tell how far it is."""
        began = time.monotonic()
        total = leaving.guest.boot.memory_mib * 2**20
        while (passed := time.monotonic() - began) < to.migrate_s:
            self._check_leaving(leaving, to)
            if not tell(Sent(round(total * (1 - passed / to.migrate_s)), total)):
                raise self._refused(f"migrate {leaving.guest.name}: called off", "")
            time.sleep(MIGRATE_LOOK_S)

    def _check_leaving(self, leaving: _Remembered, to: "MemoryHypervisor") -> None:
        """Raise unless a guest that is being sent is still there, and both hosts are."""
        self._check_reachable()
        to._check_reachable()
        if self.machine.guests.get(leaving.guest.name) is not leaving:
            raise self._refused(f"migrate {leaving.guest.name}: it ended meanwhile", "")

    def _forget(self, kept: _Remembered) -> None:
        with self.machine.lock:
            if self.machine.guests.get(kept.guest.name) is kept:
                del self.machine.guests[kept.guest.name]

    def _check_start(self, guest: Guest) -> None:
        if self.fail:
            raise self._refused(f"start {guest.name}: {self.fail}", "")
        for nic in guest.boot.nics:
            given = nic.network == self.host.network.name and not self.host.network.create
            if not given and nic.network not in self.machine.networks:
                raise self._refused(
                    f"start {guest.name}: network {nic.network} does not exist",
                    "apply the lab first, or name a network that exists there",
                )
        self._check_memory(guest, f"start {guest.name}")

    def _check_memory(self, guest: Guest, what: str) -> None:
        left = self.host.capacity.memory_mib - self.machine.used_mib
        if guest.boot.memory_mib > left:
            raise self._refused(
                f"{what}: {guest.boot.memory_mib} MiB wanted, {left} MiB left",
                "the host has too little free memory; stop a guest or lower memory",
            )

    def _check_unplugged(self, network: str) -> None:
        guests = self.machine.guests.values()
        plugged = sum(nic.network == network for kept in guests for nic in kept.guest.boot.nics)
        if plugged:
            raise self._refused(
                f"network {network} has {plugged} guest cards plugged in", "stop those guests first"
            )

    def _check_reachable(self) -> None:
        if self._closed:
            raise HostUnreachable(self.host.name, "the driver was closed")
        if self._unreachable:
            raise HostUnreachable(self.host.name, self._unreachable)

    def _is_ours(self, kept: _Remembered) -> bool:
        mark = kept.guest.mark
        return (mark.owner, mark.host) == (self.owner, self.host.name)

    def _report(
        self,
        kept: _Remembered,
        why: str,
        *,
        but: "MemoryHypervisor | None" = None,
        dump: str = "",
    ) -> None:
        """Tell every driver whose guest this was, as libvirt tells every connection."""
        self._tell_watchers()
        for driver in self.machine.drivers:
            reached = driver is not but and not driver._unreachable
            if reached and kept.runs and driver._is_ours(kept):
                event = GuestEnded(driver.host.name, kept.guest.name, why, dump)
                driver._listeners.tell(event)

    def _refused(self, message: str, hint: str) -> StartFailed:
        return StartFailed(self.host.name, message, hint=hint)

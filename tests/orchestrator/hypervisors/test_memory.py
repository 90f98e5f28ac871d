"""The memory back end keeps the contract, and its levers do what they say."""

import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path

import pytest

from images.bootspec import BootSpec, Nic
from orchestrator.errors import HostUnreachable, StartFailed
from orchestrator.hypervisors.base import GuestEnded, HostBack, HostLost, Sent
from orchestrator.hypervisors.memory import MemoryHypervisor, MemoryMachine
from orchestrator.linux.consoles import CONSOLE_BYTES
from orchestrator.model import Capacity, Guest, GuestNetwork, Host, Mark, mac_of
from tests.contracts.hypervisor import (
    Heard,
    HypervisorContract,
    KeyContract,
    MigrateContract,
    SleepContract,
    elsewhere,
    ends,
    names,
    unheard,
    unwatched,
)

NETWORK = GuestNetwork(
    name="lab0",
    subnet=IPv4Network("10.0.0.0/24"),
    gateway=IPv4Address("10.0.0.1"),
    first=IPv4Address("10.0.0.10"),
    last=IPv4Address("10.0.0.99"),
    create=True,
)
HOST = Host(name="edge1", uri="memory:", capacity=Capacity(cpu=4, memory_mib=1024), network=NETWORK)


class MemoryRig:
    patience_s = 5.0
    owner = "lab"
    host = HOST

    def __init__(self) -> None:
        self.machine, self.second = MemoryMachine(), MemoryMachine()
        self.drivers: list[MemoryHypervisor] = []

    def driver(self, *, owner: str = "", host: Host | None = None) -> MemoryHypervisor:
        driver = MemoryHypervisor(host or self.host, owner or self.owner, machine=self.machine)
        self.drivers.append(driver)
        return driver

    def dead_driver(self) -> MemoryHypervisor:
        driver = self.driver()
        driver.unreachable()
        return driver

    def guest(self, number: int = 0) -> Guest:
        address = IPv4Address("10.0.0.10") + number
        name = f"ew-lab-web-{number}"
        boot = BootSpec(Path("/k"), memory_mib=64, nics=(Nic(NETWORK.name, mac_of(address)),))
        return Guest(name, Mark(self.owner, name, "web", self.host.name, address), boot)

    def let_end(self, guest: Guest) -> None:
        self.drivers[0].kill(guest.name)

    def hold(self, guest: Guest) -> None:
        self.drivers[0].hold(guest.name)

    def write_key(self, guest: Guest, key: str, value: str) -> None:
        self.drivers[0].write_key(guest.name, key, value)

    def chat(self, guest: Guest) -> None:
        self.drivers[0].transfer(guest.name, rx_bytes=1, tx_bytes=100)
        self.drivers[0].work(guest.name, 0.5)

    def make_foreign_guest(self, name: str) -> None:
        guest = replace(self.guest(), name=name)
        foreign = replace(guest, mark=replace(guest.mark, owner=""), boot=BootSpec(Path("/k"), 64))
        MemoryHypervisor(self.host, "", machine=self.machine).start(foreign, unheard)

    def has_guest(self, name: str) -> bool:
        return name in self.machine.guests

    def make_foreign_network(self, name: str) -> None:
        self.machine.networks[name] = ("someone", None)

    def has_network(self, name: str) -> bool:
        return name in self.machine.networks

    # --- a second machine, for migrations ---------------------------------------------------------

    other = replace(HOST, name="edge2")
    can_call_off = True

    def other_driver(self) -> MemoryHypervisor:
        driver = MemoryHypervisor(self.other, self.owner, machine=self.second, migrate_s=0.05)
        self.drivers.append(driver)
        return driver

    def dead_other(self) -> MemoryHypervisor:
        driver = self.other_driver()
        driver.unreachable()
        return driver

    def to_foreign_guest(self, name: str) -> None:
        foreign = replace(self.guest(), name=name, boot=BootSpec(Path("/k"), 64))
        foreign = replace(foreign, mark=replace(foreign.mark, owner=""))
        MemoryHypervisor(self.host, "", machine=self.second).start(foreign, unheard)

    def state_of(self, guest: Guest) -> str:
        machines = (self.machine, self.second)
        return "".join(str(m.guests[guest.name].started_at) for m in machines if m.guests)


@pytest.fixture
def rig() -> Iterator[MemoryRig]:
    rig = MemoryRig()
    yield rig
    for driver in rig.drivers:
        driver.close()


class TestMemoryHypervisor(HypervisorContract):
    pass


class TestMemorySleep(SleepContract):
    pass


class TestMemoryKeys(KeyContract):
    pass


class TestMemoryMigration(MigrateContract):
    pass


@pytest.fixture
def hypervisor(rig: MemoryRig) -> MemoryHypervisor:
    driver = rig.driver()
    driver.set_network(NETWORK)
    return driver


def test_memory_is_bounded_by_capacity(rig: MemoryRig, hypervisor: MemoryHypervisor) -> None:
    def start(number: int) -> bool:
        try:
            hypervisor.start(rig.guest(number), unheard)
        except StartFailed:
            return False
        return True

    hypervisor.boot_s = 0.01
    with ThreadPoolExecutor(20) as pool:
        started = list(pool.map(start, range(20)))
    assert sum(started) == 1024 // 64
    assert hypervisor.free() == Capacity(cpu=4, memory_mib=0)


def test_start_takes_boot_s_and_waits_for_a_start_under_way(
    rig: MemoryRig, hypervisor: MemoryHypervisor
) -> None:
    hypervisor.boot_s = 0.05
    defined = threading.Event()

    def stamp(stage: str) -> None:
        if stage == "define":
            defined.set()

    before = time.monotonic()
    first = threading.Thread(target=hypervisor.start, args=(rig.guest(), stamp))
    first.start()
    assert defined.wait(rig.patience_s)
    assert not hypervisor.is_running(rig.guest().name)
    hypervisor.start(rig.guest(), unheard)
    started_at = hypervisor.started_at(rig.guest().name)
    assert started_at is not None
    assert started_at - before >= 0.05
    first.join()
    assert hypervisor.starts == [rig.guest().name]


def test_fail_refuses_starts_with_the_reason(rig: MemoryRig, hypervisor: MemoryHypervisor) -> None:
    hypervisor.fail = "the image is on fire"
    with pytest.raises(StartFailed, match=r"host edge1: start ew-lab-web-0: the image is on fire"):
        hypervisor.start(rig.guest(), unheard)
    assert not rig.has_guest(rig.guest().name)


def test_kill_ends_a_guest_with_a_reason(rig: MemoryRig, hypervisor: MemoryHypervisor) -> None:
    heard = Heard()
    hypervisor.watch(heard)
    hypervisor.start(rig.guest(), unheard)
    hypervisor.kill(rig.guest().name, "panicked")
    event = heard.wait(ends(rig.guest()), rig.patience_s)
    assert event == GuestEnded("edge1", rig.guest().name, "panicked")


def test_a_guest_killed_while_it_is_built_fails_its_start(
    rig: MemoryRig, hypervisor: MemoryHypervisor
) -> None:
    def kill(stage: str) -> None:
        if stage == "define":
            hypervisor.kill(rig.guest().name)

    with pytest.raises(StartFailed, match="while it was built"):
        hypervisor.start(rig.guest(), kill)
    assert not rig.has_guest(rig.guest().name)


def test_a_host_that_is_cut_off_comes_back_with_its_guests(
    rig: MemoryRig, hypervisor: MemoryHypervisor
) -> None:
    heard = Heard()
    hypervisor.watch(heard)
    hypervisor.start(rig.guest(), unheard)
    hypervisor.unreachable("cable pulled")
    with pytest.raises(HostUnreachable, match="cable pulled"):
        hypervisor.running()
    hypervisor.reachable()
    heard.wait(lambda event: isinstance(event, HostBack), rig.patience_s)
    assert heard.events == [HostLost("edge1", "cable pulled"), HostBack("edge1")]
    assert len(hypervisor.running()) == 1


def test_transfer_counts_both_ways(rig: MemoryRig, hypervisor: MemoryHypervisor) -> None:
    hypervisor.start(rig.guest(), unheard)
    hypervisor.transfer(rig.guest().name, rx_bytes=7)
    hypervisor.transfer(rig.guest().name, rx_bytes=1, tx_bytes=2)
    (running,) = hypervisor.running()
    assert (running.rx_bytes, running.tx_bytes) == (8, 2)


def test_the_console_is_bounded(rig: MemoryRig, hypervisor: MemoryHypervisor) -> None:
    hypervisor.start(rig.guest(), unheard)
    hypervisor.say(rig.guest().name, "x" * 2 * CONSOLE_BYTES + "end")
    shown = hypervisor.console(rig.guest().name)
    assert len(shown) == CONSOLE_BYTES
    assert shown.endswith(b"xend")


def test_a_key_of_a_host_that_is_lost_says_so(rig: MemoryRig, hypervisor: MemoryHypervisor) -> None:
    hypervisor.start(rig.guest(), unheard)
    key = hypervisor.watch_key(rig.guest().name, "data/ready")
    assert key.value() is None
    hypervisor.unreachable("no route to host")
    with pytest.raises(HostUnreachable, match="no route to host"):
        key.value()
    key.close()


def test_a_guest_that_ends_while_it_is_sent_is_on_neither_host(
    rig: MemoryRig, hypervisor: MemoryHypervisor
) -> None:
    hypervisor.start(rig.guest(), unheard)
    there = rig.other_driver()
    there.set_network(NETWORK)

    def kill(_sent: Sent) -> bool:
        hypervisor.kill(rig.guest().name)
        return True

    with pytest.raises(StartFailed, match="it ended meanwhile"):
        hypervisor.migrate(elsewhere(rig.guest(), rig.other), there, kill)
    assert names(hypervisor) == names(there) == set()


def test_a_host_that_is_lost_while_a_guest_is_sent_there_is_named(
    rig: MemoryRig, hypervisor: MemoryHypervisor
) -> None:
    hypervisor.start(rig.guest(), unheard)
    there = rig.other_driver()
    there.set_network(NETWORK)

    def cut(_sent: Sent) -> bool:
        there.unreachable("cable pulled")
        return True

    with pytest.raises(HostUnreachable, match="host edge2: cable pulled"):
        hypervisor.migrate(elsewhere(rig.guest(), rig.other), there, cut)
    assert names(hypervisor) == {rig.guest().name}
    there.reachable()
    assert names(there) == set()
    hypervisor.migrate(elsewhere(rig.guest(), rig.other), there, unwatched)
    assert names(there) == {rig.guest().name}

"""Full disks, late deaths, crowds and bad moments: control keeps its word, or heals.

Each test states what an adversarial review of control asked for. Hosts that cannot be reached are
in `test_lost_hosts`.
"""

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import replace

import pytest

from orchestrator.errors import NoCapacity, NotReady, StartFailed, StoreError, UnknownService
from orchestrator.hosts import News
from orchestrator.hypervisors.base import GuestEnded, Stamp
from orchestrator.model import (
    Capacity,
    Endpoint,
    Guest,
    Host,
    Instance,
    InstanceState,
    RunningGuest,
)
from orchestrator.store.memory import MemoryStore
from tests.world import World, a_host, a_service, straight_to_cold

MakeWorld = Callable[..., World]


class Disk(MemoryStore):
    """A store on a disk that may be full; it counts what it had to refuse."""

    full = False
    refused = 0

    def save(self, instance: Instance) -> None:
        self._refuse_if_full()
        super().save(instance)

    def remove(self, instance: Instance, *, rest_until: float) -> None:
        self._refuse_if_full()
        super().remove(instance, rest_until=rest_until)

    def _refuse_if_full(self) -> None:
        if self.full:
            self.refused += 1
            raise StoreError("disk full")


def two_hosts() -> list[Host]:
    return [a_host("a"), a_host("b", 1)]


# --- a full disk --------------------------------------------------------------------------------


def test_store_error_while_going_to_sleep_heals(make_world: MakeWorld) -> None:
    disk = Disk()
    world = make_world(store=disk)
    world.ask("web")
    time.sleep(0.1)  # now it is idle
    disk.full = True
    with pytest.raises(StoreError):
        world.control.expire()
    disk.full = False

    def led_to_or_gone() -> bool:
        world.control.expire()
        return world.seen.hosts_of("web") == ["a"] or world.guests() == []

    world.eventually(led_to_or_gone)


def test_store_error_while_undoing_a_failed_wake_heals(
    make_world: MakeWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk = Disk()
    world = make_world(a_service("web", deadline_s=0.2), store=disk)
    world.answer_s["web"] = None
    driver = world.drivers["a"]
    build = driver.start

    def start(guest: Guest, stamp: Stamp) -> None:
        build(guest, stamp)
        disk.full = True

    monkeypatch.setattr(driver, "start", start)
    assert world.summon("web").exception(5)
    world.eventually(lambda: disk.refused > 0)
    disk.full = False

    def gone() -> bool:
        world.control.expire()
        return world.guests() == []

    world.eventually(gone)


def test_close_with_end_guests_survives_a_full_disk(make_world: MakeWorld) -> None:
    disk = Disk()
    world = make_world(store=disk)
    world.ask("web")
    disk.full = True
    try:
        world.control.close(end_guests=True)
    finally:
        disk.full = False
    assert world.control._hosts._closed, "the hosts were never closed"


# --- deaths, and what is said of them late ------------------------------------------------------


def kill_all_and_wake(world: World, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Let all guests die at once, ask for each service again, and return what went wrong."""
    driver = world.drivers["a"]
    look = driver.running
    errors: list[str] = []

    def running() -> tuple[RunningGuest, ...]:
        time.sleep(0.03)  # a busy host takes its time to say what runs
        return look()

    def ask_again(name: str) -> None:
        world.eventually(lambda: world.seen.hosts_of(name) == [])
        if error := world.summon(name).exception(20):
            errors.append(str(error))

    monkeypatch.setattr(driver, "running", running)
    driver.boot_s = 0.15
    for guest in world.guests():
        driver.kill(guest)
    clients = [threading.Thread(target=ask_again, args=(s.name,)) for s in world.lab.services]
    for client in clients:
        client.start()
    for client in clients:
        client.join()
    return errors


def test_a_mass_death_does_not_kill_the_boots_that_follow(
    make_world: MakeWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    errors: list[str] = []
    hidden: list[str] = []
    for _ in range(6):
        services = [a_service(f"s{n:02}", deadline_s=10) for n in range(24)]
        world = make_world(*services, hosts=[a_host("a", memory_mib=40960)])
        for service in services:
            world.ask(service.name)
        errors += kill_all_and_wake(world, monkeypatch)
        fleet = world.control.fleet
        ready = [i.name for i in fleet.instances() if i.state is InstanceState.READY]
        hidden += filter(fleet.hidden, ready)
    assert (errors, hidden) == ([], [])


def test_stale_death_of_the_predecessor(make_world: MakeWorld) -> None:
    """A guest's death is looked at while the next one of the same name is being built."""
    world = make_world()
    world.drivers["a"].boot_s = 0.3
    world.answer_s["web"] = 0.1
    wake = world.summon("web")
    world.eventually(lambda: world.guests() != [])
    world.control._hosts._on_event(GuestEnded("a", "ew-t-web-0", "crashed"))
    assert wake.exception(5) is None


def test_one_guest_that_cannot_be_ended_does_not_take_the_host_away(
    make_world: MakeWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = make_world(a_service("web"), a_service("api"))
    world.ask("web")

    def stop(name: str) -> None:
        raise StartFailed("a", "Failed to terminate process: Device or resource busy")

    with monkeypatch.context() as patch:
        patch.setattr(world.drivers["a"], "stop", stop)
        world.control.release("web")
        assert world.control.fleet.lost() == {}
        assert world.ask("api")


# --- threads, locks and turns -------------------------------------------------------------------


def test_a_held_lock_and_a_dead_replica_do_not_exhaust_the_pool(make_world: MakeWorld) -> None:
    """The lock of one service may be held for a whole deadline; the sweeps go on meanwhile."""
    web, api = a_service("web", replicas=2), a_service("api")
    world = make_world(web, api, hosts=two_hosts(), parallel_boots=8)
    world.ask("web")
    world.eventually(lambda: len(world.seen.hosts_of("web")) == 2)
    with world.control._waker.locks["web"]:
        world.drivers["a"].kill(world.guests("a")[0])
        for _ in range(12):
            world.control._hosts.poll()
        error = world.summon("api").exception(5)
    assert error is None, f"another service could not be woken: {error!r}"


def test_drain_does_not_hold_the_lock(make_world: MakeWorld) -> None:
    web = a_service("web", ttl_s=2, replicas=2, deadline_s=1.0, idle=straight_to_cold(None))
    world = make_world(web, hosts=two_hosts())
    world.ask("web")
    world.eventually(lambda: len(world.seen.hosts_of("web")) == 2)
    world.control.asked["web"] = time.monotonic()
    first, second = world.lab.hosts
    smaller = replace(first, capacity=Capacity(cpu=8, memory_mib=900))
    lab = replace(world.lab, hosts=(smaller, second))
    applying = threading.Thread(target=world.control.apply, args=(lab,))
    applying.start()
    world.eventually(lambda: world.seen.hosts_of("web") == ["b"])  # a drains
    world.drivers["b"].kill(world.guests("b")[0])
    world.eventually(lambda: world.seen.hosts_of("web") == [])
    error = world.summon("web").exception(5)
    applying.join()
    assert error is None, error


def test_a_wake_whose_turn_comes_too_late_boots_nothing(make_world: MakeWorld) -> None:
    world = make_world(a_service("web"), a_service("api", deadline_s=0.1), parallel_boots=1)
    world.answer_s["web"] = 0.3
    web, api = world.summon("web"), world.summon("api")
    web.result(5)
    assert isinstance(api.exception(5), NotReady)
    assert world.drivers["a"].starts == ["ew-t-web-0"]


def test_service_removed_between_summon_and_its_turn(make_world: MakeWorld) -> None:
    """Whoever asked is told that there is no such service any more."""
    world = make_world(a_service("web"), a_service("api"), parallel_boots=1)
    world.answer_s["web"] = 0.3
    world.summon("web")
    api = world.summon("api")
    world.control.fleet.use(replace(world.lab, services=world.lab.services[:1]))
    error = api.exception(5)
    assert isinstance(error, UnknownService), error


def test_finish_checks_that_its_instance_is_still_the_one(make_world: MakeWorld) -> None:
    """A wake ends what an earlier run left and boots elsewhere, before `_finish` has its turn."""
    world = make_world(hosts=two_hosts())
    control = world.control
    left = control.fleet.reserve("web", only="a")
    world.store.save(left)
    assert control.fleet.withdraw(left)
    world.drivers["a"].fail = "busy"
    (endpoint,) = world.ask("web")
    assert endpoint.host == "b"
    control._settler._finish(left)
    assert world.seen.hosts_of("web") == ["b"]
    present = control.fleet.get("ew-t-web-0")
    assert present is not None
    assert present.host == "b"


def test_apply_that_removes_a_host_waits_for_a_wake_begun_meanwhile(
    make_world: MakeWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = make_world(a_service("web"), a_service("api", deadline_s=2), hosts=two_hosts())
    (endpoint,) = world.ask("web")
    (other,) = (host for host in world.lab.hosts if host.name != endpoint.host)
    world.answer_s["api"] = 0.3
    driver = world.drivers[endpoint.host]
    end = driver.stop
    wakes: list[Future[tuple[Endpoint, ...]]] = []

    def stop(name: str) -> None:
        """End web for the apply, but have api asked for just before."""
        if not wakes:
            wakes.append(world.summon("api"))
            world.eventually(lambda: "ew-t-api-0" in world.guests())
        end(name)

    monkeypatch.setattr(driver, "stop", stop)
    world.drivers[other.name].fail = "so that the removed host is chosen"
    world.control.apply(replace(world.lab, hosts=(other,)))
    world.drivers[other.name].fail = ""
    wakes[0].exception(5)
    world.eventually(lambda: world.guests(endpoint.host) == [])
    world.eventually(lambda: {i.host for i in world.control.fleet.instances()} <= {other.name})


def test_close_does_not_wait_for_the_deadline_of_a_wake(make_world: MakeWorld) -> None:
    world = make_world(a_service("web", deadline_s=60))
    world.answer_s["web"] = None
    world.summon("web")
    world.eventually(lambda: world.guests() != [])
    began = time.monotonic()
    world.control.close()
    took = time.monotonic() - began
    world.machines["a"].guests.clear()  # a close leaves guests to the next start
    assert took < 30


def test_unexpected_errors_in_the_background_are_logged(
    make_world: MakeWorld, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    world = make_world()
    world.ask("web")

    def take_in(news: News) -> None:
        raise RuntimeError("defect")

    monkeypatch.setattr(world.control._hosts, "_take_in", take_in)
    world.control._hosts.poll()
    assert "defect" in caplog.text


# --- memory, addresses and traffic --------------------------------------------------------------


def test_a_lower_ttl_does_not_shorten_the_rest_of_an_address(make_world: MakeWorld) -> None:
    host = a_host("a")
    one_address = replace(host, network=replace(host.network, last=host.network.first))
    world = make_world(a_service("web", ttl_s=60), a_service("api"), hosts=[one_address])
    world.ask("web")
    web, api = world.lab.services
    world.control.apply(replace(world.lab, services=(replace(web, ttl_s=0), api)))
    world.control.release("web")
    error = world.summon("api").exception(5)
    assert isinstance(error, NoCapacity), "an address that caches name for 60 s was given away"


def test_memory_of_guests_ready_since_the_last_poll_counts(make_world: MakeWorld) -> None:
    services = [a_service(f"s{n}") for n in range(8)]
    world = make_world(*services, hosts=[a_host("a", memory_mib=1000)])
    world.ask("s0")
    machine = world.machines["a"]
    ours = machine.guests["ew-t-s0-0"]
    mark = replace(ours.guest.mark, owner="somebody")
    boot = replace(ours.guest.boot, memory_mib=500)
    foreign = replace(ours.guest, name="other", mark=mark, boot=boot)
    with machine.lock:
        machine.guests["other"] = replace(ours, guest=foreign)
    world.control._hosts.poll()  # the host says: 400 MiB free
    try:
        errors = [world.summon(f"s{n}").exception(5) for n in range(1, 8)]
    finally:
        with machine.lock:
            del machine.guests["other"]
    assert errors[:4] == [None] * 4
    assert [type(error) for error in errors[4:]] == [NoCapacity] * 3


def test_booting_guests_are_not_counted_twice(make_world: MakeWorld) -> None:
    """What was built is gone from what a host calls free (Xen, preallocated QEMU)."""
    services = [a_service(f"s{n}", deadline_s=10) for n in range(10)]
    world = make_world(*services, hosts=[a_host("a", memory_mib=1000)])
    world.answer_s = {service.name: 0.5 for service in services}
    wakes = [world.summon(f"s{n}") for n in range(5)]
    world.eventually(lambda: len(world.guests()) == 5)
    world.control._hosts.poll()
    wakes += [world.summon(f"s{n}") for n in range(5, 10)]
    errors = [wake.exception(20) for wake in wakes]
    assert errors == [None] * 10


@contextmanager
def transfer_after(world: World, gone: str, busy: str) -> Iterator[None]:
    """Have one guest of host a busy from the moment another one is gone."""
    machine, driver = world.machines["a"], world.drivers["a"]
    over = threading.Event()

    def transfer() -> None:
        while not over.wait(0.005):
            with machine.lock:
                if gone not in machine.guests and busy in machine.guests:
                    driver.transfer(busy, rx_bytes=10_000, tx_bytes=10_000)

    thread = threading.Thread(target=transfer)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def test_a_transfer_that_began_after_the_poll_is_not_cut(make_world: MakeWorld) -> None:
    """A sweep asks the hosts once and then takes its time: the last service may be busy again."""
    idle = straight_to_cold(0.2)
    services = [a_service(f"s{n}", idle=idle) for n in range(8)]
    world = make_world(*services, hosts=[a_host("a", memory_mib=40960)])
    for service in services:
        world.ask(service.name)
    world.control._hosts.poll()
    time.sleep(0.3)
    with transfer_after(world, gone="ew-t-s0-0", busy="ew-t-s7-0"):
        slept = world.control.expire()
    assert "s0" in slept
    assert "s7" not in slept

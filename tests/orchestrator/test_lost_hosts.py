"""Hosts that vanish, hang, come back or refuse our network: no client is misled, nothing is lost.

Each test states what an adversarial review of control asked for. What goes wrong on hosts that are
well is in `test_adversity`.
"""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace

import pytest

from orchestrator.boot import HostParts
from orchestrator.errors import HostUnreachable, StartFailed
from orchestrator.hypervisors.base import Stamp
from orchestrator.hypervisors.memory import MemoryHypervisor, MemoryMachine
from orchestrator.model import Guest, GuestNetwork, Host, RunningGuest
from tests.world import World, a_host, a_service, straight_to_cold

MakeWorld = Callable[..., World]

NEVER_IDLE = straight_to_cold(None)


def two_hosts() -> list[Host]:
    return [a_host("a"), a_host("b", 1)]


@contextmanager
def cut_off(driver: MemoryHypervisor, why: str) -> Iterator[None]:
    """Cut a host off; its guests go on running unless somebody ends them meanwhile."""
    driver.unreachable(why)
    try:
        yield
    finally:
        driver.reachable()


def end_unseen(world: World, host: str) -> None:
    """End all guests of a host that is cut off, so that no event tells of it."""
    machine = world.machines[host]
    with machine.lock:
        machine.guests.clear()


def lost(world: World, host: str) -> bool:
    return host in world.control.fleet.lost()


def ever_led(world: World, service: str) -> bool:
    """Return whether clients were ever led anywhere for a service."""
    routes = [route for told in world.seen.history for route in told]
    return any(route.endpoints for route in routes if route.service.name == service)


def losing_the_reply(driver: MemoryHypervisor) -> Callable[[Guest, Stamp], None]:
    """Return a `start` that builds the guest, and is cut off before it can say so."""
    build = driver.start

    def start(guest: Guest, stamp: Stamp) -> None:
        build(guest, stamp)
        driver.unreachable("cable cut")
        raise HostUnreachable(driver.host.name, "cable cut")

    return start


# --- a host that is lost ------------------------------------------------------------------------


def test_dead_host_removed_from_lab_leaves_service_wakeable(make_world: MakeWorld) -> None:
    world = make_world(hosts=two_hosts())
    (first,) = world.ask("web")
    with cut_off(world.drivers[first.host], "power cut"):
        world.eventually(lambda: lost(world, first.host))
        left = tuple(host for host in world.lab.hosts if host.name != first.host)
        world.control.apply(replace(world.lab, hosts=left))
        end_unseen(world, first.host)
        (again,) = world.ask("web")
        assert again.host != first.host


def test_leftover_on_lost_slow_host_does_not_eat_the_deadline(
    make_world: MakeWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A black-holed host takes longer to fail than a wake may take (libvirt: 10 s)."""
    world = make_world(a_service("web", deadline_s=0.5, idle=NEVER_IDLE), hosts=two_hosts())
    world.answer_s["web"] = 0.01
    (first,) = world.ask("web")
    driver = world.drivers[first.host]

    def stop(name: str) -> None:
        time.sleep(0.6)
        raise HostUnreachable(first.host, "no connection within 10 s")

    with cut_off(driver, "black-holed"), monkeypatch.context() as patch:
        patch.setattr(driver, "stop", stop)
        world.control.release("web")
        for _ in range(3):
            wake = world.summon("web")
            error = wake.exception(5)
            if error is None:
                break
        assert error is None, error
        assert [endpoint.host for endpoint in wake.result()] != [first.host]


def test_lost_connection_to_host_does_not_make_its_services_idle(make_world: MakeWorld) -> None:
    """The guest is busy all the time; we just cannot see it."""
    world = make_world(a_service("web", idle=straight_to_cold(0.4)))
    world.ask("web")
    world.control.expire()
    driver = world.drivers["a"]
    with cut_off(driver, "libvirtd restarts"):
        for _ in range(10):
            time.sleep(0.05)
            driver.transfer("ew-t-web-0", rx_bytes=100_000, tx_bytes=100_000)
            world.control.expire()
        present = world.control.fleet.get("ew-t-web-0")
        assert present is not None
        assert present.state == "ready", "marked stopping while a transfer ran"
    world.eventually(lambda: not lost(world, "a"))
    time.sleep(0.1)  # whatever would cut it now has its turn
    assert world.guests() == ["ew-t-web-0"], "a live transfer was cut"


def test_answers_do_not_name_a_host_that_is_dead(
    make_world: MakeWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Clients that go on asking are no reason to lead them to a guest that is gone."""
    monkeypatch.setattr("orchestrator.settler.LOST_PROBE_S", 0.2)
    world = make_world(hosts=two_hosts())
    (first,) = world.ask("web")
    world.answer_s[""] = None  # nobody answers at an address without a guest

    def led_elsewhere() -> bool:
        (now,) = world.ask("web")
        world.control.expire()
        return now.host != first.host

    with cut_off(world.drivers[first.host], "power cut"):
        end_unseen(world, first.host)
        world.eventually(led_elsewhere)
        (again,) = world.ask("web")
        assert again.host != first.host


def test_hung_host_counts_as_lost_before_its_connection_breaks(
    make_world: MakeWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("orchestrator.hosts.POLL_PATIENCE_S", 0.5)
    world = make_world(a_service("web", deadline_s=2.0), hosts=two_hosts())
    driver = world.drivers["a"]
    look, build = driver.running, driver.start
    over = threading.Event()

    def running() -> tuple[RunningGuest, ...]:
        over.wait(10)
        return look()

    def start(guest: Guest, stamp: Stamp) -> None:
        over.wait(10)
        build(guest, stamp)

    monkeypatch.setattr(driver, "running", running)
    monkeypatch.setattr(driver, "start", start)
    try:
        world.control.expire()
        (endpoint,) = world.ask("web", 5)
        assert endpoint.host == "b"
    finally:
        over.set()


# --- a boot that its host was lost under --------------------------------------------------------


def test_failed_undo_on_lost_host_is_not_forgotten(
    make_world: MakeWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = make_world(hosts=two_hosts())
    driver = world.drivers["a"]
    world.drivers["b"].fail = "busy"
    with monkeypatch.context() as patch:
        patch.setattr(driver, "start", losing_the_reply(driver))
        assert world.summon("web").exception(5)
    world.drivers["b"].fail = ""
    (endpoint,) = world.ask("web")
    assert endpoint.host == "b"
    driver.reachable()
    world.eventually(lambda: world.guests("a") == [])


def test_failed_undo_on_lost_host_is_not_adopted_as_ready(
    make_world: MakeWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = make_world(hosts=[a_host("a")])
    driver = world.drivers["a"]
    with monkeypatch.context() as patch:
        patch.setattr(driver, "start", losing_the_reply(driver))
        assert world.summon("web").exception(5)
    world.answer_s["web"] = None
    driver.reachable()
    world.eventually(lambda: world.guests() == [])
    assert world.seen.hosts_of("web") == []
    assert not ever_led(world, "web"), "clients were led to a guest that never answered"


def test_lost_and_back_while_booting_guest_died_is_told(make_world: MakeWorld) -> None:
    """No event tells of a death on a lost host: the host's first word after it must."""
    world = make_world(a_service("web", deadline_s=60), hosts=two_hosts())
    world.answer_s = {"web": None, "": None}
    wake = world.summon("web")
    world.eventually(lambda: world.control._boots.waiting_for("ew-t-web-0"))
    (host,) = (name for name in ("a", "b") if world.guests(name))
    with cut_off(world.drivers[host], "libvirtd restarts"):
        end_unseen(world, host)
        world.answer_s["web"] = 0.0  # the next one answers
    assert wake.exception(20) is None, "it waited for a guest that is gone"


# --- a host that is back ------------------------------------------------------------------------


def test_network_is_made_before_a_host_that_is_back_is_used(
    make_world: MakeWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = make_world()
    driver, machine = world.drivers["a"], world.machines["a"]
    make = driver.set_network

    def slowly(wanted: GuestNetwork | None) -> None:
        time.sleep(0.2)
        make(wanted)

    with cut_off(driver, "reboot"):
        world.eventually(lambda: lost(world, "a"))
        with machine.lock:
            machine.networks.clear()
        monkeypatch.setattr(driver, "set_network", slowly)
    world.eventually(lambda: not lost(world, "a"))
    assert world.summon("web").exception(5) is None


def test_orphan_with_a_name_in_use_elsewhere_is_ended(make_world: MakeWorld) -> None:
    world = make_world(hosts=two_hosts())
    (endpoint,) = world.ask("web")
    world.crash()
    other = "b" if endpoint.host == "a" else "a"
    ours = world.machines[endpoint.host].guests["ew-t-web-0"]
    address = world.lab.host(other).network.first
    mark = replace(ours.guest.mark, host=other, address=address)
    twin = replace(ours, guest=replace(ours.guest, mark=mark))
    world.machines[other].guests["ew-t-web-0"] = twin
    world.start()
    world.eventually(lambda: world.guests(other) == [])
    assert world.guests(endpoint.host) == ["ew-t-web-0"]


def test_keep_does_not_resurrect_what_is_being_put_to_sleep(
    make_world: MakeWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A release comes between the decision to keep a guest of a host that is back, and the act."""
    world = make_world(a_service("web", idle=NEVER_IDLE))
    world.ask("web")
    journal = world.control._journal
    real = journal.record
    released = threading.Event()

    def record(kind: str, *args: str, **facts: str) -> None:
        real(kind, *args, **facts)
        if kind == "adopted" and not released.is_set():
            release = threading.Thread(target=world.control.release, args=("web",))
            release.start()
            release.join(5)
            released.set()

    monkeypatch.setattr(journal, "record", record)
    with cut_off(world.drivers["a"], "libvirtd restarts"):
        world.eventually(lambda: lost(world, "a"))
    world.eventually(released.is_set)
    time.sleep(0.1)  # the adoption goes on
    assert world.guests() == []
    assert world.seen.hosts_of("web") == [], "clients are led to a guest that was ended"


# --- a host that refuses our network ------------------------------------------------------------


def test_refused_network_keeps_guests_off_a_foreign_network(make_world: MakeWorld) -> None:
    world = make_world(start=False)
    machine = world.machines["a"] = MemoryMachine()
    machine.networks["net-a"] = ("somebody", None)
    world.start()
    error = world.summon("web").exception(5)
    assert error is not None, "our guest was plugged into somebody's network"


def test_refused_network_is_tried_again(
    make_world: MakeWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = make_world(start=False)
    real_open = world.open_host
    reloading = threading.Event()
    reloading.set()

    def open_host(host: Host) -> HostParts:
        parts = real_open(host)
        driver = world.drivers[host.name]
        make = driver.set_network

        def set_network(wanted: GuestNetwork | None) -> None:
            if reloading.is_set():
                raise StartFailed(host.name, "internal error: firewall is being reloaded")
            make(wanted)

        monkeypatch.setattr(driver, "set_network", set_network)
        return parts

    monkeypatch.setattr(world, "open_host", open_host)
    world.start()
    assert world.control.fleet.refusal("a")
    reloading.clear()
    for _ in range(3):
        world.control.expire()
    assert world.summon("web").exception(5) is None

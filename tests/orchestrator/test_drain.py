"""Draining a host: what to do with one instance, and whole drains with bad moments in them."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from ipaddress import IPv4Address
from pathlib import Path

import pytest

from orchestrator.drain import DrainReport, Step, step_of
from orchestrator.errors import NoCapacity, StartFailed, UnknownHost
from orchestrator.hypervisors.base import Stamp
from orchestrator.hypervisors.memory import MemoryHypervisor
from orchestrator.model import (
    Constraints,
    Guest,
    Instance,
    InstanceState,
    Migrate,
    OnHostLoss,
    Service,
    mac_of,
)
from orchestrator.store.base import Drain
from orchestrator.store.sql import SqlStore
from tests.world import World, a_host, a_service, straight_to_cold

MakeWorld = Callable[..., World]

NEVER_IDLE = straight_to_cold(None)
READY, BOOTING, STOPPING = InstanceState.READY, InstanceState.BOOTING, InstanceState.STOPPING


def a_steady(name: str, **changes: object) -> Service:
    return a_service(name, **{"idle": NEVER_IDLE, **changes})


def an_instance(state: InstanceState) -> Instance:
    address = IPv4Address("10.9.0.10")
    return Instance("ew-t-web-0", "web", "a", address, mac_of(address), state, created_at=1.0)


@pytest.mark.parametrize(
    ("state", "led", "awaited", "copies", "step"),
    [
        (READY, True, False, (0, 1), Step.BOOT),
        (READY, True, False, (1, 1), Step.RETIRE),
        (READY, True, False, (1, 2), Step.BOOT),
        (READY, True, False, (2, 2), Step.RETIRE),
        (READY, False, False, (0, 1), Step.WAIT),  # withdrawn: it is on its way out
        (BOOTING, False, False, (0, 1), Step.WAIT),
        (STOPPING, False, False, (0, 1), Step.WAIT),
        (READY, True, True, (0, 1), Step.KEEP),
        (READY, False, True, (1, 1), Step.KEEP),
    ],
)
def test_what_to_do_with_one_instance(
    state: InstanceState, led: bool, awaited: bool, copies: tuple[int, int], step: Step
) -> None:
    elsewhere, wanted = copies
    for migrate in (Migrate.BOOT, Migrate.LIVE):
        found = step_of(
            an_instance(state),
            a_steady("web", migrate=migrate),
            wanted=wanted,
            led=led,
            awaited=awaited,
            elsewhere=elsewhere,
        )
        live = migrate is Migrate.LIVE and step is Step.BOOT
        assert found is (Step.MIGRATE if live else step)


# --- whole drains -------------------------------------------------------------------------------


@pytest.fixture(name="make_world")
def _make_impatient_world(make_world: MakeWorld, monkeypatch: pytest.MonkeyPatch) -> MakeWorld:
    monkeypatch.setattr("orchestrator.retiring.LAST_REQUEST_S", 0.05)
    return make_world


def report_of(world: World, host: str) -> DrainReport:
    report = next(h.drain for h in world.control.status().hosts if h.host.name == host)
    assert report is not None, f"{host} is not being drained"
    return report


def drained(world: World, host: str) -> Callable[[], bool]:
    return lambda: report_of(world, host).state == "drained"


def kinds(world: World) -> list[str]:
    return [event.kind for event in world.control.events()]


@contextmanager
def held_in_start(driver: MemoryHypervisor, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Hold every start of a guest on a host until the end of the block."""
    over, build = threading.Event(), driver.start

    def start(guest: Guest, stamp: Stamp) -> None:
        assert over.wait(10)
        build(guest, stamp)

    monkeypatch.setattr(driver, "start", start)
    try:
        yield
    finally:
        over.set()


def test_a_drain_moves_everything_and_clients_are_always_led_somewhere(
    make_world: MakeWorld,
) -> None:
    services = [a_steady(name, ttl_s=0) for name in ("web", "api", "mail")]
    world = make_world(*services, hosts=[a_host("a")])
    for service in services:
        world.ask(service.name)
    world.control.apply(replace(world.lab, hosts=(a_host("a"), a_host("b", 1))))
    world.seen.history.clear()
    assert str(world.control.drain("a")) == "drained 0 of 3"
    assert [wish.host for wish in world.store.load().drains] == ["a"]
    world.sweep_until(drained(world, "a"))
    assert str(report_of(world, "a")) == "drained 3 of 3"
    assert world.guests("a") == []
    assert {s.name: world.seen.hosts_of(s.name) for s in services} == {
        s.name: ["b"] for s in services
    }
    assert all(route.endpoints for told in world.seen.history for route in told)
    world.sweep_until(lambda: "drained" in kinds(world))


def test_nothing_is_placed_on_a_host_that_is_being_drained_and_explain_says_why(
    make_world: MakeWorld,
) -> None:
    world = make_world(hosts=[a_host("a"), a_host("b", 1)])
    world.control.drain("a")
    choices = {each.host: each for each in world.control.explain("web")}
    assert choices["a"].rank is None
    assert choices["a"].why_not == "is being drained"
    (endpoint,) = world.ask("web")
    assert endpoint.host == "b"
    world.control.drain("b")
    world.control.release("web")
    error = world.summon("web").exception(5)
    assert isinstance(error, NoCapacity)
    assert "b: is being drained" in str(error)


def test_plans_leave_out_hosts_that_are_being_drained(make_world: MakeWorld) -> None:
    world = make_world(hosts=[a_host("a"), a_host("b", 1)])
    (first,) = world.control.rebalance().plan.hosts["web"]
    world.control.drain(first)
    (second,) = world.control.rebalance().plan.hosts["web"]
    assert {first, second} == {"a", "b"}


def test_an_unknown_host_is_refused(make_world: MakeWorld) -> None:
    world = make_world()
    with pytest.raises(UnknownHost, match="the lab has: a"):
        world.control.drain("z")
    with pytest.raises(UnknownHost):
        world.control.undrain("z")


def test_an_instance_ends_only_when_no_cache_can_name_it(make_world: MakeWorld) -> None:
    world = make_world(a_steady("web", ttl_s=1), hosts=[a_host("a"), a_host("b", 1)])
    world.ask("web")
    asked_at = world.control.asked["web"]
    world.control.drain("a")
    world.sweep_until(lambda: world.seen.hosts_of("web") == ["b"])
    world.sweep_until(lambda: world.guests("a") == [])
    assert time.monotonic() >= asked_at + 1


def test_a_transfer_that_outlives_the_answer_is_not_cut(
    make_world: MakeWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("orchestrator.retiring.QUIET_S", 0.3)
    world = make_world(a_steady("web", ttl_s=0), hosts=[a_host("a"), a_host("b", 1)])
    world.ask("web")
    world.control.drain("a")
    world.sweep_until(lambda: world.seen.hosts_of("web") == ["b"])
    for _ in range(20):
        world.drivers["a"].transfer("ew-t-web-0", rx_bytes=500, tx_bytes=50_000)
        world.control.expire()
        time.sleep(0.03)
    assert world.guests("a") == ["ew-t-web-0"]
    world.sweep_until(drained(world, "a"))


def test_what_can_run_nowhere_else_stays_and_is_told(make_world: MakeWorld) -> None:
    bound = a_steady("bound", constraints=Constraints(hosts=frozenset({"a"})))
    world = make_world(bound, a_steady("web"), hosts=[a_host("a"), a_host("b", 1)])
    world.ask("bound")
    world.ask("web")
    world.control.drain("a")
    world.sweep_until(lambda: report_of(world, "a").stuck != ())
    world.sweep_until(lambda: world.seen.hosts_of("web") == ["b"])
    (stuck,) = report_of(world, "a").stuck
    assert stuck.instance == "ew-t-bound-0"
    assert "b: not one of the hosts it may run on" in stuck.why
    assert world.seen.hosts_of("bound") == ["a"]
    world.sweep_until(lambda: "drain-stuck" in kinds(world))


def test_what_cannot_be_ended_is_told_with_its_remedy_and_once(
    make_world: MakeWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = make_world(a_steady("web", ttl_s=0), hosts=[a_host("a"), a_host("b", 1)])
    world.ask("web")
    tries: list[str] = []

    def stop(name: str) -> None:
        tries.append(name)
        raise StartFailed("a", f"stop {name}: it is locked", hint="restart libvirtd on a")

    def swept() -> bool:
        world.control._hosts.poll()
        return len(tries) > 3

    with monkeypatch.context() as patch:
        patch.setattr(world.drivers["a"], "stop", stop)
        world.control.drain("a")
        world.sweep_until(lambda: report_of(world, "a").stuck != ())
        world.sweep_until(swept)
        (stuck,) = report_of(world, "a").stuck
        why = "host a: stop ew-t-web-0: it is locked; restart libvirtd on a"
        assert (stuck.instance, stuck.why) == ("ew-t-web-0", f"it cannot be ended: {why}")
        assert stuck.ending
        (service,) = world.control.status().services
        assert service.trouble == f"ew-t-web-0 on a cannot be ended: {why}"
        assert kinds(world).count("stop-failed") == 1
        assert "ended" not in kinds(world)

    def done() -> bool:
        world.control._hosts.poll()
        return drained(world, "a")()

    world.sweep_until(done)
    assert report_of(world, "a").stuck == ()
    assert world.control.status().services[0].trouble == ""
    world.sweep_until(lambda: "ended" in kinds(world))
    assert kinds(world).count("stop-failed") == 1


def test_forced_it_is_ended_and_wakes_when_the_host_is_used_again(make_world: MakeWorld) -> None:
    world = make_world(a_steady("web"))
    world.ask("web")
    world.control.drain("a")
    world.sweep_until(lambda: report_of(world, "a").stuck != ())
    world.control.drain("a", force=True)
    world.sweep_until(drained(world, "a"))
    assert world.control.status().services[0].state == "asleep"
    assert world.guests() == []
    world.control.undrain("a")
    assert world.ask("web")


def test_each_replica_is_replaced_and_there_are_never_fewer(make_world: MakeWorld) -> None:
    hosts = [a_host("a"), a_host("b", 1), a_host("c", 2)]
    world = make_world(a_steady("web", replicas=2), hosts=hosts)
    world.ask("web")
    world.eventually(lambda: len(world.seen.hosts_of("web")) == 2)
    host = world.seen.hosts_of("web")[0]
    world.seen.history.clear()
    world.control.drain(host)
    world.sweep_until(drained(world, host))
    assert sorted(world.seen.hosts_of("web")) == sorted({"a", "b", "c"} - {host})
    assert min(len(route.endpoints) for told in world.seen.history for route in told) == 2


def test_a_host_that_left_the_lab_is_not_drained_when_it_joins_again(
    make_world: MakeWorld,
) -> None:
    world = make_world(hosts=[a_host("a"), a_host("b", 1)])
    both = world.lab
    world.control.drain("a")
    world.control.apply(replace(both, hosts=both.hosts[1:]))
    assert world.store.load().drains == ()
    world.control.apply(both)
    assert world.control.status().hosts[0].drain is None


# --- bad moments --------------------------------------------------------------------------------


def test_a_wake_in_flight_is_waited_for_and_then_moved(
    make_world: MakeWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = make_world(a_steady("web"), hosts=[a_host("a"), a_host("b", 1)])
    with held_in_start(world.drivers["a"], monkeypatch):
        wake = world.summon("web")
        world.eventually(lambda: world.control.fleet.on("a") != ())
        world.control.drain("a")
        assert not wake.done()
    assert wake.exception(5) is None
    world.sweep_until(drained(world, "a"))
    assert world.seen.hosts_of("web") == ["b"]
    assert len(world.guests()) == 1


def test_undone_in_the_middle_of_a_boot_the_service_has_one_copy_again(
    make_world: MakeWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = make_world(a_steady("web"), hosts=[a_host("a"), a_host("b", 1)])
    world.ask("web")
    with held_in_start(world.drivers["b"], monkeypatch):
        world.control.drain("a")
        world.eventually(lambda: world.control.fleet.on("b") != ())
        world.control.undrain("a")
    world.sweep_until(lambda: world.guests("b") == [] and world.seen.hosts_of("web") == ["a"])
    assert world.control.status().hosts[0].drain is None
    assert world.store.load().drains == ()


def test_undone_between_two_services_the_second_stays(
    make_world: MakeWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = make_world(a_steady("api"), a_steady("web"), hosts=[a_host("a")])
    world.ask("api")
    world.ask("web")
    world.control.apply(replace(world.lab, hosts=(a_host("a"), a_host("b", 1))))
    with held_in_start(world.drivers["b"], monkeypatch):
        world.control.drain("a")
        world.eventually(lambda: world.control.fleet.on("b") != ())
        world.control.undrain("a")
    for _ in range(5):
        world.control.expire()
    assert world.seen.hosts_of("web") == ["a"]


def test_a_host_lost_while_it_is_drained_is_drained_all_the_same(make_world: MakeWorld) -> None:
    world = make_world(a_steady("web"), hosts=[a_host("a"), a_host("b", 1)])
    world.ask("web")
    world.drivers["a"].unreachable("power cut")
    world.eventually(lambda: "a" in world.control.fleet.lost())
    world.control.drain("a")
    world.sweep_until(lambda: world.seen.hosts_of("web") == ["b"])
    assert report_of(world, "a").state == "draining", "its guest may still run there"
    world.drivers["a"].reachable()
    world.sweep_until(drained(world, "a"))
    assert world.guests("a") == []
    assert world.guests("b") == ["ew-t-web-1"]


def test_a_service_that_waits_for_its_lost_host_is_not_moved(make_world: MakeWorld) -> None:
    web = a_steady("web", on_host_loss=OnHostLoss.KEEP)
    world = make_world(web, hosts=[a_host("a"), a_host("b", 1)])
    world.ask("web")
    world.drivers["a"].unreachable("power cut")
    world.eventually(lambda: "a" in world.control.fleet.lost())
    world.control.drain("a")
    world.sweep_until(lambda: report_of(world, "a").stuck != ())
    assert world.guests("b") == []
    world.drivers["a"].reachable()
    world.eventually(lambda: world.control.fleet.lost() == {})
    world.sweep_until(drained(world, "a"))
    assert world.seen.hosts_of("web") == ["b"]


def test_when_the_new_copy_dies_clients_are_led_back_to_the_old_one(
    make_world: MakeWorld,
) -> None:
    world = make_world(a_steady("web", ttl_s=60), hosts=[a_host("a"), a_host("b", 1)])
    world.ask("web")
    world.control.drain("a")
    world.sweep_until(lambda: world.seen.hosts_of("web") == ["b"])
    world.drivers["b"].fail = "out of luck"
    world.drivers["b"].kill("ew-t-web-1")
    world.eventually(lambda: world.seen.hosts_of("web") == [])
    (endpoint,) = world.ask("web")
    assert (endpoint.host, endpoint.instance) == ("a", "ew-t-web-0")
    assert world.drivers["a"].starts == ["ew-t-web-0"], "it was booted again instead of recalled"


def test_a_flapping_host_does_not_bring_back_what_is_ended_by_force(
    make_world: MakeWorld,
) -> None:
    """Clients would be led to it, and then it would end under them."""
    world = make_world(a_steady("web", ttl_s=60))
    world.ask("web")
    world.control.drain("a", force=True)
    world.sweep_until(lambda: world.seen.hosts_of("web") == [])
    world.seen.history.clear()
    world.drivers["a"].unreachable("cable cut")
    world.eventually(lambda: "a" in world.control.fleet.lost())
    world.drivers["a"].reachable()
    world.eventually(lambda: world.control.fleet.lost() == {})
    for _ in range(5):
        world.control.expire()
        time.sleep(0.02)
    assert not any(route.endpoints for told in world.seen.history for route in told)


def test_growing_another_replica_does_not_end_what_caches_may_name(
    make_world: MakeWorld,
) -> None:
    hosts = [a_host(name, index) for index, name in enumerate("abcd")]
    world = make_world(a_steady("web", ttl_s=60, replicas=2), hosts=hosts)
    world.ask("web")
    world.eventually(lambda: len(world.seen.hosts_of("web")) == 2)
    first, second = world.seen.hosts_of("web")
    world.control.drain(first)
    world.sweep_until(lambda: first not in world.seen.hosts_of("web"))
    world.drivers[second].kill(world.guests(second)[0])
    world.sweep_until(lambda: sum(len(driver.starts) for driver in world.drivers.values()) == 4)
    world.sweep_until(lambda: len(world.seen.hosts_of("web")) == 2)
    assert world.guests(first) != []


def test_a_copy_that_crashes_elsewhere_again_and_again_is_no_replacement(
    make_world: MakeWorld,
) -> None:
    """The old one goes on, and new ones are tried ever more rarely."""
    world = make_world(a_steady("web", ttl_s=60), hosts=[a_host("a"), a_host("b", 1)])
    world.ask("web")
    world.control.drain("a")
    end = time.monotonic() + 2.0
    while time.monotonic() < end:
        world.control.expire()
        for guest in world.guests("b"):
            world.drivers["b"].kill(guest)
        world.ask("web")
    assert len(world.drivers["b"].starts) <= 4
    assert world.guests("a") == ["ew-t-web-0"]


def test_room_made_by_undoing_a_drain_is_used_at_once(make_world: MakeWorld) -> None:
    hosts = [a_host("a"), a_host("b", 1)]
    world = make_world(a_steady("web", replicas=2), hosts=hosts)
    world.control.drain("b")
    world.ask("web")
    for _ in range(20):
        world.control.expire()
        time.sleep(0.02)
    world.control.undrain("b")
    world.sweep_until(lambda: len(world.seen.hosts_of("web")) == 2)


def test_a_flapping_host_does_not_bring_a_retired_copy_back(make_world: MakeWorld) -> None:
    world = make_world(a_steady("web", ttl_s=60), hosts=[a_host("a"), a_host("b", 1)])
    world.ask("web")
    world.control.drain("a")
    world.sweep_until(lambda: world.seen.hosts_of("web") == ["b"])
    world.drivers["a"].unreachable("cable cut")
    world.eventually(lambda: "a" in world.control.fleet.lost())
    world.drivers["a"].reachable()
    world.eventually(lambda: world.control.fleet.lost() == {})
    for _ in range(5):
        world.control.expire()
    assert world.seen.hosts_of("web") == ["b"]


# --- a crash at each step -----------------------------------------------------------------------

STAGES = ["wish stored", "copy booting", "copy ready", "old one stopping", "old one gone"]


def crashed_at(world: World, stage: str) -> None:
    """Leave behind what exists if the process ends at this stage of a drain of host a."""
    control, steps = world.control, STAGES.index(stage)
    old = control.fleet.get("ew-t-web-0")
    assert old is not None
    world.store.save_drain(Drain("a", 1.0))
    if steps == 1:
        world.store.save(control.fleet.reserve("web", only="b"))
    if steps >= 2:
        control.drain("a")
        world.sweep_until(lambda: world.seen.hosts_of("web") == ["b"])
    if steps == 3:
        world.store.save(old.step(STOPPING))
    if steps == 4:
        world.machines["a"].guests.clear()
        world.store.remove(old, rest_until=0.0)


@pytest.mark.parametrize("stage", STAGES)
def test_a_restart_goes_on_with_the_drain(
    make_world: MakeWorld, tmp_path: Path, stage: str
) -> None:
    store = SqlStore(f"sqlite:///{tmp_path}/state.db")
    hosts = [a_host("a"), a_host("b", 1)]
    world = make_world(a_steady("web", ttl_s=60), hosts=hosts, store=store)
    world.ask("web")
    crashed_at(world, stage)
    world.crash()
    world.store.close()
    world.store = SqlStore(f"sqlite:///{tmp_path}/state.db")
    world.lab = replace(world.lab, services=(a_steady("web", ttl_s=0),))
    world.start()
    assert world.control.fleet.draining() == {"a"}
    world.sweep_until(lambda: drained(world, "a")() and world.seen.hosts_of("web") == ["b"])
    assert (world.guests("a"), len(world.guests("b"))) == ([], 1)
    assert len(world.store.load().instances) == 1

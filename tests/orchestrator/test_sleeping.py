"""The ladder in a world of memory: down rung by rung, up by the shortest way, room where needed."""

import threading
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial

import pytest

from orchestrator.errors import DiskFull, HostUnreachable, StartFailed
from orchestrator.hypervisors.base import Depth
from orchestrator.model import (
    Capacity,
    IdlePolicy,
    Instance,
    InstanceState,
    Migrate,
    Rung,
    Service,
)
from orchestrator.store.memory import MemoryStore
from tests.world import World, a_host, a_service

MakeWorld = Callable[..., World]
BOOT_S = 0.05  # or a boot in memory would be no slower than anything else
LADDER = IdlePolicy(after_s=0.05, min_up_s=0.0, paused_s=0.1, saved_s=0.1)
STAYS = IdlePolicy(after_s=0.05, min_up_s=0.0, paused_s=None)


@pytest.fixture
def make_world(make_world: MakeWorld) -> MakeWorld:
    return partial(make_world, boot_s=BOOT_S)


def a_sleeper(name: str = "web", idle: IdlePolicy = LADDER, **changes: object) -> Service:
    return a_service(name, idle=idle, **changes)


def the_instance(world: World, service: str = "web") -> Instance:
    (instance,) = world.control.fleet.of(service)
    return instance


def state_of(world: World, service: str = "web") -> str:
    instances = world.control.fleet.of(service)
    return str(instances[0].state) if instances else "cold"


def asleep(world: World, *services: str) -> World:
    """Wake the services and have each go down one rung."""
    for service in services:
        world.ask(service)
        world.control.release(service)
    return world


def kinds(world: World) -> list[str]:
    return [event.kind for event in world.events()]


# --- down -----------------------------------------------------------------------------------------


def test_an_unused_service_sinks_from_rung_to_rung(make_world: MakeWorld) -> None:
    world = make_world(a_sleeper())
    world.ask("web")
    seen = ["ready"]

    def sunk() -> bool:
        world.control.expire()
        if state_of(world) != seen[-1]:
            seen.append(state_of(world))
        return seen[-1] == "cold"

    world.eventually(sunk, 10)
    assert seen == ["ready", "paused", "saved", "cold"]
    assert world.guests() == []
    assert world.machines["a"].saved == {}
    assert world.store.load().instances == ()


def test_a_paused_instance_holds_memory_and_a_saved_one_does_not(make_world: MakeWorld) -> None:
    world = make_world(a_sleeper())
    world.ask("web")
    held = world.control.fleet.used("a")
    world.control.release("web")
    paused = world.control.fleet.used("a")
    assert (paused.memory_mib, paused.cpu) == (held.memory_mib, 0.0)
    world.control.release("web")
    assert state_of(world) == "saved"
    assert world.control.fleet.used("a").memory_mib == 0


def test_nobody_is_led_to_what_sleeps(make_world: MakeWorld) -> None:
    world = asleep(make_world(a_sleeper()), "web")
    assert state_of(world) == "paused"
    assert world.seen.hosts_of("web") == []
    assert world.control.fleet.endpoints("web") == ()


def test_one_may_name_the_rung(make_world: MakeWorld) -> None:
    world = make_world(a_sleeper())
    world.ask("web")
    assert world.control.release("web", Rung.SAVED) == ("ew-t-web-0",)
    assert state_of(world) == "saved"
    world.control.release("web", Rung.COLD)
    assert state_of(world) == "cold"


def test_status_tells_the_rung(make_world: MakeWorld) -> None:
    world = asleep(make_world(a_sleeper()), "web")
    (status,) = world.control.status().services
    assert (status.state, status.rung) == ("asleep", Rung.PAUSED)


# --- up -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rung", [Rung.PAUSED, Rung.SAVED])
def test_a_wake_rouses_what_sleeps(make_world: MakeWorld, rung: Rung) -> None:
    world = make_world(a_sleeper())
    (before,) = world.ask("web")
    world.control.release("web", rung)
    (after,) = world.ask("web")
    assert after == before, "the same instance at the same address"
    assert world.drivers["a"].starts == ["ew-t-web-0"], "nothing was booted"
    assert state_of(world) == "ready"
    wake = world.control.wakes.last("web")[-1]
    assert (wake.outcome, wake.rung) == ("ready", rung)
    stages = [stage for stage, _ in wake.stamps]
    assert stages == ["query", "taken", "decided", "claimed", "roused", "answer", "stored"]
    assert world.store.load().instances == (the_instance(world),)
    assert world.machines["a"].saved == {}


def test_a_hundred_callers_share_one_rouse(make_world: MakeWorld) -> None:
    world = asleep(make_world(a_sleeper()), "web")
    rouses: list[str] = []
    driver = world.drivers["a"]
    rouse = driver.rouse
    driver.rouse = lambda name: (rouses.append(name), time.sleep(0.05), rouse(name))[2]  # type: ignore[assignment,func-returns-value]
    answers = {future.result(5) for future in [world.summon("web") for _ in range(100)]}
    assert len(answers) == 1
    assert rouses == ["ew-t-web-0"]


def test_replicas_that_sleep_are_roused_before_others_are_booted(make_world: MakeWorld) -> None:
    web = a_sleeper(replicas=2)
    world = make_world(web, hosts=[a_host("a"), a_host("b", 1)])
    world.ask("web")
    world.eventually(lambda: len(world.control.fleet.serving("web")) == 2)
    world.control.release("web")
    assert {each.state for each in world.control.fleet.of("web")} == {InstanceState.PAUSED}
    world.ask("web")
    world.eventually(lambda: len(world.control.fleet.serving("web")) == 2)
    starts = [*world.drivers["a"].starts, *world.drivers["b"].starts]
    assert sorted(starts) == ["ew-t-web-0", "ew-t-web-1"]


# --- abilities ------------------------------------------------------------------------------------


def test_a_rung_is_probed_once_per_image_and_host_and_stored(make_world: MakeWorld) -> None:
    store = MemoryStore()
    services = a_sleeper("web"), a_sleeper("other")
    world = asleep(make_world(*services, store=store), "web", "other")
    assert kinds(world).count("probed") == 1
    (ability,) = store.load().abilities
    assert (ability.host, ability.rung, ability.works) == ("a", Rung.PAUSED, True)
    world.crash()
    world.start()
    asleep(world, "web")
    assert kinds(world).count("probed") == 1


def test_abilities_can_be_forgotten(make_world: MakeWorld) -> None:
    world = asleep(make_world(a_sleeper()), "web")
    world.control.forget_abilities()
    assert world.control.abilities() == ()
    assert world.store.load().abilities == ()
    asleep(world, "web")
    assert kinds(world).count("probed") == 2


def test_a_guest_that_cannot_be_paused_takes_the_next_rung(make_world: MakeWorld) -> None:
    world = make_world(a_sleeper())
    driver = world.drivers["a"]
    sleep = driver.sleep

    def refuse(instance: str, depth: Depth) -> None:
        if depth is Depth.PAUSED:
            raise StartFailed("a", "it cannot be paused")
        sleep(instance, depth)

    driver.sleep = refuse  # type: ignore[method-assign]
    asleep(world, "web")
    assert state_of(world) == "saved"
    paused = next(each for each in world.control.abilities() if each.rung is Rung.PAUSED)
    assert (paused.works, paused.why) == (False, "host a: it cannot be paused")


def test_a_guest_that_does_not_survive_its_probe_is_ended(make_world: MakeWorld) -> None:
    idle = replace(LADDER, saved_s=0.0)
    world = make_world(a_sleeper(idle=idle))
    driver = world.drivers["a"]
    rouse = driver.rouse

    def rouse_and_die(instance: str) -> None:
        rouse(instance)
        if world.machines["a"].guests[instance].state == "running" and driver.starts:
            world.answer_s["web"] = None

    world.ask("web")
    driver.rouse = rouse_and_die  # type: ignore[method-assign]
    world.control.release("web")
    assert state_of(world) == "cold"
    assert world.guests() == []
    (ability,) = world.control.abilities()
    assert not ability.works
    assert "did not answer" in ability.why
    world.answer_s["web"] = 0.0
    asleep(world, "web")
    assert state_of(world) == "cold", "it is not tried again"


def test_a_service_that_may_not_sleep_so_deeply_stays_up(make_world: MakeWorld) -> None:
    world = make_world(a_sleeper(idle=replace(LADDER, deepest=Rung.PAUSED)))
    world.drivers["a"].sleep = lambda *_: (_ for _ in ()).throw(StartFailed("a", "no pause here"))  # type: ignore[method-assign,assignment]
    (endpoint,) = world.ask("web")
    time.sleep(0.06)
    assert world.control.expire() == ()
    assert world.control.fleet.endpoints("web") == (endpoint,)
    assert world.seen.hosts_of("web") == ["a"]
    time.sleep(0.06)
    assert world.control.expire() == ()
    (status,) = world.control.status().services
    assert "may not sleep more deeply than paused" in status.idle
    assert "no pause here" in status.idle


# --- room -----------------------------------------------------------------------------------------


def test_what_is_paused_gives_way_to_a_boot(make_world: MakeWorld) -> None:
    services = a_sleeper("a", STAYS), a_sleeper("b", STAYS), a_sleeper("c", STAYS)
    world = asleep(make_world(*services, hosts=[a_host("h", memory_mib=250)]), "a", "b")
    assert {state_of(world, name) for name in "ab"} == {"paused"}
    world.ask("c")
    assert sorted(state_of(world, name) for name in "abc") == ["paused", "ready", "saved"]
    assert "made-room" in kinds(world)


def test_the_least_valuable_gives_way_first(make_world: MakeWorld) -> None:
    services = a_sleeper("often", STAYS), a_sleeper("rare", STAYS), a_sleeper("new", STAYS)
    world = asleep(make_world(*services, hosts=[a_host("h", memory_mib=250)]), "often", "rare")
    for _ in range(3):
        asleep(world, "often")
        world.control.expire()
    world.ask("new")
    assert (state_of(world, "often"), state_of(world, "rare")) == ("paused", "saved")


def test_what_nobody_uses_gives_way_before_its_time(make_world: MakeWorld) -> None:
    late = IdlePolicy(after_s=600.0, min_up_s=0.0)
    world = make_world(a_sleeper("a", late), a_sleeper("b", late), hosts=[a_host("h", 0, 150)])
    world.ask("a")
    assert world.summon("b").exception(5) is not None, "it was used a moment ago"
    world.control.asked["a"] -= 10
    world.control._usage._up_at["a"] -= 10
    world.ask("b")
    assert (state_of(world, "a"), state_of(world, "b")) == ("saved", "ready")


def test_room_is_made_for_what_comes_back_from_disk(make_world: MakeWorld) -> None:
    services = a_sleeper("a", STAYS), a_sleeper("b", STAYS)
    world = make_world(*services, hosts=[a_host("h", memory_mib=150)])
    world.ask("a")
    world.control.release("a", Rung.SAVED)
    asleep(world, "b")
    (endpoint,) = world.ask("a")
    assert endpoint.host == "h"
    assert (state_of(world, "a"), state_of(world, "b")) == ("ready", "saved")


def test_a_host_that_is_overfull_is_relieved(make_world: MakeWorld) -> None:
    services = a_sleeper("a", STAYS), a_sleeper("b", STAYS)
    world = asleep(make_world(*services, hosts=[a_host("h", memory_mib=250)]), "a", "b")
    world.control.fleet.host_answered("h", Capacity(64.0, -60), world.guests())
    lacking = world.control.fleet.lacking_mib("h")
    assert lacking == 60
    assert world.control._sleeper.make_room("h", lacking)
    assert sorted(state_of(world, name) for name in "ab") == ["paused", "saved"]


def test_what_may_not_be_saved_or_ended_keeps_its_memory(make_world: MakeWorld) -> None:
    kept = replace(STAYS, deepest=Rung.PAUSED)
    world = make_world(
        a_sleeper("a", kept), a_sleeper("b", kept), hosts=[a_host("h", memory_mib=150)]
    )
    asleep(world, "a")
    error = world.summon("b").exception(5)
    assert "memory" in str(error)
    assert state_of(world, "a") == "paused"


# --- restart --------------------------------------------------------------------------------------


@pytest.mark.parametrize("rung", [Rung.PAUSED, Rung.SAVED])
def test_what_sleeps_is_found_again(make_world: MakeWorld, rung: Rung) -> None:
    world = make_world(a_sleeper())
    (before,) = world.ask("web")
    world.control.release("web", rung)
    world.crash()
    world.start()
    assert state_of(world) == rung
    assert world.seen.hosts_of("web") == []
    assert world.ask("web") == (before,)
    assert world.drivers["a"].starts == [], "it was roused"


@pytest.mark.parametrize("rung", [Rung.PAUSED, Rung.SAVED])
def test_a_crash_before_the_sleep_was_stored_is_made_good(
    make_world: MakeWorld, rung: Rung
) -> None:
    world = make_world(a_sleeper())
    (before,) = world.ask("web")
    world.crash()
    world.machine("a").sleep(before.instance, Depth(rung))
    world.start()
    assert state_of(world) == rung
    assert the_instance(world) in world.store.load().instances
    assert world.ask("web") == (before,)


def test_a_crash_in_the_middle_of_a_rouse_leads_to_what_runs(make_world: MakeWorld) -> None:
    world = asleep(make_world(a_sleeper()), "web")
    world.crash()
    world.machine("a").rouse("ew-t-web-0")
    world.start()
    world.eventually(lambda: world.seen.hosts_of("web") == ["a"])
    assert state_of(world) == "ready"


@pytest.mark.parametrize("rung", [Rung.PAUSED, Rung.SAVED])
def test_what_sleeps_without_a_record_is_adopted(make_world: MakeWorld, rung: Rung) -> None:
    world = make_world(a_sleeper())
    (before,) = world.ask("web")
    world.control.release("web", rung)
    world.crash()
    world.store = MemoryStore()
    world.start()
    assert state_of(world) == rung
    assert world.ask("web") == (before,)


def test_what_sleeps_of_a_service_that_is_gone_is_ended(make_world: MakeWorld) -> None:
    world = make_world(a_sleeper("web"), a_sleeper("other"))
    world.ask("web")
    world.control.release("web", Rung.SAVED)
    world.crash()
    world.store = MemoryStore()
    world.lab = replace(world.lab, services=world.lab.services[1:])
    world.start()
    world.eventually(lambda: world.machines["a"].saved == {})


# --- when it goes wrong ---------------------------------------------------------------------------


def test_a_restore_that_fails_falls_back_to_a_boot_and_says_why(make_world: MakeWorld) -> None:
    world = make_world(a_sleeper())
    (before,) = world.ask("web")
    world.control.release("web", Rung.SAVED)
    driver = world.drivers["a"]

    def broken(_instance: str) -> None:
        raise StartFailed("a", "the file is damaged")

    driver.rouse = broken  # type: ignore[method-assign]
    (after,) = world.ask("web")
    assert after.address == before.address, "what the dead one had is free again"
    assert len(driver.starts) == 2
    (event,) = world.events("rouse-failed")
    assert "the file is damaged" in event.text
    assert world.machines["a"].saved == {}


def test_a_guest_that_never_answers_again_is_booted_anew(make_world: MakeWorld) -> None:
    world = make_world(a_sleeper(deadline_s=4.0))
    world.ask("web")
    world.control.release("web")
    world.answer_s["web"] = None
    start = world.drivers["a"].start

    def boot(guest: object, stamp: object) -> None:
        world.answer_s["web"] = 0.0
        start(guest, stamp)  # type: ignore[arg-type]

    world.drivers["a"].start = boot  # type: ignore[method-assign,assignment]
    world.ask("web")
    assert "rouse-failed" in kinds(world)
    assert len(world.guests()) == 1


def test_what_fails_to_come_back_twice_is_not_tried_again(make_world: MakeWorld) -> None:
    world = make_world(a_sleeper())
    driver = world.drivers["a"]
    world.ask("web")
    for _ in range(2):
        world.control.release("web")
        assert state_of(world) == "paused"
        rouse = driver.rouse
        driver.rouse = lambda _name: (_ for _ in ()).throw(StartFailed("a", "stuck"))  # type: ignore[method-assign,assignment]
        world.ask("web")
        driver.rouse = rouse  # type: ignore[method-assign]
    world.control.release("web")
    assert state_of(world) == "saved"
    paused = next(each for each in world.control.abilities() if each.rung is Rung.PAUSED)
    assert not paused.works
    assert "stuck" in paused.why


def test_a_full_disk_ends_what_cannot_be_saved_and_says_so(make_world: MakeWorld) -> None:
    world = make_world(a_sleeper())
    world.ask("web")
    world.control.release("web")
    world.control.release("web", Rung.SAVED)
    world.ask("web")
    world.control.release("web")

    def full(_instance: str, _depth: Depth) -> None:
        raise StartFailed("a", "No space left on device")

    world.drivers["a"].sleep = full  # type: ignore[method-assign]
    world.control.release("web")
    assert state_of(world) == "cold"
    (event,) = world.events("sleep-failed")
    assert "No space left on device" in event.text
    assert world.control.abilities()[1].works, "a full disk is no fault of the image"


def test_a_host_that_is_lost_does_not_keep_its_sleepers_services_down(
    make_world: MakeWorld,
) -> None:
    world = make_world(a_sleeper(), hosts=[a_host("a"), a_host("b", 1)])
    (before,) = world.ask("web")
    world.control.release("web")
    world.drivers[before.host].unreachable("cable cut")
    world.eventually(lambda: before.host in world.control.fleet.lost())
    (after,) = world.ask("web")
    assert after.host != before.host
    world.drivers[before.host].reachable()
    world.eventually(lambda: before.host not in world.control.fleet.lost())


def test_a_host_that_vanishes_while_it_rouses_is_left_for_another(make_world: MakeWorld) -> None:
    world = make_world(a_sleeper(), hosts=[a_host("a"), a_host("b", 1)])
    (before,) = world.ask("web")
    world.control.release("web")

    def gone(_instance: str) -> None:
        raise HostUnreachable(before.host, "no route to host")

    world.drivers[before.host].rouse = gone  # type: ignore[method-assign]
    (after,) = world.ask("web")
    assert after.host != before.host


def test_what_is_killed_in_its_sleep_is_only_cold(make_world: MakeWorld) -> None:
    world = asleep(make_world(a_sleeper()), "web")
    world.drivers["a"].kill("ew-t-web-0", "destroyed")
    world.eventually(lambda: world.control.fleet.instances() == ())
    (status,) = world.control.status().services
    assert (status.state, status.trouble) == ("asleep", "")
    assert world.ask("web")


# --- beside the rest ------------------------------------------------------------------------------


def test_a_drain_ends_what_sleeps(make_world: MakeWorld) -> None:
    world = make_world(a_sleeper(), hosts=[a_host("a"), a_host("b", 1)])
    (endpoint,) = world.ask("web")
    world.control.release("web")
    world.control.drain(endpoint.host)
    world.eventually(lambda: world.guests(endpoint.host) == [])
    (after,) = world.ask("web")
    assert after.host != endpoint.host


def test_a_drain_leaves_what_only_ever_migrates_asleep(make_world: MakeWorld) -> None:
    web = a_sleeper(migrate=Migrate.LIVE_ONLY)
    world = make_world(web, hosts=[a_host("a"), a_host("b", 1)])
    (endpoint,) = world.ask("web")
    world.control.release("web")
    world.control.drain(endpoint.host)
    world.eventually(lambda: "drain-stuck" in kinds(world))
    assert state_of(world) == "paused"
    world.control.drain(endpoint.host, force=True)
    world.eventually(lambda: state_of(world) == "cold")


def test_another_lab_ends_what_sleeps_of_a_changed_service(make_world: MakeWorld) -> None:
    world = asleep(make_world(a_sleeper()), "web")
    (web,) = world.lab.services
    changed = replace(web, config=(("greeting", "hello"),))
    world.control.apply(replace(world.lab, services=(changed,)))
    assert world.guests() == []
    assert world.ask("web")


def test_a_copy_that_sleeps_beside_enough_others_is_ended(make_world: MakeWorld) -> None:
    web = a_sleeper(idle=IdlePolicy(after_s=None))
    world = make_world(web, hosts=[a_host("a", memory_mib=150), a_host("b", 1)])
    world.ask("web")
    (instance,) = world.control.fleet.of("web")
    world.control.release("web", Rung.SAVED)
    world.control.fleet.refuse(instance.host, "its network is wrong")
    (after,) = world.ask("web")
    assert after.host != instance.host
    world.control.fleet.refuse(instance.host, "")
    world.control.expire()
    world.eventually(lambda: [e.name for e in world.control.fleet.of("web")] == [after.instance])


def test_a_disk_that_is_full_says_nothing_of_the_guest(make_world: MakeWorld) -> None:
    """It would be remembered for ever otherwise, as a guest that does not survive being saved."""
    deepest_saved = replace(LADDER, paused_s=0.0, deepest=Rung.SAVED)
    world = make_world(a_sleeper(idle=deepest_saved))
    (before,) = world.ask("web")
    driver = world.drivers["a"]

    def full(_name: str, _depth: Depth) -> None:
        raise DiskFull("a", "No space left on device")

    driver.sleep = full  # type: ignore[method-assign]
    assert world.control.release("web") == ()
    assert "No space left" in world.events("sleep-failed")[0].text
    assert world.control.abilities() == ()
    assert world.ask("web") == (before,), "it goes on"
    del driver.sleep  # type: ignore[attr-defined]
    assert world.control.release("web") == (before.instance,)
    assert state_of(world) == "saved"


def test_a_probe_that_a_stop_cuts_off_has_found_out_nothing(make_world: MakeWorld) -> None:
    world = make_world(a_sleeper())
    world.ask("web")
    world.answer_s["web"] = None
    slept: list[tuple[str, ...]] = []
    release = threading.Thread(target=lambda: slept.append(world.control.release("web")))
    release.start()
    world.eventually(lambda: world.control._sleeper.in_hand("ew-t-web-0"))
    world.control.close()
    release.join(5)
    assert slept == [()]
    assert world.store.load().abilities == ()
    world.answer_s.clear()
    world.start()
    assert state_of(world) == "ready"


# --- what is kept warm ----------------------------------------------------------------------------


def test_a_warm_plan_is_told_what_was_measured_and_found_out(make_world: MakeWorld) -> None:
    world = asleep(make_world(a_sleeper()), "web")
    costs = world.control._sleeper.wake_costs()
    assert costs["web", "a", "paused"] < costs["web", "a", "cold"]
    assert "saved" in world.control._sleeper.rungs()["web", "a"], "nobody knows yet"

    def refuse(_instance: str, _depth: Depth) -> None:
        raise StartFailed("a", "it cannot sleep")

    world.control.forget_abilities()
    world.drivers["a"].sleep = refuse  # type: ignore[method-assign]
    world.ask("web")
    world.control.release("web")
    assert world.control._sleeper.rungs()["web", "a"] == {"ready", "cold"}
    (line,) = world.control.warm().lines
    assert line.rung in {"ready", "cold"}


# --- traffic --------------------------------------------------------------------------------------


@pytest.mark.parametrize("rung", [Rung.PAUSED, Rung.SAVED, Rung.COLD])
def test_a_packet_wakes_what_sleeps_at_any_rung_and_is_delivered(
    make_world: MakeWorld, rung: Rung
) -> None:
    world = make_world(a_sleeper())
    (before,) = world.ask("web")
    world.control.release("web", rung)
    (guarded,) = world.guards["a"].guarded
    assert (guarded.address, guarded.remembers) == (before.address, rung is not Rung.COLD)
    world.guards["a"].send(before.address, b"hello")
    world.eventually(lambda: world.guards["a"].delivered.get(before.address) == [b"hello"])
    assert the_instance(world).address == before.address
    assert len(world.drivers["a"].starts) == (2 if rung is Rung.COLD else 1)
    assert world.control.wakes.last("web")[-1].by.startswith("traffic")


@pytest.mark.parametrize("rung", [Rung.PAUSED, Rung.SAVED, Rung.COLD])
def test_a_packet_in_the_moment_of_falling_asleep_is_not_lost(
    make_world: MakeWorld, rung: Rung
) -> None:
    world = make_world(a_sleeper())
    (before,) = world.ask("web")
    world.control.release("web")
    world.ask("web")  # what it survives is known from here on
    driver = world.drivers["a"]
    name = "stop" if rung is Rung.COLD else "sleep"
    falls_asleep = getattr(driver, name)

    def sleep(*args: object) -> None:
        world.guards["a"].send(before.address, b"late")
        falls_asleep(*args)

    setattr(driver, name, sleep)
    world.control.release("web", rung)
    world.eventually(lambda: world.guards["a"].delivered.get(before.address) == [b"late"])
    assert the_instance(world).address == before.address

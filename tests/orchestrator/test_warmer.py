"""The warm plan carried out: booted ahead, kept where it rests, and never in anybody's way."""

import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import replace
from ipaddress import ip_network

import pytest

from orchestrator.errors import StartFailed
from orchestrator.hours import Hours
from orchestrator.hypervisors.base import Depth
from orchestrator.model import (
    Capacity,
    Client,
    Endpoint,
    Host,
    IdlePolicy,
    Population,
    Router,
    Rung,
    Service,
    WarmPlanning,
)
from orchestrator.store.memory import MemoryStore
from orchestrator.warming import Aims
from placement.warm import WarmTarget
from tests.world import World, a_host, a_service
from web.models.services import ServiceDocument

MakeWorld = Callable[..., World]
BOOT_S = 0.05  # or a boot in memory would be no slower than anything else
STAYS = IdlePolicy(after_s=60.0, min_up_s=0.0)
SINKS = IdlePolicy(after_s=0.05, min_up_s=0.0, paused_s=0.05, saved_s=0.05)


@pytest.fixture
def make_warm(make_world: MakeWorld) -> MakeWorld:
    """Return a maker of worlds whose clients ask now and then, and whose warm plan is followed."""

    def make(
        *services: Service,
        hosts: tuple[Host, ...] = (a_host("a"),),
        warm: WarmPlanning = WarmPlanning.AUTO,
        rate: float = 0.01,
        **more: object,
    ) -> World:
        placed = tuple(replace(host, router="r") for host in hosts)
        world = make_world(*services, hosts=placed, start=False, boot_s=BOOT_S, **more)
        home = Population("home", (ip_network("192.0.2.0/24"),), "r", requests_s=rate)
        world.lab = replace(world.lab, warm=warm, routers=(Router("r"),), populations=(home,))
        world.start()
        return world

    return make


def a_sleeper(name: str = "web", idle: IdlePolicy = STAYS, **changes: object) -> Service:
    return a_service(name, idle=idle, **changes)


def rung_of(world: World, service: str = "web") -> str:
    return str(next(s.rung for s in world.control.status().services if s.service.name == service))


def sweep_for(world: World, seconds: float) -> None:
    """Sweep for some time, with what a sweep begins brought to its end."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        world.control.expire()
        time.sleep(0.01)
    world.control._warming.call(lambda: None).result(10)


def warmed(world: World, *services: str, rung: Rung = Rung.PAUSED) -> World:
    """Sweep until services rest at a rung."""
    for service in services:
        world.sweep_until(lambda name=service: rung_of(world, name) == rung)  # type: ignore[misc]
    return world


# --- what is booted ahead -------------------------------------------------------------------------


def test_a_service_that_nobody_asked_for_answers_from_a_pause(make_warm: MakeWorld) -> None:
    world = warmed(make_warm(a_sleeper()), "web")
    (instance,) = world.control.fleet.of("web")
    assert world.control.wakes.last() == (), "nobody has waited for anything"
    assert not any(route.endpoints for told in world.seen.history for route in told)
    (event,) = world.events("kept-warm")
    assert event.text == "ew-t-web-0 on a was booted ahead, and is paused"
    assert world.store.load().instances == (instance,)
    (endpoint,) = world.ask("web")
    assert endpoint.address == instance.address
    (wake,) = world.control.wakes.last()
    assert (wake.rung, wake.by) == ("paused", "query")
    assert world.drivers["a"].starts == ["ew-t-web-0"]


def test_it_rests_where_its_policy_lets_it(make_warm: MakeWorld) -> None:
    world = make_warm(a_sleeper(idle=replace(STAYS, paused_s=0.0)), a_sleeper("api"))
    warmed(warmed(world, "web", rung=Rung.SAVED), "api", rung=Rung.PAUSED)
    assert [each.rung for each in world.control.abilities()] == ["paused", "saved"]


def test_what_clients_are_seen_to_use_counts(make_warm: MakeWorld) -> None:
    world = make_warm(a_sleeper(idle=SINKS), a_sleeper("api"), rate=0.0)
    sweep_for(world, 0.1)
    assert world.drivers["a"].starts == []
    world.ask("web")
    world.control.expire()
    world.control.apply(replace(world.control.lab))
    world.sweep_until(lambda: rung_of(world) == "paused")
    sweep_for(world, 0.3)
    assert (rung_of(world), rung_of(world, "api")) == ("paused", "cold")


def test_our_own_probes_are_no_use(make_warm: MakeWorld) -> None:
    world = make_warm(a_sleeper())
    before = world.control._rates.of("web", time.monotonic())
    used = lambda _service: time.monotonic()  # noqa: E731 - its guest exchanges packets with us
    world.control._usage.traffic_of = used  # type: ignore[method-assign]
    warmed(world, "web")
    sweep_for(world, 0.1)
    assert world.control._rates.of("web", time.monotonic()) == before


@pytest.mark.parametrize(
    "idle",
    [
        IdlePolicy(after_s=None),
        replace(STAYS, paused_s=0.0, saved_s=0.0),
        replace(STAYS, deepest=Rung.PAUSED, paused_s=0.0),
    ],
)
def test_policies_come_first(make_warm: MakeWorld, idle: IdlePolicy) -> None:
    world = make_warm(a_sleeper(idle=idle))
    sweep_for(world, 0.1)
    assert world.guests() == []


def test_without_the_lab_saying_so_nothing_is_done(make_warm: MakeWorld) -> None:
    world = make_warm(a_sleeper(), warm=WarmPlanning.OFF)
    sweep_for(world, 0.1)
    assert world.guests() == []
    assert world.control.warm().targets == (WarmTarget("web", "a", "paused"),)


@pytest.mark.parametrize(
    "idle", [replace(STAYS, pin=True), replace(STAYS, keep_warm=(Hours.parse("* * * * *"),))]
)
def test_who_has_to_be_awake_is_woken_outright(make_warm: MakeWorld, idle: IdlePolicy) -> None:
    world = make_warm(a_sleeper(idle=idle))
    world.sweep_until(lambda: rung_of(world) == "ready")
    sweep_for(world, 0.1)
    assert world.events("kept-warm") == []


# --- what rests where it is -----------------------------------------------------------------------


def test_it_does_not_sink_while_the_plan_keeps_it(make_warm: MakeWorld) -> None:
    world = warmed(make_warm(a_sleeper(idle=SINKS)), "web")
    sweep_for(world, 0.3)
    (status,) = world.control.status().services
    assert (status.rung, status.kept) == ("paused", True)
    assert ServiceDocument.of(status).kept is True
    world.control.apply(replace(world.lab, warm=WarmPlanning.OFF))
    world.sweep_until(lambda: rung_of(world) == "cold")
    assert not world.control.status().services[0].kept
    sweep_for(world, 0.1)
    assert world.guests() == []


def test_after_use_it_goes_back_to_where_the_plan_keeps_it(make_warm: MakeWorld) -> None:
    world = warmed(make_warm(a_sleeper(idle=SINKS)), "web")
    world.ask("web")
    warmed(world, "web")
    sweep_for(world, 0.3)
    assert rung_of(world) == "paused"
    assert world.drivers["a"].starts == ["ew-t-web-0"]


def test_who_is_kept_no_longer_rests_its_time_from_then(make_warm: MakeWorld) -> None:
    world = warmed(make_warm(a_sleeper(idle=replace(SINKS, paused_s=30.0))), "web")
    (instance,) = world.control.fleet.of("web")
    sleeper, service = world.control._sleeper, world.lab.service("web")
    sleeper._since[instance.name] = time.monotonic() - 60.0
    assert not sleeper.is_due(instance, service)
    world.control.apply(replace(world.lab, warm=WarmPlanning.OFF))
    world.control.expire()
    assert not sleeper.is_due(instance, service), "its time has just begun"
    sleeper._since[instance.name] = time.monotonic() - 60.0
    assert sleeper.is_due(instance, service)


def test_who_was_taken_deeper_is_kept_there(make_warm: MakeWorld) -> None:
    """Paused, its memory is anybody's; saved, it waits for its next use."""
    names = ("web", "api", "db")
    world = make_warm(*(a_sleeper(name, SINKS) for name in names), hosts=(a_host("a", 0, 210),))
    paused = lambda: [name for name in names if rung_of(world, name) == "paused"]  # noqa: E731
    rungs = lambda: sorted(rung_of(world, name) for name in names)  # noqa: E731
    world.sweep_until(lambda: rungs() == ["paused", "saved", "saved"])
    (rests,) = paused()
    for name in names:
        if name != rests:
            world.ask(name)
            world.control.asked[name] = time.monotonic() + 60.0  # they stay in use
    assert rung_of(world, rests) == "saved"
    (event,) = world.events("made-room")
    assert event.subject == rests
    sweep_for(world, 0.2)
    assert rung_of(world, rests) == "saved"


def test_a_restart_finds_it_asleep(make_warm: MakeWorld) -> None:
    store = MemoryStore()
    world = warmed(make_warm(a_sleeper(idle=SINKS), store=store), "web")
    world.crash()
    world.start()
    sweep_for(world, 0.3)
    assert (rung_of(world), world.control.status().services[0].kept) == ("paused", True)
    assert world.machines["a"].guests.keys() == {"ew-t-web-0"}
    assert world.drivers["a"].starts == []


def test_a_restart_in_the_middle_of_a_boot_loses_nothing(make_warm: MakeWorld) -> None:
    world = make_warm(a_sleeper(idle=SINKS))
    world.answer_s["web"] = None
    world.sweep_until(lambda: world.guests() == ["ew-t-web-0"])
    stored = world.store.load().instances
    world.crash()
    for instance in stored:
        world.store.save(instance)
    world.answer_s.clear()
    world.start()
    warmed(world, "web")
    assert len(world.guests()) == 1


# --- nobody's way ---------------------------------------------------------------------------------


def asking(world: World, service: str = "web") -> Future[tuple[Endpoint, ...]]:
    return world.control.summon(service, Client()).endpoints


def coming(world: World, service: str = "web") -> Callable[[], bool]:
    return lambda: any(each.state == "booting" for each in world.control.fleet.of(service))


def test_a_query_in_the_middle_of_the_boot_is_served_by_it(make_warm: MakeWorld) -> None:
    world = make_warm(a_sleeper())
    world.answer_s["web"] = 0.2
    world.sweep_until(coming(world))
    (endpoint,) = asking(world).result(5)
    assert world.drivers["a"].starts == [endpoint.instance]
    (wake,) = world.control.wakes.last()
    assert (wake.outcome, wake.rung, wake.decided_by) == ("ready", "", "it answered by then")
    assert world.seen.hosts_of("web") == ["a"]
    assert rung_of(world) == "ready"
    assert world.events("kept-warm") == []


def test_a_query_while_it_falls_asleep_brings_it_back(make_warm: MakeWorld) -> None:
    world = make_warm(a_sleeper())
    driver, sleep = world.drivers["a"], world.drivers["a"].sleep
    falling, go_on = threading.Event(), threading.Event()

    def slowly(instance: str, depth: Depth) -> None:
        falling.set()
        assert go_on.wait(5)
        sleep(instance, depth)

    driver.sleep = slowly  # type: ignore[method-assign]
    world.sweep_until(falling.is_set)
    asked = asking(world)
    go_on.set()
    (endpoint,) = asked.result(5)
    assert driver.starts == [endpoint.instance]
    assert world.control.wakes.last()[0].rung == "paused"


def test_a_query_during_a_boot_that_fails_has_time_for_another(make_warm: MakeWorld) -> None:
    world = make_warm(a_sleeper(deadline_s=2.0))
    world.answer_s["web"] = None
    world.sweep_until(lambda: "ew-t-web-0" in world.control._boots._waiting)
    world.answer_s.clear()  # the guest that boots stays silent; the next one will not
    assert asking(world).result(5)
    assert world.control.wakes.last()[0].outcome == "ready"


def test_what_fails_is_told_once_and_left_alone(make_warm: MakeWorld) -> None:
    world = make_warm(a_sleeper(deadline_s=0.1))
    world.answer_s["web"] = None
    world.sweep_until(lambda: len(world.events("boot-failed")) >= 2)
    (event,) = world.events("not-kept-warm")
    assert "a: web: ew-t-web-0 on a did not answer within" in event.text
    row = world.control._warmer._failures.row("web")
    assert row.retry_at > row.last_at, "the third try is a second later"
    assert world.control.wakes.last() == ()
    world.answer_s.clear()
    assert world.ask("web"), "clients are not refused for it"


def test_what_does_not_survive_is_tried_once(make_warm: MakeWorld) -> None:
    world = make_warm(a_sleeper(idle=replace(STAYS, saved_s=0.0)))

    def refuse(_instance: str, _depth: Depth) -> None:
        raise StartFailed("a", "it cannot sleep")

    world.drivers["a"].sleep = refuse  # type: ignore[method-assign]
    world.sweep_until(lambda: bool(world.events("not-kept-warm")))
    sweep_for(world, 0.3)
    assert world.drivers["a"].starts == ["ew-t-web-0"]
    assert world.guests() == []
    assert world.control.warm().targets == ()


def test_nothing_is_booted_ahead_while_somebody_waits(make_warm: MakeWorld) -> None:
    world = make_warm(a_sleeper(), a_sleeper("slow", deadline_s=10.0))
    world.answer_s["slow"] = None
    waiting = asking(world, "slow")
    sweep_for(world, 0.2)
    assert world.drivers["a"].starts == ["ew-t-slow-0"]
    assert not waiting.done()


@pytest.mark.parametrize("memory_mib", [199, 200, 300])
def test_room_stays_for_the_largest_wake(make_warm: MakeWorld, memory_mib: int) -> None:
    world = make_warm(
        a_sleeper(idle=replace(STAYS, saved_s=0.0)), hosts=(a_host("a", 0, memory_mib),)
    )
    sweep_for(world, 0.2)
    assert len(world.guests()) == (memory_mib >= 200)


def test_it_waits_until_there_is_room(make_warm: MakeWorld) -> None:
    busy = a_sleeper("busy", idle=replace(STAYS, paused_s=0.0, saved_s=0.0))
    world = make_warm(busy, a_sleeper(), hosts=(a_host("a", 0, 290),), warm=WarmPlanning.OFF)
    world.ask("busy")
    world.control.apply(replace(world.lab, warm=WarmPlanning.AUTO))
    sweep_for(world, 0.2)
    assert world.guests() == ["ew-t-busy-0"]
    world.control.release("busy")
    warmed(world, "web")
    assert world.events("made-room") == []


def test_it_goes_where_its_host_lets_it(make_warm: MakeWorld) -> None:
    world = make_warm(a_sleeper(), hosts=(a_host("a"), a_host("b", 1)), warm=WarmPlanning.OFF)
    world.control.drain("a")
    world.control.apply(replace(world.lab, warm=WarmPlanning.AUTO))
    warmed(world, "web")
    assert [each.host for each in world.control.fleet.of("web")] == ["b"]
    world.control.undrain("a")
    world.control.drain("b")
    world.sweep_until(lambda: {e.host for e in world.control.fleet.of("web")} == {"a"})
    warmed(world, "web")


def test_it_stays_where_its_address_is_guarded(make_warm: MakeWorld) -> None:
    world = make_warm(a_sleeper(), hosts=(a_host("a"), a_host("b", 1)), warm=WarmPlanning.OFF)
    assert world.control.fleet.homes() == {"web": frozenset()}
    world.control.drain("a")
    (before,) = world.ask("web")
    world.control.release("web", Rung.COLD)
    world.control.undrain("a")
    assert world.control.fleet.homes() == {"web": frozenset("b")}
    world.control.apply(replace(world.lab, warm=WarmPlanning.AUTO))
    warmed(world, "web")
    (instance,) = world.control.fleet.of("web")
    assert (instance.host, instance.address) == (before.host, before.address)


# --- plans ----------------------------------------------------------------------------------------


def test_a_lab_that_cannot_be_planned_is_told_once(make_warm: MakeWorld) -> None:
    huge = replace(a_sleeper(idle=replace(STAYS, deepest=Rung.PAUSED)), name="huge")
    huge = replace(huge, resources=Capacity(0.1, 9999))
    world = make_warm(a_sleeper(), huge)
    world.sweep_until(lambda: bool(world.events("warm-plan-failed")))
    world.control.apply(replace(world.lab))
    sweep_for(world, 0.2)
    (event,) = world.events("warm-plan-failed")
    assert "huge: no host has room" in event.text
    world.control.apply(replace(world.lab, services=world.lab.services[:1]))
    warmed(world, "web")


def test_anonymous_targets_are_somebody_elses(make_warm: MakeWorld) -> None:
    world = make_warm(a_sleeper(), warm=WarmPlanning.OFF)
    some = WarmTarget("tiny-123456", "a", "paused", 2, anonymous=True)
    aimed: list[tuple[WarmTarget, ...]] = []
    warmer = world.control._warmer
    warmer._aim_spares = lambda targets: aimed.append(tuple(targets))
    warmer._plan = lambda: Aims((some,))
    world.control.apply(replace(world.lab, warm=WarmPlanning.AUTO))
    world.sweep_until(lambda: aimed == [(some,)])
    world.control.apply(replace(world.lab, warm=WarmPlanning.OFF))
    world.control.expire()
    assert aimed == [(some,), ()]
    assert world.guests() == []


def test_plans_are_made_anew_when_something_changes(make_warm: MakeWorld) -> None:
    world = make_warm(a_sleeper(), hosts=(a_host("a"), a_host("b", 1)))
    warmer, made = world.control._warmer, []
    warmer._plan = lambda: made.append(1) or Aims()  # type: ignore[func-returns-value]
    sweep_for(world, 0.1)
    assert len(made) == 1
    world.control.drain("a")
    world.sweep_until(lambda: len(made) == 2)
    world.control.apply(replace(world.lab))
    world.sweep_until(lambda: len(made) == 3)
    warmer._due_at = 0.0
    world.sweep_until(lambda: len(made) == 4)

"""A host vanishes in the middle of a wake or a sleep: another one takes over, and nothing is left.

It vanishes at each stage. The same is done to a real libvirtd in `hypervisors.test_daemon_deaths`.
"""

from collections.abc import Callable

import pytest

from orchestrator.errors import HostUnreachable
from orchestrator.hypervisors.base import Depth, Stamp
from orchestrator.hypervisors.memory import MemoryHypervisor
from orchestrator.model import Guest, IdlePolicy, Rung
from tests.world import World, a_host, a_service

MakeWorld = Callable[..., World]
LADDER = IdlePolicy(after_s=0.05, min_up_s=0.0)


@pytest.fixture
def world(make_world: MakeWorld) -> World:
    return make_world(
        a_service("web", idle=LADDER, deadline_s=4.0), hosts=[a_host("a"), a_host("b", 1)]
    )


def first_host(world: World) -> str:
    """Return where the service is woken."""
    (choice, *_) = world.control.explain("web")
    return choice.host


def vanish(driver: MemoryHypervisor, *, dead: bool) -> None:
    """Cut a host off; if it is dead, its guests have ended with it."""
    driver.unreachable("power cut" if dead else "libvirtd was restarted")
    if dead:
        with driver.machine.lock:
            driver.machine.guests.clear()
            driver.machine.saved.clear()


def vanishes_at(driver: MemoryHypervisor, stage: str, *, dead: bool) -> None:
    """Have a host vanish when it has come to a stage of building a guest."""
    build = driver.start

    def start(guest: Guest, stamp: Stamp) -> None:
        def stamped(reached: str) -> None:
            stamp(reached)
            if reached == stage:
                vanish(driver, dead=dead)
                raise HostUnreachable(driver.host.name, "the connection broke")

        if stage == "before":
            vanish(driver, dead=dead)
        build(guest, stamped)

    driver.start = start  # type: ignore[method-assign]


def led_only_to(world: World, host: str) -> None:
    """Wait until the host that vanished is back, and nothing is left of what was there."""
    lost = next(name for name in world.drivers if name != host)
    world.drivers[lost].reachable()
    world.eventually(lambda: not world.control.fleet.lost())
    world.eventually(lambda: world.guests(lost) == [])
    assert world.machines[lost].saved == {}
    assert world.seen.hosts_of("web") == [host]
    assert [each.host for each in world.store.load().instances] == [host]


@pytest.mark.parametrize("dead", [False, True], ids=["cut off", "dead"])
@pytest.mark.parametrize("stage", ["before", "define", "start"])
def test_while_a_guest_is_built(world: World, stage: str, *, dead: bool) -> None:
    first = first_host(world)
    vanishes_at(world.drivers[first], stage, dead=dead)
    (end,) = world.ask("web")
    assert end.host != first
    wake = world.control.wakes.last("web")[-1]
    assert (wake.outcome, wake.host) == ("ready", end.host)
    assert [stage for stage, _ in wake.stamps].count("failed") == 1
    assert [event.subject for event in world.events("host-lost")] == [first]
    assert [dict(event.data)["host"] for event in world.events("boot-failed")] == [first]
    assert world.events("other-flavour") == [], "that was no fault of the image"
    led_only_to(world, end.host)


def test_between_the_start_and_the_answer(world: World) -> None:
    """Nobody tells that a guest died with its host: the others still get their share of time."""
    first = first_host(world)
    world.answer_s["web"] = None
    wake = world.summon("web")
    world.eventually(lambda: world.control._boots.waiting_for("ew-t-web-0"))
    vanish(world.drivers[first], dead=True)
    world.answer_s["web"] = 0.0  # wherever it is booted next
    (end,) = wake.result(10)
    assert end.host != first
    led_only_to(world, end.host)


def test_a_guest_whose_libvirtd_restarts_before_it_answers_is_waited_for(world: World) -> None:
    first = first_host(world)
    world.answer_s = {"web": 0.2, "": None}
    wake = world.summon("web")
    world.eventually(lambda: world.control._boots.waiting_for("ew-t-web-0"))
    vanish(world.drivers[first], dead=False)
    (end,) = wake.result(10)
    assert end.host == first, "it answered; its host need not be asked for that"
    assert len(world.control.fleet.instances()) == 1
    world.drivers[first].reachable()
    world.eventually(lambda: not world.control.fleet.lost())
    assert world.seen.hosts_of("web") == [first]


@pytest.mark.parametrize("rung", [Rung.PAUSED, Rung.SAVED])
def test_while_a_guest_is_roused(world: World, rung: Rung) -> None:
    (before,) = world.ask("web")
    world.control.release("web", rung)
    driver = world.drivers[before.host]

    def rouse(_name: str) -> None:
        vanish(driver, dead=False)
        raise HostUnreachable(driver.host.name, "the connection broke")

    driver.rouse = rouse  # type: ignore[method-assign]
    (after,) = world.ask("web")
    assert after.host != before.host
    assert [event.subject for event in world.events("host-lost")] == [before.host]
    del driver.rouse  # type: ignore[attr-defined]
    driver.reachable()
    world.eventually(lambda: not world.control.fleet.lost())

    def gone() -> bool:
        world.control.expire()
        return not world.guests(before.host) and not world.machines[before.host].saved

    world.eventually(gone)
    assert world.seen.hosts_of("web") in ([after.host], [])


@pytest.mark.parametrize("saved", [False, True], ids=["before it is saved", "after"])
def test_while_a_guest_is_saved(world: World, *, saved: bool) -> None:
    """Its host knows how it ended, and is asked when it is back; until then a copy answers."""
    (before,) = world.ask("web")
    driver = world.drivers[before.host]
    sleep = driver.sleep
    world.control.release("web", Rung.SAVED)  # so that it is known to survive that
    world.ask("web")

    def cut(name: str, depth: Depth) -> None:
        if saved:
            sleep(name, depth)
        vanish(driver, dead=False)
        raise HostUnreachable(driver.host.name, "the connection broke")

    driver.sleep = cut  # type: ignore[method-assign]
    world.control.release("web", Rung.SAVED)
    del driver.sleep  # type: ignore[attr-defined]
    assert [event.subject for event in world.events("host-lost")] == [before.host]
    driver.reachable()
    world.eventually(lambda: not world.control.fleet.lost())
    (again,) = world.ask("web")
    assert again == before, "it is where it was, asleep or not"
    assert world.guests() == ["ew-t-web-0"]
    assert world.machines[before.host].saved == {}


def test_a_service_whose_only_host_vanishes_is_told_why_and_wakes_when_it_is_back(
    make_world: MakeWorld,
) -> None:
    world = make_world(hosts=[a_host("a")])
    driver = world.drivers["a"]
    build = driver.start
    vanishes_at(driver, "define", dead=True)
    error = world.summon("web").exception(5)
    assert "the connection broke" in str(error)
    for _ in range(5):
        error = world.summon("web").exception(5)
        assert "no host can be reached" in str(error), "which costs nothing, so it may be asked"
    driver.start = build  # type: ignore[method-assign]
    driver.reachable()
    world.eventually(lambda: not world.control.fleet.lost())
    assert world.ask("web")

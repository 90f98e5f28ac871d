"""What a restart finds, after a crash at any instant of a wake: nothing lost, nothing leaked."""

import time
from collections.abc import Callable
from dataclasses import replace

import pytest

from images.inspect import Inspector
from orchestrator.library import Library, Place, traits_of
from orchestrator.model import Instance, InstanceState
from orchestrator.store.memory import MemoryStore
from tests.world import World, a_host, a_service, straight_to_cold

MakeWorld = Callable[..., World]


class Crash(BaseException):
    """Stands for `kill -9`: nothing after it runs, no undo either."""


def test_a_running_service_is_adopted_and_not_stopped_by_the_first_sweep(
    make_world: MakeWorld,
) -> None:
    world = make_world(a_service("web", idle=straight_to_cold(0.3)))
    before = world.ask("web")
    world.crash()
    time.sleep(0.4)
    control = world.start()
    assert control.expire() == ()
    assert world.ask("web") == before
    assert world.drivers["a"].starts == [], "it was booted again instead of adopted"


def test_a_guest_that_ended_meanwhile_is_forgotten(make_world: MakeWorld) -> None:
    world = make_world()
    world.ask("web")
    world.crash()
    world.machines["a"].guests.clear()
    world.start()
    world.eventually(lambda: world.store.load().instances == ())
    assert world.seen.hosts_of("web") == []
    assert world.ask("web")


def test_foreign_guests_are_left_alone(make_world: MakeWorld) -> None:
    world = make_world()
    world.ask("web")
    machine = world.machines["a"]
    ours = machine.guests["ew-t-web-0"]
    foreign = replace(ours.guest, name="other", mark=replace(ours.guest.mark, owner="somebody"))
    machine.guests["other"] = replace(ours, guest=foreign)
    world.crash()
    world.start()
    world.control.release("web")
    assert world.guests() == ["other"]
    del machine.guests["other"]


def test_a_guest_whose_record_was_lost_is_adopted(make_world: MakeWorld) -> None:
    world = make_world()
    before = world.ask("web")
    world.crash()
    world.store = MemoryStore()
    world.start()
    assert world.ask("web") == before
    assert [i.name for i in world.store.load().instances] == ["ew-t-web-0"]


def test_a_guest_of_a_service_the_lab_no_longer_has_is_ended(make_world: MakeWorld) -> None:
    world = make_world(a_service("web"), a_service("api"))
    world.ask("web")
    world.ask("api")
    world.crash()
    world.lab = replace(world.lab, services=(world.lab.service("api"),))
    world.start()
    world.control.expire()
    world.eventually(lambda: world.guests() == ["ew-t-api-0"])


STAGES = ["reserved", "intent stored", "being built", "running", "answered", "ready stored"]


@pytest.mark.parametrize("stage", STAGES)
def test_a_crash_in_the_middle_of_a_wake(make_world: MakeWorld, stage: str) -> None:
    world = make_world()
    made = crashed_at(world, stage)
    acknowledged = stage == "ready stored"
    world.crash()
    world.start()
    world.eventually(lambda: all(i.state == "ready" for i in world.store.load().instances))
    (endpoint,) = world.ask("web")
    assert len(world.guests()) == 1, "a guest was leaked"
    assert len(world.store.load().instances) == 1
    assert world.control.fleet.used("a").memory_mib == 100, "memory was leaked"
    if acknowledged:
        assert endpoint.address == made.address
        assert world.drivers["a"].starts == []


def crashed_at(world: World, stage: str) -> Instance:
    """Leave behind exactly what exists if the process ends at this stage of a wake."""
    control = world.control
    instance = control.fleet.reserve("web")
    steps = STAGES.index(stage)
    if steps >= 1:
        world.store.save(instance)
    if steps >= 2:
        host = world.lab.hosts[0]
        guest = Library(Inspector()).guest(
            world.lab, world.lab.services[0], instance, Place(host, traits_of(host)), "tests"
        )
        world.drivers["a"].start(guest, lambda _: None)
    if stage == "being built":
        world.machines["a"].guests[instance.name].runs = False
    if steps >= 5:
        world.store.save(instance.step(InstanceState.READY, ready_at=time.time()))
    return instance


def test_a_crash_while_stopping_is_finished(make_world: MakeWorld) -> None:
    world = make_world(a_service("web", ttl_s=60), a_service("api"))
    (web,) = world.ask("web")
    instance = world.control.fleet.get("ew-t-web-0")
    assert instance is not None
    world.store.save(instance.step(InstanceState.STOPPING))
    world.crash()
    world.start()
    world.eventually(lambda: world.guests() == [])
    world.eventually(lambda: world.store.load().instances == ())
    (api,) = world.ask("api")
    assert api.address != web.address, "an address that answers still name was given away"


def test_a_host_that_is_away_at_the_start_is_settled_when_it_is_back(make_world: MakeWorld) -> None:
    world = make_world(hosts=[a_host("a")])
    before = world.ask("web")
    world.crash()
    opened = world.open_host

    def open_unreachable(host: object) -> object:
        parts = opened(host)  # type: ignore[arg-type]
        world.drivers["a"].unreachable("cable cut")
        return parts

    world.open_host = open_unreachable  # type: ignore[method-assign,assignment]
    world.start()
    assert world.seen.hosts_of("web") == []
    world.drivers["a"].reachable()
    world.eventually(lambda: world.seen.hosts_of("web") == ["a"])
    assert world.ask("web") == before

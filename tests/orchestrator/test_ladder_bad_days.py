"""Bad days of the ladder: a store that fails, a host lost or hanging, an image that changed."""

import threading
from collections.abc import Callable
from dataclasses import replace
from functools import partial

import pytest

from orchestrator import expiring, sleeping
from orchestrator.errors import HostUnreachable, StartFailed, StoreError, WakeError
from orchestrator.model import (
    Ability,
    Capacity,
    IdlePolicy,
    Instance,
    InstanceState,
    OnHostLoss,
    Rung,
)
from orchestrator.store.memory import MemoryStore
from tests.world import World, a_host, a_service

MakeWorld = Callable[..., World]
STAYS = IdlePolicy(after_s=0.05, min_up_s=0.0, paused_s=None)
HALF = Capacity(cpu=0.1, memory_mib=450)
ALL = Capacity(cpu=0.1, memory_mib=900)
BOOT_S = 0.05  # or a boot in memory would be no slower than anything else


class FullDisk(MemoryStore):
    """A store whose disk is full for instances and abilities of which `full` says so."""

    def __init__(self) -> None:
        super().__init__()
        self.full: Callable[[Instance | Ability], bool] = lambda _: False

    def save(self, instance: Instance) -> None:
        self._refuse(instance)
        super().save(instance)

    def save_ability(self, ability: Ability) -> None:
        self._refuse(ability)
        super().save_ability(ability)

    def _refuse(self, kept: Instance | Ability) -> None:
        if self.full(kept):
            raise StoreError("database or disk is full")


def is_state(state: InstanceState) -> Callable[[Instance | Ability], bool]:
    return lambda kept: isinstance(kept, Instance) and kept.state is state


@pytest.fixture
def make_world(make_world: MakeWorld) -> MakeWorld:
    return partial(make_world, boot_s=BOOT_S)


# --- a store that fails ---------------------------------------------------------------------------


def test_what_could_not_be_stored_as_roused_is_ended(make_world: MakeWorld) -> None:
    store = FullDisk()
    world = make_world(a_service("web", idle=STAYS), store=store)
    world.ask("web")
    world.control.release("web")
    store.full = is_state(InstanceState.READY)
    with pytest.raises(WakeError, match="full"):
        world.ask("web")
    store.full = lambda _: False
    assert world.guests() == []
    world.ask("web")
    assert len(world.control.fleet.of("web")) == len(world.guests()) == 1


def test_what_nobody_rouses_any_more_stands_in_no_wakes_way(
    make_world: MakeWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = make_world(a_service("web", idle=STAYS))
    world.ask("web")
    world.control.release("web")

    def defect(_instance: str) -> None:
        raise ValueError("a defect")

    with monkeypatch.context() as patch:
        patch.setattr(world.drivers["a"], "rouse", defect)
        with pytest.raises(WakeError, match="internal error"):
            world.ask("web")
    world.ask("web")
    assert len(world.control.fleet.of("web")) == len(world.guests()) == 1


def test_a_full_disk_leaves_no_guest_that_nobody_is_led_to(make_world: MakeWorld) -> None:
    store = FullDisk()
    world = make_world(a_service("web", idle=STAYS), store=store)
    world.ask("web")
    store.full = lambda kept: isinstance(kept, Ability)
    with pytest.raises(StoreError):
        world.control.release("web")
    assert world.control.fleet.endpoints("web")


def test_copies_that_did_not_come_to_sleep_go_on(make_world: MakeWorld) -> None:
    store = FullDisk()
    web = a_service("web", idle=STAYS, replicas=2)
    world = make_world(web, store=store, hosts=(a_host("a"), a_host("b", 1)))
    world.ask("web")
    world.eventually(lambda: len(world.control.fleet.endpoints("web")) == 2)
    store.full = is_state(InstanceState.PAUSED)
    with pytest.raises(StoreError):
        world.control.release("web")
    assert len(world.control.fleet.endpoints("web")) == 1
    assert not any(world.control.fleet.hidden(each.name) for each in world.control.fleet.of("web"))


# --- a host that is lost in the middle ------------------------------------------------------------


def test_a_host_that_is_lost_in_a_wake_leaves_no_second_copy(
    make_world: MakeWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    web = a_service("web", idle=STAYS, on_host_loss=OnHostLoss.KEEP)
    world = make_world(web, hosts=(a_host("a"), a_host("b", 1)))
    (there,) = world.ask("web")
    world.control.release("web")
    rouse = world.drivers[there.host].rouse

    def hangs(instance: str) -> None:
        rouse(instance)
        raise HostUnreachable(there.host, "no answer to keepalive")

    monkeypatch.setattr(world.drivers[there.host], "rouse", hangs)
    with pytest.raises(WakeError, match="may be running"):
        world.ask("web")
    assert len(world.guests()) == 1


def test_a_host_that_hangs_keeps_the_sweep_from_nothing(
    make_world: MakeWorld, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(expiring, "HOST_PATIENCE_S", 0.1)
    services = [a_service(f"s{n}", idle=STAYS) for n in range(2)]
    world = make_world(*services, hosts=(a_host("a", memory_mib=120), a_host("b", 1, 120)))
    (hanging,), (other,) = world.ask("s0"), world.ask("s1")
    assert hanging.host != other.host
    goes_on = threading.Event()
    asked: list[str] = []

    def hangs(instance: str, _depth: object) -> None:
        asked.append(instance)
        assert goes_on.wait(30)
        raise ValueError("a defect")

    def sunk() -> bool:
        world.control.expire()
        return world.control.fleet.of("s1")[0].state is InstanceState.PAUSED

    monkeypatch.setattr(world.drivers[hanging.host], "sleep", hangs)
    try:
        world.eventually(lambda: bool(world.control.expire() or asked))
        world.eventually(sunk)
        world.control.expire()
        assert asked == ["ew-t-s0-0"], "what hangs is not asked for more"
    finally:
        goes_on.set()
    world.eventually(lambda: "a defect" in caplog.text)


# --- wishes that make no sense --------------------------------------------------------------------


def test_nothing_is_woken_to_be_put_to_sleep_less_deeply(make_world: MakeWorld) -> None:
    web, other = (a_service(name, idle=STAYS, resources=ALL) for name in ("web", "other"))
    world = make_world(web, other, hosts=[a_host("a", memory_mib=1000)])
    world.ask("web")
    world.control.release("web", Rung.SAVED)
    world.ask("other")
    assert world.control.release("web", Rung.PAUSED) == ()
    assert [each.state for each in world.control.fleet.of("web")] == [InstanceState.SAVED]
    assert world.control.fleet.used("a").memory_mib <= 1000
    world.control.release("other", Rung.SAVED)
    assert world.ask("web")


# --- an image that changes ------------------------------------------------------------------------


@pytest.mark.parametrize("rung", [Rung.PAUSED, Rung.SAVED])
@pytest.mark.parametrize("restarted", [False, True])
def test_what_slept_while_its_image_was_built_anew_is_not_roused(
    make_world: MakeWorld, rung: Rung, *, restarted: bool
) -> None:
    world = make_world(a_service("web", idle=STAYS))
    (before,) = world.ask("web")
    world.control.release("web", rung)
    kernel = world.lab.images[0].main_file
    kernel.write_bytes(kernel.read_bytes() + b"new")
    if restarted:
        world.crash()
        world.start()
    (after,) = world.ask("web")
    assert world.control.wakes.last("web", 1)[0].rung == "cold"
    assert after.address == before.address
    assert len(world.guests()) == 1
    world.control.release("web", rung)
    world.ask("web")
    assert world.control.wakes.last("web", 1)[0].rung == rung


def test_an_image_that_is_gone_does_not_keep_its_guest_asleep(make_world: MakeWorld) -> None:
    world = make_world(a_service("web", idle=STAYS))
    world.ask("web")
    world.control.release("web")
    world.lab.images[0].main_file.unlink()
    assert world.ask("web")


# --- room -----------------------------------------------------------------------------------------


def test_room_is_not_made_by_what_somebody_waits_for(make_world: MakeWorld) -> None:
    services = [a_service(name, idle=STAYS, resources=HALF) for name in ("a1", "b2", "new")]
    world = make_world(*services, hosts=[a_host("a", memory_mib=1000)], parallel_boots=1)
    for name in ("a1", "b2"):
        world.ask(name)
        world.control.release(name)
    boots, begun = threading.Event(), threading.Event()

    def held(_name: str) -> None:
        begun.set()
        assert boots.wait(10)

    held_up = world.control._pool.call(held, "")  # the one thread there is for wakes
    assert begun.wait(5)
    new, waits = world.summon("new"), world.summon("a1")
    boots.set()
    held_up.result(5)
    assert new.result(5)
    assert waits.result(5)
    assert world.control.wakes.last("a1", 1)[0].rung == "paused"
    assert [each.state for each in world.control.fleet.of("b2")] == [InstanceState.SAVED]


@pytest.mark.parametrize("rung", [Rung.PAUSED, Rung.SAVED])
def test_what_sleeps_takes_no_more_while_it_ends(make_world: MakeWorld, rung: Rung) -> None:
    world = make_world(a_service("web", idle=STAYS))
    world.ask("web")
    world.control.release("web", rung)
    (asleep,) = world.control.fleet.of("web")
    held = world.control.fleet.used("a")
    world.drivers["a"].unreachable()
    assert not world.control._waker.end(asleep)
    assert world.control.fleet.used("a") == held
    world.drivers["a"].reachable()
    world.eventually(lambda: not world.control.fleet.of("web"))
    assert world.control.fleet.used("a") == Capacity(cpu=0.0, memory_mib=0)


# --- guests that do not survive -------------------------------------------------------------------


@pytest.mark.parametrize("deepest", [Rung.PAUSED, Rung.SAVED, Rung.COLD])
def test_nobody_is_led_to_a_guest_that_did_not_survive_its_probe(
    make_world: MakeWorld, monkeypatch: pytest.MonkeyPatch, deepest: Rung
) -> None:
    monkeypatch.setattr(sleeping, "PROBE_PATIENCE_S", 0.1)
    monkeypatch.setattr(sleeping, "LEAST_PATIENCE_S", 0.1)
    world = make_world(a_service("web", idle=replace(STAYS, deepest=deepest)))
    world.ask("web")
    world.answer_s["web"] = None
    world.control.release("web")
    assert world.control.fleet.endpoints("web") == ()
    assert world.guests() == []
    assert [each.rung for each in world.control.abilities()] == [Rung.PAUSED], "one guest, one try"
    world.answer_s["web"] = 0.0
    assert world.ask("web")


def test_a_guest_that_cannot_be_put_to_sleep_at_all_goes_on(
    make_world: MakeWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = make_world(a_service("web", idle=replace(STAYS, deepest=Rung.SAVED)))
    before = world.ask("web")

    def refused(_instance: str, _depth: object) -> None:
        raise StartFailed("a", "there is no such thing")

    monkeypatch.setattr(world.drivers["a"], "sleep", refused)
    assert world.control.release("web") == ()
    assert world.ask("web") == before
    assert [each.works for each in world.control.abilities()] == [False, False]


def test_a_query_does_not_wait_for_the_end_of_a_probe_that_fails(
    make_world: MakeWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = make_world(a_service("web", idle=STAYS, deadline_s=5.0))
    world.ask("web")
    world.answer_s["web"] = None
    stop = world.drivers["a"].stop

    def stopped(instance: str) -> None:
        world.answer_s["web"] = 0.0
        stop(instance)

    monkeypatch.setattr(world.drivers["a"], "stop", stopped)
    putting = world.control._ender.call(world.control.release, "web")
    world.eventually(lambda: bool(world.control.fleet.hidden("ew-t-web-0")))
    waits = world.summon("web")
    assert waits.result(5)
    assert putting.result(5)
    assert world.control.abilities() == (), "that it was too slow for somebody says nothing"


def test_what_is_found_out_of_an_image_that_is_gone_holds_for_no_other(
    make_world: MakeWorld,
) -> None:
    world = make_world(a_service("web", idle=STAYS))
    world.ask("web")
    world.crash()
    files = [world.lab.images[0].main_file, *world.lab.images[0].files]
    for file in files:
        file.unlink(missing_ok=True)
    world.start()
    assert world.control.release("web") == ("ew-t-web-0",)
    assert world.control.abilities() == ()
    assert world.ask("web")

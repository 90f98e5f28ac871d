"""Anonymous instances in a world of memory: kept, claimed by whoever wakes, never in the way."""

import threading
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from ipaddress import IPv4Address
from pathlib import Path

import pytest

from images.bootspec import Image
from orchestrator.errors import HostUnreachable, StartFailed, StoreError, WakeError
from orchestrator.guards.base import Asked
from orchestrator.hypervisors.memory import MemoryHypervisor
from orchestrator.model import Capacity, IdlePolicy, Instance, InstanceState, Mark, Rung, Service
from orchestrator.recipes import is_spare, recipe_of
from orchestrator.spares import SHORT_OF_MEMORY_S
from orchestrator.store.memory import MemoryStore
from placement.warm import PAUSED, POOLED, WarmTarget
from tests import world as worlds
from tests.world import World, a_host, an_image

MakeWorld = Callable[..., World]
BOOT_S = 0.05
STAYS = IdlePolicy(after_s=60.0, min_up_s=0.0, paused_s=None)


@pytest.fixture
def image(tmp_path: Path) -> Image:
    return replace(an_image(tmp_path), anonymous=True)


@pytest.fixture
def make_world(make_world: MakeWorld) -> MakeWorld:
    return partial(make_world, boot_s=BOOT_S)


def a_service(name: str, **changes: object) -> Service:
    """Return a service that does not go to sleep while a test looks on."""
    return worlds.a_service(name, **{"idle": STAYS, **changes})


def asks_always(name: str, **changes: object) -> Service:
    """Return a service whose clients all ask for its name: its address may be another each time."""
    return a_service(name, wake_on_traffic=False, **changes)


def spares(world: World, host: str = "") -> list[Instance]:
    found = [each for each in world.control.fleet.instances() if is_spare(each.service)]
    return [each for each in found if host in {"", each.host}]


def aim(world: World, service: str = "web", count: int = 1, host: str = "a") -> None:
    recipe = recipe_of(world.lab, world.lab.service(service), "tiny")
    world.control._spares.aim((WarmTarget(recipe, host, PAUSED, count, anonymous=True),))


def pooled(world: World, count: int = 1, host: str = "a") -> World:
    """Have a host keep so many anonymous instances of what `web` is made of."""
    aim(world, count=count, host=host)

    def rests() -> bool:
        world.control.expire()
        return [each.state for each in spares(world, host)] == [InstanceState.PAUSED] * count

    world.eventually(rests, 10)
    world.control.expire()  # now that the host counts them all
    return world


def marks(world: World, host: str = "a") -> list[tuple[str, str]]:
    with world.machines[host].lock:
        kept = world.machines[host].guests.values()
        return sorted((each.guest.mark.service, str(each.state)) for each in kept)


# --- claimed --------------------------------------------------------------------------------------


def test_the_first_who_asks_is_answered_without_a_boot(make_world: MakeWorld) -> None:
    world = pooled(make_world())
    (spare,) = spares(world)
    starts = list(world.drivers["a"].starts)
    (endpoint,) = world.ask("web")
    assert (endpoint.instance, endpoint.address) == (spare.name, spare.address)
    assert world.drivers["a"].starts == starts, "nothing was booted"
    assert marks(world) == [("web", "running")]
    (instance,) = world.control.fleet.of("web")
    assert instance.state is InstanceState.READY
    assert (instance.mac, instance.address6) == (spare.mac, spare.address6)
    assert world.store.load().instances == (instance,)
    assert world.seen.hosts_of("web") == ["a"]
    wake = world.control.wakes.last("web")[-1]
    assert (wake.outcome, wake.rung, wake.host) == ("ready", POOLED, "a")
    assert wake.decided_by == "an anonymous instance rested there"
    stages = [stage for stage, _ in wake.stamps]
    assert stages == ["query", "taken", "decided", "claimed", "roused", "answer", "stored"]


def test_the_pool_is_filled_again_after_a_claim(make_world: MakeWorld) -> None:
    world = pooled(make_world(a_service("web"), a_service("api")))
    (first,) = world.ask("web")
    pooled(world)
    (second,) = world.ask("api")
    assert first.address != second.address
    assert marks(world) == [("api", "running"), ("web", "running")]


def test_what_a_claim_took_is_what_the_next_plan_goes_by(make_world: MakeWorld) -> None:
    world = pooled(make_world())
    assert ("tiny", "a", POOLED) not in world.control._sleeper.wake_costs()
    world.ask("web")
    costs = world.control._sleeper.wake_costs()
    assert 0 < costs["tiny", "a", POOLED] < BOOT_S
    (recipe,) = world.control.fleet.recipes()
    assert world.control._sleeper.claim_saves_s(recipe, "a") > 0


def test_a_claimed_instance_sleeps_wakes_and_ends_as_any_other(make_world: MakeWorld) -> None:
    world = pooled(make_world(asks_always("web")))
    (first,) = world.ask("web")
    aim(world, count=0)
    world.control.release("web", Rung.PAUSED)
    assert world.ask("web") == (first,)
    world.control.release("web", Rung.COLD)
    assert world.guests() == []
    assert world.store.load().instances == ()
    assert world.ask("web")[0].address == first.address, "the address is its own by now"


def test_two_who_ask_at_once_share_one_instance_without_a_quarrel(make_world: MakeWorld) -> None:
    world = pooled(make_world(a_service("web"), a_service("api")))
    (spare,) = spares(world)
    both = [world.summon(name) for name in ("web", "api")]
    found = [future.result(5)[0] for future in both]
    assert len({each.address for each in found}) == 2
    assert [each.instance for each in found].count(spare.name) == 1
    rungs = {world.control.wakes.last(name)[-1].rung for name in ("web", "api")}
    assert rungs == {POOLED, "cold"}


def test_copies_are_claimed_too_on_another_host_each(make_world: MakeWorld) -> None:
    hosts = [a_host("a"), a_host("b", 1)]
    world = make_world(a_service("web", replicas=2), hosts=hosts)
    pooled(world, host="a")
    pooled(world, host="b")  # and now none are aimed at on a: that one goes
    world.sweep_until(lambda: not spares(world, "a"))
    world.ask("web")
    world.sweep_until(lambda: len(world.control.fleet.serving("web")) == 2)
    names = {each.host: each.name for each in world.control.fleet.of("web")}
    assert names["b"].startswith("ew-t-spare.")
    assert names["a"] == "ew-t-web-0"


def test_status_counts_them(make_world: MakeWorld) -> None:
    world = pooled(make_world(hosts=[a_host("a"), a_host("b", 1)]), count=2)
    assert [each.spares for each in world.control.status().hosts] == [2, 0]
    assert world.control.status().hosts[0].used.memory_mib == 200
    (service,) = world.control.status().services
    assert (service.state, service.instances) == ("asleep", ())


def test_the_plan_counts_on_those_who_can_claim(make_world: MakeWorld) -> None:
    world = make_world(a_service("web"), asks_always("api"))
    fleet, (web, api) = world.control.fleet, world.lab.services
    assert not fleet.returns(web)
    assert fleet.recipes_of("web") == fleet.recipes_of("api") != frozenset()
    for name in ("web", "api"):
        world.ask(name)
    assert (fleet.returns(web), fleet.returns(api)) == (True, False)


def test_guests_are_told_no_service_however_they_were_booted(make_world: MakeWorld) -> None:
    world = pooled(make_world(a_service("web", wake_on_traffic=False)))
    (spare,) = spares(world)
    world.ask("web")
    world.control.release("web", Rung.COLD)
    guest = world.control._boots.guest(replace(spare, service="web"), world.lab.services[0], "a")
    assert "service" not in guest.boot.cmdline
    assert f"edgewake.name={spare.name}" in guest.boot.cmdline


# --- not claimed ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "other",
    [
        a_service("other", config=(("greeting", "hi"),)),
        a_service("other", resources=Capacity(cpu=0.1, memory_mib=101)),
        a_service("other", cpu_cap=0.5),
        replace(a_service("other"), probe=replace(a_service("x").probe, port=81)),
    ],
)
def test_a_service_of_another_recipe_boots(make_world: MakeWorld, other: Service) -> None:
    world = pooled(make_world(a_service("web"), other))
    assert world.ask("other")[0].instance == "ew-t-other-0"
    assert len(spares(world)) == 1


def test_where_it_may_not_be_none_is_claimed(make_world: MakeWorld) -> None:
    hosts = [a_host("a"), a_host("b", 1)]
    away = replace(a_service("x").constraints, avoid_hosts=frozenset({"a"}))
    world = pooled(make_world(a_service("web"), a_service("far", constraints=away), hosts=hosts))
    assert world.ask("far")[0].host == "b"
    assert len(spares(world)) == 1


def test_one_whose_clients_may_remember_its_address_gets_that_again(make_world: MakeWorld) -> None:
    world = make_world(a_service("web"))
    (before,) = world.ask("web")
    world.control.release("web", Rung.COLD)
    pooled(world)
    assert world.ask("web") == (before,)
    assert len(spares(world)) == 1, "it is left to others"


def test_one_that_all_ask_for_does_not_once_caches_forgot_it(make_world: MakeWorld) -> None:
    world = make_world(asks_always("web"))
    (before,) = world.ask("web")
    world.control.release("web", Rung.COLD)
    pooled(world)
    pools = world.control.fleet._pools
    assert pools.rests("web", 0.0)
    world.eventually(lambda: not world.control.fleet._is_missed(world.lab.service("web")))
    (after,) = world.ask("web")
    assert after.instance != before.instance
    assert after.address != before.address


def test_a_client_that_is_held_gets_the_address_it_asked(make_world: MakeWorld) -> None:
    world = make_world(a_service("web"))
    (before,) = world.ask("web")
    world.control.release("web", Rung.COLD)
    pooled(world)
    (guarded,) = world.control.fleet.guarded("a")
    asked = Asked(guarded, IPv4Address("192.0.2.9"), at=time.monotonic())
    (woken,) = world.control._activator.summon_there("a", asked).result(5)
    assert woken.address == before.address


def test_an_anonymous_instance_takes_nobodys_address(make_world: MakeWorld) -> None:
    host = a_host("a")
    few = replace(host, network=replace(host.network, last=host.network.subnet[14]))
    world = make_world(a_service("web"), a_service("api"), hosts=[few])
    (web,) = world.ask("web")
    world.control.release("web", Rung.COLD)
    aim(world, count=5)
    world.sweep_until(lambda: bool(world.told("not-pooled")))
    assert "only as many addresses" in world.told("not-pooled")[0]
    kept = spares(world)
    assert len(kept) == 2
    assert web.address not in {each.address for each in kept}
    world.ask("api")


# --- what goes wrong ------------------------------------------------------------------------------


class Crash(BaseException):
    """Stand for `kill -9`: nothing that handles errors takes it."""


def crash_at(
    world: World, monkeypatch: pytest.MonkeyPatch, verb: str, *, after: bool = False
) -> None:
    """Let edgewake die in the middle of a wake, before or after the hypervisor did something."""
    real = getattr(MemoryHypervisor, verb)

    def dies(driver: MemoryHypervisor, *about: object) -> None:
        if after:
            real(driver, *about)
        raise Crash

    monkeypatch.setattr(MemoryHypervisor, verb, dies)
    with pytest.raises(Crash):
        world.ask("web")
    monkeypatch.setattr(MemoryHypervisor, verb, real)


@pytest.mark.parametrize(
    ("verb", "after"), [("claim", False), ("claim", True), ("rouse", False), ("rouse", True)]
)
def test_a_crash_in_the_middle_of_a_claim_leaves_nothing_unowned(
    make_world: MakeWorld, monkeypatch: pytest.MonkeyPatch, verb: str, *, after: bool
) -> None:
    world = pooled(make_world(a_service("web"), a_service("api"), store=MemoryStore()))
    (spare,) = spares(world)
    crash_at(world, monkeypatch, verb, after=after)
    world.crash()
    world.start()
    aim(world)
    (endpoint,) = world.ask("api")
    if (verb, after) == ("rouse", True):
        assert endpoint.instance == "ew-t-api-0", "it ran already: it is ended"
    else:
        assert endpoint.instance == spare.name, "it rested still"
    aim(world, count=0)
    world.sweep_until(lambda: marks(world) == [("api", "running")])
    assert [each.service for each in world.store.load().instances] == ["api"]


def test_a_restart_adopts_what_was_claimed_and_what_rests(make_world: MakeWorld) -> None:
    world = pooled(make_world(store=MemoryStore()), count=2)
    claimed = world.ask("web")
    world.crash()
    world.start()
    assert world.control.fleet.endpoints("web") == claimed
    world.control.expire()
    assert [each.state for each in spares(world)] == [InstanceState.PAUSED]
    assert len(world.guests()) == 2
    aim(world, count=0)
    world.sweep_until(lambda: marks(world) == [("web", "running")])


def test_one_whose_record_was_lost_is_adopted_by_its_mark_or_ended(make_world: MakeWorld) -> None:
    world = pooled(make_world(), count=2)
    claimed = world.ask("web")
    world.crash()
    world.store = MemoryStore()
    world.start()
    assert world.control.fleet.endpoints("web") == claimed
    world.eventually(lambda: marks(world) == [("web", "running")])


def test_one_that_does_not_answer_is_replaced_in_the_same_wake(make_world: MakeWorld) -> None:
    world = pooled(make_world(a_service("web", deadline_s=4.0)))
    (spare,) = spares(world)
    silent = world.drivers["a"].rouse

    def dies(instance: str) -> None:
        world.drivers["a"].kill(instance)
        silent(instance)

    world.drivers["a"].rouse = dies  # type: ignore[method-assign]
    (endpoint,) = world.ask("web")
    assert endpoint.instance == "ew-t-web-0"
    assert spare.name not in world.guests()
    assert "did not come back" in world.told("rouse-failed")[0]


def test_one_that_cannot_be_stored_answers_nobody_and_is_ended(make_world: MakeWorld) -> None:
    world = pooled(make_world(store=(store := FullStore())))
    store.full = True
    with pytest.raises(WakeError, match="disk is full"):
        world.ask("web")
    store.full = False
    aim(world, count=0)
    world.sweep_until(lambda: world.guests() == [])
    assert world.store.load().instances == ()
    assert world.ask("web")


class FullStore(MemoryStore):
    """A store whose disk is full at times."""

    full = False

    def save(self, instance: Instance) -> None:
        if self.full:
            raise StoreError("the disk is full")
        super().save(instance)


def test_one_that_cannot_be_marked_is_ended(make_world: MakeWorld) -> None:
    world = pooled(make_world())
    (spare,) = spares(world)

    def refuse(_instance: str, _mark: Mark) -> None:
        raise StartFailed("a", "no metadata here")

    world.drivers["a"].claim = refuse  # type: ignore[method-assign]
    assert world.ask("web")[0].instance == "ew-t-web-0"
    world.eventually(lambda: spare.name not in world.guests())
    assert "no metadata here" in world.told("ended")[0]


def test_on_a_lost_host_none_is_claimed_and_it_rests_on(make_world: MakeWorld) -> None:
    hosts = [a_host("a"), a_host("b", 1)]
    world = pooled(make_world(hosts=hosts))

    def lost(_instance: str, _mark: Mark) -> None:
        world.drivers["a"].unreachable()
        raise HostUnreachable("a", "no route to host")

    real, world.drivers["a"].claim = world.drivers["a"].claim, lost  # type: ignore[method-assign]
    assert world.ask("web")[0].host == "b"
    world.control.expire()
    assert len(spares(world)) == 1, "it is still there, as far as anybody knows"
    world.drivers["a"].claim = real  # type: ignore[method-assign]
    world.drivers["a"].reachable()
    world.sweep_until(lambda: "a" not in world.control.fleet.lost())
    assert [each.state for each in spares(world)] == [InstanceState.PAUSED]


def test_boots_that_fail_are_tried_ever_more_rarely(make_world: MakeWorld) -> None:
    world = make_world()
    world.drivers["a"].fail = "no more of that"
    aim(world)
    world.sweep_until(lambda: len(world.control._spares._failures.row(_pool(world)).why) > 0)
    world.sweep_until(lambda: world.control._spares._failures.row(_pool(world)).count == 2)
    for _ in range(20):
        world.control.expire()
    assert world.control._spares._failures.row(_pool(world)).count < 10
    assert len(world.told("not-pooled")) == 1, "told once"
    assert "no more of that" in world.told("not-pooled")[0]
    world.drivers["a"].fail = ""
    world.control._spares._failures.clear()
    pooled(world)


def _pool(world: World) -> tuple[str, str]:
    return recipe_of(world.lab, world.lab.services[0], "tiny"), "a"


def test_none_is_kept_of_what_does_not_survive_a_pause(
    make_world: MakeWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = make_world()

    def refuse(_driver: MemoryHypervisor, instance: str, _depth: object) -> None:
        raise StartFailed("a", f"{instance} cannot be paused")

    monkeypatch.setattr(MemoryHypervisor, "sleep", refuse)
    aim(world)
    world.sweep_until(lambda: bool(world.told("not-pooled")))
    world.sweep_until(lambda: any("would not rest" in each for each in world.told("not-pooled")))
    starts = len(world.drivers["a"].starts)
    world.control._spares._failures.clear()
    for _ in range(5):
        world.control.expire()
    world.eventually(lambda: not world.control._spares._filling.locked())
    assert len(world.drivers["a"].starts) == starts, "what is known is not tried again"
    world.sweep_until(lambda: world.guests() == [])


# --- room -----------------------------------------------------------------------------------------


def test_a_wake_that_needs_the_memory_takes_it(make_world: MakeWorld) -> None:
    big = a_service("big", resources=Capacity(cpu=0.1, memory_mib=200))
    world = make_world(a_service("web"), big, hosts=[a_host("a", memory_mib=330)])
    pooled(world, count=2)
    assert world.ask("big")[0].instance == "ew-t-big-0"
    assert len(spares(world)) == 1
    assert len(world.told("made-room")) == 1
    world.control.release("big", Rung.COLD)
    for _ in range(5):
        world.control.expire()
    assert len(spares(world)) == 1, "it is left free for a while"
    world.control._spares._short_until["a"] -= SHORT_OF_MEMORY_S
    world.sweep_until(lambda: len(spares(world)) == 2)


def test_a_full_host_gives_up_anonymous_ones_before_sleepers(make_world: MakeWorld) -> None:
    world = make_world(a_service("web"), a_service("api"))
    world.ask("api")
    world.control.release("api")
    pooled(world)
    assert world.control._sleeper.make_room("a", 100)
    assert spares(world) == []
    assert world.control.fleet.of("api")[0].state is InstanceState.PAUSED


def test_one_that_many_would_claim_is_worth_more_than_a_sleeper(make_world: MakeWorld) -> None:
    slow = a_service("slow", resources=Capacity(cpu=0.1, memory_mib=120))
    world = make_world(a_service("web"), slow, hosts=[a_host("a", memory_mib=350)])
    world.ask("slow")
    world.control.release("slow")
    pooled(world)
    rates, now = world.control._spares._rates, time.monotonic()
    for _ in range(100):
        rates.use("web", now)
    victims = {each.instance: each.value for each in world.control._sleeper._victims("a")}
    (spare,) = spares(world)
    assert victims[spare.name] > victims["ew-t-slow-0"]


def test_only_free_memory_is_used(make_world: MakeWorld) -> None:
    world = make_world(a_service("web"), a_service("api"), hosts=[a_host("a", memory_mib=150)])
    world.ask("api")
    aim(world)
    world.sweep_until(lambda: bool(world.told("not-pooled")))
    assert "50 MiB left" in world.told("not-pooled")[0]
    assert spares(world) == []
    assert world.control.fleet.serving("api")


def test_none_is_booted_while_somebody_waits(make_world: MakeWorld) -> None:
    world = make_world(a_service("web"), a_service("api", deadline_s=5.0))
    world.answer_s["api"] = 0.5
    waiting = world.summon("api")
    world.eventually(lambda: "ew-t-api-0" in world.guests())
    aim(world)
    for _ in range(5):
        world.control.expire()
    assert spares(world) == []
    waiting.result(5)
    pooled(world)


# --- the lab changes ------------------------------------------------------------------------------


def test_a_host_that_is_drained_keeps_none(make_world: MakeWorld) -> None:
    world = pooled(make_world(hosts=[a_host("a"), a_host("b", 1)]))
    world.control.drain("a")
    world.sweep_until(lambda: not spares(world))
    for _ in range(5):
        world.control.expire()
    assert world.guests("a") == []
    report = world.control.status().hosts[0].drain
    assert report is not None
    assert report.state == "drained"


def test_they_end_with_their_recipe(make_world: MakeWorld) -> None:
    world = pooled(make_world(a_service("web")))
    lab = replace(world.lab, services=(a_service("web", cpu_cap=0.5),))
    world.control.apply(lab)
    assert world.guests() == []
    aim(world)
    world.control.expire()
    assert spares(world) == []


def test_they_go_on_where_nothing_of_theirs_changed(make_world: MakeWorld) -> None:
    world = pooled(make_world(a_service("web")))
    world.control.apply(replace(world.lab, services=(a_service("web"), a_service("api"))))
    assert len(spares(world)) == 1
    assert is_spare(marks(world)[0][0])
    world.ask("api")
    assert marks(world) == [("api", "running")]


def test_they_end_when_their_files_change(make_world: MakeWorld, image: Image) -> None:
    world = pooled(make_world())
    (old,) = spares(world)
    assert image.kernel is not None
    image.kernel.write_bytes(image.kernel.read_bytes() + b"more")
    assert world.ask("web")[0].instance == "ew-t-web-0", "it would be the wrong program"
    world.sweep_until(lambda: [each.service != old.service for each in spares(world)] == [True])


def test_of_images_that_must_know_their_service_there_are_none(
    make_world: MakeWorld, image: Image
) -> None:
    world = make_world(start=False)
    world.lab = replace(world.lab, images=(replace(image, anonymous=False),))
    world.start()
    aim(world)
    world.control.expire()
    assert world.control.fleet.recipes() == ()
    assert not world.control._spares._filling.locked()
    assert spares(world) == []


def test_one_that_ends_by_itself_is_replaced(make_world: MakeWorld) -> None:
    world = pooled(make_world())
    (spare,) = spares(world)
    world.drivers["a"].kill(spare.name)
    world.sweep_until(lambda: world.guests() != [spare.name] and not spares(world))
    pooled(world)


def test_a_claim_and_an_end_at_once_leave_one_of_the_two(make_world: MakeWorld) -> None:
    world = pooled(make_world())
    (spare,) = spares(world)
    with world.control._waker.locks[spare.service]:
        ending = threading.Thread(target=world.control._waker.end_in_turn, args=(spare,))
        ending.start()
        assert world.ask("web")[0].instance == "ew-t-web-0", "who holds it may be ending it"
    ending.join()
    assert world.guests() == ["ew-t-web-0"]

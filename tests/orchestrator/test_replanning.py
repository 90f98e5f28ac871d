"""Plans on a running edgewake: hosts that are out, and what changes while a plan is made or done.

The order of moves by itself is in `test_changes`.
"""

import threading
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from orchestrator.changes import Boot, Change, Withdraw
from orchestrator.errors import EdgewakeError
from orchestrator.hypervisors.base import Stamp
from orchestrator.hypervisors.memory import MemoryHypervisor
from orchestrator.model import (
    Constraints,
    Guest,
    InstanceState,
    Lab,
    Migrate,
    OnHostLoss,
)
from orchestrator.planner import OPTIONS
from placement.problem import Options, Plan, Problem
from tests.world import World, a_host, a_service, straight_to_cold

MakeWorld = Callable[..., World]


def without(lab: Lab, *away: str) -> Lab:
    """Return a lab whose services keep away from some hosts."""
    constraints = Constraints(avoid_hosts=frozenset(away))
    return replace(
        lab, services=tuple(replace(each, constraints=constraints) for each in lab.services)
    )


def about_to_move(make_world: MakeWorld, *services: str) -> World:
    """Return a world where services run at `a`, and a plan wants them at `b`."""
    awake = straight_to_cold(None)
    world = make_world(
        *(a_service(name, idle=awake) for name in services), hosts=[a_host("a"), a_host("b", 1)]
    )
    for service in services:
        world.ask(service)
    world.control.fleet.use(without(world.lab, "a"))
    return world


def meanwhile(monkeypatch: pytest.MonkeyPatch, world: World, do: Callable[[], object]) -> None:
    """Have something happen while a plan is made."""
    planner = world.control.fleet.planner
    made = planner.plan

    def plan(question: Problem, options: Options = OPTIONS) -> Plan:
        found = made(question, options)
        do()
        return found

    monkeypatch.setattr(planner, "plan", plan)


# --- hosts that are out -------------------------------------------------------------------------


def lose(driver: MemoryHypervisor, world: World) -> None:
    driver.unreachable("power cut")
    world.eventually(lambda: driver.host.name in world.control.fleet.lost())


@pytest.mark.parametrize("how", ["lost", "refused", "draining"])
def test_no_plan_uses_a_host_that_takes_nothing(make_world: MakeWorld, how: str) -> None:
    world = make_world(hosts=[a_host("a"), a_host("b", 1)])
    (first,) = world.control.rebalance().plan.hosts["web"]
    if how == "lost":
        lose(world.drivers[first], world)
    elif how == "refused":
        world.control.fleet.refuse(first, "its network is not ours")
    else:
        world.control.fleet.drain(first, wanted=True)
    (other,) = world.control.rebalance().plan.hosts["web"]
    assert other != first
    front = world.control.front(("latency_ms", "hosts_on"))
    assert {plan.hosts["web"] for plan in front.plans} == {(other,)}


@pytest.mark.parametrize("wish", list(OnHostLoss))
def test_what_may_run_on_a_lost_host_is_not_moved(make_world: MakeWorld, wish: OnHostLoss) -> None:
    """Whether a second copy is booted is for `on_host_loss` to say, when somebody asks."""
    world = make_world(a_service("web", on_host_loss=wish), hosts=[a_host("a"), a_host("b", 1)])
    (endpoint,) = world.ask("web")
    lose(world.drivers[endpoint.host], world)
    world.control.fleet.use(without(world.lab, endpoint.host))
    try:
        proposal = world.control.rebalance(dry_run=False)
        assert list(proposal.changes) == []
        assert len(world.guests()) == 1
    finally:
        world.drivers[endpoint.host].reachable()


def test_what_boots_already_is_minded(make_world: MakeWorld) -> None:
    """A copy that boots at `b` is one: the other must not be moved there, but can be to `c`."""
    world = make_world(
        a_service("web", replicas=2), hosts=[a_host(n, i) for i, n in enumerate("abc")]
    )
    world.ask("web")
    world.eventually(lambda: len(world.seen.hosts_of("web")) == 2)
    fleet = world.control.fleet
    booting = next(each for each in fleet.of("web") if each.host == "b")
    fleet.put(replace(booting, state=InstanceState.BOOTING))
    fleet.use(without(world.lab, "a"))
    changes = world.control.rebalance().changes
    assert [each.host for each in changes if isinstance(each, Boot)] == ["c"]


def test_what_is_only_ever_migrated_is_not_booted_elsewhere(make_world: MakeWorld) -> None:
    """A second copy would not have what the first one holds in memory."""
    world = make_world(
        a_service("web", migrate=Migrate.LIVE_ONLY), hosts=[a_host("a"), a_host("b", 1)]
    )
    world.ask("web")
    world.control.fleet.use(without(world.lab, "a"))
    proposal = world.control.rebalance(dry_run=False)
    assert proposal.plan.hosts["web"] == ("b",)
    assert (list(proposal.changes), proposal.changes.left) == ([], ("web",))
    assert world.seen.hosts_of("web") == ["a"]


# --- what happens meanwhile ---------------------------------------------------------------------


def test_a_service_that_went_to_sleep_meanwhile_is_not_woken(
    make_world: MakeWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = about_to_move(make_world, "web")
    meanwhile(monkeypatch, world, lambda: world.control.release("web"))
    world.control.rebalance(dry_run=False)
    assert world.drivers["b"].starts == []


def test_a_service_that_goes_to_sleep_between_moves_is_not_woken(
    make_world: MakeWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = about_to_move(make_world, "api", "web")
    boot = world.drivers["b"].start

    def start(guest: Guest, stamp: Stamp) -> None:
        boot(guest, stamp)
        (other,) = {"api", "web"} - {guest.mark.service}
        world.control.release(other)

    monkeypatch.setattr(world.drivers["b"], "start", start)
    world.control.rebalance(dry_run=False)
    assert (world.guests("a"), len(world.guests("b"))) == ([], 1)


class Told(list[object]):
    """A history that has something happen whenever steering is told."""

    def __init__(self, do: Callable[[], None]) -> None:
        super().__init__()
        self._do = do

    def append(self, told: object) -> None:
        super().append(told)
        self._do()


def test_the_old_copy_stays_if_the_new_one_is_lost_at_once(make_world: MakeWorld) -> None:
    world = about_to_move(make_world, "web")
    fleet = world.control.fleet

    def lose_new() -> None:
        for each in fleet.serving("web"):
            if each.host == "b" and len(fleet.serving("web")) == 2:
                fleet.withdraw(each)

    world.seen.history = Told(lose_new)
    world.control.rebalance(dry_run=False)
    assert [end.host for end in fleet.endpoints("web")] == ["a"]
    assert len(world.guests("a")) == 1


def test_the_old_copy_is_led_to_again_if_the_new_one_is_lost_late(make_world: MakeWorld) -> None:
    world = about_to_move(make_world, "web")
    fleet = world.control.fleet

    def lose_new() -> None:
        if [each.host for each in fleet.serving("web")] == ["b"]:
            fleet.withdraw(fleet.serving("web")[0])

    world.seen.history = Told(lose_new)
    world.control.rebalance(dry_run=False)
    assert [end.host for end in fleet.endpoints("web")] == ["a"]
    assert world.seen.hosts_of("web") == ["a"]
    assert len(world.guests("a")) == 1


def test_a_plan_for_another_lab_is_not_carried_out(
    make_world: MakeWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = about_to_move(make_world, "web")
    other = replace(world.lab, services=(*world.lab.services, a_service("new")))
    meanwhile(monkeypatch, world, lambda: world.control.apply(other))
    with pytest.raises(EdgewakeError, match="the lab was changed while"):
        world.control.rebalance(dry_run=False)
    assert world.guests("b") == []


def test_one_plan_or_front_at_a_time(
    make_world: MakeWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Services wake meanwhile, and a lab can be applied."""
    world = make_world(a_service("web"), a_service("api"))
    begun, go_on = threading.Event(), threading.Event()

    def wait() -> None:
        begun.set()
        assert go_on.wait(10)

    meanwhile(monkeypatch, world, wait)
    planning = threading.Thread(target=world.control.rebalance)
    planning.start()
    try:
        assert begun.wait(5)
        with pytest.raises(EdgewakeError, match="another plan or front"):
            world.control.rebalance()
        with pytest.raises(EdgewakeError, match="another plan or front"):
            world.control.front(("latency_ms", "hosts_on"))
        assert world.ask("api")
        world.control.apply(world.lab)
    finally:
        go_on.set()
        planning.join()
    assert world.control.front(("latency_ms", "hosts_on")).plans


def test_a_move_that_a_crash_cut_off_is_ended_by_the_next_run(
    make_world: MakeWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both copies run then, and both are stored; one is retired, since one is wanted."""
    world = about_to_move(make_world, "web")

    do = world.control._carrier.do

    def crash(change: Change, *more: Any) -> None:
        if isinstance(change, Withdraw):
            raise SystemExit
        do(change, *more)

    monkeypatch.setattr(world.control._carrier, "do", crash)
    with pytest.raises(SystemExit):
        world.control.rebalance(dry_run=False)
    world.crash()
    assert (len(world.guests("a")), len(world.guests("b"))) == (1, 1)
    world.start()
    world.control.expire()
    retired = [each.name for each in world.control.fleet.of("web")]
    assert sum(map(world.control._retirer.holds, retired)) == 1
    assert len(world.seen.hosts_of("web")) == 1

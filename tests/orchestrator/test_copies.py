"""Two live copies of a service: which one stays, and how the other one goes."""

import time
from collections.abc import Callable
from dataclasses import replace

import pytest

from orchestrator.model import Instance, InstanceState, OnHostLoss, Service, mac_of
from orchestrator.reconcile import Copy, surplus
from orchestrator.retiring import (
    LAST_REQUEST_S,
    LONGEST_TRANSFER_S,
    QUIET_S,
    WITHDRAW_GRACE_S,
    forgotten_at,
    served,
)
from tests.world import World, a_host, a_service, straight_to_cold

MakeWorld = Callable[..., World]

NEVER_IDLE = straight_to_cold(None)


def a_copy(name: str, *, led: bool = True, draining: bool = False, ready_at: float = 1.0) -> Copy:
    address = a_host("a").network.first
    ready = Instance(
        name, "web", "a", address, mac_of(address), InstanceState.READY, 0.5, ready_at=ready_at
    )
    return Copy(ready, led=led, draining=draining)


@pytest.mark.parametrize(
    ("copies", "replicas", "goes"),
    [
        ([], 1, []),
        ([a_copy("x")], 1, []),
        ([a_copy("x", led=False)], 1, []),  # alone, it is led to
        ([a_copy("x", draining=True)], 1, []),  # alone, it stays until another one answers
        ([a_copy("back", led=False, ready_at=1), a_copy("now", ready_at=9)], 1, ["back"]),
        ([a_copy("old", ready_at=1), a_copy("new", ready_at=2)], 1, ["new"]),
        ([a_copy("b"), a_copy("a")], 1, ["b"]),  # the same age: the name decides, always alike
        ([a_copy("old", draining=True), a_copy("new", ready_at=2)], 1, ["old"]),
        ([a_copy("led", draining=True), a_copy("back", led=False)], 1, ["led"]),
        ([a_copy("x"), a_copy("y"), a_copy("back", led=False)], 2, ["back"]),
        ([a_copy("x"), a_copy("back", led=False)], 2, []),
        ([a_copy("x"), a_copy("y", ready_at=2), a_copy("z", ready_at=3)], 1, ["y", "z"]),
    ],
)
def test_which_copy_is_one_too_many(copies: list[Copy], replicas: int, goes: list[str]) -> None:
    for order in (copies, copies[::-1]):
        assert [each.name for each in surplus(order, replicas)] == goes


@pytest.mark.parametrize(
    ("asked_at", "ttl_s", "ends"),
    [
        (None, 60, 100 + WITHDRAW_GRACE_S),  # nobody was ever told of it
        (50.0, 10, 100 + WITHDRAW_GRACE_S),  # the last answer is out of every cache
        (95.0, 10, 105.0),
        (500.0, 10, 110 + WITHDRAW_GRACE_S),  # later answers name others
    ],
)
def test_when_no_cache_can_name_it_any_more(
    asked_at: float | None, ttl_s: float, ends: float
) -> None:
    assert forgotten_at(100.0, asked_at, ttl_s) == pytest.approx(ends)


@pytest.mark.parametrize(
    ("traffic_at", "now", "over"),
    [
        (0.0, 100.0, False),  # somebody may just be connecting
        (0.0, 100 + LAST_REQUEST_S, True),
        (100.0, 100 + QUIET_S - 0.1, False),  # a transfer goes on
        (100.0, 100 + QUIET_S, True),
        (129.9, 100 + LONGEST_TRANSFER_S, True),  # for ever is too long
    ],
)
def test_when_the_last_clients_are_served(traffic_at: float, now: float, over: bool) -> None:
    assert served(100.0, traffic_at, now) is over


# --- a lost host comes back ---------------------------------------------------------------------


def woken_elsewhere(make_world: MakeWorld, **changes: object) -> tuple[World, str, str]:
    """Return a world whose service was woken on one host, and, when that was lost, on another."""
    web = a_service("web", **{"idle": NEVER_IDLE, **changes})
    world = make_world(web, hosts=[a_host("a"), a_host("b", 1)])
    (first,) = world.ask("web")
    guests = dict(world.machines[first.host].guests)
    world.drivers[first.host].unreachable("power cut")
    world.eventually(lambda: first.host in world.control.fleet.lost())
    world.machines[first.host].guests.clear()  # so that its probe is silent, too
    world.answer_s[""] = None
    world.sweep_until(lambda: world.seen.hosts_of("web") == [])
    (second,) = world.ask("web")
    assert (second.host != first.host, second.instance) == (True, "ew-t-web-1")
    world.machines[first.host].guests.update(guests)
    return world, first.host, second.host


@pytest.fixture(name="make_world")
def _make_impatient_world(make_world: MakeWorld, monkeypatch: pytest.MonkeyPatch) -> MakeWorld:
    monkeypatch.setattr("orchestrator.settler.LOST_PROBE_S", 0.1)
    monkeypatch.setattr("orchestrator.retiring.LAST_REQUEST_S", 0.05)
    return make_world


def test_the_copy_that_clients_are_led_to_stays_and_the_returned_one_goes(
    make_world: MakeWorld,
) -> None:
    world, first, second = woken_elsewhere(make_world, ttl_s=1)
    asked_at = world.control.asked["web"]
    world.seen.history.clear()
    world.drivers[first].reachable()
    world.sweep_until(lambda: world.guests(first) == [])
    assert time.monotonic() >= asked_at + 1, "it ended while a cache could name it"
    assert world.guests(second) == ["ew-t-web-1"]
    led = [end.host for told in world.seen.history for r in told for end in r.endpoints]
    assert set(led) <= {second}, "clients were led back and forth"
    assert [i.name for i in world.store.load().instances] == ["ew-t-web-1"]


def test_the_returned_copy_is_used_when_the_other_one_is_gone(make_world: MakeWorld) -> None:
    world, first, second = woken_elsewhere(make_world, ttl_s=60)
    world.drivers[second].kill("ew-t-web-1")
    world.eventually(lambda: world.seen.hosts_of("web") == [])
    world.drivers[first].reachable()
    world.sweep_until(lambda: world.seen.hosts_of("web") == [first])
    assert world.guests(first) == ["ew-t-web-0"]


def test_the_returned_copy_takes_over_if_the_other_one_dies_before_it_has_ended(
    make_world: MakeWorld,
) -> None:
    """Never both are ended."""
    world, first, second = woken_elsewhere(make_world, ttl_s=1)
    world.drivers[first].reachable()
    world.eventually(lambda: world.control.fleet.lost() == {})
    world.eventually(lambda: world.control._retirer.holds("ew-t-web-0"))
    world.drivers[second].kill("ew-t-web-1")
    world.sweep_until(lambda: world.seen.hosts_of("web") == [first])
    assert world.guests() == ["ew-t-web-0"]
    assert world.drivers[first].starts == ["ew-t-web-0"]


def test_a_host_that_comes_back_under_a_wake_elsewhere_leaves_one_copy(
    make_world: MakeWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The returned one answers first, so it is the one that clients are led to."""
    web = a_service("web", idle=NEVER_IDLE)
    world = make_world(web, hosts=[a_host("a"), a_host("b", 1)])
    world.ask("web")
    guests = dict(world.machines["a"].guests)
    world.drivers["a"].unreachable("power cut")
    world.machines["a"].guests.clear()
    world.answer_s[""] = None
    world.sweep_until(lambda: world.seen.hosts_of("web") == [])
    world.answer_s["web"] = 0.3
    wake = world.summon("web")
    world.eventually(lambda: world.guests("b") != [])
    world.machines["a"].guests.update(guests)
    world.drivers["a"].reachable()
    world.eventually(lambda: world.seen.hosts_of("web") == ["a"])
    world.seen.history.clear()
    assert wake.exception(5) is None
    world.sweep_until(lambda: world.guests("b") == [])
    assert world.seen.hosts_of("web") == ["a"]
    assert all(route.endpoints for told in world.seen.history for route in told)


def test_the_returned_copy_is_welcome_as_a_replica(make_world: MakeWorld) -> None:
    web = a_service("web", replicas=2, idle=NEVER_IDLE)
    world = make_world(web, hosts=[a_host("a"), a_host("b", 1)])
    world.ask("web")
    world.eventually(lambda: len(world.seen.hosts_of("web")) == 2)
    guests = dict(world.machines["a"].guests)
    world.drivers["a"].unreachable("power cut")
    world.machines["a"].guests.clear()
    world.answer_s[""] = None
    world.sweep_until(lambda: world.seen.hosts_of("web") == ["b"])
    world.machines["a"].guests.update(guests)
    world.drivers["a"].reachable()
    world.sweep_until(lambda: sorted(world.seen.hosts_of("web")) == ["a", "b"])
    assert world.guests() == ["ew-t-web-0", "ew-t-web-1"]


def test_a_service_that_is_to_have_fewer_replicas_loses_the_youngest(
    make_world: MakeWorld,
) -> None:
    web = a_service("web", replicas=2, idle=NEVER_IDLE)
    world = make_world(web, hosts=[a_host("a"), a_host("b", 1)])
    (first,) = world.ask("web")
    world.eventually(lambda: len(world.seen.hosts_of("web")) == 2)
    world.control.apply(replace(world.lab, services=(replace(web, replicas=1),)))
    world.sweep_until(lambda: len(world.guests()) == 1)
    assert world.seen.hosts_of("web") == [first.host]


def test_two_copies_found_at_the_start_become_one(make_world: MakeWorld) -> None:
    """A crash in the middle of a move leaves both of them ready."""
    web: Service = a_service("web", replicas=2, idle=NEVER_IDLE)
    world = make_world(web, hosts=[a_host("a"), a_host("b", 1)])
    world.ask("web")
    world.eventually(lambda: len(world.guests()) == 2)
    world.eventually(lambda: len(world.seen.hosts_of("web")) == 2)
    world.crash()
    world.lab = replace(world.lab, services=(replace(web, replicas=1),))
    world.start()
    world.sweep_until(lambda: len(world.guests()) == 1)
    assert len(world.seen.hosts_of("web")) == 1


# --- services that are kept where they are ------------------------------------------------------


def test_a_kept_service_is_led_to_on_its_lost_host_and_never_woken_elsewhere(
    make_world: MakeWorld,
) -> None:
    web = a_service("web", idle=NEVER_IDLE, on_host_loss=OnHostLoss.KEEP)
    world = make_world(web, hosts=[a_host("a"), a_host("b", 1)])
    (first,) = world.ask("web")
    world.answer_s["web"] = None
    world.drivers[first.host].unreachable("power cut")
    world.eventually(lambda: first.host in world.control.fleet.lost())
    for _ in range(3):
        world.control.expire()
        time.sleep(0.15)
    assert world.seen.hosts_of("web") == [first.host]
    world.crash()
    opened = world.open_host

    def open_cut_off(host: object) -> object:
        parts = opened(host)  # type: ignore[arg-type]
        if parts.hypervisor.host.name == first.host:  # type: ignore[attr-defined]
            world.drivers[first.host].unreachable("power cut")
        return parts

    world.open_host = open_cut_off  # type: ignore[method-assign,assignment]
    world.start()
    error = world.summon("web").exception(5)
    assert "may be running" in str(error)
    assert len(world.guests()) == 1
    world.drivers[first.host].reachable()
    world.sweep_until(lambda: world.seen.hosts_of("web") == [first.host])

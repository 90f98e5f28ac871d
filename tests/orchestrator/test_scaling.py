"""How many copies by load: the decisions as tables and properties, and in a world of memory."""

import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.display import print_status
from orchestrator.drain import Step, step_of
from orchestrator.model import (
    IdlePolicy,
    InstanceState,
    Mark,
    Rung,
    RunningGuest,
    Scale,
    Service,
)
from orchestrator.scaling import STALE_S, Load, LoadMeter, Steadied, opinion, total
from tests.world import World, a_host, a_service
from web.models.status import StatusDocument

MakeWorld = Callable[..., World]

NOW = 100.0
CPU = Scale(most=4, cpu=0.8)
PACKETS = Scale(most=4, packets_s=100.0)


def a_scaled(scale: Scale = CPU, **changes: object) -> Service:
    return a_service("web", scale=scale, **changes)


# --- the load of a guest --------------------------------------------------------------------------


def a_guest(packets: int, cpu_s: float | None) -> RunningGuest:
    mark = Mark("o", "ew-t-web-0", "web", "a", a_host("a").network.first)
    return RunningGuest(mark, rx_packets=packets, cpu_s=cpu_s)


@pytest.mark.parametrize(
    ("readings", "load"),
    [
        ([(100.0, 5, 1.0)], None),  # one reading says nothing
        ([(100.0, 5, 1.0), (102.0, 25, 2.0)], Load(0.5, 10.0, 102.0)),
        ([(100.0, 5, None), (101.0, 25, None)], Load(None, 20.0, 101.0)),
        ([(100.0, 5, None), (101.0, 25, 7.0)], Load(None, 20.0, 101.0)),
        ([(100.0, 5, 1.0), (100.01, 500, 2.0)], None),  # too near to say anything
        # What could not be read is 0 for once; what it has grown by since the boot is no load.
        (
            [(100.0, 5, 1.0), (101.0, 6, 1.5), (102.0, 0, 0.0), (103.0, 9000, 60.0)],
            Load(0.5, 1.0, 101.0),
        ),
        (
            [(100.0, 5, 1.0), (101.0, 0, 0.0), (102.0, 9000, 60.0), (103.0, 9001, 61.0)],
            Load(1.0, 1.0, 103.0),
        ),
    ],
)
def test_the_load_of_a_guest_is_how_fast_its_counters_grow(
    readings: list[tuple[float, int, float | None]], load: Load | None
) -> None:
    meter = LoadMeter()
    for now, packets, cpu_s in readings:
        meter.count(a_guest(packets, cpu_s), now)
    assert meter.load == load


@pytest.mark.parametrize(
    ("loads", "found"),
    [
        ([], None),
        ([None], None),
        ([Load(0.5, 10, NOW), Load(0.2, 5, NOW - 1)], Load(0.7, 15, NOW - 1)),
        ([Load(0.5, 10, NOW), None], Load(0.5, 10, NOW)),  # a young copy
        ([Load(0.5, 10, NOW), Load(0.2, 5, NOW - STALE_S - 1)], None),  # a silent one
        ([Load(0.5, 10, NOW), Load(None, 5, NOW)], Load(None, 15, NOW)),
    ],
)
def test_the_load_of_all_copies(loads: list[Load | None], found: Load | None) -> None:
    assert total(loads, NOW) == found


# --- how many -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("scale", "cpu", "packets_s", "present", "copies"),
    [  # a copy is promised 0.1 cores, so 0.08 are meant
        (CPU, 0.0, 0, 1, 1),
        (CPU, 0.087, 0, 1, 1),  # within 10 %
        (CPU, 0.089, 0, 1, 2),
        (CPU, 0.16, 0, 1, 2),
        (CPU, 0.16, 0, 2, 2),
        (CPU, 0.24, 0, 2, 3),
        (CPU, 9.0, 0, 2, 4),  # never above `most`
        (CPU, 0.15, 0, 3, 2),
        (CPU, 0.0, 0, 3, 1),
        (CPU, None, 0, 3, 3),  # nobody can tell
        (PACKETS, None, 250, 1, 3),
        (PACKETS, 9.0, 105, 1, 1),
        (replace(CPU, packets_s=100.0), 0.01, 250, 1, 3),  # the measure that asks for most
        (replace(CPU, packets_s=100.0), None, 10, 3, 3),
    ],
)
def test_how_many_copies_a_load_asks_for(
    scale: Scale, cpu: float | None, packets_s: float, present: int, copies: int
) -> None:
    assert opinion(a_scaled(scale), Load(cpu, packets_s), present).copies == copies


def test_never_below_the_replicas_and_the_reason_is_told() -> None:
    found = opinion(a_scaled(replicas=2), Load(0.168, 0.0), 2)
    assert found.copies == 2
    assert found.why == "cpu 84% of what a copy is promised, 80% is meant"
    assert opinion(a_scaled(replicas=2), Load(0.0, 0.0), 3).copies == 2


def course(asked: list[int], present: int, out_s: float, in_s: float) -> list[int]:
    """Return what is wanted second by second, given what is asked for."""
    steadied = Steadied(out_s, in_s, present=present, now=0.0)
    found = []
    for second, each in enumerate(asked, 1):
        present = steadied.wanted(each, present, float(second))
        found.append(present)
    return found


def test_out_after_a_short_while_and_in_after_a_long_one() -> None:
    asked = [3] * 5 + [1] * 8
    assert course(asked, 1, out_s=2, in_s=5) == [1, 1, 3, 3, 3, 3, 3, 3, 3, 3, 1, 1, 1]


def test_a_peak_changes_nothing_and_a_lull_neither() -> None:
    assert course([1, 4, 1, 1, 4, 4, 1], 1, out_s=3, in_s=3) == [1] * 7
    assert course([4, 1, 4, 1, 1, 1, 4], 4, out_s=0, in_s=4) == [4] * 7


@given(
    asked=st.lists(st.integers(1, 6), min_size=1, max_size=60),
    present=st.integers(1, 6),
    out_s=st.integers(0, 10),
    in_s=st.integers(0, 20),
)
def test_each_step_was_asked_for_throughout_its_window(
    asked: list[int], present: int, out_s: int, in_s: int
) -> None:
    wanted = [present, *course(asked, present, out_s, in_s)]
    said = [present, *asked]  # second 0 is the beginning
    for second in range(1, len(said)):
        before, now = wanted[second - 1], wanted[second]
        if now > before:
            assert now == min(said[max(0, second - out_s) : second + 1])
        if now < before:
            assert now == max(said[max(0, second - in_s) : second + 1])


def test_a_drain_minds_the_copies_that_are_wanted_now(make_world: MakeWorld) -> None:
    world = make_world(a_scaled(), hosts=some_hosts())
    world.ask("web")
    (instance,) = world.control.fleet.of("web")
    for wanted, step in ((1, Step.RETIRE), (2, Step.BOOT)):
        found = step_of(instance, a_scaled(), wanted=wanted, led=True, awaited=False, elsewhere=1)
        assert found is step


# --- in a world -----------------------------------------------------------------------------------

QUICK = Scale(most=3, cpu=0.5, out_after_s=0.2, in_after_s=0.4)
AWAKE = IdlePolicy(after_s=None, min_up_s=0.0, paused_s=60.0)


@pytest.fixture(name="make_world")
def _make_quick_world(make_world: MakeWorld, monkeypatch: pytest.MonkeyPatch) -> MakeWorld:
    monkeypatch.setattr("orchestrator.scaling.LEAST_SPAN_S", 0.005)
    monkeypatch.setattr("orchestrator.retiring.LAST_REQUEST_S", 0.05)
    monkeypatch.setattr("orchestrator.retiring.QUIET_S", 0.1)
    monkeypatch.setattr("orchestrator.settler.LOST_PROBE_S", 0.1)
    return make_world


def some_hosts(count: int = 4) -> list[object]:
    return [a_host(name, index) for index, name in enumerate("abcd"[:count])]


def sweep(world: World, cores: float, what: Callable[[], bool]) -> None:
    """Sweep until something is true, with so many cores of load spread over the copies."""
    at = time.monotonic()

    def swept() -> bool:
        nonlocal at
        time.sleep(0.01)
        spent, at = (time.monotonic() - at) * cores, time.monotonic()
        serving = world.control.fleet.serving("web")
        for each in serving:
            with suppress(KeyError):  # a host that was cut off
                world.drivers[each.host].work(each.name, spent / len(serving))
        world.control.expire()
        return what()

    world.eventually(swept, 15.0)


def led(world: World) -> list[str]:
    return world.seen.hosts_of("web")


def scaled(make_world: MakeWorld, cores: float = 0.5, **changes: object) -> World:
    """Return a world whose service has as many copies as some cores of load ask for."""
    web = a_scaled(QUICK, **{"idle": AWAKE, **changes})
    world = make_world(web, hosts=some_hosts())
    world.ask("web")
    sweep(world, cores, lambda: len(led(world)) == 3)
    return world


def test_load_boots_copies_and_the_answer_has_them_all(
    make_world: MakeWorld, capsys: pytest.CaptureFixture[str]
) -> None:
    world = scaled(make_world)
    assert len({end.address for end in world.ask("web")}) == 3
    (event,) = world.events("scaled-out")[-1:]
    assert "cpu" in event.text
    (status,) = world.control.status().services
    assert (status.wanted, status.has) == (3, 3)
    assert "is promised, 50% is meant" in status.scale
    print_status(StatusDocument.of(world.control.status()).as_json())
    assert "3 of 3 copies: cpu " in capsys.readouterr().out


def test_calm_takes_copies_away_and_they_sleep_for_the_next_time(make_world: MakeWorld) -> None:
    world = scaled(make_world)
    addresses = {end.address for end in world.ask("web")}
    sweep(world, 0.0, lambda: len(led(world)) == 1)
    paused = InstanceState.PAUSED
    sweep(
        world,
        0.0,
        lambda: [i.state for i in world.control.fleet.of("web")].count(paused) == 2,
    )
    assert [event.kind for event in world.events() if event.kind.startswith("scaled")][-1] == (
        "scaled-in"
    )
    starts = sum(len(driver.starts) for driver in world.drivers.values())
    sweep(world, 0.5, lambda: len(led(world)) == 3)
    assert sum(len(driver.starts) for driver in world.drivers.values()) == starts
    assert {end.address for end in world.ask("web")} == addresses


def test_without_a_rung_of_sleep_they_end(make_world: MakeWorld) -> None:
    world = scaled(make_world, idle=replace(AWAKE, paused_s=0.0, saved_s=0.0))
    sweep(world, 0.0, lambda: len(world.guests()) == 1)
    assert len(led(world)) == 1


def test_a_copy_that_is_taken_away_is_drained_first(make_world: MakeWorld) -> None:
    world = scaled(make_world, ttl_s=1)
    asked_at = world.control.asked["web"] = time.monotonic()
    world.seen.history.clear()
    sweep(world, 0.0, lambda: len(led(world)) == 1)
    first = world.control.fleet.serving("web")
    assert all(each.state is InstanceState.READY for each in world.control.fleet.of("web")), (
        "it slept while a cache could name it"
    )
    sweep(world, 0.0, lambda: len(sleepers(world)) == 2)
    assert time.monotonic() >= asked_at + 1
    assert world.control.fleet.serving("web") == first


def sleepers(world: World) -> list[str]:
    asleep = {InstanceState.PAUSED, InstanceState.SAVED}
    return [each.name for each in world.control.fleet.of("web") if each.state in asleep]


def test_a_copy_that_is_being_taken_away_is_used_again_when_load_returns(
    make_world: MakeWorld,
) -> None:
    world = scaled(make_world, ttl_s=60)
    world.control.asked["web"] = time.monotonic()
    sweep(world, 0.0, lambda: len(led(world)) == 1)
    sweep(world, 0.5, lambda: len(led(world)) == 3)
    assert world.events("recalled")
    assert len(world.guests()) == 3


def test_no_more_are_wanted_than_hosts_have_room_for(make_world: MakeWorld) -> None:
    web = a_scaled(QUICK, idle=AWAKE)
    small = replace(a_host("c", 2), capacity=replace(a_host("c").capacity, memory_mib=50))
    world = make_world(web, hosts=[a_host("a"), a_host("b", 1), small])
    world.ask("web")
    sweep(world, 0.5, lambda: len(led(world)) == 2)
    deadline = time.monotonic() + 1.0
    sweep(world, 0.5, lambda: time.monotonic() > deadline)
    (status,) = world.control.status().services
    assert (status.wanted, status.has) == (2, 2)
    assert "no host has room for 1 more" in status.scale
    assert not world.events("replica-failed")


def test_what_sleeps_unused_gives_its_room_to_a_copy(make_world: MakeWorld) -> None:
    other = a_service("other", idle=replace(AWAKE, after_s=60.0))
    hosts = [replace(host, capacity=replace(host.capacity, memory_mib=150)) for host in two()]
    world = make_world(a_scaled(replace(QUICK, most=2), idle=AWAKE), other, hosts=hosts)
    world.ask("other")
    world.control.release("other", Rung.PAUSED)
    world.ask("web")
    sweep(world, 0.5, lambda: len(led(world)) == 2)
    assert world.events("made-room")


def two() -> list[object]:
    return some_hosts(2)


def test_a_restart_keeps_the_copies_that_run(make_world: MakeWorld) -> None:
    world = scaled(make_world)
    world.crash()
    world.start()
    world.control.expire()
    assert len(led(world)) == 3
    sweep(world, 0.5, lambda: True)
    assert len(led(world)) == 3
    sweep(world, 0.0, lambda: len(led(world)) == 1)


def test_asleep_and_woken_again_it_begins_with_its_replicas(make_world: MakeWorld) -> None:
    world = scaled(make_world)
    world.control.release("web")
    world.control.expire()
    assert led(world) == []
    world.ask("web")
    for _ in range(3):
        world.control.expire()
    assert len(led(world)) == 1
    assert len(sleepers(world)) == 2


def test_a_plan_places_the_copies_that_are_wanted(make_world: MakeWorld) -> None:
    world = scaled(make_world)
    proposal = world.control.rebalance()
    assert len(proposal.plan.hosts["web"]) == 3
    assert list(proposal.changes) == []


def test_a_lost_copy_is_replaced_up_to_what_is_wanted(make_world: MakeWorld) -> None:
    world = scaled(make_world)
    died = world.control.fleet.serving("web")[2]
    world.drivers[died.host].kill(died.name)
    sweep(world, 0.5, lambda: len(led(world)) == 3 and len(world.guests()) == 3)
    assert not world.events("scaled-in")


def test_a_copy_that_a_lost_host_brings_back_is_welcome_if_it_is_wanted(
    make_world: MakeWorld,
) -> None:
    world = scaled(make_world, replicas=1)
    lost = world.control.fleet.serving("web")[1]
    guests = dict(world.machines[lost.host].guests)
    others = {each.host for each in world.control.fleet.serving("web")} - {lost.host}
    for name in {"a", "b", "c", "d"} - others - {lost.host}:
        world.drivers[name].unreachable("switched off")  # so that it is replaced nowhere
    world.drivers[lost.host].unreachable("power cut")
    world.machines[lost.host].guests.clear()
    world.answer_s[""] = None
    sweep(world, 0.5, lambda: set(led(world)) == others)
    world.machines[lost.host].guests.update(guests)
    world.drivers[lost.host].reachable()
    sweep(world, 0.5, lambda: len(led(world)) == 3)
    assert not world.events("retired")


def test_what_is_not_scaled_is_left_alone(make_world: MakeWorld) -> None:
    world = make_world(a_service("web", idle=AWAKE), hosts=some_hosts())
    world.ask("web")
    deadline = time.monotonic() + 0.5
    sweep(world, 0.5, lambda: time.monotonic() > deadline)
    assert len(world.guests()) == 1
    (status,) = world.control.status().services
    assert (status.wanted, status.has, status.scale) == (1, 1, "")

"""The clock is set by hours: nobody sleeps or wakes for it, and addresses keep resting."""

import time
from collections.abc import Callable

import pytest

from orchestrator import clock
from orchestrator.fleet import IN_FLIGHT_S
from orchestrator.model import GuestNetwork, Host, Restart
from orchestrator.store.base import Quarantine
from orchestrator.store.memory import MemoryStore
from tests.world import World, a_host, a_service, straight_to_cold

MakeWorld = Callable[..., World]
HOURS_S = 5 * 3600.0
NEVER_IDLE = straight_to_cold(None)


class Wall:
    """The wall clock of a test, which can be set."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self._real = time.time
        self.by_s = 0.0
        monkeypatch.setattr(time, "time", lambda: self._real() + self.by_s)


@pytest.fixture
def wall(monkeypatch: pytest.MonkeyPatch) -> Wall:
    return Wall(monkeypatch)


def one_address() -> Host:
    """Return a host whose pool has a single address."""
    host = a_host("a")
    network = host.network
    pool = GuestNetwork(
        name=network.name,
        subnet=network.subnet,
        gateway=network.gateway,
        first=network.first,
        last=network.first,
        create=True,
    )
    return Host(name=host.name, uri=host.uri, capacity=host.capacity, network=pool)


@pytest.mark.parametrize("by_s", [HOURS_S, -HOURS_S])
def test_nothing_sleeps_or_wakes_for_it(make_world: MakeWorld, wall: Wall, by_s: float) -> None:
    idle = straight_to_cold(600.0)
    awake = a_service("web", idle=idle, restart=Restart.ALWAYS)
    world = make_world(awake, a_service("cold"))
    world.ask("web")
    wall.by_s = by_s
    assert world.control.expire() == ()
    assert world.seen.hosts_of("web") == ["a"]
    assert world.seen.hosts_of("cold") == []
    assert world.guests() == ["ew-t-web-0"]
    assert world.ask("cold"), "and wakes go on as before"


@pytest.mark.parametrize("by_s", [HOURS_S, -HOURS_S])
def test_it_is_told_once(make_world: MakeWorld, wall: Wall, by_s: float) -> None:
    world = make_world()
    world.control.expire()
    assert world.events("clock-set") == []
    wall.by_s = by_s
    for _ in range(3):
        world.control.expire()
    (told,) = world.events("clock-set")
    assert told.text.startswith(f"it was set {'forward' if by_s > 0 else 'back'} by 18000 s")


def test_a_jump_forward_does_not_end_an_addresss_rest(make_world: MakeWorld, wall: Wall) -> None:
    services = [a_service(name, ttl_s=60) for name in ("one", "two")]
    world = make_world(*services, hosts=[one_address()])
    world.ask("one")
    world.control.release("one")
    wall.by_s = HOURS_S
    error = world.summon("two").exception(5)
    assert "1 rest" in str(error), "a cache may still say that it is the other's"


def test_a_jump_back_does_not_prolong_it(make_world: MakeWorld, wall: Wall) -> None:
    services = [a_service(name, ttl_s=0) for name in ("one", "two")]
    world = make_world(*services, hosts=[one_address()])
    world.ask("one")
    world.control.release("one")
    wall.by_s = -HOURS_S
    time.sleep(IN_FLIGHT_S)
    assert world.ask("two")


@pytest.mark.parametrize(
    ("left_s", "may_s"),
    [(30.0, 30.0), (HOURS_S, 3600.0), (-5.0, -5.0)],
)
def test_rests_of_an_earlier_run_go_on_but_not_for_hours(
    make_world: MakeWorld, left_s: float, may_s: float
) -> None:
    """Stored times are of the wall clock, which may have been wrong when they were."""
    store = MemoryStore()
    host = one_address()
    address = host.network.first
    rest = Quarantine(host.name, address, "gone", time.time() + left_s)
    store._quarantines[host.name, address] = rest
    world = make_world(hosts=[host], store=store)
    usage = world.control.fleet._pools.usage(host, time.monotonic() + may_s - 1.0)
    assert usage.resting == 1
    usage = world.control.fleet._pools.usage(host, time.monotonic() + may_s + 1.0)
    assert usage.resting == 0


@pytest.mark.parametrize("by_s", [HOURS_S, -HOURS_S])
def test_traces_and_events_keep_their_order(make_world: MakeWorld, wall: Wall, by_s: float) -> None:
    world = make_world()
    start = world.drivers["a"].start

    def jump(guest: object, stamp: object) -> None:
        wall.by_s = by_s
        start(guest, stamp)  # type: ignore[arg-type]

    world.drivers["a"].start = jump  # type: ignore[method-assign,assignment]
    world.ask("web")
    world.control.release("web")
    (wake,) = world.control.wakes.last("web")
    at = [seconds for _, seconds in wake.stamps]
    assert at == sorted(at)
    assert 0.0 <= wake.total_s < 60.0
    kinds = [event.kind for event in world.events()]
    assert kinds.index("woke") < kinds.index("slept")


def test_a_jump_makes_no_short_life_a_long_one(make_world: MakeWorld, wall: Wall) -> None:
    """A guest that was up for long ends a row of failures; a clock that was set does not."""
    world = make_world(a_service("web", idle=NEVER_IDLE))
    for count in (1, 2, 3):
        world.ask("web")
        wall.by_s += HOURS_S
        world.drivers["a"].kill("ew-t-web-0")
        world.eventually(lambda: world.seen.hosts_of("web") == [])
        assert world.control._keeper._losses.row("web").count == count


def test_a_small_step_is_no_jump(wall: Wall) -> None:
    watch = clock.WallClock()
    wall.by_s = clock.JUMP_S / 2
    assert watch.jumped_s() == 0.0
    wall.by_s += HOURS_S
    assert watch.jumped_s() == pytest.approx(HOURS_S, abs=1.0)
    assert watch.jumped_s() == 0.0

"""Services that are awake though nobody asks: pinned ones, and those in their warm hours."""

from collections.abc import Callable
from datetime import UTC, datetime

import pytest

from orchestrator import idle
from orchestrator.errors import EdgewakeError
from orchestrator.hours import Hours
from orchestrator.idle import KeptUp
from orchestrator.model import IdlePolicy, Service
from tests.world import World, a_host, a_service

MakeWorld = Callable[..., World]

PIN = IdlePolicy(after_s=0.05, min_up_s=0.0, pin=True)
OFFICE = IdlePolicy(
    after_s=0.05,
    min_up_s=0.0,
    paused_s=None,
    keep_warm=(Hours.parse("* 8-17 * * mon-fri"),),
    timezone="UTC",
)
MONDAY_7, MONDAY_8, MONDAY_18 = (
    datetime(2026, 11, 23, hour, 0, 30, tzinfo=UTC).timestamp() for hour in (7, 8, 18)
)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """Return what sets the wall clock that policies are looked up on."""
    shown = [MONDAY_7]

    def kept_up(policy: IdlePolicy, _now: float) -> KeptUp | None:
        return idle.kept_up(policy, shown[0])

    for module in ("upkeep", "expiring", "sleeping", "control"):
        monkeypatch.setattr(f"orchestrator.{module}.kept_up", kept_up)
    return lambda now: shown.__setitem__(0, now)


@pytest.fixture(name="make_world")
def _make_quick_world(make_world: MakeWorld, monkeypatch: pytest.MonkeyPatch) -> MakeWorld:
    monkeypatch.setattr("orchestrator.failures.FIRST_DELAY_S", 0.2)
    return make_world


def awake(world: World, service: str = "web") -> bool:
    return bool(world.seen.hosts_of(service))


def a_pinned(**changes: object) -> Service:
    return a_service("web", **{"idle": PIN, **changes})


# --- pinned ---------------------------------------------------------------------------------------


def test_a_pinned_service_is_woken_at_the_start_and_never_sleeps(make_world: MakeWorld) -> None:
    world = make_world(a_pinned())
    world.sweep_until(lambda: awake(world))
    (wake,) = world.control.wakes.last("web")
    assert (wake.by, wake.outcome) == ("pin", "ready")
    assert [event.data for event in world.events("pre-waking")] == [(("by", "pin"),)]
    for _ in range(30):
        world.control.expire()
    assert awake(world)
    (status,) = world.control.status().services
    assert (status.state, status.idle) == ("awake", "it is pinned")


def test_it_is_woken_after_a_loss(make_world: MakeWorld) -> None:
    world = make_world(a_pinned(), hosts=[a_host("a"), a_host("b", 1)])
    world.sweep_until(lambda: awake(world))
    (host,) = world.seen.hosts_of("web")
    world.drivers[host].kill("ew-t-web-0")
    world.sweep_until(lambda: awake(world) and len(world.guests()) == 1)
    assert [wake.by for wake in world.control.wakes.last("web")] == ["pin", "pin"]


def test_it_has_its_replicas(make_world: MakeWorld) -> None:
    world = make_world(a_pinned(replicas=2), hosts=[a_host("a"), a_host("b", 1)])
    world.sweep_until(lambda: len(world.seen.hosts_of("web")) == 2)


def test_a_wake_that_fails_is_tried_ever_more_rarely(make_world: MakeWorld) -> None:
    world = make_world(a_pinned())
    world.drivers["a"].fail = "out of luck"
    for _ in range(60):
        world.control.expire()
        world.control._stopping.wait(0.01)
    failed = world.events("wake-failed")
    assert 2 <= len(failed) <= 5
    assert world.events("backing-off")
    world.drivers["a"].fail = ""
    world.sweep_until(lambda: awake(world))


def test_a_query_and_the_pin_share_one_wake(make_world: MakeWorld) -> None:
    world = make_world(a_pinned())
    world.answer_s["web"] = 0.2
    world.control.expire()
    future = world.summon("web")
    world.control.expire()
    assert future.result(5)
    assert world.drivers["a"].starts == ["ew-t-web-0"]
    (wake,) = world.control.wakes.last("web")
    assert (wake.by, wake.queries) == ("pin", 2)


def test_it_gives_way_to_nobody(make_world: MakeWorld) -> None:
    other = a_service("other")
    world = make_world(a_pinned(), other, hosts=[a_host("a", memory_mib=150)])
    world.sweep_until(lambda: awake(world))
    assert world.control._sleeper.gains() == {"a": 0}
    assert world.summon("other").exception(5) is not None
    assert awake(world)


def test_a_paused_instance_that_is_about_to_be_woken_gives_way_to_nobody(
    make_world: MakeWorld, clock: Callable[[float], None]
) -> None:
    world = make_world(a_service("web", idle=OFFICE))
    world.ask("web")
    world.control.release("web")
    assert world.control._sleeper.gains()["a"] > 0
    clock(MONDAY_8)
    assert world.control._sleeper.gains()["a"] == 0


def test_nobody_can_put_it_to_sleep(make_world: MakeWorld) -> None:
    world = make_world(a_pinned())
    world.sweep_until(lambda: awake(world))
    with pytest.raises(EdgewakeError, match="woken at once: it is pinned"):
        world.control.release("web")
    assert awake(world)


# --- warm hours -----------------------------------------------------------------------------------


def test_it_is_woken_when_its_hours_begin_and_sleeps_when_they_have_ended(
    make_world: MakeWorld, clock: Callable[[float], None]
) -> None:
    world = make_world(a_service("web", idle=OFFICE))
    for _ in range(5):
        world.control.expire()
    assert world.guests() == []
    clock(MONDAY_8)
    world.sweep_until(lambda: awake(world))
    (wake,) = world.control.wakes.last("web")
    assert wake.by == "keep-warm"
    for _ in range(30):
        world.control.expire()
        world.control._stopping.wait(0.005)
    assert awake(world)
    clock(MONDAY_18)
    world.sweep_until(lambda: not awake(world))


def test_a_clock_that_is_set_back_and_forth_wakes_and_lets_sleep_by_what_it_shows(
    make_world: MakeWorld, clock: Callable[[float], None]
) -> None:
    world = make_world(a_service("web", idle=OFFICE))
    for now, warm in ((MONDAY_8, True), (MONDAY_7, False), (MONDAY_8 + 7 * 86400, True)):
        clock(now)
        world.sweep_until(lambda warm=warm: awake(world) is warm)  # type: ignore[misc]


def test_outside_its_hours_a_query_wakes_it_as_always(
    make_world: MakeWorld, clock: Callable[[float], None]
) -> None:
    world = make_world(a_service("web", idle=OFFICE))
    clock(MONDAY_7)
    world.ask("web")
    (wake,) = world.control.wakes.last("web")
    assert wake.by == "query"
    world.sweep_until(lambda: not awake(world))

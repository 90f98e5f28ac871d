"""Copies that were lost are grown again, in their time: decisions as tables, and in a world."""

import time
from collections.abc import Callable

import pytest

from orchestrator.errors import UnknownService
from orchestrator.model import IdlePolicy, Restart
from orchestrator.summons import Summons
from orchestrator.upkeep import Standing, missing
from tests.world import World, a_host, a_service, straight_to_cold

MakeWorld = Callable[..., World]

NEVER_IDLE = straight_to_cold(None)
NOW = 100.0


@pytest.mark.parametrize(
    ("standing", "retry_at", "copies"),
    [
        (Standing(copies=1, led=0), 0.0, 0),  # asleep
        (Standing(copies=1, led=1), 0.0, 0),
        (Standing(copies=3, led=1), 0.0, 2),
        (Standing(copies=3, led=1, coming=1), 0.0, 1),
        (Standing(copies=3, led=1), NOW + 1, 0),  # backing off
        (Standing(copies=3, led=1), NOW, 2),
        (Standing(copies=1, led=2), 0.0, 0),
        (Standing(copies=3, led=0, owed=True), 0.0, 1),  # the first; the others follow it
        (Standing(copies=3, led=0, coming=1, owed=True), 0.0, 0),
        (Standing(copies=1, led=0, owed=True), NOW + 1, 0),
    ],
)
def test_how_many_copies_are_missing(standing: Standing, retry_at: float, copies: int) -> None:
    assert missing(standing, retry_at=retry_at, now=NOW) == copies


# --- in a world ---------------------------------------------------------------------------------


@pytest.fixture(name="make_world")
def _make_quick_world(make_world: MakeWorld, monkeypatch: pytest.MonkeyPatch) -> MakeWorld:
    monkeypatch.setattr("orchestrator.failures.FIRST_DELAY_S", 0.2)
    monkeypatch.setattr("orchestrator.settler.LOST_PROBE_S", 0.1)
    return make_world


def three_hosts() -> list[object]:
    return [a_host("a"), a_host("b", 1), a_host("c", 2)]


def starts(world: World) -> int:
    return sum(len(driver.starts) for driver in world.drivers.values())


def test_a_replica_that_dies_is_grown_again(make_world: MakeWorld) -> None:
    world = make_world(a_service("web", replicas=2, idle=NEVER_IDLE), hosts=three_hosts())
    world.ask("web")
    world.eventually(lambda: len(world.seen.hosts_of("web")) == 2)
    died = world.seen.hosts_of("web")[1]
    world.drivers[died].kill(world.guests(died)[0])
    world.sweep_until(lambda: len(world.seen.hosts_of("web")) == 2 and starts(world) == 3)


def test_replicas_on_a_silent_lost_host_are_grown_elsewhere(make_world: MakeWorld) -> None:
    world = make_world(a_service("web", replicas=2, idle=NEVER_IDLE), hosts=three_hosts())
    world.ask("web")
    world.eventually(lambda: len(world.seen.hosts_of("web")) == 2)
    gone = world.seen.hosts_of("web")[0]
    world.answer_s[""] = None
    world.drivers[gone].unreachable("power cut")
    world.machines[gone].guests.clear()
    wanted = {"a", "b", "c"} - {gone}
    world.sweep_until(lambda: set(world.seen.hosts_of("web")) == wanted)


def test_a_replica_without_a_host_is_tried_ever_more_rarely(make_world: MakeWorld) -> None:
    """One try costs little, but a try each second for ever would fill the journal."""
    world = make_world(a_service("web", replicas=2, idle=NEVER_IDLE), hosts=three_hosts()[:1])
    world.ask("web")
    for _ in range(60):
        world.control.expire()
        time.sleep(0.005)
    tries = [e for e in world.control.events() if e.kind == "replica-failed"]
    assert 1 <= len(tries) <= 4


def test_on_query_nothing_is_booted_until_somebody_asks(make_world: MakeWorld) -> None:
    world = make_world(a_service("web", idle=NEVER_IDLE))
    world.ask("web")
    world.drivers["a"].kill("ew-t-web-0")
    world.sweep_until(lambda: world.seen.hosts_of("web") == [])
    for _ in range(5):
        world.control.expire()
    assert starts(world) == 1
    assert world.ask("web")


def test_always_restarts_at_once(make_world: MakeWorld) -> None:
    world = make_world(a_service("web", idle=NEVER_IDLE, restart=Restart.ALWAYS))
    world.ask("web")
    world.drivers["a"].kill("ew-t-web-0")
    world.eventually(lambda: starts(world) == 2)  # without a sweep
    world.eventually(lambda: world.seen.hosts_of("web") == ["a"])
    world.eventually(lambda: "restarting" in [e.kind for e in world.control.events()])


def test_always_restarts_elsewhere_when_the_host_is_lost_and_the_guest_silent(
    make_world: MakeWorld,
) -> None:
    web = a_service("web", idle=NEVER_IDLE, restart=Restart.ALWAYS)
    world = make_world(web, hosts=three_hosts()[:2])
    (first,) = world.ask("web")
    world.answer_s[""] = None
    world.drivers[first.host].unreachable("power cut")
    world.machines[first.host].guests.clear()
    other = "b" if first.host == "a" else "a"
    world.sweep_until(lambda: world.seen.hosts_of("web") == [other])


def test_always_is_for_as_long_as_the_service_is_in_use(make_world: MakeWorld) -> None:
    idle = straight_to_cold(0.2)
    world = make_world(a_service("web", idle=idle, restart=Restart.ALWAYS))
    world.ask("web")
    world.drivers["a"].fail = "out of luck"
    world.drivers["a"].kill("ew-t-web-0")
    time.sleep(0.3)  # nobody asks meanwhile
    world.control.expire()
    world.drivers["a"].fail = ""
    for _ in range(60):
        world.control.expire()
        time.sleep(0.01)
    assert starts(world) == 1


def test_put_to_sleep_it_is_not_restarted(make_world: MakeWorld) -> None:
    web = a_service("web", idle=NEVER_IDLE, restart=Restart.ALWAYS)
    world = make_world(web)
    world.ask("web")
    world.drivers["a"].fail = "out of luck"
    world.drivers["a"].kill("ew-t-web-0")
    world.eventually(lambda: world.seen.hosts_of("web") == [])
    world.control.release("web")
    world.drivers["a"].fail = ""
    for _ in range(60):
        world.control.expire()
        time.sleep(0.01)
    assert world.guests() == []


def test_a_crash_loop_backs_off_and_is_told(make_world: MakeWorld) -> None:
    world = make_world(a_service("web", idle=NEVER_IDLE, restart=Restart.ALWAYS))
    world.ask("web")
    for n in range(1, 4):
        world.drivers["a"].kill("ew-t-web-0")
        world.sweep_until(lambda: starts(world) == n + 1)  # noqa: B023 - used at once
        world.sweep_until(lambda: world.seen.hosts_of("web") == ["a"])
    world.drivers["a"].kill("ew-t-web-0")
    world.eventually(lambda: "4 failures in a row" in world.control.status().services[0].trouble)
    events = [e.text for e in world.control.events() if e.kind == "backing-off"]
    assert len(events) >= 3
    assert [text.rpartition(" for ")[2] for text in events[:3]] == ["0.2 s", "0.4 s", "0.8 s"]


def test_a_query_does_not_wait_for_the_back_off(make_world: MakeWorld) -> None:
    world = make_world(a_service("web", idle=NEVER_IDLE, restart=Restart.ALWAYS))
    world.ask("web")
    losses = world.control._keeper._losses
    for _ in range(20):
        losses.failed("web", "it crashed", time.monotonic())
    world.drivers["a"].kill("ew-t-web-0")
    world.eventually(lambda: world.seen.hosts_of("web") == [])
    assert world.ask("web")


def test_a_restart_of_edgewake_restarts_what_ended_meanwhile(make_world: MakeWorld) -> None:
    """A host that was rebooted has none of its guests; their records are still there."""
    world = make_world(a_service("web", idle=NEVER_IDLE, restart=Restart.ALWAYS))
    world.ask("web")
    world.crash()
    world.machines["a"].guests.clear()
    world.start()
    world.sweep_until(lambda: world.seen.hosts_of("web") == ["a"])


def test_a_wake_that_could_not_be_begun_is_begun_by_a_later_sweep(
    make_world: MakeWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = make_world(a_service("web", idle=IdlePolicy(after_s=1, pin=True)))

    def gone(name: str, *_: object, **__: object) -> Summons:
        raise UnknownService(name, "the lab was changed just now")

    with monkeypatch.context() as patch:
        patch.setattr(world.control, "summon", gone)
        with pytest.raises(UnknownService):
            world.control.expire()
    world.sweep_until(lambda: world.seen.hosts_of("web") == ["a"])

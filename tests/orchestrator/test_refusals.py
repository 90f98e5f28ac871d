"""Ten thousand names at once: some are woken, the rest are refused, and it is told in two lines."""

import threading
import time
from collections.abc import Callable

import pytest

from orchestrator.errors import Overloaded
from orchestrator.hypervisors.base import Stamp
from orchestrator.model import Capacity, Guest
from orchestrator.trace import KEPT
from tests.world import World, a_host, a_service

MakeWorld = Callable[..., World]
NAMES = 10_000
WAITING = 100
BOOTS = 8


def _threads_of_wakes() -> int:
    """Return how many threads carry wakes; the sweep may begin others at any time."""
    return sum(each.name.startswith("edgewake-wake_") for each in threading.enumerate())


def test_ten_thousand_names_at_once(make_world: MakeWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    small = Capacity(cpu=0.001, memory_mib=100)
    services = [a_service(f"s{n}", resources=small, deadline_s=60.0) for n in range(NAMES)]
    world = make_world(
        *services,
        hosts=[a_host("a", memory_mib=200 * WAITING)],
        waiting_wakes=WAITING,
        parallel_boots=BOOTS,
        start=False,
    )
    monkeypatch.setattr(world.seen, "set", lambda _routes: None)  # it would remember them all
    world.start()
    driver, hold = world.drivers["a"], threading.Event()
    build = driver.start

    def start(guest: Guest, stamp: Stamp) -> None:
        hold.wait(60)
        build(guest, stamp)

    driver.start = start  # type: ignore[method-assign]
    threads = _threads_of_wakes()
    began = time.monotonic()
    wakes = [world.summon(service.name) for service in services]
    assert time.monotonic() - began < 30.0, "nobody waits to be refused"
    assert _threads_of_wakes() <= threads + BOOTS
    assert len(world.control._activator._flights) == WAITING
    assert len(world.control.wakes.last("", NAMES)) == WAITING <= KEPT
    refused = [wake for wake in wakes if wake.done()]
    assert len(refused) == NAMES - WAITING
    error = refused[0].exception(0)
    assert isinstance(error, Overloaded)
    assert str(error).endswith(
        "100 services are being woken, and no more may be at once; ask again"
    )
    (told,) = world.events("overloaded")
    assert "further ones counted" in told.text
    hold.set()
    assert all(wake.result(60) for wake in wakes if wake not in refused)
    assert world.ask("s9999"), "and all goes on as before"
    monkeypatch.setattr("orchestrator.refusals.TOLD_EVERY_S", 0.0)
    for _ in range(2):
        world.control._refusals.tend()
    texts = [event.text for event in world.events("overloaded")]
    assert texts[1:] == [f"refused {NAMES - WAITING - 1} more wakes in the last minute"]


def test_another_burst_is_told_again(
    make_world: MakeWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("orchestrator.refusals.TOLD_EVERY_S", 0.0)
    world = make_world(a_service("web"), a_service("mail"), waiting_wakes=1, parallel_boots=1)
    for burst in (1, 2):
        world.answer_s["web"] = 0.2
        wake = world.summon("web")
        assert isinstance(world.summon("mail").exception(0), Overloaded)
        assert len(world.events("overloaded")) == burst
        assert wake.result(5)
        world.control.release("web")
        world.control._refusals.tend()


def test_a_few_refusals_are_not_told_one_by_one(make_world: MakeWorld) -> None:
    world = make_world(a_service("web"), a_service("mail"), waiting_wakes=0)
    for _ in range(50):
        world.summon("mail")
        world.control.expire()
    assert len(world.events("overloaded")) == 1

"""The functions of a chain are woken with the service at its end, and sleep after it."""

import time
from collections.abc import Callable
from dataclasses import replace

import pytest

from orchestrator.errors import EdgewakeError, WakeError
from orchestrator.model import Chain, Client, Reply, Service
from orchestrator.trace import WakeTrace
from tests.world import World, a_service, straight_to_cold

MakeWorld = Callable[..., World]
CHAIN = Chain("shop", ("firewall", "cache", "shop"))
AWAKE = straight_to_cold(None)


def a_chain(make_world: MakeWorld, **policies: Service) -> World:
    services = [policies.get(name, a_service(name)) for name in CHAIN.functions]
    world = make_world(*services, a_service("other"))
    world.control.apply(replace(world.lab, chains=(CHAIN,)))
    return world


def test_a_question_for_the_end_wakes_every_function(make_world: MakeWorld) -> None:
    world = a_chain(make_world)
    (end,) = world.ask("shop")
    assert end.service == "shop"
    awake = {name for name in CHAIN.functions if world.control.fleet.serving(name)}
    assert awake == set(CHAIN.functions)
    assert [trace.by for trace in world.control.wakes.last("cache")] == ["chain: shop"]
    assert not world.control.fleet.serving("other")


def test_a_function_alone_can_be_asked_for(make_world: MakeWorld) -> None:
    world = a_chain(make_world)
    (end,) = world.ask("cache")
    assert end.service == "cache"
    assert not world.control.fleet.serving("shop")


def test_the_answer_waits_for_the_slowest_function(make_world: MakeWorld) -> None:
    world = a_chain(make_world)
    world.answer_s["firewall"] = 0.3
    answer = world.summon("shop")
    world.eventually(lambda: bool(world.control.fleet.serving("shop")))
    assert not answer.done()
    assert world.seen.hosts_of("shop") == [], "nobody is led past the firewall meanwhile"
    assert answer.result(5)
    assert world.seen.hosts_of("shop")


def test_a_function_that_does_not_wake_fails_the_wake(make_world: MakeWorld) -> None:
    world = a_chain(make_world)
    world.answer_s["cache"] = None
    with pytest.raises(WakeError, match="shop: a function of its chain is not awake: cache: "):
        world.summon("shop").result(10)
    assert world.seen.hosts_of("shop") == []


def test_a_function_that_died_is_woken_by_the_next_question(make_world: MakeWorld) -> None:
    world = a_chain(make_world, shop=a_service("shop", idle=AWAKE))
    first = world.ask("shop")
    world.control.release("cache")
    assert world.seen.hosts_of("shop") == []
    summons = world.control.summon("shop", Client())
    assert summons.endpoints.result(5) == first
    assert isinstance(summons.trace, WakeTrace)
    assert world.seen.hosts_of("shop")


def test_functions_sleep_after_the_end_of_their_chain(make_world: MakeWorld) -> None:
    world = a_chain(make_world, shop=a_service("shop", idle=AWAKE))
    world.ask("shop")
    idle = {view.service.name: view.idle for view in world.control.status().services}
    assert idle["cache"] == "shop, at the end of its chain, is awake"
    time.sleep(0.1)  # twice what they may rest unused
    assert world.control.expire() == ()
    world.control.release("shop")

    def all_asleep() -> bool:
        world.control.expire()
        return not any(world.control.fleet.serving(name) for name in CHAIN.functions)

    world.eventually(all_asleep)


def test_traffic_for_the_end_wakes_the_functions_too(make_world: MakeWorld) -> None:
    world = a_chain(make_world, shop=replace(a_service("shop"), wake_on_traffic=True))
    (end,) = world.ask("shop")
    for name in reversed(CHAIN.functions):
        world.control.release(name)
    world.guards[end.host].send(end.address)
    world.eventually(lambda: bool(world.seen.hosts_of("shop")))


def test_one_that_must_be_awake_keeps_its_functions(make_world: MakeWorld) -> None:
    pinned = a_service("shop", idle=replace(AWAKE, pin=True))
    world = a_chain(make_world, shop=pinned)
    world.ask("shop")
    with pytest.raises(EdgewakeError):
        world.control.release("shop")


def test_an_end_that_is_refused_wakes_no_function(
    make_world: MakeWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = a_chain(make_world, shop=replace(a_service("shop"), wake_on_traffic=True))
    (end,) = world.ask("shop")
    for name in reversed(CHAIN.functions):
        world.control.release(name)
    woken = len(world.control.wakes.last())

    def refusal(service: str) -> WakeError | None:
        return WakeError(service, "too many failures") if service == "shop" else None

    monkeypatch.setattr(world.control._hopeless, "refusal", refusal)
    with pytest.raises(WakeError, match="too many failures"):
        world.summon("shop").result(5)
    world.guards[end.host].send(end.address)
    assert len(world.control.wakes.last()) == woken


def test_held_packets_wait_for_every_function(make_world: MakeWorld) -> None:
    world = a_chain(make_world, shop=replace(a_service("shop"), wake_on_traffic=True))
    (end,) = world.ask("shop")
    for name in reversed(CHAIN.functions):
        world.control.release(name)
    world.answer_s["firewall"] = 0.3
    guard = world.guards[end.host]
    guard.send(end.address, b"one")
    world.eventually(lambda: bool(world.control.fleet.serving("shop")))
    assert not world.control.fleet.serving("firewall")
    assert end.address not in guard.delivered, "nobody is let past the firewall meanwhile"
    world.eventually(lambda: guard.delivered.get(end.address) == [b"one"])
    assert world.control.fleet.serving("firewall")


def test_an_early_answer_does_not_fail_when_the_functions_are_faster(
    make_world: MakeWorld,
) -> None:
    shop = replace(a_service("shop"), wake_on_traffic=True, reply=Reply.EARLY)
    world = a_chain(make_world, shop=shop)
    world.answer_s["shop"] = 0.5
    (end,) = world.ask("shop")
    assert end.service == "shop"
    assert not world.control.fleet.serving("shop"), "it was promised"
    world.eventually(lambda: bool(world.control.fleet.serving("shop")))


def test_nobody_is_led_anywhere_once_all_guests_were_ended(make_world: MakeWorld) -> None:
    world = a_chain(make_world)
    world.ask("shop")
    assert world.seen.hosts_of("shop")
    world.control.close(end_guests=True)
    assert not any(route.endpoints for route in world.seen.history[-1])

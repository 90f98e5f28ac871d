"""Wakes by traffic: a packet to an address that a service had wakes it there, and is delivered."""

import gc
import time
from collections.abc import Callable
from dataclasses import replace
from ipaddress import IPv4Address

import pytest

from orchestrator import traffic
from orchestrator.errors import WakeError
from orchestrator.fleet import IN_FLIGHT_S
from orchestrator.model import (
    Capacity,
    Client,
    IdlePolicy,
    Port,
    Reply,
    Service,
    TrafficSettings,
    mac_of,
)
from orchestrator.store.memory import MemoryStore
from tests.world import World, a_host, a_service

MakeWorld = Callable[..., World]


def slept(world: World, service: str = "web") -> IPv4Address:
    """Wake a service and put it to sleep; return the address it had."""
    (endpoint,) = world.ask(service)
    world.control.release(service)
    return endpoint.address


def awake_at(world: World, service: str = "web") -> list[tuple[str, IPv4Address]]:
    return [(each.host, each.address) for each in world.control.fleet.serving(service)]


def kinds(world: World) -> list[str]:
    return [event.kind for event in world.control.events()]


def test_a_packet_to_the_last_address_wakes_the_service_and_is_delivered(
    make_world: MakeWorld,
) -> None:
    world = make_world()
    address = slept(world)
    world.guards["a"].send(address, b"one")
    world.eventually(lambda: world.guards["a"].delivered.get(address) == [b"one"])
    assert awake_at(world) == [("a", address)]
    world.guards["a"].send(address, b"two")
    assert world.guards["a"].delivered[address] == [b"one", b"two"], "warm traffic goes by"


def test_the_trace_begins_with_the_packet_and_says_that_traffic_asked(
    make_world: MakeWorld,
) -> None:
    world = make_world()
    address = slept(world)
    world.guards["a"].send(address, client="10.0.0.7 for tcp/80")
    world.eventually(lambda: bool(awake_at(world)))
    wake = world.control.wakes.last()[-1]
    assert wake.by == "traffic: 10.0.0.7 for tcp/80"
    assert wake.decided_by == "a client is held at its address there"
    assert wake.stamps[0] == ("query", 0.0)
    assert [at for _, at in wake.stamps] == sorted(at for _, at in wake.stamps)
    assert world.control.wakes.last()[-2].by == "query"


def test_what_is_guarded_says_whom_and_which_ports(make_world: MakeWorld) -> None:
    world = make_world(a_service("web", ports=(Port(80),)))
    assert world.guards["a"].guarded == ()
    address = slept(world)
    (guarded,) = world.guards["a"].guarded
    assert (guarded.service, guarded.address, guarded.mac) == ("web", address, mac_of(address))
    assert guarded.ports == (Port(80),)


def test_what_sleeps_remembers_its_connections_and_what_ends_does_not(
    make_world: MakeWorld,
) -> None:
    world = make_world()
    world.ask("web")
    fleet = world.control.fleet
    (instance,) = fleet.of("web")
    fleet.sink(instance)
    assert [each.remembers for each in fleet.guarded("a")] == [True]
    fleet.sink(instance, ends=True)
    assert [each.remembers for each in fleet.guarded("a")] == [False]
    fleet.stay(instance)
    assert fleet.guarded("a") == ()
    fleet.sink(instance)
    assert [each.remembers for each in fleet.guarded("a")] == [True]


def test_packets_that_come_during_any_boot_are_held(make_world: MakeWorld) -> None:
    world = make_world()
    address = slept(world)
    world.answer_s["web"] = 0.3
    asked = world.summon("web")
    world.guards["a"].send(address)
    assert not world.guards["a"].delivered
    asked.result(5)
    world.eventually(lambda: world.guards["a"].delivered.get(address) == [b"SYN"])
    assert len(world.control.wakes.last()) == 2, "the packet joined the wake by DNS"


def test_two_clients_at_once_are_one_boot(make_world: MakeWorld) -> None:
    world = make_world()
    address = slept(world)
    world.answer_s["web"] = 0.2
    for number in range(20):
        world.guards["a"].send(address, b"%d" % number)
    world.eventually(lambda: len(world.guards["a"].delivered.get(address, [])) == 20)
    assert len(world.control.wakes.last()) == 2


def test_a_service_that_does_not_want_it_is_not_guarded(make_world: MakeWorld) -> None:
    world = make_world(a_service("web", wake_on_traffic=False))
    slept(world)
    assert world.guards["a"].guarded == ()


def test_the_same_host_and_address_although_another_is_better(make_world: MakeWorld) -> None:
    hosts = [a_host("a", 0, memory_mib=200), a_host("b", 1, memory_mib=4096)]
    world = make_world(a_service("web"), a_service("other"), hosts=hosts)
    address = slept(world)
    host = next(name for name, guard in world.guards.items() if guard.guarded)
    world.ask("other")
    world.guards[host].send(address)
    world.eventually(lambda: awake_at(world) == [(host, address)])


def test_a_host_that_is_full_loses_the_client_and_says_so(make_world: MakeWorld) -> None:
    world = make_world(a_service("web"), a_service("big"), hosts=[a_host("a", memory_mib=150)])
    address = slept(world)
    world.ask("big")
    world.guards["a"].send(address)
    world.eventually(lambda: "client-lost" in kinds(world) and "wake-failed" in kinds(world))
    assert not awake_at(world)
    before = len(world.control.wakes.last())
    world.guards["a"].send(address)
    time.sleep(0.05)
    assert len(world.control.wakes.last()) == before, "a wake that failed is not begun at once"


def test_who_asks_by_name_meanwhile_is_served_elsewhere(make_world: MakeWorld) -> None:
    hosts = [a_host("a", 0), a_host("b", 1)]
    world = make_world(a_service("web"), hosts=hosts)
    address = slept(world)
    host = next(name for name, guard in world.guards.items() if guard.guarded)
    world.drivers[host].fail = "no room"
    world.boot_s = 0.2
    lock = world.control._waker.locks["web"]
    with lock:  # so that both have asked before anything is decided
        world.guards[host].send(address)
        asked = world.summon("web")
    (endpoint,) = asked.result(5)
    assert endpoint.host != host
    world.eventually(lambda: kinds(world).count("client-lost") >= 1)


def test_an_address_that_was_given_away_is_not_guarded(make_world: MakeWorld) -> None:
    net = a_host("a").network
    tiny = replace(net, first=net.subnet[10], last=net.subnet[10])
    host = replace(a_host("a"), network=tiny)
    world = make_world(a_service("web"), a_service("db"), hosts=[host])
    address = slept(world)
    assert [each.service for each in world.guards["a"].guarded] == ["web"]
    time.sleep(IN_FLIGHT_S)  # an answer that named it may still be on its way
    assert slept(world, "db") == address
    assert [each.service for each in world.guards["a"].guarded] == ["db"]


def test_a_scan_of_the_pool_is_bounded_and_told_once(make_world: MakeWorld) -> None:
    services = [a_service(f"s{number}") for number in range(8)]
    world = make_world(*services, hosts=[a_host("a", memory_mib=4096)], start=False)
    world.lab = replace(world.lab, traffic=TrafficSettings(3.0, 20.0))
    world.start()
    addresses = [slept(world, service.name) for service in services]
    before = len(world.control.wakes.last(limit=100))
    for last in range(10, 201):
        world.guards["a"].send(IPv4Address("10.9.0.0") + last)
    world.eventually(lambda: "traffic-over-budget" in kinds(world))
    begun = len(world.control.wakes.last(limit=100)) - before
    assert 3 <= begun <= 4
    assert kinds(world).count("traffic-over-budget") == 1
    assert set(addresses) <= {IPv4Address("10.9.0.0") + last for last in range(10, 201)}


def test_the_budget_of_all_hosts_holds_too(make_world: MakeWorld) -> None:
    services = [a_service(f"s{number}") for number in range(4)]
    hosts = [a_host("a", memory_mib=4096)]
    world = make_world(*services, hosts=hosts, start=False)
    world.lab = replace(world.lab, traffic=TrafficSettings(100.0, 1.0))
    world.start()
    for service in services:
        slept(world, service.name)
    for guarded in world.guards["a"].guarded:
        world.guards["a"].send(guarded.address)
    world.eventually(lambda: any(awake_at(world, s.name) for s in services))
    assert sum(bool(awake_at(world, s.name)) for s in services) == 1


def test_a_restart_keeps_the_guard(make_world: MakeWorld) -> None:
    store = MemoryStore()
    world = make_world(store=store)
    address = slept(world)
    world.crash()
    assert world.guards["a"].closed
    world.start()
    assert [each.address for each in world.guards["a"].guarded] == [address]
    world.guards["a"].send(address)
    world.eventually(lambda: awake_at(world) == [("a", address)])


def test_one_client_that_scans_leaves_wakes_for_others(make_world: MakeWorld) -> None:
    services = [a_service(f"s{number}") for number in range(6)]
    world = make_world(*services, hosts=[a_host("a", memory_mib=4096)], start=False)
    world.lab = replace(world.lab, traffic=TrafficSettings(4.0, 20.0))
    world.start()
    addresses = [slept(world, service.name) for service in services]
    scanner, honest = IPv4Address("192.0.2.66"), IPv4Address("192.0.2.7")
    for address in addresses[:5]:
        world.guards["a"].send(address, source=scanner)
    world.eventually(lambda: "traffic-over-budget" in kinds(world))
    world.guards["a"].send(addresses[5], source=honest)
    world.eventually(lambda: world.guards["a"].delivered.get(addresses[5]) == [b"SYN"])
    assert len([each for each in addresses[:5] if each in world.guards["a"].delivered]) <= 3


def test_a_host_that_cannot_be_guarded_says_why_once(make_world: MakeWorld) -> None:
    world = make_world(start=False)
    world.cannot_guard = "a: no rights"
    world.start()
    for _ in range(3):
        world.control.expire()
        world.control._hosts.mend("a")
    assert kinds(world).count("not-guarded") == 1
    (host,) = world.control.status().hosts
    assert host.guard == "a: no rights"


def test_a_guard_that_could_not_be_opened_is_tried_again(
    make_world: MakeWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = make_world(start=False)
    world.cannot_guard = "a: no rights"
    world.start()
    address = slept(world)
    world.cannot_guard = ""
    world.control.expire()
    assert not world.guards, "not at once"
    monkeypatch.setattr(traffic, "OPEN_AGAIN_S", 0.0)
    world.control.expire()
    assert [each.address for each in world.guards["a"].guarded] == [address]
    assert world.control.status().hosts[0].guard == "memory"


def test_a_guest_that_boots_when_its_guard_is_opened_is_left_alone(
    make_world: MakeWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its probe goes by the routes, so a guard would keep the probe from it."""
    monkeypatch.setattr(traffic, "OPEN_AGAIN_S", 0.0)
    world = make_world(start=False)
    world.cannot_guard = "a: no rights"
    world.start()
    address = slept(world)
    world.answer_s["web"] = 0.4
    asked = world.summon("web")
    world.eventually(lambda: bool(world.control.fleet.of("web")))
    world.cannot_guard = ""
    world.control._traffic.sync()
    assert world.guards["a"].guarded == ()
    asked.result(5)
    world.control.release("web")
    assert [each.address for each in world.guards["a"].guarded] == [address]


def test_a_host_that_is_guarded_says_how(make_world: MakeWorld) -> None:
    (host,) = make_world().control.status().hosts
    assert host.guard == "memory"


def test_nothing_is_guarded_on_a_host_that_is_drained(make_world: MakeWorld) -> None:
    world = make_world()
    slept(world)
    world.control.drain("a")
    world.control.expire()
    assert world.guards["a"].guarded == ()
    world.control.undrain("a")
    world.control.expire()
    assert len(world.guards["a"].guarded) == 1


def test_a_changed_lab_changes_what_is_guarded(make_world: MakeWorld) -> None:
    world = make_world()
    slept(world)
    lab = replace(world.lab, services=(a_service("web", wake_on_traffic=False),))
    world.control.apply(lab)
    assert world.guards["a"].guarded == ()


# --- reply: early -----------------------------------------------------------------------------


def an_early(**changes: object) -> Service:
    keep = IdlePolicy(after_s=None)
    return a_service("web", reply=Reply.EARLY, ttl_s=60, idle=keep, **changes)


def test_an_early_answer_names_the_address_and_holds_the_connection(
    make_world: MakeWorld,
) -> None:
    world = make_world(an_early())
    world.answer_s["web"] = 0.4
    (endpoint,) = world.summon("web").result(0.3)
    assert endpoint.ttl_s == 2
    assert not awake_at(world)
    (again,) = world.summon("web").result(0.3)
    assert again == endpoint
    world.guards["a"].send(endpoint.address)
    assert not world.guards["a"].delivered
    world.eventually(lambda: world.guards["a"].delivered.get(endpoint.address) == [b"SYN"])
    assert awake_at(world) == [("a", endpoint.address)]
    (warm,) = world.ask("web")
    assert (warm.address, warm.ttl_s) == (endpoint.address, 60)


def test_without_a_guard_the_answer_is_held(make_world: MakeWorld) -> None:
    world = make_world(an_early(), start=False)
    world.cannot_guard = "no rights"
    world.start()
    world.answer_s["web"] = 0.2
    asked = world.summon("web")
    time.sleep(0.1)
    assert not asked.done()
    assert asked.result(5)[0].ttl_s == 60


def test_a_promise_that_is_not_kept_is_told_and_the_address_rests(make_world: MakeWorld) -> None:
    world = make_world(an_early(deadline_s=0.3), a_service("db"))
    world.answer_s["web"] = None
    (endpoint,) = world.summon("web").result(0.25)
    world.eventually(lambda: "wake-failed" in kinds(world))
    with pytest.raises(WakeError, match="did not answer within"):
        world.summon("web").result(1)
    world.eventually(lambda: not world.control.fleet.of("web"))
    rests = {each.address: each.until for each in world.store.load().quarantines}
    assert rests[endpoint.address] > time.time() + 30
    world.answer_s["web"] = 0.0
    assert world.summon("web").result(5)


def test_a_start_that_fails_after_a_promise_lets_the_address_rest(make_world: MakeWorld) -> None:
    world = make_world(an_early())
    world.drivers["a"].fail = "refused"
    client = world.control.summon("web", Client()).endpoints
    (endpoint,) = client.result(1)
    world.eventually(lambda: "wake-failed" in kinds(world))
    rests = {each.address: each.until for each in world.store.load().quarantines}
    assert rests[endpoint.address] > time.time() + 30
    with pytest.raises(WakeError, match="refused"):
        world.summon("web").result(1)


def test_promises_that_nobody_heard_are_not_kept_for_ever(make_world: MakeWorld) -> None:
    world = make_world(an_early(replicas=2), hosts=(a_host("a"), a_host("b", 1)))
    assert world.ask("web")
    world.eventually(lambda: len(awake_at(world)) == 2)  # nobody asked for the second copy

    def forgotten() -> bool:
        gc.collect()
        return not world.control._activator._early._promised

    world.eventually(forgotten)


def test_capacity_is_reserved_before_anybody_is_told(make_world: MakeWorld) -> None:
    world = make_world(
        an_early(resources=Capacity(cpu=0.1, memory_mib=900)),
        hosts=[a_host("a", memory_mib=500)],
    )
    with pytest.raises(WakeError, match="memory"):
        world.summon("web").result(1)


def test_to_join_a_wake_costs_nothing_of_the_budget(make_world: MakeWorld) -> None:
    names = [f"s{number}" for number in range(12)]
    services = (replace(an_early(), name=name, names=()) for name in names)
    world = make_world(*services, hosts=[a_host("a", memory_mib=4096)])
    assert world.lab.traffic.wakes_per_host_s < len(names)
    world.answer_s.update(dict.fromkeys(names, 0.6))
    told = [world.summon(name) for name in names]
    addresses = [future.result(0.5)[0].address for future in told]
    for address in addresses:
        world.guards["a"].send(address)
    delivered = world.guards["a"].delivered
    world.eventually(lambda: all(delivered.get(each) == [b"SYN"] for each in addresses))
    assert "traffic-over-budget" not in kinds(world)


def test_a_wake_that_failed_does_not_drop_the_clients_of_the_next_one(
    make_world: MakeWorld,
) -> None:
    world = make_world(a_service("web", reply=Reply.EARLY))
    address = slept(world)
    world.drivers["a"].fail = "refused"
    world.guards["a"].send(address)
    world.eventually(lambda: "wake-failed" in kinds(world))
    world.drivers["a"].fail = ""
    world.answer_s["web"] = 0.4
    (endpoint,) = world.control.summon("web", Client(), insist=True).endpoints.result(0.3)
    world.guards["a"].send(endpoint.address)
    world.eventually(lambda: world.guards["a"].delivered.get(endpoint.address) == [b"SYN"])

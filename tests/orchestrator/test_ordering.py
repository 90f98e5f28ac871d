"""In which order copies are named: nearest, by free processors, in turn; shut hosts last."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from ipaddress import IPv4Address, ip_network
from pathlib import Path

import pytest

from orchestrator.model import (
    AnswerOrder,
    Client,
    DnsSettings,
    Endpoint,
    Lab,
    Link,
    Population,
    Router,
)
from orchestrator.ordering import Copy, Turns
from orchestrator.store.memory import MemoryStore
from tests.world import World, a_host, a_service, an_image

ORDERED, WEIGHTED, ROTATED = AnswerOrder


def copy(
    name: str, distance_ms: float | None = None, free: float = 1.0, *, shut: bool = False
) -> Copy:
    endpoint = Endpoint("web", name, f"host-{name}", IPv4Address("10.0.0.1"), ttl_s=5)
    return Copy(endpoint, distance_ms, free, shut=shut)


def answers(rule: AnswerOrder, copies: list[Copy], count: int) -> list[str]:
    turns = Turns()
    return [
        "".join(endpoint.instance for endpoint in turns.order("web", rule, copies))
        for _ in range(count)
    ]


@pytest.mark.parametrize(
    ("rule", "copies", "wanted"),
    [
        (ORDERED, [copy("a", 9), copy("b", 1), copy("c", 5)], ["bca"] * 3),
        (ORDERED, [copy("a"), copy("b"), copy("c")], ["abc", "bca", "cab", "abc"]),
        (ROTATED, [copy("a", 9), copy("b", 1)], ["ab", "ba", "ab"]),
        (ROTATED, [copy("a")], ["a", "a"]),
        (ROTATED, [], ["", ""]),
        (WEIGHTED, [], [""]),
        (WEIGHTED, [copy("a", 9), copy("b", 1)], ["ba", "ab", "ba", "ab"]),
        (ORDERED, [copy("a", 1, shut=True), copy("b", 9), copy("c", 5)], ["cba"] * 2),
        (ROTATED, [copy("a", shut=True), copy("b"), copy("c")], ["bca", "cba", "bca"]),
        (WEIGHTED, [copy("a", free=9, shut=True), copy("b")], ["ba"] * 2),
        (ORDERED, [copy("a", 2, shut=True), copy("b", 1, shut=True)], ["ba"] * 2),
    ],
)
def test_the_order_of_an_answer(rule: AnswerOrder, copies: list[Copy], wanted: list[str]) -> None:
    assert answers(rule, copies, len(wanted)) == wanted


def test_each_is_first_in_proportion_to_what_its_host_has_free() -> None:
    copies = [copy("a", 1, 6.0), copy("b", 2, 3.0), copy("c", 3, 1.0), copy("d", 0, -0.5)]
    said = answers(WEIGHTED, copies, 1001)
    first = Counter(each[0] for each in said)
    assert first == {"a": 600, "b": 300, "c": 100, "d": 1}
    assert "aaaa" not in "".join(each[0] for each in said)
    assert all(sorted(each) == ["a", "b", "c", "d"] for each in said)


def test_services_take_turns_for_themselves_and_a_copy_that_goes_is_forgotten() -> None:
    turns = Turns()
    pair = [copy("a"), copy("b")]
    for rule in (ROTATED, WEIGHTED):
        for service in ("one", "two"):
            assert turns.order(service, rule, pair)[0].instance == "a"
        assert turns.order("one", rule, pair[:1])[0].instance == "a"
        assert {turns.order("one", rule, pair)[0].instance for _ in range(2)} == {"a", "b"}


# --- in the fleet -----------------------------------------------------------------------------

CAMPUS = Population("campus", (ip_network("10.1.0.0/16"),), "r2")


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    hosts = [replace(a_host(f"h{n}", n), router=f"r{n}") for n in range(3)]
    lab = Lab(
        "lab",
        DnsSettings("edge.test"),
        hosts=tuple(hosts),
        routers=tuple(Router(f"r{n}") for n in range(3)),
        links=(Link("r0", "r1", 5.0, 100.0), Link("r1", "r2", 5.0, 100.0)),
        populations=(CAMPUS,),
        images=(an_image(tmp_path),),
        services=(a_service("web", replicas=3), a_service("turn", replicas=3, answer=ROTATED)),
    )
    world = World(lab, MemoryStore())
    world.start()
    for service in ("web", "turn"):
        world.ask(service)
        world.eventually(lambda: len(world.control.fleet.serving("web")) in {0, 3})
    world.eventually(lambda: len(world.control.fleet.serving("turn")) == 3)
    yield world
    world.control.close()


def hosts_of(world: World, service: str, population: str = "") -> list[str]:
    endpoints = world.control.summon(service, Client(population=population)).endpoints.result(5)
    return [endpoint.host for endpoint in endpoints]


def test_the_nearest_first_the_lost_and_the_drained_last(world: World) -> None:
    assert hosts_of(world, "web", "campus") == ["h2", "h1", "h0"]
    assert {tuple(hosts_of(world, "web")) for _ in range(3)} == {
        ("h0", "h1", "h2"),
        ("h1", "h2", "h0"),
        ("h2", "h0", "h1"),
    }
    world.control.fleet.host_lost("h2", "cable")
    assert hosts_of(world, "web", "campus") == ["h1", "h0", "h2"]
    world.control.fleet.drain("h1", wanted=True)
    assert hosts_of(world, "web", "campus") == ["h0", "h2", "h1"]
    assert {hosts_of(world, "web")[0] for _ in range(5)} == {"h0"}


def test_each_in_turn_whoever_asks(world: World) -> None:
    first = [hosts_of(world, "turn", population)[0] for population in ("campus", "") * 3]
    assert Counter(first) == {"h0": 2, "h1": 2, "h2": 2}
    control = world.control
    for _ in range(7):  # to look at a service takes no turn
        control.status()
        control.fleet.routes()
    assert hosts_of(world, "turn")[0] == first[0]

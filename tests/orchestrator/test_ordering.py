"""In which order copies are named: nearest, by free processors, in turn; shut hosts last."""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from ipaddress import IPv4Address, ip_network
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

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
from orchestrator.ordering import ROUND, Copy, Turns, rounds_by_population, whole_round
from orchestrator.steering.base import Order, Route
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


WEIGHTS = st.integers(0, 12).map(lambda quarters: quarters / 4)
SEEN = st.builds(
    lambda free, distance_ms, shut: copy("x", distance_ms, free, shut=shut),
    WEIGHTS,
    st.none() | st.integers(0, 3).map(float),
    st.booleans(),
)


@given(
    rule=st.sampled_from(AnswerOrder),
    seen=st.lists(SEEN, min_size=1, max_size=4),
)
def test_a_round_is_what_is_answered_again_and_again(rule: AnswerOrder, seen: list[Copy]) -> None:
    copies = [
        replace(each, endpoint=replace(each.endpoint, instance=name), free_cpu=each.free_cpu or 1.0)
        for name, each in zip("abcd", seen, strict=False)
    ]
    orders = whole_round(rule, tuple(copies))
    turns = Turns()
    assert [turns.order("web", rule, copies) for _ in range(3 * len(orders))] == [*orders] * 3


@given(weights=st.lists(st.floats(-1.0, 64.0), min_size=1, max_size=20))
def test_a_round_has_each_first_by_its_share(weights: list[float]) -> None:
    copies = tuple(copy(str(number), None, free) for number, free in enumerate(weights))
    orders = whole_round(WEIGHTED, copies)
    first = Counter(order[0].instance for order in orders)
    share = [max(weight, 0.01) for weight in weights]
    assert len(orders) <= ROUND + 2 * len(weights)
    for name, weight in enumerate(share):
        wanted = weight / sum(share)
        assert first[str(name)] >= 1
        assert abs(first[str(name)] / len(orders) - wanted) <= 2 * len(weights) / ROUND
    assert all(len(set(order)) == len(copies) for order in orders)


@given(data=st.data(), rule=st.sampled_from((ORDERED, WEIGHTED)), count=st.integers(1, 4))
def test_rounds_of_populations_are_those_by_their_distances(
    data: st.DataObject, rule: AnswerOrder, count: int
) -> None:
    copies = tuple(
        copy(name, None, data.draw(WEIGHTS), shut=data.draw(st.booleans()))
        for name in "abcd"[:count]
    )
    distance = st.sampled_from((0.0, 0.5, 7.0, float("inf")))
    near, far = (tuple(data.draw(distance) for _ in copies) for _ in range(2))
    wanted = {
        population: whole_round(
            rule,
            tuple(replace(c, distance_ms=ms) for c, ms in zip(copies, distances, strict=True)),
        )
        for population, distances in (("near", near), ("far", far))
    }
    rounds = rounds_by_population(rule, copies, {"near": near, "far": far})
    if rounds or {*wanted.values()} != {whole_round(rule, copies)}:
        assert dict(rounds) == wanted


def test_a_round_of_hundredths_is_exact_if_it_is_short() -> None:
    orders = whole_round(WEIGHTED, (copy("a", None, 0.35), copy("b", None, 0.14)))
    assert Counter(order[0].instance for order in orders) == {"a": 5, "b": 2}


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


def route_of(world: World, service: str) -> Route:
    (route,) = [each for each in world.control.fleet.routes() if each.service.name == service]
    return route


def test_a_route_has_turns_and_those_of_populations_where_they_are_others(world: World) -> None:
    control, web = world.control, route_of(world, "web")
    assert [order[0].host for order in web.turns] == ["h0", "h1", "h2"]
    (nearest,) = web.turns_of("campus")
    assert [end.host for end in nearest] == hosts_of(world, "web", "campus")
    assert (web.turns_of(""), web.turns_of("unheard-of")) == (web.turns, ())
    assert (route_of(world, "turn").theirs, route_of(world, "web") is web) == ((), True)
    first = [order[0].host for order in route_of(world, "turn").turns]
    assert sorted(first) == ["h0", "h1", "h2"]
    assert route_of(world, "turn") is route_of(world, "turn")
    control.fleet.use(replace(control.lab, populations=()))
    assert [order[0].host for order in route_of(world, "web").turns] == first
    assert route_of(world, "web").theirs == ()


def test_the_turns_of_a_population_follow_hosts_and_the_lab(world: World) -> None:
    control, fleet = world.control, world.control.fleet

    def nearest() -> list[str]:
        ((_, turns),) = route_of(world, "web").theirs
        assert [end.host for end in turns[0]] == hosts_of(world, "web", "campus")
        return [end.host for end in turns[0]]

    first, second, third = nearest()
    fleet.host_lost(first, "cable")
    assert nearest() == [second, third, first]
    control.expire()  # every host answers
    assert nearest() == [first, second, third]
    assert (first, second, third) == ("h2", "h1", "h0")
    links = (*control.lab.links, Link("r0", "r2", 1.0, 100.0))
    fleet.use(replace(control.lab, links=links))
    assert nearest() == ["h2", "h0", "h1"]


class Told:
    """A steering back end that remembers the turns of one service."""

    def __init__(self) -> None:
        self.turns: list[tuple[str, ...]] = []

    def set(self, routes: Sequence[Route]) -> None:
        (route,) = [each for each in routes if each.service.name == "turn"]
        self.turns.append(tuple("".join(end.host for end in order) for order in route.turns))

    def close(self) -> None:
        pass


def test_a_host_that_is_lost_or_drained_changes_the_turns_that_are_steered_by(
    world: World,
) -> None:
    control, told = world.control, Told()
    control._steering.use(told)
    control._steering.refresh()
    control._steering.refresh()
    assert told.turns == [("h0h1h2", "h1h2h0", "h2h0h1")]
    control.fleet.host_lost("h0", "cable")
    control._steering.refresh()
    assert told.turns[1:] == [("h1h2h0", "h2h1h0")]
    control.fleet.drain("h1", wanted=True)
    control._steering.refresh()
    assert told.turns[2:] == [("h2h0h1",)]
    control.expire()  # every host answers
    assert set(told.turns[3:]) == {("h0h2h1", "h2h0h1")}


@pytest.mark.parametrize("populations", [(), (CAMPUS,)])
def test_free_processors_are_the_weights_of_the_turns(
    world: World, populations: tuple[Population, ...]
) -> None:
    control = world.control
    services = (replace(control.lab.service("web"), answer=WEIGHTED),)
    hosts = [
        replace(host, capacity=replace(host.capacity, cpu=3.0 + 3.0 * (host.name == "h1")))
        for host in control.lab.hosts
    ]
    control.fleet.use(
        replace(control.lab, hosts=tuple(hosts), services=services, populations=populations)
    )
    before: dict[str, tuple[Order, ...]] = {}
    for host in ("h1", "h0"):
        free = {host.name: host.usable.cpu - control.fleet.used(host.name).cpu for host in hosts}
        for population in ("", *(each.name for each in populations)):
            turns = route_of(world, "web").turns_of(population)
            said = Counter(order[0].host for order in turns)
            assert said["h1"] / said["h0"] == pytest.approx(free["h1"] / free["h0"], rel=0.05)
            assert turns != before.get(population)
            before[population] = turns
        (other,) = (each for each in control.fleet.of("turn") if each.host == host)
        control.fleet.drop(other, rest_s=0.0)

"""Ways through a virtual network, compared with networkx's and followed hop by hop."""

import math
import time
from fractions import Fraction
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_network
from itertools import pairwise
from random import Random
from statistics import median

import networkx as nx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator.network import Network, Stub, StubKind, VirtualLink, VirtualRouter
from orchestrator.routing import Paths, Prefix, Route, forwarding

FIRST, FIRST6 = IPv4Address("10.255.0.0"), IPv6Address("fd00:ffff::")


def router(number: int) -> VirtualRouter:
    return VirtualRouter(f"r{number}", FIRST + number, FIRST6 + number)


def network(count: int, *links: VirtualLink, stubs: tuple[Stub, ...] = ()) -> Network:
    return Network("lab", tuple(router(number) for number in range(count)), links, stubs)


def link(a: int, b: int, weight: float = 1.0, *, up: bool = True) -> VirtualLink:
    return VirtualLink(f"r{a}", f"r{b}", weight=weight, up=up)


def stub(name: str, at: int, subnet: str, subnet6: str = "") -> Stub:
    return Stub(
        name,
        f"r{at}",
        StubKind.CLIENTS,
        IPv4Network(subnet),
        IPv4Network(subnet)[1],
        IPv6Network(subnet6) if subnet6 else None,
    )


def routes(found: tuple[Route, ...]) -> dict[str, str]:
    return {str(route.prefix): " ".join(route.via) for route in found}


def graph(wanted: Network) -> "nx.Graph[str]":
    made: nx.Graph[str] = nx.Graph()
    made.add_nodes_from(router.name for router in wanted.routers)
    for each in wanted.links:
        if each.up:
            made.add_edge(each.a, each.b, weight=Fraction(str(each.weight)))
    return made


WEIGHTS = st.sampled_from([0.1, 0.2, 0.3, 1.0, 2.5, 1e-12, 999999999.0])


@st.composite
def networks(draw: st.DrawFn) -> Network:
    count = draw(st.integers(1, 9))
    pairs = [(a, b) for a in range(count) for b in range(a + 1, count)]
    chosen = draw(st.lists(st.sampled_from(pairs), unique=True)) if pairs else []
    links = [
        link(a, b, draw(WEIGHTS), up=draw(st.sampled_from([True, True, True, False])))
        for a, b in chosen
    ]
    stubs = tuple(
        stub(f"s{number}", draw(st.integers(0, count - 1)), f"10.{number}.0.0/24")
        for number in range(draw(st.integers(0, 3)))
    )
    return network(count, *links, stubs=stubs)


@given(networks())
def test_ways_are_those_of_networkx(wanted: Network) -> None:
    paths, other = Paths(wanted), graph(wanted)
    for a in other:
        for b in other:
            if nx.has_path(other, a, b):
                ways = sorted(nx.all_shortest_paths(other, a, b, weight="weight"))
                assert [list(way) for way in paths.paths(a, b)] == ways
                assert list(paths.path(a, b)) == ways[0]
                exact = sum(other[u][v]["weight"] for u, v in pairwise(ways[0]))
                assert paths.cost(a, b) == pytest.approx(float(exact), rel=1e-15)
            else:
                assert (paths.path(a, b), paths.cost(a, b)) == ((), math.inf)


@given(networks())
def test_whichever_next_hop_is_taken_packets_arrive(wanted: Network) -> None:
    found = forwarding(wanted)
    tables = {name: {route.prefix: route.via for route in table} for name, table in found.items()}
    connected = graph(wanted)
    for prefix, at in _wanted(wanted):
        for name in connected:
            assert (prefix in tables[name]) == (name != at and nx.has_path(connected, name, at))
            _follow(name, at, prefix, tables, connected)


def _wanted(wanted: Network) -> list[tuple[Prefix, str]]:
    own = [
        (ip_network(address), each.name)
        for each in wanted.routers
        for address in (each.address, each.address6)
        if address is not None
    ]
    return [*own, *((each.subnet, each.router) for each in wanted.stubs)]


def _follow(
    start: str,
    end: str,
    prefix: Prefix,
    tables: dict[str, dict[Prefix, tuple[str, ...]]],
    connected: "nx.Graph[str]",
) -> None:
    """Follow every next hop at once; a step more than there are routers would be a loop."""
    here = {start} if prefix in tables[start] else set()
    for _ in tables:
        assert all(connected.has_edge(name, via) for name in here for via in tables[name][prefix])
        here = {via for name in here for via in tables[name][prefix]} - {end}
    assert not here


@given(networks(), st.data())
def test_without_a_link_nothing_is_nearer(wanted: Network, data: st.DataObject) -> None:
    if not wanted.links:
        return
    gone = data.draw(st.sampled_from(wanted.links))
    less = Network(
        wanted.name, wanted.routers, tuple(each for each in wanted.links if each != gone)
    )
    before, after = Paths(wanted), Paths(less)
    for a in wanted.routers:
        for b in wanted.routers:
            assert after.cost(a.name, b.name) >= before.cost(a.name, b.name)
            assert after.cost(a.name, b.name) == after.cost(b.name, a.name)


def test_equal_ways_are_all_taken() -> None:
    square = network(4, link(0, 1, 0.1), link(1, 3, 0.2), link(0, 2, 0.15), link(2, 3, 0.15))
    assert routes(forwarding(square)["r0"]) == {
        "10.255.0.1/32": "r1",
        "10.255.0.2/32": "r2",
        "10.255.0.3/32": "r1 r2",
        "fd00:ffff::1/128": "r1",
        "fd00:ffff::2/128": "r2",
        "fd00:ffff::3/128": "r1 r2",
    }
    assert list(Paths(square).paths("r0", "r3")) == [("r0", "r1", "r3"), ("r0", "r2", "r3")]


def test_a_link_that_is_down_is_no_way() -> None:
    ring = network(3, link(0, 1), link(1, 2), link(0, 2, up=False))
    assert Paths(ring).path("r0", "r2") == ("r0", "r1", "r2")
    apart = network(2, link(0, 1, up=False))
    assert forwarding(apart) == {"r0": (), "r1": ()}


def test_stubs_are_reached_from_elsewhere_at_the_nearest_router_that_has_them() -> None:
    line = network(
        4,
        *(link(number, number + 1) for number in range(3)),
        stubs=(
            stub("home", 0, "192.0.2.0/24", "fd00:1::/64"),
            stub("here", 1, "198.51.100.0/24"),
            stub("there", 3, "198.51.100.0/24"),
        ),
    )
    found = {name: routes(table) for name, table in forwarding(line).items()}
    assert "192.0.2.0/24" not in found["r0"]
    assert found["r2"]["192.0.2.0/24"] == found["r2"]["fd00:1::/64"] == "r1"
    assert found["r0"]["198.51.100.0/24"] == "r1"
    assert found["r2"]["198.51.100.0/24"] == "r1 r3"
    assert "198.51.100.0/24" not in found["r1"]


def test_a_router_that_is_not_there_is_a_key_error() -> None:
    paths = Paths(network(1))
    assert (paths.cost("r0", "r0"), paths.path("r0", "r0")) == (0.0, ("r0",))
    for a, b in (("r0", "gone"), ("gone", "r0")):
        with pytest.raises(KeyError):
            paths.cost(a, b)
        with pytest.raises(KeyError):
            paths.path(a, b)


def large(count: int, links: int) -> Network:
    random = Random(7)  # noqa: S311 - a fixed seed
    pairs = {(number - 1, number) for number in range(1, count)}
    while len(pairs) < links:
        a, b = sorted(random.sample(range(count), 2))
        pairs.add((a, b))
    weights = [1.0, 2.0, 2.5]
    return network(count, *(link(a, b, random.choice(weights)) for a, b in sorted(pairs)))


def test_a_question_about_a_thousand_routers_is_answered_at_once() -> None:
    paths = Paths(large(1000, 2000))
    random, took = Random(8), []  # noqa: S311 - a fixed seed
    for _ in range(3000):
        a, b = (f"r{number}" for number in random.sample(range(1000), 2))
        start = time.perf_counter()
        assert paths.path(a, b)
        took.append(time.perf_counter() - start)
    assert median(took) < 0.01  # the target is 1 ms; measured: 0.04, and 0.7 when asked first


@settings(max_examples=5, deadline=None)
@given(st.integers(2, 60))
def test_routes_are_as_many_as_there_are_things_elsewhere(count: int) -> None:
    found = forwarding(large(count, count - 1))
    assert {len(table) for table in found.values()} == {2 * (count - 1)}

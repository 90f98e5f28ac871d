"""Routes lead where they should, and while they change no packet goes round in a circle."""

import random
from collections.abc import Iterator
from dataclasses import replace
from ipaddress import IPv4Address, IPv4Network

from hypothesis import given
from hypothesis import strategies as st

from orchestrator.linux.rtnetlink import Target
from orchestrator.network import (
    LinkEngine,
    Network,
    Routing,
    Stub,
    StubKind,
    VirtualLink,
    VirtualRouter,
)
from orchestrator.routers.layout import lay_out
from orchestrator.routers.names import mark_of, namespace_of
from orchestrator.routers.tables import depths, tables_for, target_of
from orchestrator.routing import forwarding

ENGINES = dict.fromkeys(LinkEngine, "")
BACKBONE = IPv4Network("10.1.0.0/16")


@st.composite
def networks(draw: st.DrawFn) -> Network:
    """Return a random connected network of up to nine routers."""
    count = draw(st.integers(2, 9))
    names = [f"r{number}" for number in range(count)]
    pairs = {(names[draw(st.integers(0, n - 1))], names[n]) for n in range(1, count)}
    pairs |= draw(st.sets(st.sampled_from([(a, b) for a in names for b in names if a < b])))
    weights = st.sampled_from([0.5, 1.0, 1.5, 2.0, 5.0])
    links = tuple(VirtualLink(a, b, weight=draw(weights)) for a, b in sorted(pairs))
    routers = tuple(VirtualRouter(name, BACKBONE[n + 1]) for n, name in enumerate(names))
    return Network("lab", routers, links)


def another(network: Network, seed: int) -> Network:
    """Return a network whose links have other weights, and some of which are down."""
    chance = random.Random(seed)  # noqa: S311 - not for secrets
    links = tuple(
        replace(link, weight=chance.choice([0.5, 1.0, 3.0, 9.0]), up=chance.random() > 0.2)
        for link in network.links
    )
    return replace(network, links=links)


def ways(network: Network) -> dict[Target, dict[str, tuple[str, ...]]]:
    """Return the neighbours by which each router reaches a prefix."""
    found: dict[Target, dict[str, tuple[str, ...]]] = {}
    for router, routes in forwarding(network).items():
        for route in routes:
            found.setdefault(target_of(route.prefix), {})[router] = route.via
    return found


def has_circle(via: dict[str, tuple[str, ...]]) -> bool:
    """Return whether a packet could come to a router twice."""
    rest = dict(via)
    while ends := [name for name, hops in rest.items() if not set(hops) & rest.keys()]:
        for name in ends:
            del rest[name]
    return bool(rest)


def moments(old: Network, new: Network, seed: int) -> Iterator[dict[str, tuple[str, ...]]]:
    """Yield the ways to each prefix, one router after the other having changed."""
    before, after = ways(old), ways(new)
    order = depths(forwarding(new), frozenset(after))
    chance = random.Random(seed)  # noqa: S311 - as above
    for target, via in after.items():
        now = dict(before.get(target, {}))
        changing = sorted(via, key=lambda name: (order[name, target], chance.random()))
        for name in changing:
            now[name] = via[name]
            yield now


@given(networks(), st.integers(0, 99))
def test_at_no_moment_packets_go_in_circles(network: Network, seed: int) -> None:
    for now in moments(network, another(network, seed), seed):
        assert not has_circle(now), now


def test_the_check_finds_circles() -> None:
    assert has_circle({"a": ("b",), "b": ("a", "c")})
    assert not has_circle({"a": ("b",), "b": ("c",)})


def test_the_nearest_routers_are_first() -> None:
    names = ["a", "b", "c", "d"]
    routers = tuple(VirtualRouter(name, BACKBONE[n + 1]) for n, name in enumerate(names))
    links = tuple(VirtualLink(a, b) for a, b in (("a", "b"), ("b", "c"), ("c", "d"), ("a", "d")))
    there = target_of(IPv4Network("10.1.0.3"))
    order = depths(forwarding(Network("lab", routers, links)), frozenset({there}))
    assert order == {("b", there): 0, ("d", there): 0, ("a", there): 1}


# --- what is installed where ----------------------------------------------------------------------


def stub(name: str, router: str, number: int, kind: StubKind, bridge: str = "") -> Stub:
    subnet = IPv4Network(f"10.2.{number}.0/24")
    return Stub(name, router, kind, subnet, subnet[1], bridge=bridge)


def lab(**more: object) -> Network:
    routers = (VirtualRouter("a", BACKBONE[1]), VirtualRouter("b", BACKBONE[2]))
    stubs = (
        stub("people", "b", 1, StubKind.CLIENTS),
        stub("guests", "a", 2, StubKind.BRIDGE, "br0"),
        stub("others", "a", 3, StubKind.BRIDGE, "br1"),
    )
    network = Network("lab", routers, (VirtualLink("a", "b"),), stubs)
    return replace(network, **more)  # type: ignore[arg-type]


def table(network: Network, namespace: str) -> dict[str, list[str]]:
    """Return a table in words: prefixes to devices, and gateways of four bytes."""
    layout = lay_out(network, mark_of("me", ""), "", ENGINES)
    found = tables_for(network, layout).tables[namespace]
    return {
        f"{IPv4Address(target.address)}/{target.length}": [
            f"{device} {IPv4Address(gateway)}" if len(gateway) == 4 else device
            for device, gateway in road.hops
        ]
        for target, road in found.items()
    }


def test_the_machine_reaches_the_network_through_its_first_bridge() -> None:
    assert table(lab(), "") == {
        "10.1.0.1/32": ["br0 10.2.2.1"],
        "10.1.0.2/32": ["br0 10.2.2.1"],
        "10.2.1.0/24": ["br0 10.2.2.1"],
    }


def test_clients_have_a_way_out() -> None:
    assert table(lab(), namespace_of("lab", "people")) == {"0.0.0.0/0": ["eth0 10.2.1.1"]}


def test_routers_have_routes_unless_a_daemon_makes_them() -> None:
    router = namespace_of("lab", "a")
    assert table(lab(), router) == {"10.1.0.2/32": ["b"], "10.2.1.0/24": ["b"]}
    assert table(lab(routing=Routing.OSPF), router) == {}

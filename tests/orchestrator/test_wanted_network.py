"""The network that a lab wants: addresses by rule, and what hangs on its routers."""

from dataclasses import replace
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.errors import CannotNetwork
from orchestrator.model import (
    Capacity,
    DnsSettings,
    GuestNetwork,
    Host,
    Lab,
    Link,
    NetworkSettings,
    Population,
    Router,
    RouterProgram,
)
from orchestrator.network import (
    LinkEngine,
    Machine,
    Network,
    Quality,
    Routing,
    Stub,
    StubKind,
    VirtualLink,
)
from orchestrator.wanted_network import apps_of, network_of, this_machine

RUN = NetworkSettings(run=True)


def guests(number: int, pool: tuple[int, int] = (10, 99), name: str = "") -> GuestNetwork:
    subnet = IPv4Network(f"10.{number}.0.0/24")
    return GuestNetwork(
        name=name or f"net{number}",
        subnet=subnet,
        gateway=subnet[1],
        first=subnet[pool[0]],
        last=subnet[pool[1]],
        create=not name,
        bridge="" if name else f"br{number}",
    )


def host(name: str, router: str, network: GuestNetwork, uri: str = "qemu:///system") -> Host:
    return Host(name, uri, Capacity(1, 1024), network, router=router)


def lab(*routers: str, hosts: tuple[Host, ...] = (), settings: NetworkSettings = RUN) -> Lab:
    return Lab(
        "lab",
        DnsSettings("lab.test"),
        hosts=hosts,
        routers=tuple(map(Router, routers)),
        network=settings,
    )


# --- routers and links ----------------------------------------------------------------------------


def test_a_lab_that_does_not_run_its_network_wants_none() -> None:
    assert network_of(lab("a", settings=NetworkSettings())) == Network("lab")


def addresses(wanted: Lab) -> dict[str, tuple[IPv4Address, IPv6Address | None]]:
    return {router.name: (router.address, router.address6) for router in network_of(wanted).routers}


@given(st.sets(st.text("abc", min_size=1), max_size=14), st.randoms(use_true_random=False))
def test_each_router_has_addresses_of_its_own(names: set[str], random: "st.Random") -> None:
    settings = replace(RUN, subnet=IPv4Network("10.9.0.0/28"), subnet6=IPv6Network("fd00:9::/124"))
    shuffled = sorted(names)
    random.shuffle(shuffled)
    found = addresses(lab(*shuffled, settings=settings))
    assert found == addresses(lab(*sorted(names), settings=settings))
    fours, sixes = {four for four, _ in found.values()}, {six for _, six in found.values()}
    assert len(fours) == len(sixes) == len(names)
    assert fours <= set(settings.subnet.hosts())
    assert sixes <= set(settings.subnet6.hosts()) - {settings.subnet6[-1]}


def test_one_router_more_moves_none_of_many() -> None:
    names = [f"router-{number}" for number in range(100)]
    before, after = addresses(lab(*names)), addresses(lab("another", *names))
    assert {name: after[name] for name in names} == before


def test_addresses_that_the_lab_gives_stay_and_are_given_to_nobody_else() -> None:
    by_rule = addresses(lab("a"))["a"]
    wanted = lab("a")
    own = Router("b", address=by_rule[0], address6=by_rule[1])
    found = addresses(replace(wanted, routers=(*wanted.routers, own)))
    assert found["b"] == by_rule
    assert (int(found["a"][0]), int(found["a"][1] or 0)) == tuple(int(x or 0) + 1 for x in by_rule)


def test_a_subnet_that_is_too_small_is_an_error() -> None:
    small = replace(RUN, subnet=IPv4Network("10.9.0.0/30"))
    with pytest.raises(CannotNetwork, match=r"10\.9\.0\.0/30 has no address left for router c"):
        network_of(lab("a", "b", "c", settings=small))


def test_links_keep_all_that_the_lab_says_of_them() -> None:
    settings = NetworkSettings(
        run=True,
        routing=Routing.OSPF,
        engine=LinkEngine.USER,
        machines=(Machine("m", IPv4Address("192.0.2.1")),),
    )
    link = Link("b", "a", 5, 100, weight=2.5, jitter_ms=1, loss=0.1, up=False)
    wanted = network_of(replace(lab("a", "b", settings=settings), links=(link,)))
    assert wanted.links == (VirtualLink("a", "b", Quality(5, 1, 0.1, 100), 2.5, up=False),)
    assert (wanted.routing, wanted.engine, wanted.machines) == (
        Routing.OSPF,
        LinkEngine.USER,
        settings.machines,
    )


def test_a_host_is_no_end_of_a_link() -> None:
    wanted = replace(lab("a"), links=(Link("a", "pc", 1, 1),))
    with pytest.raises(CannotNetwork, match=r"pc is not a router; attach a host to a router"):
        network_of(wanted)


# --- what hangs on routers ------------------------------------------------------------------------


def test_clients_hang_on_their_router_with_their_first_usable_subnets() -> None:
    subnets = ["127.0.0.0/8", "192.0.2.0/24", "198.51.100.0/24", "fd00:1::/64"]
    people = Population("desk", tuple(map(ip_network, subnets)), "a")
    (stub,) = network_of(replace(lab("a"), populations=(people,))).stubs
    assert stub == Stub(
        "desk",
        "a",
        StubKind.CLIENTS,
        IPv4Network("192.0.2.0/24"),
        IPv4Address("192.0.2.1"),
        IPv6Network("fd00:1::/64"),
        IPv6Address("fd00:1::1"),
    )


def test_clients_without_a_subnet_to_be_in_are_an_error() -> None:
    people = Population("desk", (ip_network("127.0.0.0/8"),), "a")
    with pytest.raises(CannotNetwork, match="clients desk"):
        network_of(replace(lab("a"), populations=(people,)))


def test_a_router_is_the_highest_free_station_among_guests() -> None:
    inner = replace(guests(1, (10, 254)), subnet6=IPv6Network("fd00:5::/64"))
    wanted = lab(
        "a",
        "b",
        hosts=(
            host("pc1", "a", replace(inner, first=IPv4Address("10.1.0.100"))),
            host("pc2", "b", replace(inner, last=IPv4Address("10.1.0.97"))),
            host("pc3", "a", replace(inner, first=inner.last)),
        ),
    )
    stubs = network_of(wanted).stubs
    assert [(stub.name, stub.router, str(stub.gateway), str(stub.gateway6)) for stub in stubs] == [
        ("pc1", "a", "10.1.0.99", "fd00:5::63"),
        ("pc2", "b", "10.1.0.98", "fd00:5::62"),
    ]
    assert {(stub.kind, stub.bridge) for stub in stubs} == {(StubKind.BRIDGE, "br1")}


@pytest.mark.parametrize(
    ("network", "uri", "bridge"),
    [
        (guests(1), "qemu:///system", "br1"),
        (guests(1, name="bridge:lan0"), "xen:///system", "lan0"),
        (guests(1, name="own0"), "spt:///", "own0"),
    ],
)
def test_the_bridge_of_a_hosts_guests(network: GuestNetwork, uri: str, bridge: str) -> None:
    (stub,) = network_of(lab("a", hosts=(host("pc", "a", network, uri),))).stubs
    assert stub.bridge == bridge


@pytest.mark.parametrize(
    "network", [guests(1, name="libvirts-own"), guests(1, (2, 254))], ids=["no bridge", "no room"]
)
def test_guests_that_no_router_can_be_attached_to_are_an_error(network: GuestNetwork) -> None:
    with pytest.raises(CannotNetwork, match="host pc: router a cannot be attached to its guests"):
        network_of(lab("a", hosts=(host("pc", "a", network),)))


def test_hosts_without_guests_here_are_not_attached() -> None:
    hosts = (
        host("alone", "", guests(1)),
        host("remembered", "a", guests(2), "memory:"),
        host("elsewhere", "a", guests(3), "xen+ssh://root@pc3/system"),
    )
    assert network_of(lab("a", hosts=hosts)).stubs == ()


def test_of_several_machines_each_attaches_its_own_guests() -> None:
    hosts = (host("pc1", "a", guests(1)), host("pc2", "b", guests(2), "xen+ssh://root@pc2/system"))
    machines = tuple(Machine(f"pc{n}", IPv4Address("192.0.2.0") + n) for n in (1, 2))
    wanted = replace(
        lab(hosts=hosts, settings=replace(RUN, machines=machines)),
        routers=(Router("a", host="pc1"), Router("b", host="pc2")),
    )
    found = network_of(wanted)
    assert [(stub.router, stub.bridge) for stub in found.stubs] == [("a", "br1"), ("b", "br2")]
    assert [router.machine for router in found.routers] == ["pc1", "pc2"]
    assert this_machine(wanted) == "pc1"
    assert this_machine(lab("a")) == ""


# --- programs -------------------------------------------------------------------------------------


def test_programs_are_made_with_the_addresses_of_routers() -> None:
    wanted = lab("b")
    probe = RouterProgram("probe", "ping", (("to", "b"),))
    wanted = replace(wanted, routers=(Router("a", apps=(probe,)), *wanted.routers))
    (app,) = apps_of(wanted)
    assert (app.name, app.router, app.argv[0]) == ("probe", "a", "ping")
    assert app.argv[-1] == str(addresses(wanted)["b"][0])
    assert apps_of(replace(wanted, network=NetworkSettings())) == ()
    lost = replace(probe, parameters=(("to", "pc1"),))
    with pytest.raises(CannotNetwork, match="lab lab: to of ping must be a router"):
        apps_of(replace(wanted, routers=(Router("a", apps=(lost,)),)))

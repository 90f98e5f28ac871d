"""Which machine runs each router: what links cost, what must stay where it is, and who is asked."""

from dataclasses import replace
from ipaddress import IPv4Address, IPv4Network

import pytest

from orchestrator.errors import EdgewakeError, LabError
from orchestrator.model import Capacity, DnsSettings, Energy, GuestNetwork, Host, Lab, Link, Router
from orchestrator.router_planner import OPTIONS, compare, plan_routers, question
from placement.registry import names

NETWORK = GuestNetwork(
    "net",
    IPv4Network("10.0.0.0/24"),
    IPv4Address("10.0.0.1"),
    IPv4Address("10.0.0.2"),
    IPv4Address("10.0.0.9"),
)
QUICK = replace(OPTIONS, deadline_s=5.0)
ONE_CORE = Capacity(cpu=1.0, memory_mib=16)


def host(name: str, cpu: float, site: str = "", router: str = "") -> Host:
    capacity = Capacity(cpu, 1024)
    return Host(
        name, "memory:///", capacity, NETWORK, site=site, router=router, energy=Energy(1, 1)
    )


@pytest.fixture
def lab() -> Lab:
    """Return two triangles of routers, joined by one thin link, and machines for three each."""
    pairs = [("a1", "a2"), ("a2", "a3"), ("a3", "a1"), ("b1", "b2"), ("b2", "b3"), ("b3", "b1")]
    return Lab(
        "lab",
        DnsSettings("edge.test"),
        hosts=(host("m1", 3, "here"), host("m2", 3, "here"), host("far", 3, "there")),
        routers=tuple(Router(name) for name in ("a1", "b1", "a2", "b2", "a3", "b3")),
        links=(*(Link(a, b, 1, 100) for a, b in pairs), Link("a1", "b1", 1, 10)),
    )


def test_routers_that_are_linked_share_a_machine(lab: Lab) -> None:
    found = plan_routers(lab, need=ONE_CORE, options=QUICK)
    assert len({found.hosts[name] for name in ("a1", "a2", "a3")}) == 1
    assert len({found.hosts[name] for name in ("b1", "b2", "b3")}) == 1
    assert set(found.hosts.values()) == {"m1", "m2"}  # of one site
    assert [(link.a, link.b) for link in found.crossing] == [("a1", "b1")]
    assert (found.mbps, found.most) == (10, 3)
    assert found.plan.terms["network_mbps"] == pytest.approx(10)
    assert found.plan.gap == pytest.approx(0, abs=1e-6)


def test_what_crosses_sites_costs_twice(lab: Lab) -> None:
    found = plan_routers(lab, machines=("m1", "far"), need=ONE_CORE, options=QUICK)
    assert set(found.hosts.values()) == {"m1", "far"}
    assert found.plan.terms["network_mbps"] == pytest.approx(20)


@pytest.mark.parametrize("algorithm", names())
def test_a_named_machine_and_attached_guests_keep_their_router(lab: Lab, algorithm: str) -> None:
    """Each kind of algorithm minds it, wherever else it would put them."""
    routers = (replace(lab.routers[0], host="far"), *lab.routers[1:])
    hosts = (lab.hosts[0], replace(lab.hosts[1], router="a2"), lab.hosts[2])
    lab = replace(lab, routers=routers, hosts=hosts)
    (line,) = compare(lab, [algorithm], need=ONE_CORE, options=replace(QUICK, deadline_s=2.0))
    assert line.found is not None, line.why
    assert line.algorithm == line.found.plan.algorithm == algorithm
    assert (line.found.hosts["a1"], line.found.hosts["a2"]) == ("far", "m2")
    assert line.found.plan.bound <= line.found.plan.value


def test_the_planner_is_no_worse_than_vlsps_engines(lab: Lab) -> None:
    lines = compare(lab, need=ONE_CORE, options=QUICK)
    assert [line.algorithm for line in lines][1:5] == [
        "least-used",
        "least-busy",
        "nup",
        "energy-efficient",
    ]
    values = [line.found.plan.value for line in lines if line.found]
    assert len(values) == len(lines)
    assert values[0] == min(values)
    assert values[0] < values[1]  # least used spreads what is linked


def test_parallel_links_are_one_traffic_and_hosts_are_no_routers(lab: Lab) -> None:
    links = (*lab.links, Link("b1", "a1", 2, 5), Link("m1", "a1", 1, 1000))
    asked = question(replace(lab, links=links))
    together = {(each.source, each.target): each.mbps for each in asked.traffic}
    assert together["a1", "b1"] == 15
    assert len(together) == 7


def test_what_is_spoken_for_is_no_room(lab: Lab) -> None:
    used = {"m1": Capacity(cpu=3, memory_mib=0)}
    found = plan_routers(lab, need=ONE_CORE, used=used, options=QUICK)
    assert set(found.hosts.values()) == {"m2", "far"}


def test_what_cannot_be_is_told(lab: Lab) -> None:
    with pytest.raises(EdgewakeError, match="no placement of all routers exists"):
        plan_routers(lab, machines=("m1",), need=ONE_CORE, options=QUICK)
    with pytest.raises(LabError, match="no host named 'gone'"):
        plan_routers(lab, machines=("gone",))
    with pytest.raises(LabError, match="there are no routers"):
        plan_routers(replace(lab, routers=()))
    named = replace(lab, routers=(Router("a1", host="far"),))
    with pytest.raises(LabError, match="router a1 is on 'far', which is no machine"):
        plan_routers(named, machines=("m1",))
    (line,) = compare(lab, ["nup"], machines=("m1",), need=ONE_CORE, options=QUICK)
    assert line.found is None
    assert "no placement of all routers was found" in line.why

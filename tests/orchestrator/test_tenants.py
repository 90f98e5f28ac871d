"""Chains and slices: what a lab file may say of them, and what the planner makes of it."""

from pathlib import Path

import pytest

from orchestrator.errors import EdgewakeError, LabError
from orchestrator.labfile import parse_lab
from orchestrator.model import Chain, ChainFunction, Lab, Slice
from orchestrator.planner import Planner
from orchestrator.rules.parse import parse
from placement.problem import Plan

FILE = Path("/labs/lab.yaml")
LAB = """\
name: chained
zone: lab.test
hosts:
  a: {uri: "memory:///a", router: r1, capacity: {cpu: 4, memory: 1 GiB},
      network: {name: na, subnet: 10.1.0.0/24, gateway: 10.1.0.1, pool: 10.1.0.10-10.1.0.20}}
  b: {uri: "memory:///b", router: r2, capacity: {cpu: 4, memory: 1 GiB},
      network: {name: nb, subnet: 10.2.0.0/24, gateway: 10.2.0.1, pool: 10.2.0.10-10.2.0.20}}
  c: {uri: "memory:///c", router: r3, capacity: {cpu: 4, memory: 1 GiB},
      network: {name: nc, subnet: 10.3.0.0/24, gateway: 10.3.0.1, pool: 10.3.0.10-10.3.0.20}}
routers: {r1: {}, r2: {}, r3: {}}
links:
  - {between: [r1, r2], latency: 5 ms, bandwidth: 100 Mbit/s}
  - {between: [r2, r3], latency: 20 ms, bandwidth: 100 Mbit/s}
  - {between: [r1, r3], latency: 40 ms, bandwidth: 50 Mbit/s}
clients:
  people: {subnets: [10.9.0.0/24], router: r1, rate: 5/s}
  others: {subnets: [10.8.0.0/24], router: r3, rate: 5/s}
images: {web: {family: linux, kernel: /nowhere}}
defaults: {image: web, resources: {cpu: 1, memory: 64 MiB}, ready: {tcp: 80}}
services:
  firewall: {constraints: {hosts: [a]}}
  cache: {constraints: {avoid_hosts: [a]}}
  shop: {constraints: {avoid_hosts: [a, b]}}
  mail: {}
"""
SHOP = "chains: {shop: {functions: [firewall, cache, shop], clients: people}}\n"


def parsed(more: str = "", *, lab: str = LAB) -> Lab:
    return parse_lab(lab + more, FILE)


def plan(lab: Lab) -> Plan:
    planner = Planner(lab)
    return planner.plan(planner.question((), {}))


def steps(found: Plan) -> set[tuple[str, str]]:
    return {(flow.u, flow.v) for flow in found.flows}


def test_they_are_read() -> None:
    lab = parsed(
        "chains: {shop: {functions: [firewall, shop], clients: people, latency_bound: 9 ms,"
        " bandwidth: 10 Mbit/s}}\n"
        "slices: {gold: {services: [mail], clients: [people], cpu: 25 %, memory: 10 %,"
        " bandwidth: 20 Mbit/s, isolated: true}}\n"
    )
    assert lab.chains == (Chain("shop", ("firewall", "shop"), "people", 9.0, 10.0),)
    assert lab.slices == (
        Slice("gold", frozenset({"mail"}), frozenset({"people"}), 0.25, 0.1, 20.0, isolated=True),
    )
    assert (parsed().chains, parsed().slices) == ((), ())


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ("chains: {x: {functions: [shop]}}", "functions: must have at least 2 in it"),
        ("chains: {x: {functions: [shop, shoq]}}", r"functions\.1: unknown service 'shoq'"),
        ("chains: {x: {functions: [mail, shop], clients: me}}", "unknown clients 'me'"),
        ("chains: {x: {functions: [shop, mail, shop]}}", "is in the chain twice"),
        (
            "chains: {x: {functions: [mail, shop]}, y: {functions: [cache, shop]}}",
            "ends at 'shop' as 'x' does, in line 25; a service ends one chain",
        ),
        ("slices: {x: {cpu: 10 %}}", "must say whose it is"),
        ("slices: {x: {services: [nix]}}", "unknown service 'nix'"),
        ("slices: {x: {services: [mail], bandwidth: 1 Mbit/s}}", "and the slice has none"),
        ("slices: {x: {clients: [people], cpu: 5 %}}", "and the slice has none"),
        (
            "slices: {x: {services: [mail], cpu: 60 %}, y: {services: [shop], cpu: 50 %}}",
            "the slices keep 110% of it in all",
        ),
        (
            "slices: {x: {clients: [people], bandwidth: 60 Mbit/s}}",
            "keep 60 Mbit/s in all, and the narrowest link has 50 Mbit/s",
        ),
        ("slices: {x: {services: [mail]}, y: {services: [mail]}}", "can be in one only"),
        (
            "slices: {x: {services: [shop]}}\n" + SHOP,
            "has some functions of the chain 'shop', and not the others",
        ),
    ],
)
def test_what_cannot_be_is_refused(more: str, message: str) -> None:
    with pytest.raises(LabError, match=message):
        parsed(more)


def test_packets_are_led_through_processes_only() -> None:
    virtual = LAB.replace("memory:///b", "qemu:///system")
    with pytest.raises(LabError, match="'cache' may run on 'b', where packets cannot be led"):
        parsed(SHOP, lab=virtual)
    assert parsed(SHOP.replace("cache, ", ""), lab=virtual).chains


def test_a_function_says_what_it_does_to_packets() -> None:
    does = "{admits: '<4==ip_version && proto==TCP>', intercepts: [{rule: udp, port: 53}]}"
    lab = parsed(lab=LAB.replace("cache: {", f"cache: {{function: {does}, "))
    assert lab.service("cache").function == ChainFunction(
        parse("ip version 4 and tcp"), ((parse("udp"), 53),)
    )
    with pytest.raises(LabError, match=r"cache.function.admits: is no traffic rule: column 5"):
        parsed(lab=LAB.replace("cache: {", "cache: {function: {admits: tcp tcp}, "))


def test_a_function_has_one_copy() -> None:
    copies = LAB.replace("cache: {", "cache: {replicas: 2, ")
    with pytest.raises(LabError, match="up to 2 copies; a function of a chain has one"):
        parsed(SHOP, lab=copies)


def test_the_bound_is_for_the_whole_path() -> None:
    bounded = SHOP.replace("people}", "people, latency_bound: 26 ms}")
    found = plan(parsed(bounded))
    assert found.hosts["cache"] in {("b",), ("c",)}
    assert steps(found) == {("r1", "r2"), ("r2", "r3")}, "the direct link takes 40 ms"
    with pytest.raises(EdgewakeError, match="no placement"):
        plan(parsed(bounded.replace("26 ms", "24 ms")))


def test_the_clients_way_to_the_first_function_counts() -> None:
    mine = SHOP.replace("people}", "others, latency_bound: 30 ms}")  # 25 ms to the firewall
    with pytest.raises(EdgewakeError, match="no placement"):
        plan(parsed(mine))
    assert plan(parsed(mine.replace("30 ms", "50 ms"))).hosts["firewall"] == ("a",)


def test_a_link_that_is_too_narrow_is_not_taken() -> None:
    assert plan(parsed(SHOP.replace("people}", "people, bandwidth: 100 Mbit/s}"))).flows
    with pytest.raises(EdgewakeError, match="no placement"):
        plan(parsed(SHOP.replace("people}", "people, bandwidth: 160 Mbit/s}")))


def test_a_slice_keeps_room_on_links_for_its_own_chain() -> None:
    wide = SHOP.replace("people}", "people, bandwidth: 100 Mbit/s}")
    kept = "slices: {gold: {services: [SERVICES], clients: [people], bandwidth: 40 Mbit/s}}\n"
    own = parsed(wide + kept.replace("SERVICES", "firewall, cache, shop"))
    assert plan(own).flows
    with pytest.raises(EdgewakeError, match="no placement"):
        plan(parsed(wide + kept.replace("SERVICES", "mail")))


def test_a_slice_keeps_room_on_hosts() -> None:
    alone = LAB.replace("mail: {}", "mail: {constraints: {hosts: [a]}, resources: {cpu: 3}}")
    alone = alone.replace("resources: {cpu: 3}", "resources: {cpu: 3, memory: 64 MiB}")
    assert plan(parsed(lab=alone)).hosts["mail"] == ("a",)
    with pytest.raises(EdgewakeError, match="no placement"):
        plan(parsed("slices: {gold: {services: [shop], cpu: 50 %}}\n", lab=alone))


def test_an_isolated_slice_shares_no_host() -> None:
    found = plan(parsed("slices: {gold: {services: [firewall], isolated: true}}\n"))
    assert found.hosts["mail"] != ("a",)


def test_a_lab_without_chains_asks_as_before() -> None:
    problem = Planner(parsed()).problem
    assert (problem.links, problem.chains, problem.slices) == ((), (), ())


@pytest.mark.parametrize("key", ["admits", "intercepts"])
def test_a_rule_that_nftables_cannot_say_is_found_where_it_is_written(key: str) -> None:
    rule = " or ".join(f"src port {2 * each}" for each in range(100))
    does = f"admits: {rule}" if key == "admits" else f"intercepts: [{{rule: {rule}, port: 80}}]"
    lab = LAB.replace("  firewall: {", f"  firewall: {{function: {{{does}}}, ")
    with pytest.raises(LabError, match=rf"services\.firewall\.function\.{key}.*too long"):
        parsed(lab=lab)

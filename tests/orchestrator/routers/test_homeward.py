"""What guests of two hosts on one machine send goes by their own host's router."""

import os
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path

import pytest

from orchestrator.linux import namespaces
from orchestrator.network import Network, Stub, StubKind, VirtualLink, VirtualRouter
from orchestrator.routers.netns import NetnsRouters

pytestmark = pytest.mark.real

NAME = f"th{os.getpid() % 10_000}"
MACHINE = f"ewm-{NAME}"
NEAR, FAR = (
    Stub(
        f"host{number}",
        f"r{number}",
        StubKind.BRIDGE,
        IPv4Network(f"10.79.{number}.0/24"),
        IPv4Address(f"10.79.{number}.254"),
        bridge=f"br{number}",
    )
    for number in (1, 2)
)
ROUTERS = tuple(VirtualRouter(f"r{n}", IPv4Address("10.79.0.0") + n) for n in (1, 2))
LAB = Network(NAME, ROUTERS, (VirtualLink("r1", "r2"),), (NEAR, FAR))


def ip(line: str) -> str:
    done = subprocess.run(
        ["ip", "-n", MACHINE, *line.split()], capture_output=True, text=True, check=True
    )
    return done.stdout


def ways() -> tuple[str, str]:
    """Return our rules, and the routes of all tables but the main one."""
    routes = [line for line in ip("route show table all proto 236").splitlines() if "table" in line]
    rules = [line for line in ip("rule show").splitlines() if line.endswith("proto 236")]
    return "\n".join(rules), "\n".join(routes)


@pytest.fixture
def routers(tmp_path: Path) -> Iterator[NetnsRouters]:
    namespaces.make(MACHINE)
    try:
        ip("link set lo up")
        for stub in (NEAR, FAR):
            ip(f"link add {stub.bridge} up type bridge")
            ip(f"addr add {stub.subnet[1]}/24 dev {stub.bridge}")
        namespaces.inside(MACHINE, lambda: Path("/proc/sys/net/ipv4/ip_forward").write_text("1"))
        made = NetnsRouters(NAME, tmp_path, place=MACHINE)
        yield made
        made.set(Network(""))
    finally:
        namespaces.remove(MACHINE)


def way_of_guest(sender: Stub, target: Stub) -> str:
    """Return the gateway that the machine chooses for a guest."""
    origin = f"from {sender.subnet[9]} iif {sender.bridge}"
    return ip(f"route get {target.subnet[9]} {origin}").split(" via ")[1].split()[0]


def test_each_host_sends_by_its_own_router(routers: NetnsRouters) -> None:
    routers.set(LAB)
    assert way_of_guest(NEAR, FAR) == str(NEAR.gateway)
    assert way_of_guest(FAR, NEAR) == str(FAR.gateway)
    there = ways()
    routers.set(LAB)
    assert ways() == there


def test_a_host_that_leaves_the_network_leaves_nothing(routers: NetnsRouters) -> None:
    routers.set(LAB)
    routers.set(replace(LAB, stubs=(FAR,)))
    assert NEAR.bridge not in ways()[0]
    routers.set(Network(NAME))
    assert ways() == ("", "")


def test_routes_follow_the_network(routers: NetnsRouters) -> None:
    routers.set(LAB)
    moved = replace(NEAR, gateway=NEAR.gateway - 1)
    routers.set(replace(LAB, stubs=(moved, FAR)))
    assert way_of_guest(NEAR, FAR) == str(moved.gateway)
    assert str(NEAR.gateway) not in ways()[1]

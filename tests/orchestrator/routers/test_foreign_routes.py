"""A network takes no route away from its machine, nor from another network there."""

from collections.abc import Iterator
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path

import pytest

from orchestrator.errors import CannotNetwork
from orchestrator.network import Network, Stub, StubKind, VirtualRouter
from orchestrator.routers.netns import NetnsRouters
from tests.orchestrator.routers.machines import MACHINE, NAME, ip, standing_for_a_machine

pytestmark = [pytest.mark.real, pytest.mark.timeout(60)]

BRIDGE = "br-guests"
GUESTS, PEOPLE = "10.77.0.0/24", "192.0.2.0/25"


def network(name: str = NAME, guests: str = GUESTS, people: str = PEOPLE) -> Network:
    inside, outside = IPv4Network(guests), IPv4Network(people)
    return Network(
        name,
        (VirtualRouter("r1", IPv4Address("10.254.77.1")),),
        stubs=(
            Stub("box", "r1", StubKind.BRIDGE, inside, inside[254], bridge=BRIDGE),
            Stub("people", "r1", StubKind.CLIENTS, outside, outside[1]),
        ),
    )


@pytest.fixture
def routers(tmp_path: Path) -> Iterator[NetnsRouters]:
    with standing_for_a_machine(MACHINE):
        for line in (
            f"link add {BRIDGE} type bridge",
            f"addr add 10.77.0.1/24 dev {BRIDGE}",
            f"link set {BRIDGE} up",
            "link add lan type bridge",
            "link set lan up",
        ):
            ip(f"-n {MACHINE} {line}")
        made = NetnsRouters(NAME, tmp_path, place=MACHINE)
        yield made
        made.set(Network(NAME))


@pytest.mark.parametrize(
    ("line", "lost"),
    [
        ("addr add 192.0.2.9/25 dev lan", "192.0.2.0/25"),  # the same subnet
        ("addr add 192.0.2.9/24 dev lan", "192.0.2.0/24"),  # ours would be half of it
        ("addr add 192.0.2.9/28 dev lan", "192.0.2.0/28"),  # it would be a hole in ours
        ("route add 192.0.2.0/25 via 10.77.0.9", "192.0.2.0/25"),
        ("route add 10.254.77.1 via 10.77.0.9", "10.254.77.1/32"),
    ],
)
def test_a_route_of_the_machine_is_not_replaced(
    routers: NetnsRouters, line: str, lost: str
) -> None:
    ip(f"-n {MACHINE} {line}")
    before = ip(f"-n {MACHINE} route")
    with pytest.raises(CannotNetwork, match=f"has a route to {lost} of its own"):
        routers.set(network())
    assert ip(f"-n {MACHINE} route") == before
    assert not routers.found().routers


def test_a_way_to_somewhere_larger_is_no_obstacle(routers: NetnsRouters) -> None:
    for line in ("route add default via 10.77.0.9", "route add 192.0.0.0/8 via 10.77.0.9"):
        ip(f"-n {MACHINE} {line}")
    routers.set(network())
    assert routers.set(network()).routes == 0


def test_another_networks_route_is_not_replaced(routers: NetnsRouters, tmp_path: Path) -> None:
    routers.set(network())
    before = ip(f"-n {MACHINE} route")
    other = NetnsRouters(f"{NAME} other", tmp_path / "other", place=MACHINE)
    ip(f"-n {MACHINE} addr add 10.78.0.1/24 dev {BRIDGE}")
    with pytest.raises(CannotNetwork, match=r"another virtual network .* has 10\.254\.77\.1/32"):
        other.set(network(f"{NAME}b", guests="10.78.0.0/24", people="198.51.100.0/24"))
    assert not other.found().routers
    ip(f"-n {MACHINE} addr del 10.78.0.1/24 dev {BRIDGE}")
    assert ip(f"-n {MACHINE} route") == before

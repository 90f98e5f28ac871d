"""Links between routers on two machines, for which two namespaces stand, with a cable between."""

from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from ipaddress import ip_address
from pathlib import Path

import pytest

from orchestrator.errors import CannotNetwork
from orchestrator.network import LinkEngine, Machine, Network, Quality, VirtualLink
from orchestrator.routers.base import Done
from orchestrator.routers.netns import NetnsRouters
from tests.contracts.routers import NARROW, clients, router, stands, without
from tests.orchestrator.routers.machines import (
    MACHINE,
    NAME,
    PATIENCE_S,
    ip,
    reaches,
    standing_for_a_machine,
    what_there_is,
)

pytestmark = [pytest.mark.real, pytest.mark.timeout(60)]

OTHER = f"{MACHINE}b"
V4 = (Machine("left", ip_address("192.0.2.1")), Machine("right", ip_address("192.0.2.2")))
V6 = (Machine("left", ip_address("2001:db8::1")), Machine("right", ip_address("2001:db8::2")))
CROSSING = VirtualLink("r2", "r3", NARROW)


@pytest.fixture
def both(tmp_path: Path) -> Iterator[tuple[NetnsRouters, NetnsRouters]]:
    with standing_for_a_machine(MACHINE), standing_for_a_machine(OTHER), ExitStack() as held:
        ip(f"-n {MACHINE} link add eth0 type veth peer name eth0 netns {OTHER}")
        for name, number in ((MACHINE, 1), (OTHER, 2)):
            ip(f"-n {name} addr add 192.0.2.{number}/24 dev eth0")
            ip(f"-n {name} addr add 2001:db8::{number}/64 dev eth0 nodad")
            ip(f"-n {name} link set eth0 up")
        before = what_there_is()
        made = tuple(
            NetnsRouters(NAME, tmp_path / name, machine=name, place=place)
            for name, place in (("left", MACHINE), ("right", OTHER))
        )
        for each in made:
            held.callback(each.set, Network(""))
        yield made[0], made[1]
        held.close()
        assert what_there_is() == before


def network(machines: tuple[Machine, ...] = V4, *links: VirtualLink) -> Network:
    """Return r1 and r2 on the left, r3 and r4 on the right, with clients at both ends."""
    people = clients("r1")
    return Network(
        NAME,
        tuple(router(each, machine="left" if each < 3 else "right") for each in range(1, 5)),
        links or (VirtualLink("r1", "r2"), CROSSING, VirtualLink("r3", "r4")),
        (people,),
        machines=machines,
    )


def seen_from(wanted: Network, machine: str) -> Network:
    """Return the part of a network that one machine has."""
    here = {each.name for each in wanted.routers if each.machine == machine}
    others = [each.name for each in wanted.routers if each.name not in here]
    crossing = tuple(link for link in wanted.links if len({link.a, link.b} & here) == 1)
    part = without(wanted, *others)
    return replace(part, links=(*part.links, *crossing))


@pytest.mark.parametrize("machines", [V4, V6], ids=["IPv4", "IPv6"])
def test_packets_cross_machines(
    both: tuple[NetnsRouters, NetnsRouters], machines: tuple[Machine, ...]
) -> None:
    wanted = network(machines)
    for each, machine in zip(both, ("left", "right"), strict=True):
        each.set(wanted)
        assert stands(each, seen_from(wanted, machine))
        assert each.set(wanted) == Done()
    assert reaches(wanted, "people", "r4")
    assert reaches(wanted, "people", "r4", version=6)
    counted = {(each.router, each.peer): each for each in both[1].counters()}
    assert counted["r3", "r2"].rx_packets >= 2
    (engine,) = {
        state.engine for each in both for state in each.found().links if state.link == CROSSING
    }
    assert engine is not LinkEngine.NONE, "both ends are narrow"


def test_a_link_across_goes_and_comes_back(both: tuple[NetnsRouters, NetnsRouters]) -> None:
    whole, cut = network(), network(V4, VirtualLink("r1", "r2"), VirtualLink("r3", "r4"))
    for wanted, far in ((whole, True), (cut, False), (whole, True)):
        for each in both:
            each.set(wanted)
        assert reaches(wanted, "people", "r4", patience_s=PATIENCE_S if far else 0.1) == far


def test_two_links_across_are_two_tunnels(both: tuple[NetnsRouters, NetnsRouters]) -> None:
    wanted = network(V4, VirtualLink("r1", "r3"), VirtualLink("r2", "r4"))
    for each in both:
        each.set(wanted)
    assert reaches(wanted, "people", "r3")
    assert reaches(wanted, "r2", "r4")


def test_a_machine_without_an_address_is_refused(both: tuple[NetnsRouters, NetnsRouters]) -> None:
    with pytest.raises(CannotNetwork, match=r"link r2--r3 crosses machines.* right is not known"):
        both[0].set(network(V4[:1]))
    assert not both[0].found().routers


def test_machines_without_a_common_family_are_refused(
    both: tuple[NetnsRouters, NetnsRouters],
) -> None:
    with pytest.raises(CannotNetwork, match="r2--r3: one machine has an IPv4 address"):
        both[0].set(network((V4[0], V6[1])))


def test_what_only_our_process_can_do_is_refused_across_machines(
    both: tuple[NetnsRouters, NetnsRouters],
) -> None:
    late = replace(CROSSING, quality=Quality(latency_ms=5))
    wanted = replace(network(V4, late), engine=LinkEngine.USER)
    with pytest.raises(CannotNetwork, match=r"r2--r3.*cannot cross machines"):
        both[0].set(wanted)

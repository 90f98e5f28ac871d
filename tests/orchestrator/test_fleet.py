"""What is spoken for on a host: with what its hypervisor takes beside a guest's own memory."""

from dataclasses import replace

import pytest

from orchestrator.errors import NoCapacity
from orchestrator.fleet import Fleet
from orchestrator.model import Capacity, DnsSettings, Host, Instance, Lab
from tests.world import a_host, a_service

XEN = replace(a_host("x", memory_mib=60), uri="xen:///system")
QEMU = replace(a_host("q", 1, memory_mib=60), uri="qemu:///system")
NEED = Capacity(cpu=0.1, memory_mib=8)  # on Xen, 10


def fleet_on(*hosts: Host, services: int = 8) -> Fleet:
    wanted = [a_service(f"s{number}", resources=NEED) for number in range(services)]
    return Fleet(Lab("t", DnsSettings("edge.test"), hosts, services=tuple(wanted)))


def fill(fleet: Fleet) -> list[Instance]:
    """Reserve one instance of each service; those that find no place are left out."""
    placed = []
    for service in fleet.lab.services:
        try:
            placed.append(fleet.reserve(service.name))
        except NoCapacity as error:
            assert "needs 10 MiB of memory" in str(error)  # noqa: PT017 - why each is left out
    return placed


@pytest.mark.parametrize(
    ("guest", "taken"),
    [
        (Capacity(0.1, 8), 10),
        (Capacity(1, 128), 131),
        (Capacity(4, 512), 521),
        (Capacity(1, 1024), 1034),
    ],
)
def test_what_a_guest_takes_of_a_xen_host(guest: Capacity, taken: int) -> None:
    """In each, at least what was measured: 1.25, 2.2, 8.3 and 9.2 MiB more."""
    assert XEN.taken_by(guest) == replace(guest, memory_mib=taken)
    assert QEMU.taken_by(guest) == guest
    assert a_host("m").taken_by(guest) == guest


def test_each_guest_on_xen_is_counted_with_what_xen_adds() -> None:
    fleet = fleet_on(XEN)
    placed = fill(fleet)
    assert len(placed) == 6, "seven times 8 MiB would fit"
    assert fleet.used("x").memory_mib == 60
    fleet.drop(placed[0], rest_s=0.0)
    assert fleet.used("x").memory_mib == 50


def test_what_the_host_says_is_free_counts_with_what_xen_adds() -> None:
    fleet = fleet_on(XEN)
    fleet.host_answered("x", Capacity(cpu=4, memory_mib=35))
    assert len(fill(fleet)) == 3


def test_a_plan_leaves_room_for_what_xen_adds() -> None:
    fleet = fleet_on(XEN, QEMU, services=13)
    plan = fleet.planner.plan(fleet.planner.question((), {}))
    where = [hosts[0] for hosts in plan.hosts.values()]
    assert (where.count("x"), where.count("q")) == (6, 7)

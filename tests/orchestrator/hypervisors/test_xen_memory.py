"""Memory of a real Xen host: as many guests start as are let in, and its own refusal is told."""

import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest
from dnslib import RCODE

from dns_boot import answers
from images.bootspec import Image
from images.inspect import Inspector
from orchestrator.boot import HostParts
from orchestrator.control import ControlSettings, Orchestrator
from orchestrator.errors import NoCapacity, WakeError
from orchestrator.fleet import Fleet
from orchestrator.hypervisors.libvirt_driver import LibvirtHypervisor
from orchestrator.library import Library, traits_of
from orchestrator.model import Capacity, Client, DnsSettings, Guest, Host, Lab
from orchestrator.readiness import wait
from orchestrator.store.memory import MemoryStore
from tests.contracts.hypervisor import unheard
from tests.orchestrator.hypervisors import tiny_guests
from tests.orchestrator.hypervisors.test_xen import (
    XenRig,
    hello_kernel,
    hypervisor,
    make_rig,
    outside,
)
from tests.world import Seen, a_service

__all__ = ["hello_kernel", "hypervisor", "make_rig", "outside"]

pytestmark = [pytest.mark.real, pytest.mark.timeout(600)]

ROOM_MIB, GUEST_MIB, MOST = 95, 20, 9
BALLAST = 50  # the number of the guest that takes what the test is not to have


def resting(rig: XenRig, number: int, memory_mib: int) -> Guest:
    """Return a guest without a card, whose script would take time."""
    kernel = tiny_guests.build(rig.folder, tiny_guests.REST)
    return rig.guest(number, kernel=kernel, memory_mib=memory_mib, nics=())


def ballast(rig: XenRig, leaving_mib: int, driver: LibvirtHypervisor) -> None:
    """Take the host's memory but for so much."""
    free_mib = driver.free().memory_mib
    size = next(
        size for size in range(free_mib, 0, -1) if free_mib - taken(rig.host, size) >= leaving_mib
    )
    guest = resting(rig, BALLAST, size)
    driver.start(replace(guest, mark=replace(guest.mark, owner=driver.owner)), unheard)


def taken(host: Host, memory_mib: int) -> int:
    return host.taken_by(Capacity(1, memory_mib)).memory_mib


def lab_of(rig: XenRig, services: int) -> Lab:
    """Return a lab that says the host had more memory than it has."""
    host = replace(rig.host, capacity=Capacity(cpu=16, memory_mib=16384))
    size = Capacity(cpu=1, memory_mib=GUEST_MIB)
    wanted = tuple(a_service(f"s{n}", resources=size, deadline_s=150.0) for n in range(services))
    image = Image("tiny", "hello", rig.kernel)
    return Lab(rig.tag, DnsSettings("edge.test"), (host,), images=(image,), services=wanted)


def is_let_in(fleet: Fleet, service: str) -> bool:
    try:
        fleet.reserve(service)
    except NoCapacity as error:
        assert re.search(r"xen1: needs \d+ MiB of memory, \d+ free", str(error))  # noqa: PT017
        return False
    return True


def test_as_many_guests_as_are_let_in_start_and_one_more_is_refused_by_us(
    outside: XenRig, hypervisor: LibvirtHypervisor
) -> None:
    ballast(outside, ROOM_MIB, hypervisor)
    fleet = Fleet(lab_of(outside, MOST))
    fleet.host_answered(outside.host.name, hypervisor.free())
    let_in = sum(is_let_in(fleet, service.name) for service in fleet.lab.services)
    assert 3 <= let_in < MOST
    guests = [resting(outside, number, GUEST_MIB) for number in range(let_in)]
    with ThreadPoolExecutor(len(guests)) as pool:
        list(pool.map(lambda guest: hypervisor.start(guest, unheard), guests))
    assert len(hypervisor.running()) == len(guests) + 1
    left_mib = hypervisor.free().memory_mib
    assert left_mib < taken(outside.host, GUEST_MIB) + len(guests), "no whole guest was held back"


@pytest.fixture
def control(outside: XenRig, hypervisor: LibvirtHypervisor) -> Iterator[Orchestrator]:
    lab = lab_of(outside, 1)
    control = Orchestrator(
        lab,
        store=MemoryStore(),
        open_host=lambda host: HostParts(hypervisor, wait, traits_of(host)),
        owner=outside.owner,
        library=Library(Inspector()),
        settings=ControlSettings(sweep_s=3600),
    )
    control.start(Seen())
    try:
        yield control
    finally:
        control.close()


def test_what_xen_refuses_for_lack_of_memory_is_told_and_leaves_nothing(
    outside: XenRig, hypervisor: LibvirtHypervisor, control: Orchestrator
) -> None:
    """Memory that was free when the host was last asked is gone when the guest is started."""
    other = outside.driver(owner="somebody-else")
    ballast(outside, 2, other)
    with pytest.raises(WakeError, match=r"Xen has too little free memory for it; .*stop a") as told:
        control.summon("s0", Client()).endpoints.result(outside.patience_s)
    assert answers.failure(told.value).rcode == RCODE.SERVFAIL
    trouble = control.status().services[0].trouble
    assert "Xen has too little free memory for it" in trouble
    (name,) = (domain.name() for domain in outside.conn.listAllDomains() if domain.ID())
    assert name.endswith(f"-{BALLAST}")
    assert hypervisor.running() == ()
    assert control.fleet.instances() == ()
    assert control.fleet.used("xen1") == Capacity(0.0, 0)

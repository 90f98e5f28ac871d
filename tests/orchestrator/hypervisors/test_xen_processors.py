"""Who gets how much processor time on a real Xen 4.17, whose scheduler is credit2."""

import time
from dataclasses import replace
from pathlib import Path

import pytest

from images.facts import Entry
from orchestrator.hypervisors.base import Depth
from tests.contracts.hypervisor import unheard
from tests.orchestrator.hypervisors import tiny_guests
from tests.orchestrator.hypervisors.test_xen import XenRig, hello_kernel, make_rig, outside

__all__ = ["hello_kernel", "make_rig", "outside"]

pytestmark = [pytest.mark.real, pytest.mark.timeout(600)]

CAP, MEASURED_S = 0.2, 3.0
LAST = 1  # of the bed's two processors; dom0 has the other


def test_a_guest_is_held_to_its_cap_and_to_the_processors_of_guests(
    outside: XenRig, tmp_path: Path
) -> None:
    kernel = tiny_guests.build(tmp_path, tiny_guests.BURN)
    driver = outside.driver(host=replace(outside.host, guest_cpus=(LAST,)))
    plain = [outside.guest(n, kernel=kernel, entry=Entry.PVH, nics=()) for n in range(2)]
    capped = replace(plain[0], cpu=0.2, cpu_cap=CAP)
    for guest in (capped, plain[1]):
        driver.start(guest, unheard)
    domains = [outside.conn.lookupByName(guest.name) for guest in plain]
    assert [domain.schedulerParameters()["cap"] for domain in domains] == [20, 0]
    before = [tiny_guests.used_s(domain) for domain in domains]
    time.sleep(MEASURED_S)
    used = [tiny_guests.used_s(domain) - was for domain, was in zip(domains, before, strict=True)]
    # Both are on one processor, so what one does not get the other does.
    assert 0.1 < used[0] / sum(used) < 0.3
    listed = outside.bed.ssh("xl", "vcpu-list").stdout.decode().splitlines()
    pinned = [line.split()[-3] for line in listed if outside.tag in line]
    assert pinned == [str(LAST)] * 2, "its hard affinity"


@pytest.mark.parametrize("cap", [1.5, 999_999_999.0])
def test_a_cap_beyond_its_virtual_processors_is_no_obstacle(outside: XenRig, cap: float) -> None:
    guest = replace(outside.guest(), cpu_cap=cap)
    outside.driver().start(guest, unheard)
    assert outside.conn.lookupByName(guest.name).schedulerParameters()["cap"] == 100


def test_a_saved_guest_is_still_capped_when_it_runs_again(outside: XenRig) -> None:
    guest = replace(outside.guest(), cpu_cap=0.5)
    driver = outside.driver()
    driver.start(guest, unheard)
    outside.page(guest)
    driver.sleep(guest.name, Depth.SAVED)
    driver.rouse(guest.name)
    assert outside.conn.lookupByName(guest.name).schedulerParameters()["cap"] == 50

"""Live migration between two real Xen hosts that share a network: hello, with an open connection.

One migration, because each takes 10 to 30 s in emulation; `test_migration` has the other rules.
"""

import http.client
import os
import re
import shutil
import tempfile
import time
import uuid
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from images.bootspec import BootSpec, Nic
from images.facts import Entry
from orchestrator.errors import StartFailed
from orchestrator.hypervisors.base import Sent
from orchestrator.hypervisors.libvirt_driver import LibvirtHypervisor
from orchestrator.model import Capacity, Guest, GuestNetwork, Host, Mark, mac_of
from tests.contracts.hypervisor import Heard, elsewhere, names, unheard
from tests.waiting import eventually
from tests.xenbed.bed import Bed
from tests.xenbed.fixture import own_bed
from tests.xenbed.plan import Wanted

# The test waits for two beds.
pytestmark = [pytest.mark.real, pytest.mark.timeout(600)]

PATIENCE_S = 150.0
LOCK_S = 30.0  # what libvirt waits for a domain that is busy
DEPOT = Path("/var/lib/libvirt/edgewake")  # in the beds, on their disks
FACTS = re.compile(r"Started</th><td>([^<]*).*Requests</th><td>(\d+)", re.DOTALL)


@pytest.fixture
def second_bed(xen_bed: Bed) -> Iterator[Bed]:
    wanted = Wanted(name=f"u{os.getpid()}", join=xen_bed.state.name)
    with own_bed(wanted) as bed:
        yield bed


@pytest.fixture
def hosts(xen_bed: Bed, second_bed: Bed) -> tuple[Host, Host]:
    subnet = xen_bed.state.lan.subnet
    network = GuestNetwork("bridge:xenbr0", subnet, subnet[1], subnet[120], subnet[129])
    here, there = (
        Host(
            name,
            bed.libvirt_uri,
            Capacity(2, bed.state.guests_mib),
            network,
            migration_address=str(bed.state.address),
        )
        for name, bed in (("here", xen_bed), ("there", second_bed))
    )
    return here, there


@pytest.fixture
def drivers(hosts: tuple[Host, Host]) -> Iterator[list[LibvirtHypervisor]]:
    folder, owner = Path(tempfile.mkdtemp(prefix="ewxm-")), f"ewxm-{uuid.uuid4().hex[:6]}"
    console = folder / "console"
    made = [LibvirtHypervisor(h, owner, console_dir=console, depot_dir=DEPOT) for h in hosts]
    try:
        yield made
    finally:
        for driver in made:
            driver.stop(f"{owner}-0")
            driver.close()
        shutil.rmtree(folder)


def facts(peer: http.client.HTTPConnection) -> tuple[str, int]:
    """Return when the guest started, and how many requests it has answered."""
    peer.request("GET", "/")
    found = FACTS.search(peer.getresponse().read().decode())
    assert found
    return found[1], int(found[2])


def connected(address: str) -> http.client.HTTPConnection:
    peer = http.client.HTTPConnection(address, timeout=PATIENCE_S)

    def taken() -> bool:
        try:
            peer.connect()
        except OSError:
            return False
        return True

    eventually(taken, PATIENCE_S, "a connection to the guest")
    return peer


def unheard_of(_sent: Sent) -> bool:
    return True


def test_a_guest_goes_on_elsewhere_with_its_memory_and_its_connections(
    drivers: list[LibvirtHypervisor], hosts: tuple[Host, Host], hello_file: Path
) -> None:
    here, there = drivers
    address = hosts[0].network.first
    name = f"{here.owner}-0"
    boot = BootSpec(
        kernel=hello_file,
        memory_mib=8,
        entry=Entry.PVH,
        cmdline=f"ip={address}/24 name={name}",
        nics=(Nic(hosts[0].network.name, mac_of(address)),),
    )
    guest = Guest(name, Mark(here.owner, name, "web", "here", address), boot)
    heard = Heard()
    here.watch(heard)
    here.start(guest, unheard)
    peer = connected(str(address))
    waited: list[float] = []

    def tell(_sent: Sent) -> bool:
        began = time.monotonic()
        here.running()
        there.running()
        waited.append(time.monotonic() - began)
        return True

    nowhere = replace(hosts[1], migration_address="")  # its URI leads through a tunnel
    console = Path(tempfile.gettempdir()) / f"{here.owner}-nowhere"
    unsure = LibvirtHypervisor(nowhere, here.owner, console_dir=console, depot_dir=DEPOT)
    try:
        started, requests = facts(peer)
        with pytest.raises(StartFailed, match="at which address it takes guests"):
            here.migrate(elsewhere(guest, nowhere), unsure, unheard_of)
        first = peer.sock
        here.migrate(elsewhere(guest, hosts[1]), there, tell)
        assert facts(peer) == (started, requests + 1)
        assert peer.sock is first
    finally:
        peer.close()
        unsure.close()
    assert max(waited) < LOCK_S / 2
    assert here.running() == ()
    assert [run.mark for run in there.running()] == [replace(guest.mark, host="there")]
    eventually(lambda: b"restored" in there.console(name), PATIENCE_S, "its word on the console")
    there.stop(name)
    assert names(there) == set()
    assert heard.ended() == []

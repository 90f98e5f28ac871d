"""Who gets how much processor time, on real QEMU: processors, weights, caps, and no cgroups."""

import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import pytest

from images.bootspec import BootSpec
from images.facts import Architecture
from orchestrator.errors import StartFailed
from orchestrator.model import Guest
from tests.contracts.hypervisor import unheard
from tests.orchestrator.hypervisors import tiny_guests
from tests.orchestrator.hypervisors.test_libvirt import LibvirtRig, hypervisor, rig

__all__ = ["hypervisor", "rig"]

pytestmark = [pytest.mark.real, pytest.mark.timeout(480)]

CAP, MEASURED_S = 0.2, 2.0


def burning(rig: LibvirtRig, number: int, **changes: float) -> Guest:
    kernel = rig.folder / "tiny"
    if not kernel.exists():
        tiny_guests.build(rig.folder, tiny_guests.BURN)
        kernel.chmod(0o644)
    guest = rig.guest(number)
    return replace(guest, boot=BootSpec(kernel=kernel, memory_mib=16), **changes)  # type: ignore[arg-type]


def test_a_guest_is_held_to_its_cap_and_to_the_hosts_processors(rig: LibvirtRig) -> None:
    capped, free = burning(rig, 0, cpu=0.1, cpu_cap=CAP), burning(rig, 1, cpu=0.5)
    driver = rig.driver(host=replace(rig.host, guest_cpus=(0,)))
    for guest in (capped, free):
        driver.start(guest, unheard)
    domains = [rig.conn.lookupByName(guest.name) for guest in (capped, free)]
    before = [tiny_guests.used_s(domain) for domain in domains]
    began = time.monotonic()
    time.sleep(MEASURED_S)
    used = [tiny_guests.used_s(domain) - was for domain, was in zip(domains, before, strict=True)]
    took_s = time.monotonic() - began
    assert used[0] <= 1.5 * CAP * took_s, "it never gets more"
    assert used[1] >= 1.5 * used[0], "the other does"
    assert [domain.vcpus()[1] for domain in domains] == [[(True, False)]] * 2
    shares = [domain.schedulerParameters()["cpu_shares"] for domain in domains]
    assert shares[1] == pytest.approx(5 * shares[0], rel=0.05), "in proportion to their cpu"


def test_a_host_that_is_not_what_the_lab_says_gets_no_guests(rig: LibvirtRig) -> None:
    for wrong, told in (
        ({"architecture": Architecture.AARCH64}, r"has aarch64 processors, and it has x86_64; wri"),
        ({"guest_cpus": (0, 700)}, r"processors 0,700, and it has \d+, so 700 are not there"),
    ):
        driver = rig.driver(host=replace(rig.host, **wrong))  # type: ignore[arg-type]
        with pytest.raises(StartFailed, match=told):
            driver.set_network(rig.host.network)
        with pytest.raises(StartFailed, match=told):
            driver.start(burning(rig, 0), unheard)
    assert not rig.has_network(rig.host.network.name)


WITHOUT_CGROUPS = """
import sys, time
from ipaddress import IPv4Network
from pathlib import Path
from images.bootspec import BootSpec
from orchestrator.errors import HostUnreachable, StartFailed
from orchestrator.hypervisors.libvirt_driver import LibvirtHypervisor
from orchestrator.model import Capacity, Guest, GuestNetwork, Host, Mark

folder, name = Path(sys.argv[1]), sys.argv[2]
net = IPv4Network("10.81.1.0/24")
network = GuestNetwork("none", net, net[1], net[10], net[20])
host = Host("h", f"qemu:///embed?root={folder}", Capacity(1, 64), network)
driver = LibvirtHypervisor(host, "tests", console_dir=folder / "console")
mark = Mark("tests", name, "web", "h", net[10])
guest = Guest(name, mark, BootSpec(kernel=folder / "tiny", memory_mib=16), cpu=0.5)
until = time.monotonic() + 60
while True:
    try:
        driver.start(guest, lambda _: None)
        break
    except HostUnreachable:  # at first this libvirt asks each QEMU here what it can do
        if time.monotonic() > until:
            raise
print([each.mark.instance for each in driver.running()])
driver.stop(name)
try:
    driver.start(Guest(name, mark, guest.boot, cpu=0.5, cpu_cap=0.5), lambda _: None)
except StartFailed as error:
    print(error)
print(driver.running())
driver.close()
"""


def test_without_cgroups_there_are_no_weights_and_a_cap_is_refused() -> None:
    """A libvirt of the test's own, inside a process of its own: cgroups can be taken from it."""
    with tempfile.TemporaryDirectory(prefix="ewhv-") as name:
        folder = Path(name)
        (folder / "etc").mkdir()
        (folder / "etc" / "qemu.conf").write_text("cgroup_controllers = []\nuser = 'root'\n")
        (folder / "console").mkdir()
        tiny_guests.build(folder, tiny_guests.REST)
        done = subprocess.run(
            [sys.executable, "-c", WITHOUT_CGROUPS, str(folder), f"ewhv-{folder.name}"],
            capture_output=True,
            text=True,
            timeout=150,
            check=False,
        )
    assert done.returncode == 0, done.stderr
    running, refused, after = done.stdout.splitlines()
    assert running == f"['ewhv-{folder.name}']"
    assert "has a `cpu_cap`, and libvirt there has no cgroups" in refused
    assert after == "()"

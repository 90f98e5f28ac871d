"""Keys in Xenstore by Xen's own tools over ssh, on a real Xen: written and watched."""

import re
import time
from dataclasses import replace

import libvirt
import pytest

from orchestrator.errors import StartFailed
from orchestrator.hypervisors.libvirt_driver import LibvirtHypervisor
from orchestrator.hypervisors.xenstore import escaped
from orchestrator.model import Guest, Probe, ProbeKind
from orchestrator.readiness import Target, wait
from tests.contracts.hypervisor import KeyContract, unheard
from tests.orchestrator.hypervisors.test_xen import (
    XenRig,
    hello_kernel,
    make_rig,
    outside,
)
from tests.waiting import eventually

__all__ = ["hello_kernel", "make_rig", "outside"]
# The first test waits for the bed.
pytestmark = [pytest.mark.real, pytest.mark.timeout(600)]

ADDRESS_KEY = "data/ready"  # which hello writes
HOSTILE = "$(reboot) `x` ; 'q' \"d\" \\ \\x41 % -s\n\ttwo \x01a"


@pytest.fixture
def rig(outside: XenRig) -> XenRig:
    """Return a rig on the bed over ssh, by which its Xenstore is reached."""
    outside.host = replace(outside.host, uri=outside.bed.ssh_uri)
    return outside


@pytest.fixture
def hypervisor(rig: XenRig) -> LibvirtHypervisor:
    return rig.driver()


class TestXenKeys(KeyContract):
    pass


def with_keys(guest: Guest, **keys: str) -> Guest:
    named = tuple((name.replace("__", "/"), value) for name, value in keys.items())
    return replace(guest, boot=replace(guest.boot, xenstore=named))


def target(guest: Guest, hypervisor: LibvirtHypervisor) -> Target:
    return Target(
        guest.mark.address,
        None,
        guest.boot.nics[0].mac,
        lambda: hypervisor.console(guest.name),
        lambda key: hypervisor.watch_key(guest.name, key),
    )


def test_keys_are_there_whole_and_readable_before_the_guest_runs(
    rig: XenRig, hypervisor: LibvirtHypervisor
) -> None:
    guest = with_keys(rig.guest(), rumprun__cfg=HOSTILE, data__told="x" * 3500)
    seen: list[bytes] = []

    def stamp(stage: str) -> None:
        if stage == "define":
            assert rig.conn.lookupByName(guest.name).state()[0] == libvirt.VIR_DOMAIN_PAUSED
            seen.append(rig.bed.ssh("xenstore-ls", "-fp", rig.path(guest)).stdout)

    hypervisor.start(guest, stamp)
    number = rig.conn.lookupByName(guest.name).ID()
    (listed,) = seen
    value = escaped(HOSTILE.encode()).decode().replace("\\x09", "\\t").replace("\\x0a", "\\n")
    value = value.replace("\\x5c", "\\\\").replace("\\x01", "\\001")
    folder = f"/local/domain/{number}"
    assert f'{folder}/rumprun/cfg = "{value}"   (n0,r{number})\n' in listed.decode()
    assert f'{folder}/data/told = "{"x" * 3500}"   (n{number})\n' in listed.decode()


def test_hello_says_in_xenstore_that_it_listens(rig: XenRig, hypervisor: LibvirtHypervisor) -> None:
    guest = rig.guest()
    hypervisor.start(guest, unheard)
    pattern = f"^{re.escape(str(guest.mark.address))}$"
    probe = Probe(ProbeKind.XENSTORE, key=ADDRESS_KEY, pattern=pattern)
    deadline = time.monotonic() + rig.patience_s
    wait(probe, target(guest, hypervisor), deadline=deadline, cancelled=lambda: None)
    eventually(lambda: not watching(rig), rig.patience_s, "the end of the watch in dom0")


def watching(rig: XenRig) -> bool:
    return b"xenstore-watch --" in rig.bed.ssh("ps", "-o", "args").stdout


def test_keys_that_cannot_be_written_undo_the_start(rig: XenRig) -> None:
    ssh, refuses = rig.bed.ssh_uri.partition("command=")[2], rig.folder / "ssh"
    refuses.write_text(
        f"""#!/bin/sh
case "$*" in *xenstore-write*) echo 'xenstore-write: xs_open: Permission denied'; exit 1 ;; esac
exec {ssh} "$@"
"""
    )
    refuses.chmod(0o755)
    driver = rig.driver(host=replace(rig.host, uri=rig.bed.ssh_uri.replace(ssh, str(refuses))))
    guest = with_keys(rig.guest(), data__told="x")
    with pytest.raises(StartFailed, match=r"\(data/told\): .*Permission denied.*only root may"):
        driver.start(guest, unheard)
    assert not rig.has_guest(guest.name)


def test_by_another_transport_keys_are_refused_before_anything_is_made(outside: XenRig) -> None:
    driver = outside.driver()
    with pytest.raises(StartFailed, match=r"use xen\+ssh"):
        driver.start(with_keys(outside.guest(), data__told="x"), unheard)
    assert not outside.has_guest(outside.guest().name)
    driver.start(outside.guest(), unheard)
    with pytest.raises(StartFailed, match=r"use xen\+ssh.*network or the console"):
        driver.watch_key(outside.guest().name, ADDRESS_KEY)

"""A real anonymous instance: who asks first is answered by a guest that was booted before."""

import os
import time
import urllib.request
import uuid
from collections.abc import Iterator
from ipaddress import IPv4Network
from pathlib import Path

import libvirt
import pytest

from images.bootspec import Image
from orchestrator.boot import HostParts
from orchestrator.control import ControlSettings, Orchestrator
from orchestrator.hypervisors.domain_xml import MARK_NAMESPACE
from orchestrator.hypervisors.libvirt_driver import LibvirtHypervisor
from orchestrator.library import traits_of
from orchestrator.model import (
    Capacity,
    Client,
    DnsSettings,
    Endpoint,
    GuestNetwork,
    Host,
    Lab,
    Probe,
    ProbeKind,
    Service,
)
from orchestrator.readiness import wait
from orchestrator.recipes import recipe_of
from orchestrator.store.memory import MemoryStore
from placement.warm import PAUSED, POOLED, WarmTarget

pytestmark = [pytest.mark.real, pytest.mark.timeout(480)]

URI = "qemu:///system"
PATIENCE_S = 150.0


class Rig:
    """A lab of one host, whose edgewake can be left and started again over the same guests."""

    def __init__(self, hello: Path, consoles: Path) -> None:
        self.tag = f"ewsp{uuid.uuid4().hex[:6]}"
        self.consoles = consoles
        self.store = MemoryStore()
        subnet = IPv4Network((int(IPv4Network("10.214.128.0/17")[0]) + os.getpid() % 128 * 256, 24))
        network = GuestNetwork(
            self.tag, subnet, subnet[1], subnet[10], subnet[60], create=True, bridge=self.tag
        )
        web = Service(
            name="web",
            names=("web.e2e.test",),
            images=("hello",),
            resources=Capacity(cpu=0.25, memory_mib=8),
            probe=Probe(ProbeKind.HTTP, port=80, path="/healthz"),
            config=(("greeting", "hello from anybody"),),
            deadline_s=90.0,
        )
        self.lab = Lab(
            name=self.tag,
            dns=DnsSettings(zone="e2e.test"),
            hosts=(Host("box", URI, Capacity(cpu=2, memory_mib=512), network),),
            images=(Image("hello", "hello", hello, anonymous=True),),
            services=(web,),
        )
        self.start()

    def start(self) -> None:
        self.control = Orchestrator(
            self.lab,
            store=self.store,
            open_host=self.open_host,
            owner=self.tag,
            settings=ControlSettings(sweep_s=0.2),
        )
        self.control.start()

    def open_host(self, host: Host) -> HostParts:
        driver = LibvirtHypervisor(host, self.tag, console_dir=self.consoles)
        return HostParts(driver, wait, traits_of(host))

    def pooled(self) -> None:
        """Have the host keep one anonymous instance."""
        recipe = recipe_of(self.lab, self.lab.services[0], "hello")
        self.control._spares.aim((WarmTarget(recipe, "box", PAUSED, 1, anonymous=True),))
        end = time.monotonic() + PATIENCE_S
        while not self.control._spares.on("box"):
            told = "; ".join(event.text for event in self.control.events())
            assert time.monotonic() < end, told
            time.sleep(0.05)


@pytest.fixture
def rig(hello_file: Path, tmp_path: Path) -> Iterator[Rig]:
    rig = Rig(hello_file, tmp_path)
    try:
        yield rig
    finally:
        rig.control.close(end_guests=True)


def seen(instance: str) -> tuple[str, int]:
    """Return our mark on a domain, and its state, as libvirt itself has them."""
    conn = libvirt.open(URI)
    try:
        domain = conn.lookupByName(instance)
        mark = domain.metadata(libvirt.VIR_DOMAIN_METADATA_ELEMENT, MARK_NAMESPACE)
        return mark, domain.state()[0]
    finally:
        conn.close()


def page(endpoint: Endpoint) -> str:
    with urllib.request.urlopen(f"http://{endpoint.address}/", timeout=20) as answer:
        return str(answer.read().decode())


def test_who_asks_first_is_answered_by_a_guest_that_was_booted_before(rig: Rig) -> None:
    rig.pooled()
    (spare,) = rig.control.fleet.spares()
    mark, state = seen(spare.name)
    assert f'service="{spare.service}"' in mark.replace("'", '"')
    assert state == libvirt.VIR_DOMAIN_PAUSED

    (web,) = rig.control.summon("web", Client()).endpoints.result(PATIENCE_S)
    rig.control._spares.aim(())
    assert (web.instance, web.address) == (spare.name, spare.address)
    mark, state = seen(web.instance)
    assert 'service="web"' in mark.replace("'", '"')
    assert state == libvirt.VIR_DOMAIN_RUNNING
    assert "hello from anybody" in page(web)
    wake = rig.control.wakes.last("web")[-1]
    assert (wake.outcome, wake.rung) == ("ready", POOLED)
    assert "define" not in {stage for stage, _ in wake.stamps}

    rig.control.close()
    rig.store = MemoryStore()  # so that nothing but its mark says whose it is
    rig.start()
    (adopted,) = rig.control.fleet.of("web")
    assert (adopted.name, adopted.address) == (spare.name, spare.address)
    assert rig.control.fleet.endpoints("web") == (web,)
    assert "hello from anybody" in page(web)

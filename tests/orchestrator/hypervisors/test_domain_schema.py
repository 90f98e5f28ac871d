"""Every family's guests as domain XML, held against libvirt's own schema by `virt-xml-validate`."""

import subprocess
from dataclasses import replace
from ipaddress import IPv4Address, IPv4Network, IPv6Address
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from images.bootspec import BootSpec, Disk, Image, Platform
from images.errors import ImageRefused
from images.facts import Entry
from images.families import FAMILIES, family
from orchestrator.hypervisors.domain_xml import domain_xml, network_xml, xen_domain_xml
from orchestrator.model import Guest, GuestNetwork, Mark
from tests.images.guests import ELF, GUESTS, request

MARK = Mark("edge1/<lab> & co", "ew-lab-web-0", "web", "edge1", IPv4Address("10.0.0.2"))
CONSOLE = Path("/var/lib/edgewake/console/ew-lab-web-0.log")


def xml_of(spec: BootSpec, platform: Platform) -> str:
    guest = Guest("ew-lab-web-0", MARK, spec)
    if platform is Platform.XEN:
        return xen_domain_xml(guest)
    return domain_xml(guest, console_log=CONSOLE)


def problems(xml: str, kind: str, folder: Path) -> str:
    """Return what libvirt's schema has against the XML; empty if nothing."""
    file = folder / f"{kind}.xml"
    file.write_text(xml)
    done = subprocess.run(
        ["virt-xml-validate", str(file), kind], capture_output=True, text=True, check=False
    )
    return "" if done.returncode == 0 else done.stdout + done.stderr


OURS = (Platform.SPT, Platform.NETNS)  # without libvirt
LIBVIRTS = [name for name, each in GUESTS.items() if each.request.platform not in OURS]


@pytest.mark.parametrize("name", LIBVIRTS)
def test_libvirt_knows_every_element_of_it(name: str, tmp_path: Path) -> None:
    guest = GUESTS[name]
    assert problems(xml_of(guest.spec, guest.request.platform), "domain", tmp_path) == ""


WAYS = [
    (name, platform, entry)
    for name in sorted(FAMILIES)
    for platform, entries in family(name).traits.entries.items()
    if platform not in OURS
    for entry in entries
]


@pytest.mark.parametrize(("name", "platform", "entry"), WAYS)
def test_every_way_into_every_family_is_valid(
    name: str, platform: Platform, entry: Entry, tmp_path: Path
) -> None:
    disks = (Disk(Path("/images/a.qcow2"), "qcow2", read_only=False),)
    image = Image("web", disks=disks)
    if entry is not Entry.BIOS:
        image = replace(image, kernel=Path("/images/web"), cmdline="/prog -p 80", machine="q35")
    spec = family(name).boot_spec(image, ELF, request(entry, platform))
    assert spec.entry is entry
    assert problems(xml_of(spec, platform), "domain", tmp_path) == ""


@pytest.mark.parametrize("virt", ["qemu", "kvm"])
def test_our_mark_is_valid_in_every_form(virt: str, tmp_path: Path) -> None:
    mark = replace(MARK, address6=IPv6Address("fd00::2"))
    guest = Guest("ew-lab-web-0", mark, GUESTS["linux-qemu"].spec)
    xml = domain_xml(guest, virt="kvm" if virt == "kvm" else "qemu", emulator="/usr/bin/qemu")
    assert problems(xml, "domain", tmp_path) == ""
    assert problems(xen_domain_xml(guest, vif_script="/x/vif"), "domain", tmp_path) == ""


def test_pinned_capped_and_dumped_guests_are_valid(tmp_path: Path) -> None:
    mark = replace(MARK, dumps_core=True)
    guest = Guest("ew-lab-web-0", mark, GUESTS["linux-qemu"].spec, cpu=0.5, cpu_cap=1.25)
    for xml in (
        domain_xml(guest, cpus=(1, 2, 3, 5)),
        xen_domain_xml(guest, cpus=(1, 2, 3, 5)),
    ):
        assert problems(xml, "domain", tmp_path) == ""


@pytest.mark.parametrize("dhcp", [False, True])
def test_our_networks_are_valid(dhcp: bool, tmp_path: Path) -> None:
    network = GuestNetwork(
        name="ew-demo",
        subnet=IPv4Network("10.77.2.0/24"),
        gateway=IPv4Address("10.77.2.1"),
        first=IPv4Address("10.77.2.10"),
        last=IPv4Address("10.77.2.99"),
        create=True,
        dhcp=dhcp,
    )
    assert problems(network_xml("edge1/demo", network), "network", tmp_path) == ""


def test_the_schema_finds_what_is_wrong(tmp_path: Path) -> None:
    xml = xml_of(GUESTS["linux-qemu"].spec, Platform.QEMU)
    assert "nonsense" in problems(xml.replace("<vcpu>", "<nonsense/><vcpu>"), "domain", tmp_path)


@pytest.mark.parametrize("name", ["linux-qemu", "mirage-qemu", "rumprun-xen", "unikraft-qemu"])
@given(value=st.text(max_size=30), cmdline=st.text(max_size=30))
@settings(max_examples=10, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_what_users_write_never_breaks_the_xml(
    name: str, value: str, cmdline: str, tmp_path: Path
) -> None:
    guest = GUESTS[name]
    image = replace(guest.image, cmdline=cmdline)
    asked = replace(guest.request, config=(("KEY", value),))
    try:
        spec = replace(guest, image=image, request=asked).spec
    except ImageRefused:
        return
    assert problems(xml_of(spec, asked.platform), "domain", tmp_path) == ""

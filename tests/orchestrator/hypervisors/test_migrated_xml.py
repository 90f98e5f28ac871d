"""What a domain is to be like where it is migrated to: what may differ does, and nothing else."""

from dataclasses import replace
from ipaddress import IPv4Address
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

from images.bootspec import BootSpec, Disk, Nic
from images.facts import Entry
from orchestrator.hypervisors.domain_xml import (
    SLEEP_ELEMENT,
    SLEEP_NAMESPACE,
    domain_xml,
    parse_mark,
    xen_domain_xml,
)
from orchestrator.hypervisors.migrated_xml import migrated_xml
from orchestrator.model import Guest, Mark

HERE = Guest(
    "ew-lab-web-0",
    Mark("lab", "ew-lab-web-0", "web", "pc1", IPv4Address("10.0.0.10"), obeys_shutdown=True),
    BootSpec(
        kernel=Path("/here/kernel"),
        initrd=Path("/here/initrd"),
        memory_mib=96,
        cmdline="ip=10.0.0.10/24",
        entry=Entry.PVH,
        nics=(Nic("lab", "02:ed:0a:00:00:0a"),),
        disks=(Disk(Path("/here/disk")),),
    ),
)
THERE = replace(
    HERE,
    mark=replace(HERE.mark, host="pc2"),
    boot=replace(
        HERE.boot,
        kernel=Path("/there/kernel"),
        initrd=Path("/there/initrd"),
        cmdline="ip=10.0.0.10/24 host=pc2",
        nics=(Nic("bridge:br0", "02:ed:0a:00:00:0a"),),
        disks=(Disk(Path("/there/disk")),),
    ),
)


def root_of(xml: str) -> ET.Element:
    return ET.fromstring(xml)  # noqa: S314 - our own


def as_libvirt_has_it(xml: str) -> str:
    """Add what libvirt adds, and what our own `sleep` may have left."""
    root = root_of(xml)
    metadata = root.find("metadata")
    card = root.find("devices/interface")
    assert metadata is not None
    assert card is not None
    asleep = SLEEP_ELEMENT.replace("<sleep", f'<sleep xmlns="{SLEEP_NAMESPACE}"')
    metadata.append(root_of(asleep))
    ET.SubElement(metadata, "{urn:somebody}else").text = "kept"
    ET.SubElement(card, "target", dev="vnet7")
    ET.SubElement(card, "address", type="pci", slot="0x03")
    for serial in root.iterfind("devices/serial"):
        ET.SubElement(serial, "source", path="/dev/pts/7")
    ET.SubElement(root, "seclabel", type="dynamic", model="dac")
    return ET.tostring(root, encoding="unicode")


def test_a_qemu_domain_has_the_other_hosts_mark_files_network_and_log() -> None:
    old = as_libvirt_has_it(domain_xml(HERE, console_log=Path("/here/log")))
    new = migrated_xml(old, THERE, console_log=Path("/there/log"))
    assert parse_mark(new) == THERE.mark
    assert "/here" not in new
    assert "sleep" not in new
    root = root_of(new)
    assert root.findtext("metadata/{urn:somebody}else") == "kept"
    assert root.findtext("os/kernel") == "/there/kernel"
    assert root.findtext("os/cmdline") == HERE.boot.cmdline, "what it was booted with is over"
    (card,) = root.findall("devices/interface")
    source = card.find("source")
    address = card.find("address")
    assert (card.get("type"), source is not None and source.attrib) == ("bridge", {"bridge": "br0"})
    assert address is not None, "devices stay where libvirt put them"
    assert card.find("target") is None
    assert [log.get("file") for log in root.iter("log")] == ["/there/log"]
    assert [label.attrib for label in root.iter("seclabel")] == [{"type": "none", "model": "dac"}]
    rest = {"name", "uuid", "memory", "vcpu"}
    before = root_of(old)
    assert {tag: root.findtext(tag) for tag in rest} == {tag: before.findtext(tag) for tag in rest}


def test_one_whose_console_is_read_over_the_connection_has_no_log() -> None:
    old = domain_xml(HERE, console_log=Path("/here/log"))
    root = root_of(migrated_xml(old, THERE, keep_owners=False))
    assert list(root.iter("log")) == list(root.iter("seclabel")) == []


def test_a_xen_domain_has_the_other_hosts_vif_script() -> None:
    here = replace(HERE, boot=replace(HERE.boot, nics=(Nic("bridge:b", HERE.boot.nics[0].mac),)))
    old = xen_domain_xml(here, vif_script="/here/vif")
    root = root_of(migrated_xml(old, THERE, vif_script="/there/vif"))
    assert [script.get("path") for script in root.iter("script")] == ["/there/vif"]
    assert list(root.iter("seclabel")) == []


@pytest.mark.parametrize(
    ("other", "why"),
    [
        (replace(THERE, name="another"), "something else"),
        (replace(THERE, boot=replace(THERE.boot, initrd=None)), "initrd"),
        (replace(THERE, boot=replace(THERE.boot, disks=())), "0 disks there, 1 here"),
        (replace(THERE, boot=replace(THERE.boot, nics=(Nic("n", "02:00:00:00:00:01"),))), "cards"),
    ],
)
def test_another_guest_is_refused(other: Guest, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        migrated_xml(domain_xml(HERE), other)

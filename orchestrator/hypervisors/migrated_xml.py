"""What a domain is to be like at the host that it is migrated to. Pure text in and out.

libvirt lets its description differ there in what the guest cannot see: our mark, files, what its
card is plugged into, where its console is logged. All else, such as the places of devices that
libvirt chose, must stay, so what runs is edited instead of described anew.
"""

from pathlib import Path
from xml.etree import ElementTree as ET

from images.bootspec import BootSpec, Nic
from orchestrator.hypervisors.domain_xml import (
    MARK_TAG,
    SLEEP_NAMESPACE,
    mark_element,
    parsed,
    pin_to,
    pretty,
)
from orchestrator.model import BRIDGE, Guest


def migrated_xml(
    xml: str,
    guest: Guest,
    *,
    console_log: Path | None = None,
    vif_script: str = "",
    keep_owners: bool = True,
    cpus: tuple[int, ...] = (),
) -> str:
    """Return `xml`, which libvirt says a domain of ours is, as the other host is to have it.

    `guest` has the mark, and files and networks as they are called there; the rest is as for
    `domain_xml` and `xen_domain_xml`. Raises `ValueError` if that is not the same guest.
    """
    root = parsed(xml)
    metadata = None if root is None else root.find("metadata")
    if root is None or metadata is None or root.findtext("name") != guest.name:
        raise ValueError(f"{guest.name}: libvirt describes something else: {xml}")
    for element in list(metadata):
        if element.tag == MARK_TAG or element.tag.startswith(f"{{{SLEEP_NAMESPACE}}}"):
            metadata.remove(element)
    metadata.append(mark_element(guest.mark, guest.cpu_cap))
    _pin(root, cpus)
    _name_files(root, guest.boot)
    _plug(root, guest.boot.nics, vif_script)
    for device in (*root.iterfind("devices/serial"), *root.iterfind("devices/console")):
        _log(device, console_log)
    for label in root.findall("seclabel"):
        root.remove(label)  # those that libvirt made up are made anew
    if keep_owners and root.get("type") != "xen":
        ET.SubElement(root, "seclabel", type="none", model="dac")
    return pretty(root)


def _pin(root: ET.Element, cpus: tuple[int, ...]) -> None:
    """Let its processors run on those of the other host that guests may use."""
    vcpu = root.find("vcpu")
    if vcpu is not None:
        vcpu.attrib.pop("cpuset", None)
    tune = root.find("cputune")
    if tune is not None:
        for pin in tune.findall("vcpupin"):
            tune.remove(pin)
        if not len(tune):
            root.remove(tune)
    if cpus:
        pin_to(root, cpus)


def _name_files(root: ET.Element, boot: BootSpec) -> None:
    for tag, path in (("kernel", boot.kernel), ("initrd", boot.initrd)):
        element = root.find(f"os/{tag}")
        if (element is None) != (path is None):
            raise ValueError(f"only one of the two has a {tag}")
        if element is not None:
            element.text = str(path)
    sources = root.findall("devices/disk/source")
    if len(sources) != len(boot.disks):
        raise ValueError(f"{len(boot.disks)} disks there, {len(sources)} here")
    for source, disk in zip(sources, boot.disks, strict=True):
        source.attrib.clear()
        source.set("file", str(disk.path))


def _plug(root: ET.Element, nics: tuple[Nic, ...], vif_script: str) -> None:
    cards = root.findall("devices/interface")
    macs = [card.find("mac") for card in cards]
    if [nic.mac for nic in nics] != [mac.get("address") for mac in macs if mac is not None]:
        raise ValueError("its network cards are others there")
    for card, nic in zip(cards, nics, strict=True):
        kind = "bridge" if nic.network.startswith(BRIDGE) else "network"
        card.set("type", kind)
        for tag in ("source", "target", "script"):
            for element in card.findall(tag):
                card.remove(element)
        ET.SubElement(card, "source", {kind: nic.network.removeprefix(BRIDGE)})
        if vif_script and kind == "bridge":
            ET.SubElement(card, "script", path=vif_script)


def _log(device: ET.Element, console_log: Path | None) -> None:
    for element in (*device.findall("log"), *device.findall("source")):
        device.remove(element)
    if console_log is not None:
        ET.SubElement(device, "log", file=str(console_log), append="on")

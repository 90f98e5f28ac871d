"""Guests and networks as libvirt XML, and our mark read back from it.

Pure text in and out: no libvirt, no files. `libvirt_driver` sends this XML, golden files in
`tests/golden/domain_xml` show it. Elements follow libvirt's own format pages (formatdomain,
formatnetwork); what each choice is for stands beside it.

A domain is marked as ours by an element in our own namespace, `MARK_NAMESPACE`. libvirt 9.0 has no
such place in a network, so a network is ours when its UUID is the one `network_uuid` derives.
"""

import hashlib
from ipaddress import IPv4Address, IPv6Address, ip_interface
from pathlib import Path
from typing import Literal
from uuid import UUID
from xml.etree import ElementTree as ET

from images.bootspec import Disk, Nic
from orchestrator.model import Guest, GuestNetwork, Mark, guest_uuid

Virt = Literal["qemu", "kvm"]

MARK_NAMESPACE = "urn:edgewake:guest:1"
MARK_PREFIX = "edgewake"
_MARK_TAG = f"{{{MARK_NAMESPACE}}}guest"
_MARK_TAGS = frozenset({_MARK_TAG, "guest"})
_DISK_NAMES = "abcdefghijklmnopqrstuvwxyz"

ET.register_namespace(MARK_PREFIX, MARK_NAMESPACE)


def domain_xml(
    guest: Guest,
    *,
    virt: Virt = "qemu",
    console_log: Path | None = None,
    emulator: str = "",
    keep_owners: bool = True,
) -> str:
    """Return the XML of a transient QEMU domain that boots `guest`.

    `virt` is ``kvm`` or ``qemu`` (TCG, in software). With `console_log`, what the guest prints on
    its first serial port is appended to that file on the host, which must exist; the port can be
    opened as a console in any case. An empty `emulator` leaves the choice to libvirt.
    `keep_owners` asks libvirt not to change the owner of the guest's files: kernels are shared by
    guests that start and stop independently. It needs a libvirt with the DAC security driver (the
    system one has it), and is not used for a guest with a writable disk, which QEMU's user must be
    given.
    """
    boot = guest.boot
    domain = ET.Element("domain", type=virt)
    _text(domain, "name", guest.name)
    _text(domain, "uuid", guest_uuid(guest.mark.owner, guest.name))
    ET.SubElement(domain, "metadata").append(_mark_element(guest.mark))
    _text(domain, "memory", str(boot.memory_mib), unit="MiB")
    _text(domain, "vcpu", str(boot.vcpus))
    _append_os(domain, guest)
    if boot.acpi:
        ET.SubElement(ET.SubElement(domain, "features"), "acpi")
    if virt == "kvm":
        ET.SubElement(domain, "cpu", mode="host-passthrough")
    # A guest that ends in whatever way is gone: a transient domain leaves nothing behind.
    for event in ("on_poweroff", "on_reboot", "on_crash"):
        _text(domain, event, "destroy")
    _append_devices(domain, guest, emulator, console_log)
    if keep_owners and all(disk.read_only for disk in boot.disks):
        ET.SubElement(domain, "seclabel", type="none", model="dac")
    return _pretty(domain)


def parse_mark(xml: str) -> Mark | None:
    """Return the mark in a domain's XML, or in the bare metadata element; None if there is none.

    The bare element is what libvirt's metadata call hands out, with its namespace taken off.
    The XML may come from anybody who can define a domain: a document type (the door to entity
    expansion) is refused unread, and a damaged or incomplete mark counts as no mark.
    """
    root = _parse(xml)
    if root is None:
        return None
    element = root if root.tag in _MARK_TAGS else root.find(f"metadata/{_MARK_TAG}")
    if element is None:
        return None
    address6 = element.get("address6")
    try:
        return Mark(
            owner=element.attrib["owner"],
            instance=element.attrib["instance"],
            service=element.attrib["service"],
            host=element.attrib["host"],
            address=IPv4Address(element.attrib["address"]),
            address6=IPv6Address(address6) if address6 else None,
        )
    except (KeyError, ValueError):
        return None


def network_uuid(owner: str, name: str) -> str:
    """Return the UUID that marks the network `name` as made by `owner`."""
    digest = hashlib.sha256(f"edgewake network {owner} {name}".encode()).digest()
    return str(UUID(bytes=digest[:16], version=5))


def network_xml(owner: str, network: GuestNetwork) -> str:
    """Return the XML of the libvirt network for a host's guests.

    Mode ``open`` routes without touching the firewall; without DNS and DHCP libvirt starts no
    dnsmasq: addresses are ours to give. An empty bridge name leaves the choice to libvirt.
    """
    root = ET.Element("network")
    _text(root, "name", network.name)
    _text(root, "uuid", network_uuid(owner, network.name))
    ET.SubElement(root, "forward", mode="open")
    bridge = {"name": network.bridge} if network.bridge else {}
    ET.SubElement(root, "bridge", {**bridge, "stp": "off", "delay": "0"})
    ET.SubElement(root, "dns", enable="no")
    _append_ip(root, "ipv4", str(network.gateway), network.subnet.prefixlen)
    gateway6 = network.address6(network.gateway)
    if gateway6 is not None and network.subnet6 is not None:
        _append_ip(root, "ipv6", str(gateway6), network.subnet6.prefixlen)
    return _pretty(root)


def same_network(actual: str, wanted: str) -> bool:
    """Return whether a network's XML, as libvirt reports it, is what `network_xml` asked for.

    Compared are the forwarding mode, the addresses and, if asked for, the bridge's name.
    """
    there, asked = _network_facts(actual), _network_facts(wanted)
    if there is None or asked is None:
        return False
    return there[1:] == asked[1:] and asked[0] in {"", there[0]}


def _append_os(domain: ET.Element, guest: Guest) -> None:
    boot = guest.boot
    os = ET.SubElement(domain, "os")
    _text(os, "type", "hvm", arch="x86_64", machine=boot.machine)
    _text(os, "kernel", str(boot.kernel))
    if boot.initrd is not None:
        _text(os, "initrd", str(boot.initrd))
    if boot.cmdline:
        _text(os, "cmdline", boot.cmdline)


def _append_devices(
    domain: ET.Element, guest: Guest, emulator: str, console_log: Path | None
) -> None:
    devices = ET.SubElement(domain, "devices")
    if emulator:
        _text(devices, "emulator", emulator)
    # libvirt adds both of these unless told not to; unikernels have no drivers for them.
    ET.SubElement(devices, "controller", type="usb", model="none")
    ET.SubElement(devices, "memballoon", model="none")
    for disk, letter in zip(guest.boot.disks, _DISK_NAMES, strict=False):
        _append_disk(devices, disk, f"vd{letter}")
    for nic in guest.boot.nics:
        _append_nic(devices, nic)
    serial = ET.SubElement(devices, "serial", type="pty")
    if console_log is not None:
        # Appending keeps the file's owner: virtlogd would make a new one readable by root only.
        ET.SubElement(serial, "log", file=str(console_log), append="on")
    ET.SubElement(serial, "target", type="isa-serial", port="0")


def _append_disk(devices: ET.Element, disk: Disk, name: str) -> None:
    element = ET.SubElement(devices, "disk", type="file", device="disk")
    ET.SubElement(element, "driver", name="qemu", type=disk.format)
    ET.SubElement(element, "source", file=str(disk.path))
    ET.SubElement(element, "target", dev=name, bus="virtio")
    if disk.read_only:
        ET.SubElement(element, "readonly")
        ET.SubElement(element, "shareable")


def _append_nic(devices: ET.Element, nic: Nic) -> None:
    element = ET.SubElement(devices, "interface", type="network")
    ET.SubElement(element, "mac", address=nic.mac)
    ET.SubElement(element, "source", network=nic.network)
    ET.SubElement(element, "model", type="virtio")
    # Nothing boots from the network, and loading the boot ROM costs every guest time.
    ET.SubElement(element, "rom", enabled="no")


def _mark_element(mark: Mark) -> ET.Element:
    element = ET.Element(
        _MARK_TAG,
        owner=mark.owner,
        instance=mark.instance,
        service=mark.service,
        host=mark.host,
        address=str(mark.address),
    )
    if mark.address6 is not None:
        element.set("address6", str(mark.address6))
    return element


def _append_ip(network: ET.Element, family: str, address: str, prefix: int) -> None:
    ET.SubElement(network, "ip", family=family, address=address, prefix=str(prefix))


def _network_facts(xml: str) -> tuple[str, str, frozenset[str]] | None:
    root = _parse(xml)
    if root is None:
        return None
    bridge, forward = root.find("bridge"), root.find("forward")
    try:
        addresses = frozenset(_interface(ip) for ip in root.findall("ip"))
    except ValueError:
        return None
    return (
        "" if bridge is None else bridge.get("name", ""),
        "" if forward is None else forward.get("mode", "nat"),
        addresses,
    )


def _interface(ip: ET.Element) -> str:
    length = ip.get("prefix") or ip.get("netmask", "")
    return str(ip_interface(f"{ip.get('address', '')}/{length}"))


def _parse(xml: str) -> ET.Element | None:
    if "<!" in xml.replace("<!--", ""):  # a document type or CDATA; libvirt itself writes neither
        return None
    try:
        return ET.fromstring(xml)  # noqa: S314 - no document type, so no entities to expand
    except ET.ParseError:
        return None


def _text(parent: ET.Element, tag: str, text: str, **attributes: str) -> None:
    ET.SubElement(parent, tag, attributes).text = text


def _pretty(root: ET.Element) -> str:
    ET.indent(root)
    return ET.tostring(root, encoding="unicode") + "\n"

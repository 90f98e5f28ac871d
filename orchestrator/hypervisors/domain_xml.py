"""Guests and networks as libvirt XML, and our mark read back from it.

Pure text in and out: no libvirt, no files. `libvirt_driver` sends this XML, golden files in
`tests/golden/domain_xml` show it. Elements follow libvirt's own format pages (formatdomain,
formatnetwork); what each choice is for stands beside it. `domain_xml` is for QEMU, `xen_domain_xml`
for Xen.

A card's `Nic.network` is the name of a libvirt network, or ``bridge:NAME`` for a bridge that
libvirt does not know, on either hypervisor.

A domain is marked as ours by an element in our own namespace, `MARK_NAMESPACE`. libvirt 9.0 has no
such place in a network, so a network is ours when its UUID is the one `network_uuid` derives.
"""

import hashlib
from ipaddress import IPv4Address, IPv6Address, ip_interface
from pathlib import Path
from string import ascii_lowercase
from typing import Literal
from uuid import UUID
from xml.etree import ElementTree as ET

from images.bootspec import BootSpec, Disk, Nic
from images.facts import Architecture, Entry
from orchestrator.model import BRIDGE, Guest, GuestNetwork, Mark, cpu_ranges, guest_uuid, mac_of

Virt = Literal["qemu", "kvm"]

MARK_NAMESPACE = "urn:edgewake:guest:1"
MARK_PREFIX = "edgewake"
SLEEP_NAMESPACE = "urn:edgewake:sleep:1"  # of what is on a domain that our own `sleep` paused
SLEEP_PREFIX = "edgewake-sleep"
SLEEP_ELEMENT = '<sleep depth="paused"/>'
MARK_ELEMENT = "guest"  # as libvirt's metadata calls have it, without its namespace
MARK_TAG = f"{{{MARK_NAMESPACE}}}{MARK_ELEMENT}"
_MARK_TAGS = frozenset({MARK_TAG, MARK_ELEMENT})
# The weight of a domain that was told nothing (Xen's credit schedulers) is what one core is worth.
_XEN_WEIGHT_PER_CORE, _XEN_LEAST_WEIGHT, _XEN_MOST_WEIGHT = 256, 1, 65535
# What stands in <type machine="...">: what libxl builds. It unpacks a Linux bzImage for PVH itself.
_XEN_MACHINES = {
    Entry.XEN_PV: ("xen", "xenpv"),
    Entry.PVH: ("xenpvh", "xenpvh"),
    Entry.PVH_SECTION: ("xenpvh", "xenpvh"),
    Entry.LINUX: ("xenpvh", "xenpvh"),
}

# libvirt's own, for what is QEMU's alone (https://libvirt.org/drvqemu.html).
QEMU_NAMESPACE = "http://libvirt.org/schemas/domain/qemu/1.0"
# With this one, libvirt asks QEMU at each start for each feature of the processor by itself (398
# commands for QEMU 7.2); without it, for all of them in two, as it does for older QEMUs (libvirt
# src/qemu/qemu_process.c, qemuProcessFetchGuestCPU). libvirt never takes back a name of these.
SLOW_CPU_CHECK = "cpu-unavailable-features"

ET.register_namespace(MARK_PREFIX, MARK_NAMESPACE)
ET.register_namespace("qemu", QEMU_NAMESPACE)


def domain_xml(
    guest: Guest,
    *,
    virt: Virt = "qemu",
    console_log: Path | None = None,
    emulator: str = "",
    keep_owners: bool = True,
    architecture: Architecture = Architecture.X86_64,
    cpus: tuple[int, ...] = (),
) -> str:
    """Return the XML of a transient QEMU domain that boots `guest`.

    `virt` is ``kvm`` or ``qemu`` (TCG, in software). With `console_log`, what the guest prints on
    its first serial port is appended to that file on the host, which must exist; the port can be
    opened as a console in any case. An empty `emulator` leaves the choice to libvirt.
    `keep_owners` asks libvirt not to change the owner of the guest's files: kernels are shared by
    guests that start and stop independently, and the overlay of a writable disk is QEMU's user's
    already (`orchestrator.hypervisors.depot`). It needs a libvirt with the DAC security driver; the
    system one has it. `architecture` is the host's, and `cpus` are the processors of it that the
    guest may run on; empty means all.

    What slows libvirt's starts and has no use for guests of ours is left out: see `SLOW_CPU_CHECK`.
    """
    boot = guest.boot
    domain = _domain(guest, virt)
    if cpus:
        pin_to(domain, cpus)
    _append_os(domain, boot, "hvm", boot.machine, architecture)
    if boot.acpi:
        ET.SubElement(ET.SubElement(domain, "features"), "acpi")
    if virt == "kvm":
        ET.SubElement(domain, "cpu", mode="host-passthrough")
    _append_ends(domain)
    _append_devices(domain, guest, emulator, console_log)
    if keep_owners:
        ET.SubElement(domain, "seclabel", type="none", model="dac")
    if architecture is Architecture.X86_64:
        _append_without(domain, SLOW_CPU_CHECK)
    return pretty(domain)


def xen_domain_xml(
    guest: Guest,
    *,
    vif_script: str = "",
    architecture: Architecture = Architecture.X86_64,
    cpus: tuple[int, ...] = (),
) -> str:
    """Return the XML of a transient Xen PV or PVH domain that boots `guest`.

    `vif_script` is a hotplug script for cards on a bridge, empty for libxl's own ``vif-bridge``;
    libvirt passes none to cards on one of its networks, so the driver names their bridges. The
    guest's console is Xen's own: its text
    is kept by xenconsoled, since libvirt's libxl driver writes no console log. What is in
    `BootSpec.xenstore` has no place in XML, nor anywhere else in libvirt: see `xenstore`.
    `Guest.cpu` becomes a scheduler weight. `architecture` is the host's, and `cpus` are the
    processors of it that the guest may run on; empty means all. Raises `ValueError` for a guest
    that has no kernel or no entry that Xen starts; `images.match` never lets one through.
    """
    boot = guest.boot
    if boot.kernel is None or boot.entry not in _XEN_MACHINES:
        raise ValueError(f"{guest.name}: Xen starts no guest by {boot.entry}")
    os_type, machine = _XEN_MACHINES[boot.entry]
    domain = _domain(guest, "xen")
    if guest.cpu is not None:
        _append_xen_weight(domain, guest.cpu)
    if cpus:
        pin_to(domain, cpus)
    _append_os(domain, boot, os_type, machine, architecture)
    if boot.entry is not Entry.XEN_PV:
        # Else Xen emulates every reading of the time stamp counter, where it does not trust it.
        clock = ET.SubElement(domain, "clock", offset="utc")
        ET.SubElement(clock, "timer", name="tsc", mode="native")
    _append_ends(domain, "coredump-destroy" if guest.mark.dumps_core else "destroy")
    devices = ET.SubElement(domain, "devices")
    for number, disk in enumerate(boot.disks):
        _append_xen_disk(devices, disk, _disk_name("xvd", number))
    for nic in boot.nics:
        _append_xen_nic(devices, nic, vif_script)
    console = ET.SubElement(devices, "console", type="pty")
    ET.SubElement(console, "target", type="xen", port="0")
    return pretty(domain)


def parse_mark(xml: str) -> Mark | None:
    """Return the mark in a domain's XML, or in the bare metadata element; None if there is none.

    The bare element is what libvirt's metadata call hands out, with its namespace taken off.
    The XML may come from anybody who can define a domain: a document type (the door to entity
    expansion) is refused unread, and a damaged or incomplete mark counts as no mark.
    """
    root = parsed(xml)
    if root is None:
        return None
    element = root if root.tag in _MARK_TAGS else root.find(f"metadata/{MARK_TAG}")
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
            obeys_shutdown=element.get("shutdown") == "obeyed",
            dumps_core=element.get("core") == "dumped",
        )
    except (KeyError, ValueError):
        return None


def parse_cap(xml: str) -> float | None:
    """Return the cap on processor time, in cores, that stands beside a mark; None if none does."""
    element = parsed(xml)
    try:
        cap = "" if element is None else element.get("cpu_cap", "")
        return float(cap) if cap else None
    except ValueError:
        return None


def network_uuid(owner: str, name: str) -> str:
    """Return the UUID that marks the network `name` as made by `owner`."""
    digest = hashlib.sha256(f"edgewake network {owner} {name}".encode()).digest()
    return str(UUID(bytes=digest[:16], version=5))


def network_xml(owner: str, network: GuestNetwork) -> str:
    """Return the XML of the libvirt network for a host's guests.

    Mode ``open`` routes without touching the firewall; without DNS and DHCP libvirt starts no
    dnsmasq: addresses are ours to give. With DHCP, each address of the pool goes to the MAC that
    belongs to it and to nobody else. An empty bridge name leaves the choice to libvirt.
    """
    root = ET.Element("network")
    _text(root, "name", network.name)
    _text(root, "uuid", network_uuid(owner, network.name))
    ET.SubElement(root, "forward", mode="open")
    bridge = {"name": network.bridge} if network.bridge else {}
    ET.SubElement(root, "bridge", {**bridge, "stp": "off", "delay": "0"})
    ET.SubElement(root, "dns", enable="no")
    ip = _append_ip(root, "ipv4", str(network.gateway), network.subnet.prefixlen)
    if network.dhcp:
        _append_dhcp(ip, network)
    gateway6 = network.address6(network.gateway)
    if gateway6 is not None and network.subnet6 is not None:
        _append_ip(root, "ipv6", str(gateway6), network.subnet6.prefixlen)
    return pretty(root)


def same_network(actual: str, wanted: str) -> bool:
    """Return whether a network's XML, as libvirt reports it, is what `network_xml` asked for.

    Compared are the forwarding mode, the addresses, what DHCP gives to whom and, if asked for, the
    bridge's name.
    """
    there, asked = _network_facts(actual), _network_facts(wanted)
    if there is None or asked is None:
        return False
    return there[1:] == asked[1:] and asked[0] in {"", there[0]}


def pin_to(domain: ET.Element, cpus: tuple[int, ...]) -> None:
    """Let a domain's processors run on these of its host only."""
    vcpu = domain.find("vcpu")
    if vcpu is None:
        return
    if domain.get("type") != "xen":
        vcpu.set("cpuset", cpu_ranges(cpus))
        return
    # libvirt's libxl driver takes <vcpu cpuset> and does nothing with it (seen with 9.0).
    tune = domain.find("cputune")
    if tune is None:
        tune = ET.Element("cputune")
        domain.insert(list(domain).index(vcpu) + 1, tune)
    for number in range(int(vcpu.text or 1)):
        ET.SubElement(tune, "vcpupin", vcpu=str(number), cpuset=cpu_ranges(cpus))


def _domain(guest: Guest, virt: str) -> ET.Element:
    domain = ET.Element("domain", type=virt)
    _text(domain, "name", guest.name)
    _text(domain, "uuid", guest_uuid(guest.mark.owner, guest.name))
    ET.SubElement(domain, "metadata").append(mark_element(guest.mark, guest.cpu_cap))
    _text(domain, "memory", str(guest.boot.memory_mib), unit="MiB")
    _text(domain, "vcpu", str(guest.boot.vcpus))
    return domain


def _append_os(
    domain: ET.Element, boot: BootSpec, os_type: str, machine: str, architecture: Architecture
) -> None:
    os = ET.SubElement(domain, "os")
    _text(os, "type", os_type, arch=architecture, machine=machine)
    if boot.kernel is None:
        ET.SubElement(os, "boot", dev="hd")
        return
    _text(os, "kernel", str(boot.kernel))
    if boot.initrd is not None:
        _text(os, "initrd", str(boot.initrd))
    if boot.cmdline:
        _text(os, "cmdline", boot.cmdline)


def _append_xen_weight(domain: ET.Element, cpu: float) -> None:
    weight = min(max(round(_XEN_WEIGHT_PER_CORE * cpu), _XEN_LEAST_WEIGHT), _XEN_MOST_WEIGHT)
    _text(ET.SubElement(domain, "cputune"), "shares", str(weight))


def _append_ends(domain: ET.Element, on_crash: str = "destroy") -> None:
    # A guest that ends in whatever way is gone: a transient domain leaves nothing behind.
    for event in ("on_poweroff", "on_reboot"):
        _text(domain, event, "destroy")
    _text(domain, "on_crash", on_crash)


def _append_without(domain: ET.Element, capability: str) -> None:
    """Have libvirt start a domain as if its QEMU lacked a capability."""
    capabilities = ET.SubElement(domain, f"{{{QEMU_NAMESPACE}}}capabilities")
    ET.SubElement(capabilities, f"{{{QEMU_NAMESPACE}}}del", capability=capability)


def _append_devices(
    domain: ET.Element, guest: Guest, emulator: str, console_log: Path | None
) -> None:
    devices = ET.SubElement(domain, "devices")
    if emulator:
        _text(devices, "emulator", emulator)
    # libvirt adds both of these unless told not to; unikernels have no drivers for them.
    ET.SubElement(devices, "controller", type="usb", model="none")
    ET.SubElement(devices, "memballoon", model="none")
    # A guest whose card must be transitional has disk drivers as old as its card's.
    transitional = any(nic.transitional for nic in guest.boot.nics)
    for number, disk in enumerate(guest.boot.disks):
        _append_disk(devices, disk, _disk_name("vd", number), transitional=transitional)
    for nic in guest.boot.nics:
        _append_nic(devices, nic)
    serial = ET.SubElement(devices, "serial", type="pty")
    if console_log is not None:
        # Appending keeps the file's owner: virtlogd would make a new one readable by root only.
        ET.SubElement(serial, "log", file=str(console_log), append="on")
    ET.SubElement(serial, "target", type="isa-serial", port="0")


def _disk_name(prefix: str, number: int) -> str:
    """Return the name of a disk as Linux counts them: vdz is followed by vdaa."""
    letters, number = "", number + 1
    while number:
        number, letter = divmod(number - 1, len(ascii_lowercase))
        letters = ascii_lowercase[letter] + letters
    return prefix + letters


def _append_disk(devices: ET.Element, disk: Disk, name: str, *, transitional: bool) -> None:
    element = ET.SubElement(devices, "disk", type="file", device="disk")
    if transitional:
        element.set("model", "virtio-transitional")
    ET.SubElement(element, "driver", name="qemu", type=disk.format)
    _append_file(element, disk, name, "virtio")


def _append_xen_disk(devices: ET.Element, disk: Disk, name: str) -> None:
    element = ET.SubElement(devices, "disk", type="file", device="disk")
    if disk.format != "raw":  # libxl chooses for raw files; only QEMU in dom0 reads the others
        ET.SubElement(element, "driver", name="qemu", type=disk.format)
    _append_file(element, disk, name, "xen")


def _append_file(element: ET.Element, disk: Disk, name: str, bus: str) -> None:
    ET.SubElement(element, "source", file=str(disk.path))
    ET.SubElement(element, "target", dev=name, bus=bus)
    if disk.read_only:
        ET.SubElement(element, "readonly")
        ET.SubElement(element, "shareable")


def _append_nic(devices: ET.Element, nic: Nic) -> None:
    element = _interface_on(devices, nic)
    ET.SubElement(element, "model", type="virtio-transitional" if nic.transitional else "virtio")
    # Nothing boots from the network, and loading the boot ROM costs every guest time.
    ET.SubElement(element, "rom", enabled="no")


def _append_xen_nic(devices: ET.Element, nic: Nic, vif_script: str) -> None:
    element = _interface_on(devices, nic)
    if vif_script and nic.network.startswith(BRIDGE):
        ET.SubElement(element, "script", path=vif_script)
    # libvirt joins the addresses by blanks into the `ip` key of the card's Xenstore backend
    # (libvirt src/libxl/xen_common.c, xenMakeIPList), also what follows: a netmask, a gateway.
    for word in nic.xenstore_ip.split():
        ET.SubElement(element, "ip", address=word)


def _interface_on(devices: ET.Element, nic: Nic) -> ET.Element:
    kind = "bridge" if nic.network.startswith(BRIDGE) else "network"
    element = ET.SubElement(devices, "interface", type=kind)
    ET.SubElement(element, "mac", address=nic.mac)
    ET.SubElement(element, "source", {kind: nic.network.removeprefix(BRIDGE)})
    return element


def mark_element(mark: Mark, cpu_cap: float | None) -> ET.Element:
    """Return the element that marks a domain as ours; a cap that libxl forgets is kept there."""
    element = ET.Element(
        MARK_TAG,
        owner=mark.owner,
        instance=mark.instance,
        service=mark.service,
        host=mark.host,
        address=str(mark.address),
    )
    if mark.address6 is not None:
        element.set("address6", str(mark.address6))
    if mark.obeys_shutdown:
        element.set("shutdown", "obeyed")
    if mark.dumps_core:
        element.set("core", "dumped")
    if cpu_cap is not None:
        element.set("cpu_cap", f"{cpu_cap:g}")
    return element


def _append_ip(network: ET.Element, family: str, address: str, prefix: int) -> ET.Element:
    return ET.SubElement(network, "ip", family=family, address=address, prefix=str(prefix))


def _append_dhcp(ip: ET.Element, network: GuestNetwork) -> None:
    # Without a range, libvirt has dnsmasq answer the hosts listed here only.
    dhcp = ET.SubElement(ip, "dhcp")
    for number in range(int(network.first), int(network.last) + 1):
        address = IPv4Address(number)
        ET.SubElement(dhcp, "host", mac=mac_of(address), ip=str(address))


def _network_facts(xml: str) -> tuple[str, str, frozenset[str], frozenset[tuple[str, str]]] | None:
    root = parsed(xml)
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
        frozenset(
            (host.get("mac", ""), host.get("ip", "")) for host in root.findall("ip/dhcp/host")
        ),
    )


def _interface(ip: ET.Element) -> str:
    length = ip.get("prefix") or ip.get("netmask", "")
    return str(ip_interface(f"{ip.get('address', '')}/{length}"))


def parsed(xml: str) -> ET.Element | None:
    """Return the root of XML that libvirt wrote; None if it is none, or has a document type."""
    if "<!" in xml.replace("<!--", ""):  # a document type or CDATA; libvirt itself writes neither
        return None
    try:
        return ET.fromstring(xml)  # noqa: S314 - no document type, so no entities to expand
    except ET.ParseError:
        return None


def _text(parent: ET.Element, tag: str, text: str, **attributes: str) -> None:
    ET.SubElement(parent, tag, attributes).text = text


def pretty(root: ET.Element) -> str:
    """Return XML as text, indented."""
    ET.indent(root)
    return ET.tostring(root, encoding="unicode") + "\n"

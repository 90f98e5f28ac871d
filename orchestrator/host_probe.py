"""What a host has to run guests with: `probe` asks, and `HostFacts` is the answer.

For `edgewake host add` and `edgewake doctor`. libvirt is asked by `hypervisors.libvirt_probe`, the
host's own commands by `host_shell`; here their answers are read. They come from another machine, so
XML is bounded, and one with a document type is refused. What to make of it is `host_advice`'s.
"""

import re
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from ipaddress import IPv4Interface
from pathlib import Path
from typing import TypeVar
from xml.etree import ElementTree as ET

from orchestrator.errors import HostUnreachable
from orchestrator.host_shell import DEVICE, Shell, ask_shell
from orchestrator.hypervisors.connection_uri import read_uri
from orchestrator.hypervisors.kvm import KvmVerdict, probe_kvm
from orchestrator.hypervisors.libvirt_probe import PROBE_S, Answers, Described, ask

LARGEST_XML = 4 << 20  # characters; capabilities of large machines have some 100,000
MANAGED_SAVE = frozenset({"QEMU", "Xen"})  # libvirt's table of drivers; capabilities do not tell
_PV, _PVH, _HVM = "xen", "xenpvh", "hvm"  # os_type in capabilities

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class FoundNetwork:
    """A libvirt network: its bridge, and the host's own address on it where libvirt knows it.

    `mode` is libvirt's forward mode (``bridge``, ``nat``, ``route``, ``open``), or ``isolated``.
    """

    name: str
    active: bool
    mode: str
    bridge: str
    address: IPv4Interface | None
    dhcp: bool


@dataclass(frozen=True, slots=True)
class FoundPool:
    """A libvirt storage pool and the folder it is."""

    name: str
    active: bool
    path: str


@dataclass(frozen=True, slots=True)
class Dom0:
    """Xen's control domain: memory it has and may have (MiB), and virtual processors."""

    memory_mib: int
    most_mib: int
    cpus: int


@dataclass(frozen=True, slots=True)
class HostFacts:
    """All that is known of a host; None stands for what could not be found out.

    Memory is in MiB. `kvm_device` says that QEMU offers KVM there, `kvm_boots` whether it truly
    boots a guest, which is tried on this machine only. `guest_types` are libvirt's for Xen: ``xen``
    (PV), ``xenpvh`` (PVH) and ``hvm``. `bridges` are all of the host, `networks` and `pools` those
    of libvirt, None if it has no driver for them.
    """

    uri: str
    kind: str
    version: str
    libvirt: str
    architecture: str
    cores: int
    numa_nodes: int
    memory_mib: int
    free_mib: int | None
    guests_mib: int
    emulator: str
    kvm_device: bool
    kvm_boots: KvmVerdict | None
    machines: tuple[str, ...]
    guest_types: tuple[str, ...]
    dom0: Dom0 | None
    live_migration: bool
    managed_save: bool
    streams: bool
    networks: tuple[FoundNetwork, ...] | None
    bridges: tuple[str, ...] | None
    pools: tuple[FoundPool, ...] | None
    shell: Shell

    @property
    def pv(self) -> bool:
        """Return whether Xen runs paravirtualized guests (PV) there."""
        return _PV in self.guest_types

    @property
    def pvh(self) -> bool:
        """Return whether Xen runs PVH guests there, which needs VT-x or AMD-V."""
        return _PVH in self.guest_types


def probe(
    uri: str,
    *,
    name: str = "",
    timeout_s: float = PROBE_S,
    kvm_kernel: Callable[[], Path | None] = lambda: None,
) -> HostFacts:
    """Return what the host behind a libvirt URI has; nothing there is changed.

    `name` is for errors. `kvm_kernel` returns a Linux kernel to try KVM with, on this machine only.
    Raises `HostUnreachable`, with a hint, if libvirt cannot be reached or makes no sense.
    """
    name = name or uri
    try:
        far = read_uri(uri).far
    except ValueError as error:
        raise HostUnreachable(name, f"{uri!r} is no libvirt URI: {error}") from error
    with ThreadPoolExecutor(1) as pool:
        shell = pool.submit(ask_shell, uri, timeout_s)
        answers = ask(name, uri, timeout_s)
        try:
            facts = read_facts(uri, answers, shell.result())
        except ValueError as error:
            raise HostUnreachable(name, f"{uri}: what libvirt says makes no sense: {error}") from (
                error
            )
    if far or not facts.kvm_device or (kernel := kvm_kernel()) is None:
        return facts
    return replace(facts, kvm_boots=probe_kvm(kernel))


def read_facts(uri: str, answers: Answers, shell: Shell) -> HostFacts:
    """Return what the answers say; ValueError if their XML is no XML, too long, or unsafe."""
    capabilities = read_xml(answers.capabilities)
    guests = capabilities.findall("guest")
    ours = [guest for guest in guests if _arch(guest) == answers.machine] or guests
    networks = None if answers.networks is None else _each(answers.networks, _network)
    return HostFacts(
        uri=uri,
        kind=answers.kind,
        version=version_text(answers.version),
        libvirt=version_text(answers.libvirt),
        architecture=answers.machine,
        cores=answers.cores,
        numa_nodes=answers.numa_nodes,
        memory_mib=answers.memory_mib,
        free_mib=answers.free_mib,
        guests_mib=answers.guests_mib,
        emulator=next((text for each in ours if (text := each.findtext("arch/emulator"))), ""),
        kvm_device=any(each.find("arch/domain[@type='kvm']") is not None for each in ours),
        kvm_boots=None,
        machines=tuple(_machines(ours)),
        guest_types=tuple(dict.fromkeys(each.findtext("os_type") or "" for each in ours)),
        dom0=Dom0(*answers.dom0) if answers.dom0 else None,
        live_migration=capabilities.find("host/migration_features/live") is not None,
        managed_save=answers.kind in MANAGED_SAVE,
        streams=answers.streams,
        networks=networks,
        bridges=_bridges(answers, shell),
        pools=None if answers.pools is None else _each(answers.pools, _pool),
        shell=shell,
    )


def read_xml(text: str) -> ET.Element:
    """Return the root of XML from elsewhere; ValueError for what is too long, unsafe or no XML."""
    if len(text) > LARGEST_XML:
        raise ValueError(f"XML of {len(text)} characters")
    if re.search(r"<!(DOCTYPE|ENTITY)", text, re.IGNORECASE):
        raise ValueError("XML with a document type")
    try:
        return ET.fromstring(text)  # noqa: S314 - no document type, so no entities, and bounded
    except ET.ParseError as error:
        raise ValueError(f"no XML: {error}") from error


def version_text(number: int) -> str:
    """Return a version number of libvirt's as people write it: 9000000 is 9.0.0."""
    return f"{number // 10**6}.{number // 1000 % 1000}.{number % 1000}"


# --- parts of the answers ---------------------------------------------------------------------


def _each(
    found: tuple[Described, ...], read: Callable[[Described, ET.Element], T]
) -> tuple[T, ...]:
    return tuple(read(each, read_xml(each.xml)) for each in found)


def _arch(guest: ET.Element) -> str:
    arch = guest.find("arch")
    return "" if arch is None else arch.get("name", "")


def _machines(guests: list[ET.Element]) -> Iterator[str]:
    seen = {(each.text or "").strip() for guest in guests for each in guest.iter("machine")}
    yield from sorted(seen - {""})


def _network(found: Described, xml: ET.Element) -> FoundNetwork:
    bridge, forward = xml.find("bridge"), xml.find("forward")
    return FoundNetwork(
        name=found.name,
        active=found.active,
        mode="isolated" if forward is None else forward.get("mode", "nat"),
        bridge="" if bridge is None else bridge.get("name", ""),
        address=next((known for each in xml.findall("ip") if (known := _address(each))), None),
        dhcp=xml.find("ip/dhcp") is not None,
    )


def _address(ip: ET.Element) -> IPv4Interface | None:
    """Return an <ip> of a network; None for IPv6, and for what is none."""
    address, mask = ip.get("address", ""), ip.get("prefix") or ip.get("netmask") or "32"
    try:
        return IPv4Interface(f"{address}/{mask}")
    except ValueError:
        return None


def _pool(found: Described, xml: ET.Element) -> FoundPool:
    return FoundPool(found.name, found.active, xml.findtext("target/path") or "")


def _bridges(answers: Answers, shell: Shell) -> tuple[str, ...] | None:
    """Return the host's bridges, by its commands or else by libvirt's interface driver."""
    if shell.bridges is not None:
        return shell.bridges
    if answers.interfaces is None:
        return None
    return tuple(
        each.name
        for each in answers.interfaces
        if DEVICE.fullmatch(each.name) and read_xml(each.xml).get("type") == "bridge"
    )

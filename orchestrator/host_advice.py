"""From what was found on a host to its entry in a lab file, and to what is missing there.

Pure: `entry_for` decides capacity, reserve and network by stated rules, `missing` lists what keeps
guests from running well there, each with the command that helps. `edgewake host add` prints both.
"""

import json
import math
import re
import shlex
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from ipaddress import IPv4Network

from images.facts import Architecture
from orchestrator.host_networks import (
    NETWORK_NAME,
    Network,
    existing_networks,
    full_networks,
    lab_pools,
    made_network,
)
from orchestrator.host_probe import HostFacts
from orchestrator.host_shell import DEVICE, MOST_CLOCK_S
from orchestrator.hypervisors.connection_uri import read_uri, weaknesses
from orchestrator.lab_values import ARCHITECTURES
from orchestrator.model import Lab

XEN_STEP_MIB = 64  # reserves on Xen are rounded up to this
DOM0_MIB = 1024  # what a dom0 is given that has no limit of its own
HOST_LEAST_MIB, HOST_MOST_MIB = 256, 1024  # a quarter of the memory within these, on QEMU
SPARE_CPU, MANY_CORES = 0.5, 4  # half a core is kept for the host where it has four or more
LONGEST_NAME = 30
DRIVER = {"QEMU": "qemu", "Xen": "xen"}  # of URIs, by what libvirt calls the hypervisor
HOST_NAME = re.compile(r"[a-z0-9]([a-z0-9-]{0,28}[a-z0-9])?")
_PLAIN = re.compile(r"[A-Za-z0-9/][A-Za-z0-9+:/@.?=&_%\[\]-]*[A-Za-z0-9/]|[a-z0-9]")


@dataclass(frozen=True, slots=True)
class Entry:
    """A host of a lab file; memory is in MiB. `network` is None if none is free.

    `arch` is the host's own word, which lab files may not know. `migration_address` is empty where
    the URI's host serves, or where none is known.
    """

    name: str
    uri: str
    cpu: int
    memory_mib: int
    reserve_cpu: float
    reserve_mib: int
    labels: tuple[tuple[str, str], ...]
    network: Network | None
    arch: str = Architecture.X86_64
    migration_address: str = ""


@dataclass(frozen=True, slots=True)
class Missing:
    """Something that a host lacks: what, and the commands that help, and where to run them.

    A `note` is no lack, but something to know of.
    """

    what: str
    do: tuple[str, ...] = ()
    note: bool = False


def host_name(uri: str, taken: Iterable[str] = ()) -> str:
    """Return a name for a host from its URI: the first label, or the address with hyphens."""
    host = read_uri(uri).host
    base = host if re.fullmatch(r"[0-9.]+|.*:.*", host) else host.partition(".")[0]
    word = re.sub(r"[^a-z0-9]+", "-", base.lower()).strip("-") or "box"
    word = word if not word[0].isdigit() else f"host-{word}"
    word, names = word[: LONGEST_NAME - 4].strip("-"), set(taken)
    return next(
        name
        for n in range(1, len(names) + 3)
        if (name := word if n == 1 else f"{word}-{n}") not in names
    )


def entry_for(
    facts: HostFacts, name: str = "", lab: Lab | None = None, busy: Iterable[IPv4Network] = ()
) -> Entry:
    """Return the entry that suits a host.

    `lab` is one that the host is to join: its names, subnets and pools are left alone, as are the
    networks in `busy`, which are those of this machine.
    """
    hosts = lab.hosts if lab else ()
    name = name or host_name(facts.uri, (host.name for host in hosts))
    labels = [("hypervisor", facts.kind.lower())]
    labels += [("pvh", "yes" if facts.pvh else "no")] if facts.kind == "Xen" else []
    labels += [("kvm", "yes" if _has_kvm(facts) else "no")] if facts.kind == "QEMU" else []
    existing = next(existing_networks(facts, lab_pools(lab)), None)
    return Entry(
        name=name,
        uri=facts.uri,
        cpu=facts.cores,
        memory_mib=facts.memory_mib,
        reserve_cpu=SPARE_CPU if facts.cores >= MANY_CORES else 0.0,
        reserve_mib=reserve_mib(facts),
        labels=tuple(labels),
        network=existing
        or made_network(facts, name, {*busy, *(host.network.subnet for host in hosts)}),
        arch=facts.architecture,
        migration_address=_own_address(facts, existing),
    )


def _own_address(facts: HostFacts, network: Network | None) -> str:
    """Return the address that other hosts reach it at, where the URI's host is our loopback."""
    if network is None or not read_uri(facts.uri).loopback:
        return ""
    ours = (each for each in facts.shell.addresses if each[1].network == network.subnet)
    return next((str(address.ip) for _, address in ours), "")


def reserve_mib(facts: HostFacts) -> int:
    """Return the memory that guests may not use.

    On Xen what is neither free nor in guests, so dom0 and Xen itself, rounded up to 64 MiB; a dom0
    that has most of the machine gives memory up, so 1 GiB is kept for it then. Elsewhere a quarter
    of the memory, at least 256 MiB and at most 1 GiB.
    """
    total = facts.memory_mib
    if facts.dom0 is None or facts.free_mib is None:
        return min(total // 2, max(HOST_LEAST_MIB, min(HOST_MOST_MIB, total // 4)))
    if _balloons(facts):
        return min(total // 2, DOM0_MIB)
    taken = total - facts.free_mib - facts.guests_mib
    return min(total - 1, math.ceil(max(taken, 1) / XEN_STEP_MIB) * XEN_STEP_MIB)


def stanza(entry: Entry) -> str:
    """Return an entry as it is written below `hosts:` of a lab file."""
    labels = ", ".join(f"{key}: {_scalar(value)}" for key, value in entry.labels)
    reserve = f"memory: {entry.reserve_mib} MiB"
    if entry.reserve_cpu:
        reserve = f"cpu: {entry.reserve_cpu:g}, {reserve}"
    lines = [
        f"  {entry.name}:",
        f"    uri: {_scalar(entry.uri)}",
        *([f"    migration_address: {entry.migration_address}"] if entry.migration_address else []),
        *([] if entry.arch == Architecture.X86_64 else [f"    arch: {entry.arch}"]),
        f"    capacity: {{cpu: {entry.cpu}, memory: {entry.memory_mib} MiB}}",
        f"    reserve: {{{reserve}}}",
        f"    labels: {{{labels}}}",
    ]
    return "\n".join([*lines, *_network_lines(entry.network)]) + "\n"


def _network_lines(network: Network | None) -> Iterator[str]:
    if network is None:
        yield "    # network: none is free here; describe one (docs/lab-file.md)"
        return
    yield "    network:"
    yield f"      name: {_scalar(network.name)}"
    if network.bridge:
        yield "      create: true"
        yield f"      bridge: {network.bridge}"
    yield f"      subnet: {network.subnet}"
    yield f"      gateway: {network.gateway}"
    remark = f"  # {network.remark}" if network.remark else ""
    yield f"      pool: {network.first}-{network.last}{remark}"


def _scalar(text: str) -> str:
    """Return text as YAML; JSON's strings are YAML's quoted ones."""
    words = {"yes", "no", "true", "false", "null", "on", "off"}  # for readers who know YAML 1.1
    return text if _PLAIN.fullmatch(text) and text not in words else json.dumps(text)


# --- what is missing --------------------------------------------------------------------------


def missing(facts: HostFacts, entry: Entry, lab: Lab | None = None) -> tuple[Missing, ...]:
    """Return what the host lacks, or what should be minded there; most important first.

    `lab` is the one that it is to join, as for `entry_for`.
    """
    checks = (_processors, _drivers, _xen, _kvm, _bridges, _routes, _clock, _unseen, _dhcp)
    found = [each for check in checks for each in check(facts, entry)]
    return (
        *_twins(facts, lab),
        *_full(facts, lab),
        *found,
        *(Missing(f"the URI: {each}") for each in weaknesses(facts.uri)),
    )


def _processors(facts: HostFacts, _entry: Entry) -> Iterator[Missing]:
    if facts.architecture not in ARCHITECTURES:
        known = ", ".join(ARCHITECTURES)
        yield Missing(f"it has {facts.architecture} processors; a lab file may say {known}")
    elif facts.architecture != Architecture.X86_64:
        yield Missing(
            f"it has {facts.architecture} processors: only images built for those run there, and "
            "edgewake was tested with x86_64 alone"
        )


def _drivers(facts: HostFacts, _entry: Entry) -> Iterator[Missing]:
    install = ("there: apt install libvirt-daemon-system", "there: systemctl restart libvirtd")
    if facts.pools is None:
        yield Missing("its libvirt has no storage driver, so images cannot be sent there", install)
    if facts.networks is None:
        yield Missing("its libvirt has no network driver, so guests have no network", install)


def _xen(facts: HostFacts, _entry: Entry) -> Iterator[Missing]:
    if facts.kind != "Xen":
        return
    if not facts.pvh:
        yield Missing(
            "no PVH guests: Xen sees no VT-x or AMD-V there; PV guests run",
            ("there: switch virtualization on in the firmware (BIOS), and boot anew",),
        )
    if _balloons(facts):
        yield Missing(
            "dom0 has most of the memory, and must give some up for each guest, which is slow and "
            "may fail",
            (
                f'there: set GRUB_CMDLINE_XEN_DEFAULT="dom0_mem={DOM0_MIB}M,max:{DOM0_MIB}M" in '
                "/etc/default/grub",
                "there: update-grub, and boot anew",
            ),
        )
    if facts.shell.xenstore is False:
        yield Missing(
            "no xenstore-write and xenstore-watch, which a probe of a Xenstore key and some images "
            "need",
            ("there: apt install xenstore-utils",),
        )


def _kvm(facts: HostFacts, _entry: Entry) -> Iterator[Missing]:
    if facts.kind != "QEMU" or _has_kvm(facts):
        return
    why = f" ({facts.kvm_boots.why})" if facts.kvm_boots else ""
    yield Missing(
        f"no KVM{why}: guests are emulated, ten to fifty times slower",
        ("there: modprobe kvm_intel || modprobe kvm_amd; if it fails, see the firmware (BIOS)",),
    )


def _twins(facts: HostFacts, lab: Lab | None) -> Iterator[Missing]:
    """Say which hosts of the lab are this one, by the URI."""
    ours = read_uri(facts.uri).libvirt
    for host in lab.hosts if lab else ():
        with suppress(ValueError):
            if read_uri(host.uri).libvirt == ours:
                yield Missing(f"the lab has this URI as host {host.name} already", note=True)


def _full(facts: HostFacts, lab: Lab | None) -> Iterator[Missing]:
    for name, subnet in full_networks(facts, lab_pools(lab)):
        yield Missing(
            f"the lab's pools leave no address of {subnet} free, the subnet of its network {name}",
            ("here: in the lab file, make the pools of that subnet smaller; then run this again",),
        )


def _bridges(facts: HostFacts, entry: Entry) -> Iterator[Missing]:
    """Say how guests could be on the host's own network, where they are not already."""
    if entry.network is None or not entry.network.bridge:
        return
    usable = {network.name for network in existing_networks(facts, ())}
    for found in facts.networks or ():
        if found.name in usable:
            continue  # the lab has all of its addresses, which is said elsewhere
        if found.active and found.mode == "bridge" and NETWORK_NAME.fullmatch(found.name):
            yield Missing(
                f"the subnet of its network {found.name} is not known, or too small; if guests may "
                "be on it, describe it under network: without create and bridge",
                (f"there: ip -4 address show {found.bridge}",)
                if DEVICE.fullmatch(found.bridge)
                else (),
            )
    if facts.bridges:
        # Ours and libvirt's own are no way out; one that carries the host's way out is.
        known = {each.bridge for each in facts.networks or ()}
        outward = {each for each, _ in facts.shell.gateways if each in facts.bridges} - known
        for bridge in sorted(outward):
            yield Missing(
                f"no libvirt network uses the bridge {bridge}: with one, guests are on the same "
                "network as the host",
                _define(facts.uri, bridge),
            )
    elif facts.bridges is not None and facts.kind == "Xen":
        card = next(iter(dict(facts.shell.gateways)), "eth0")
        yield Missing(
            "no bridge on that Xen host, so guests are reached by a route only",
            (
                "there: apt install bridge-utils",
                f"there: in /etc/network/interfaces, replace the part of {card} by: auto xenbr0 / "
                f"iface xenbr0 inet dhcp / bridge_ports {card}",
                "there: ifup xenbr0",
                *_define(facts.uri, "xenbr0"),
            ),
        )


def _define(uri: str, bridge: str) -> tuple[str, ...]:
    xml = (
        f"<network><name>{bridge}</name><forward mode='bridge'/><bridge name='{bridge}'/></network>"
    )
    quoted = shlex.quote(uri)
    return (
        f'echo "{xml}" > {bridge}.xml',
        f"virsh -c {quoted} net-define {bridge}.xml",
        f"virsh -c {quoted} net-start {bridge}",
        f"virsh -c {quoted} net-autostart {bridge}",
        "then run this command again",
    )


def _routes(facts: HostFacts, entry: Entry) -> Iterator[Missing]:
    """Say how a network that is made on another machine is reached from this one."""
    uri = read_uri(facts.uri)
    if uri.loopback:  # a tunnel: nobody knows from here which address the host has
        return
    if uri.far and entry.network is not None and entry.network.bridge:
        yield Missing(
            f"the guests' network will exist on {uri.host or 'that host'} only: whoever is to "
            "reach them needs a route",
            (
                f"here, and on your router: ip route add {entry.network.subnet} via "
                f"{uri.host or 'HOST'}",
                "there: sysctl -w net.ipv4.ip_forward=1",
            ),
        )


def _clock(facts: HostFacts, _entry: Entry) -> Iterator[Missing]:
    offset = facts.shell.clock_offset_s
    if offset is not None and abs(offset) > MOST_CLOCK_S:
        way = "ahead of" if offset > 0 else "behind"
        yield Missing(f"its clock is {abs(offset):g} s {way} ours", ("there: apt install chrony",))


def _unseen(facts: HostFacts, _entry: Entry) -> Iterator[Missing]:
    uri = read_uri(facts.uri)
    if uri.far and uri.transport != "ssh" and facts.kind in DRIVER:
        yield Missing(
            f"over {uri.transport} the host's addresses, clock and programs are not known; over "
            "ssh more could be seen",
            (f"edgewake host add {DRIVER[facts.kind]}+ssh://root@HOST/system",),
            note=True,
        )


def _dhcp(facts: HostFacts, _entry: Entry) -> Iterator[Missing]:
    if facts.shell.dnsmasq is False:
        yield Missing(
            "no dnsmasq, which only `dhcp: true` needs",
            ("there: apt install dnsmasq-base",),
            note=True,
        )


def _has_kvm(facts: HostFacts) -> bool:
    return facts.kvm_device and (facts.kvm_boots is None or facts.kvm_boots.usable)


def _balloons(facts: HostFacts) -> bool:
    """Return whether dom0 was started with nearly all memory, as without `dom0_mem`."""
    return facts.dom0 is not None and facts.dom0.memory_mib > facts.memory_mib * 3 // 4

"""The doctor's checks of a lab's hosts: each libvirt is asked once, all at the same time.

A host that does not answer within its time fails its own check and holds up no other. What a host
lacks is a check of its own; a host without any has one line.
"""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

from orchestrator.errors import HypervisorError
from orchestrator.host_shell import MOST_CLOCK_S
from orchestrator.hypervisors.agreement import differences
from orchestrator.hypervisors.connection_uri import weaknesses
from orchestrator.model import Host
from orchestrator.verdicts import Check, Verdict

if TYPE_CHECKING:
    from orchestrator.host_probe import HostFacts

HOST_S = 12.0  # for one host, whatever it does
AT_ONCE = 32
NO_LIBVIRT = "install libvirt0, or run `make setup`"


def check_hosts(hosts: tuple[Host, ...]) -> Iterator[Check]:
    """Yield what is found on hosts with libvirt, in their order; each URI is asked once."""
    of_uri: dict[str, list[Host]] = {}
    for host in hosts:
        of_uri.setdefault(host.uri, []).append(host)
    if not of_uri:
        return
    with ThreadPoolExecutor(min(AT_ONCE, len(of_uri)), "doctor") as pool:
        for checks in pool.map(_check_uri, of_uri, of_uri.values()):
            yield from checks


def _check_uri(uri: str, hosts: list[Host]) -> list[Check]:
    """Return the checks of one libvirt, for all hosts of the lab that it is."""
    name = f"libvirt {uri}"
    weak = [Check(name, Verdict.WARN, f"the URI: {each}") for each in weaknesses(uri)]
    try:
        # Here, not above: without libvirt's C library this import fails, and that is a finding.
        from orchestrator.host_probe import probe  # noqa: PLC0415
    except ImportError as error:
        what = f"the Python package libvirt does not load: {error}"
        return [Check(name, Verdict.FAIL, what, NO_LIBVIRT)]
    try:
        facts = probe(uri, name=hosts[0].name, timeout_s=HOST_S)
    except HypervisorError as error:
        return [Check(name, Verdict.FAIL, error.message, error.hint or "see docs/hosts.md"), *weak]
    lacks = [each for host in hosts for each in _lacks(host, facts)]
    return [Check(name, Verdict.OK, _summary(facts)), *weak, *dict.fromkeys(lacks)]


def _summary(facts: "HostFacts") -> str:
    free = "" if facts.free_mib is None else f", {facts.free_mib} MiB free"
    return f"{facts.kind} {facts.version}, {facts.cores} cores{free}"


def _lacks(host: Host, facts: "HostFacts") -> Iterator[Check]:
    yield from _agreement(host, facts)
    yield from _storage(host, facts)
    yield from _network(host, facts)
    yield from _dhcp(host, facts)
    yield from _memory(host, facts)
    yield from _clock(host, facts)
    yield from _xenstore(host, facts)


def _agreement(host: Host, facts: "HostFacts") -> Iterator[Check]:
    """Say what the lab file has wrong, so that nothing can be started there."""
    found = differences(host, facts.architecture, facts.cores)
    for each in found if host.capacity.cpu else ():  # else no lab file says anything
        yield Check(f"{each.about} {host.name}", Verdict.FAIL, each.what, each.cure)


def _storage(host: Host, facts: "HostFacts") -> Iterator[Check]:
    if facts.pools is None:
        yield Check(
            f"storage {host.name}",
            Verdict.WARN,
            "its libvirt has no storage driver, so images cannot be sent there",
            "there: `apt install libvirt-daemon-system`, then restart libvirtd",
        )


def _network(host: Host, facts: "HostFacts") -> Iterator[Check]:
    """Look for the network that the lab says is there, or for what is needed to make it."""
    name, wanted = f"network {host.name}", host.network
    if facts.networks is None:
        to_do = "there: `apt install libvirt-daemon-system`, then restart libvirtd"
        yield Check(name, Verdict.FAIL, "its libvirt has no network driver", to_do)
    elif not wanted.create and host.capacity.cpu:
        found = next((each for each in facts.networks if each.name == wanted.name), None)
        virsh = f"virsh -c '{facts.uri}'"
        if found is None:
            to_do = f"define it, or write `create: true`; `{virsh} net-list --all` shows all"
            yield Check(name, Verdict.FAIL, f"network {wanted.name} does not exist there", to_do)
        elif not found.active:
            to_do = f"{virsh} net-start {wanted.name}"
            yield Check(name, Verdict.FAIL, f"network {wanted.name} is not active there", to_do)


def _dhcp(host: Host, facts: "HostFacts") -> Iterator[Check]:
    if host.network.dhcp and host.network.create and facts.shell.dnsmasq is False:
        yield Check(
            f"dhcp {host.name}",
            Verdict.FAIL,
            "the lab wants `dhcp: true`, and dnsmasq is not there",
            "there: `apt install dnsmasq-base`",
        )


def _memory(host: Host, facts: "HostFacts") -> Iterator[Check]:
    """Compare what the lab says of the host's size with what it has."""
    if host.capacity.memory_mib > facts.memory_mib or host.capacity.cpu > facts.cores:
        yield Check(
            f"capacity {host.name}",
            Verdict.WARN,
            f"the lab says {host.capacity.cpu:g} cores and {host.capacity.memory_mib} MiB, but it "
            f"has {facts.cores} and {facts.memory_mib} MiB",
            "correct `capacity` in the lab file",
        )
    allowed = len(host.guest_cpus)
    absent = any(cpu >= facts.cores for cpu in host.guest_cpus)  # fails a check of its own
    if allowed and not absent and host.usable.cpu > allowed:
        yield Check(
            f"capacity {host.name}",
            Verdict.WARN,
            f"the lab lets guests have {host.usable.cpu:g} cores, but run on {allowed} only",
            "write the others as `reserve`, or correct `guest_cpus`",
        )


def _clock(host: Host, facts: "HostFacts") -> Iterator[Check]:
    offset = facts.shell.clock_offset_s
    if offset is not None and abs(offset) > MOST_CLOCK_S:
        what = f"its clock is {offset:+g} s off ours"
        yield Check(f"clock {host.name}", Verdict.WARN, what, "there: `apt install chrony`")


def _xenstore(host: Host, facts: "HostFacts") -> Iterator[Check]:
    if facts.kind == "Xen" and facts.shell.xenstore is False:
        yield Check(
            f"xenstore {host.name}",
            Verdict.WARN,
            "no xenstore-write and xenstore-watch, which a probe of a Xenstore key needs",
            "there: `apt install xenstore-utils`",
        )

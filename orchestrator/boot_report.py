"""How a service would be booted on a host: in lines for people, in stable keys for programs.

What `edgewake image boot-spec` prints: the result of a family's conventions and of whatever the lab
file overrules. Nothing is started and no host is asked.
"""

import shlex
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from images.bootspec import BootSpec, Nic, Platform
from orchestrator.errors import EdgewakeError, ImageUnusable
from orchestrator.hypervisors.domain_xml import Virt, domain_xml, xen_domain_xml
from orchestrator.library import Fit, Library, Place, example, is_asked_to_end, traits_of
from orchestrator.model import Guest, Host, Lab, Service

LABEL_WIDTH = 14
OWNER = "not-started"

Named = TypeVar("Named", Host, Service)


@dataclass(frozen=True, slots=True)
class Planned:
    """A guest as it would be started on a host, and the image that was chosen for it."""

    place: Place
    fit: Fit
    guest: Guest

    @property
    def xml(self) -> str:
        """The domain XML that libvirt would be given; empty where libvirt has no part in it."""
        host = self.place.host
        virt: Virt = "kvm" if self.place.traits.kvm else "qemu"
        match self.place.traits.platform:
            case Platform.QEMU:
                return domain_xml(
                    self.guest,
                    virt=virt,
                    architecture=host.architecture,
                    cpus=host.guest_cpus,
                )
            case Platform.XEN:
                return xen_domain_xml(
                    self.guest, architecture=host.architecture, cpus=host.guest_cpus
                )
            case Platform.SPT | Platform.NETNS:
                return ""


def planned(
    lab: Lab, library: Library, service: str, host: str = "", *, kvm: Callable[[Host], bool]
) -> Planned:
    """Return how a service would be booted: on that host, or on the first one that can.

    `kvm` says of a host whether KVM boots guests there. The address is the first of the host's
    pool. Raises `EdgewakeError` for an unknown name, and `ImageUnusable` when no host can boot it.
    """
    known = _named("service", lab.services, service)
    hosts = (_named("host", lab.hosts, host),) if host else lab.hosts
    failures: list[ImageUnusable] = []
    for each in hosts:
        try:
            return _on(lab, library, known, each, kvm(each))
        except ImageUnusable as error:
            failures.append(error)
    raise failures[0] if failures else EdgewakeError("the lab has no hosts")


def boot_json(planned: Planned) -> dict[str, Any]:
    """Return it as JSON; keys are those of `images.bootspec.BootSpec`, and may be added to."""
    spec = planned.guest.boot
    return {
        "instance": planned.guest.name,
        "host": planned.place.host.name,
        "image": planned.fit.image.name,
        "family": planned.fit.known.family.traits.name,
        "entry": str(spec.entry),
        "machine": spec.machine,
        "memory_mib": spec.memory_mib,
        "vcpus": spec.vcpus,
        "kernel": str(spec.kernel) if spec.kernel else None,
        "initrd": str(spec.initrd) if spec.initrd else None,
        "cmdline": spec.cmdline,
        "disks": [
            {"path": str(d.path), "format": d.format, "read_only": d.read_only, "name": d.name}
            for d in spec.disks
        ],
        "nics": [
            {
                "network": nic.network,
                "mac": nic.mac,
                "name": nic.name,
                "transitional": nic.transitional,
                "xenstore_ip": nic.xenstore_ip,
            }
            for nic in spec.nics
        ],
        "xenstore": dict(spec.xenstore),
        "end_pattern": spec.end_pattern,
        "obeys_shutdown": spec.obeys_shutdown,
        "command": _command(spec),
        "xml": planned.xml,
    }


def boot_text(planned: Planned) -> str:
    """Return it as short aligned lines."""
    return "\n".join(f"{label:<{LABEL_WIDTH}}{text}" for label, text in _lines(planned)) + "\n"


def _lines(planned: Planned) -> Iterator[tuple[str, str]]:
    fit, spec, traits = planned.fit, planned.guest.boot, planned.place.traits
    family = fit.known.family.traits
    least = fit.image.least_memory_mib or family.least(traits.platform)
    yield "image", f"{fit.image.name}: {family.title} ({family.name})"
    yield (
        "host",
        f"{planned.place.host.name} ({traits.platform}), as {planned.guest.name} for example",
    )
    yield "way in", str(spec.entry)
    if traits.platform is Platform.QEMU:
        yield "machine", spec.machine
    processors = 1 if traits.platform is Platform.SPT else spec.vcpus  # the tender has one
    yield "memory", f"{spec.memory_mib} MiB (least {least}), {processors} processor(s)"
    yield from _files(spec)
    if spec.command is None:
        yield "command line", spec.cmdline or "none"
    for nic in spec.nics:
        yield "card", _card(nic)
    for key, value in spec.xenstore:
        yield "Xenstore", f"{key} = {value}"
    yield "ends", f"when it prints {spec.end_pattern!r}" if spec.end_pattern else "by itself"
    obeyed = "obeyed" if spec.obeys_shutdown else "not obeyed"
    asked = is_asked_to_end(spec, traits.platform)
    yield "shutdown", f"{obeyed}: it is {'asked first' if asked else 'destroyed'}"


def _command(spec: BootSpec) -> dict[str, Any] | None:
    command = spec.command
    if command is None:
        return None
    return {
        "argv": list(command.argv),
        "tree": str(command.tree),
        "environment": dict(command.environment),
        "filtered": command.filtered,
    }


def _files(spec: BootSpec) -> Iterator[tuple[str, str]]:
    if spec.command is not None:
        yield "runs", shlex.join(spec.command.argv)
        yield "root", str(spec.command.tree)
        for name, value in spec.command.environment:
            yield "variable", f"{name}={value}"
        return
    yield "kernel", str(spec.kernel or "none: it boots from its first disk")
    if spec.initrd:
        yield "initrd", str(spec.initrd)
    for disk in spec.disks:
        use = "read-only" if disk.read_only else "with an overlay of its own"
        name = f", called {disk.name}" if disk.name else ""
        yield "disk", f"{disk.path} ({disk.format}, {use}{name})"


def _card(nic: Nic) -> str:
    said = [f"{nic.mac} on {nic.network}"]
    said += [f"called {nic.name}"] if nic.name else []
    said += ["transitional virtio"] if nic.transitional else []
    said += [f"Xenstore ip = {nic.xenstore_ip}"] if nic.xenstore_ip else []
    return ", ".join(said)


def _on(lab: Lab, library: Library, service: Service, host: Host, kvm: bool) -> Planned:
    place = Place(host, traits_of(host, kvm=kvm))
    fit = library.fit(lab, service, place)
    instance = example(lab.name, service, host)
    return Planned(place, fit, library.guest(lab, service, instance, place, OWNER))


def _named(what: str, all_: Sequence[Named], name: str) -> Named:
    for each in all_:
        if each.name == name:
            return each
    names = ", ".join(each.name for each in all_) or "none"
    raise EdgewakeError(f"the lab has no {what} {name!r}", hint=f"it has: {names}")

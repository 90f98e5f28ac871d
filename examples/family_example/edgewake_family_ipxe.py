"""Family `ipxe`: the iPXE network boot loader as a guest, an example of a family of one's own.

iPXE's ``ipxe.lkrn`` (Debian package ipxe) starts like a Linux kernel and reads its command line as
a script, commands joined by ``&&``. So the address is told by ``set net0/ip``. With its card open
and its shell waiting for a key, iPXE answers ping, which is all this guest is good for.

It has no quotes, and ``${...}`` is replaced by a setting's value wherever it stands, so a value
from the service's config is taken if it is a plain word, and refused otherwise.
"""

import re
from dataclasses import dataclass, replace

from images.bootspec import BootRequest, BootSpec, Image, Platform
from images.errors import ImageRefused
from images.facts import Entry, ImageFacts
from images.families import AddressBy, Inspect, Traits
from images.families.cmdline import Limit, Syntax, command_line, refuse_initrd, spec, variable

TEMPLATE = (
    "ifopen net0 && set net0/ip {ip} && set net0/netmask {mask}[ && set net0/gateway {gw}]"
    "[ && {config}] && {args}"
)
LAST_COMMAND = "shell"
TRAITS = Traits(
    name="ipxe",
    title="iPXE",
    entries={Platform.QEMU: (Entry.LINUX,)},
    default_memory_mib=32,
    least_memory_mib={Platform.QEMU: 16},
    address={Platform.QEMU: AddressBy.CMDLINE},
    elsewhere={Platform.XEN: "it was not tried there"},
    machines=("pc", "q35"),
)

_PLAIN = re.compile(r"[A-Za-z0-9._:/,@%+=-]+")


def _setting(name: str, value: str, request: BootRequest) -> str:
    if not _PLAIN.fullmatch(value):
        raise ImageRefused(
            f"config {name!r} of service {request.service} must be one plain word for iPXE, and it "
            f"is {value!r}"
        )
    return f"set {variable(name, request)} {value}"


SYNTAX = Syntax(setting=_setting, between=" && ")
LIMIT = Limit(2047, "iPXE")  # what a loader of the Linux boot protocol may pass


@dataclass(frozen=True, slots=True)
class Ipxe:
    """The `images.families.Family` of iPXE."""

    traits: Traits = TRAITS

    def check(self, image: Image, inspect: Inspect) -> None:  # noqa: ARG002 - one file is all
        """Raise `ImageError` if there is an initrd, which iPXE would take for a script."""
        refuse_initrd(image, "iPXE", "iPXE would run it as a script in place of its command line")

    def boot_spec(self, image: Image, facts: ImageFacts, request: BootRequest) -> BootSpec:  # noqa: ARG002 - all its images are told the same
        """Return how to boot the image as requested; ImageRefused if it cannot be said to it."""
        told = image if image.template else replace(image, cmdline=image.cmdline or LAST_COMMAND)
        line = command_line(told, request, TEMPLATE, SYNTAX, (LIMIT,))
        return spec(image, request, TRAITS, line)


IPXE = Ipxe()

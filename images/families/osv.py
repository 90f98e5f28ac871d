"""Family `osv`: OSv, as a kernel with a disk (PVH), or its disk alone (BIOS).

With ``-kernel`` the address is an option of the loader, ``--ip=eth0,10.0.0.2,255.255.255.0
--defaultgw=10.0.0.1``, before the program and its arguments (osv loader.cc); without it OSv asks
DHCP. The program is on the command line, so an image without a cmdline has nothing to run.
A disk that boots by itself has its command line in its second sector: nothing can be told to it
then, it takes its address by DHCP or as that line says.

The loader's options are split at blanks, a backslash keeps one (core/commands.cc; quotes do not
work there). An entry of the service's config becomes ``--env=KEY=VALUE``.
"""

from dataclasses import dataclass

from images.bootspec import BootRequest, BootSpec, Image, Platform
from images.errors import ImageRefused
from images.facts import Entry, ImageFacts
from images.families import AddressBy, Inspect, Traits
from images.families.cmdline import (
    Syntax,
    command_line,
    escaped,
    nothing_to_tell,
    refuse_initrd,
    spec,
    variable,
    what_of,
)

TEMPLATE = "--ip=eth0,{ip},{mask}[ --defaultgw={gw} --nameserver={gw}][ {config}][ {args}]"
TRAITS = Traits(
    name="osv",
    title="OSv",
    entries={Platform.QEMU: (Entry.PVH, Entry.BIOS)},
    default_memory_mib=128,
    least_memory_mib={Platform.QEMU: 32},
    address={Platform.QEMU: AddressBy.CMDLINE},
    elsewhere={
        Platform.XEN: "it was not usable there",
        Platform.SPT: "a tender starts Solo5 images only",
    },
    machines=("q35",),  # where it was seen to answer, also behind libvirt's root ports
)


def _setting(name: str, value: str, request: BootRequest) -> str:
    return f"--env={variable(name, request)}={escaped(value, what_of(name, request))}"


SYNTAX = Syntax(text=escaped, setting=_setting)


@dataclass(frozen=True, slots=True)
class Osv:
    """The `images.families.Family` of OSv."""

    traits: Traits = TRAITS

    def check(self, image: Image, inspect: Inspect) -> None:  # noqa: ARG002 - files are match's
        """Raise `ImageError` unless a kernel comes with the program it is to run."""
        refuse_initrd(image, "OSv")
        if image.kernel is not None and not (image.cmdline or image.template):
            raise ImageRefused(
                "OSv runs what its command line says, and there is nothing; add a cmdline such as "
                "'--rootfs=rofs /prog arguments'"
            )

    def boot_spec(self, image: Image, facts: ImageFacts, request: BootRequest) -> BootSpec:  # noqa: ARG002 - all its images are told the same
        """Return how to boot the image as requested; ImageRefused if it cannot be said to it."""
        if request.entry is Entry.BIOS:
            return spec(image, request, TRAITS, nothing_to_tell(image, request))
        return spec(image, request, TRAITS, command_line(image, request, TEMPLATE, SYNTAX))


OSV = Osv()

"""Family `mini-os`: Xen's Mini-OS with lwIP, a Xen PV guest.

It reads its address from the ``ip`` key of its card's Xenstore backend, a bare ``10.0.0.11``, and
guesses the netmask from the address class; there is no gateway and no DHCP (mini-os netfront.c,
lwip-net.c). So clients must be on the same network, as the old classes see it. The command line is
the program's.
"""

from dataclasses import dataclass

from images.bootspec import BootRequest, BootSpec, Image, Platform
from images.facts import Entry, ImageFacts
from images.families import AddressBy, Inspect, Traits
from images.families.cmdline import Syntax, command_line, pv_limit, refuse_initrd, spec

TEMPLATE = "{args}"
SYNTAX = Syntax(no_config="what a Mini-OS program understands is its own affair")
TRAITS = Traits(
    name="mini-os",
    title="Mini-OS",
    entries={Platform.XEN: (Entry.XEN_PV,)},
    default_memory_mib=32,
    least_memory_mib={Platform.XEN: 8},
    address={Platform.XEN: AddressBy.XENSTORE},
    elsewhere={
        Platform.QEMU: "it is a Xen PV guest and has no driver for anything else",
        Platform.SPT: "a tender starts Solo5 images only",
    },
    obeys_shutdown=True,
)


@dataclass(frozen=True, slots=True)
class MiniOs:
    """The `images.families.Family` of Mini-OS."""

    traits: Traits = TRAITS

    def check(self, image: Image, inspect: Inspect) -> None:  # noqa: ARG002 - one file is all
        """Raise `ImageError` if there is an initrd, which it has no use for."""
        refuse_initrd(image, "Mini-OS")

    def boot_spec(self, image: Image, facts: ImageFacts, request: BootRequest) -> BootSpec:  # noqa: ARG002 - all its images are told the same
        """Return how to boot the image as requested; ImageRefused if it cannot be said to it."""
        line = command_line(image, request, TEMPLATE, SYNTAX, pv_limit(request))
        return spec(image, request, TRAITS, line, xenstore_ip=str(request.address.ipv4.ip))


MINI_OS = MiniOs()

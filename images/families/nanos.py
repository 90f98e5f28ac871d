"""Family `nanos`: a Nanos disk image, as ``ops build`` makes it.

The program, its arguments, its environment and, if it is static, its address are in the disk (the
root tuple: nanovms/nanos src/net/net.c, get_static_config). Nothing can be passed at boot, so the
address comes by DHCP, from a network that gives each MAC address the one we chose.
"""

from dataclasses import dataclass

from images.bootspec import BootRequest, BootSpec, Image, Platform
from images.errors import ImageRefused
from images.facts import Entry, ImageFacts
from images.families import AddressBy, Inspect, Traits
from images.families.cmdline import nothing_to_tell, spec

TRAITS = Traits(
    name="nanos",
    title="Nanos",
    entries={Platform.QEMU: (Entry.BIOS,)},
    default_memory_mib=128,
    least_memory_mib={Platform.QEMU: 32},
    address={Platform.QEMU: AddressBy.DHCP},
    elsewhere={
        Platform.XEN: "its kernel dies there",
        Platform.SPT: "a tender starts Solo5 images only",
    },
    machines=("pc", "q35"),
)


@dataclass(frozen=True, slots=True)
class Nanos:
    """The `images.families.Family` of Nanos."""

    traits: Traits = TRAITS

    def check(self, image: Image, inspect: Inspect) -> None:  # noqa: ARG002 - files are match's
        """Raise `ImageError` if a kernel is given: started alone it resets for ever."""
        if image.kernel is not None:
            raise ImageRefused(
                "Nanos boots from its disk, and its kernel alone resets for ever; name the disk "
                "image under 'disks:' and take 'kernel:' away"
            )

    def boot_spec(self, image: Image, facts: ImageFacts, request: BootRequest) -> BootSpec:  # noqa: ARG002 - all its images are told the same: nothing
        """Return how to boot the image as requested; ImageRefused if it is to be told anything."""
        return spec(image, request, TRAITS, nothing_to_tell(image, request))


NANOS = Nanos()

"""Family `other`: anything that boots and that no module here knows.

It takes its address by DHCP, from a network that gives each MAC address the one we chose, or from a
command line that the image's template describes. The template's ``{config}`` is the service's
config as words ``KEY=VALUE``.
"""

from dataclasses import dataclass

from images.bootspec import BootRequest, BootSpec, Image, Platform
from images.facts import Entry, ImageFacts
from images.families import AddressBy, Inspect, Traits
from images.families.cmdline import Syntax, command_line, nothing_to_tell, pv_limit, spec

TEMPLATE = "{args}"
SYNTAX = Syntax(no_config="what an image of family other understands is not known")
ENTRIES = {
    Platform.QEMU: (Entry.LINUX, Entry.MULTIBOOT, Entry.PVH, Entry.BIOS),
    Platform.XEN: (Entry.PVH, Entry.PVH_SECTION, Entry.XEN_PV),
    Platform.SPT: (Entry.SPT,),
}
TRAITS = Traits(
    name="other",
    title="an image of another family",
    entries=ENTRIES,
    default_memory_mib=128,
    least_memory_mib=dict.fromkeys(Platform, 1),  # not known; `images.match` looks at the file
    address=dict.fromkeys(ENTRIES, AddressBy.DHCP),
    machines=("pc", "q35"),
)


@dataclass(frozen=True, slots=True)
class Other:
    """The `images.families.Family` of images that no other module knows."""

    traits: Traits = TRAITS

    def check(self, image: Image, inspect: Inspect) -> None:
        """Raise nothing: what it needs is not known."""

    def boot_spec(self, image: Image, facts: ImageFacts, request: BootRequest) -> BootSpec:  # noqa: ARG002 - nothing is known of them
        """Return how to boot the image as requested; ImageRefused if it cannot be said to it."""
        if request.entry is Entry.BIOS:
            return spec(image, request, TRAITS, nothing_to_tell(image, request))
        line = command_line(image, request, TEMPLATE, SYNTAX, pv_limit(request))
        return spec(image, request, TRAITS, line)


OTHER = Other()

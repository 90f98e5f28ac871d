"""Family `mirage`: MirageOS 3 and later, on Solo5 (QEMU, the spt tender) and as a Xen PVH guest.

A MirageOS unikernel takes its address from its command line, with the same words on every target:
``--ipv4=10.0.0.2/24 --ipv4-gateway=10.0.0.1`` and ``--ipv4-only=true`` or ``--ipv6=fd00::2/64``
(mirage/mirage lib_runtime/mirage_runtime_network.ml; cmdliner). DHCP only when compiled in.
The line is split at blanks, with double quotes and backslashes as in OCaml's parse-argv.

Stacks with a ``~group`` take the words with a prefix, ``--GROUP-ipv4=``. The group is chosen in the
unikernel's config.ml and is not in the file: the manifest names the *card* (``service`` unless told
otherwise), which is often, but need not be, the group's name. So no prefix is guessed; such an
image brings a template.

An entry of the service's config becomes the argument ``--KEY=VALUE``.
"""

from dataclasses import dataclass

from images.bootspec import BootRequest, BootSpec, Image, Platform
from images.facts import Entry, ImageFacts
from images.families import AddressBy, Inspect, Traits
from images.families.cmdline import (
    SOLO5,
    Syntax,
    command_line,
    double_quoted,
    key,
    refuse_initrd,
    spec,
    what_of,
)
from images.families.solo5 import card_of, disks_of

RESERVED_KEYS = frozenset({"ipv4", "ipv4-gateway", "ipv4-only", "ipv6"})
IPV4 = "--ipv4={cidr}[ --ipv4-gateway={gw}] --ipv4-only=true[ {config}][ {args}]"
BOTH = "--ipv4={cidr}[ --ipv4-gateway={gw}] --ipv6={ip6}/{prefix6}[ {config}][ {args}]"
TRAITS = Traits(
    name="mirage",
    title="MirageOS",
    entries={
        Platform.QEMU: (Entry.MULTIBOOT,),
        Platform.XEN: (Entry.PVH, Entry.PVH_SECTION),
        Platform.SPT: (Entry.SPT,),
    },
    default_memory_mib=32,
    least_memory_mib={Platform.QEMU: 12, Platform.XEN: 32, Platform.SPT: 16},
    address=dict.fromkeys((Platform.QEMU, Platform.XEN, Platform.SPT), AddressBy.CMDLINE),
    ipv6=True,
    machines=("pc", "q35"),
    legacy_virtio=True,
)


def _setting(name: str, value: str, request: BootRequest) -> str:
    option = key(name, request, RESERVED_KEYS)
    return f"--{option}={double_quoted(value, what_of(name, request))}"


SYNTAX = Syntax(text=double_quoted, setting=_setting)


@dataclass(frozen=True, slots=True)
class Mirage:
    """The `images.families.Family` of MirageOS unikernels."""

    traits: Traits = TRAITS

    def check(self, image: Image, inspect: Inspect) -> None:
        """Raise `ImageError` unless the image has the disks that its manifest declares."""
        refuse_initrd(image, "MirageOS")
        facts = inspect(image.main_file)
        card_of(facts)
        disks_of(image, facts)

    def boot_spec(self, image: Image, facts: ImageFacts, request: BootRequest) -> BootSpec:
        """Return how to boot the image as requested; ImageRefused if it cannot be said to it."""
        own = BOTH if request.address.ipv6 else IPV4
        line = command_line(image, request, own, SYNTAX, (SOLO5,))
        return spec(image, request, TRAITS, line, card=card_of(facts), disks=disks_of(image, facts))


MIRAGE = Mirage()

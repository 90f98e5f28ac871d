"""Family `solo5`: a bare Solo5 program, such as Solo5's own tests.

Solo5 has no notion of an address: it is fixed in the program (10.0.0.2 in
tests/test_net/test_net.c), or the program's own arguments tell it. So nothing is said here but the
image's cmdline, and a template may say more. What *is* said in the file is which network card and
disks it wants, by name: the manifest (include/mft_abi.h). Solo5 aborts and powers off when one is
missing, so that is checked before. MirageOS stands on this: see `mirage`.

The command line reaches the program whole; on virtio, Solo5 drops the first word, which QEMU makes
of the kernel's path (bindings/virtio/platform.c).
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

from images.bootspec import BootRequest, BootSpec, Disk, Image, Platform
from images.errors import ImageRefused
from images.facts import DeviceKind, Entry, ImageFacts
from images.families import AddressBy, Inspect, Traits
from images.families.cmdline import SOLO5 as SOLO5_LIMIT
from images.families.cmdline import Syntax, command_line, refuse_initrd, spec

TEMPLATE = "{args}"
SYNTAX = Syntax(no_config="what a bare Solo5 program understands is its own affair")
TRAITS = Traits(
    name="solo5",
    title="Solo5",
    entries={Platform.QEMU: (Entry.MULTIBOOT,), Platform.SPT: (Entry.SPT,)},
    default_memory_mib=16,
    least_memory_mib={Platform.QEMU: 3},
    address={Platform.QEMU: AddressBy.FIXED, Platform.SPT: AddressBy.FIXED},
    elsewhere={Platform.XEN: "Solo5's own Xen binding has no network"},
    machines=("pc", "q35"),
    legacy_virtio=True,
)


def card_of(facts: ImageFacts) -> str:
    """Return what the image calls its network card; empty if it does not say.

    Raises `ImageRefused` unless it declares exactly one, which is what we give a guest.
    """
    if not facts.devices:
        return ""
    names = [device.name for device in facts.devices if device.kind is DeviceKind.NET]
    if len(names) == 1:
        return names[0]
    if not names:
        raise ImageRefused("its manifest declares no network card, so nobody could reach it")
    raise ImageRefused(
        f"its manifest declares {len(names)} network cards ({', '.join(names)}), and a guest gets "
        "one here; build it with one"
    )


def disks_of(image: Image, facts: ImageFacts) -> tuple[Disk, ...]:
    """Return the image's disks in the order of its manifest, each with its name there.

    A disk that the user named goes where its name is, the others fill up in order. Raises
    `ImageRefused` if there are too few, too many, or one whose name the manifest does not have.
    """
    if not facts.devices:
        return image.disks
    wanted = [device.name for device in facts.devices if device.kind is DeviceKind.BLOCK]
    if len(wanted) != len(image.disks):
        listed = f" ({', '.join(wanted)})" if wanted else ""
        raise ImageRefused(
            f"its manifest declares {_count(wanted)}{listed}, and the image has "
            f"{_count(image.disks)}; list them under 'disks:' in that order"
        )
    named = {disk.name: disk for disk in image.disks if disk.name}
    if len(named) < sum(bool(disk.name) for disk in image.disks):
        raise ImageRefused("two of its disks have the same name; each names another device")
    unknown = sorted(set(named) - set(wanted))
    if unknown:
        raise ImageRefused(
            f"its manifest declares no disk {unknown[0]}; it has {', '.join(wanted)}"
        )
    return tuple(_in_order(wanted, named, (disk for disk in image.disks if not disk.name)))


def _in_order(
    wanted: Iterable[str], named: dict[str, Disk], others: Iterator[Disk]
) -> Iterator[Disk]:
    for name in wanted:
        yield replace(named.get(name) or next(others), name=name)


def _count(disks: Iterable[object]) -> str:
    number = len(list(disks))
    return "no disk" if number == 0 else f"{number} disk{'s' if number > 1 else ''}"


@dataclass(frozen=True, slots=True)
class Solo5:
    """The `images.families.Family` of bare Solo5 programs."""

    traits: Traits = TRAITS

    def check(self, image: Image, inspect: Inspect) -> None:
        """Raise `ImageError` unless the image has the disks that its manifest declares."""
        refuse_initrd(image, "Solo5")
        facts = inspect(image.main_file)
        card_of(facts)
        disks_of(image, facts)

    def boot_spec(self, image: Image, facts: ImageFacts, request: BootRequest) -> BootSpec:
        """Return how to boot the image as requested; ImageRefused if it cannot be said to it."""
        line = command_line(image, request, TEMPLATE, SYNTAX, (SOLO5_LIMIT,))
        return spec(image, request, TRAITS, line, card=card_of(facts), disks=disks_of(image, facts))


SOLO5 = Solo5()

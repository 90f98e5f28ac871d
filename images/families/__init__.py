"""One module per image family: how it takes its address, devices and arguments.

A family is any object with the attributes of `Family`. `family(name)` finds one; adding a family is
one module and one line: here in `FAMILIES`, or as an entry point of the group
``edgewake.image_families`` in a package of your own (docs/images.md).
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from functools import cache
from importlib import import_module
from importlib.metadata import entry_points
from pathlib import Path
from typing import Protocol, cast

from images.bootspec import BootRequest, BootSpec, Image, Platform
from images.errors import ImageError
from images.facts import Entry, ImageFacts

GROUP = "edgewake.image_families"

FAMILIES = {
    "command": "images.families.command:COMMAND",
    "hello": "images.families.hello:HELLO",
    "hermit": "images.families.hermit:HERMIT",
    "linux": "images.families.linux:LINUX",
    "mini-os": "images.families.mini_os:MINI_OS",
    "mirage": "images.families.mirage:MIRAGE",
    "nanos": "images.families.nanos:NANOS",
    "osv": "images.families.osv:OSV",
    "other": "images.families.other:OTHER",
    "rumprun": "images.families.rumprun:RUMPRUN",
    "solo5": "images.families.solo5:SOLO5",
    "unikraft": "images.families.unikraft:UNIKRAFT",
}

Inspect = Callable[[Path], ImageFacts]


class AddressBy(StrEnum):
    """How a guest learns its address."""

    CMDLINE = "command line"
    XENSTORE = "Xenstore"
    DHCP = "DHCP"
    FIXED = "fixed in the image"
    HOST = "set by its host"


@dataclass(frozen=True, slots=True)
class Traits:
    """What holds for all images of a family.

    `entries` says for each platform it runs on by which ways in, best first: a platform that is
    absent cannot run it, and `elsewhere` may say why in a clause. `least_memory_mib` was measured
    for each platform (absent: the default is the least), `default_memory_mib` is comfortable; both
    MiB. `address` is how a guest learns its address on each platform. `machines` are the QEMU
    machine types it was seen to answer on, the first is used; with `legacy_virtio` it needs a
    virtio network card that speaks the protocol from before virtio 1.0, which a card behind a PCI
    Express root port does not. `needs_kvm` says in a clause why QEMU without KVM cannot run it, or
    is empty. `no_migration` says in a clause why its guests do not survive live migration on a
    platform, as far as that is known. `end_pattern` and `obeys_shutdown` are as in `BootSpec`.
    `own_address` says that a guest can be told of one address of its own (`GuestAddress.own`).
    """

    name: str
    title: str
    entries: Mapping[Platform, tuple[Entry, ...]]
    default_memory_mib: int
    least_memory_mib: Mapping[Platform, int] = field(default_factory=dict)
    address: Mapping[Platform, AddressBy] = field(default_factory=dict)
    elsewhere: Mapping[Platform, str] = field(default_factory=dict)
    ipv6: bool = False
    machines: tuple[str, ...] = ("pc",)
    legacy_virtio: bool = False
    needs_kvm: str = ""
    no_migration: Mapping[Platform, str] = field(default_factory=dict)
    end_pattern: str = ""
    obeys_shutdown: bool = False
    own_address: bool = False

    def least(self, platform: Platform) -> int:
        """Return the least memory on a platform, in MiB."""
        return self.least_memory_mib.get(platform, self.default_memory_mib)


class Family(Protocol):
    """How the images of one family are booted."""

    @property
    def traits(self) -> Traits:
        """What holds for all its images."""
        ...

    def check(self, image: Image, inspect: Inspect) -> None:
        """Raise `ImageError` unless the image has the files this family needs.

        What `images.match` sees from the main file's facts is not repeated here.
        """
        ...

    def boot_spec(self, image: Image, facts: ImageFacts, request: BootRequest) -> BootSpec:
        """Return how to boot the image as requested; pure, touches no file.

        `facts` are those of the image's main file. Raises `ImageRefused` when the request cannot
        be said to this image (a value its syntax has no room for, too long a command line).
        """
        ...


def family(name: str) -> Family:
    """Return the family of that name; ImageError lists the known ones."""
    known = known_families()
    try:
        module, _, attribute = known[name].partition(":")
    except KeyError:
        names = ", ".join(sorted(known))
        raise ImageError(
            f"unknown image family {name!r}; known families: {names} (one that was installed since "
            "edgewake started is known after a restart)"
        ) from None
    try:
        return cast(Family, getattr(import_module(module), attribute))
    except Exception as error:
        raise ImageError(
            f"image family {name!r} cannot be loaded from {known[name]}: {error}; correct the "
            "package that brings it, or remove that"
        ) from error


@cache
def known_families() -> Mapping[str, str]:
    """Return where each family is: ours, which none can replace, and those of packages."""
    return {point.name: point.value for point in entry_points(group=GROUP)} | FAMILIES

"""One module per image family: how it takes its address, devices and arguments.

A family is any object with the attributes of `Family`. `family(name)` finds one; adding a family is
one module here and one line in `FAMILIES`.
"""

from importlib import import_module
from typing import Protocol, cast

from images.bootspec import BootRequest, BootSpec, Image
from images.errors import ImageError

FAMILIES = {
    "linux": "images.families.linux:LINUX",
}


class Family(Protocol):
    """How the images of one family are booted."""

    name: str
    least_memory_mib: int

    def check(self, image: Image) -> None:
        """Raise `ImageError` unless the image's files exist and look bootable for this family."""
        ...

    def boot_spec(self, image: Image, request: BootRequest) -> BootSpec:
        """Return how to boot the image as requested; pure, touches no file."""
        ...


def family(name: str) -> Family:
    """Return the family of that name; ImageError lists the known ones."""
    try:
        module, _, attribute = FAMILIES[name].partition(":")
    except KeyError:
        known = ", ".join(sorted(FAMILIES))
        raise ImageError(f"unknown image family {name!r}; known families: {known}") from None
    return cast(Family, getattr(import_module(module), attribute))

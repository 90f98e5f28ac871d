"""What a file is for, by its bytes: the bridge from `images.inspect` to the catalogue."""

from collections.abc import Callable
from pathlib import Path

from images.bootspec import Platform
from images.catalog.config import ImageConfig
from images.catalog.entry import QCOW2, RAW, Role
from images.catalog.files import reading
from images.errors import ImageRefused
from images.facts import Container, Format, ImageFacts
from images.qcow2_header import HEADER_BYTES, LEAST_BYTES, MAGIC, qcow2_header

Inspect = Callable[[Path], ImageFacts]


def look_at(path: Path) -> ImageFacts:
    """Return what `images.inspect` says of a file."""
    from images.inspect import inspect  # noqa: PLC0415 - a command that adds nothing needs none

    return inspect(path)


def role_of(facts: ImageFacts) -> Role | None:
    """Return what a file is for, or None if it cannot be told."""
    if facts.container is Container.QCOW2 or facts.format is Format.DISK:
        return Role.DISK
    if facts.format is Format.CPIO:
        return Role.INITRD
    return Role.KERNEL if facts.format in {Format.ELF, Format.BZIMAGE} else None


def disk_format(path: Path, what: str, said: str = "") -> str:
    """Return the format of a disk, raw or qcow2.

    Raises `ImageRefused` if it is not the one that was `said`, or if a qcow2 file names another
    file: QEMU would open that, whatever it is, and no digest vouches for it.
    """
    with reading(path) as file:
        head = file.read(HEADER_BYTES)
    found = QCOW2 if head.startswith(MAGIC) else RAW
    if said and said != found:
        raise ImageRefused(f"{what}: is said to be {said}, and its bytes are {found}")
    if found == QCOW2:
        header = qcow2_header(head)
        if header.backing_at or header.has_external_data:
            raise ImageRefused(
                f"{what}: its data are in another file as well (a backing or data file); "
                f"make one file of it: qemu-img convert -O qcow2 {what} NEW"
            )
        if len(head) < LEAST_BYTES or header.objection:
            raise ImageRefused(f"{what}: {header.objection or 'its qcow2 header is cut off'}")
    return found


def completed(config: ImageConfig, facts: ImageFacts) -> ImageConfig:
    """Return a configuration with what the main file's facts add; what was said stays."""
    known = ImageConfig(
        family=facts.family,
        platforms=_platforms(config.family or facts.family, facts),
        architecture=facts.architecture or "",
    )
    return known.overridden(config)


def _platforms(family_name: str, facts: ImageFacts) -> tuple[Platform, ...]:
    """Return the platforms that have a way into the image; none if the family is not known."""
    from images.families import family  # noqa: PLC0415 - see look_at

    if not family_name:
        return ()
    entries = family(family_name).traits.entries
    fitting = (each for each, ways in entries.items() if facts.entries & set(ways))
    return tuple(sorted(fitting))

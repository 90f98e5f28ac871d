"""Whether files make an image that some host can boot: asked before anything is copied or kept.

The rules are those of the wake path (`images.match`, the family's own), so that what is in the
catalogue is refused by a host only for what that host lacks.
"""

from collections.abc import Sequence
from dataclasses import replace

from images.bootspec import Disk, HostTraits, Image, Platform
from images.catalog.config import MOST_MEMORY_MIB, ImageConfig, config_of
from images.catalog.entry import Role, check_roles
from images.catalog.recognise import Inspect, completed
from images.catalog.sources import Part
from images.errors import ImageError, ImageRefused
from images.facts import ImageFacts
from images.families import Family, family
from images.families.template import parse
from images.match import match, resolve


def checked(parts: Sequence[Part], said: ImageConfig, inspect: Inspect) -> ImageConfig:
    """Return the configuration of an image, with what its files tell besides what was said.

    The parts have their roles (`told`). Raises `ImageRefused` unless some host can boot it.
    """
    check_roles([each.role for each in parts], parts[0].what if parts else "an image")
    main = next((each for each in parts if each.role is Role.KERNEL), None) or _first_disk(parts)
    try:
        facts = inspect(main.path)
        config = config_of(completed(said, facts).document(), "its configuration")
        image = _image(parts, config)
        how = family(resolve(image, facts))
        how.check(image, inspect)
        parse(config.template)
        _must_fit(image, facts, how, config.platforms or tuple(Platform))
    except ImageError as error:
        sentence = _in_their_words(error, parts)
        where = "" if sentence.startswith(main.what) else f"{main.what}: "
        raise ImageRefused(where + sentence) from error
    return config


def _first_disk(parts: Sequence[Part]) -> Part:
    return next(each for each in parts if each.role is Role.DISK)


def _image(parts: Sequence[Part], config: ImageConfig) -> Image:
    files = {each.role: each.path for each in parts}
    disks = tuple(
        Disk(each.path, each.format, each.read_only, each.name)
        for each in parts
        if each.role is Role.DISK
    )
    image = Image("", kernel=files.get(Role.KERNEL), initrd=files.get(Role.INITRD), disks=disks)
    return replace(image, **replace(config, platforms=(), architecture="").said())


def _must_fit(image: Image, facts: ImageFacts, how: Family, platforms: Sequence[Platform]) -> None:
    """Raise `ImageRefused` if none of the platforms takes it, whatever the host may have."""
    reasons: list[str] = []
    for platform in platforms:
        host = HostTraits(platform, kvm=True, dhcp=True)
        matched = match(image, facts, how.traits, host, MOST_MEMORY_MIB)
        if matched.entry is not None:
            return
        reasons.append(matched.why_not)
    raise ImageRefused("; ".join(dict.fromkeys(reasons)))


def _in_their_words(error: ImageError, parts: Sequence[Part]) -> str:
    """Return what is wrong with our copies of files as said of the files they were made of."""
    text = str(error)
    for part in parts:
        text = text.replace(str(part.path), part.what)
    return text

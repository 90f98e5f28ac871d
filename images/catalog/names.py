"""How images are called: ``web``, ``web:1.2``, or by digest; parsed once, here.

Names and tags are a subset of the reference grammar of the OCI image layout (annotations.md,
``org.opencontainers.image.ref.name``), so every OCI tool can say them.
"""

import re
from dataclasses import dataclass
from typing import NewType

from images.errors import ImageRefused

LATEST = "latest"
SHORT_DIGEST = 12  # hexadecimal digits that are shown to people
LEAST_PREFIX = 6  # hexadecimal digits by which a digest may be named
LONGEST_NAME = 200
LONGEST_TAG = 100

Digest = NewType("Digest", str)  # "sha256:" and 64 lower-case hexadecimal digits

_NAME = re.compile(r"[a-z0-9]+(?:[._/-][a-z0-9]+)*")
_TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]*")
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
_PREFIX = re.compile(rf"(?:sha256:)?([0-9a-f]{{{LEAST_PREFIX},64}})")


@dataclass(frozen=True, slots=True)
class Name:
    """What an image is called; `tag` is empty when it was not said."""

    name: str
    tag: str = ""

    def __str__(self) -> str:
        return f"{self.name}:{self.tag}" if self.tag else self.name

    def tagged(self) -> "Name":
        """Return the name with its tag, which is `latest` when it was not said."""
        return self if self.tag else Name(self.name, LATEST)


def name_of(text: str) -> Name:
    """Return the parts of ``NAME`` or ``NAME:TAG``; ImageRefused if it is neither."""
    name, colon, tag = text.partition(":")
    right = len(name) <= LONGEST_NAME and bool(_NAME.fullmatch(name)) and name != "sha256"
    tag_right = not colon or (len(tag) <= LONGEST_TAG and bool(_TAG.fullmatch(tag)))
    if not (right and tag_right):
        raise ImageRefused(
            f"{text[:300]!r} is no name for an image; write NAME or NAME:TAG, a name of a-z, 0-9 "
            "and inner '.', '_', '-' or '/', a tag of letters, digits, '.', '_' and '-'"
        )
    return Name(name, tag)


def is_name(text: str) -> bool:
    """Return whether the text is ``NAME`` or ``NAME:TAG``."""
    try:
        name_of(text)
    except ImageRefused:
        return False
    return True


def digest_of(text: object, where: str) -> Digest:
    """Return a digest somebody wrote, or raise ImageRefused naming `where` it was written."""
    if not isinstance(text, str) or not _DIGEST.fullmatch(text):
        raise ImageRefused(
            f"{where}: {str(text)[:100]!r} is no digest we read; write sha256: and 64 hexadecimal "
            "digits, as `sha256sum` prints them"
        )
    return Digest(text)


def prefix_of(text: str) -> str:
    """Return the hexadecimal digits of a (shortened) digest, or nothing if it is none."""
    match = _PREFIX.fullmatch(text)
    return match[1] if match else ""


def hex_of(digest: Digest) -> str:
    """Return the 64 digits of a digest: the name of its blob's file."""
    return digest.partition(":")[2]


def digest_in(file_name: str) -> Digest | None:
    """Return the digest that a blob's file is named by, or None if it is no such name."""
    digest = f"sha256:{file_name}"
    return Digest(digest) if _DIGEST.fullmatch(digest) else None

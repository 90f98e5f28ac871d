"""What travels with an image besides its files: the fields of `Image` that are not its files.

It is the configuration blob of an image in the catalogue (media type `oci.CONFIG`), and what an
``image.yaml`` or ``image.json`` beside the files says. Both are read without trust.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, fields, replace
from typing import Any

from images.bootspec import Platform
from images.errors import ImageRefused

LONGEST_LINE = 4000  # characters; as in a lab file
MOST_MEMORY_MIB = 1 << 30

_LINE = re.compile(r"[^\x00-\x1f\x7f-\x9f]*")
# One text, between anchors or not; a character that means something else has a backslash.
_PATTERN = re.compile(r"\^?(?:[^\\.*+?{}\[\]()|^$]|\\[\\.*+?{}\[\]()|^$])+\$?")
_WORD = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


@dataclass(frozen=True, slots=True)
class ImageConfig:
    """How an image is booted, where its family's own way is not meant.

    `platforms` are those it runs on, all if empty; `architecture` is as `uname -m` says it. The
    other fields are those of `images.bootspec.Image`, where `end_pattern` is but one text, maybe
    between ``^`` and ``$``.
    """

    family: str = ""
    platforms: tuple[Platform, ...] = ()
    architecture: str = ""
    cmdline: str = ""
    template: str = ""
    machine: str = ""
    end_pattern: str = ""
    obeys_shutdown: bool | None = None
    least_memory_mib: int | None = None

    def overridden(self, by: "ImageConfig") -> "ImageConfig":
        """Return this with everything that the other one says."""
        return replace(self, **by.said())

    def said(self) -> dict[str, Any]:
        """Return the fields that say something."""
        values = {each.name: getattr(self, each.name) for each in fields(self)}
        return {name: value for name, value in values.items() if value not in {"", (), None}}

    def document(self) -> dict[str, object]:
        """Return the configuration as it is written."""
        said = {name: value for name, value in asdict(self).items() if name in self.said()}
        if "platforms" in said:
            said["platforms"] = sorted(self.platforms)
        return said


def config_of(document: Mapping[str, object], where: str, *, strict: bool = False) -> ImageConfig:
    """Return a configuration that was read from somewhere; ImageRefused says what is wrong.

    Fields that are not known are an error with `strict` (somebody typed them) and ignored without
    (a later version wrote them).
    """
    unknown = sorted(str(key)[:64] for key in document if key not in _READERS)
    if strict and unknown:
        raise ImageRefused(
            f"{where}: there is no {', '.join(unknown)}; known are {', '.join(_READERS)}"
        )
    read: dict[str, Any] = {
        name: reader(document[name], f"{where}: {name}")
        for name, reader in _READERS.items()
        if document.get(name) is not None
    }
    return replace(ImageConfig(), **read)


def _line(value: object, where: str) -> str:
    if not isinstance(value, str) or len(value) > LONGEST_LINE or not _LINE.fullmatch(value):
        raise ImageRefused(f"{where}: not one line of at most {LONGEST_LINE} characters")
    try:
        value.encode()
    except UnicodeEncodeError:
        raise ImageRefused(f"{where}: not a text that UTF-8 can write") from None
    return value


def _word(value: object, where: str) -> str:
    if not isinstance(value, str) or (value and not _WORD.fullmatch(value)):
        raise ImageRefused(f"{where}: not one word of letters, digits, '.', '_' and '-'")
    return value


def _pattern(value: object, where: str) -> str:
    """Return a console text: no regular expression, as images come from strangers."""
    text = _line(value, where)
    if text and not _PATTERN.fullmatch(text):
        raise ImageRefused(
            f"{where}: write one text, after '^' and before '$' if a line begins or ends with it, "
            r"and a backslash before each of \.*+?{}[]()|^$ in it; 'end' in a lab file can say more"
        )
    return text


def _platforms(value: object, where: str) -> tuple[Platform, ...]:
    known = ", ".join(Platform)
    words = [value] if isinstance(value, str) else value
    if not isinstance(words, list) or not all(
        isinstance(word, str) and word in set(Platform) for word in words
    ):
        raise ImageRefused(f"{where}: not a list of {known}")
    return tuple(sorted({Platform(word) for word in words}))


def _flag(value: object, where: str) -> bool:
    if not isinstance(value, bool):
        raise ImageRefused(f"{where}: neither true nor false")
    return value


def _memory(value: object, where: str) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= MOST_MEMORY_MIB:
        raise ImageRefused(f"{where}: not a number of MiB")
    return value


_READERS: dict[str, Callable[[object, str], object]] = {
    "family": _word,
    "platforms": _platforms,
    "architecture": _word,
    "cmdline": _line,
    "template": _line,
    "machine": _word,
    "end_pattern": _pattern,
    "obeys_shutdown": _flag,
    "least_memory_mib": _memory,
}

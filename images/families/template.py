"""Templates of command lines: words in braces, optional parts in square brackets.

A family's own command line is a template, and an image of the lab file may bring another one:

- ``{gw}`` stands for a value; `WORDS` lists what there is;
- ``[ --gateway={gw}]`` is an optional part: it is left out if a word in it has no value, with all
  the text between the brackets;
- ``{{``, ``}}``, ``[[`` and ``]]`` are the characters themselves.

Outside brackets a word without a value is an error, except ``{args}`` and ``{config}``, which may
be empty. What a value looks like inside a family's syntax (quotes, escapes) is `cmdline`'s affair.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import NoReturn

from images.errors import ImageRefused

WORDS = {
    "ip": "IPv4 address",
    "prefix": "its prefix length, such as 24",
    "cidr": "both, such as 10.0.0.2/24",
    "mask": "the netmask, such as 255.255.255.0",
    "gw": "IPv4 gateway, if there is one",
    "ip6": "IPv6 address, if there is one",
    "prefix6": "its prefix length",
    "own": "a further address for its loopback, if there is one",
    "name": "name of the instance",
    "service": "name of the service",
    "host": "name of the host",
    "mac": "MAC address of the card",
    "args": "the image's cmdline",
    "config": "the service's config, written as the family takes it",
}
MAY_BE_EMPTY = frozenset({"args", "config"})

MOST_REMEMBERED = 256  # templates; every boot fills one in, and there are few

_TOKEN = re.compile(r"\{\{|\}\}|\[\[|\]\]|\{[^{}\[\]]*\}|[{}\[\]]|[^{}\[\]]+")
_DOUBLED = {"{{": "{", "}}": "}", "[[": "[", "]]": "]"}


@dataclass(frozen=True, slots=True)
class _Word:
    name: str


@dataclass(frozen=True, slots=True)
class _Optional:
    pieces: tuple["str | _Word", ...]


_Piece = str | _Word | _Optional


@dataclass(frozen=True, slots=True)
class Template:
    """A command line with words to be filled in; made by `parse`."""

    text: str
    _pieces: tuple[_Piece, ...]

    @property
    def words(self) -> frozenset[str]:
        """The words it has, also those in optional parts."""
        return frozenset(word.name for word in _words(self._pieces))

    @property
    def required(self) -> frozenset[str]:
        """The words outside optional parts."""
        return frozenset(piece.name for piece in self._pieces if isinstance(piece, _Word))

    def fill(self, values: Mapping[str, str]) -> str:
        """Return the text with its words filled in; an empty value counts as none.

        Raises `ImageRefused` for a word that has no value and is not in an optional part.
        """
        return "".join(self._filled(piece, values) for piece in self._pieces)

    def _filled(self, piece: _Piece, values: Mapping[str, str]) -> str:
        if isinstance(piece, str):
            return piece
        if isinstance(piece, _Word):
            return self._value(piece, values)
        if all(values.get(word.name) for word in _words(piece.pieces)):
            return "".join(self._filled(each, values) for each in piece.pieces)
        return ""

    def _value(self, word: _Word, values: Mapping[str, str]) -> str:
        value = values.get(word.name, "")
        if not value and word.name not in MAY_BE_EMPTY:
            _refuse(
                self.text,
                f"there is no {WORDS[word.name].split(',')[0]} for {{{word.name}}}; put the part "
                "that needs it in square brackets",
            )
        return value


@lru_cache(maxsize=MOST_REMEMBERED)
def parse(text: str) -> Template:
    """Return the template that `text` is; ImageRefused says what is wrong with it and where."""
    pieces: list[_Piece] = []
    inside: list[str | _Word] | None = None  # of the optional part that is open
    for at, mark in _tokens(text):
        if mark == "[":
            if inside is not None:
                _refuse(text, f"a square bracket inside square brackets at character {at + 1}")
            inside = []
        elif mark == "]":
            pieces.append(_closed(text, inside, at))
            inside = None
        elif inside is not None:
            inside.append(_piece(text, mark, at))
        else:
            pieces.append(_piece(text, mark, at))
    if inside is not None:
        _refuse(text, "a square bracket is never closed; write [[ for the character itself")
    return Template(text, tuple(pieces))


def _tokens(text: str) -> Iterator[tuple[int, str]]:
    for found in _TOKEN.finditer(text):
        yield found.start(), found.group()


def _piece(text: str, mark: str, at: int) -> str | _Word:
    if mark in _DOUBLED:
        return _DOUBLED[mark]
    if mark in {"{", "}"}:
        _refuse(text, f"a lone {mark} at character {at + 1}; write {mark * 2} for the character")
    if not mark.startswith("{"):
        return mark
    if mark[1:-1] not in WORDS:
        known = " ".join(f"{{{name}}}" for name in WORDS)
        _refuse(text, f"unknown word {mark}; there are {known}")
    return _Word(mark[1:-1])


def _closed(text: str, inside: Sequence[str | _Word] | None, at: int) -> _Optional:
    if inside is None:
        _refuse(text, f"a lone ] at character {at + 1}; write ]] for the character")
    if not any(isinstance(piece, _Word) for piece in inside):
        _refuse(
            text,
            "an optional part without a word in it, which would always be there; write [[ and ]] "
            "for the characters themselves",
        )
    return _Optional(tuple(inside))


def _words(pieces: Sequence[_Piece]) -> Iterator[_Word]:
    for piece in pieces:
        if isinstance(piece, _Word):
            yield piece
        elif isinstance(piece, _Optional):
            yield from _words(piece.pieces)


def _refuse(text: str, why: str) -> NoReturn:
    raise ImageRefused(f"template {text!r}: {why}")

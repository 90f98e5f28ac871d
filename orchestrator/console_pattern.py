"""Regular expressions for consoles: found in linear time, whatever a guest prints.

A guest writes what is searched, and an image may bring the pattern, so an engine that backtracks
would let either of them stop everything else. RE2 does not; it has neither look-around nor back
references (syntax: https://github.com/google/re2/wiki/Syntax).
"""

from functools import lru_cache

import re2

LINES = "(?m)"  # ^ and $ are the ends of a line


class NotAPattern(ValueError):  # noqa: N818 - reads as a sentence where it is raised
    """The text is no regular expression that RE2 takes."""


def check(pattern: str) -> None:
    """Raise `NotAPattern` unless it is a regular expression."""
    _compiled(pattern)


def found(pattern: str, console: bytes) -> bool:
    """Return whether a console shows a pattern; ``^`` and ``$`` are the ends of a line.

    Raises `NotAPattern`.
    """
    return _compiled(pattern).search(console.replace(b"\r\n", b"\n")) is not None


@lru_cache(maxsize=256)
def _compiled(pattern: str) -> "re2._Regexp":
    options = re2.Options()
    options.log_errors = False
    try:
        return re2.compile(f"{LINES}{pattern}".encode(), options=options)
    except re2.error as error:
        said = error.args[0] if error.args else b""
        text = said.decode(errors="replace") if isinstance(said, bytes) else str(said)
        text = text.replace(LINES, "")
        raise NotAPattern(f"{pattern!r} is not a regular expression of RE2: {text}") from None

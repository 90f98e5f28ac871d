"""What guests print, as text that a page may show: bounded, and without terminal escapes.

A guest can print anything. Escaping for HTML is the template's business; here sequences that would
mean something to a terminal are removed, so that neither the page nor who copies from it to a
terminal is told what to do.
"""

import re

MOST_LINES = 500  # of a console on a page: about ten screens

# ECMA-48: CSI (ESC [ or U+009B), then strings up to ST or BEL (OSC, DCS, SOS, PM, APC), then the
# rest: ESC, intermediate bytes, a final one. A string without an end takes no more than its line.
_ESCAPES = re.compile(
    r"(?:\x1b\[|\x9b)[0-?]*[ -/]*[@-~]"
    r"|(?:\x1b[\]PX^_]|[\x90\x98\x9d\x9e\x9f])[^\x07\x1b\x9c\n]*(?:\x07|\x1b\\|\x9c)?"
    r"|\x1b[ -/]*[0-~]?"
)
# Control characters but for tab and line feed, and those that turn the direction of text.
_CONTROLS = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]")


def plain(text: str) -> str:
    """Return text without terminal escapes and control characters; lines end in line feeds."""
    lines = text.replace("\r\n", "\n").replace("\r", "\n")
    return _CONTROLS.sub("", _ESCAPES.sub("", lines))


def tail(text: str, most: int = MOST_LINES) -> str:
    """Return the last lines of what a guest printed, plain."""
    lines = plain(text).rstrip("\n").split("\n")
    return "\n".join(lines[-most:])

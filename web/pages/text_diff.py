"""The lines by which two versions of a lab file differ, with a few around them. Pure."""

from collections.abc import Iterator
from dataclasses import dataclass
from difflib import SequenceMatcher

AROUND = 3  # lines shown before and after a change


@dataclass(frozen=True, slots=True)
class Line:
    """A line of a diff: `kind` is added, removed, same or skipped; numbers are None if absent."""

    kind: str
    before: int | None
    after: int | None
    text: str


def diff(before: str, after: str) -> tuple[Line, ...]:
    """Return what changes `before` into `after`; nothing if they are the same."""
    old, new = before.splitlines(), after.splitlines()
    groups = SequenceMatcher(None, old, new, autojunk=False).get_grouped_opcodes(AROUND)
    lines: list[Line] = []
    for group in groups:
        if lines:
            lines.append(Line("skipped", None, None, "…"))
        for tag, i, i_end, j, j_end in group:
            lines += _lines(tag, old[i:i_end], new[j:j_end], i + 1, j + 1)
    return tuple(lines)


def _lines(tag: str, old: list[str], new: list[str], i: int, j: int) -> Iterator[Line]:
    if tag == "equal":
        for n, text in enumerate(old):
            yield Line("same", i + n, j + n, text)
        return
    for n, text in enumerate(old):
        yield Line("removed", i + n, None, text)
    for n, text in enumerate(new):
        yield Line("added", None, j + n, text)

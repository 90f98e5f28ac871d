"""What is wrong with a lab file, collected line by line and told in one error.

For `orchestrator.labfile` and `orchestrator.lab_checks`: whoever finds something says where, as the
path of keys; this knows the lines, and that a mistake in `defaults` is one mistake however many
services have it.
"""

from dataclasses import dataclass, field
from pathlib import Path

from orchestrator.errors import LabError
from orchestrator.lab_values import shown

MOST_SHOWN = 50  # problems in one message

Where = tuple[str | int, ...]


@dataclass(slots=True)
class Report:
    """What is wrong so far, and the line of each key."""

    path: Path
    lines: dict[Where, int] = field(default_factory=dict)
    found: set[tuple[int, str, str]] = field(default_factory=set)

    def add(self, where: Where, message: str, *, line: int | None = None) -> None:
        """Note a problem; one seen through several services that share a default counts once."""
        where = self.written_at(where)
        dotted = ".".join(part if _plain(part) else shown(part) for part in map(str, where))
        self.found.add((line or self.line(where), dotted, message))

    def line(self, where: Where) -> int:
        """Return the line of a key, or of the nearest key around it that is there."""
        where = self.written_at(where)
        while where and where not in self.lines:
            where = where[:-1]
        return self.lines.get(where, 1)

    def raise_if_any(self) -> None:
        """Raise one LabError with every problem, in the order of the file."""
        if not self.found:
            return
        first, *rest = sorted(self.found)
        others = [
            str(LabError(m, file=self.path, line=n, field=f)) for n, f, m in rest[: MOST_SHOWN - 1]
        ]
        if len(rest) >= MOST_SHOWN:
            others.append(f"and {len(rest) + 1 - MOST_SHOWN} more")
        message = "\n".join([first[2], *others])
        raise LabError(message, file=self.path, line=first[0], field=first[1])

    def written_at(self, where: Where) -> Where:
        """Return where a key is written.

        That is in `defaults`, if a service has it from there; and a list of one may be written as
        what is in it.
        """
        if where[:1] == ("services",) and where[:3] not in self.lines:
            inherited = ("defaults", *where[2:])
            if inherited[:2] in self.lines:
                where = inherited
        if where and isinstance(where[-1], int) and where not in self.lines:
            return where[:-1] if where[:-1] in self.lines else where
        return where


def _plain(part: str) -> bool:
    return part.isprintable() and 0 < len(part) <= 60

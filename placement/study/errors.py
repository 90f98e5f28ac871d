"""What can go wrong with a study before its first run.

StudyError          the study cannot be carried out; nothing was run
├── StudyFileError  the study file is wrong: file, line and field of each mistake
├── FolderInUse     another process works in the results folder
└── MissingExtra    a package of an optional extra is not installed; the message names the extra

A run that fails is no error of the study: it is a row that says so.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

MOST_SHOWN = 50  # mistakes in one message


class StudyError(Exception):
    """The study cannot be carried out."""


class FolderInUse(StudyError):  # noqa: N818 - reads as a sentence where it is raised
    """Another process works in the results folder."""


class MissingExtra(StudyError):  # noqa: N818 - as above
    """A package is not installed that only studies need."""

    def __init__(self, package: str, extra: str) -> None:
        super().__init__(
            f"{package} is not installed, which this needs: pip install 'edgewake[{extra}]'"
        )
        self.package, self.extra = package, extra


@dataclass(frozen=True, slots=True, order=True)
class Mistake:
    """What is wrong at a line (from 1; 0 is unknown) and field of a study file."""

    line: int
    field: str
    message: str

    def told(self, file: Path | None) -> str:
        """Return the mistake as ``file:line: field: message``, without what is unknown."""
        place = ":".join(str(part) for part in (file, self.line or None) if part is not None)
        return ": ".join(part for part in (place, self.field, self.message) if part)


class StudyFileError(StudyError):
    """A study file (or a study made in Python) is wrong; `mistakes` has all that were found."""

    def __init__(self, mistakes: Sequence[Mistake], file: Path | None = None) -> None:
        self.mistakes = tuple(sorted(set(mistakes)))
        self.file = file
        told = [mistake.told(file) for mistake in self.mistakes[:MOST_SHOWN]]
        if len(self.mistakes) > MOST_SHOWN:
            told.append(f"and {len(self.mistakes) - MOST_SHOWN} more")
        super().__init__("\n".join(told))

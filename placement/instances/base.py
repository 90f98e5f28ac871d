"""What all readers share: an instance with its reference, and a careful reader of numbers."""

import math
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from placement.matrix import Floats
from placement.problem import Malformed, Options, Problem

MOST_NUMBERS = 20_000_000  # in one file; more is a mistake or an attack
MOST_BYTES = 200_000_000


@dataclass(frozen=True, slots=True)
class Reference:
    """What is published about an instance; None where nothing is.

    No plan is better than `bound`; `optimum` is proven, `best` the best known. `source` says where
    the numbers are from.
    """

    source: str
    optimum: float | None = None
    bound: float | None = None
    best: float | None = None

    @property
    def target(self) -> float | None:
        """Return the value to compare with: the optimum, else the best known."""
        return self.best if self.optimum is None else self.optimum

    def gap(self, value: float) -> float | None:
        """Return by what part a value is above the target; None if there is no target."""
        if self.target is None:
            return None
        return (value - self.target) / max(abs(self.target), 1e-9)


NOTHING = Reference("")


@dataclass(frozen=True, slots=True)
class Instance:
    """A problem, options whose weights make its value the published one, and the reference."""

    name: str
    problem: Problem
    options: Options = field(default_factory=Options)
    reference: Reference = NOTHING


class Numbers:
    """The numbers of a text file, in order. Every complaint names the file and the line."""

    def __init__(self, path: Path) -> None:
        self.path = path
        text = read(path)
        self._tokens: list[str] = []
        self._lines: list[int] = []
        for line, words in enumerate(text.splitlines(), 1):
            found = words.split()
            self._tokens += found
            self._lines += [line] * len(found)
        if len(self._tokens) > MOST_NUMBERS:
            raise self.wrong(f"more than {MOST_NUMBERS} numbers")
        self._next = 0

    @property
    def left(self) -> int:
        """Return how many numbers are left."""
        return len(self._tokens) - self._next

    def number(self, what: str) -> float:
        """Return the next number, finite and at least 0."""
        if not self.left:
            raise self.wrong(f"the file ends where {what} is expected")
        token = self._tokens[self._next]
        try:
            value = float(token)
        except ValueError:
            value = math.nan
        if not 0 <= value < math.inf:
            raise self.wrong(f"{what} must be a number of at least 0, not {token[:20]!r}")
        self._next += 1
        return value

    def count(self, what: str, least: int = 0, most: int = 10**15) -> int:
        """Return the next number, which must be whole and within bounds."""
        value = self.number(what)
        if value != int(value) or not least <= value <= most:
            self._next -= 1
            raise self.wrong(f"{what} must be whole, {least} to {most}, not {value:g}")
        return int(value)

    def row(self, what: str, length: int) -> Floats:
        """Return the next numbers."""
        if length > self.left:
            raise self.wrong(f"{length} numbers for {what} are expected, {self.left} are left")
        return np.array([self.number(what) for _ in range(length)], dtype=float)

    def table(self, what: str, rows: int, columns: int) -> Floats:
        """Return the next numbers, row by row."""
        return self.row(what, rows * columns).reshape(rows, columns)

    def end(self) -> None:
        """Complain if anything is left."""
        if self.left:
            raise self.wrong(f"{self.left} numbers too many")

    def wrong(self, message: str) -> Malformed:
        """Return the complaint about the place where the next number is."""
        last = self._lines[min(self._next, len(self._lines) - 1)] if self._lines else 1
        return Malformed(f"{self.path.name}:{last}", message)


def read(path: Path) -> str:
    """Return the text of a file; `Malformed` if it cannot be read, is too large or is no text."""
    try:
        if path.stat().st_size > MOST_BYTES:
            raise Malformed(path.name, f"larger than {MOST_BYTES} bytes")
        return path.read_text(encoding="utf-8")
    except OSError as error:
        raise Malformed(path.name, error.strerror or "cannot be read") from error
    except UnicodeDecodeError as error:
        raise Malformed(path.name, "is no text") from error

"""Metrics as families of samples, and the text format that Prometheus reads, version 0.0.4.

The format is a page of rules (Prometheus, "Exposition formats"), so it is written here instead of
by a library.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from orchestrator.metrics import Labels

Sample = tuple[str, Labels, float]  # what the name ends with, labels, value


@dataclass(frozen=True, slots=True)
class Family:
    """All samples of one name."""

    name: str
    kind: str
    about: str
    samples: tuple[Sample, ...]


def text(families: Iterable[Family]) -> str:
    """Return families as text."""
    return "".join(line for family in families for line in _lines(family))


def number(value: float) -> str:
    """Return a number as the format has it."""
    return "+Inf" if value == float("inf") else repr(value)


def _lines(family: Family) -> Iterator[str]:
    yield f"# HELP {family.name} {family.about}\n# TYPE {family.name} {family.kind}\n"
    for ending, labels, value in family.samples:
        shown = ",".join(f'{name}="{_escaped(text)}"' for name, text in labels)
        yield f"{family.name}{ending}{f'{{{shown}}}' if shown else ''} {number(value)}\n"


def _escaped(text: str) -> str:
    return text.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")

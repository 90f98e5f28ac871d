"""The programs in docs/placement.md run as they stand there."""

import re
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path

import pytest

from placement.evaluate import UNITS
from placement.problem import (
    DEFAULT_WEIGHTS,
    Chain,
    Demand,
    Flavour,
    Host,
    Link,
    Problem,
    Slice,
    Traffic,
)
from placement.rules import Rule

PAGE = Path(__file__).parents[2] / "docs" / "placement.md"
PROGRAMS = re.findall(r"^```python\n(.*?)^```", PAGE.read_text(), re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("program", PROGRAMS)
def test_a_program_of_the_page_runs(program: str, capsys: pytest.CaptureFixture[str]) -> None:
    exec(compile(program, str(PAGE), "exec"), {})  # noqa: S102 - it is our own page
    assert re.search(r"near|'d': 'c'|'web': \('b',\)", capsys.readouterr().out)


def test_there_are_programs() -> None:
    assert len(PROGRAMS) == 4


def rows(after: str, count: int) -> Iterator[list[str]]:
    """Yield the cells of the first table after a text."""
    lines = PAGE.read_text().split(after, 1)[1].split("\n\n| ", 1)[1].split("\n\n", 1)[0]
    for line in lines.splitlines()[2:]:
        cells = [each.strip() for each in line.strip().strip("|").split("|")]
        assert len(cells) == count, line
        yield cells


def ticked(text: str) -> set[str]:
    """Return the names in backticks, less what they are by (`rates[population]` is `rates`)."""
    return {re.split(r"[\[ ]", each)[0] for each in re.findall(r"`([^`]+)`", text)}


OBJECTS = {
    "problem": Problem,
    "host": Host,
    "demand": Demand,
    "flavour": Flavour,
    "traffic": Traffic,
    "link": Link,
    "chain": Chain,
    "slice": Slice,
}
VALUES = {"every-copy", "nearest-copy", "kill-and-boot", "make-before-break"}


def test_the_fields_are_those_of_the_code() -> None:
    """The whole schema: whoever adds a field says so on the page."""
    told = {name: ticked(text) - VALUES for name, text in rows("## A problem, and its JSON", 2)}
    del told["rule"]
    assert told == {name: {each.name for each in fields(kind)} for name, kind in OBJECTS.items()}


def test_the_rules_are_those_of_the_code() -> None:
    told: dict[str, set[str]] = {}
    for kinds, names, _ in rows("## Rules", 3):
        told |= dict.fromkeys(ticked(kinds), ticked(names))
    every = {
        kind.kind: {each.name for each in fields(kind)} - {"must", "weight"}
        for kind in Rule.__args__
    }
    assert told == every


def test_the_terms_and_their_weights_are_those_of_the_code() -> None:
    told: dict[str, float] = {}
    for names, unit, weight in rows("## What counts", 3):
        told |= dict.fromkeys(ticked(names), float(weight))
        for name, known in UNITS.items():
            if f"`{name}`" in names and known in {"ms", "W", "requests/s"}:
                assert known in unit
    assert told == {name: DEFAULT_WEIGHTS.get(name, 0.0) for name in UNITS}

"""The programs in docs/placement.md run as they stand there."""

import re
from pathlib import Path

import pytest

PAGE = Path(__file__).parents[2] / "docs" / "placement.md"
PROGRAMS = re.findall(r"^```python\n(.*?)^```", PAGE.read_text(), re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("program", PROGRAMS)
def test_a_program_of_the_page_runs(program: str, capsys: pytest.CaptureFixture[str]) -> None:
    exec(compile(program, str(PAGE), "exec"), {})  # noqa: S102 - it is our own page
    assert re.search(r"near|'web': \('b',\)", capsys.readouterr().out)


def test_there_are_programs() -> None:
    assert len(PROGRAMS) == 2

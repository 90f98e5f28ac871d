"""docs/study.md says what is so: its programs run, its study loads, its tables are complete."""

import re
from inspect import signature
from pathlib import Path

import pytest

from placement.generate import GENERATORS, generator
from placement.generate.churn import churn
from placement.study import Study
from placement.study.runs import spelled_out
from placement.study.spec import COLUMNS, Instances
from placement.study.table import TIMES

PAGE = (Path(__file__).parents[3] / "docs" / "study.md").read_text()


def _blocks(kind: str) -> list[str]:
    return re.findall(rf"^```{kind}\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)


def _named(text: str) -> set[str]:
    return set(re.findall(r"`([\w-]+)`", text))


def _section(title: str) -> str:
    return PAGE.partition(f"# {title}\n")[2].partition("\n## ")[0]


def test_the_programs_run_as_they_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    programs = _blocks("python")
    assert len(programs) == 3
    scope: dict[str, object] = {}
    for program in programs:
        exec(compile(program, "docs/study.md", "exec"), scope)  # noqa: S102 - that is the test
    assert (tmp_path / "results" / "report.md").is_file()
    assert "error" not in capsys.readouterr().out


def test_the_study_has_as_many_runs_as_the_page_says(tmp_path: Path) -> None:
    (text,) = _blocks("yaml")
    path = tmp_path / "first.yaml"
    path.write_text(text)
    runs = list(spelled_out(Study.read(path)))
    assert f"so {len(runs)} runs" in PAGE


def test_every_key_of_a_study_file_is_told() -> None:
    told = _named(_section("The study file"))
    assert {*Study.model_fields, *Instances.model_fields} <= told


def test_every_column_is_told() -> None:
    assert {*COLUMNS, *TIMES} <= _named(_section("The table"))


@pytest.mark.parametrize("name", GENERATORS)
def test_every_generator_is_told_with_all_its_parameters(name: str) -> None:
    section = _section("Generators")
    assert {name, *list(signature(generator(name)).parameters)[1:]} <= _named(section)


def test_every_parameter_of_churn_is_told_with_its_default() -> None:
    section = _section("Churn")
    for name, each in list(signature(churn).parameters.items())[2:]:
        (row,) = [
            line for line in section.splitlines() if line.startswith("|") and f"`{name}`" in line
        ]
        assert str(each.default) in row

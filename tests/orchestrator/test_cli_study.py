"""`edgewake study`: from a file to a report, and what it says when that cannot be."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from orchestrator.cli import Exit, app

STUDY = """\
instances: {u: {generator: uniform, parameters: {hosts: 3, services: 6}, seeds: 2}}
algorithms: {first-fit: {}, exact: {parameters: {gap: [0.1, 0.5]}}}
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "try.yaml"
    path.write_text(STUDY)
    return path


def _run(*arguments: str | Path) -> Result:
    return CliRunner().invoke(app, ["study", *map(str, arguments)])


def test_a_study_gives_a_report_beside_its_file(file: Path) -> None:
    result = _run(file)
    assert result.exit_code == Exit.OK, result.output
    assert "try: 6 runs: 6 done now, 0 found done, 0 without a plan" in result.stdout
    assert f"report: {file.with_suffix('')}/report.md" in result.stdout
    assert "try: 6 of 6 runs" in result.stderr
    assert (file.with_suffix("") / "results.parquet").is_file()


def test_json_is_one_document_and_a_finished_study_is_not_run_again(
    file: Path, tmp_path: Path
) -> None:
    to = tmp_path / "elsewhere"
    _run(file, "--to", to)
    answer = json.loads(_run(file, "--to", to, "--workers", "2", "--json").stdout)
    assert answer == {
        "study": "try",
        "runs": 6,
        "found": 6,
        "done": 0,
        "failed": 0,
        "report": str(to / "report.md"),
    }


def test_a_dry_run_counts_and_makes_nothing(file: Path) -> None:
    answer = json.loads(_run(file, "--dry-run", "--json").stdout)
    assert answer["runs"] == {"first-fit": 2, "exact (gap=0.1)": 2, "exact (gap=0.5)": 2}
    assert "2 runs of first-fit" in _run(file, "--dry-run").stdout
    assert not file.with_suffix("").exists()


def test_a_wrong_file_is_told_with_its_lines(file: Path) -> None:
    file.write_text(STUDY.replace("seeds", "seed").replace("exact", "exatc"))
    result = _run(file)
    assert result.exit_code == Exit.LAB_INVALID
    assert f"{file}:1: instances.u.seed: unknown key" in result.stderr


def test_a_missing_extra_is_told_before_anything_runs(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    result = _run(file)
    assert result.exit_code == Exit.INSTALLATION
    assert "pip install 'edgewake[study]'" in result.stderr
    assert not file.with_suffix("").exists()


def test_what_cannot_be_carried_out_is_told(file: Path) -> None:
    file.with_suffix("").write_text("in the way")
    result = _run(file)
    assert result.exit_code == Exit.FAILED
    assert "cannot be written" in result.stderr


def test_the_schema_of_study_files() -> None:
    result = CliRunner().invoke(app, ["schema", "--study"])
    assert json.loads(result.stdout)["title"] == "edgewake study file"


def test_the_command_loads_nothing_heavy_by_itself() -> None:
    code = "import sys, orchestrator.cli_study; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not {"pandas", "pydantic", "matplotlib", "placement.study"} & set(done.stdout.split())

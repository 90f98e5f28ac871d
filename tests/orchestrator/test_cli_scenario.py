"""The command `edgewake net scenario`."""

import csv
import json
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from orchestrator.cli import Exit, app
from orchestrator.routers.memory import MemoryRouters

GOLDEN = Path(__file__).parents[1] / "golden" / "scenario"
FIVE = Path(__file__).parents[2] / "examples" / "five-routers.yaml"


def run(*args: object) -> Result:
    return CliRunner().invoke(app, ["net", "scenario", *map(str, args)])


def test_a_scenario_is_played_and_its_table_printed(tmp_path: Path) -> None:
    table = tmp_path / "table.csv"
    result = run(GOLDEN / "churn.yaml", "--json", "--csv", table)
    assert result.exit_code == 0, result.output
    rows = [json.loads(line) for line in result.stdout.splitlines()]
    assert [row["event"] for row in rows][:: len(rows) - 1] == ["start", "end"]
    with table.open() as file:
        assert [row["event"] for row in csv.DictReader(file)] == [row["event"] for row in rows]


def test_the_events_are_listed_and_go_with_the_seed() -> None:
    listed = run(GOLDEN / "churn.yaml", "--events")
    assert listed.stdout == (GOLDEN / "churn.events").read_text()
    assert run(GOLDEN / "churn.yaml", "--events", "--seed", 8).stdout != listed.stdout


def test_a_scenario_can_begin_with_a_labs_network(tmp_path: Path) -> None:
    """In its time, too."""
    file = tmp_path / "run.yaml"
    file.write_text(
        f"lab: {FIVE}\nduration: 1 s\nevents:\n"
        "  - {at: 10 ms, link_down: r1--r2}\n"
        "  - {at: 100 ms, request: {source: desk, target: yard}}\n"
        "  - {at: 101 ms, add_router: {name: r6, links: [r1]}}\n"
    )
    result = run(file, "--speed", "real", "--json")
    assert result.exit_code == 0, result.output
    rows = [json.loads(line) for line in result.stdout.splitlines()]
    assert [row["routers"] for row in rows] == [5, 5, 5, 6, 0]
    assert rows[2]["answered"] is True


def test_what_is_broken_ends_it_with_1_and_how_to_play_it_again(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    file = tmp_path / "run.yaml"
    file.write_text("duration: 1 s\nrouters: 3\n")
    monkeypatch.setattr(MemoryRouters, "paths", lambda _self: _NoWay())
    result = run(file, "--seed", 5)
    assert result.exit_code == Exit.FAILED
    assert "BROKEN: " in result.stdout
    assert f"{file}: after event 0 (start): " in result.stderr
    assert "play it again with --seed 5 --back-end memory" in result.stderr


class _NoWay:
    def path(self, _a: str, _b: str) -> tuple[str, ...]:
        return ()


def test_a_mistake_in_the_file_is_told_as_one_in_a_lab_is(tmp_path: Path) -> None:
    file = tmp_path / "run.yaml"
    file.write_text("duration: 1 s\nrouters: 3\nevents:\n  - {at: 0 s, link_up: r1--r9}\n")
    result = run(file)
    assert result.exit_code == Exit.LAB_INVALID
    assert f"{file}:4: events.0.link_up: there is no link r1--r9" in result.stderr

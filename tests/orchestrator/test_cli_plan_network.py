"""`edgewake plan routers` and `plan aggregation`: from a lab file to words and JSON."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from orchestrator.cli import Exit, app

LAB = str(Path(__file__).parents[2] / "examples" / "four-mecs.yaml")


@pytest.fixture
def run(tmp_path: Path) -> Any:
    def invoke(*args: str) -> Result:
        return CliRunner().invoke(app, ["--state", str(tmp_path), "plan", *args])

    return invoke


def test_routers_are_planned_from_a_file(run: Any) -> None:
    result = run("routers", LAB)
    assert re.search(r"mec-1 +mec1-host", result.stdout), result.output
    assert "4 links between hosts, 40000 Mbit/s together" in result.stdout
    answer = json.loads(run("routers", LAB, "--algorithm", "nup", "--json").stdout)
    assert answer["algorithm"] == "nup"
    assert answer["routers"]["mec-1"] == "mec1-host"  # where guests are attached to it
    assert answer["mbps"] > 40000


def test_algorithms_are_shown_side_by_side(run: Any) -> None:
    result = run("routers", LAB, "--compare")
    assert re.search(r"least-used +\d", result.stdout), result.output
    lines = json.loads(run("routers", LAB, "--compare", "--json").stdout)["algorithms"]
    assert lines[0]["value"] == min(line["value"] for line in lines)
    few = run("routers", LAB, "--cpu", "9", "--compare", "--deadline", "2")
    assert re.search(r"nup +no placement of all routers", few.stdout), few.output


def test_aggregation_points_are_planned_from_a_file(run: Any) -> None:
    result = run("aggregation", LAB, "-p", "2")
    assert "points: x-1, y-2" in result.stdout, result.output
    assert re.search(r"mec-1 +x-1", result.stdout)
    answer = json.loads(run("aggregation", LAB, "-p", "2", "--json").stdout)
    assert (answer["value"], answer["gap"]) == (138, 0)
    lines = json.loads(run("aggregation", LAB, "-p", "2", "--compare", "--json").stdout)
    assert [line["value"] for line in lines["algorithms"]][:2] == [138, 138]


@pytest.mark.parametrize(
    ("command", "code", "said"),
    [
        (["routers", LAB, "--algorithm", "magic"], Exit.USAGE, "named 'magic'"),
        (["routers", LAB, "--algorithm", "nup", "--compare"], Exit.USAGE, "--compare does not go"),
        (["aggregation", LAB, "--algorithm", "x", "--compare"], Exit.USAGE, "does not go with"),
        (["aggregation", LAB, "-p", "99"], Exit.FAILED, "count: must be 1 to 15"),
        (["routers", LAB, "--host", "gone"], Exit.LAB_INVALID, "no host named 'gone'"),
    ],
)
def test_what_cannot_be_is_told(run: Any, command: list[str], code: Exit, said: str) -> None:
    result = run(*command)
    assert result.exit_code == code, result.output
    assert said in re.sub(r"[\s│]+", " ", result.stderr)


def test_services_are_planned_where_nothing_is_named(run: Any) -> None:
    one, other = (run(*words, LAB, "--json") for words in ((), ("services",)))
    assert one.exit_code == other.exit_code == Exit.OK, one.output
    assert json.loads(one.stdout)["plan"]["hosts"] == json.loads(other.stdout)["plan"]["hosts"]

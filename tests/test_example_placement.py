"""The algorithm of examples/placement_example, found the way an installed package is found."""

import sys
import tomllib
from collections.abc import Iterator
from importlib import invalidate_caches
from pathlib import Path

import pytest

from placement.problem import Demand, Host, Malformed, Options, Problem
from placement.registry import GROUP, names
from placement.rules import Gather
from placement.solving import solve

EXAMPLE = Path(__file__).parents[1] / "examples" / "placement_example"
PROBLEM = Problem(
    (Host("a", {"cpu": 8}), Host("b", {"cpu": 8})),
    tuple(Demand(f"d{n}", {"cpu": 1}, rates={"p": float(n)}) for n in (9, 4, 3)),
    {"p": {"a": 1.0, "b": 2.0}},
)


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Lay the package out as pip would: its module, and what its pyproject says of it."""
    project = tomllib.loads((EXAMPLE / "pyproject.toml").read_text())["project"]
    info = tmp_path / f"{project['name'].replace('-', '_')}-{project['version']}.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(
        f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: {project['version']}\n"
    )
    points = "".join(f"{key} = {value}\n" for key, value in project["entry-points"][GROUP].items())
    (info / "entry_points.txt").write_text(f"[{GROUP}]\n{points}")
    for module in EXAMPLE.glob("*.py"):
        (tmp_path / module.name).write_text(module.read_text())
    monkeypatch.syspath_prepend(str(tmp_path))
    invalidate_caches()
    yield
    sys.modules.pop("edgewake_placement_quiet", None)


def test_without_the_package_there_is_no_such_algorithm() -> None:
    assert "quiet" not in names()
    with pytest.raises(Malformed, match="no placement algorithm named 'quiet'"):
        solve(PROBLEM, Options(algorithm="quiet"))


def test_it_is_found_and_places(installed: None) -> None:
    assert "quiet" in names()
    plan = solve(PROBLEM, Options(algorithm="quiet"))
    assert plan.algorithm == "quiet"
    assert plan.hosts == {"d9": ("a",), "d4": ("b",), "d3": ("b",)}
    assert plan.bound > 0


def test_what_it_does_not_mind_is_refused(installed: None) -> None:
    ruled = Problem(PROBLEM.hosts, PROBLEM.demands, rules=(Gather(frozenset({"d9", "d4"})),))
    with pytest.raises(Malformed, match="quiet ignores rule gather; use exact"):
        solve(ruled, Options(algorithm="quiet"))

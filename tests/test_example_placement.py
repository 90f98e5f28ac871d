"""The algorithm of examples/placement_example, found the way an installed package is found."""

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from placement.problem import Demand, Host, Malformed, Options, Problem
from placement.registry import GROUP, names
from placement.rules import Gather
from placement.solving import solve
from tests.plug_in import lay_out

EXAMPLE = Path(__file__).parents[1] / "examples" / "placement_example"
PROBLEM = Problem(
    (Host("a", {"cpu": 8}), Host("b", {"cpu": 8})),
    tuple(Demand(f"d{n}", {"cpu": 1}, rates={"p": float(n)}) for n in (9, 4, 3)),
    {"p": {"a": 1.0, "b": 2.0}},
)


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    lay_out(EXAMPLE, GROUP, tmp_path, monkeypatch)
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

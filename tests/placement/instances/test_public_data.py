"""The readers over the real files, where EDGEWAKE_PUBLIC_DATA names the folder that has them.

The folder has `gap/`, `sscflp/holmberg/`, `sscflp/orlib/`, `orlib_cap/`, `eua/` and
`roadef2012/A/`. `benchmarks/placement_public.py` says where each is from, and runs all of them.
"""

import os
from pathlib import Path

import pytest

from benchmarks import placement_public as public
from placement.instances import roadef
from placement.problem import Options
from placement.solving import solve

FOLDER = os.environ.get("EDGEWAKE_PUBLIC_DATA", "")
pytestmark = pytest.mark.skipif(
    not FOLDER, reason="EDGEWAKE_PUBLIC_DATA does not name the folder of the public instances"
)
DATA = Path(FOLDER)


def test_every_file_is_read() -> None:
    counts = {name: len(list(read(DATA))) for name, read in public.SETS.items()}
    assert counts["gap"] >= 80
    assert counts["holmberg"] == 71
    assert counts["orlib"] == 36
    assert counts["cap"] >= 24
    assert counts["roadef"] == 10


@pytest.mark.parametrize(
    ("kind", "name"),
    [("gap", "gap1-0"), ("gap", "gap4-2"), ("holmberg", "p1"), ("orlib", "p1"), ("cap", "cap61")],
)
def test_the_optimum_is_the_published_one(kind: str, name: str) -> None:
    (instance,) = (each for each in public.SETS[kind](DATA) if each.name == name)
    assert not isinstance(instance, roadef.Reassignment)
    plan = solve(instance.problem, Options(weights=instance.options.weights))
    assert plan.gap < 1e-6
    assert plan.value == pytest.approx(instance.reference.target, rel=1e-6)


@pytest.mark.parametrize(("kind", "name"), [("gap", "d05100"), ("gap", "c10100")])
def test_tight_assignments_are_near_to_the_best_known(kind: str, name: str) -> None:
    (instance,) = (each for each in public.SETS[kind](DATA) if each.name == name)
    assert not isinstance(instance, roadef.Reassignment)
    plan = solve(
        instance.problem,
        Options(weights=instance.options.weights, algorithm="ladder", deadline_s=60),
    )
    target = instance.reference.target
    assert target is not None
    assert plan.bound <= target + 1e-6
    assert plan.value <= 1.005 * target


def test_the_first_costs_of_the_challenge_are_the_published_ones() -> None:
    for instance in public.SETS["roadef"](DATA):
        assert isinstance(instance, roadef.Reassignment)
        published = DATA / "roadef2012" / "A" / f"original_cost_{instance.name}.txt"
        assert roadef.violations(instance, instance.start) == ()
        assert roadef.cost(instance, instance.start) == int(published.read_text())


def test_a1_1_is_proven_optimal() -> None:
    (instance,) = (each for each in public.SETS["roadef"](DATA) if each.name == "a1_1")
    assert isinstance(instance, roadef.Reassignment)
    answer = roadef.solve(instance, 60)
    assert (answer.cost, answer.optimal) == (44_306_501, True)

"""Readers of public instances, over small files in the same formats."""

import math
from collections.abc import Callable
from itertools import product
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from placement.instances import Instance, roadef
from placement.instances.base import Reference
from placement.instances.eua import Case, read_eua
from placement.instances.facility import read_cap, read_sscflp
from placement.instances.gap import read_gap
from placement.problem import Malformed
from placement.rules import Fence
from placement.solving import solve

GAP = """2 3
 4 1 9
 2 8 1
 2 2 1
 1 1 1
 3 2
"""  # best: jobs 1 and 2 to the first agent would weigh 4, so 2 + 1 + 1
SSCFLP = "2 3\n5 4\n10 3\n2 2 1\n1 5\n1 5\n9 1\n"
CAP = "2 3\n5 10\n4 3\n2 2 1\n1 1 9\n5 5 1\n21.0\n"
MODEL = """2
1 100
0 10
3
0 0 30 400 16 80 0 1 4
0 0 10 240 8 160 1 0 3
1 1 15 100 12 80 4 3 0
2
2 0
1 1 0
3
0 12 10 1000
0 10 20 100
1 6 200 1
1
0 1 20
10
1 10 100
"""  # the worked example of the challenge's specification, without its last process
START = "0 2 0"


def file(folder: Path, name: str, text: str) -> Path:
    path = folder / name
    path.write_text(text)
    return path


def test_gap(tmp_path: Path) -> None:
    table = file(
        tmp_path,
        "data.csv",
        "Path,Format,Dataset,Item number,Agent number,Best known bound,Optimum,"
        f"Best known solution value\n{tmp_path.name}/g1,orlibrary,x,3,2,3,4,4\n",
    )
    instance = read_gap(file(tmp_path, "g1", GAP), table)
    assert instance.reference.optimum == 4
    assert instance.reference.bound == 3
    plan = solve(instance.problem, instance.options)
    assert plan.value == 4
    assert plan.hosts == {"j0": ("a1",), "j1": ("a0",), "j2": ("a1",)}
    assert instance.reference.gap(plan.value) == 0
    with pytest.raises(Malformed, match="has no row for"):
        read_gap(file(tmp_path, "g2", GAP), table)


@pytest.mark.parametrize(
    ("read", "name", "text"), [(read_sscflp, "p2", SSCFLP), (read_cap, "cap1", CAP)]
)
def test_facility_location(
    tmp_path: Path, read: Callable[[Path], Instance], name: str, text: str
) -> None:
    file(tmp_path, "os", "7\n21\n")
    instance = read(file(tmp_path, name, text))
    plan = solve(instance.problem, instance.options)
    least = min(
        10 * (0 in to) + 3 * (1 in to) + sum(c[i] for c, i in zip(COST, to, strict=True))
        for to in product((0, 1), repeat=3)
        if sum(d for d, i in zip((2, 2, 1), to, strict=True) if i == 0) <= 5
        and sum(d for d, i in zip((2, 2, 1), to, strict=True) if i == 1) <= 4
    )
    assert plan.value == least
    assert instance.reference.optimum == 21


COST = ((1, 5), (1, 5), (9, 1))


def test_without_a_table_there_is_no_optimum(tmp_path: Path) -> None:
    instance = read_sscflp(file(tmp_path, "p2", SSCFLP))
    assert instance.reference.target is None
    assert instance.reference.gap(5.0) is None
    assert Reference("x", best=4.0).gap(5.0) == 0.25


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "g:1: the file ends where the count of agents is expected"),
        ("2", "g:1: the file ends where the count of jobs"),
        ("2 3\n1 2", "g:2: 6 numbers for the costs are expected, 2 are left"),
        (GAP.replace("9", "x"), "g:2: the costs must be a number of at least 0, not 'x'"),
        (GAP.replace("9", "nan"), "not 'nan'"),
        (GAP.replace("9", "-1"), "not '-1'"),
        (GAP + "7", "g:7: 1 numbers too many"),
        ("2.5 3", "must be whole"),
        ("0 3", "must be whole, 1 to"),
        ("999999 999999999", "the count of jobs must be whole, 1 to 1"),
    ],
)
def test_a_wrong_file_is_named_with_its_line(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(Malformed, match=message):
        read_gap(file(tmp_path, "g", text))


def test_a_file_that_is_not_there_or_no_text(tmp_path: Path) -> None:
    with pytest.raises(Malformed, match="No such file"):
        read_gap(tmp_path / "none")
    (tmp_path / "bytes").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(Malformed, match="is no text"):
        read_gap(tmp_path / "bytes")


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    base=st.sampled_from([GAP, SSCFLP, CAP, MODEL]),
    at=st.integers(0, 400),
    word=st.sampled_from(["", "-1", "1e308", "inf", "x", "99999999999", "0", "2.5", "\x00", "²"]),
    cut=st.integers(0, 400),
)
@example(base=GAP, at=0, word="²", cut=400)
def test_a_spoilt_file_is_read_or_malformed_and_nothing_else(
    tmp_path: Path, base: str, at: int, word: str, cut: int
) -> None:
    words = base.split(" ")
    words[at % len(words)] = word
    path = file(tmp_path, "p1", " ".join(words)[: cut or None])
    start = file(tmp_path, "start", START)
    for read in (read_gap, read_sscflp, read_cap, lambda p: roadef.read_roadef(p, start)):
        try:
            read(path)
        except Malformed as error:
            assert str(error)  # noqa: PT017


# --- edge user allocation -----------------------------------------------------------------------

SITES = "SITE_ID,LATITUDE,LONGITUDE\n1,-37.8100,144.9600\n2,-37.8120,144.9600\n"
USERS = "Latitude,Longitude\n-37.8101,144.9601\n-37.8121,144.9600\n-37.9000,144.9000\n"


def test_users_go_to_servers_that_cover_them(tmp_path: Path) -> None:
    sites, users = file(tmp_path, "s.csv", SITES), file(tmp_path, "u.csv", USERS)
    instance = read_eua(sites, users, Case(radius_m=(100, 101)))
    assert [sorted(r.hosts) for r in instance.problem.rules if isinstance(r, Fence)] == [
        ["s0"],
        ["s1"],
        [],
    ]
    plan = solve(instance.problem, instance.options)
    assert plan.terms["unplaced"] == 1
    assert plan.hosts["u2"] == ()
    assert read_eua(sites, users, Case(users=2, servers=1, seed=4)) == read_eua(
        sites, users, Case(users=2, servers=1, seed=4)
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("Latitude\n1\n", "u.csv:2: Latitude and Longitude must be numbers"),
        ("Latitude,Longitude\n1,x\n", "u.csv:2"),
        ("Latitude,Longitude\n1,999\n", "no place on earth"),
        ("Latitude,Longitude\nnan,1\n", "no place on earth"),
        (USERS, "has 3 rows, 9 are asked for"),
    ],
)
def test_a_wrong_table_is_named_with_its_line(tmp_path: Path, text: str, message: str) -> None:
    sites, users = file(tmp_path, "s.csv", SITES), file(tmp_path, "u.csv", text)
    with pytest.raises(Malformed, match=message):
        read_eua(sites, users, Case(users=9))


# --- machine reassignment -----------------------------------------------------------------------


@pytest.fixture
def instance(tmp_path: Path) -> roadef.Reassignment:
    model = file(tmp_path, "model_x_1.txt", MODEL)
    return roadef.read_roadef(
        model, file(tmp_path, "a.txt", START), bound=file(tmp_path, "lb.txt", "7\n")
    )


def by_hand(instance: roadef.Reassignment, machine: tuple[int, ...]) -> int:
    """Return the cost in plain loops, from the specification's words."""
    total, resources = 0, range(2)
    used = [[0, 0] for _ in range(3)]
    for p, m in enumerate(machine):
        for r in resources:
            used[m][r] += int(instance.need[p][r])
    for m in range(3):
        free = [int(instance.capacity[m][r]) - used[m][r] for r in resources]
        for r, weight in enumerate((100, 10)):
            total += weight * max(0, used[m][r] - int(instance.safety[m][r]))
        total += 10 * max(0, 20 * free[0] - free[1])
    moved = [p for p in range(3) if machine[p] != int(instance.start[p])]
    total += sum((1000, 100, 1)[p] for p in moved)
    total += 10 * max(sum(p < 2 for p in moved), sum(p == 2 for p in moved))
    far = ((0, 1, 4), (1, 0, 3), (4, 3, 0))
    return total + 100 * sum(far[int(instance.start[p])][machine[p]] for p in range(3))


def test_the_evaluator_and_the_model_say_the_same(instance: roadef.Reassignment) -> None:
    assert instance.name == "x_1"
    assert instance.reference.bound == 7
    right = {}
    for machine in product(range(3), repeat=3):
        cost = roadef.cost(instance, np.array(machine))
        assert cost == by_hand(instance, machine)
        if not roadef.violations(instance, np.array(machine)):
            right[machine] = cost
    assert 1 < len(right) < 27
    answer = roadef.solve(instance, 10)
    assert answer.cost == min(right.values())
    assert answer.optimal
    assert right[tuple(answer.machine.tolist())] == answer.cost


@pytest.mark.parametrize(
    ("machine", "wrong"),
    [
        ((2, 2, 2), "service 0: two processes share a machine"),
        ((0, 1, 0), "service 0: in fewer than 2 locations"),
        ((0, 1, 2), "service 1: somewhere without service 0"),
        ((1, 2, 0), "machine 1: 12 of resource 0, 10 there"),
        ((0, -1, 0), "not every process has a machine"),
    ],
)
def test_the_judge_of_assignments(
    instance: roadef.Reassignment, machine: tuple[int, ...], wrong: str
) -> None:
    assert wrong in roadef.violations(instance, np.array(machine))


def test_transient_needs_stay_behind(tmp_path: Path) -> None:
    model = MODEL.replace("0 0 30 400", "0 0 18 400").replace("0 0 10 240", "0 0 17 240")
    instance = roadef.read_roadef(file(tmp_path, "m.txt", model), file(tmp_path, "a.txt", "0 2 1"))
    back = np.array([1, 2, 0])  # 12 stay behind at machine 0, and 6 come
    assert roadef.violations(instance, instance.start) == ()
    assert roadef.violations(instance, back) == ("machine 1: 18 of resource 0, 17 there",)


@pytest.mark.parametrize(
    ("model", "start", "message"),
    [
        (MODEL, "0 2 7", "on a machine that does not exist"),
        (MODEL, "0 2", "3 numbers for the assignment are expected"),
        (MODEL.replace("1 6 200 1", "5 6 200 1"), START, "of a service that does not exist"),
        (MODEL.replace("0 12 10", "0 1.5 10"), START, "processes must be whole"),
        (MODEL.replace("1 1 0\n3", "1 1 9\n3"), START, "a dependency must be whole, 0 to 1"),
    ],
)
def test_a_wrong_instance_is_malformed(
    tmp_path: Path, model: str, start: str, message: str
) -> None:
    with pytest.raises(Malformed, match=message):
        roadef.read_roadef(file(tmp_path, "m.txt", model), file(tmp_path, "a.txt", start))


def test_the_bound_is_below(instance: roadef.Reassignment) -> None:
    answer = roadef.solve(instance, 10)
    assert answer.bound <= answer.cost
    assert math.isfinite(answer.bound)

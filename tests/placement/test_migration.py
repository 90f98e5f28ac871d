"""Migrations: never a host too full, cycles broken and said so, few changes, and what pays."""

import math
from collections.abc import Callable
from dataclasses import replace
from random import Random

import pytest
from hypothesis import given, note, settings
from hypothesis import strategies as st

from placement.check import violations
from placement.migration import Action, Migration, Pace, Prices, migration, running, worth
from placement.migration_check import wrong_steps
from placement.problem import (
    KILL_AND_BOOT,
    MAKE_BEFORE_BREAK,
    Demand,
    Flavour,
    Host,
    Malformed,
    Plan,
    Problem,
)
from placement.rules import Beside, Split

MakeHost = Callable[..., Host]
MakeDemand = Callable[..., Demand]


def two_that_swap(host: MakeHost, demand: MakeDemand, move: str, *more: Host) -> Problem:
    return Problem(
        (host("a", memory_mib=300), host("b", memory_mib=300), *more),
        (demand("x", move=move, boot_ms=40), demand("y", move=move, boot_ms=40)),
        current={"x": ("a",), "y": ("b",)},
    )


SWAPPED = Plan({"x": ("b",), "y": ("a",)}, 0.0)


def kinds(moves: Migration) -> list[list[str]]:
    return [
        [f"{a.kind} {a.demand} {a.source}>{a.target}" for a in batch] for batch in moves.batches
    ]


def test_what_fits_side_by_side_is_one_batch(host: MakeHost, demand: MakeDemand) -> None:
    problem = two_that_swap(host, demand, MAKE_BEFORE_BREAK)
    roomy = replace(problem, hosts=(host("a"), host("b")))
    moves = migration(roomy, SWAPPED)
    assert kinds(moves) == [["migrate x a>b", "migrate y b>a"]]
    # 256 MiB over 1000 Mbit/s that both share
    assert moves.seconds == pytest.approx(2 * 256 * 8.388608 / 1000)
    assert moves.down_s == 0
    assert wrong_steps(roomy, running(roomy), moves) == ()


def test_a_cycle_goes_by_way_of_a_spare_host(host: MakeHost, demand: MakeDemand) -> None:
    problem = two_that_swap(host, demand, MAKE_BEFORE_BREAK, host("spare"))
    moves = migration(problem, SWAPPED)
    assert kinds(moves) == [["migrate x a>spare"], ["migrate y b>a"], ["migrate x spare>b"]]
    assert moves.actions[0].why == "by way of spare to end a cycle"
    assert moves.down_s == 0
    assert wrong_steps(problem, running(problem), moves) == ()


def test_without_a_spare_host_one_stops_and_says_so(host: MakeHost, demand: MakeDemand) -> None:
    problem = two_that_swap(host, demand, MAKE_BEFORE_BREAK)
    moves = migration(problem, SWAPPED)
    assert kinds(moves) == [["stop x a>"], ["migrate y b>a"], ["boot x >b"]]
    assert "no spare host has room" in moves.actions[0].why
    send_s = 256 * 8.388608 / 1000
    assert moves.down_s == pytest.approx(send_s + 0.040)
    assert wrong_steps(problem, running(problem), moves) == ()


@pytest.mark.parametrize("move", [MAKE_BEFORE_BREAK, KILL_AND_BOOT])
def test_gently_what_would_have_to_stop_is_left(
    host: MakeHost, demand: MakeDemand, move: str
) -> None:
    swap = two_that_swap(host, demand, move)
    problem = replace(
        swap,
        demands=(*swap.demands, demand("z", memory_mib=10, move=move)),
        current={**swap.current, "z": ("a",)},
    )
    wanted = Plan({**SWAPPED.hosts, "z": ("b",)}, 0.0)
    moves = migration(problem, wanted, gentle=True)
    assert [action.demand for action in moves.actions] == ["z"]
    assert set(moves.left) == {"x", "y"}
    assert moves.reached.hosts == {"x": ("a",), "y": ("b",), "z": ("b",)}
    assert wrong_steps(problem, running(problem), moves) == ()


def test_gently_a_copy_goes_where_the_rules_let_it_at_that_moment(
    host: MakeHost, demand: MakeDemand
) -> None:
    """`x` comes to where `y` still is, from which it must be apart; `z` must follow `y`."""
    problem = Problem(
        (host("a"), host("b"), host("c")),
        (demand("z"), demand("x"), demand("y")),
        rules=(Split((frozenset({"x"}), frozenset({"y"}))), Beside("z", "y")),
        current={"x": ("a",), "y": ("b",), "z": ("b",)},
    )
    wanted = Plan({"x": ("b",), "y": ("c",), "z": ("c",)}, 0.0)
    assert len(migration(problem, wanted).batches) == 1
    moves = migration(problem, wanted, gentle=True)
    assert kinds(moves)[0] == ["restart y b>c"]
    assert sorted(action.demand for action in moves.actions) == ["x", "y", "z"]
    assert moves.left == ()


def test_what_may_be_killed_is_killed_before_a_spare_is_used(
    host: MakeHost, demand: MakeDemand
) -> None:
    problem = two_that_swap(host, demand, KILL_AND_BOOT, host("spare"))
    moves = migration(problem, SWAPPED)
    assert kinds(moves) == [["stop x a>"], ["restart y b>a"], ["boot x >b"]]
    assert wrong_steps(problem, running(problem), moves) == ()


def test_a_flavour_changes_in_place(host: MakeHost, demand: MakeDemand) -> None:
    small, large = Flavour("small"), Flavour("large", {"memory_mib": 900})
    problem = Problem(
        (host("a"),), (demand("x", flavours=(small, large)),), current={"x": ("a", "gone")}
    )
    wanted = Plan({"x": ("a",)}, 0.0, flavours={"x": ("large",)})
    moves = migration(problem, wanted)
    assert kinds(moves) == [["restart x a>a"]]  # 900 + 256 would not fit at once
    assert moves.reached.flavours["x"] == ("large",)
    assert wrong_steps(problem, running(problem), moves) == ()


def test_copies_come_and_go(host: MakeHost, demand: MakeDemand) -> None:
    problem = Problem((host("a"), host("b")), (demand("x"), demand("y")), current={"x": ("a",)})
    moves = migration(problem, Plan({"y": ("b",)}, 0.0))
    assert kinds(moves) == [["stop x a>", "boot y >b"]]


def test_so_many_actions_per_host_at_once(host: MakeHost, demand: MakeDemand) -> None:
    names = ["x", "y", "z"]
    problem = Problem(
        (host("a"), host("b")), tuple(map(demand, names)), current=dict.fromkeys(names, ("a",))
    )
    wanted = Plan(dict.fromkeys(names, ("b",)), 0.0)
    assert [len(b) for b in migration(problem, wanted, pace=Pace(at_once=1)).batches] == [1, 1, 1]
    assert [len(b) for b in migration(problem, wanted, pace=Pace(at_once=2)).batches] == [2, 1]


def test_so_many_changes_and_the_rest_is_named(host: MakeHost, demand: MakeDemand) -> None:
    names = ["x", "y", "z"]
    problem = Problem(
        (host("a"), host("b")), tuple(map(demand, names)), current=dict.fromkeys(names, ("a",))
    )
    wanted = Plan(dict.fromkeys(names, ("b",)), 0.0)
    moves = migration(problem, wanted, most_changes=2)
    assert moves.reached.hosts == {"x": ("b",), "y": ("b",), "z": ("a",)}
    assert moves.left == ("z",)
    assert wrong_steps(problem, running(problem), moves, most_changes=2) == ()
    assert wrong_steps(problem, running(problem), moves, most_changes=1) == (
        "2 copies change, at most 1 may",
    )


def test_few_changes_break_no_rule_on_the_way(host: MakeHost, demand: MakeDemand) -> None:
    apart = Split((frozenset({"x"}), frozenset({"y"})))
    problem = Problem(
        (host("a"), host("b")),
        (demand("x"), demand("y")),
        rules=(apart,),
        current={"x": ("a",), "y": ("b",)},
    )
    moves = migration(problem, SWAPPED, most_changes=1)
    assert moves.batches == ()
    assert moves.left == ("x", "y")


@pytest.mark.parametrize(
    ("wanted", "message"),
    [
        (Plan({"x": ("nowhere",)}, 0.0), "wanted.hosts.x: no host named 'nowhere'"),
        (Plan({"q": ("a",)}, 0.0), "wanted.hosts: no demand named 'q'"),
        (Plan({"x": ("a",)}, 0.0, flavours={"x": ("odd",)}), "no flavour named 'odd'"),
        (Plan({"x": ("a",), "y": ("a",)}, 0.0), "wanted: a has 300 memory_mib, not 512"),
    ],
)
def test_a_senseless_wish_is_refused(
    host: MakeHost, demand: MakeDemand, wanted: Plan, message: str
) -> None:
    with pytest.raises(Malformed, match=message):
        migration(two_that_swap(host, demand, KILL_AND_BOOT), wanted)


# --- the judge ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("batches", "wrong"),
    [
        ([["migrate x a>b"], ["migrate y b>a"]], "batch 1: b holds 512 memory_mib, 300 there"),
        ([["stop x a>", "migrate y b>a"], ["boot x >b"]], "batch 1: a holds 512 memory_mib"),
        ([["restart x a>b"]], "batch 1: x is killed, but moves make-before-break"),
        ([["migrate x c>b"]], "batch 1: no copy of x runs at c"),
        ([["stop x a>"], ["migrate y b>a"]], "batch 1: x: 0 copies run, 1 could"),
        ([], "the actions do not lead to the plan"),
        ([["jump x a>b"]], "batch 1: jump of x: no such action"),
        ([["boot x a>b"]], "batch 1: boot of x from 'a' to 'b'"),
    ],
)
def test_the_judge_finds_what_is_wrong(
    host: MakeHost, demand: MakeDemand, batches: list[list[str]], wrong: str
) -> None:
    problem = two_that_swap(host, demand, MAKE_BEFORE_BREAK, host("c"))
    moves = Migration(
        tuple(tuple(_action(each) for each in batch) for batch in batches),
        migration(problem, SWAPPED).reached,
    )
    found = wrong_steps(problem, running(problem), moves)
    assert any(each.startswith(wrong) for each in found), found


def _action(text: str) -> Action:
    kind, demand, ends = text.split()
    source, _, target = ends.partition(">")
    return Action(kind, demand, source, target)


def drawn(seed: int) -> tuple[Problem, Plan, Plan]:
    """Return a tight problem and two plans of it that fit."""
    random = Random(seed)  # noqa: S311 - not for secrets
    hosts = tuple(
        Host(f"h{n}", {"cpu": random.randint(3, 6), "memory_mib": random.randint(3, 6)})
        for n in range(random.randint(2, 4))
    )
    flavours = (Flavour("small"), Flavour("large", {"cpu": 2}, unfit={"h0": "too slow"}))
    demands = tuple(
        Demand(
            f"d{n}",
            {"cpu": random.randint(0, 2), "memory_mib": random.randint(1, 3)},
            replicas=random.choice([1, 1, 2]),
            flavours=flavours if random.random() < 0.4 else (),
            least=0,
            move=random.choice([KILL_AND_BOOT, MAKE_BEFORE_BREAK]),
            boot_ms=random.choice([0, 50]),
        )
        for n in range(random.randint(1, 7))
    )
    problem = Problem(hosts, demands)
    return problem, _some_plan(random, problem), _some_plan(random, problem)


def _some_plan(random: Random, problem: Problem) -> Plan:
    plan = Plan(
        {d.name: () for d in problem.demands}, 0.0, flavours={d.name: () for d in problem.demands}
    )
    slots = [
        (demand, host.name, random.choice(demand.flavours or (Flavour(""),)).name)
        for demand in problem.demands
        for host in problem.hosts
    ]
    random.shuffle(slots)
    for demand, host, flavour in slots:
        more = replace(
            plan,
            hosts={**plan.hosts, demand.name: (*plan.hosts[demand.name], host)},
            flavours={**plan.flavours, demand.name: (*plan.flavours[demand.name], flavour)},
        )
        if not violations(problem, more):
            plan = more
    return plan


@settings(max_examples=400)
@given(seed=st.integers(0, 10**9), most=st.sampled_from([None, None, 0, 1, 2, 3]))
def test_any_two_plans_are_joined_without_a_host_too_full(seed: int, most: int | None) -> None:
    problem, current, wanted = drawn(seed)
    pace = Pace(at_once=Random(seed).choice([None, 1, 2]), stop_s=0.1)  # noqa: S311
    moves = migration(problem, wanted, current=current, pace=pace, most_changes=most)
    note(f"{problem}\n{current}\n{wanted}\n{moves}")
    assert wrong_steps(problem, current, moves, most_changes=most) == ()
    assert violations(problem, moves.reached) == ()
    if most is None:
        for demand in problem.demands:
            ends = [
                sorted(zip(plan.hosts[demand.name], plan.flavours[demand.name], strict=True))
                for plan in (moves.reached, wanted)
            ]
            assert ends[0] == ends[1]
        assert not moves.left
    stopped = {a.demand for a in moves.actions if a.kind == "stop" and a.why}
    for action in moves.actions:
        gentle = next(d for d in problem.demands if d.name == action.demand).move
        if gentle == MAKE_BEFORE_BREAK and action.down_s:
            assert action.demand in stopped


@settings(max_examples=200)
@given(seed=st.integers(0, 10**9), most=st.sampled_from([None, 2]))
def test_gently_no_copy_ever_stops_and_what_is_left_is_named(seed: int, most: int | None) -> None:
    problem, current, wanted = drawn(seed)
    moves = migration(problem, wanted, current=current, most_changes=most, gentle=True)
    note(f"{problem}\n{current}\n{wanted}\n{moves}")
    assert wrong_steps(problem, current, moves, most_changes=most) == ()
    assert not any(action.kind == "stop" and action.why for action in moves.actions)
    for demand in problem.demands:
        reached, aim = (
            sorted(zip(plan.hosts[demand.name], plan.flavours[demand.name], strict=True))
            for plan in (moves.reached, wanted)
        )
        assert (reached == aim) or demand.name in moves.left


def test_a_host_that_shrank_is_emptied(host: MakeHost, demand: MakeDemand) -> None:
    problem = Problem(
        (host("a", memory_mib=300), host("b")),
        (demand("x"), demand("y")),
        current={"x": ("a",), "y": ("a",)},
    )
    moves = migration(problem, Plan({"x": ("b",), "y": ("a",)}, 0.0))
    assert kinds(moves) == [["restart x a>b"]]
    assert wrong_steps(problem, running(problem), moves) == ()
    assert worth(problem, moves, {"latency_ms": 1.0}).gain == math.inf


# --- what pays ----------------------------------------------------------------------------------


def test_a_migration_pays_if_what_it_saves_exceeds_what_it_costs(
    host: MakeHost, demand: MakeDemand
) -> None:
    problem = Problem(
        (host("a", idle_w=100), host("b", idle_w=100)),
        (demand("x", boot_ms=500), demand("y")),
        current={"x": ("a",), "y": ("b",)},
    )
    moves = migration(problem, Plan({"x": ("b",), "y": ("b",)}, 0.0))
    prices = Prices(horizon_s=1800, per_move=3.0, per_down_s=4.0)
    verdict = worth(problem, moves, {"energy_w": 0.1, "migrations": 50}, prices=prices)
    assert verdict.gain == pytest.approx(0.1 * 100 / 2)
    assert verdict.cost == pytest.approx(3.0 + 0.5 * 4.0)
    assert not verdict.worth
    assert worth(problem, moves, {"energy_w": 0.2}, prices=prices).worth

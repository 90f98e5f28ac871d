"""Churn replayed: what is counted is what has happened."""

from dataclasses import replace
from pathlib import Path
from random import Random
from typing import Any

import pandas as pd
import pytest

from placement.generate import generate
from placement.generate.churn import Epoch, churn
from placement.heuristics.bins import first_fit
from placement.problem import Demand, Host, Options, Plan, Problem
from placement.registry import ALGORITHMS
from placement.study import load, load_timeline, report, run
from placement.study.replay import replay
from placement.study.seam import Named, algorithm
from placement.study.table import TIMELINE
from tests.placement.study.plug_ins import wandering

OPTIONS = Options()


def _host(name: str, cpu: float = 4) -> Host:
    return Host(name, {"cpu": cpu, "memory_mib": 1024})


def _demand(name: str, cpu: float = 2, rate: float = 1.0) -> Demand:
    return Demand(name, {"cpu": cpu, "memory_mib": 100}, rates={"p": rate})


def _epochs(*problems: tuple[str, str]) -> list[Epoch]:
    """Return epochs of problems with the hosts and demands of given letters."""
    return [
        Epoch(Problem(tuple(_host(h) for h in hosts), tuple(_demand(d) for d in demands)))
        for hosts, demands in problems
    ]


def _replayed(epochs: list[Epoch], solve: Any = first_fit) -> dict[str, Any]:
    return replay(epochs, Named("it", solve), OPTIONS)


def test_nothing_moves_when_nothing_happens() -> None:
    row = _replayed(_epochs(("ab", "xyz"), ("ab", "xyz"), ("ab", "xyz")))
    assert (row["status"], row["epochs"]) == ("ok", 3)
    assert (row["migrations"], row["restarts"], row["unserved"]) == (0, 0, 0.0)
    assert row["hosts_on"] == 2


def test_first_fit_moves_what_departures_make_room_for() -> None:
    """With x gone, y and z both fit on a, and z leaves b although it need not."""
    row = _replayed(_epochs(("ab", "xyz"), ("ab", "yz")))
    assert (row["migrations"], row["restarts"]) == (1, 0)
    assert row["hosts_on"] == pytest.approx(1.5)


def test_a_copy_lost_with_its_host_restarts_and_does_not_migrate() -> None:
    row = _replayed(_epochs(("ab", "x"), ("b", "x"), ("b", "x")))
    assert (row["migrations"], row["restarts"]) == (0, 1)


def test_what_has_no_place_is_unserved_and_the_rest_is_placed() -> None:
    row = _replayed(_epochs(("ab", "vxyz"), ("a", "vxyz")))
    assert row["status"] == "ok"
    assert row["unserved"] == pytest.approx((0 + 2 / 4) / 2)
    assert row["restarts"] == 0  # those on b had no place, which is not a restart


def test_where_copies_run_is_told_to_the_algorithm() -> None:
    seen: list[Any] = []

    def spy(problem: Problem, options: Options) -> Plan:
        seen.append(dict(problem.current))
        return first_fit(problem, options)

    _replayed(_epochs(("ab", "xy"), ("b", "xz")), spy)
    assert seen == [{}, {"x": ()}]  # x was on a, which failed; y is gone; z is new


def test_a_plan_that_breaks_a_rule_is_invalid() -> None:
    def wrong(problem: Problem, options: Options) -> Plan:
        plan = first_fit(problem, options)
        return replace(plan, hosts=dict.fromkeys(plan.hosts, ("a",)))

    row = _replayed(_epochs(("ab", "xy"), ("ab", "xyz")), wrong)
    assert row["status"] == "invalid"
    assert row["message"].startswith("epoch 1: a: 6 cpu planned")


def test_without_any_plan_it_is_infeasible() -> None:
    epochs = [Epoch(Problem((_host("a", cpu=1),), (_demand("x"),)))]
    assert _replayed(epochs)["status"] == "infeasible"


def test_replicas_that_move_are_counted_one_by_one() -> None:
    demand = replace(_demand("x"), replicas=2)
    problem = Problem(tuple(_host(h) for h in "abc"), (demand,))
    first = Plan({"x": ("a", "b")}, 0.0)
    plans = iter([first, Plan({"x": ("b", "c")}, 0.0), Plan({"x": ("a", "b")}, 0.0)])
    row = _replayed([Epoch(problem)] * 3, lambda _problem, _options: next(plans))
    assert row["migrations"] == 2


@pytest.mark.parametrize("name", [each.name for each in ALGORITHMS])
def test_algorithms_of_the_library_are_right_in_every_epoch(name: str) -> None:
    """All of them: packing, local search, the ladder, repair, partition, the exact one."""
    instance = generate("waxman", 2, services=16, utilisation=0.5)
    epochs = churn(Random(3), instance, epochs=5, failures=0.2)  # noqa: S311
    row = replay(epochs, algorithm(name, {}, 0), Options(gap=0.05, deadline_s=1))
    assert row["status"] == "ok", row["message"]
    assert row["restarts"] > 0
    assert len(row["timeline"]) == 5


def test_repair_moves_less_than_who_plans_anew() -> None:
    instance = generate("waxman", 2, services=16, utilisation=0.5)
    epochs = churn(Random(3), instance, epochs=8, failures=0.1, moves=0.3)  # noqa: S311
    moved = {
        name: replay(epochs, algorithm(name, {}, 0), OPTIONS)["migrations"]
        for name in ("repair", "nearest")
    }
    assert moved["repair"] < moved["nearest"]


def test_every_epoch_is_kept_with_what_happened_in_it() -> None:
    row = _replayed(_epochs(("ab", "xyz"), ("ab", "yz"), ("b", "yz")))
    table = pd.DataFrame(row["timeline"], columns=TIMELINE)
    assert list(table["migrations"]) == [0, 1, 0]
    assert list(table["restarts"]) == [0, 0, 2]
    assert list(table["hosts_on"]) == [2, 1, 1]
    assert table["migrations"].sum() == row["migrations"]
    assert row["plan"] == {"y": ("b",), "z": ("b",)}


def test_churn_is_drawn_epoch_by_epoch_and_on_the_map(study: Any, tmp_path: Path) -> None:
    busy = {"generator": "hierarchical", "churn": {"epochs": 4, "moves": 0.5}, "seeds": 2}
    run(study({"nearest": {}, "repair": {}}, instances={"busy": busy}), tmp_path)
    page = report(tmp_path).read_text()
    assert "figures/moves-over-time.svg" in page
    assert "in the last epoch](figures/placement.svg)" in page
    timeline, table = load_timeline(tmp_path), load(tmp_path)
    assert (timeline.groupby("id")["epoch"].max() == 3).all()
    moved = timeline.groupby("id")["migrations"].sum()
    assert moved.to_dict() == table.set_index("id")["migrations"].to_dict()
    assert pd.read_parquet(tmp_path / "timeline.parquet").equals(timeline)


def test_a_study_replays_the_same_events_for_every_algorithm(study: Any, tmp_path: Path) -> None:
    busy = {"generator": "waxman", "churn": {"epochs": 6, "moves": 0.0}, "seeds": 2}
    wanted = study(
        {"greedy-latency": {}, "wandering": {"algorithm": "plug_ins.py:wandering"}},
        instances={"busy": busy},
    )
    run(wanted, tmp_path)
    table = load(tmp_path).set_index(["algorithm", "seed"])
    assert (table["epochs"] == 6).all()
    calm, restless = table.loc["greedy-latency"], table.loc["wandering"]
    assert (calm["migrations"] < restless["migrations"]).all()
    assert wandering.name in set(load(tmp_path)["algorithm"])

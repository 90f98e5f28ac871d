"""The filter of candidates: which pairs of class, host and flavour there are."""

import math
from dataclasses import replace

import numpy as np
import pytest

from placement.arrays import Arrays, compile_problem
from placement.latencies import latency_table, worst_cap
from placement.problem import Demand, Flavour, Host, Problem
from placement.rules import Ban, Fence, Quarantine

NAMES = ("a", "b", "c", "d")
HOSTS = tuple(Host(name, {"cpu": 4.0, "memory_mib": 4096}) for name in NAMES)
FAR = {"p": {name: float(ms) for ms, name in enumerate(NAMES)}}


def problem(**more: object) -> Problem:
    demand = Demand("web", {"cpu": 1.0}, rates={"p": 1.0}, **more)  # type: ignore[arg-type]
    return Problem(HOSTS, (demand,), FAR)


def hosts(arrays: Arrays) -> list[str]:
    return [arrays.hosts[h] for h in arrays.pair_host]


def test_a_rule_label_bound_or_size_closes_hosts() -> None:
    web = frozenset({"web"})
    assert hosts(compile_problem(problem())) == list(NAMES)
    banned = replace(problem(), rules=(Ban(web, frozenset({"b"})),))
    assert hosts(compile_problem(banned)) == ["a", "c", "d"]
    fenced = replace(problem(), rules=(Fence(web, frozenset({"b"})),))
    assert hosts(compile_problem(fenced)) == ["b"]
    closed = replace(problem(), rules=(Quarantine(frozenset({"b"})),), current={"web": ("b",)})
    assert hosts(compile_problem(closed)) == list(NAMES)
    assert hosts(compile_problem(replace(closed, current={}))) == ["a", "c", "d"]
    assert hosts(compile_problem(problem(latency_bound_ms=1.5))) == ["a", "b"]
    assert hosts(compile_problem(problem(), worst_ms=2.5)) == ["a", "b", "c"]
    assert hosts(compile_problem(problem(labels=frozenset({("zone", "x")})))) == []
    unfit = replace(problem(), unfit={"web": {"a": "no KVM", "b": ""}})
    assert hosts(compile_problem(unfit)) == ["b", "c", "d"]


def test_what_a_flavour_needs_on_one_host_counts_there_only() -> None:
    large = Flavour("vm", resources_at={"b": {"cpu": 5.0}, "c": {"cpu": 3.0}})
    arrays = compile_problem(problem(flavours=(large,)))
    assert hosts(arrays) == ["a", "c", "d"]
    assert arrays.need[:, 0].tolist() == [1.0, 3.0, 1.0]
    assert arrays.most.tolist() == [1, 1, 1]


def test_the_nearest_are_kept_and_where_it_runs_and_what_is_asked_for() -> None:
    assert hosts(compile_problem(problem(), nearest=2)) == ["a", "b"]
    running = replace(problem(), current={"web": ("d",)})
    assert hosts(compile_problem(running, nearest=2)) == ["a", "b", "d"]
    asked = compile_problem(problem(), nearest=2, extra=[("web", "c")])
    assert hosts(asked) == ["a", "b", "c"]


def test_equally_near_hosts_are_shared_out() -> None:
    many = tuple(Host(f"h{i}", {"cpu": 4.0}) for i in range(50))
    demands = tuple(Demand(f"d{i}", {"cpu": 1.0 + i / 50}) for i in range(40))
    arrays = compile_problem(Problem(many, demands), nearest=5)
    assert arrays.pairs == 200
    assert len(np.unique(arrays.pair_host)) > 40


@pytest.mark.parametrize("names", [NAMES, NAMES[::-1], ("c", "a", "d", "b")])
def test_latencies_are_by_host_in_whatever_order_they_come(names: tuple[str, ...]) -> None:
    row = {name: FAR["p"][name] for name in names}
    table = latency_table(replace(problem(), latency_ms={"p": row}), ("p", "nobody"))
    assert table[0].tolist() == [0.0, 1.0, 2.0, 3.0]
    assert np.isinf(table[1]).all()


def test_latencies_may_be_by_site_and_be_missing() -> None:
    sites = tuple(replace(host, site=f"s{host.name}") for host in HOSTS)
    asked = replace(problem(), hosts=sites, latency_ms={"p": {"sa": 7.0, "b": 1.0, "sb": 9.0}})
    assert latency_table(asked, ("p",))[0].tolist() == [7.0, 1.0, math.inf, math.inf]


def test_no_limit_on_the_worst_latency_is_no_cap() -> None:
    assert worst_cap({}) is None
    assert worst_cap({"worst_latency_ms": 10_000}) is None
    assert worst_cap({"worst_latency_ms": 3}) == pytest.approx(3)

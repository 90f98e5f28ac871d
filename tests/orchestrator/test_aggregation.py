"""Aggregation points: asked of a topology, and moved when it changes."""

import pytest

from orchestrator.aggregation import COMPARED, aggregation, compare, question
from orchestrator.errors import EdgewakeError, TopologyError
from orchestrator.model import Link, Router
from orchestrator.topology import Topology
from placement.median import MedianOptions


@pytest.fixture
def line() -> Topology:
    """Return five routers in a row: r1 -1- r2 -1- r3 -10- r4 -1- r5 (ms)."""
    far = {("r1", "r2"): 1.0, ("r2", "r3"): 1.0, ("r3", "r4"): 10.0, ("r4", "r5"): 1.0}
    return Topology(
        [Router(f"r{n}") for n in range(1, 6)], [Link(a, b, ms, 100) for (a, b), ms in far.items()]
    )


def test_each_router_reports_to_the_nearest_point(line: Topology) -> None:
    found = aggregation(line, 2)
    assert found.opened[0] == "r2"
    assert found.opened[1] in {"r4", "r5"}
    assert found.value == 3
    assert found.gap == 0
    assert {found.serves[name] for name in ("r1", "r2", "r3")} == {"r2"}


def test_weights_draw_a_point(line: Topology) -> None:
    assert aggregation(line, 1).opened == ("r3",)
    assert aggregation(line, 1, weights={"r5": 9}).opened == ("r5",)


def test_points_move_when_a_link_does(line: Topology) -> None:
    quick = line.with_link(Link("r3", "r4", 0.1, 100)).with_link(Link("r1", "r2", 20, 100))
    assert "r1" in aggregation(quick, 2).opened
    with pytest.raises(EdgewakeError, match="no aggregation points exist: r"):
        aggregation(line.without_link("r3", "r4"), 1)
    assert aggregation(line.without_link("r3", "r4"), 2).value == 3


def test_every_way_is_compared_with_the_exact_one(line: Topology) -> None:
    lines = compare(line, 2)
    assert tuple(each.algorithm for each in lines) == COMPARED
    values = [each.plan.value for each in lines if each.plan]
    assert len(values) == len(COMPARED)
    assert values[0] == min(values)
    apart = compare(line.without_link("r3", "r4"), 1, algorithms=["greedy"])
    assert apart[0].plan is None
    assert "no aggregation points were found" in apart[0].why


def test_hops_are_counted_over_links(line: Topology) -> None:
    hops = question(line, 1).hops
    assert hops is not None
    assert hops[0].tolist() == [0, 1, 2, 3, float("inf")]


def test_senseless_questions_are_told(line: Topology) -> None:
    with pytest.raises(TopologyError, match="there are no routers"):
        aggregation(Topology([], []), 1)
    with pytest.raises(TopologyError, match="no router named 'r9'"):
        aggregation(line, 1, weights={"r9": 1})
    with pytest.raises(EdgewakeError, match="count: must be 1 to 5"):
        aggregation(line, 6)
    with pytest.raises(EdgewakeError, match="no p-median algorithm 'magic'"):
        aggregation(line, 1, options=MedianOptions("magic"))

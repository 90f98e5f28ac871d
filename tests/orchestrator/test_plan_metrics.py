"""Counts of plans, and of events."""

from collections.abc import Callable

import pytest

from orchestrator.errors import EdgewakeError
from orchestrator.event_counts import EventMetrics
from orchestrator.model import Event
from orchestrator.plan_metrics import PlanMetrics
from tests.world import World, a_host, a_service


def test_a_plan_of_a_running_lab_is_counted(make_world: Callable[..., World]) -> None:
    world = make_world(a_service("web"), hosts=[a_host("a"), a_host("b", 1)])
    proposal = world.control.rebalance()
    counts = world.control.plans.counts()
    assert counts.plans == {(("kind", "plan"), ("outcome", "made")): 1}
    assert sum(counts.took_s[(("kind", "plan"),)].counts) == 1
    assert counts.last is not None
    assert (counts.last.value, counts.last.gap) == (proposal.plan.value, proposal.plan.gap)


def test_a_plan_that_fails_is_counted_and_is_not_the_last() -> None:
    metrics = PlanMetrics()
    with pytest.raises(EdgewakeError), metrics.counting("front"):
        raise EdgewakeError("no such term")
    counts = metrics.counts()
    assert counts.plans == {(("kind", "front"), ("outcome", "failed")): 1}
    assert counts.last is None


def test_trouble_is_counted_by_host_and_hosts_that_left_are_forgotten() -> None:
    metrics = EventMetrics()
    metrics(Event(0.0, "boot-failed", "web", "no", (("host", "a"),)))
    metrics(Event(0.0, "host-lost", "a", "cut off"))
    metrics(Event(0.0, "host-lost", "gone", "cut off"))
    metrics(Event(0.0, "slept", "web", "idle", (("host", "a"),)))
    counts = metrics.counts({"a"})
    assert counts.failures == {
        (("host", "a"), ("kind", "boot-failed")): 1,
        (("host", "a"), ("kind", "host-lost")): 1,
    }
    assert counts.events[(("kind", "host-lost"),)] == 2
    assert not metrics.counts(()).failures

"""Stamps of wakes: in order of time, each somebody's, told to exports once."""

import re
import time
from pathlib import Path

import pytest

from orchestrator import trace
from orchestrator.trace import STAGES, Owner, Span, Wake, Wakes, WakeTrace, owner_of, words_of

ROOT = Path(__file__).parents[2]


def a_wake(*stamps: tuple[str, float], outcome: str = "ready") -> Wake:
    return Wake(id=1, service="web", started_at=0.0, stamps=stamps, outcome=outcome)


def test_every_span_is_somebodys_time() -> None:
    wake = a_wake(*((stage, float(index)) for index, stage in enumerate(STAGES)))
    owned = {owner: wake.spent_s(owner) for owner in Owner}
    assert sum(owned.values()) == len(STAGES) - 1
    assert wake.own_s == owned[Owner.OURS]
    assert all(owned.values())
    assert {"decided", "claimed", "intent", "stored", "reply"} <= {
        stage for stage in STAGES if owner_of(stage) is Owner.OURS
    }


def test_what_the_client_does_is_no_part_of_the_wake() -> None:
    wake = a_wake(("query", 0.0), ("answer", 1.0), ("reply", 1.5), ("client", 9.0))
    assert wake.total_s == 1.5
    assert wake.spans[-1] == Span("client", 9.0, 7.5)
    assert a_wake().total_s == 0.0


def test_a_stage_that_is_not_in_the_table_is_shown_by_its_name() -> None:
    assert (words_of("thawed"), owner_of("thawed")) == ("thawed", Owner.HYPERVISOR)
    assert all(words_of(stage) != stage for stage in STAGES)


def test_all_stages_that_are_stamped_are_in_the_table() -> None:
    stamped = {
        stage
        for file in (ROOT / "orchestrator").rglob("*.py")
        for stage in re.findall(r'\bstamp\(\s*"([a-z]+)"', file.read_text())
    }
    assert {"taken", "asked", "frame", "client", "reply"} <= stamped
    assert stamped <= set(STAGES)


def test_stamps_come_in_order_of_time_whoever_set_them_when() -> None:
    watched = WakeTrace("web")
    watched.stamp("start")
    watched.stamp("frame", watched.zero + 1e-9)  # the kernel saw it before we heard of the start
    assert [stage for stage, _ in watched.wake(1).stamps] == ["query", "frame", "start"]
    assert watched.at("frame") == pytest.approx(watched.zero)
    assert watched.at("client") is None


@pytest.mark.parametrize("going", ["start", "roused"])
def test_a_packet_before_the_hypervisors_call_returned_leaves_that_time_the_hypervisors(
    going: str,
) -> None:
    wake = a_wake(("query", 0.0), ("claimed", 1.0), ("frame", 5.0), (going, 6.0), ("answer", 8.0))
    assert wake.spent_s(Owner.HYPERVISOR) == 5.0
    assert wake.spent_s(Owner.GUEST) == 2.0
    later = a_wake(("query", 0.0), ("claimed", 1.0), (going, 5.0), ("frame", 6.0), ("answer", 8.0))
    assert later.spent_s(Owner.HYPERVISOR) == 4.0
    assert later.spent_s(Owner.GUEST) == 3.0


def test_only_the_first_reply_counts() -> None:
    replied = WakeTrace("web")
    replied.replied()
    replied.replied()
    assert [stage for stage, _ in replied.wake(1).stamps] == ["query", "reply"]


def test_a_question_from_before_begins_the_wake_then() -> None:
    asked = WakeTrace("web", time.monotonic() - 5.0)
    stamps = asked.wake(1).stamps
    assert [stage for stage, _ in stamps] == ["query", "parsed"]
    assert 5.0 <= stamps[1][1] < 60.0
    assert 5.0 <= time.time() - asked.started_at < 60.0
    assert WakeTrace("web", time.monotonic() + 100.0).zero <= time.monotonic()  # never in future


def test_the_last_wakes_are_kept() -> None:
    wakes = Wakes()
    for number in range(1200):
        wakes.begin("even" if number % 2 == 0 else "odd").ended("ready")
    assert len(wakes.last(limit=5000)) == 1000
    assert [wake.id for wake in wakes.last("odd", limit=2)] == [1198, 1200]


def test_exports_hear_of_each_wake_once_when_it_is_over(monkeypatch: pytest.MonkeyPatch) -> None:
    wakes = Wakes()
    wakes.begin("before").ended("ready")
    assert wakes.settled(everything=True) == ()  # nobody had asked for wakes then
    wakes.collect()
    slow, quick = wakes.begin("slow"), wakes.begin("quick")
    quick.ended("ready")
    assert wakes.settled() == ()  # its reply may come yet
    monkeypatch.setattr(trace, "SETTLE_S", 0.0)
    assert [wake.service for wake in wakes.settled()] == ["quick"]
    slow.ended("not-ready")
    assert [wake.service for wake in wakes.settled()] == ["slow"]
    assert wakes.settled() == ()
    monkeypatch.setattr(trace, "SETTLE_S", 60.0)
    wakes.begin("late").ended("ready")
    assert [wake.service for wake in wakes.settled(everything=True)] == ["late"]


def test_a_flood_of_wakes_is_bounded_and_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trace, "UNTOLD", 3)
    wakes = Wakes()
    assert wakes.missed == 0
    wakes.collect()
    for _ in range(5):
        wakes.begin("web").ended("ready")
    assert [wake.id for wake in wakes.settled(everything=True)] == [1, 2, 3]
    assert wakes.missed == 2


def test_nothing_of_a_wake_is_before_its_query() -> None:
    trace = WakeTrace("web")
    trace.stamp("frame", trace.zero - 0.5)
    trace.stamp("answer")
    wake = trace.wake(1)
    assert [stage for stage, _ in wake.stamps] == ["query", "frame", "answer"]
    assert wake.own_s == 0.0
    assert all(span.took_s >= 0 for span in wake.spans)

"""The feed: who reads gets everything in order, or is told of a gap; and what is looked at."""

import threading
import time
from collections.abc import Callable
from dataclasses import replace

import pytest

from orchestrator import trace as trace_module
from orchestrator.feed import AT_ONCE, Feed, News
from orchestrator.feeding import MOST_AT_ONCE, Feeder, Look, StatusNews, WakeNews
from orchestrator.fleet import Fleet
from orchestrator.model import Capacity, DnsSettings, Lab
from orchestrator.trace import Wakes
from tests.world import a_host


def values(news: News) -> list[object]:
    return [message.value for message in news.messages]


def test_a_reader_gets_what_came_after_the_number_it_knows() -> None:
    feed = Feed()
    begin = feed.last
    for value in "abc":
        feed.publish("event", value)
    first = feed.since(begin, 0)
    assert values(first) == ["a", "b", "c"]
    assert [each.sequence for each in first.messages] == [begin + 1, begin + 2, begin + 3]
    assert first.last == feed.last
    assert values(feed.since(begin + 2, 0)) == ["c"]
    assert feed.since(first.last, 0) == News((), first.last)


@pytest.mark.parametrize("behind", [-1, 3, 1_000_000], ids=["ahead", "behind", "earlier run"])
def test_a_number_that_is_not_known_any_more_is_a_gap(behind: int) -> None:
    feed = Feed(kept=2)
    for value in "abc":
        feed.publish("event", value)
    news = feed.since(feed.last - behind, 0)
    assert news == News((), feed.last, gap=True)
    assert values(feed.since(feed.last - 2, 0)) == ["b", "c"], "the ring itself is no gap"


def test_much_news_comes_in_parts() -> None:
    feed = Feed()
    begin = feed.last
    for value in range(AT_ONCE + 1):
        feed.publish("event", value)
    first = feed.since(begin, 0)
    assert len(first.messages) == AT_ONCE
    assert values(feed.since(first.last, 0)) == [AT_ONCE]


def test_all_readers_wait_until_something_comes_or_the_feed_is_closed() -> None:
    feed = Feed()
    got: list[News] = []

    def read() -> None:
        last = feed.last
        closed = False
        while not closed:
            news = feed.since(last, 30)
            got.append(news)
            last, closed = news.last, news.closed

    readers = [threading.Thread(target=read) for _ in range(3)]
    for reader in readers:
        reader.start()
    while feed._waiting < len(readers):
        time.sleep(0.001)
    assert feed.listened
    feed.publish("event", "a")
    while len(got) < len(readers) or feed._waiting < len(readers):
        time.sleep(0.001)
    feed.close()
    for reader in readers:
        reader.join(10)
        assert not reader.is_alive()
    assert [values(news) for news in got] == [["a"]] * 3 + [[]] * 3
    feed.publish("event", "late")
    assert feed.since(feed.last - 1, 0).closed


def test_what_is_left_at_the_end_is_told_before_the_end() -> None:
    feed = Feed()
    begin = feed.last
    for value in range(AT_ONCE + 1):
        feed.publish("event", value)
    feed.close()
    first = feed.since(begin, 0)
    assert not first.closed
    assert feed.since(first.last, 0).closed


# --- looking --------------------------------------------------------------------------------------


def test_a_wake_is_told_when_it_begins_when_it_gets_on_and_when_it_ends(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("orchestrator.feeding.SETTLE_S", -1.0)  # settled as soon as it is over
    wakes = Wakes()
    wakes.begin("before")
    news = WakeNews(wakes)
    assert [wake.service for wake in news()] == ["before"]
    trace = wakes.begin("web")
    assert [(wake.id, wake.outcome) for wake in news()] == [(2, "waking")]
    assert news() == [], "nothing was noted since"
    trace.stamp("decided")
    trace.stamp("define")
    (wake,) = news()
    assert [stage for stage, _ in wake.stamps] == ["query", "decided", "define"]
    trace.ended("ready", instance="web-0", host="a")
    assert [(wake.outcome, wake.host) for wake in news()] == [("ready", "a")]
    assert news() == []
    trace.stamp("client")
    assert news() == [], "it was over, and is not looked at any more"


def test_a_storm_of_wakes_is_told_in_parts_and_none_is_left_out() -> None:
    wakes = Wakes()
    news = WakeNews(wakes)
    for number in range(MOST_AT_ONCE + 1):
        wakes.begin(str(number))
    assert [wake.id for wake in (*news(), *news())] == list(range(1, MOST_AT_ONCE + 2))
    assert news() == []


def test_wakes_that_never_end_are_let_go(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("orchestrator.feeding.KEPT", 2)
    monkeypatch.setattr(trace_module, "KEPT", 2)
    wakes = Wakes()
    news = WakeNews(wakes)
    for number in range(5):
        wakes.begin(str(number))
    news()
    news()
    assert len(news._told) == 2


@pytest.mark.parametrize(
    "change",
    [
        lambda fleet: fleet.host_lost("a", "gone"),
        lambda fleet: fleet.drain("a", wanted=True),
        lambda fleet: fleet.use(replace(fleet.lab, name="other")),
    ],
    ids=["host", "drain", "lab"],
)
def test_a_change_of_status_is_told_once(change: Callable[[Fleet], object]) -> None:
    fleet = Fleet(Lab(name="t", dns=DnsSettings(zone="edge.test"), hosts=(a_host("a"),)))
    fleet.host_answered("a", Capacity(1, 100))
    news = StatusNews(fleet)
    assert news() == []
    change(fleet)
    assert news() == [{}]
    assert news() == []


def test_looks_are_asked_no_more_often_than_they_are_to_be(
    caplog: pytest.LogCaptureFixture,
) -> None:
    feed = Feed()

    def failing() -> list[object]:
        raise RuntimeError("odd")

    feeder = Feeder(feed, [Look("bad", 60, failing), Look("good", 60, lambda: ["a", "b"])])
    begin = feed.last
    feeder.look()
    feeder.look()
    assert [(each.topic, each.value) for each in feed.since(begin, 0).messages] == [
        ("good", "a"),
        ("good", "b"),
    ]
    assert caplog.text.count("live news of bad could not be told") == 1
    feeder.close()
    feeder.close()
    assert feed.since(feed.last, 30).closed

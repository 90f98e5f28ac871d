"""Wakes reach every export, whatever happens to one of them."""

import logging

import pytest

from orchestrator import trace, trace_export
from orchestrator.trace import Wake, Wakes
from orchestrator.trace_export import Exporter


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trace_export, "PERIOD_S", 0.01)
    monkeypatch.setattr(trace, "SETTLE_S", 0.0)


def test_every_export_hears_of_every_wake(caplog: pytest.LogCaptureFixture) -> None:
    heard: list[Wake] = []

    def broken(_: Wake) -> None:
        raise OSError(28, "No space left on device")

    wakes = Wakes()
    exporter = Exporter(wakes, [broken, heard.append])
    exporter.start()
    with caplog.at_level(logging.WARNING):
        for _ in range(3):
            wakes.begin("web").ended("ready")
        exporter.close()
    assert [wake.id for wake in heard] == [1, 2, 3]
    told = [record.message for record in caplog.records]
    assert told == ["wake 1 was not exported: [Errno 28] No space left on device"]


def test_what_is_over_at_the_end_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trace, "SETTLE_S", 3600.0)
    heard: list[Wake] = []
    wakes = Wakes()
    exporter = Exporter(wakes, [heard.append])
    exporter.start()
    wakes.begin("web").ended("ready")
    wakes.begin("api")
    exporter.close()
    assert [wake.service for wake in heard] == ["web"]


def test_an_exporter_that_was_not_started_can_be_closed() -> None:
    Exporter(Wakes(), []).close()


def test_wakes_that_were_too_many_are_told_of(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(trace, "UNTOLD", 1)
    monkeypatch.setattr(trace_export, "PERIOD_S", 60.0)
    wakes = Wakes()
    exporter = Exporter(wakes, [])
    exporter.start()
    for _ in range(4):
        wakes.begin("web").ended("ready")
    with caplog.at_level(logging.WARNING):
        exporter.close()
    assert [record.message for record in caplog.records] == [
        "3 wakes were not exported: too many at once"
    ]

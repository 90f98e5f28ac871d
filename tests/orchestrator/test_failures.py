"""Failures in a row: how long one waits after each, and what ends a row."""

import pytest

from orchestrator.failures import LONGEST_DELAY_S, NONE, STEADY_S, Failures, Row, delay_s

NOW = 100.0


@pytest.mark.parametrize(
    ("failures", "delay"),
    [(0, 0), (1, 0), (2, 1), (3, 2), (4, 4), (10, 256), (11, LONGEST_DELAY_S), (9999, 300)],
)
def test_the_delay_doubles_up_to_a_cap(failures: int, delay: float) -> None:
    assert delay_s(failures) == delay


def a_row(count: int) -> Failures[str]:
    failures: Failures[str] = Failures()
    for _ in range(count):
        failures.failed("web", "it died", 50.0)
    return failures


@pytest.mark.parametrize(
    ("before", "up_s", "count"),
    [(0, 0.0, 1), (3, 0.0, 4), (3, STEADY_S - 1, 4), (3, STEADY_S, 1)],
)
def test_a_steady_instance_ends_a_row(before: int, up_s: float, count: int) -> None:
    found = a_row(before).failed("web", "again", NOW, up_s=up_s)
    assert found == Row(count, NOW, "again")
    assert found.retry_at == NOW + delay_s(count)


def test_what_works_for_a_moment_only_does_not_end_a_row() -> None:
    failures = a_row(3)
    failures.worked("web")
    assert failures.row("web").count == 0
    assert failures.row("web").retry_at <= NOW
    assert failures.failed("web", "it died again", NOW, up_s=1.0).count == 4


def test_what_worked_twice_in_a_row_ends_it() -> None:
    failures = a_row(3)
    failures.worked("web")
    failures.worked("web")
    assert not failures
    assert failures.failed("web", "it died", NOW, up_s=1.0).count == 1


def test_keys_have_rows_of_their_own() -> None:
    failures = a_row(2)
    assert failures.row("mail") is NONE
    failures.failed("mail", "x", NOW)
    failures.forget("web")
    assert failures.row("web") is NONE
    assert failures.row("mail").count == 1
    failures.clear()
    assert not failures

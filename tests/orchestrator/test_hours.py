"""Which minutes cron expressions are: tables, and properties against a calendar."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.hours import FIELDS, Hours, local_time
from orchestrator.idle import KeptUp, kept_up
from orchestrator.model import IdlePolicy


def at(text: str) -> datetime:
    return datetime.fromisoformat(text)


@pytest.mark.parametrize(
    ("written", "moment", "covered"),
    [
        ("* * * * *", "2026-11-22T00:21", True),
        ("* 8-17 * * mon-fri", "2026-11-23T08:00", True),  # a Monday
        ("* 8-17 * * mon-fri", "2026-11-23T17:59:59", True),
        ("* 8-17 * * mon-fri", "2026-11-23T18:00", False),
        ("* 8-17 * * mon-fri", "2026-11-22T08:00", False),  # a Sunday
        ("* * * * 0", "2026-11-22T08:00", True),
        ("* * * * 7", "2026-11-22T08:00", True),
        ("* * * * sun", "2026-11-22T08:00", True),
        ("* * * * FRI-SUN", "2026-11-22T08:00", True),
        ("* * * * fri-sun", "2026-11-23T08:00", False),
        ("*/15 * * * *", "2026-11-22T00:45", True),
        ("*/15 * * * *", "2026-11-22T00:46", False),
        ("5-20/15 * * * *", "2026-11-22T00:20", True),
        ("0,30,40-42 * * * *", "2026-11-22T00:41", True),
        ("* * * jan,nov *", "2026-11-22T00:41", True),
        ("* * * jan-oct *", "2026-11-22T00:41", False),
        ("* * 22 * mon", "2026-11-22T00:41", True),  # either day
        ("* * 22 * mon", "2026-11-23T00:41", True),
        ("* * 22 * mon", "2026-11-24T00:41", False),
        ("* * 22 * *", "2026-11-23T00:41", False),
        ("* * */2 * mon", "2026-11-23T00:41", True),  # begins with a star: both have to be
        ("* * */2 * mon", "2026-11-24T00:41", False),
        ("* * 29 2 *", "2028-02-29T12:00", True),
    ],
)
def test_which_moments_are_covered(written: str, moment: str, covered: bool) -> None:
    assert Hours.parse(written).cover(at(moment)) is covered


@pytest.mark.parametrize(
    ("written", "why"),
    [
        ("* * * *", "has 4 fields"),
        ("", "has 0 fields"),
        ("@daily", "has 1 fields"),
        ("60 * * * *", "no minute: it must be from 0 to 59"),
        ("* 24 * * *", "no hour"),
        ("* * 0 * *", "no day of the month"),
        ("* * * 13 *", "no month: it must be from 1 to 12, or jan to dec"),
        ("* * * * 8", "no day of the week: it must be from 0 to 7, or sun to sat"),
        ("* * * * monday", "no day of the week"),
        ("30-10 * * * *", "ends before it begins"),
        ("5/10 * * * *", "a step needs a range"),
        ("*/0 * * * *", "a step is at least 1"),
        ("1,,2 * * * *", "no minute: write"),
        ("-1 * * * *", "no minute: write"),
        ("* * 30 feb *", "is never"),
    ],
)
def test_what_is_refused(written: str, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        Hours.parse(written)


def a_field(least: int, most: int) -> st.SearchStrategy[str]:
    number = st.integers(least, most)
    span = st.tuples(number, number).map(lambda pair: f"{min(pair)}-{max(pair)}")
    step = st.integers(1, 70)
    stepped = st.tuples(st.one_of(st.just("*"), span), step).map(lambda p: f"{p[0]}/{p[1]}")
    part = st.one_of(st.just("*"), number.map(str), span, stepped)
    return st.lists(part, min_size=1, max_size=3).map(",".join)


EXPRESSIONS = st.tuples(*(a_field(field.least, field.most) for field in FIELDS)).map(" ".join)
MOMENTS = st.datetimes(min_value=datetime(2000, 1, 1), max_value=datetime(2099, 12, 31))  # noqa: DTZ001


@given(written=EXPRESSIONS, moment=MOMENTS)
def test_what_is_read_is_what_the_manual_says(written: str, moment: datetime) -> None:
    """A second reading of the same rules, number by number and without sets."""

    def matches(field: str, number: int, least: int, most: int) -> bool:
        for part in field.split(","):
            span, _, step = part.partition("/")
            first, _, last = (f"{least}-{most}" if span == "*" else span).partition("-")
            low, high = int(first), int(last or first)
            if low <= number <= high and (number - low) % int(step or 1) == 0:
                return True
        return False

    fields = written.split()
    weekday = moment.isoweekday() % 7
    day = matches(fields[2], moment.day, 1, 31)
    week = any(matches(fields[4], each, 0, 7) for each in ({0, 7} if not weekday else {weekday}))
    either = fields[2][0] != "*" and fields[4][0] != "*"
    expected = (
        matches(fields[0], moment.minute, 0, 59)
        and matches(fields[1], moment.hour, 0, 23)
        and matches(fields[3], moment.month, 1, 12)
        and ((day or week) if either else (day and week))
    )
    try:
        hours = Hours.parse(written)
    except ValueError as error:
        assert "is never" in str(error)  # noqa: PT017 - else it has to be readable
        assert not expected
    else:
        assert hours.cover(moment) is expected


@given(moment=MOMENTS, seconds=st.floats(0, 59.9))
def test_a_minute_is_covered_from_its_first_to_its_last_second(
    moment: datetime, seconds: float
) -> None:
    start = moment.replace(second=0, microsecond=0)
    hours = Hours.parse(f"{start.minute} {start.hour} {start.day} {start.month} *")
    assert hours.cover(start + timedelta(seconds=seconds))
    assert not hours.cover(start + timedelta(seconds=60))
    assert not hours.cover(start - timedelta(seconds=1))


# --- the clock ------------------------------------------------------------------------------------


def in_berlin(utc: str, *written: str) -> KeptUp | None:
    hours = tuple(Hours.parse(each) for each in written)
    policy = IdlePolicy(keep_warm=hours, timezone="Europe/Berlin")
    return kept_up(policy, at(utc).replace(tzinfo=UTC).timestamp())


@pytest.mark.parametrize(
    ("utc", "warm"),
    [
        ("2026-07-01T06:00", True),  # 8:00 in summer
        ("2026-01-02T06:00", False),  # 7:00 in winter
        ("2026-01-02T07:00", True),
    ],
)
def test_hours_are_those_of_the_time_zone(utc: str, warm: bool) -> None:
    found = in_berlin(utc, "* 8-17 * * *")
    assert found is (KeptUp.KEEP_WARM if warm else None)


def test_an_hour_that_the_clock_skips_is_never() -> None:
    day = at("2026-03-29T00:00")  # 2:00 became 3:00
    minutes = [day + timedelta(minutes=each) for each in range(24 * 60)]
    assert not any(in_berlin(each.isoformat(), "* 2 29 mar *") for each in minutes)


def test_an_hour_that_the_clock_shows_twice_is_warm_both_times() -> None:
    day = at("2026-10-25T00:00")  # 3:00 became 2:00 again, at 1:00 UTC
    warm = [
        each
        for each in range(24 * 60)
        if in_berlin((day + timedelta(minutes=each)).isoformat(), "* 2 25 oct *")
    ]
    assert warm == list(range(120))


def test_any_of_several_expressions_counts_and_a_pin_is_always() -> None:
    assert in_berlin("2026-07-01T06:00", "0 0 1 1 *", "* 8 * * *") is KeptUp.KEEP_WARM
    assert kept_up(IdlePolicy(pin=True), 0.0) is KeptUp.PIN
    assert kept_up(IdlePolicy(), 0.0) is None


def test_without_a_time_zone_the_machines_own_counts() -> None:
    now = at("2026-07-01T06:30").astimezone()
    assert local_time(now.timestamp(), "").replace(tzinfo=None) == now.replace(tzinfo=None)

"""Times of the week, written as for cron: which minutes they are. Pure.

The five fields and their rules are those of crontab(5), as Vixie's cron and cronie have them. Only
single minutes are looked at, so a clock that jumps, a machine that was suspended and the days on
which the hour changes need no care: an hour that the clock skips is in no set of hours, and one
that it shows twice is in a set both times.
"""

import calendar
import re
from dataclasses import dataclass
from datetime import UTC, datetime
from zoneinfo import ZoneInfo

_MONTHS = tuple(name.lower() for name in calendar.month_abbr)[1:]
_DAYS = ("sun", "mon", "tue", "wed", "thu", "fri", "sat")
_SUNDAY = 7  # 0 as well; a range such as fri-sun ends with this one
_LONGEST_MONTH = {month: calendar.monthrange(2024, month)[1] for month in range(1, 13)}  # leap
_RANGE = re.compile(r"(?:(?P<all>\*)|(?P<first>\w+)(?:-(?P<last>\w+))?)(?:/(?P<step>[0-9]{1,4}))?")


@dataclass(frozen=True, slots=True)
class Field:
    """One of the five fields: how it is called, its least and greatest number, its names."""

    noun: str
    least: int
    most: int
    names: tuple[str, ...] = ()

    def read(self, text: str) -> frozenset[int]:
        """Return the numbers that a field means; ValueError says what is wrong with it."""
        return frozenset(number for part in text.split(",") for number in self._part(part))

    def _part(self, text: str) -> range:
        matched = _RANGE.fullmatch(text)
        if not matched:
            raise self._wrong(
                text, "write *, a number, a range such as 1-5, or a step: */2, 0-30/5"
            )
        if matched["all"]:
            first, last = self.least, self.most
        else:
            first = self._number(matched["first"])
            last = self._number(matched["last"] or matched["first"])
            if self.names is _DAYS and last == 0 < first:
                last = _SUNDAY
        if last < first:
            raise self._wrong(text, "it ends before it begins")
        if matched["step"] and not (matched["all"] or matched["last"]):
            raise self._wrong(text, "a step needs a range, such as 0-30/5, or *")
        step = int(matched["step"] or 1)
        if not step:
            raise self._wrong(text, "a step is at least 1")
        return range(first, last + 1, step)

    def _number(self, text: str) -> int:
        if text.lower() in self.names:
            return self.names.index(text.lower()) + self.least
        if not re.fullmatch(r"[0-9]{1,2}", text) or not self.least <= int(text) <= self.most:
            names = f", or {self.names[0]} to {self.names[-1]}" if self.names else ""
            raise self._wrong(text, f"it must be from {self.least} to {self.most}{names}")
        return int(text)

    def _wrong(self, text: str, why: str) -> ValueError:
        return ValueError(f"{text[:20]!r} is no {self.noun}: {why}")


FIELDS = (
    Field("minute", 0, 59),
    Field("hour", 0, 23),
    Field("day of the month", 1, 31),
    Field("month", 1, 12, _MONTHS),
    Field("day of the week", 0, _SUNDAY, _DAYS),
)


@dataclass(frozen=True, slots=True)
class Hours:
    """A set of minutes, such as ``* 8-17 * * mon-fri``: those from 8:00 to 17:59 of working days.

    `weekdays` are as `datetime.isoweekday` counts, 7 for Sunday. `either_day` says that a day
    counts if its number or its weekday is right: so it is if neither field begins with ``*``, and
    else both have to be.
    """

    text: str
    minutes: frozenset[int]
    hours: frozenset[int]
    days: frozenset[int]
    months: frozenset[int]
    weekdays: frozenset[int]
    either_day: bool

    @classmethod
    def parse(cls, text: str) -> "Hours":
        """Return what five fields mean; ValueError says what is wrong with which of them."""
        written = text.split()
        if len(written) != len(FIELDS):
            nouns = ", ".join(field.noun for field in FIELDS)
            raise ValueError(
                f"{text[:60]!r} has {len(written)} fields; write five ({nouns}), such as "
                "'* 8-17 * * mon-fri'"
            )
        read = [field.read(part) for field, part in zip(FIELDS, written, strict=True)]
        minutes, hours, days, months, weekdays = read
        either_day = not written[2].startswith("*") and not written[4].startswith("*")
        if not either_day and min(days) > max(_LONGEST_MONTH[month] for month in months):
            raise ValueError(f"{text[:60]!r} is never: no such month has a day {min(days)}")
        sundays = frozenset(day or _SUNDAY for day in weekdays)
        return cls(text, minutes, hours, days, months, sundays, either_day)

    def cover(self, moment: datetime) -> bool:
        """Return whether the minute of a moment, as its own clock shows it, is one of these."""
        day, weekday = moment.day in self.days, moment.isoweekday() in self.weekdays
        return (
            moment.minute in self.minutes
            and moment.hour in self.hours
            and moment.month in self.months
            and (day or weekday if self.either_day else day and weekday)
        )


def local_time(now: float, timezone: str) -> datetime:
    """Return a wall-clock time (seconds since the epoch) in a time zone; empty: the machine's."""
    if timezone:
        return datetime.fromtimestamp(now, ZoneInfo(timezone))
    return datetime.fromtimestamp(now, UTC).astimezone()

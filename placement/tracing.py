"""What a search found when: kept while it runs, for the curves that compare algorithms over time.

Which moments there are depends on the values alone, so equal seeds give equal traces, but for their
seconds.
"""

import math
from dataclasses import dataclass, field
from time import perf_counter

from placement.problem import Moment

STEP = 1e-3  # relative: what differs by less from the last that was kept is no moment of its own


@dataclass(slots=True)
class Watch:
    """Takes note of better plans and bounds of one search, which begins when it is made."""

    since: float = field(default_factory=perf_counter)
    kept: list[Moment] = field(default_factory=list)
    last: Moment | None = None

    def note(self, value: float, bound: float = 0.0, *, at: float | None = None) -> None:
        """Note the best value and bound so far, now or `at` seconds after the start.

        While there is no plan (an infinite value) there is nothing to note.
        """
        if not math.isfinite(value):
            return
        seconds = perf_counter() - self.since if at is None else at
        self.last = Moment(seconds, value, min(max(bound, 0.0), value))
        if not self.kept or _differs(self.kept[-1], self.last):
            self.kept.append(self.last)

    def trace(self) -> tuple[Moment, ...]:
        """Return the moments that differ, and the last one."""
        end = [self.last] if self.last is not None and self.last is not self.kept[-1] else []
        return (*self.kept, *end)


def later(trace: tuple[Moment, ...], seconds: float) -> tuple[Moment, ...]:
    """Return a trace of what began so many seconds after the whole."""
    return tuple(Moment(each.seconds + seconds, each.value, each.bound) for each in trace)


def _differs(one: Moment, other: Moment) -> bool:
    step = STEP * max(abs(one.value), 1e-9)
    return abs(one.value - other.value) > step or abs(one.bound - other.bound) > step

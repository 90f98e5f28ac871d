"""Failures in a row, of whatever may fail again: how many, why the last, and when to try again.

The one rule of backing off, for wakes, for copies that are grown again, for hosts that are drained
and for flavours of images: the first failure is tried again at once, then ever more rarely. Only
bookkeeping; who counts what as a failure, and what is not done meanwhile, is up to the callers. All
times are monotonic seconds.
"""

import threading
from collections.abc import Hashable
from dataclasses import dataclass
from typing import Generic, TypeVar

FIRST_DELAY_S = 1.0  # after the second failure in a row; the first is made good at once
LONGEST_DELAY_S = 300.0  # as for containers that crash in a loop: Kubernetes, "restart policy"
STEADY_S = 60.0  # an instance that was up for so long ends a row of failures

Key = TypeVar("Key", bound=Hashable)


@dataclass(frozen=True, slots=True)
class Row:
    """Failures of one thing in a row; `why` tells of the last one."""

    count: int = 0
    last_at: float = 0.0
    why: str = ""
    before: int = 0  # how long the row was when something worked, until it has worked for long

    @property
    def retry_at(self) -> float:
        """When the next try is due."""
        return self.last_at + delay_s(self.count)


NONE = Row()


def delay_s(failures: int) -> float:
    """Return how long to wait after so many failures in a row: nothing, then twice as long each."""
    if failures <= 1:
        return 0.0
    return min(LONGEST_DELAY_S, FIRST_DELAY_S * 2.0 ** min(failures - 2, 30))


class Failures(Generic[Key]):
    """Rows of failures by key. Safe to use from many threads."""

    def __init__(self) -> None:
        self._rows: dict[Key, Row] = {}
        self._lock = threading.Lock()

    def row(self, key: Key) -> Row:
        """Return the row of a key; an empty one if nothing failed."""
        return self._rows.get(key, NONE)

    def failed(self, key: Key, why: str, now: float, *, up_s: float = 0.0) -> Row:
        """Note a failure, of what had been up for `up_s`, and return the row with it."""
        with self._lock:
            row = self.row(key)
            count = 1 if up_s >= STEADY_S else max(row.count, row.before) + 1
            self._rows[key] = Row(count, now, why)
            return self._rows[key]

    def worked(self, key: Key) -> None:
        """End a row; should that not last for `STEADY_S`, the next failure goes on with it."""
        with self._lock:
            row = self._rows.pop(key, NONE)
            if row.count:
                self._rows[key] = Row(before=row.count)

    def forget(self, key: Key) -> None:
        """Forget the row of a key."""
        with self._lock:
            self._rows.pop(key, None)

    def clear(self) -> None:
        """Forget everything."""
        with self._lock:
            self._rows.clear()

    def __bool__(self) -> bool:
        """Return whether anything is remembered."""
        return bool(self._rows)

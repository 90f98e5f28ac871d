"""Tells of refused wakes once per burst, and counts the rest: an event each would be a flood.

The first refusal is told at once; how many followed is told once a minute until there are no more.
"""

import threading
import time

from orchestrator.journal import Journal

TOLD_EVERY_S = 60.0


class Refusals:
    """Wakes that were refused since there were too many at once. Safe to use from many threads."""

    def __init__(self, journal: Journal, subject: str) -> None:
        self._journal = journal
        self._subject = subject
        self._lock = threading.Lock()
        self._told_at: float | None = None
        self._count = 0  # since it was told

    def note(self, why: str) -> None:
        """Count a refusal; the first of a burst is told."""
        with self._lock:
            first = self._told_at is None
            if first:
                self._told_at = time.monotonic()
            else:
                self._count += 1
        if first:
            text = f"{why}: wakes are refused, and further ones counted"
            self._journal.record("overloaded", self._subject, text)

    def tend(self) -> None:
        """Tell how many there were in the last minute, if it is over; called in each sweep."""
        now = time.monotonic()
        with self._lock:
            if self._told_at is None or now < self._told_at + TOLD_EVERY_S:
                return
            count, self._count = self._count, 0
            self._told_at = now if count else None
        if count:
            text = f"refused {count} more wakes in the last minute"
            self._journal.record("overloaded", self._subject, text, wakes=str(count))

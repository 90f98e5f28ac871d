"""The last lists of changes: what plans, labs, moves and drains did, or would do, and for whom.

Kept in memory, for people who look on; what was done is in the journal as well.
"""

import threading
import time
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass

from orchestrator.changes import Changes, Stop, Withdraw
from orchestrator.model import Instance
from orchestrator.operations import Job

KEPT = 200  # lists


@dataclass(frozen=True, slots=True)
class Listed:
    """A list of changes: `by` the verb it came from, about `subject`, at wall-clock seconds.

    `operation` is empty if none was made of it. It was `applied`, or only proposed; `failed` says
    why it was not carried out to its end, if so.
    """

    number: int
    at: float
    by: str
    subject: str
    actor: str
    operation: str
    applied: bool
    changes: Changes
    failed: str = ""


class ChangeLog:
    """The last lists, oldest first. Safe to use from several threads."""

    def __init__(self, kept: int = KEPT) -> None:
        self._lock = threading.Lock()
        self._kept: deque[Listed] = deque(maxlen=kept)
        self._number = 0

    def note(
        self, by: str, subject: str, changes: Changes, job: Job, *, applied: bool, failed: str = ""
    ) -> None:
        """Add a list."""
        with self._lock:
            self._number += 1
            listed = Listed(
                *(self._number, time.time(), by, subject, job.actor, job.id),
                applied=applied,
                changes=changes,
                failed=failed,
            )
            self._kept.append(listed)

    def last(self, limit: int, before: int = 0) -> tuple[Listed, ...]:
        """Return the last lists, oldest first, or the last of those below number `before`."""
        with self._lock:
            listed = [each for each in self._kept if not before or each.number < before]
        return tuple(listed[-limit:])


def leaving(host: str, instances: Iterable[Instance]) -> Changes:
    """Return what the drain of a host takes away from it."""
    items = [
        change(each.service, each.name, host) for each in instances for change in (Withdraw, Stop)
    ]
    return Changes(tuple(items), why=f"{host} is drained")

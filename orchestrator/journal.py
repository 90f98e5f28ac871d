"""The journal as the rest of control uses it: one call, off the caller's path, never an error.

Events tell people what happened; nothing is decided by them. So an event that cannot be stored is
logged and let go, while intents (`Store.save`) are never handled this way.
"""

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from logging import INFO, WARNING, getLogger

from orchestrator.errors import StoreError
from orchestrator.model import Event
from orchestrator.store.base import Store

log = getLogger("edgewake")

TROUBLE = frozenset(
    {
        "backing-off",
        "boot-failed",
        "client-lost",
        "clock-set",
        "drain-stuck",
        "host-lost",
        "left-behind",
        "network-failed",
        "network-refused",
        "not-guarded",
        "not-migrated",
        "not-roused",
        "other-flavour",
        "overloaded",
        "replica-failed",
        "rouse-failed",
        "sleep-failed",
        "stop-failed",
        "wake-budget",
        "traffic-over-budget",
        "wake-failed",
        "withdrawn",
    }
)


class Journal:
    """Appends events to a store in the order they happened, on a thread of its own.

    `told` is called there with each event, whether it could be stored or not; it must not fail.
    """

    def __init__(self, store: Store, told: Callable[[Event], None] = lambda _event: None) -> None:
        self._store = store
        self._told = told
        self._writer = ThreadPoolExecutor(1, "edgewake-journal")

    def record(self, kind: str, subject: str, text: str, **data: str) -> None:
        """Note that something happened to `subject`: a word for its kind, a sentence, facts."""
        event = Event(time.time(), kind, subject, text, tuple(sorted(data.items())))
        told = text if text.startswith(f"{subject}: ") else f"{subject}: {text}"
        log.log(WARNING if kind in TROUBLE else INFO, "%s: %s", kind, told)
        try:
            self._writer.submit(self._write, event)
        except RuntimeError:  # closed: we are on our way out
            log.info("not journaled: %s %s", kind, subject)

    def close(self) -> None:
        """Write what is left."""
        self._writer.shutdown(wait=True)

    def _write(self, event: Event) -> None:
        try:
            self._store.record(event)
        except StoreError as error:
            log.warning("an event could not be kept: %s", error)
        self._told(event)

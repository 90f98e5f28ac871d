"""The journal as the rest of control uses it: one call, off the caller's path, never an error.

Events tell people what happened; nothing is decided by them. So an event that cannot be stored is
logged, counted and let go, while intents (`Store.save`) are never handled this way. An event of a
wake has its number as the fact `wake`. Listeners (the live feed, webhooks) are told of each event.
"""

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from logging import INFO, WARNING, getLogger

from orchestrator.errors import StoreError
from orchestrator.model import Event
from orchestrator.store.base import Store
from orchestrator.wake_context import facts, wake_now

log = getLogger("edgewake")

AUDIT = "audit"  # the kind of what was asked for through the API

TROUBLE = frozenset(
    {
        "backing-off",
        "boot-failed",
        "client-lost",
        "clock-set",
        "drain-stuck",
        "host-lost",
        "lab-conflict",
        "left-behind",
        "login-failed",
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
        "webhook-failed",
        "wake-failed",
        "web-ended",
        "web-refused",
        "withdrawn",
    }
)


Listener = Callable[[Event], object]
"""Is told of each event, in order, on the journal's thread. It must be quick, and raise nothing."""


class Journal:
    """Appends events to a store in the order they happened, on a thread of its own.

    `lost` counts those that could not be stored.
    """

    def __init__(self, store: Store) -> None:
        self.lost = 0
        self._store = store
        self._listeners: tuple[Listener, ...] = ()
        self._writer = ThreadPoolExecutor(1, "edgewake-journal")

    def listen(self, listener: Listener) -> None:
        """Tell somebody of each event from now on, once it was stored or could not be."""
        self._listeners = (*self._listeners, listener)

    def record(self, kind: str, subject: str, text: str, **data: str) -> None:
        """Note that something happened to `subject`: a word for its kind, a sentence, facts."""
        if (trace := wake_now()) is not None and trace.id:
            data.setdefault("wake", str(trace.id))
        event = Event(time.time(), kind, subject, text, tuple(sorted(data.items())))
        told = text if text.startswith(f"{subject}: ") else f"{subject}: {text}"
        level = WARNING if kind in TROUBLE else INFO
        log.log(level, "%s: %s", kind, told, extra=facts(kind=kind, subject=subject, **data))
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
            self.lost += 1
            log.warning("an event could not be kept: %s", error)
        for listener in self._listeners:
            try:
                listener(event)
            except Exception:
                log.exception("an event could not be passed on")

"""Those who watch a host, and the thread that tells them what happened there."""

import logging
import threading
from collections.abc import Callable
from queue import SimpleQueue

from orchestrator.hypervisors.base import HostEvent, Listener

log = logging.getLogger(__name__)


class Listeners:
    """Tells each listener of each event, in order, from one thread of its own.

    `host` names the thread. `before` is called with each event on that thread, before anybody is
    told, and returns what they are told. Safe to use from many threads; no method waits for a
    listener.
    """

    def __init__(
        self, host: str, before: Callable[[HostEvent], HostEvent] = lambda event: event
    ) -> None:
        self._host = host
        self._before = before
        self._lock = threading.Lock()
        self._listeners: tuple[Listener, ...] = ()
        self._events: SimpleQueue[HostEvent | None] = SimpleQueue()

    def add(self, listener: Listener) -> None:
        """Tell `listener` of what happens from now on."""
        with self._lock:
            first = not self._listeners
            self._listeners = (*self._listeners, listener)
        if first:
            name = f"events {self._host}"
            threading.Thread(target=self._deliver, name=name, daemon=True).start()

    def tell(self, event: HostEvent) -> None:
        """Have an event told; nothing happens while nobody listens."""
        if self._listeners:
            self._events.put(event)

    def close(self) -> None:
        """End the thread, after what was to be told before."""
        self._events.put(None)

    def _deliver(self) -> None:
        while (event := self._events.get()) is not None:
            event = self._before(event)
            for listener in self._listeners:
                try:
                    listener(event)
                except Exception:
                    log.exception("a listener failed on %s", event)

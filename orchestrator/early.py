"""Answers that are given before the guest answers, because its first connection will wait instead.

For services with ``reply: early``. Whoever asks while a wake is under way gets the address as soon
as it is reserved and guarded; without that, or where no guard is, the answer waits for the guest as
for every other service. If the guest then does not come, whoever asks next is told why.
"""

import threading
import time
from concurrent.futures import Future, InvalidStateError
from contextlib import suppress
from weakref import WeakKeyDictionary

from orchestrator.errors import WakeError
from orchestrator.model import Endpoint
from orchestrator.trace import WakeTrace

EARLY_TTL_S = 2  # such an answer may turn out wrong, so nobody is to keep it for long
TOLD_FOR_S = 30.0  # how long a broken promise is worth telling

Endpoints = tuple[Endpoint, ...]


class EarlyReplies:
    """What was promised in each wake. Safe to use from many threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        # A wake that nobody asked by name for has no future to end its promise with.
        self._promised: WeakKeyDictionary[WakeTrace, Endpoints] = WeakKeyDictionary()
        self._waiting: dict[WakeTrace, Future[Endpoints]] = {}
        self._broken: dict[str, tuple[WakeError, float]] = {}

    def promise(self, trace: WakeTrace, endpoint: Endpoint) -> None:
        """Answer all who asked, and will ask, during a wake with an address."""
        with self._lock:
            self._promised[trace] = (endpoint,)
            future = self._waiting.get(trace)
        if future is not None:
            _complete(future, (endpoint,))

    def future(self, trace: WakeTrace, wake: Future[Endpoints]) -> Future[Endpoints]:
        """Return the answer to a question that came before or during a wake."""
        with self._lock:
            future = self._waiting.get(trace)
            new = future is None
            if future is None:
                future = self._waiting[trace] = Future()
            promised = self._promised.get(trace)
        if promised:
            _complete(future, promised)
        if new:
            wake.add_done_callback(lambda ended: self._ended(trace, ended))
        return future

    def over(self, trace: WakeTrace) -> None:
        """Forget what was promised in a wake that is over, if nobody has asked for an answer."""
        with self._lock:
            if trace not in self._waiting:
                self._promised.pop(trace, None)

    def broken(self, service: str) -> WakeError | None:
        """Return why the last promise of a service was not kept, once; None if it was."""
        with self._lock:
            error, at = self._broken.pop(service, (None, 0.0))
        return error if time.monotonic() - at < TOLD_FOR_S else None

    def _ended(self, trace: WakeTrace, wake: Future[Endpoints]) -> None:
        error = wake.exception()
        with self._lock:
            promised = self._promised.pop(trace, None)
            future = self._waiting.pop(trace)
            if promised and isinstance(error, WakeError):
                self._broken[trace.service] = (error, time.monotonic())
        if error is None:
            _complete(future, wake.result())
        else:
            with suppress(InvalidStateError):
                future.set_exception(error)


def _complete(future: Future[Endpoints], endpoints: Endpoints) -> None:
    with suppress(InvalidStateError):  # it was promised before
        future.set_result(endpoints)

"""Tells every steering back end the same thing, in the right order.

Wakes, sleeps and sweeps all change where clients should go, from several threads. The list is
read from the fleet and handed on under one lock, so that an older list never follows a newer one.
"""

import threading
from collections.abc import Callable, Sequence

from orchestrator.steering.base import Route, Steering


class Fanout:
    """Steers by what `routes()` says at the moment."""

    def __init__(self, routes: Callable[[], Sequence[Route]]) -> None:
        self._routes = routes
        self._back_ends: tuple[Steering, ...] = ()
        self._lock = threading.Lock()

    def use(self, *back_ends: Steering) -> None:
        """Steer by these back ends from now on."""
        with self._lock:
            self._back_ends = back_ends

    def steer(self) -> None:
        """Tell all back ends the whole wanted list as it is now."""
        with self._lock:
            routes = self._routes()
            for back_end in self._back_ends:
                back_end.set(routes)

    def close(self) -> None:
        """Stop steering."""
        for back_end in self._back_ends:
            back_end.close()

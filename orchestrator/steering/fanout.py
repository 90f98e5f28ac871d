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
        self._told: Sequence[Route] = ()
        self._lock = threading.Lock()

    def use(self, *back_ends: Steering) -> None:
        """Steer by these back ends from now on."""
        with self._lock:
            self._back_ends = back_ends
            self._told = ()

    def steer(self) -> None:
        """Tell all back ends the whole wanted list as it is now."""
        with self._lock:
            self._tell(self._routes())

    def refresh(self) -> None:
        """Tell all back ends if the list is another one than they were told last."""
        with self._lock:
            if (routes := self._routes()) != self._told:
                self._tell(routes)

    def _tell(self, routes: Sequence[Route]) -> None:
        for back_end in self._back_ends:
            back_end.set(routes)
        self._told = routes

    def close(self) -> None:
        """Stop steering."""
        for back_end in self._back_ends:
            back_end.close()

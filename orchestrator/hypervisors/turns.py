"""One at a time, by name: what a driver needs to order the starts and stops of one guest."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager


class Turns:
    """Locks that exist only while somebody holds or wants them."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._locks: dict[str, tuple[threading.Lock, int]] = {}

    @contextmanager
    def of(self, name: str) -> Iterator[None]:
        """Keep everyone else with the same name out of this block. Not reentrant."""
        with self._lock:
            lock, users = self._locks.get(name, (threading.Lock(), 0))
            self._locks[name] = lock, users + 1
        try:
            with lock:
                yield
        finally:
            with self._lock:
                users = self._locks[name][1] - 1
                if users:
                    self._locks[name] = lock, users
                else:
                    del self._locks[name]

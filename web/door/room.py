"""Places that callers share, such as threads and event streams: one caller alone gets not all."""

from collections import Counter
from threading import Lock

SHARE_KEPT = 8  # of so many places, one is kept for those who have few
FEW = 4


class Room:
    """So many places. The last ones are only for callers who have few. Safe to call from threads.

    Callers are told apart by name, so that several tokens or browsers of one count together.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._kept = most // SHARE_KEPT
        self._lock = Lock()
        self._taken: Counter[str] = Counter()

    def enter(self, who: str) -> bool:
        """Take a place; False if there is none for this caller. Who took one has to `leave`."""
        with self._lock:
            most = self._most if self._taken.get(who, 0) < FEW else self._most - self._kept
            if self._taken.total() >= most:
                return False
            self._taken[who] += 1
            return True

    def leave(self, who: str) -> None:
        """Give a place back."""
        with self._lock:
            self._taken[who] -= 1
            if self._taken[who] <= 0:
                del self._taken[who]

"""What the door tells of who came in, and who did not: as much as an audit log can bear."""

import time
from collections.abc import Callable
from threading import Lock

Note = Callable[[str, str, str], None]  # kind, who or where from, a sentence

AT_ONCE = 20  # failures that are told one by one ...
PER_S = 1 / 30  # ... and as many again, later


class Bounded:
    """Passes on what is noted. Of failures, which anybody may cause, only some; the rest counted.

    Safe to call from threads.
    """

    def __init__(self, note: Note, clock: Callable[[], float] = time.monotonic) -> None:
        self._note = note
        self._clock = clock
        self._lock = Lock()
        self._room = float(AT_ONCE)
        self._at = clock()
        self._untold = 0

    def succeeded(self, kind: str, who: str, text: str) -> None:
        """Note what only somebody who was let in can cause."""
        self._note(kind, who, text)

    def failed(self, kind: str, where: str, text: str) -> None:
        """Note what anybody can cause."""
        with self._lock:
            now = self._clock()
            self._room = min(AT_ONCE, self._room + (now - self._at) * PER_S)
            self._at = now
            if self._room < 1:
                self._untold += 1
                return
            self._room -= 1
            untold, self._untold = self._untold, 0
        more = f" ({untold} others before it were not noted)" if untold else ""
        self._note(kind, where, text + more)

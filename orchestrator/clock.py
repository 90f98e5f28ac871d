"""Notices that the machine's clock was set, or that the machine itself slept.

Nothing of edgewake's own hangs on the wall clock while it runs: what waits, waits by a clock that
nobody sets. But people compare times in the journal, so they are told.
"""

import time

JUMP_S = 5.0  # a clock that NTP keeps is far nearer than that, and is not worth a word


class WallClock:
    """The wall clock beside the monotonic one."""

    def __init__(self) -> None:
        self._ahead_s = _ahead_s()

    def jumped_s(self) -> float:
        """Return by how many seconds the clock was set since the last call; 0 if it was not."""
        before, self._ahead_s = self._ahead_s, _ahead_s()
        by_s = self._ahead_s - before
        return by_s if abs(by_s) >= JUMP_S else 0.0


def told(by_s: float) -> str:
    """Say what a jump was, for people."""
    way = "forward" if by_s > 0 else "back"
    slept = ", or this machine slept" if by_s > 0 else ""
    return f"it was set {way} by {abs(by_s):.0f} s{slept}; times in the journal jump with it"


def _ahead_s() -> float:
    return time.time() - time.monotonic()

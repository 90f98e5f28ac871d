"""How often something may be done: token buckets, one for each key.

Pure bookkeeping with no clock but the caller's; safe to use from many threads.
"""

import threading
import time
from collections.abc import Hashable

MOST_KEYS = 10_000  # after which the one that was used longest ago is forgotten


class TokenBuckets:
    """Allows `rate` things a second for each key, and `burst` at once after a while of none.

    A rate of 0 allows nothing beyond the first burst.
    """

    def __init__(self, rate: float, burst: float, *, most_keys: int = MOST_KEYS) -> None:
        self._rate, self._burst, self._most_keys = rate, max(1.0, burst), most_keys
        self._lock = threading.Lock()
        self._left: dict[Hashable, tuple[float, float]] = {}  # tokens, and when that was so

    def take(self, key: Hashable, now: float | None = None) -> bool:
        """Take a token of a key's bucket at `now` (monotonic seconds); False if it is empty."""
        now = time.monotonic() if now is None else now
        with self._lock:
            tokens, at = self._left.pop(key, (self._burst, now))
            tokens = min(self._burst, tokens + max(0.0, now - at) * self._rate)
            self._left[key] = (tokens - 1 if tokens >= 1 else tokens, max(now, at))
            if len(self._left) > self._most_keys:
                del self._left[next(iter(self._left))]
            return tokens >= 1

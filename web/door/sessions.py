"""Sessions of browsers: in memory, by a random id that only the cookie knows in full."""

import hmac
import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from hashlib import sha256
from threading import Lock

from web.roles import Caller

IDLE_S = 12 * 3600.0  # without a request
LONGEST_S = 7 * 86400.0
MOST = 1000  # sessions; the one that was idle longest gives way
MOST_EACH = 100  # of one caller, so that nobody ends others' sessions by logging in again and again
ID_BYTES = 32


@dataclass(frozen=True, slots=True)
class Session:
    """One browser that logged in. Times are those of a monotonic clock, in seconds."""

    caller: Caller
    csrf: str
    token_id: str  # the session ends with this token; "" after a one-time login
    began: float
    used: float


class Sessions:
    """All sessions of one door. Safe to call from threads.

    `still_valid` says of a token's id whether that token still lets somebody in.
    """

    def __init__(
        self, still_valid: Callable[[str], bool], clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._still_valid = still_valid
        self._clock = clock
        self._lock = Lock()
        self._sessions: dict[str, Session] = {}  # by the hash of their id; least used first

    def begin(self, caller: Caller, token_id: str = "") -> tuple[str, Session]:
        """Begin a session; return its id, always a new one, and the session."""
        session_id, now = secrets.token_urlsafe(ID_BYTES), self._clock()
        session = Session(caller, secrets.token_urlsafe(ID_BYTES), token_id, now, now)
        with self._lock:
            own = [key for key, each in self._sessions.items() if each.caller.name == caller.name]
            if len(own) >= MOST_EACH:
                del self._sessions[own[0]]
            while len(self._sessions) >= MOST:
                del self._sessions[next(iter(self._sessions))]
            self._sessions[_key(session_id)] = session
        return session_id, session

    def find(self, session_id: str) -> Session | None:
        """Return the session with an id, if it has not ended; it counts as used."""
        key, now = _key(session_id), self._clock()
        with self._lock:
            session = self._sessions.pop(key, None)
            if session is None or now - session.used > IDLE_S or now - session.began > LONGEST_S:
                return None
            if session.token_id and not self._still_valid(session.token_id):
                return None
            session = replace(session, used=now)
            self._sessions[key] = session
            return session

    def end(self, session_id: str) -> None:
        """End a session, if there is one with that id."""
        with self._lock:
            self._sessions.pop(_key(session_id), None)


def same(given: str, wanted: str) -> bool:
    """Return whether two secrets are the same, in a time that does not tell how much of them is."""
    return hmac.compare_digest(given.encode(errors="replace"), wanted.encode())


def _key(session_id: str) -> str:
    return sha256(session_id.encode(errors="replace")).hexdigest()

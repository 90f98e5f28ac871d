"""The daemon behind the door: asked through its UNIX socket, in the name of whoever asks us.

`Upstream` is what pages get (`get`, `text`, as of `web.client.Client`) and what API requests are
passed on with (`ask`). Equal GETs of callers with the same role that come within a moment are
answered from one answer; whatever changes something makes all of them old.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from http import HTTPStatus
from http.client import HTTPException
from pathlib import Path
from threading import Condition
from time import monotonic
from typing import Any

from orchestrator.errors import EdgewakeError
from web.client import ANSWER_S, ApiError, NotRunning, UnixConnection
from web.roles import ACTOR_HEADER, ROLE_HEADER, Caller

FRESH_S = 0.25  # how old an answer may be that others asked for
MOST_KEPT = 256  # answers
LARGEST_KEPT = 1 << 20  # bytes of an answer that is kept
SAFE = frozenset({"GET", "HEAD", "OPTIONS"})

Headers = tuple[tuple[str, str], ...]
Noted = list[tuple[str, bytes | None]]  # a path, and what was there; None if it was refused


class UpstreamGone(NotRunning):
    """The daemon does not answer; `late` says that it took the request and gave no answer."""

    def __init__(self, message: str, *, late: bool = False) -> None:
        EdgewakeError.__init__(
            self, message, hint="try again in a moment; edgewake's log may say more"
        )
        self.late = late


@dataclass(frozen=True, slots=True)
class Answer:
    """What the daemon said."""

    status: int
    headers: Headers
    body: bytes

    @property
    def may_be_shared(self) -> bool:
        """Whether it is for everybody of a role: a refusal names who asked, and is audited."""
        return self.status < HTTPStatus.BAD_REQUEST


@dataclass(slots=True)
class _Flight:
    """A question that is being asked, or was a moment ago."""

    began: float
    answer: Answer | None = None
    failed: EdgewakeError | None = None


class Upstream:
    """One daemon. Safe to call from threads. `UpstreamGone` says that it does not answer."""

    def __init__(self, socket: Path, *, timeout_s: float = ANSWER_S) -> None:
        self._socket = socket
        self._timeout_s = timeout_s
        self._flights: dict[tuple[str, str, Headers], _Flight] = {}
        self._landed = Condition()

    def ask(
        self,
        caller: Caller,
        method: str,
        target: str,
        headers: Mapping[str, str] | None = None,
        body: bytes = b"",
    ) -> Answer:
        """Pass a request on; `target` is path and query, encoded."""
        given = tuple(sorted((headers or {}).items()))
        if method == "GET" and not body:
            return self._shared(caller, target, given)
        if method in SAFE:
            return self._ask(caller, method, target, given, body)
        try:
            return self._ask(caller, method, target, given, body)
        finally:
            with self._landed:  # who changed something wants to see it
                self._flights.clear()

    def connect(self, timeout_s: float) -> UnixConnection:
        """Return a connection of one's own, such as for a stream; not yet open."""
        return UnixConnection(self._socket, timeout_s)

    # --- inside -------------------------------------------------------------------------------

    def _shared(self, caller: Caller, target: str, headers: Headers) -> Answer:
        key, now = (str(caller.role), target, headers), monotonic()
        with self._landed:
            flight = self._flights.get(key)
            if flight is not None and now - flight.began < FRESH_S:
                while flight.answer is None and flight.failed is None:
                    self._landed.wait()
                if flight.failed is not None:
                    raise flight.failed
                if flight.answer is not None and flight.answer.may_be_shared:
                    return flight.answer
            flight = self._flights[key] = _Flight(now)
        try:
            flight.answer = self._ask(caller, "GET", target, headers, b"")
        except EdgewakeError as error:
            flight.failed = error
            raise
        except BaseException:
            flight.failed = UpstreamGone("the request was broken off")
            raise
        finally:
            with self._landed:
                self._tidy(key, flight)
                self._landed.notify_all()
        return flight.answer

    def _tidy(self, key: tuple[str, str, Headers], flight: _Flight) -> None:
        """Let go of what nobody may have any more."""
        kept = flight.answer
        useless = kept is None or not kept.may_be_shared or len(kept.body) > LARGEST_KEPT
        if useless and self._flights.get(key) is flight:
            del self._flights[key]
        if len(self._flights) > MOST_KEPT:
            now = monotonic()
            self._flights = {k: f for k, f in self._flights.items() if now - f.began < FRESH_S}

    def _ask(
        self, caller: Caller, method: str, target: str, headers: Headers, body: bytes
    ) -> Answer:
        connection = UnixConnection(self._socket, self._timeout_s)
        told = {**dict(headers), **identity(caller)}
        try:
            connection.request(method, target, body or None, told)
            response = connection.getresponse()
            return Answer(response.status, tuple(response.getheaders()), response.read())
        except (FileNotFoundError, ConnectionRefusedError) as error:
            raise UpstreamGone("edgewake does not run at the moment") from error
        except TimeoutError as error:
            raise UpstreamGone(
                f"edgewake gave no answer within {self._timeout_s:g} s", late=True
            ) from error
        except (OSError, HTTPException) as error:
            raise UpstreamGone(f"edgewake broke the connection off: {error}") from error
        finally:
            connection.close()


class View:
    """The daemon as a page sees it, in the name of one caller; `noted` gets what was read."""

    def __init__(self, upstream: Upstream, caller: Caller, noted: Noted | None = None) -> None:
        self._upstream = upstream
        self._caller = caller
        self._noted = [] if noted is None else noted

    def get(self, path: str) -> Any:
        """Return the JSON document at a path below ``/api/v1``; `ApiError` if it is refused."""
        try:
            return json.loads(self.body(path))
        except ValueError as error:
            raise EdgewakeError(f"{path}: an answer that is not JSON") from error

    def text(self, path: str) -> str:
        """Return the plain text at a path."""
        return self.body(path).decode(errors="replace")

    def body(self, path: str) -> bytes:
        """Return what is at a path as it came; `ApiError` if it is refused."""
        found = None
        try:
            answer = self._upstream.ask(self._caller, "GET", f"/api/v1{path}")
            if not answer.may_be_shared:
                raise ApiError(answer.status, _document(answer))
            found = answer.body
        finally:
            self._noted.append((path, found))
        return found


def identity(caller: Caller) -> dict[str, str]:
    """Return the headers that tell the daemon who asks."""
    return {ACTOR_HEADER: caller.name, ROLE_HEADER: str(caller.role)}


def _document(answer: Answer) -> dict[str, Any]:
    try:
        document = json.loads(answer.body)
    except ValueError:
        document = None
    return document if isinstance(document, dict) else {"status": answer.status}

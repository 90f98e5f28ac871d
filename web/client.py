"""Talks to a running edgewake, through its UNIX socket or its door: for the CLI and for scripts.

It knows paths and JSON, not our nouns, so that a command line starts fast.
"""

import json
import socket
import ssl
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from http import HTTPStatus
from http.client import HTTPConnection, HTTPException, HTTPResponse
from pathlib import Path
from typing import Any

from orchestrator.errors import EdgewakeError
from web.remote import Remote
from web.sse import CONTENT_TYPE, ServerEvent, read

CONNECT_S = 5.0
NOTHING: Mapping[str, str] = {}
ANSWER_S = 330.0  # a wake, a placement or an apply may take minutes; the server bounds each
WAIT_S = 1  # for the first answer, and between two looks at what goes on, unless there is news
LEAST_S = 0.05  # between two looks
OVER = frozenset({"done", "failed"})

Place = Path | Remote  # a UNIX socket, or another machine's door
Watch = Callable[[dict[str, Any]], None]  # of an operation's document


class NotRunning(EdgewakeError):  # noqa: N818 - reads as a sentence where it is raised
    """Nobody answers on the socket."""

    def __init__(self, socket_path: Path) -> None:
        super().__init__(
            f"no edgewake is running with state directory {socket_path.parent}",
            hint="start it with 'edgewake up LAB.yaml'",
        )


class Unreachable(NotRunning):
    """Nobody answers at the address of a door."""

    def __init__(self, remote: Remote, why: str) -> None:
        EdgewakeError.__init__(
            self, f"{remote}: nobody answers: {why}", hint="does edgewake run there?"
        )


class ApiError(EdgewakeError):
    """The running edgewake refused or failed; `problem` is its problem document (RFC 9457)."""

    def __init__(self, status: int, problem: dict[str, Any]) -> None:
        detail = problem.get("detail") or problem.get("title") or f"HTTP status {status}"
        super().__init__(str(detail), hint=str(problem.get("hint", "")))
        self.status = status
        self.problem = problem

    @property
    def kind(self) -> str:
        """The last word of the problem's type, such as lab or no-capacity."""
        return str(self.problem.get("type", "")).rpartition(":")[2]


class GoesOn(EdgewakeError):  # noqa: N818 - reads as a sentence where it is raised
    """Whoever waited for an operation was interrupted; edgewake goes on with it."""

    def __init__(self, operation: dict[str, Any]) -> None:
        what = f"{operation['kind']} {operation['subject']}"
        super().__init__(
            f"interrupted; edgewake goes on with it ({what}, operation {operation['id']})",
            hint="'edgewake status' shows what comes of it",
        )


class Client:
    """One edgewake; every call is a connection of its own.

    What takes long is waited for; `watch` is called with its operation whenever there is news.
    All calls raise `NotRunning`, `ApiError`, or a plain `EdgewakeError` when the answer makes no
    sense or does not come within `timeout_s`; `GoesOn` if a person interrupts the wait.
    """

    def __init__(
        self,
        place: Place,
        *,
        timeout_s: float = ANSWER_S,
        watch: Watch = lambda _operation: None,
    ) -> None:
        self.place = place
        self.timeout_s = timeout_s
        self.watch = watch

    def get(self, path: str) -> Any:
        """Return the JSON document at a path below ``/api/v1``."""
        return self._json("GET", path)

    def post(self, path: str, body: dict[str, Any] | None = None) -> Any:
        """Post a JSON object and return the JSON answer."""
        return self._json("POST", path, body or {})

    def put(self, path: str, body: dict[str, Any]) -> Any:
        """Put a JSON object and return the JSON answer."""
        return self._json("PUT", path, body)

    def delete(self, path: str) -> Any:
        """Delete what is at a path and return the JSON answer."""
        return self._json("DELETE", path)

    def text(self, path: str) -> str:
        """Return the plain text at a path."""
        with self._asked("GET", path) as response:
            return response.read().decode(errors="replace")

    def stream(self, path: str, last_id: str = "") -> Iterator[ServerEvent]:
        """Yield the server-sent events at a path as they come, until the server ends them.

        `last_id` is the `id` of the last event that was seen earlier.
        """
        headers = {"Accept": CONTENT_TYPE} | ({"Last-Event-ID": last_id} if last_id else {})
        with self._asked("GET", path, headers=headers) as response:
            try:
                yield from read(line.decode(errors="replace").rstrip("\n") for line in response)
            except ValueError as error:
                raise EdgewakeError(f"{self.place}: events that make no sense") from error

    def _json(self, method: str, path: str, body: dict[str, Any] | None = None) -> Any:
        status, document = self._document(method, path, body, waits=method != "GET")
        return self._end_of(document) if status == HTTPStatus.ACCEPTED else document

    def _end_of(self, operation: dict[str, Any]) -> Any:
        """Return the result of an operation when it is there; raises `ApiError` if it failed.

        It may take as long as it wants, but not be silent for longer than an answer may take.
        """
        news_at = time.monotonic()
        try:
            while operation["state"] not in OVER:
                self.watch(operation)
                began = time.monotonic()
                if began > news_at + self.timeout_s:
                    raise self._too_late()
                before, where = operation, f"/operations/{operation['id']}"
                _, operation = self._document("GET", where, waits=True)
                if operation != before:
                    news_at = time.monotonic()
                time.sleep(max(0.0, LEAST_S - (time.monotonic() - began)))
        except KeyboardInterrupt:
            raise GoesOn(operation) from None
        if operation["state"] == "failed":
            raise ApiError(operation["problem"]["status"], operation["problem"])
        return operation["result"]

    def _document(
        self, method: str, path: str, body: dict[str, Any] | None = None, *, waits: bool
    ) -> tuple[int, Any]:
        """Return the status and the JSON of an answer, which may wait a moment for the end."""
        data = None if body is None else json.dumps(body)
        headers = {"Content-Type": "application/json"} if data else {}
        if waits:
            headers["Prefer"] = f"wait={min(WAIT_S, int(self.timeout_s / 2))}"
        with self._asked(method, path, data, headers) as response:
            status, answer = response.status, response.read()
        try:
            return status, json.loads(answer)
        except ValueError as error:
            raise EdgewakeError(f"{self.place}: an answer that is not JSON") from error

    def _too_late(self) -> EdgewakeError:
        return EdgewakeError(
            f"{self.place}: no answer within {self.timeout_s:g} s",
            hint="look at edgewake's log",
        )

    @contextmanager
    def _asked(
        self, method: str, path: str, data: str | None = None, headers: Mapping[str, str] = NOTHING
    ) -> Iterator[HTTPResponse]:
        """Give the answer to a request, to be read while the block runs."""
        connection, headers = self._connection(headers)
        try:
            connection.request(method, f"/api/v1{path}", data, headers)
            response = connection.getresponse()
            if response.status >= HTTPStatus.BAD_REQUEST:
                raise ApiError(response.status, _problem(response, response.read()))
            yield response
        except (FileNotFoundError, ConnectionRefusedError, socket.gaierror) as error:
            raise self._nobody(error) from error
        except ssl.SSLCertVerificationError as error:
            raise EdgewakeError(
                f"{self.place}: its certificate is not to be believed: {error.verify_message}",
                hint="name the file of its certificate, or of who signed it, with --ca",
            ) from error
        except PermissionError as error:
            raise EdgewakeError(
                f"{self.place}: this user may not talk to the edgewake there",
                hint="run as the user who started it, such as with sudo",
            ) from error
        except TimeoutError as error:
            raise self._too_late() from error
        except (OSError, HTTPException) as error:
            raise EdgewakeError(
                f"{self.place}: the connection broke: {error}",
                hint="was edgewake stopped meanwhile?",
            ) from error
        finally:
            connection.close()

    def _connection(self, headers: Mapping[str, str]) -> tuple[HTTPConnection, Mapping[str, str]]:
        """Return a connection that is not open yet, and what to say with each request."""
        if isinstance(self.place, Path):
            return UnixConnection(self.place, self.timeout_s), headers
        shown = {"Authorization": f"Bearer {self.place.token}"}
        return self.place.connection(self.timeout_s), {**headers, **shown}

    def _nobody(self, error: OSError) -> NotRunning:
        if isinstance(self.place, Path):
            return NotRunning(self.place)
        return Unreachable(self.place, error.strerror or str(error))


class UnixConnection(HTTPConnection):
    """HTTP over a UNIX socket. Opening it may take 5 s, each answer `timeout_s`."""

    def __init__(self, path: Path, timeout_s: float) -> None:
        super().__init__("localhost")
        self._path = path
        self._timeout_s = timeout_s

    def connect(self) -> None:
        """Connect."""
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(CONNECT_S)
        self.sock.connect(str(self._path))
        self.sock.settimeout(self._timeout_s)


def _problem(response: HTTPResponse, answer: bytes) -> dict[str, Any]:
    """Return the problem document of a failed request, or the little that is known without one."""
    try:
        document = json.loads(answer)
    except ValueError:
        document = None
    if isinstance(document, dict):
        return document
    return {"title": response.reason, "status": response.status}

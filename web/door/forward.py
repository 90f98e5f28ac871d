"""Passes API requests on to the daemon, in the name of whoever asks."""

from collections.abc import Iterator
from contextlib import contextmanager
from threading import BoundedSemaphore
from urllib.parse import quote

from flask import Flask, Response, g, request

from web.door.headers import PASSED_ON, going_back
from web.door.upstream import Upstream

METHODS = ["GET", "POST", "PUT", "PATCH", "DELETE"]  # HEAD and OPTIONS come with GET
API = "/api/v1"
MOST_WAITS = 8  # that are asked for with `Prefer: wait`; the other threads answer other requests
IN_A_PATH = "/~!$&'()*+,;=:@"  # beside letters and digits, what needs no encoding there


def add(app: Flask, upstream: Upstream) -> None:
    """Add the API, and what Prometheus reads at the place where it looks for it."""
    waits = Waits()

    @app.route(
        f"{API}/<path:_path>", methods=METHODS, endpoint="api", provide_automatic_options=False
    )
    def api(_path: str) -> Response:
        return passed_on(upstream, quote(request.path, safe=IN_A_PATH), waits)

    @app.get("/metrics", endpoint="metrics")
    def metrics() -> Response:
        return passed_on(upstream, f"{API}/metrics", waits)


class Waits:
    """Room for callers that would be kept waiting; each holds a thread for minutes.

    Preferences may be left out (RFC 7240, 2): who finds no room is answered at once.
    """

    def __init__(self, most: int = MOST_WAITS) -> None:
        self._room = BoundedSemaphore(most)

    @contextmanager
    def kept(self, headers: dict[str, str]) -> Iterator[dict[str, str]]:
        """Give the headers to pass on while the block runs."""
        if "Prefer" not in headers:
            yield headers
        elif not self._room.acquire(blocking=False):
            yield {name: value for name, value in headers.items() if name != "Prefer"}
        else:
            try:
                yield headers
            finally:
                self._room.release()


def passed_on(upstream: Upstream, path: str, waits: Waits) -> Response:
    """Return the daemon's answer to this request, at a path of its own."""
    query = request.query_string.decode("latin-1")
    given = {name: request.headers[name] for name in PASSED_ON if name in request.headers}
    with waits.kept(given) as headers:
        answer = upstream.ask(
            g.visit.caller,
            request.method,
            f"{path}?{query}" if query else path,
            headers,
            request.get_data(),
        )
    return Response(answer.body, answer.status, going_back(answer.headers))

"""Passes API requests on to the daemon, in the name of whoever asks."""

from urllib.parse import quote

from flask import Flask, Response, g, request

from web.door.headers import PASSED_ON, going_back
from web.door.upstream import Upstream

METHODS = ["GET", "POST", "PUT", "PATCH", "DELETE"]  # HEAD and OPTIONS come with GET
API = "/api/v1"
IN_A_PATH = "/~!$&'()*+,;=:@"  # beside letters and digits, what needs no encoding there


def add(app: Flask, upstream: Upstream) -> None:
    """Add the API, and what Prometheus reads at the place where it looks for it."""

    @app.route(
        f"{API}/<path:_path>", methods=METHODS, endpoint="api", provide_automatic_options=False
    )
    def api(_path: str) -> Response:
        return passed_on(upstream, quote(request.path, safe=IN_A_PATH))

    @app.get("/metrics", endpoint="metrics")
    def metrics() -> Response:
        return passed_on(upstream, f"{API}/metrics")


def passed_on(upstream: Upstream, path: str) -> Response:
    """Return the daemon's answer to this request, at a path of its own."""
    query = request.query_string.decode("latin-1")
    headers = {name: request.headers[name] for name in PASSED_ON if name in request.headers}
    answer = upstream.ask(
        g.visit.caller,
        request.method,
        f"{path}?{query}" if query else path,
        headers,
        request.get_data(),
    )
    return Response(answer.body, answer.status, going_back(answer.headers))

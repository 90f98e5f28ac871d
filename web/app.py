"""The HTTP door of the control plane as a WSGI application.

`create_app` joins the API to an orchestrator and gives every failure the one shape of `web.wire`.
Who may connect is the business of whoever serves it: `web.server` does so on a UNIX socket that
only its owner may open.
"""

from collections.abc import Callable
from http import HTTPStatus
from logging import getLogger

from flask import Flask, Response, json, request
from werkzeug.exceptions import HTTPException

from orchestrator.control import Orchestrator
from orchestrator.errors import EdgewakeError
from web import wire
from web.api import LoadLab, create_api

log = getLogger(__name__)

LARGEST_REQUEST = 4 << 20  # bytes: a lab file of 1 MiB, with every character escaped in JSON


def create_app(
    orchestrator: Orchestrator, *, load: LoadLab, metrics: Callable[[], str] = str
) -> Flask:
    """Return the application.

    `load` turns the text and path of a lab file into a lab; `metrics` is what Prometheus is told.
    """
    app = Flask(__name__, static_folder=None)
    app.config["MAX_CONTENT_LENGTH"] = LARGEST_REQUEST
    app.json.sort_keys = False  # type: ignore[attr-defined]  # of the default provider
    app.register_blueprint(create_api(orchestrator, load, metrics))
    app.register_error_handler(EdgewakeError, _ours)
    app.register_error_handler(HTTPException, _http)
    app.register_error_handler(Exception, _unforeseen)
    return app


def _ours(error: EdgewakeError) -> Response:
    return _problem(wire.problem(error))


def _http(error: HTTPException) -> Response:
    status = HTTPStatus(error.code or HTTPStatus.INTERNAL_SERVER_ERROR)
    detail = error.description or status.description
    if error is request.routing_exception and status is HTTPStatus.NOT_FOUND:
        detail = f"there is no {request.path} here"  # werkzeug's own words are for browsers
    response = _problem(wire.plain_problem(status, detail))
    for name, value in error.get_headers():
        if name.lower() == "allow":  # RFC 9110, 15.5.6: a 405 says what is allowed
            response.headers[name] = value
    return response


def _unforeseen(error: Exception) -> Response:
    """Answer without telling the caller what our insides look like."""
    log.error("a request failed in a way we did not foresee", exc_info=error)
    return _problem(
        wire.plain_problem(
            HTTPStatus.INTERNAL_SERVER_ERROR, "internal error", "see edgewake's log, and report it"
        )
    )


def _problem(document: wire.Document) -> Response:
    return Response(json.dumps(document), status=document["status"], content_type=wire.PROBLEM_TYPE)

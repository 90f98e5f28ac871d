"""The HTTP door of the control plane as a WSGI application.

`create_app` joins the API to an orchestrator, and gives every failure the one shape of
`web.problems`. Who may connect is the business of whoever serves it: `web.server` does so on a UNIX
socket that only its owner may open.
"""

from http import HTTPStatus
from logging import getLogger

from flask import Response, request
from flask_openapi3.models.info import Info
from flask_openapi3.openapi import OpenAPI
from werkzeug.exceptions import HTTPException

from orchestrator.control import Orchestrator
from orchestrator.errors import EdgewakeError
from orchestrator.live_network import LiveNetwork
from web import problems
from web.api import create_api
from web.api.context import Context, LoadLab
from web.api.operation import PREFIX
from web.door.tokens import Tokens
from web.metrics import Told, told_nothing
from web.models.problems import ProblemDocument

log = getLogger(__name__)

LARGEST_REQUEST = 4 << 20  # bytes: a lab file of 1 MiB, with every character escaped in JSON
API_VERSION = "1"
SECURITY = {
    "token": {"type": "http", "scheme": "bearer", "description": "`edgewake token create`"},
    "session": {"type": "apiKey", "in": "cookie", "name": "edgewake-8480"},
}


def create_app(
    orchestrator: Orchestrator,
    *,
    load: LoadLab,
    metrics: Told = told_nothing,
    network: LiveNetwork | None = None,
    tokens: Tokens | None = None,
) -> OpenAPI:
    """Return the application over an orchestrator and few other parts; see `app_of`."""
    return app_of(Context(orchestrator, load, metrics, network, tokens=tokens))


def app_of(context: Context) -> OpenAPI:
    """Return the application over the given parts."""
    app = OpenAPI(
        __name__,
        info=Info(title="edgewake", version=API_VERSION),
        security_schemes=dict(SECURITY),
        validation_error_model=ProblemDocument,
        openapi_extensions={"security": [{name: []} for name in SECURITY]},
        doc_ui=False,
        static_folder=None,
    )
    app.config["MAX_CONTENT_LENGTH"] = LARGEST_REQUEST
    app.json.sort_keys = False  # type: ignore[attr-defined]  # of the default provider
    app.register_api(create_api(context).blueprint)
    app.add_url_rule(f"{PREFIX}/openapi.json", "openapi", lambda: app.api_doc)
    app.register_error_handler(EdgewakeError, _ours)
    app.register_error_handler(problems.HttpProblem, _refused)
    app.register_error_handler(HTTPException, _http)
    app.register_error_handler(Exception, _unforeseen)
    return app


def _ours(error: EdgewakeError) -> Response:
    return problems.response(problems.problem(error))


def _refused(error: problems.HttpProblem) -> Response:
    return problems.response(error.document)


def _http(error: HTTPException) -> Response:
    status = HTTPStatus(error.code or HTTPStatus.INTERNAL_SERVER_ERROR)
    detail = error.description or status.description
    if error is request.routing_exception and status is HTTPStatus.NOT_FOUND:
        detail = f"there is no {request.path} here"  # werkzeug's own words are for browsers
    response = problems.response(problems.plain_problem(status, detail))
    for name, value in error.get_headers():
        if name.lower() == "allow":  # RFC 9110, 15.5.6: a 405 says what is allowed
            response.headers[name] = value
    return response


def _unforeseen(error: Exception) -> Response:
    """Answer without telling the caller what our insides look like."""
    log.error("a request failed in a way we did not foresee", exc_info=error)
    return problems.response(
        problems.plain_problem(
            HTTPStatus.INTERNAL_SERVER_ERROR, "internal error", "see edgewake's log, and report it"
        )
    )

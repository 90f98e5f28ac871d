"""Failures as the caller can read them: problem documents for programs, pages for browsers."""

from http import HTTPStatus
from logging import getLogger

from flask import Flask, Response, json, request
from werkzeug.exceptions import HTTPException

from orchestrator.errors import EdgewakeError
from web.client import ApiError
from web.door.upstream import UpstreamGone
from web.pages import failure

log = getLogger(__name__)

PROBLEM_TYPE = "application/problem+json"


def add(app: Flask) -> None:
    """Give every failure of an application its answer."""
    app.register_error_handler(HTTPException, _http)
    app.register_error_handler(EdgewakeError, _ours)
    app.register_error_handler(Exception, _unforeseen)


def _http(error: HTTPException) -> Response:
    if error.response is not None:
        return error.response  # type: ignore[return-value]  # one that we made
    status = HTTPStatus(error.code or HTTPStatus.INTERNAL_SERVER_ERROR)
    detail = error.description or status.description
    if error is request.routing_exception and status is HTTPStatus.NOT_FOUND:
        detail = f"there is no {request.path} here"
    response = answer(status, detail)
    for name, value in error.get_headers():
        if name.lower() in {"allow", "retry-after"}:
            response.headers[name] = value
    if status is HTTPStatus.UNAUTHORIZED:
        response.headers["WWW-Authenticate"] = 'Bearer realm="edgewake"'
    return response


def _ours(error: EdgewakeError) -> Response:
    status = HTTPStatus.INTERNAL_SERVER_ERROR
    if isinstance(error, UpstreamGone):
        status = HTTPStatus.GATEWAY_TIMEOUT if error.late else HTTPStatus.SERVICE_UNAVAILABLE
    elif isinstance(error, ApiError):
        status = HTTPStatus(error.status)
    response = answer(status, error.message, error.hint)
    if status is HTTPStatus.SERVICE_UNAVAILABLE:
        response.headers["Retry-After"] = "2"
    return response


def _unforeseen(error: Exception) -> Response:
    """Answer without telling the caller what our insides look like."""
    log.error("a request failed in a way we did not foresee", exc_info=error)
    return answer(
        HTTPStatus.INTERNAL_SERVER_ERROR, "internal error", "see edgewake's log, and report it"
    )


def answer(status: HTTPStatus, detail: str, hint: str = "") -> Response:
    """Return a failure as the caller can read it."""
    if _wants_page():
        page, code = failure(int(status), status.phrase, detail, hint)
        return Response(page, status=code)
    document = {
        "type": "about:blank",
        "title": status.phrase,
        "status": int(status),
        "detail": detail,
        "hint": hint,
    }
    return Response(json.dumps(document), status=status, content_type=PROBLEM_TYPE)


def _wants_page() -> bool:
    """Return whether a browser asks: for a page, and not for what one of our scripts reads."""
    if request.path.startswith("/api/v1"):
        return False
    return request.accept_mimetypes.best_match(["application/json", "text/html"]) == "text/html"

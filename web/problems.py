"""Every failure as one shape: a problem document (RFC 9457, ``application/problem+json``).

`type`, `title`, `status` and `detail` are as the RFC has them; `hint` is what to do about it.
Errors that know more add members: a lab error its `file`, `line` and `field`, a wake error its
`service` and `reason`, a hypervisor error its `host`, a request that breaks its schema `errors`, a
list of ``{"field", "detail"}``. Clients must ignore members that they do not know (RFC 9457, 3.2).
"""

import re
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

from flask import Response, json
from pydantic import ValidationError

from orchestrator.errors import (
    EdgewakeError,
    HypervisorError,
    InstallationError,
    LabError,
    NoCapacity,
    NotInNetwork,
    Outdated,
    StoreError,
    Unforeseen,
    UnknownClients,
    UnknownHost,
    UnknownImage,
    UnknownInstance,
    UnknownOperation,
    UnknownPlan,
    UnknownService,
    UnknownVersion,
    UnknownWake,
    UnsafeChanges,
    WakeError,
)

PROBLEM_TYPE = "application/problem+json"
TYPE_PREFIX = "urn:problem-type:edgewake:"

# The nearest class in an error's ancestry counts.
STATUS_OF: dict[type[BaseException], HTTPStatus] = {
    EdgewakeError: HTTPStatus.CONFLICT,  # such as: no placement of all services exists
    LabError: HTTPStatus.UNPROCESSABLE_ENTITY,
    UnsafeChanges: HTTPStatus.CONFLICT,
    NotInNetwork: HTTPStatus.NOT_FOUND,
    UnknownClients: HTTPStatus.NOT_FOUND,
    UnknownHost: HTTPStatus.NOT_FOUND,
    UnknownImage: HTTPStatus.NOT_FOUND,
    UnknownInstance: HTTPStatus.NOT_FOUND,
    UnknownWake: HTTPStatus.NOT_FOUND,
    UnknownOperation: HTTPStatus.NOT_FOUND,
    UnknownPlan: HTTPStatus.NOT_FOUND,
    UnknownVersion: HTTPStatus.NOT_FOUND,
    Outdated: HTTPStatus.PRECONDITION_FAILED,
    Unforeseen: HTTPStatus.INTERNAL_SERVER_ERROR,
    UnknownService: HTTPStatus.NOT_FOUND,
    WakeError: HTTPStatus.SERVICE_UNAVAILABLE,
    NoCapacity: HTTPStatus.SERVICE_UNAVAILABLE,
    HypervisorError: HTTPStatus.SERVICE_UNAVAILABLE,
    StoreError: HTTPStatus.INTERNAL_SERVER_ERROR,
    InstallationError: HTTPStatus.INTERNAL_SERVER_ERROR,
}

Problem = dict[str, Any]


class HttpProblem(Exception):  # noqa: N818 - it is one, and answers as one
    """A request that is refused at the door of the API; `more` are further members."""

    def __init__(
        self,
        status: HTTPStatus,
        detail: str,
        *,
        hint: str = "",
        more: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(detail)
        self.document = plain_problem(status, detail, hint) | dict(more or {})


def status_of(error: EdgewakeError) -> HTTPStatus:
    """Return the HTTP status that says the same as an error."""
    return next(STATUS_OF[kind] for kind in type(error).__mro__ if kind in STATUS_OF)


def problem(error: EdgewakeError) -> Problem:
    """Return an error of ours as a problem document."""
    words = re.findall(r"[A-Z][a-z]*", type(error).__name__)
    kind = [word.lower() for word in words if word != "Error"]
    document: Problem = {
        "type": TYPE_PREFIX + "-".join(kind),
        "title": " ".join(kind).capitalize(),
        "status": int(status_of(error)),
        "detail": error.message,
        "hint": error.hint,
    }
    match error:
        case LabError():
            file = str(error.file) if error.file else None
            document |= {"file": file, "line": error.line, "field": error.field}
        case WakeError():
            document |= {"service": error.service, "reason": error.reason.value}
        case HypervisorError():
            document |= {"host": error.host}
        case _:
            pass
    return document


def plain_problem(status: HTTPStatus, detail: str, hint: str = "") -> Problem:
    """Return a problem that is no more than its HTTP status (type ``about:blank``)."""
    return {
        "type": "about:blank",
        "title": status.phrase,
        "status": int(status),
        "detail": detail,
        "hint": hint,
    }


def refused(error: ValidationError, where: str = "") -> HttpProblem:
    """Return what a request's author is told whose `where` (body, query) breaks its schema."""
    found = [
        {"field": ".".join(map(str, each["loc"])) or where, "detail": _said(each["msg"])}
        for each in error.errors(include_url=False, include_context=False, include_input=False)
    ]
    status = HTTPStatus.UNPROCESSABLE_ENTITY
    if any(each["type"] == "json_invalid" for each in error.errors(include_url=False)):
        status = HTTPStatus.BAD_REQUEST
    detail = "; ".join(f"{each['field']}: {each['detail']}" for each in found)
    return HttpProblem(status, detail, more={"errors": found})


def response(document: Problem) -> Response:
    """Return a problem document as an answer."""
    return Response(json.dumps(document), status=document["status"], content_type=PROBLEM_TYPE)


def _said(message: str) -> str:
    """Return what pydantic says without its name for errors that we raised ourselves."""
    return message.removeprefix("Value error, ")

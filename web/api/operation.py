"""By what an operation of the API is declared: its least role, its answers and its problems.

All operations are on one blueprint, since flask-openapi3 keeps one entry for each path. A handler
is a function whose parameters `path`, `query`, `header` and `body` are models of `web.models`; it
returns a document, or one with a status and headers, or an answer of its own. Its docstring is its
entry in the OpenAPI document.
"""

import inspect
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from functools import wraps
from http import HTTPStatus
from typing import Any, TypeVar, get_type_hints

from flask import Response, request
from flask_openapi3.blueprint import APIBlueprint
from flask_openapi3.models.request_body import RequestBody
from flask_openapi3.models.tag import Tag
from flask_openapi3.utils import parse_body, parse_rule
from pydantic import BaseModel, RootModel

from web.api import reading
from web.api.caller import demand
from web.api.conditional import marked
from web.models.base import Document
from web.models.problems import ProblemDocument
from web.problems import PROBLEM_TYPE
from web.roles import Role

PREFIX = "/api/v1"
PARTS = ("path", "query", "header", "body")
ALWAYS = (401, 403, 422, 429, 500)  # of every operation; 401 and 429 are the door's
OF_BODIES = (400, 413, 415)

SAID = {
    400: "The body is not what its type says it is.",
    401: "Who asks did not say who they are, or nobody knows them (at the TCP door).",
    403: "The role of who asks does not include this.",
    404: "There is no such thing.",
    409: "It cannot be done as things are.",
    412: "It has changed since: `If-Match` names another version.",
    413: "The body is too large.",
    415: "The body is of a type that is not read here.",
    422: "The request breaks its schema, or what it says makes no sense; `errors` says where.",
    429: "Too many requests (at the TCP door).",
    500: "edgewake failed; its log says how.",
    503: "It cannot be done now: a host, an image or a guest does not do its part.",
}

Handler = TypeVar("Handler", bound=Callable[..., Any])
Result = Document | Response | tuple[Document, int] | tuple[Document, int, Mapping[str, str]]


@dataclass(frozen=True, slots=True)
class Media:
    """An answer that is not JSON; `also` are other types that it may have, for who accepts them.

    One whose parts are not text says so with `is_text`.
    """

    type: str
    said: str = "OK"
    also: tuple[str, ...] = ()
    is_text: bool = True


Answer = type[Document] | Media
Bodies = Mapping[str, type[BaseModel] | None]  # by content type; None: text


class Api:
    """The operations of the API, as they are added."""

    def __init__(self) -> None:
        self.blueprint = APIBlueprint("api", __name__, url_prefix=PREFIX)

    def get(
        self,
        rule: str,
        answer: Answer,
        *,
        role: Role = Role.VIEWER,
        problems: Collection[int] = (),
        others: Mapping[int, Answer] | None = None,
        etag: bool = False,
    ) -> Callable[[Handler], Handler]:
        """Declare what is read at a path; with `etag` it is only sent if it has changed."""
        answers = {200: answer, **(others or {})}
        return self._operation("GET", rule, answers, role, problems, etag=etag)

    def post(
        self,
        rule: str,
        answer: Answer,
        *,
        role: Role,
        problems: Collection[int] = (),
        others: Mapping[int, Answer] | None = None,
    ) -> Callable[[Handler], Handler]:
        """Declare what is done at a path; `others` are answers by status, such as 202."""
        return self._operation("POST", rule, {200: answer, **(others or {})}, role, problems)

    def put(
        self,
        rule: str,
        answer: Answer,
        *,
        role: Role,
        problems: Collection[int] = (),
        others: Mapping[int, Answer] | None = None,
        bodies: Bodies | None = None,
    ) -> Callable[[Handler], Handler]:
        """Declare what is put at a path; `bodies`, by type, are those that the handler reads."""
        answers = {200: answer, **(others or {})}
        return self._operation("PUT", rule, answers, role, problems, bodies=bodies)

    def delete(
        self,
        rule: str,
        answer: Answer,
        *,
        role: Role,
        problems: Collection[int] = (),
        others: Mapping[int, Answer] | None = None,
    ) -> Callable[[Handler], Handler]:
        """Declare what is ended or taken back at a path."""
        return self._operation("DELETE", rule, {200: answer, **(others or {})}, role, problems)

    def _operation(
        self,
        method: str,
        rule: str,
        answers: Mapping[int, Answer],
        role: Role,
        problems: Collection[int],
        *,
        etag: bool = False,
        bodies: Bodies | None = None,
    ) -> Callable[[Handler], Handler]:
        def declare(function: Handler) -> Handler:
            hints = get_type_hints(function)
            models = {name: hints[name] for name in PARTS if name in hints}
            _, _, description = (inspect.getdoc(function) or "").partition("\n")
            has_body = "body" in models or bool(bodies)
            refusals = {*ALWAYS, *problems, *(OF_BODIES if has_body else ())}
            if "path" in models:
                refusals.add(404)
            add = getattr(self.blueprint, method.lower())
            add(
                rule,
                tags=[Tag(name=rule.split("/")[1])],
                description=" ".join(description.split()) or None,
                operation_id=function.__name__,
                responses=_responses(answers, refusals, etag=etag),
                openapi_extensions={"x-role": str(role)},
                endpoint=function.__name__,
            )(_guarded(function, models, role, etag=etag))
            self._describe_body(method, rule, models.get("body"), bodies or {})
            return function

        return declare

    def _describe_body(
        self, method: str, rule: str, model: type[BaseModel] | None, bodies: Bodies
    ) -> None:
        """Say what flask-openapi3 does not: several types, and that a body may be left out."""
        operation = getattr(self.blueprint.paths[parse_rule(rule, PREFIX)], method.lower())
        if model is not None:
            operation.requestBody.required = any(
                field.is_required() for field in model.model_fields.values()
            )
        if bodies:
            operation.requestBody = RequestBody(content={}, required=True)
        for media_type, read in bodies.items():
            described, components = parse_body(read or RootModel[str])
            operation.requestBody.content[media_type] = described["application/json"]
            self.blueprint.components_schemas.update(components)


def _guarded(
    function: Callable[..., Result],
    models: Mapping[str, type[BaseModel]],
    role: Role,
    *,
    etag: bool,
) -> Callable[..., Response]:
    @wraps(function)
    def view(**path: str) -> Response:
        demand(role)
        answer = _response(function(**reading.arguments(models, path)))
        return marked(answer, request) if etag else answer

    view.__dict__["__delay_validate_request__"] = True  # flask-openapi3: we read requests ourselves
    return view


def _response(result: Result) -> Response:
    if isinstance(result, Response):
        return result
    document, status, headers = _parts(result)
    text = document.model_dump_json()
    return Response(text, status, headers=dict(headers), mimetype="application/json")


def _responses(
    answers: Mapping[int, Answer], refusals: Collection[int], *, etag: bool
) -> dict[str, Any]:
    found: dict[str, Any] = {str(status): _answered(each) for status, each in answers.items()}
    if etag:
        found["304"] = {"description": "`If-None-Match` names what there is."}
    schema = {"$ref": f"#/components/schemas/{ProblemDocument.__name__}"}
    for status in sorted(refusals):
        said = SAID.get(status, HTTPStatus(status).phrase)
        found[str(status)] = {"description": said, "content": {PROBLEM_TYPE: {"schema": schema}}}
    return found


def _answered(answer: Answer) -> Any:
    if isinstance(answer, Media):
        schema = {"schema": {"type": "string"}} if answer.is_text else {}
        content = dict.fromkeys((answer.type, *answer.also), schema)
        return {"description": answer.said, "content": content}
    return answer


def _parts(result: Any) -> tuple[Document, int, Mapping[str, str]]:
    match result:
        case (document, status, headers):
            return document, status, headers
        case (document, status):
            return document, status, {}
        case document:
            return document, HTTPStatus.OK, {}

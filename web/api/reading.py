"""Reads requests into the models that an operation declares; what breaks them is a problem."""

from collections.abc import Mapping
from http import HTTPStatus
from typing import Any, TypeVar, get_origin

from flask import request
from pydantic import BaseModel, ValidationError

from web.models.base import NoParameters
from web.problems import HttpProblem, refused

Model = TypeVar("Model", bound=BaseModel)

ONCE = "give it once"


def arguments(models: Mapping[str, type[BaseModel]], path: Mapping[str, str]) -> dict[str, Any]:
    """Return what a handler is called with, by the names of its parameters.

    `models` has the types of those called path, query, header and body. A query string may not
    hold what the operation does not know: a slip of the pen would else go unseen.
    """
    found: dict[str, Any] = {"query": _queried(models.get("query", NoParameters))}
    if "path" in models:
        found["path"] = _parsed(models["path"], path, "path")
    if "header" in models:
        found["header"] = _parsed(models["header"], _headers(models["header"]), "header")
    if "body" in models:
        found["body"] = body(models["body"])
    return {name: value for name, value in found.items() if name in models}


def body(model: type[Model]) -> Model:
    """Return the JSON object in a request's body; an empty body counts as an empty object."""
    data = request.get_data()
    if data and not request.is_json:
        raise HttpProblem(
            HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
            f"the body must be JSON, not {request.mimetype or 'of unknown type'}",
            hint="send it with the header 'Content-Type: application/json'",
        )
    try:
        return model.model_validate_json(data or b"{}")
    except ValidationError as error:
        raise refused(error, "body") from None


def _parsed(model: type[Model], values: Mapping[str, object], where: str) -> Model:
    try:
        return model.model_validate(values)
    except ValidationError as error:
        raise refused(error, where) from None


def _queried(model: type[Model]) -> Model:
    several = {
        name for name, field in model.model_fields.items() if get_origin(field.annotation) is list
    }
    values: dict[str, object] = {}
    for name, given in request.args.lists():
        if len(given) > 1 and name not in several:
            raise HttpProblem(
                HTTPStatus.UNPROCESSABLE_ENTITY,
                f"{name}: given {len(given)} times",
                hint=ONCE,
                more={"errors": [{"field": name, "detail": ONCE}]},
            )
        values[name] = given if name in several else given[0]
    return _parsed(model, values, "query")


def _headers(model: type[BaseModel]) -> dict[str, str]:
    names = {field.alias or name for name, field in model.model_fields.items()}
    return {name: request.headers[name] for name in names if name in request.headers}

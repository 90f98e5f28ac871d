"""The page of the API: every request, who may make it, and the documents that go in and come out.

It is made of the OpenAPI document that the daemon gives, so that it cannot say anything else.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import groupby
from typing import Any

from flask import Blueprint, render_template

from web.pages.area import Link, Upstream

LINKS = (Link("/api/docs", "API"),)
METHODS = ("get", "post", "put", "patch", "delete")
Schema = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Field:
    """A parameter or a key of a document. `kind` is its type in words, `document` what it holds."""

    name: str
    kind: str
    document: str
    where: str
    must: bool
    text: str


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer to a request; `document` is "" if it is none of ours."""

    status: str
    text: str
    document: str


@dataclass(frozen=True, slots=True)
class Request:
    """A request that can be made; `body` names a document, or is ""."""

    id: str
    tag: str
    method: str
    path: str
    role: str
    summary: str
    parameters: tuple[Field, ...]
    body: str
    answers: tuple[Answer, ...]


def add(pages: Blueprint, upstream: Upstream) -> None:
    """Add the page."""

    @pages.get("/api/docs")
    def api_docs() -> str:
        document = upstream.get("/openapi.json")
        return render_template(
            "api_docs.html",
            groups=[
                (tag, tuple(those))
                for tag, those in groupby(requests(document), key=lambda each: each.tag)
            ],
            documents={
                name: fields(schema)
                for name, schema in sorted(document["components"]["schemas"].items())
            },
        )


def requests(document: Schema) -> list[Request]:
    """Return all requests of an OpenAPI document, those about one thing together."""
    found = [
        _request(path, method, methods[method])
        for path, methods in document["paths"].items()
        for method in METHODS
        if method in methods
    ]
    return sorted(found, key=lambda each: each.tag)


def fields(schema: Schema) -> tuple[Field, ...]:
    """Return the keys of a document."""
    needed = schema.get("required", ())
    return tuple(
        _field(name, value, "", name in needed, value.get("description", ""))
        for name, value in schema.get("properties", {}).items()
    )


def _request(path: str, method: str, said: Schema) -> Request:
    return Request(
        id=said["operationId"],
        tag=next(iter(said.get("tags", ())), "other"),
        method=method.upper(),
        path=path,
        role=said.get("x-role", "viewer"),
        summary=said.get("summary", ""),
        parameters=tuple(
            _field(
                each["name"],
                each.get("schema", {}),
                each["in"],
                bool(each.get("required")),
                each.get("description", ""),
            )
            for each in said.get("parameters", ())
        ),
        body=_held(said.get("requestBody", {})),
        answers=tuple(
            Answer(status, answer.get("description", ""), _held(answer))
            for status, answer in said["responses"].items()
        ),
    )


def _held(part: Schema) -> str:
    """Return the name of the document that a body has."""
    return next(
        (_named(media.get("schema", {})) for media in part.get("content", {}).values()),
        "",
    )


def _field(name: str, schema: Schema, where: str, must: bool, text: str) -> Field:
    return Field(name, _kind(schema), _named(schema), where, must, text)


def _named(schema: Schema) -> str:
    """Return the name of the document that a schema holds: itself, in a list, by name, or null."""
    if "$ref" in schema:
        return str(schema["$ref"]).rpartition("/")[2]
    parts = [schema.get("items"), schema.get("additionalProperties"), *schema.get("anyOf", ())]
    return next((name for part in parts if isinstance(part, dict) and (name := _named(part))), "")


def _kind(schema: Schema) -> str:
    """Return the type of a value in words."""
    if "anyOf" in schema:
        return " or ".join(dict.fromkeys(_kind(part) for part in schema["anyOf"]))
    if "enum" in schema:
        return " or ".join(str(each) for each in schema["enum"])
    if "$ref" in schema:
        return "document"
    if schema.get("type") == "array":
        return f"list of {_kind(schema.get('items', {}))}"
    return str(schema.get("const", schema.get("type", "any")))

"""What all operations have in common: roles, what is refused, versions, and their description."""

import json
from collections import Counter
from typing import Any

import pytest
from flask.testing import FlaskClient
from pydantic import BaseModel

from web.roles import ACTOR_HEADER, ROLE_HEADER

API = "/api/v1"


def _as(role: str) -> dict[str, str]:
    return {ACTOR_HEADER: "anna", ROLE_HEADER: role}


def _described(http: FlaskClient) -> list[tuple[str, str, dict[str, Any]]]:
    """Return path, method and entry of every operation in the OpenAPI document."""
    paths = http.get(f"{API}/openapi.json").get_json()["paths"]
    return [
        (path, method, entry)
        for path, methods in paths.items()
        for method, entry in methods.items()
    ]


def test_every_operation_enforces_the_role_that_it_declares(http: FlaskClient) -> None:
    roles = ["viewer", "operator", "admin"]
    for path, method, entry in _described(http):
        least = entry["x-role"]
        for role in roles[: roles.index(least)]:
            answer = http.open(path, method=method, headers=_as(role))
            assert answer.status_code == 403, (method, path, role)
            assert f"anna is {role}; this takes {least}" in answer.text
        if method != "get":
            assert least != "viewer", (method, path)


def test_who_may_does(http: FlaskClient) -> None:
    assert http.get(f"{API}/status", headers=_as("viewer")).status_code == 200
    assert http.post(f"{API}/services/web/wake", headers=_as("operator")).status_code == 200
    assert http.post(f"{API}/services/web/sleep", headers=_as("admin")).status_code == 200


def test_a_role_that_we_do_not_know_may_nothing(http: FlaskClient) -> None:
    assert http.get(f"{API}/status", headers=_as("root")).status_code == 403


def test_every_operation_says_what_it_answers_and_how_it_fails(http: FlaskClient) -> None:
    names = set()
    for path, method, entry in _described(http):
        assert entry["summary"], (method, path)
        names.add(entry["operationId"])
        assert {"200", "401", "403", "422", "500"} <= entry["responses"].keys(), (method, path)
        for status, answer in entry["responses"].items():
            if int(status) >= 400:
                assert list(answer["content"]) == ["application/problem+json"], (path, status)
    assert len(names) == len(_described(http))


def test_no_two_models_have_the_same_name() -> None:
    """The OpenAPI document would describe one by the other."""
    names = Counter(model.__name__ for model in _models(BaseModel))
    assert [name for name, count in names.items() if count > 1] == []


def _models(base: type[BaseModel]) -> set[type[BaseModel]]:
    below = set(base.__subclasses__())
    ours = {model for model in below if model.__module__.startswith("web.models")}
    return ours.union(*(_models(model) for model in below))


def test_every_schema_that_is_named_is_there(http: FlaskClient) -> None:
    text = http.get(f"{API}/openapi.json").text
    document = json.loads(text)
    assert document["openapi"] == "3.1.0"
    assert document["components"]["securitySchemes"].keys() == {"token", "session"}
    named = {part.split('"')[0] for part in text.split("#/components/schemas/")[1:]}
    assert named <= document["components"]["schemas"].keys()


def test_what_is_not_known_in_a_query_is_refused(http: FlaskClient) -> None:
    answer = http.get(f"{API}/status?verbose=1")
    assert answer.status_code == 422
    assert answer.get_json()["errors"][0]["field"] == "verbose"
    assert http.get(f"{API}/events?limit=1&limit=2").status_code == 422


@pytest.mark.parametrize("content_type", ["application/x-www-form-urlencoded", "text/plain", None])
def test_a_body_that_is_not_said_to_be_json_is_refused(
    http: FlaskClient, content_type: str | None
) -> None:
    answer = http.post(f"{API}/plans", data='{"apply": true}', content_type=content_type)
    assert answer.status_code == 415
    assert "Content-Type: application/json" in answer.get_json()["hint"]

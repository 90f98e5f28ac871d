"""The page of the API, made of its OpenAPI document."""

from flask.testing import FlaskClient

from tests.web.pages.reading import Through, look
from web.pages.api_docs import METHODS, fields, requests


def test_every_request_and_document_is_on_the_page(
    dashboard: FlaskClient, upstream: Through
) -> None:
    document = upstream.get("/openapi.json")
    page = look(dashboard, "/api/docs")
    wanted = {
        methods[method]["operationId"]
        for methods in document["paths"].values()
        for method in METHODS
        if method in methods
    }
    wanted |= {f"document-{name}" for name in document["components"]["schemas"]}
    assert wanted <= page.ids
    assert "POST /api/v1/services/{name}/move" in page.text.replace("\u200b", "")


def test_a_request_says_its_role_body_and_answers(upstream: Through) -> None:
    document = upstream.get("/openapi.json")
    (move,) = (each for each in requests(document) if each.id == "move_service")
    assert (move.role, move.body) == ("operator", "MoveWish")
    assert ("202", "OperationDocument") in {(each.status, each.document) for each in move.answers}
    assert any(each.name == "name" and each.where == "path" for each in move.parameters)


def test_keys_that_may_be_null_or_lists_say_what_they_hold() -> None:
    (one, many) = fields(
        {
            "required": ["one"],
            "properties": {
                "one": {"anyOf": [{"$ref": "#/components/schemas/Drain"}, {"type": "null"}]},
                "many": {"type": "array", "items": {"type": "string"}, "description": "names"},
            },
        }
    )
    assert (one.kind, one.document, one.must) == ("document or null", "Drain", True)
    assert (many.kind, many.document, many.text) == ("list of string", "", "names")

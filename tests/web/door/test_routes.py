"""Each role against each route of the API, as its OpenAPI document has them, and against pages."""

import re
from collections.abc import Iterator

from flask import Flask
from flask.testing import FlaskClient

from tests.web.door.test_door import PAGE, bearer
from web.roles import Role

METHODS = ("get", "post", "put", "delete", "patch")


def _operations(client: FlaskClient, admin: str) -> Iterator[tuple[str, str, Role]]:
    document = client.get("/api/v1/openapi.json", headers=bearer(admin)).get_json()
    for path, item in document["paths"].items():
        for method in METHODS:
            if method in item:
                yield method.upper(), path, Role(item[method]["x-role"])


def test_each_role_may_do_what_the_document_says(
    browser: FlaskClient, texts: dict[Role, str]
) -> None:
    """What is allowed is asked for by names that nothing has, so that nothing is done."""
    operations = list(_operations(browser, texts[Role.ADMIN]))
    assert len(operations) > 20
    wrong = []
    for method, path, least in operations:
        if path.endswith("/stream"):
            continue
        target = re.sub(r"\{\w+\}", "no-such-thing", path)
        for role in Role:
            if role.covers(least) and method != "GET" and "{" not in path:
                continue  # it would be done
            answer = browser.open(target, method=method, headers=bearer(texts[role]))
            if (answer.status_code == 403) == role.covers(least) or answer.status_code >= 500:
                wrong.append((method, path, role, answer.status_code))
            answer.close()
    assert not wrong


def test_without_a_token_nothing_of_the_api_answers(
    browser: FlaskClient, texts: dict[Role, str]
) -> None:
    for method, path, _ in list(_operations(browser, texts[Role.ADMIN])):
        target = re.sub(r"\{\w+\}", "web", path)
        for headers in ({}, bearer("ew_wrong"), {"Authorization": "Basic YTpi"}):
            answer = browser.open(target, method=method, headers=headers)
            assert answer.status_code == 401, (method, path)
            assert answer.mimetype == "application/problem+json"


def test_without_a_session_no_page_is_shown(door: Flask, browser: FlaskClient) -> None:
    open_to_all = {"/login", "/static/<path:filename>"}
    pages = [
        rule.rule
        for rule in door.url_map.iter_rules()
        if "GET" in (rule.methods or ()) and rule.rule not in open_to_all
    ]
    assert len(pages) > 5
    for page in pages:
        answer = browser.get(re.sub(r"<[^>]+>", "x", page), headers=PAGE)
        assert answer.status_code in {303, 401}, page
        if answer.status_code == 303:
            assert answer.location.startswith("/login")


def test_the_tokens_of_the_api_are_those_that_let_people_in(
    browser: FlaskClient, texts: dict[Role, str]
) -> None:
    admin = bearer(texts[Role.ADMIN])
    made = browser.post(
        "/api/v1/tokens", json={"name": "ci", "role": "viewer", "expires_s": 60}, headers=admin
    ).get_json()
    assert browser.get("/api/v1/status", headers=bearer(made["token"])).status_code == 200
    listed = browser.get("/api/v1/tokens", headers=admin).get_json()["tokens"]
    assert [each["name"] for each in listed][-1] == "ci"
    assert not any("token" in each or "digest" in each for each in listed)
    ended = browser.delete(f"/api/v1/tokens/{made['id']}", headers=admin).get_json()
    assert ended["state"] == "revoked"
    assert browser.get("/api/v1/status", headers=bearer(made["token"])).status_code == 401
    assert browser.delete("/api/v1/tokens/00000000", headers=admin).status_code == 404
    refused = browser.post("/api/v1/tokens", json={"name": "a\nb", "role": "god"}, headers=admin)
    assert {each["field"] for each in refused.get_json()["errors"]} == {"name", "role"}

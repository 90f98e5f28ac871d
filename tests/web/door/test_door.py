"""Who gets in, what they may do there, and what every answer says."""

import re

import pytest
from flask.testing import FlaskClient

from web.door.headers import CSP
from web.door.tokens import Tokens
from web.roles import Role

COOKIE = "edgewake-8480"
PAGE = {"Accept": "text/html"}


def bearer(text: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {text}"}


def test_a_stranger_is_sent_to_log_in_and_a_program_is_told(browser: FlaskClient) -> None:
    page = browser.get("/services?x=1", headers=PAGE)
    assert (page.status_code, page.location) == (303, "/login?next=%2Fservices%3Fx%3D1")
    api = browser.get("/api/v1/status")
    assert (api.status_code, api.mimetype) == (401, "application/problem+json")
    assert api.headers["WWW-Authenticate"].startswith("Bearer")
    assert "token" in api.get_json()["detail"]


@pytest.mark.parametrize("role", Role)
def test_every_role_may_look_and_only_operators_may_do(
    browser: FlaskClient, texts: dict[Role, str], role: Role
) -> None:
    headers = bearer(texts[role])
    assert browser.get("/api/v1/status", headers=headers).status_code == 200
    woken = browser.post("/api/v1/services/web/wake", headers=headers)
    assert woken.status_code == (403 if role is Role.VIEWER else 202)


def test_a_token_logs_in_and_out(browser: FlaskClient, texts: dict[Role, str]) -> None:
    entered = browser.post("/login", data={"token": texts[Role.OPERATOR], "next": "/wakes"})
    assert (entered.status_code, entered.location) == (303, "/wakes")
    cookie = entered.headers["Set-Cookie"]
    assert re.fullmatch(rf"{COOKIE}=[\w-]{{43}}; HttpOnly; Path=/; SameSite=Strict", cookie)
    assert browser.get("/api/v1/status").status_code == 200
    assert browser.post("/logout").status_code == 403, "without the session's CSRF token"
    page = browser.get("/nothing-here", headers=PAGE).get_data(as_text=True)
    found = re.search(r'name="csrf" content="([\w-]+)"', page)
    assert found
    assert browser.post("/logout", data={"csrf": found[1]}).location == "/login"
    assert browser.get("/api/v1/status").status_code == 401


def test_a_link_logs_in_once(browser: FlaskClient, tokens: Tokens) -> None:
    once = tokens.once("ada", Role.ADMIN)
    assert browser.head(f"/login?once={once}").status_code == 200, "a preview uses nothing up"
    assert browser.get(f"/login?once={once}").status_code == 200
    assert browser.get("/api/v1/status").status_code == 200
    browser.delete_cookie(COOKIE, domain="localhost")
    again = browser.get(f"/login?once={once}")
    assert again.status_code == 401
    assert "used already" in again.get_data(as_text=True)


@pytest.mark.parametrize("path", ["/login", "/", "/api/v1/status", "/static/icon.svg", "/%00"])
def test_every_answer_has_the_headers(browser: FlaskClient, path: str) -> None:
    with browser.get(path) as answer:
        headers = answer.headers
    assert headers["Content-Security-Policy"] == CSP
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert headers["X-Frame-Options"] == "DENY"
    assert "Cache-Control" in headers


def test_a_method_that_is_none_of_ours_is_told_those_that_are(browser: FlaskClient) -> None:
    answer = browser.open("/", method="TRACE")
    assert answer.status_code == 405
    assert {"GET", "POST", "PUT"} <= set(answer.headers["Allow"].split(", "))


def test_refusals_are_not_shared_and_those_of_the_door_are_noted(
    browser: FlaskClient,
    texts: dict[Role, str],
    tokens: Tokens,
    noted: list[tuple[str, str, str]],
) -> None:
    _, other = tokens.create("somebody else", Role.VIEWER)
    for text, name in ((texts[Role.VIEWER], "a viewer"), (other, "somebody else")):
        refused = browser.get("/api/v1/tokens", headers=bearer(text))
        assert refused.get_json()["detail"].startswith(f"{name} is viewer")
    assert browser.post("/api/v1/services/web/wake", headers=bearer(other)).status_code == 403
    assert noted[-1][:2] == ("refused", "somebody else")
    assert "POST '/api/v1/services/web/wake'" in noted[-1][2]

"""The page of tokens."""

from flask.testing import FlaskClient

from tests.web.pages.reading import HOSTILE, Through, door, look
from web.client import ApiError

TOKEN = {
    "id": "ab12",
    "name": HOSTILE,
    "role": "operator",
    "state": "valid",
    "created_at": 1790000000.0,
    "expires_at": None,
    "revoked_at": None,
    "used_at": None,
}
ENDED = {**TOKEN, "id": "cd34", "state": "revoked", "revoked_at": 1790000009.0}


def test_no_tokens_says_how_to_make_one(dashboard: FlaskClient, upstream: Through) -> None:
    upstream.answers["/tokens"] = {"tokens": []}
    page = look(dashboard, "/tokens")
    assert "edgewake token create" in page.text
    assert page.all("form", id="create")


def test_tokens_are_listed_as_text_and_can_be_revoked_once(
    dashboard: FlaskClient, upstream: Through
) -> None:
    upstream.answers["/tokens"] = {"tokens": [TOKEN, ENDED]}
    page = look(dashboard, "/tokens")
    assert page.text.count(HOSTILE) == 2
    assert page.all("button", id="revoke-ab12", data_method="DELETE", data_path="/tokens/ab12")
    assert not page.all("button", id="revoke-cd34")


def test_who_is_no_admin_is_told_so_and_has_no_link(upstream: Through) -> None:
    upstream.answers["/tokens"] = ApiError(403, {"detail": "this needs the role admin"})
    page = look(door(upstream, role="operator"), "/tokens", 403)
    assert "this needs the role admin" in page.text
    assert not page.all("a", href="/tokens")
    assert look(door(upstream), "/services").all("a", href="/tokens")

"""The page of the journal over a small world."""

from typing import Any

from flask.testing import FlaskClient

from tests.web.pages.reading import HOSTILE, Through, look
from tests.world import World


def an_event(kind: str, subject: str, **data: str) -> dict[str, Any]:
    return {"at": 1790000000.0, "kind": kind, "subject": subject, "text": HOSTILE, "data": data}


EVENTS = [
    an_event("woke", "web"),
    an_event("host-lost", "a"),
    an_event("audit", "ada", request="PUT /lab"),
]
PUT_LAB = {
    "number": 7,
    "at": 1790000000.0,
    "kind": "audit",
    "actor": HOSTILE,
    "role": "operator",
    "request": f"PUT /lab{HOSTILE}",
    "status": 403,
    "text": "",
}
LOGIN = {**PUT_LAB, "number": 6, "kind": "login", "request": "", "status": None, "text": HOSTILE}


def test_an_empty_journal_says_what_comes_there(dashboard: FlaskClient, upstream: Through) -> None:
    upstream.answers["/events?limit=400"] = {"events": [], "next": None}
    assert "Nothing has happened yet" in look(dashboard, "/journal").text
    upstream.answers["/audit?limit=400"] = {"audit": [], "next": None}
    assert "Nobody has changed anything" in look(dashboard, "/journal/audit").text


def test_what_happened_is_listed(dashboard: FlaskClient, world: World, upstream: Through) -> None:
    world.ask("web")
    world.eventually(lambda: bool(upstream.get("/events")["events"]))
    assert "woke" in look(dashboard, "/journal").text


def test_trouble_is_marked_and_audit_left_to_its_own_tab(
    dashboard: FlaskClient, upstream: Through
) -> None:
    upstream.answers["/events?limit=400"] = {"events": EVENTS, "next": "9"}
    page = look(dashboard, "/journal")
    assert len(page.all("tr", class_="trouble")) == 1
    assert page.text.count(HOSTILE) == 2
    assert page.all("a", rel="next", href="/journal?after=9")


def test_lines_are_chosen(dashboard: FlaskClient, upstream: Through) -> None:
    upstream.answers["/events?limit=400"] = {"events": EVENTS, "next": "9"}
    only = look(dashboard, "/journal?trouble=1")
    assert "host-lost" in only.text
    assert only.text.count(HOSTILE) == 1
    assert "No line fits" in look(dashboard, "/journal?subject=nobody").text


def test_the_audit_says_who_did_what(dashboard: FlaskClient, upstream: Through) -> None:
    upstream.answers["/audit?limit=400"] = {"audit": [PUT_LAB, LOGIN], "next": None}
    page = look(dashboard, "/journal/audit")
    assert page.text.count(HOSTILE) == 4
    assert page.all("span", class_="state s-refused")
    assert page.all("span", class_="state s-done")

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
    an_event("audit", "x", actor=HOSTILE, role="admin", method="PUT", path="/lab", status="403"),
]


def test_an_empty_journal_says_what_comes_there(dashboard: FlaskClient, upstream: Through) -> None:
    upstream.answers["/events?limit=1000"] = {"events": []}
    assert "Nothing has happened yet" in look(dashboard, "/journal").text
    upstream.answers["/events?limit=1000&kind=audit"] = {"events": []}
    assert "Nobody has changed anything" in look(dashboard, "/journal?tab=audit").text


def test_what_happened_is_listed(dashboard: FlaskClient, world: World, upstream: Through) -> None:
    world.ask("web")
    world.eventually(lambda: bool(upstream.get("/events")["events"]))
    assert "woke" in look(dashboard, "/journal").text


def test_trouble_is_marked_and_audit_has_its_own_tab(
    dashboard: FlaskClient, upstream: Through
) -> None:
    upstream.answers["/events?limit=1000"] = {"events": EVENTS}
    upstream.answers["/events?limit=1000&kind=audit"] = {"events": EVENTS}
    page = look(dashboard, "/journal")
    assert len(page.all("tr", class_="trouble")) == 1
    assert page.text.count(HOSTILE) == 2
    audit = look(dashboard, "/journal?tab=audit")
    assert audit.text.count(HOSTILE) == 1
    assert "PUT /lab" in audit.text
    assert audit.all("span", class_="state s-refused")


def test_lines_are_chosen(dashboard: FlaskClient, upstream: Through) -> None:
    upstream.answers["/events?limit=1000"] = {"events": EVENTS}
    only = look(dashboard, "/journal?trouble=1")
    assert "host-lost" in only.text
    assert only.text.count(HOSTILE) == 1
    assert "No line fits" in look(dashboard, "/journal?subject=nobody").text

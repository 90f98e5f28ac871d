"""The page of the journal: what happened, live; and the audit: who did what."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from flask import Blueprint, render_template, request

from orchestrator.journal import TROUBLE
from web.pages.area import Link, Upstream
from web.pages.asking import path

LINKS = (Link("/journal", "Journal"),)
AUDIT = "audit"  # the kind of events that say who did what
READ = 400  # events of a page, among which is chosen
LISTED = 400  # rows on the page
Document = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Chosen:
    """Which events are listed; empty means all. `trouble` is ``1`` for only what went wrong."""

    kind: str = ""
    subject: str = ""
    trouble: str = ""

    @property
    def any(self) -> bool:
        """Whether anything is chosen at all."""
        return bool(self.kind or self.subject or self.trouble)

    def has(self, event: Document) -> bool:
        """Say whether an event is one of them."""
        return (
            self.kind in {"", event["kind"]}
            and self.subject.lower() in event["subject"].lower()
            and (not self.trouble or event["kind"] in TROUBLE)
        )


def add(pages: Blueprint, upstream: Upstream) -> None:
    """Add the page and its tab, the audit."""

    @pages.get("/journal")
    def journal() -> str:
        chosen = Chosen(**{key: request.args.get(key, "") for key in Chosen.__slots__})
        asked = path("events", limit=READ, kind=chosen.kind, after=request.args.get("after"))
        answer = upstream.get(asked)
        every = [event for event in reversed(answer["events"]) if event["kind"] != AUDIT]
        fitting = [event for event in every if chosen.has(event)]
        return render_template(
            "journal.html",
            chosen=chosen,
            events=fitting[:LISTED],
            listed=LISTED,
            kinds=sorted({event["kind"] for event in every} | TROUBLE | ({chosen.kind} - {""})),
            next=answer["next"],
            first="after" not in request.args,
            trouble=TROUBLE,
        )

    @pages.get("/journal/audit")
    def audit() -> str:
        answer = upstream.get(path("audit", limit=LISTED, after=request.args.get("after")))
        return render_template(
            "audit.html",
            lines=sorted(answer["audit"], key=lambda line: int(line["number"]), reverse=True),
            next=answer["next"],
            first="after" not in request.args,
        )

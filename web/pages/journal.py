"""The page of the journal: what happened, live; and the audit: who did what."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from flask import Blueprint, render_template, request

from orchestrator.journal import TROUBLE
from web.pages.area import Link, Upstream
from web.pages.asking import path

LINKS = (Link("/journal", "Journal"),)
AUDIT = "audit"  # the kind of events that say who did what
READ = 1000  # events among which is chosen
LISTED = 200  # rows on the page
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
    """Add the page; its tab `audit` has the events of that kind."""

    @pages.get("/journal")
    def journal() -> str:
        audit = request.args.get("tab") == AUDIT
        chosen = Chosen(**{key: request.args.get(key, "") for key in Chosen.__slots__})
        kind = AUDIT if audit else chosen.kind
        asked = path("events", limit=READ, after=request.args.get("after"), kind=kind)
        answer = upstream.get(asked)
        every = _newest_first(answer["events"], audit=audit)
        fitting = [event for event in every if chosen.has(event)]
        return render_template(
            "journal.html",
            audit=audit,
            chosen=chosen,
            events=fitting[:LISTED],
            listed=LISTED,
            kinds=sorted({event["kind"] for event in every} | ({chosen.kind} - {""})),
            next=answer.get("next"),
            first="after" not in request.args,
            trouble=TROUBLE,
        )


def _newest_first(events: Iterable[Document], *, audit: bool) -> list[Document]:
    """Return the events of a tab: audit entries have one of their own."""
    chosen = [event for event in events if (event["kind"] == AUDIT) is audit]
    return sorted(chosen, key=lambda event: float(event["at"]), reverse=True)

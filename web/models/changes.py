"""Lists of changes, and who asked for what."""

from typing import Self

from pydantic import Field

from orchestrator.change_log import Listed
from orchestrator.store.base import Line
from web.models.base import DEFAULT_LISTED, MOST_LISTED, Document, Parameters
from web.models.plans import ChangeDocument


class NumberedPage(Parameters):
    """Which part of a list is asked for whose lines are numbered."""

    limit: int = Field(DEFAULT_LISTED, ge=1, le=MOST_LISTED, description="how many at most")
    after: int | None = Field(None, ge=1, le=2**62, description="`next` of the page before")


class ChangesDocument(Document):
    """A list of changes: `by` plan, apply, move or drain, about `subject`, for `actor`.

    It was `applied`, or only proposed; `failed` says why it was not carried out to its end.
    `operation` is empty if none was made of it. `left` are services that stay where they are
    although the plan wants them elsewhere.
    """

    number: int
    at: float
    by: str
    subject: str
    actor: str
    operation: str
    applied: bool
    failed: str
    why: str
    changes: list[ChangeDocument]
    left: list[str]

    @classmethod
    def of(cls, value: Listed) -> Self:
        """Return a list of changes."""
        return cls(
            number=value.number,
            at=value.at,
            by=value.by,
            subject=value.subject,
            actor=value.actor,
            operation=value.operation,
            applied=value.applied,
            failed=value.failed,
            why=value.changes.why,
            changes=[ChangeDocument.of(each) for each in value.changes],
            left=list(value.changes.left),
        )


class LastChanges(Document):
    """The last lists of changes, newest first."""

    changes: list[ChangesDocument]
    next: str | None


class AuditDocument(Document):
    """What somebody asked for, and the HTTP status it was answered with; `at` as ever.

    Who came in, or could not, has a `kind` of its own, and no request.
    """

    number: int
    at: float
    kind: str
    actor: str
    role: str
    request: str
    status: int | None
    text: str

    @classmethod
    def of(cls, line: Line) -> Self:
        """Return a line of the audit log."""
        event = line.event
        data = dict(event.data)
        return cls(
            number=line.number,
            at=event.at,
            kind=event.kind,
            actor=event.subject,
            role=data.get("role", ""),
            request=data.get("request", ""),
            status=int(data["status"]) if data.get("status", "").isdigit() else None,
            text=event.text,
        )


class AuditsDocument(Document):
    """Who asked for what, newest first."""

    audit: list[AuditDocument]
    next: str | None

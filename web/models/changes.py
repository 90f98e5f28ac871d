"""Lists of changes, and who asked for what."""

from typing import Self

from orchestrator.change_log import Listed
from orchestrator.model import Event
from web.models.base import Document
from web.models.plans import ChangeDocument


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
    """The last lists of changes, oldest first; `next` leads to older ones."""

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
    def of(cls, event: Event) -> Self:
        """Return a line of the audit log."""
        data = dict(event.data)
        return cls(
            number=event.number,
            at=event.at,
            kind=event.kind,
            actor=event.subject,
            role=data.get("role", ""),
            request=data.get("request", ""),
            status=int(data["status"]) if data.get("status", "").isdigit() else None,
            text=event.text,
        )


class AuditsDocument(Document):
    """Who asked for what, oldest first; `next` leads to older ones."""

    audit: list[AuditDocument]
    next: str | None

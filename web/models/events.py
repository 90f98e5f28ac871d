"""The journal: what happened."""

from typing import Self

from pydantic import Field

from orchestrator.model import Event
from web.models.base import DEFAULT_LISTED, MOST_LISTED, Document, Parameters


class EventDocument(Document):
    """One line of the journal; `at` is seconds since the epoch."""

    at: float
    kind: str
    subject: str
    text: str
    data: dict[str, str]

    @classmethod
    def of(cls, value: Event) -> Self:
        """Return an event."""
        return cls(
            at=value.at,
            kind=value.kind,
            subject=value.subject,
            text=value.text,
            data=dict(value.data),
        )


class LastEvents(Parameters):
    """Which events are asked for."""

    limit: int = Field(DEFAULT_LISTED, ge=1, le=MOST_LISTED)


class EventsDocument(Document):
    """The last events, oldest first."""

    events: list[EventDocument]

"""The journal: what happened."""

from typing import Literal, Self

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


class Streamed(Parameters):
    """What a stream tells; all of it if nothing is named."""

    topic: list[Literal["event", "wake", "queries", "operation", "status"]] = Field([])


class Resumed(Parameters):
    """Where a stream goes on."""

    last_event_id: str = Field(
        "",
        alias="Last-Event-ID",
        pattern="^([0-9]{1,16})?$",
        description="`id` of the last event that was seen; from now on if it is not said",
    )

    @property
    def after(self) -> int | None:
        """The number of the last event that was seen; None if none was."""
        return int(self.last_event_id) if self.last_event_id else None

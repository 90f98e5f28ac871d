"""The journal: what happened."""

from typing import Literal, Self

from pydantic import Field

from orchestrator.model import Event
from web.models.base import LONGEST_NAME, Document, NumberedPage, Parameters, Text


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


class LastEvents(NumberedPage):
    """Which events are asked for; of all kinds if none is named."""

    kind: Text = Field("", max_length=LONGEST_NAME)


class EventsDocument(Document):
    """The last events, oldest first; `next` leads to older ones, null if there are none."""

    events: list[EventDocument]
    next: str | None


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

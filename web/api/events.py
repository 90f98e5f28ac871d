"""The journal."""

from web.api.context import Context
from web.api.operation import Api
from web.models.events import EventDocument, EventsDocument, LastEvents


def add(api: Api, context: Context) -> None:
    """Add what is told of the past."""

    @api.get("/events", EventsDocument)
    def events(query: LastEvents) -> EventsDocument:
        """Return the last lines of the journal, oldest first."""
        last = context.control.events(query.limit)
        return EventsDocument(events=[EventDocument.of(each) for each in last])

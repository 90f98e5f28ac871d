"""The journal, and what happens as it happens."""

from flask import Response

from web import sse
from web.api.context import Context
from web.api.operation import Api, Media
from web.event_stream import EventStreams
from web.models.events import EventDocument, EventsDocument, LastEvents, Resumed, Streamed


def add(api: Api, context: Context) -> None:
    """Add what is told of the past, and of now."""
    streams = EventStreams(context.control.feed)

    @api.get("/events", EventsDocument)
    def events(query: LastEvents) -> EventsDocument:
        """Return the last lines of the journal, oldest first."""
        last = context.control.events(
            query.limit + 1, kinds=(query.kind,) if query.kind else (), before=query.before
        )
        page = last[-query.limit :]
        return EventsDocument(
            events=[EventDocument.of(each) for each in page],
            next=str(page[0].number) if len(last) > query.limit else None,
        )

    @api.get(
        "/events/stream",
        Media(sse.CONTENT_TYPE, "Server-sent events, each a JSON document.", is_text=False),
        problems=(503,),
    )
    def event_stream(query: Streamed, header: Resumed) -> Response:
        """Tell what happens as it happens, as server-sent events."""
        return streams.open(set(query.topic), header.after)

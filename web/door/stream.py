"""The event stream, as browsers (`/events`) and programs (`/api/v1/events/stream`) ask for it."""

from collections.abc import Callable
from http import HTTPStatus

from flask import Flask, Response, abort, g, request
from werkzeug.exceptions import ServiceUnavailable

from web.door.access import Access
from web.door.guard import Visit, cookie_name, find_visit
from web.door.hub import Full, Hub
from web.door.settings import DoorSettings

CONTENT_TYPE = "text/event-stream"
LONGEST_ID = 16  # digits
TOPICS = frozenset({"event", "wake", "queries", "operation", "status"})
RETRY_S = 10


def add(app: Flask, hub: Hub, access: Access, settings: DoorSettings) -> None:
    """Add the stream."""

    def events() -> Response:
        try:
            still = _still(g.visit, access, settings)
            told = hub.listen(_position(), _topics(), still, g.visit.caller.name)
        except Full:
            why = f"of {settings.streams} event streams, none is left for {g.visit.caller.name}"
            raise ServiceUnavailable(why, retry_after=RETRY_S) from None
        response = Response(told, content_type=CONTENT_TYPE)
        response.headers["X-Accel-Buffering"] = "no"
        return response

    app.add_url_rule("/events", "events", events)
    app.add_url_rule("/api/v1/events/stream", "events-of-api", events)


def _still(visit: Visit, access: Access, settings: DoorSettings) -> Callable[[], bool]:
    """Return what says whether a visitor would still be let in; a stream may last for days."""
    shown = request.headers.get("Authorization", ""), request.cookies.get(cookie_name(settings), "")

    def still() -> bool:
        again = find_visit(*shown, access)
        return again is not None and again.caller == visit.caller

    return still


def _topics() -> frozenset[str]:
    asked = frozenset(request.args.getlist("topic"))
    if unknown := sorted(asked - TOPICS):
        known = ", ".join(sorted(TOPICS))
        abort(HTTPStatus.BAD_REQUEST, f"topic: there is no {unknown[0]!r}; there are {known}")
    return asked | {"gap"} if asked else asked


def _position() -> int | None:
    written = request.headers.get("Last-Event-ID", "")
    if not written:
        return None
    if not (written.isascii() and written.isdigit() and len(written) <= LONGEST_ID):
        abort(HTTPStatus.BAD_REQUEST, "Last-Event-ID must be the number of an event")
    return int(written)

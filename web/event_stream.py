"""`GET /api/v1/events/stream`: the feed as server-sent events, for dashboards and ``--follow``.

A stream resumes where ``Last-Event-ID`` says, sends a comment when nothing happens, and ends with
the daemon. Each is a thread of `web.server`, so there are at most `MOST_STREAMS`; the door holds
one for all its browsers.
"""

import threading
import time
from collections.abc import Callable, Iterator, Mapping
from collections.abc import Set as AbstractSet
from http import HTTPStatus
from typing import Any

from flask import Response

from orchestrator.feed import Feed
from orchestrator.feeding import EVENT, OPERATION, QUERIES, STATUS, WAKE
from web import sse
from web.models.events import EventDocument
from web.models.operations import OperationDocument
from web.models.queries import QueryDocument
from web.models.wakes import WakeDocument
from web.problems import HttpProblem

MOST_STREAMS = 32
KEEP_ALIVE_S = 15.0
RETRY = "retry: 1000\n"  # milliseconds until a browser comes again
GAP = "gap"


def _same(value: Any) -> Any:
    return value


DOCUMENTS: Mapping[str, Callable[[Any], Any]] = {
    EVENT: lambda event: EventDocument.of(event).as_json(),
    WAKE: lambda wake: WakeDocument.of(wake).as_json(),
    STATUS: _same,
    QUERIES: lambda queries: [QueryDocument.of_query(each).as_json() for each in queries],
    OPERATION: lambda operation: OperationDocument.of(operation).as_json(),
}


class EventStreams:
    """Answers requests for the stream of a feed."""

    def __init__(self, feed: Feed) -> None:
        self._feed = feed
        self._room = threading.BoundedSemaphore(MOST_STREAMS)

    def open(self, topics: AbstractSet[str], after: int | None) -> Response:
        """Return a stream of some topics (none named: all) from a number on (None: from now on).

        Raises a 503 if too many are open.
        """
        if not self._room.acquire(blocking=False):
            raise HttpProblem(
                HTTPStatus.SERVICE_UNAVAILABLE,
                f"{MOST_STREAMS} event streams are open already",
                hint="close one; browsers share that of the dashboard",
            )
        begin = self._feed.last if after is None else after
        told = _told(self._feed, begin, topics or set(DOCUMENTS))
        response = Response(told, content_type=sse.CONTENT_TYPE)
        response.headers["Cache-Control"] = "no-store"
        response.headers["X-Accel-Buffering"] = "no"
        response.call_on_close(self._room.release)
        return response


def _told(feed: Feed, last: int, topics: AbstractSet[str]) -> Iterator[str]:
    """Yield the text of a stream until the feed is closed, or whoever reads is gone."""
    yield RETRY + sse.position(last)
    said = time.monotonic()
    closed = False
    while not closed:
        news = feed.since(last, said + KEEP_ALIVE_S - time.monotonic())
        last, closed = news.last, news.closed
        told = [
            sse.written(each.topic, DOCUMENTS.get(each.topic, _same)(each.value), each.sequence)
            for each in news.messages
            if each.topic in topics
        ]
        if news.gap:
            told.append(sse.written(GAP, {}, last))
        if not told and time.monotonic() - said >= KEEP_ALIVE_S:
            told.append(sse.position(last))  # so who is gone is noticed, whatever else happens
        if told:
            yield "".join(told)
            said = time.monotonic()

"""`GET /api/v1/events/stream`: the feed as server-sent events, for dashboards and ``--follow``.

A stream resumes where ``Last-Event-ID`` says, sends a comment when nothing happens, and ends with
the daemon. Each is a thread of `web.server`, so there are at most `MOST_STREAMS`; the door holds
one for all its browsers.
"""

import threading
from collections.abc import Callable, Iterator, Mapping
from http import HTTPStatus
from typing import Any

from flask import Response, abort, request

from orchestrator.feed import Feed
from orchestrator.feeding import EVENT, OPERATION, QUERIES, STATUS, WAKE
from web import sse, wire

MOST_STREAMS = 32
KEEP_ALIVE_S = 15.0
RETRY = "retry: 1000\n"  # milliseconds until a browser comes again
GAP = "gap"
LONGEST_ID = 16  # digits


def _same(value: Any) -> Any:
    return value


DOCUMENTS: Mapping[str, Callable[[Any], Any]] = {
    EVENT: wire.event,
    WAKE: wire.wake,
    STATUS: _same,
    QUERIES: _same,
    OPERATION: _same,
}


class EventStreams:
    """Answers requests for the stream of a feed."""

    def __init__(self, feed: Feed) -> None:
        self._feed = feed
        self._room = threading.BoundedSemaphore(MOST_STREAMS)

    def __call__(self) -> Response:
        """Return the stream that the request at hand asks for."""
        topics = _topics(request.args.getlist("topic"))
        after = _position(request.headers.get("Last-Event-ID", ""))
        if not self._room.acquire(blocking=False):
            abort(HTTPStatus.SERVICE_UNAVAILABLE, f"{MOST_STREAMS} event streams are open already")
        told = _told(self._feed, self._feed.last if after is None else after, topics)
        response = Response(told, content_type=sse.CONTENT_TYPE)
        response.headers["Cache-Control"] = "no-store"
        response.headers["X-Accel-Buffering"] = "no"
        response.call_on_close(self._room.release)
        return response


def _told(feed: Feed, last: int, topics: frozenset[str]) -> Iterator[str]:
    """Yield the text of a stream until the feed is closed, or whoever reads is gone."""
    yield RETRY + sse.position(last)
    closed = False
    while not closed:
        news = feed.since(last, KEEP_ALIVE_S)
        last, closed = news.last, news.closed
        told = [
            sse.written(each.topic, DOCUMENTS.get(each.topic, _same)(each.value), each.sequence)
            for each in news.messages
            if each.topic in topics
        ]
        if news.gap:
            told.append(sse.written(GAP, {}, last))
        if told:
            yield "".join(told)
        elif not news.messages:
            yield sse.position(last)


def _topics(written: list[str]) -> frozenset[str]:
    if unknown := sorted(set(written) - set(DOCUMENTS)):
        known = ", ".join(DOCUMENTS)
        abort(HTTPStatus.BAD_REQUEST, f"topic: there is no {unknown[0]!r}; there are {known}")
    return frozenset(written or DOCUMENTS)


def _position(written: str) -> int | None:
    if not written:
        return None
    if not (written.isascii() and written.isdigit() and len(written) <= LONGEST_ID):
        abort(HTTPStatus.BAD_REQUEST, "Last-Event-ID must be the number of an event")
    return int(written)

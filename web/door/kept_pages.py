"""Pages that are made once for everybody of a role, and made anew when what they say has changed.

A page is kept by role and address, with the documents that it was made from; it is shown again as
long as the daemon would give the same ones. What is one person's (their name, their CSRF token) is
not in what is kept: marks stand there, which nobody can guess, and are filled in for each who asks.
"""

import secrets
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import wraps
from http import HTTPStatus
from threading import Lock
from time import monotonic
from typing import Any, cast

from flask import Response, g, make_response, request
from markupsafe import escape

from web.client import ApiError
from web.door.guard import Visit
from web.door.upstream import Noted, Upstream, View

KEPT_S = 5.0  # pages have the time of day in them ("in the last hour"), if little of it
MOST_PAGES = 64
MOST_BYTES = 8 << 20  # of all pages, with their documents
TURN_S = 0.5  # how long one waits for another to make the page, before one makes it oneself

Key = tuple[object, ...]
Page = Callable[..., Any]


@dataclass(frozen=True, slots=True)
class _Made:
    """A page with marks, and what it was made from."""

    text: bytes
    content_type: str
    documents: tuple[tuple[str, bytes | None], ...]
    at: float


@dataclass(slots=True)
class _Place:
    """Where a page is kept; who holds `turn` makes it."""

    made: _Made | None = None
    turn: Lock = field(default_factory=Lock)

    @property
    def size(self) -> int:
        """Return about how many bytes it takes."""
        made = self.made
        return len(made.text) + sum(len(body or b"") for _, body in made.documents) if made else 0


class KeptPages:
    """The pages of one door. Safe to call from threads.

    `serving` wraps the function that makes a page, which reads with `get` and `text`, and whose
    templates are given what `person` returns. Beside that it may look at the address that was asked
    for and at the role of who asks, and at nothing else: headers that it sets are not kept.
    """

    def __init__(self, upstream: Upstream, clock: Callable[[], float] = monotonic) -> None:
        self._upstream = upstream
        self._clock = clock
        self._lock = Lock()
        self._places: dict[Key, _Place] = {}  # the one that was asked for last is the last
        self._name, self._csrf = f"name-{secrets.token_hex(16)}", f"csrf-{secrets.token_hex(16)}"

    # --- for who makes a page -----------------------------------------------------------------

    def get(self, path: str) -> Any:
        """Return the JSON document at a path below ``/api/v1``, in the name of who asks."""
        return self._view.get(path)

    def text(self, path: str) -> str:
        """Return the plain text at a path, in the name of who asks."""
        return self._view.text(path)

    def person(self) -> tuple[str | None, str]:
        """Return the name and the CSRF token to be written into what is made just now."""
        if "noted" in g:
            return self._name, self._csrf
        return _person(g.get("visit"))

    @property
    def _view(self) -> View:
        return View(self._upstream, _visit().caller, g.get("noted"))

    # --- for who shows it ---------------------------------------------------------------------

    def serving(self, page: Page) -> Page:
        """Return what shows a page that `page` makes."""

        @wraps(page)
        def serve(**arguments: object) -> Response:
            # The host is in links; path and query are apart, since either may hold a "?".
            address = request.host_url, request.path, request.query_string
            with self._turn((_visit().caller.role, *address)) as place:
                made = place.made
                if made is None or not self._still_holds(made):
                    response, made = self._make(page, arguments)
                    place.made = made
                    return response
            return Response(self._filled(made.text), content_type=made.content_type)

        return serve

    @contextmanager
    def _turn(self, key: Key) -> Iterator[_Place]:
        """Give the place of a page while nobody else makes that page, or after a while anyway."""
        with self._lock:
            self._places[key] = place = self._places.pop(key) if key in self._places else _Place()
            sizes = {each: kept.size for each, kept in self._places.items()}
            while len(sizes) > 1 and (len(sizes) > MOST_PAGES or sum(sizes.values()) > MOST_BYTES):
                oldest = next(iter(sizes))
                del sizes[oldest], self._places[oldest]
        is_mine = place.turn.acquire(timeout=TURN_S)
        try:
            yield place
        finally:
            if is_mine:
                place.turn.release()

    def _still_holds(self, made: _Made) -> bool:
        """Say whether the daemon would give who asks the documents that a page was made from."""
        if self._clock() - made.at >= KEPT_S:
            return False
        view = View(self._upstream, _visit().caller)
        try:
            return all(view.body(path) == body for path, body in made.documents)
        except ApiError:
            return False

    def _make(self, page: Page, arguments: dict[str, object]) -> tuple[Response, _Made | None]:
        """Make a page for who asks; return it, and what may be kept of it for others.

        That is nothing if it is no success. What was made from a refusal, which says who was
        refused, is never shown again: no document is None.
        """
        began = self._clock()
        noted: Noted = []
        g.noted = noted
        try:
            response = make_response(page(**arguments))
        finally:
            g.pop("noted")
        text = response.get_data()
        response.set_data(self._filled(text))
        if response.status_code != HTTPStatus.OK:
            return response, None
        return response, _Made(text, response.content_type, tuple(noted), began)

    def _filled(self, text: bytes) -> bytes:
        """Return a page for who asks."""
        name, csrf = _person(_visit())
        return text.replace(self._name.encode(), escape(name).encode()).replace(
            self._csrf.encode(), escape(csrf).encode()
        )


def _visit() -> Visit:
    return cast("Visit", g.visit)


def _person(visit: Visit | None) -> tuple[str | None, str]:
    if visit is None:
        return None, ""
    return visit.caller.name, visit.session.csrf if visit.session else ""

"""The door as a WSGI application: pages for browsers, the API for programs, and who may have them.

`create_door` joins the pages to a daemon's API, lets nobody in who has no token or session, and
says in every answer what browsers must not do. Pages are below ``/``, the API below ``/api/v1``,
files that everybody may have below ``/static``.
"""

from logging import getLogger
from typing import Any

from flask import Flask, Response, g, request
from werkzeug.exceptions import TooManyRequests
from werkzeug.wrappers import Response as AnyResponse

from web.door import errors, forward, login, stream
from web.door.access import Access
from web.door.guard import Visit, admit
from web.door.headers import protect
from web.door.hub import Hub
from web.door.kept_pages import KeptPages
from web.door.room import Room
from web.door.settings import DoorSettings
from web.door.upstream import Upstream
from web.pages import create_pages

log = getLogger(__name__)

LARGEST_REQUEST = 4 << 20  # bytes, as of the API behind
MOST_AT_ONCE = 40  # requests of people who are known; the threads of `web.door.server`
RETRY_S = 1
HUB = "edgewake-hub"
FILES = "pages.static"
OPEN_TO_ALL = frozenset({FILES, "login", "logout", "enter"})  # endpoints


def create_door(upstream: Upstream, access: Access, settings: DoorSettings) -> Flask:
    """Return the application."""
    app = Flask("web", static_folder=None, template_folder=None)
    app.config["MAX_CONTENT_LENGTH"] = LARGEST_REQUEST
    app.json.sort_keys = False  # type: ignore[attr-defined]  # of the default provider
    crowd = Room(MOST_AT_ONCE)
    kept = KeptPages(upstream)

    @app.before_request
    def look() -> AnyResponse | None:
        g.visit = None
        g.visit = admit(request, access, settings)
        if g.visit is not None:
            who = g.visit.caller.name
            g.inside = crowd.enter(who)
            if not g.inside:
                why = f"{who} has too many requests under way"
                raise TooManyRequests(why, retry_after=RETRY_S)
            return None
        return None if request.endpoint in OPEN_TO_ALL else login.ask_who(request)

    @app.teardown_request
    def leave(_error: BaseException | None) -> None:
        if g.pop("inside", False):
            crowd.leave(g.visit.caller.name)

    @app.after_request
    def say(response: Response) -> Response:
        protect(response.headers, secure=settings.secure)
        return response

    @app.context_processor
    def everywhere() -> dict[str, Any]:
        visit: Visit | None = g.get("visit")
        actor, csrf = kept.person()
        role = str(visit.caller.role) if visit else None
        return {"actor": actor, "role": role, "csrf": csrf, "lab": settings.lab}

    login.add(app, access, settings)
    hub = Hub(upstream, settings.streams)
    app.extensions[HUB] = hub  # whoever serves the application closes it
    stream.add(app, hub, access, settings)
    forward.add(app, upstream)
    errors.add(app)
    app.register_blueprint(create_pages(kept))
    for endpoint, view in app.view_functions.items():
        if endpoint.startswith("pages.") and endpoint != FILES:
            app.view_functions[endpoint] = kept.serving(view)
    return app

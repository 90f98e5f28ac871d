"""What is looked at before any request is answered: is it meant for us, who asks, may they.

`admit` is the whole of it. Its order matters: the Host header first, since a page of somebody
else's whose name was made to lead here (DNS rebinding) must not even learn that there is a door.
"""

import re
from dataclasses import dataclass
from http import HTTPStatus
from ipaddress import ip_address
from urllib.parse import urlsplit

from flask import Request, abort
from werkzeug.exceptions import MethodNotAllowed

from web.client import ApiError
from web.door.access import Access
from web.door.sessions import Session, same
from web.door.settings import DoorSettings
from web.door.upstream import SAFE
from web.roles import Caller, Role

LOGIN = "/login"
LARGEST_FORM = 64 << 10  # bytes
CSRF_HEADER = "X-CSRF-Token"
HOST = re.compile(r"(\[[0-9a-f:.]+\]|[a-z0-9._-]+)(?::([0-9]{1,5}))?")
LONGEST_NOTED = 200  # characters of a path, in the audit log
METHODS = SAFE | {"POST", "PUT", "PATCH", "DELETE"}
STRANGE = re.compile(r"[\x00-\x1f\x7f\\%]|//|/\.{1,2}(?:/|$)")


@dataclass(frozen=True, slots=True)
class Visit:
    """Who asks, and by which session, if by one."""

    caller: Caller
    session: Session | None = None


def admit(request: Request, access: Access, settings: DoorSettings) -> Visit | None:
    """Return who asks; None if nobody we know. Aborts what nobody may ask."""
    if not _is_ours(request.host, settings):
        abort(HTTPStatus.MISDIRECTED_REQUEST, "this is not the host that was asked for")
    if request.method not in METHODS:
        raise MethodNotAllowed(sorted(METHODS), f"{request.method} does nothing here")
    if STRANGE.search(request.path):
        abort(HTTPStatus.NOT_FOUND, "no path here has such characters")
    authorization = request.headers.get("Authorization", "")
    visit = find_visit(authorization, request.cookies.get(cookie_name(settings), ""), access)
    if authorization and visit is None:
        where = address_of(request, settings)
        access.audit.failed("refused", where, "somebody showed a token that lets nobody in")
    if request.method not in SAFE:
        _may_change(request, visit, access)
    return visit


def cookie_name(settings: DoorSettings) -> str:
    """Return the name of the session's cookie.

    It has the port, since cookies have not: two doors of one machine would log each other out.
    ``__Host-`` makes browsers refuse it from other hosts' pages and without TLS.
    """
    name = f"edgewake-{settings.port}"
    return f"__Host-{name}" if settings.secure else name


def address_of(request: Request, settings: DoorSettings) -> str:
    """Return where a request came from; a proxy in front of us is believed whom it names last."""
    named = request.headers.get("X-Forwarded-For", "") if settings.behind_proxy else ""
    last = named.rpartition(",")[2].strip()
    try:
        return str(ip_address(last))
    except ValueError:
        return request.remote_addr or "unknown"


def find_visit(authorization: str, cookie: str, access: Access) -> Visit | None:
    """Return who shows these, a token before a session; None if nobody we know."""
    if authorization:
        scheme, _, text = authorization.partition(" ")
        token = access.tokens.find(text.strip()) if scheme.lower() == "bearer" else None
        return Visit(token.caller) if token else None
    session = access.sessions.find(cookie) if cookie else None
    return Visit(session.caller, session) if session else None


def _may_change(request: Request, visit: Visit | None, access: Access) -> None:
    """Refuse a request that changes something, unless who seems to send it does, and may."""
    if not _same_site(request):
        abort(HTTPStatus.FORBIDDEN, "another site's page sent this request")
    is_form = not request.path.startswith("/api/")
    if is_form and (request.content_length or 0) > LARGEST_FORM:
        abort(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"forms have up to {LARGEST_FORM} bytes")
    if visit is None or request.path == LOGIN:  # which asks for a token anyway
        return
    why = hint = ""
    if visit.session is not None and not same(_csrf(request), visit.session.csrf):
        why = f"the {CSRF_HEADER} header is not that of this session"
    elif not visit.caller.role.covers(least := _least(request)):
        why = f"a {visit.caller.role} may look, but change nothing"
        hint = f"this takes the role {least}: ask an admin for a token of that role"
    if why:
        what = f"{request.method} {request.path[:LONGEST_NOTED]!r}"
        access.audit.failed("refused", visit.caller.name, f"{what}: {why}")
        raise ApiError(HTTPStatus.FORBIDDEN, {"detail": why, "hint": hint})


def _csrf(request: Request) -> str:
    """Return the token of a request that says which page of ours it came from."""
    if request.path.startswith("/api/"):  # scripts' business; its bodies are not forms
        return request.headers.get(CSRF_HEADER, "")
    return request.headers.get(CSRF_HEADER, "") or request.form.get("csrf", "")


def _least(request: Request) -> Role:
    """Return the least role for a changing request; what needs more is the API's to refuse."""
    return Role.OPERATOR if request.path.startswith("/api/") else Role.VIEWER


def _is_ours(host: str, settings: DoorSettings) -> bool:
    match = HOST.fullmatch(host.lower())
    if match is None:
        return False
    name = match[1].strip("[]").removesuffix(".")
    if name == "localhost" or name in settings.names:
        return True
    try:
        asked = ip_address(name)
    except ValueError:
        return False
    # No name leads here but ours, so an address can only be one that somebody wrote.
    listens = ip_address(settings.host)
    return asked == listens or asked.is_loopback or listens.is_unspecified


def _same_site(request: Request) -> bool:
    """Return whether one of our pages, or a program, sent a request; browsers say which."""
    if request.headers.get("Sec-Fetch-Site", "same-origin") not in {"same-origin", "none"}:
        return False
    origin = request.headers.get("Origin")
    return origin is None or urlsplit(origin).netloc.lower() == request.host.lower()

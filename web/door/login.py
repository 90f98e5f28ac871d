"""Logging in and out: by a token, or by a link that works once."""

import math
import re
from http import HTTPStatus
from urllib.parse import quote

from flask import Flask, Request, abort, g, make_response, redirect, render_template, request
from werkzeug.wrappers import Response

from web.door.access import Access, Flood
from web.door.guard import address_of, cookie_name
from web.door.sessions import Session
from web.door.settings import DoorSettings

# A path of ours and nothing else: "//host", "/\host" and "https:" lead browsers elsewhere.
OUR_PATH = re.compile(r"/(?![/\\])[A-Za-z0-9/._~!$&'()*+,;=:@?%-]*")
HOME = "/"


def add(app: Flask, access: Access, settings: DoorSettings) -> None:
    """Add the pages of logging in and out."""
    app.register_error_handler(Flood, _refuse_flood)

    @app.get("/login", endpoint="login")
    def login() -> Response:
        once = request.args.get("once", "")
        if not once or request.method == "HEAD" or _is_prefetch():
            if g.visit is not None:
                return redirect(HOME, HTTPStatus.SEE_OTHER)
            return _form()
        entered = access.with_login(once, address_of(request, settings))
        if entered is None:
            return _form("This link was used already, or is too old. Ask for a new one.")
        # A page that goes on by itself, and no redirect: a browser sends no SameSite=Strict
        # cookie along with a redirect that another site's link began.
        return _entered(make_response(render_template("again.html", target=HOME)), *entered)

    @app.post("/login", endpoint="enter")
    def enter() -> Response:
        text = request.form.get("token", "").strip()
        entered = access.with_token(text, address_of(request, settings))
        if entered is None:
            return _form("No valid token is like that. It may have been revoked, or have expired.")
        target = our_path(request.form.get("next", ""))
        return _entered(redirect(target, HTTPStatus.SEE_OTHER), *entered)

    @app.post("/logout", endpoint="logout")
    def logout() -> Response:
        access.sessions.end(request.cookies.get(cookie_name(settings), ""))
        response = redirect("/login", HTTPStatus.SEE_OTHER)
        response.delete_cookie(
            cookie_name(settings), secure=settings.secure, httponly=True, samesite="Strict"
        )
        return response

    def _entered(response: Response, session_id: str, _session: Session) -> Response:
        # Whatever session the browser had is over: its id may be known to somebody.
        access.sessions.end(request.cookies.get(cookie_name(settings), ""))
        response.set_cookie(
            cookie_name(settings),
            session_id,
            secure=settings.secure,
            httponly=True,
            samesite="Strict",
        )
        return response


def ask_who(asked: Request) -> Response:
    """Answer somebody whom we do not know: programs are told, browsers are sent to log in."""
    wants_page = asked.method in {"GET", "HEAD"} and not asked.path.startswith(
        ("/api/v", "/events", "/metrics")
    )
    if not wants_page:
        abort(
            HTTPStatus.UNAUTHORIZED,
            "say who you are with a token: 'Authorization: Bearer ew_...'; "
            "'edgewake token create' on its machine makes one",
        )
    here = asked.full_path.removesuffix("?")
    if asked.headers.get("Sec-Fetch-Site") == "cross-site":
        # The cookie stays at home when another site's link leads here; from our page it comes.
        return make_response(render_template("again.html", target=our_path(here)))
    aim = "" if here == HOME else f"?next={quote(here, safe='')}"
    return redirect(f"/login{aim}", HTTPStatus.SEE_OTHER)


def our_path(written: str) -> str:
    """Return a path of ours as it was written; the first page if it is anything else."""
    return written if OUR_PATH.fullmatch(written) else HOME


def _is_prefetch() -> bool:
    """Return whether a browser only looks ahead: a link that works once must not be used up."""
    return any("prefetch" in request.headers.get(name, "") for name in ("Sec-Purpose", "Purpose"))


def _form(error: str = "") -> Response:
    target = our_path(request.values.get("next", ""))
    response = make_response(render_template("login.html", error=error, next=target))
    if error:
        response.status_code = HTTPStatus.UNAUTHORIZED
    return response


def _refuse_flood(flood: Flood) -> Response:
    wait_s = math.ceil(flood.wait_s)
    response = make_response(
        render_template("login.html", error=f"Too many failed logins. Wait {wait_s} s.", next=HOME),
        HTTPStatus.TOO_MANY_REQUESTS,
    )
    response.headers["Retry-After"] = str(wait_s)
    return response

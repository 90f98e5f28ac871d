"""`edgewake token` and `edgewake dashboard`: who may come in, and the way there."""

# ruff: noqa: PLC0415 - as in orchestrator.cli: what a command needs is imported by it

import getpass
import json
import os
import re
import time
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from orchestrator import display
from orchestrator.errors import EdgewakeError
from orchestrator.state_dir import PRIVATE_MODE, TOP_MODE
from web.roles import Role

if TYPE_CHECKING:
    from web.door.tokens import Token, Tokens

Json = Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")]

DAY_S = 86400.0
UNITS_S = {"min": 60.0, "h": 3600.0, "d": DAY_S, "w": 7 * DAY_S}
NEVER = "never"
NO_NAME = re.compile(r"[^A-Za-z0-9._@-]")

token_app = typer.Typer(
    name="token",
    help="Say who may use the dashboard, and the API over TCP. Works without a running edgewake.",
    no_args_is_help=True,
    rich_markup_mode=None,
)


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command(epilog="Example: edgewake dashboard --open")(dashboard)
    app.add_typer(token_app)


def dashboard(
    ctx: typer.Context,
    open_it: Annotated[bool, typer.Option("--open", help="Open it in a browser.")] = False,
    role: Annotated[
        Role, typer.Option(help="What whoever opens it may do.", case_sensitive=False)
    ] = Role.ADMIN,
    as_json: Json = False,
) -> None:
    """Print a link to the dashboard that logs in whoever opens it: once, within five minutes."""
    from web.client import Client

    Client(ctx.obj.socket).get("/healthz")  # says so if none runs
    try:
        place = json.loads(ctx.obj.door.read_text())["url"]
    except (OSError, ValueError, KeyError):
        raise EdgewakeError(
            "this edgewake has no dashboard",
            hint="'web: {listen: ...}' in the lab file says where; its default, 127.0.0.1:8480, "
            "may have been taken when edgewake started",
        ) from None
    name = NO_NAME.sub("-", getpass.getuser()).lstrip("-._@")[:64] or "local"
    link = f"{place}/login?once={_tokens(ctx).once(name, role)}"
    if as_json:
        display.print_json({"url": place, "login": link})
    else:
        typer.echo(link)
    if open_it:
        typer.launch(page_to(link, ctx.obj.login).as_uri())


def page_to(link: str, page: Path) -> Path:
    """Write a page that leads to a link, and return it: only its owner may read it.

    A browser's arguments are there for everybody on this machine to see; who is faster than the
    browser would be logged in.
    """
    page.unlink(missing_ok=True)
    descriptor = os.open(page, os.O_WRONLY | os.O_CREAT | os.O_EXCL, PRIVATE_MODE)
    with os.fdopen(descriptor, "w") as file:
        file.write(
            "<!doctype html><title>edgewake</title>"
            f'<meta http-equiv="refresh" content="0;url={escape(link)}">\n'
        )
    return page


@token_app.command("create", epilog="Example: edgewake token create --role operator --expires 30d")
def create(
    ctx: typer.Context,
    role: Annotated[Role, typer.Option(help="What one may do with it.", case_sensitive=False)],
    name: Annotated[
        str | None, typer.Option(help="Who or what it is for; shown in the audit log.")
    ] = None,
    expires: Annotated[
        str, typer.Option(metavar="TIME", help="How long it is valid: 12h, 30d, 52w or never.")
    ] = "90d",
    as_json: Json = False,
) -> None:
    """Make a token, and print it: it is shown only this once.

    A viewer may look, an operator also do things to what runs, an admin also change the lab and
    the tokens.
    """
    token, text = _tokens(ctx).create(name or str(role), role, lasts_s=lasts(expires))
    if as_json:
        display.print_json({**_document(token), "token": text})
        return
    typer.echo(text)
    until = "for ever" if token.expires_at is None else f"until {_when(token.expires_at)}"
    typer.echo(
        f"token {token.id}, {token.name}: {role}, {until}. Keep it; it is not shown again.",
        err=True,
    )


@token_app.command("list", epilog="Example: edgewake token list")
def list_tokens(ctx: typer.Context, as_json: Json = False) -> None:
    """List the tokens, also those that ended in the last months."""
    found = [_document(token) for token in _tokens(ctx).list()]
    if as_json:
        display.print_json({"tokens": found})
        return
    if not found:
        typer.echo("no tokens; make one with 'edgewake token create --role operator'")
    for each in found:
        expires = each["expires_at"]
        used = each["used_at"]
        typer.echo(
            f"{each['id']}  {each['state']:8}{each['role']:10}{each['name']:24}"
            f"{'until ' + _when(expires) if expires else 'for ever':24}"
            f"{'last used ' + _when(used) if used else 'never used'}".rstrip()
        )


@token_app.command("revoke", epilog="Example: edgewake token revoke 3f9a01c2")
def revoke(
    ctx: typer.Context,
    token_id: Annotated[str, typer.Argument(metavar="ID", help="As `edgewake token list` says.")],
    as_json: Json = False,
) -> None:
    """End a token, and the sessions that began with it."""
    token = _tokens(ctx).revoke(token_id)
    if token is None:
        raise EdgewakeError(f"there is no token {token_id!r}", hint="see 'edgewake token list'")
    if as_json:
        display.print_json(_document(token))
    else:
        typer.echo(f"token {token.id}, {token.name}: revoked")


def lasts(written: str) -> float | None:
    """Return a duration such as ``30d`` in seconds; None for ``never``."""
    if written == NEVER:
        return None
    matched = re.fullmatch(r"([0-9]{1,5}) ?(min|h|d|w)", written)
    if matched is None or not int(matched[1]):
        raise typer.BadParameter(f"--expires: write 12h, 30d, 52w or never, not {written!r}")
    return int(matched[1]) * UNITS_S[matched[2]]


def _tokens(ctx: typer.Context) -> "Tokens":
    from web.door.tokens import Tokens

    ctx.obj.path.mkdir(mode=TOP_MODE, parents=True, exist_ok=True)
    return Tokens(ctx.obj.tokens)


def _document(token: "Token") -> dict[str, Any]:
    return {
        "id": token.id,
        "name": token.name,
        "role": str(token.role),
        "state": token.state(time.time()),
        "created_at": token.created_at,
        "expires_at": token.expires_at,
        "revoked_at": token.revoked_at,
        "used_at": token.used_at,
    }


def _when(at: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M", time.localtime(at))

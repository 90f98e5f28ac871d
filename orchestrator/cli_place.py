"""Which edgewake commands ask: that of the state directory, or with ``--url`` another machine's."""

import os
from pathlib import Path

import typer

from orchestrator.errors import EdgewakeError
from web.client import Place
from web.remote import Remote

_KEY = "edgewake.remote"
TOKEN = "EDGEWAKE_TOKEN"  # noqa: S105 - the name of a variable


def remember(ctx: typer.Context, url: str, token_file: Path | None, ca: Path | None) -> None:
    """Have commands ask the edgewake at a URL, with a token of a file or of ``EDGEWAKE_TOKEN``."""
    token = os.environ.get(TOKEN, "")
    if token_file is not None:
        try:
            token = token_file.read_text()
        except (OSError, ValueError) as error:
            raise EdgewakeError(
                f"{token_file}: no token can be read there: {error}",
                hint="write there what 'edgewake token create' prints",
            ) from error
    ctx.meta[_KEY] = Remote.parse(url, token.strip(), ca)


def place_of(ctx: typer.Context) -> Place:
    """Return where the edgewake is that a command asks."""
    found: Place = ctx.meta.get(_KEY) or ctx.obj.socket
    return found

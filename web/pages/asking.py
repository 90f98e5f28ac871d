"""How pages ask for what a daemon may not know: an older one, or one without that feature."""

from http import HTTPStatus
from typing import Any
from urllib.parse import quote, urlencode

from web.client import ApiError
from web.pages.area import Upstream

ABSENT = frozenset({HTTPStatus.NOT_FOUND, HTTPStatus.METHOD_NOT_ALLOWED})


def get_or(upstream: Upstream, path: str, otherwise: Any) -> Any:
    """Return the document at a path, or `otherwise` if there is none; raises as `get` does."""
    try:
        return upstream.get(path)
    except ApiError as error:
        if error.status in ABSENT:
            return otherwise
        raise


def path(*parts: str, **query: str | int | None) -> str:
    """Return a path of the API from its parts, which may hold anything, and what is asked."""
    said = {key: value for key, value in query.items() if value not in {None, ""}}
    written = "".join(f"/{quote(part, safe='')}" for part in parts)
    return f"{written}?{urlencode(said)}" if said else written

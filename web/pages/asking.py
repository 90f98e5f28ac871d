"""Paths of the API, from parts that may hold anything."""

from urllib.parse import quote, urlencode


def path(*parts: str, **query: str | int | None) -> str:
    """Return a path of the API from its parts, and what is asked of it; what is empty is not."""
    said = {key: value for key, value in query.items() if value not in {None, ""}}
    written = "".join(f"/{quote(part, safe='')}" for part in parts)
    return f"{written}?{urlencode(said)}" if said else written

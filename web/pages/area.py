"""What an area of the dashboard is, and what it is made from."""

from dataclasses import dataclass
from typing import Any, Protocol
from urllib.parse import urlencode

from flask import Blueprint, request

from web.roles import Role

ROLES = tuple(str(role) for role in Role)  # each may do what those before it may


class Upstream(Protocol):
    """Answers with documents of the API, for whoever asks for the page: `web.client.Client` is one.

    Both raise `web.client.ApiError`, `web.client.NotRunning` or another `EdgewakeError`.
    """

    def get(self, path: str) -> Any:
        """Return the JSON document at a path below ``/api/v1``."""

    def text(self, path: str) -> str:
        """Return the plain text at a path."""


@dataclass(frozen=True, slots=True)
class Link:
    """A place in the navigation; only who has at least the role `least` is shown it."""

    path: str
    label: str
    least: str = "viewer"

    def current(self, path: str) -> bool:
        """Say whether a page at `path` belongs here."""
        return path == self.path or (self.path != "/" and path.startswith(f"{self.path}/"))


class Area(Protocol):
    """A module of pages."""

    @property
    def LINKS(self) -> tuple[Link, ...]:  # noqa: N802 - a module's constant
        """Its places in the navigation, in order."""

    def add(self, pages: Blueprint, upstream: Upstream) -> None:
        """Add its routes."""


def may(role: str | None, least: str) -> bool:
    """Say whether a role may do what needs at least another; nobody may do anything."""
    return role in ROLES and Role(role).covers(Role(least))


def query_with(name: str, value: object) -> str:
    """Return the query of the page that is asked for, with one parameter changed."""
    return "?" + urlencode([*_others(name), (name, value)])


def query_without(name: str) -> str:
    """Return the query of the page that is asked for, without a parameter; "" if none is left."""
    others = _others(name)
    return "?" + urlencode(others) if others else ""


def _others(name: str) -> list[tuple[str, str]]:
    return [pair for pair in request.args.items(multi=True) if pair[0] != name]

"""The pages of the dashboard."""

from typing import Any, Protocol

from flask import Blueprint, render_template


class Upstream(Protocol):
    """The API, as pages ask it."""

    def get(self, path: str) -> Any:
        """Return the JSON document at a path below ``/api/v1``."""

    def text(self, path: str) -> str:
        """Return the plain text at a path."""


def create_pages(upstream: Upstream) -> Blueprint:
    """Return the blueprint of all pages."""
    pages = Blueprint("pages", __name__)

    @pages.get("/")
    def topology() -> str:
        return render_template("topology.html", status=upstream.get("/status"))

    return pages

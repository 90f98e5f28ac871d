"""The REST API to read and to try: Swagger UI over the daemon's own OpenAPI document."""

from flask import Blueprint, render_template

from web.pages.area import Link, Upstream

LINKS = (Link("/api/docs", "API"),)


def add(pages: Blueprint, upstream: Upstream) -> None:  # noqa: ARG001 - the browser asks
    """Add the page."""

    @pages.get("/api/docs")
    def api_docs() -> str:
        return render_template("api_docs.html")

"""The dashboard: pages for people, rendered whole here and kept fresh in the browser.

`create_pages` makes the blueprint. Each area is a module with `LINKS`, what the navigation shows of
it, and `add`, which adds its routes; pages are made of API documents that an `Upstream` gives, and
never touch the orchestrator. Whoever serves the blueprint (`web.door`) lets people in and gives
every template `actor` (name, or none), `role`, `csrf` (token) and `lab` (name). Its application
must have no static folder of its own: ours is at ``/static``.
"""

from flask import Blueprint, render_template, request
from flask.blueprints import BlueprintSetupState
from jinja2 import StrictUndefined

from orchestrator.errors import EdgewakeError
from web.client import ApiError
from web.pages import (
    api_docs,
    dns,
    formats,
    hosts,
    journal,
    lab,
    measured,
    network,
    placement,
    services,
    tokens,
    topology,
    wakes,
)
from web.pages.area import Area, Link, Upstream, may, query_with, query_without

AREAS: tuple[Area, ...] = (  # in the order of the navigation
    topology,
    wakes,
    services,
    hosts,
    network,
    placement,
    dns,
    journal,
    measured,
    lab,
    tokens,
    api_docs,
)

__all__ = ["AREAS", "Area", "Link", "Upstream", "create_pages", "failure", "may"]


def create_pages(upstream: Upstream, areas: tuple[Area, ...] = AREAS) -> Blueprint:
    """Return the blueprint of all pages; `upstream` is asked once or more for each."""
    pages = Blueprint(
        "pages",
        __name__,
        template_folder="../templates",
        static_folder="../static",
        static_url_path="/static",
    )
    links = tuple(link for area in areas for link in area.LINKS)

    def set_up(state: BlueprintSetupState) -> None:
        environment = state.app.jinja_env
        environment.undefined = StrictUndefined  # a wrong name is an error, not a blank
        environment.trim_blocks = environment.lstrip_blocks = True
        environment.filters.update(formats.FILTERS)
        environment.globals.update(
            navigation=links, may=may, query_with=query_with, query_without=query_without
        )

    pages.record(set_up)
    for area in areas:
        area.add(pages, upstream)
    pages.register_error_handler(EdgewakeError, _refused)
    return pages


def failure(status: int, title: str, detail: str, hint: str = "") -> tuple[str, int]:
    """Return a page that says what went wrong, and what to do."""
    page = render_template("error.html", status=status, title=title, detail=detail, hint=hint)
    return page, status


def _refused(error: EdgewakeError) -> tuple[str, int]:
    if not isinstance(error, ApiError):
        return failure(503, "edgewake does not answer", error.message, error.hint)
    titles = {403: "Not allowed", 404: "Not here"}
    title = titles.get(error.status, f"{request.path} cannot be shown")
    return failure(error.status, title, error.message, error.hint)

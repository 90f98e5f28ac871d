"""The page of the lab file: as it is in use, what it was before, and a form to change it."""

from typing import Any

from flask import Blueprint, render_template

from web.client import ApiError
from web.pages.area import Link, Upstream
from web.pages.asking import path
from web.pages.text_diff import diff

LINKS = (Link("/lab", "Lab"),)
LISTED = 100  # versions
NOWHERE = "/etc/edgewake/lab.yaml"  # what a path looks like, where no lab has one yet


def add(pages: Blueprint, upstream: Upstream) -> None:
    """Add the page, and that of one version."""

    @pages.get("/lab")
    def lab() -> str:
        now = _in_use(upstream)
        kept = upstream.get(path("lab", "versions", limit=LISTED))["versions"]
        return render_template(
            "lab.html",
            now=now,
            versions=sorted(kept, key=lambda each: int(each["number"]), reverse=True),
            nowhere=NOWHERE,
        )

    @pages.get("/lab/versions/<int:number>")
    def lab_version(number: int) -> str:
        version = upstream.get(path("lab", "versions", str(number)))
        now = _in_use(upstream) or version
        return render_template(
            "lab_version.html",
            version=version,
            now=now,
            lines=diff(now["text"], version["text"]),
        )


def _in_use(upstream: Upstream) -> dict[str, Any] | None:
    """Return the lab that is in use; None if it was read from no file."""
    try:
        found: dict[str, Any] = upstream.get("/lab")
    except ApiError as error:
        if error.status == 404:
            return None
        raise
    return found

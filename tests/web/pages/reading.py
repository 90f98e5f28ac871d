"""Reads pages as a browser would, strictly, and asks an application for documents in process."""

import json
from dataclasses import dataclass, field
from html.parser import HTMLParser
from typing import Any

from flask import Flask
from flask.testing import FlaskClient

from orchestrator.errors import EdgewakeError
from web.client import ApiError
from web.pages import AREAS, Area, create_pages
from web.pages.area import Upstream

VOID = {"br", "hr", "img", "input", "link", "meta", "col", "wbr", "source"}
HOSTILE = "<script>alert(1)</script>'\"&{{7*7}}"  # a name that nobody should have
DATA_BLOCK = "application/json"


@dataclass
class Page(HTMLParser):
    """A page's elements and text; `faults` says what no page of ours may have."""

    html: str
    faults: list[str] = field(default_factory=list)
    ids: set[str] = field(default_factory=set)
    tags: list[tuple[str, dict[str, str]]] = field(default_factory=list)
    text: str = ""
    _open: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.feed(self.html)
        self.close()
        self.faults += [f"<{tag}> is not closed" for tag in self._open]
        self.text = " ".join(self.text.split())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = {name: value or "" for name, value in attrs}
        self.tags.append((tag, values))
        if len(values) != len(attrs):
            self.faults.append(f"<{tag}> has an attribute twice: {attrs}")
        if tag not in VOID:
            self._open.append(tag)
        self.faults += [
            f"<{tag} {name}>: forbidden by our policy" for name in values if _forbidden(name)
        ]
        if tag == "style" or (
            tag == "script" and not values.get("src") and values.get("type") != DATA_BLOCK
        ):
            self.faults.append(f"<{tag}> within the page: forbidden by our policy")
        if (name := values.get("id")) is not None:
            if not name or name in self.ids:
                self.faults.append(f"id {name!r} is empty or there twice")
            self.ids.add(name)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self._open.pop()

    def handle_endtag(self, tag: str) -> None:
        if not self._open or self._open[-1] != tag:
            self.faults.append(f"</{tag}> closes {self._open[-1:]}, line {self.getpos()[0]}")
        else:
            self._open.pop()

    def handle_data(self, data: str) -> None:
        if self._open[-1:] != ["script"]:
            self.text += f" {data}"

    def all(self, tag: str, **wanted: str) -> list[dict[str, str]]:
        """Return the attributes of all such elements; `class_`, `data_x`: class, data-x."""
        asked = {name.rstrip("_").replace("_", "-"): value for name, value in wanted.items()}
        return [
            attributes
            for name, attributes in self.tags
            if name == tag and asked.items() <= attributes.items()
        ]


def _forbidden(attribute: str) -> bool:
    return attribute == "style" or attribute.startswith("on")


class Through:
    """An upstream that asks an application in this process; `answers` come before it, by path."""

    def __init__(self, http: FlaskClient) -> None:
        self.http = http
        self.answers: dict[str, Any] = {}

    def get(self, path: str) -> Any:
        if (answer := self.answers.get(path)) is not None:
            if isinstance(answer, EdgewakeError):
                raise answer
            return json.loads(json.dumps(answer))
        return json.loads(self.text(path))

    def text(self, path: str) -> str:
        if isinstance(answer := self.answers.get(path), str):
            return answer
        response = self.http.get(f"/api/v1{path}")
        if response.status_code >= 400:
            raise ApiError(response.status_code, response.get_json())
        return response.get_data(as_text=True)


def door(
    upstream: Upstream, *, role: str | None = "admin", areas: tuple[Area, ...] = AREAS
) -> FlaskClient:
    """Return a client of an application that has the pages and lets everybody in."""
    app = Flask("door", static_folder=None)
    app.testing = True
    app.register_blueprint(create_pages(upstream, areas))

    @app.context_processor
    def who() -> dict[str, Any]:
        return {"actor": "ada" if role else None, "role": role, "csrf": "c5f", "lab": "t"}

    return app.test_client()


def look(client: FlaskClient, path: str, status: int = 200) -> Page:
    """Return the page at a path, which must be sound."""
    response = client.get(path)
    page = Page(response.get_data(as_text=True))
    assert response.status_code == status, page.text
    assert response.mimetype == "text/html"
    assert not page.faults, "\n".join(page.faults)
    return page

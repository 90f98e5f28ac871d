"""What all pages have in common: the frame, formats, roles, and what our policy forbids."""

import re
from pathlib import Path
from types import SimpleNamespace

import pytest
from flask import Blueprint, render_template, render_template_string

from orchestrator.errors import EdgewakeError
from tests.web.pages.reading import HOSTILE, Page, Through, door, look
from web.client import ApiError, NotRunning
from web.pages import Link, Upstream, formats, may

WEB = Path(__file__).parents[3] / "web"

PARTS = """{% extends "base.html" %}{% import "_parts.html" as parts with context %}
{% block title %}{{ name }}{% endblock %}{% block content %}
{% call parts.head(name, name) %}
{{ parts.action("Drain", "POST", "/hosts/" ~ name ~ "/drain", body={"force": name},
  confirm="Drain " ~ name ~ "?", done=name, undo=("DELETE", "/x"), id="drain") }}{% endcall %}
{{ parts.state("asleep") }}{{ parts.bar(1.5, name) }}{{ parts.figure(name, 5, name) }}
{% call parts.empty("Nothing", name) %}<pre>{{ name }}</pre>{% endcall %}{{ parts.empty("A", "b") }}
{% call parts.table(name) %}<thead><tr><th>{{ name }}</th></tr></thead>{% endcall %}
{{ parts.pager("c2", first=false) }}{{ 0.0421 | seconds }} {{ 1790000000.5 | when }}
{% endblock %}"""


def _area(name: str = "", **routes: object) -> SimpleNamespace:
    def add(pages: Blueprint, upstream: Upstream) -> None:
        @pages.get("/parts")
        def parts() -> str:
            return render_template_string(PARTS, name=name)

        @pages.get("/login")
        def login() -> str:
            return render_template("login.html", error=name, next="/wakes")

        @pages.get("/asks")
        def asks() -> str:
            return str(upstream.get("/it"))

    links = (Link("/", "Topology"), Link("/parts", "Parts"), Link("/tokens", "Tokens", "admin"))
    return SimpleNamespace(LINKS=links, add=add)


def _door(upstream: Through, role: str | None = "admin", name: str = HOSTILE):  # type: ignore[no-untyped-def]
    return door(upstream, role=role, areas=(_area(name),))


def test_a_page_escapes_names_and_keeps_the_policy(upstream: Through) -> None:
    page = look(_door(upstream), "/parts?service=a&after=b")
    assert page.text.count(HOSTILE) >= 6
    (drain,) = page.all("button", id="drain")
    assert drain["data-path"] == f"/hosts/{HOSTILE}/drain"
    assert drain["data-body"]
    assert "disabled" not in drain
    assert page.all("a", rel="next")[0]["href"] == "/parts?service=a&after=c2"
    assert "42.1 ms" in page.text


def test_the_navigation_marks_where_one_is_and_hides_what_one_may_not(upstream: Through) -> None:
    page = look(_door(upstream, role="operator"), "/parts")
    assert page.all("a", href="/parts", aria_current="page")
    assert not page.all("a", href="/tokens")
    assert look(_door(upstream), "/parts").all("a", href="/tokens")


def test_a_viewer_is_told_why_a_button_is_not_for_them(upstream: Through) -> None:
    (drain,) = look(_door(upstream, role="viewer"), "/parts").all("button", id="drain")
    assert "disabled" in drain
    assert "operator" in drain["title"]


@pytest.mark.parametrize("name", ["", HOSTILE])
def test_who_is_not_in_yet_sees_no_more_than_a_form(upstream: Through, name: str) -> None:
    page = look(_door(upstream, role=None, name=name), "/login")
    assert page.all("input", name="next", value="/wakes")
    assert page.all("input", name="csrf", value="c5f")
    assert not page.all("nav")


@pytest.mark.parametrize(
    ("error", "status", "says"),
    [
        (
            ApiError(404, {"detail": "no such host", "hint": "look at /hosts"}),
            404,
            "look at /hosts",
        ),
        (ApiError(403, {"detail": "needs admin"}), 403, "needs admin"),
        (NotRunning(Path("/run/e/s")), 503, "edgewake up"),
        (EdgewakeError("no answer"), 503, "no answer"),
    ],
)
def test_what_the_api_refuses_is_said_in_words(
    upstream: Through, error: EdgewakeError, status: int, says: str
) -> None:
    upstream.answers["/it"] = error
    assert says in look(_door(upstream), "/asks", status).text


def test_static_files_are_served(upstream: Through) -> None:
    page = look(_door(upstream), "/parts")
    files = [tag["src"] for tag in page.all("script")]
    files += [tag["href"] for tag in page.all("link")]
    for file in files:
        with _door(upstream).get(file) as response:
            assert response.status_code == 200, file


@pytest.mark.parametrize(
    ("written", "said"),
    [
        (formats.seconds(None), formats.NOTHING),
        (formats.seconds(0.00042), "0.42 ms"),
        (formats.seconds(0.0234), "23.4 ms"),
        (formats.seconds(4.25), "4.25 s"),
        (formats.seconds(200), "3 min 20 s"),
        (formats.seconds(60), "1 min"),
        (formats.seconds(5 * 3600 + 720), "5 h 12 min"),
        (formats.seconds(3 * 86400 + 4 * 3600), "3 d 4 h"),
        (formats.milliseconds(6), "6 ms"),
        (formats.size(0), "0 B"),
        (formats.size(7.2 * 1024**2), "7.2 MiB"),
        (formats.mib(3300), "3.22 GiB"),
        (formats.count(12345), "12\u202f345"),
        (formats.percent(0.004), "0.4 %"),
        (formats.percent(1e-14), "0 %"),
        (formats.percent(1), "100 %"),
    ],
)
def test_amounts_read_as_people_write_them(written: str, said: str) -> None:
    assert written == said


def test_roles_include_those_below() -> None:
    assert may("admin", "operator")
    assert not may("viewer", "operator")
    assert not may(None, "viewer")
    assert not may("root", "viewer")


# --- files ----------------------------------------------------------------------------------------

TEMPLATES = sorted((WEB / "templates").glob("*.html"))
SCRIPTS = sorted((WEB / "static" / "js").glob("*.js"))


@pytest.mark.parametrize("file", TEMPLATES, ids=lambda file: file.name)
def test_templates_have_nothing_inline(file: Path) -> None:
    text = file.read_text()
    assert not re.search(r"\sstyle\s*=|\son[a-z]+\s*=|<style|javascript:|https?://", text)
    assert "| safe" not in text
    assert "|safe" not in text


@pytest.mark.parametrize("file", SCRIPTS, ids=lambda file: file.name)
def test_scripts_never_read_text_as_html_and_load_nothing_from_elsewhere(file: Path) -> None:
    text = file.read_text()
    assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|eval\(", text)
    assert not re.search(r"https?://(?!www\.w3\.org/)", text)
    for imported in re.findall(r'from "(\.[^"]+)"', text):
        assert (file.parent / imported).is_file(), imported


def test_vendored_libraries_have_their_licences() -> None:
    for folder in (WEB / "static" / "vendor").iterdir():
        assert list(folder.glob("LICENSE*")), folder
        assert (folder / "VERSION").is_file(), folder


def test_the_reader_of_pages_sees_what_is_wrong() -> None:
    """Guards the guard."""
    bad = '<p id="a"><b></p><i onclick="x" style="y"></i><script>1</script><p id="a"></p>'
    assert len(Page(bad).faults) >= 5


def test_a_time_says_where_how_long_ago_it_was_belongs() -> None:
    told = formats.since(1790000000.5)
    assert 'data-at="1790000000.500"' in told
    assert '<span class="muted" data-ago="1790000000.500"></span>' in told
    assert formats.since(None) == formats.NOTHING

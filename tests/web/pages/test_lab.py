"""The page of the lab file and its versions."""

import pytest
from flask.testing import FlaskClient

from tests.web.pages.reading import HOSTILE, Through, door, look
from web.client import ApiError

NOW = {
    "number": 5,
    "at": 1790000000.0,
    "actor": HOSTILE,
    "path": f"/labs/{HOSTILE}",
    "sha256": "5" * 64,
    "text": f"\nname: t\n# </textarea>{HOSTILE}\n",
}
OLD = {**NOW, "number": 4, "text": f"\nname: u\n# </textarea>{HOSTILE}\n"}


@pytest.fixture
def labs(upstream: Through) -> Through:
    upstream.answers |= {
        "/lab": NOW,
        "/lab/versions?limit=100": {"versions": [NOW, OLD], "next": None},
        "/lab/versions/4": OLD,
        "/lab/versions/5": NOW,
    }
    return upstream


def test_an_admin_can_change_the_lab(dashboard: FlaskClient, labs: Through) -> None:
    page = look(dashboard, "/lab")
    assert page.all("form", id="lab", data_number="5")
    assert f"# </textarea>{HOSTILE}" in page.text
    assert page.html.count("</textarea>") == 1
    assert ">\n\nname: t" in page.html  # browsers leave out the first line feed of a textarea
    (back,) = page.all("button", id="rollback-4")
    assert back["data-undo-body"] == '{"version": 5}'
    assert not page.all("button", id="rollback-5")


@pytest.mark.parametrize("role", ["viewer", "operator"])
def test_others_can_read_it(labs: Through, role: str) -> None:
    page = look(door(labs, role=role), "/lab")
    assert not page.all("form", id="lab")
    assert "name: t" in page.text
    assert "disabled" in page.all("button", id="rollback-4")[0]


def test_no_lab_file_says_what_to_do(dashboard: FlaskClient, upstream: Through) -> None:
    upstream.answers["/lab"] = ApiError(404, {"detail": "the lab in use was read from no file"})
    upstream.answers["/lab/versions?limit=100"] = {"versions": [], "next": None}
    page = look(dashboard, "/lab")
    assert "edgewake apply LAB.yaml" in page.text
    assert page.all("form", id="lab", data_number="0")


def test_a_version_says_how_it_differs(dashboard: FlaskClient, labs: Through) -> None:
    page = look(dashboard, "/lab/versions/4")
    assert page.all("tr", class_="removed")
    assert page.all("tr", class_="added")
    assert page.all("button", id="rollback", data_path="/lab/rollback")
    same = look(dashboard, "/lab/versions/5")
    assert not same.all("tr", class_="added")
    assert not same.all("button", id="rollback")


def test_a_version_that_never_was_is_a_page_that_says_so(
    dashboard: FlaskClient, labs: Through
) -> None:
    labs.answers["/lab/versions/9"] = ApiError(404, {"detail": "9: no such version of the lab"})
    assert "no such version" in look(dashboard, "/lab/versions/9", 404).text

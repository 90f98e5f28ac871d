"""The documentation says only what is there: its links lead somewhere, its commands exist."""

import re
import subprocess
from pathlib import Path

import pytest

from orchestrator.cli import app
from orchestrator.labfile import parse_lab

ROOT = Path(__file__).parents[1]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
HEADING = re.compile(r"^#+ +(.*?) *$", re.MULTILINE)
MAKE = re.compile(r"(?:`|^ {4}|^)make ([a-z]+)", re.MULTILINE)
TARGET = re.compile(r"^([a-z]+):", re.MULTILINE)

page = pytest.mark.parametrize("page", PAGES, ids=lambda file: str(file.relative_to(ROOT)))


def _broken_links(page: Path) -> list[str]:
    return [link for link in LINK.findall(page.read_text()) if not _leads_somewhere(page, link)]


def _leads_somewhere(page: Path, link: str) -> bool:
    if "://" in link or link.startswith("mailto:"):
        return True  # other people's pages are theirs to keep
    path, _, anchor = link.partition("#")
    target = page.parent / path if path else page
    if not target.exists():
        return False
    return not anchor or anchor in _anchors(target)


def _anchors(page: Path) -> set[str]:
    """Return the anchors that GitHub and GitLab give to a page's headings."""
    headings = HEADING.findall(page.read_text())
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def _unknown_jobs(text: str) -> set[str]:
    return set(MAKE.findall(text)) - set(TARGET.findall((ROOT / "Makefile").read_text()))


def test_there_are_pages() -> None:
    assert {"README.md", "CHANGELOG.md"} <= {each.name for each in PAGES}


@page
def test_links_lead_somewhere(page: Path) -> None:
    assert _broken_links(page) == []


@page
def test_make_jobs_that_are_named_exist(page: Path) -> None:
    assert _unknown_jobs(page.read_text()) == set()


def test_make_help_lists_every_job() -> None:
    told = subprocess.run(
        ["make", "-s", "-C", str(ROOT), "help"], capture_output=True, text=True, check=True
    ).stdout
    jobs = set(TARGET.findall((ROOT / "Makefile").read_text()))
    assert {line.split()[0] for line in told.splitlines()} == jobs


@pytest.mark.parametrize(
    ("state", "folder"), [(None, "/var/lib/edgewake/images"), ("/srv/mine", "/srv/mine/images")]
)
def test_make_image_builds_where_edgewake_looks(
    monkeypatch: pytest.MonkeyPatch, state: str | None, folder: str
) -> None:
    monkeypatch.delenv("IMAGES", raising=False)
    monkeypatch.delenv("EDGEWAKE_STATE", raising=False)
    if state:
        monkeypatch.setenv("EDGEWAKE_STATE", state)
    told = subprocess.run(
        ["make", "-n", "-C", str(ROOT), "image"], capture_output=True, text=True, check=True
    ).stdout
    assert f"-m images.build {folder}\n" in told


def test_the_checks_find_what_is_wrong(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("# A `b` c\n[ok](#a-b-c) [no](#d) [no](gone.md) [ok](https://x.example/)\n")
    assert _broken_links(page) == ["#d", "gone.md"]
    assert _unknown_jobs("run `make test`, then:\n\n    make coffee\n") == {"coffee"}


def _labs_in(page: Path) -> list[str]:
    blocks = re.findall(r"^```yaml\n(.*?)^```", page.read_text(), re.MULTILINE | re.DOTALL)
    return [block for block in blocks if re.search(r"^zone:", block, re.MULTILINE)]


def test_the_first_lab_of_the_readme_is_a_lab() -> None:
    (text,) = _labs_in(ROOT / "README.md")
    lab = parse_lab(text, Path("first.yaml"))
    asked = re.search(r"dig @(\S+) -p (\d+) (\S+)", (ROOT / "README.md").read_text())
    assert asked
    assert asked.groups() == (lab.dns.listen, str(lab.dns.port), lab.services[0].names[0])


@page
def test_commands_that_are_named_exist(page: Path) -> None:
    pattern = r"(?:`|^ {4}|\.venv/bin/)edgewake (?!is up:)(?:--\S+ \S+ )?([a-z]+)"
    named = re.findall(pattern, page.read_text(), re.MULTILINE)
    commands = {command.callback.__name__ for command in app.registered_commands}
    assert set(named) <= commands | {
        group.typer_instance.info.name for group in app.registered_groups
    }

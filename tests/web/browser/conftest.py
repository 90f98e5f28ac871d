"""A real browser (Debian's Chromium, driven by Playwright) before a small edge cloud in memory."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from playwright.sync_api import (
    Browser,
    ConsoleMessage,
    Page,
    Response,
    ViewportSize,
    expect,
    sync_playwright,
)

from tests.web.play import Played, playing

# Root may not use the sandbox, and nothing of the browser's own may look for the internet.
FLAGS = (
    *(["--no-sandbox"] if os.geteuid() == 0 else []),
    *("--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking"),
    *("--disable-component-update", "--disable-sync"),
)
PATIENCE_MS = 30_000.0  # guests boot beside us on few cores
DESK = ViewportSize(width=1440, height=900)
PHONE = ViewportSize(width=390, height=844)

expect.set_options(timeout=PATIENCE_MS)


@contextmanager
def chromium() -> Iterator[Browser]:
    """Run Chromium; say what to do where there is none."""
    path = shutil.which("chromium")
    assert path, "chromium is missing: run 'make setup', or apt-get install chromium"
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=list(FLAGS))
        yield browser
        browser.close()


@contextmanager
def person(
    browser: Browser,
    site: str,
    token: str,
    *,
    size: ViewportSize = DESK,
    dark: bool = False,
    goes: str = "",
) -> Iterator[Page]:
    """Open a page and log in with a token; what the browser complains of fails the test.

    `goes` is the path of a page that may not be there any more when its scripts ask for it.
    """
    with browser.new_context(
        base_url=site,
        viewport=size,
        color_scheme="dark" if dark else "light",
        reduced_motion="reduce",
    ) as context:
        context.set_default_timeout(PATIENCE_MS)
        page = context.new_page()
        said: list[str] = []
        page.on("pageerror", lambda error: said.append(str(error)))
        page.on("console", lambda line: said.append(line.text) if _is_complaint(line) else None)
        may_go = f"{site}{goes}" if goes else None
        page.on(
            "response",
            lambda answer: (
                said.append(answer.url) if _is_missing(answer) and answer.url != may_go else None
            ),
        )
        page.goto("/login")
        page.get_by_label("Token").fill(token)
        page.get_by_role("button", name="Log in").click()
        expect(page.get_by_role("button", name="Log out")).to_be_visible()
        yield page
        assert said == [], said


def _is_complaint(line: ConsoleMessage) -> bool:
    """Return whether a line is about the page, and not the echo of an answer's status."""
    return line.type == "error" and not line.text.startswith("Failed to load resource")


def _is_missing(answer: Response) -> bool:
    """Return whether a part of a page was not there; a page itself may be."""
    return answer.status == 404 and not answer.request.is_navigation_request()


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    with chromium() as browser:
        yield browser


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Played]:
    with playing(Path(tmp_path_factory.mktemp("site"))) as played:
        yield played


@pytest.fixture
def admin(browser: Browser, site: Played) -> Iterator[Page]:
    with person(browser, site.url, site.tokens["admin"]) as page:
        yield page

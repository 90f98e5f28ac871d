"""Every page for everybody: axe finds nothing, on a phone and at a desk, light and dark."""

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page, ViewportSize, expect

from tests.web.browser.conftest import DESK, PHONE, person
from tests.web.play import Played

PAGES = (
    *("/", "/wakes", "/wakes/1", "/services", "/services/shop", "/services/archive", "/hosts"),
    *("/hosts/attic", "/network", "/placement", "/placement/warm", "/dns", "/journal", "/measured"),
    *("/tokens", "/lab", "/lab/versions/1", "/api/docs", "/services/nobody"),
)

SMALL_PHONE = ViewportSize(width=360, height=740)

# What is wider than it may be, with all there is to unfold: the page, what holds tables, by name.
WIDE = """() => {
  for (const each of document.querySelectorAll("details")) each.open = true;
  return [document.documentElement, ...document.querySelectorAll(".table-scroll")]
    .filter((each) => each.scrollWidth > each.clientWidth)
    .map((each) => `${each.getAttribute("aria-label") ?? "all"}: ${each.scrollWidth} px`);
}"""


def _axe(page: Page) -> list[str]:
    """Return what axe finds, one line each."""
    found = Axe().run(page)
    return [
        f"{each['id']}: {each['help']}: {[node['target'] for node in each['nodes']][:5]}"
        for each in found.response["violations"]
    ]


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("size", [DESK, PHONE], ids=["desk", "phone"])
def test_axe_finds_nothing(browser: Browser, site: Played, size: ViewportSize, dark: bool) -> None:
    found: dict[str, list[str]] = {}
    with person(browser, site.url, site.tokens["admin"], size=size, dark=dark) as page:
        for path in PAGES:
            page.goto(path)
            expect(page.get_by_role("heading", level=1)).to_be_visible()
            if complaints := _axe(page):
                found[path] = complaints
    assert found == {}


def test_axe_finds_nothing_where_one_logs_in(browser: Browser, site: Played) -> None:
    with browser.new_page(base_url=site.url) as page:
        page.goto("/login")
        assert _axe(page) == []


def test_no_page_is_wider_than_a_small_phone(browser: Browser, site: Played) -> None:
    """Nor scrolls any of its tables sideways."""
    wide: dict[str, list[str]] = {}
    with person(browser, site.url, site.tokens["admin"], size=SMALL_PHONE) as page:
        for path in PAGES:
            page.goto(path)
            expect(page.get_by_role("heading", level=1)).to_be_visible()
            if found := page.evaluate(WIDE):
                wide[path] = found
    assert wide == {}


def test_the_keyboard_is_enough(admin: Page) -> None:
    """Skip link, a service's page, and its sleep button with its question, by keys alone."""
    admin.goto("/services")
    admin.keyboard.press("Tab")
    expect(admin.locator(":focus")).to_have_text("Skip to content")
    admin.keyboard.press("Enter")
    admin.get_by_role("link", name="mail", exact=True).first.focus()
    admin.keyboard.press("Enter")
    expect(admin.get_by_role("heading", level=1)).to_have_text("mail")
    expect(admin.get_by_text("live", exact=True)).to_be_visible()  # its scripts are there
    admin.get_by_role("button", name="Cold").focus()
    admin.keyboard.press("Enter")
    question = admin.get_by_role("dialog")
    expect(question).to_be_visible()
    admin.keyboard.press("Escape")
    expect(question).to_be_hidden()
    expect(admin.get_by_role("button", name="Cold")).to_be_focused()

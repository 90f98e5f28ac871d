"""A service that is deleted while somebody looks at its page."""

from pathlib import Path

from playwright.sync_api import Browser, Page, Request, expect

from tests.web.browser.conftest import person
from tests.web.play import Played
from web.client import Client

WIKI, TILES = "/services/wiki", "/services/tiles"


def _asked(page: Page, path: str) -> list[Request]:
    """Return the list of what the page asks of a path from now on."""
    requests: list[Request] = []
    page.on("request", lambda each: requests.append(each) if each.url.endswith(path) else None)
    return requests


def test_a_page_says_that_its_service_is_gone(browser: Browser, site: Played) -> None:
    """Its console is not asked for any more; when the service is back, so is the page."""
    client = Client(Path(site.socket))
    with person(browser, site.url, site.tokens["viewer"], goes=WIKI) as page:
        page.clock.install()
        page.goto(WIKI)
        expect(page.get_by_text("live", exact=True)).to_be_visible()
        page.route(f"**{WIKI}/console", lambda route: route.fulfill(body="", status=200))
        undo = client.delete(WIKI)["undo"]
        said = page.get_by_test_id("changed")
        expect(said).to_contain_text("wiki is gone")
        expect(said.get_by_role("button", name="Undo")).to_be_hidden()
        asked = _asked(page, "/console")
        page.clock.run_for(10_000)
        assert asked == []
        client.post("/lab/rollback", {"version": undo})
        expect(said).to_be_hidden()
        expect(page.get_by_test_id("follow")).to_be_enabled()


def test_who_deletes_a_service_may_undo_it(browser: Browser, site: Played) -> None:
    with person(browser, site.url, site.tokens["admin"], goes=TILES) as page:
        page.goto(TILES)
        page.get_by_test_id("delete").click()
        page.get_by_role("dialog").get_by_role("button", name="Delete").click()
        said = page.get_by_test_id("changed")
        expect(said).to_contain_text("tiles is deleted")
        expect(page.get_by_test_id("rollback")).to_be_disabled()
        said.get_by_role("button", name="Undo").click()
        expect(said).to_be_hidden()
        expect(page.get_by_role("heading", level=1)).to_have_text("tiles")

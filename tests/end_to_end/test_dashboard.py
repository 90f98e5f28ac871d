"""What a person does at the dashboard, with a real browser, a real edgewake and real guests."""

import subprocess
import sys
import threading
from collections.abc import Callable, Iterator

import pytest
from playwright.sync_api import Browser, Page, expect

from tests.end_to_end.conftest import Edgewake, domains
from tests.web.browser.conftest import PATIENCE_MS, chromium

pytestmark = [pytest.mark.real, pytest.mark.timeout(480)]

WEB = "127.0.0.1:5480"
SERVICES = """
  web: {config: {greeting: "hello from a test"}, idle: never}
  other: {idle: never}
  strays: {idle: never}
  whale: {resources: {cpu: 0.25, memory: 1150 MiB}}
"""
HOSTS = """
hosts:
  attic:
    uri: qemu:///system
    router: r2
    capacity: {cpu: 8, memory: 400 MiB}
    network:
      name: edgewake-e2e-attic
      subnet: 10.213.78.0/24
      gateway: 10.213.78.1
      pool: 10.213.78.10-10.213.78.60
      create: true
      bridge: ewe2e1
  box:
    router: r1
"""
PLACES = """
routers: {r1: {}, r2: {}}
links: [{between: [r1, r2], latency: 20 ms, bandwidth: 1 Gbit/s}]
clients:
  by-the-box: {subnets: [192.0.2.0/24], router: r1, rate: 1/s}
  in-the-attic: {subnets: [198.51.100.0/24], router: r2, rate: 9/s}
"""
GUEST_MS = 3 * PATIENCE_MS  # a Linux guest boots in 2 s on a quiet machine


@pytest.fixture(scope="module")
def edgewake(make_edgewake: Callable[..., Edgewake]) -> Edgewake:
    edgewake = make_edgewake(SERVICES, port=5399, start=False)
    lab = edgewake.lab.read_text().replace("\nhosts:\n  box:\n", HOSTS)
    edgewake.lab.write_text(f"{lab}\nweb: {{listen: '{WEB}'}}\n{PLACES}")
    assert edgewake.start()["web"] == f"http://{WEB}"
    return edgewake


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as browser:
        yield browser


@pytest.fixture(scope="module")
def page(edgewake: Edgewake, browser: Browser) -> Page:
    """Log in as a person does: by the link that `edgewake dashboard` prints."""
    command = [sys.executable, "-m", "orchestrator", "--state", str(edgewake.folder), "dashboard"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    link = next(word for word in done.stdout.split() if word.startswith(f"http://{WEB}/"))
    page = browser.new_context(base_url=f"http://{WEB}").new_page()
    page.set_default_timeout(PATIENCE_MS)
    page.goto(link)
    expect(page.get_by_role("button", name="Log out")).to_be_visible()
    stranger = browser.new_page()
    stranger.goto(link)
    expect(stranger.get_by_test_id("login-error")).to_contain_text("used already")
    stranger.close()
    return page


def test_a_wake_is_seen_as_it_happens(edgewake: Edgewake, page: Page) -> None:
    page.goto("/wakes")
    expect(page.get_by_text("live", exact=True)).to_be_visible()
    row = page.get_by_role("row").filter(has=page.get_by_role("link", name="web", exact=True))
    expect(row.first).to_be_hidden()
    asking = threading.Thread(target=edgewake.ask, args=("web",))
    asking.start()
    expect(row.first).to_contain_text("waking")
    expect(row.first).to_contain_text("from cold", timeout=GUEST_MS)
    asking.join()
    assert domains() == ["ew-e2e-web-0"]
    row.first.get_by_role("link").first.click()
    expect(page.get_by_role("heading", level=1)).to_contain_text("web")
    expect(page.get_by_text("guest's first packet").first).to_be_visible()


def test_the_console_is_what_the_guest_said(page: Page) -> None:
    page.goto("/services/web")
    expect(page.get_by_test_id("console")).to_contain_text("edgewake: ready")


def test_it_is_put_to_sleep_and_woken_by_buttons(edgewake: Edgewake, page: Page) -> None:
    page.goto("/services/other")
    page.get_by_role("button", name="Wake").click()
    expect(page.get_by_test_id("toast")).to_contain_text("other is awake", timeout=GUEST_MS)
    assert edgewake.state_of("other") == "awake"
    expect(page.get_by_test_id("sleep-cold")).to_be_enabled()


def test_what_fails_is_said_in_words(edgewake: Edgewake, page: Page) -> None:
    edgewake.client.post("/services/strays/wake", {"client": "192.0.2.7"})
    assert [each["host"] for each in edgewake.seen("strays")["instances"]] == ["box"]
    page.goto("/services/whale")
    page.get_by_role("button", name="Wake").click()
    said = page.get_by_role("alert")
    expect(said).to_contain_text("whale")
    expect(said).to_contain_text("memory")


def test_a_plan_is_seen_and_applied(edgewake: Edgewake, page: Page) -> None:
    """A guest that was woken by the few moves to where the many are; it never is away."""
    page.goto("/placement")
    page.get_by_role("button", name="Show a plan").click()
    change = page.get_by_test_id("proposal").get_by_role("listitem").filter(has_text="strays")
    expect(change.first).to_contain_text("box")
    expect(change.first).to_contain_text("attic")
    page.get_by_role("button", name="Apply this plan").click()
    page.get_by_test_id("confirm-yes").click()
    expect(page.get_by_role("heading", name="1 change made")).to_be_visible(timeout=GUEST_MS)
    assert [each["host"] for each in edgewake.seen("strays")["instances"]] == ["attic"]


def test_it_is_all_in_the_audit(page: Page) -> None:
    page.goto("/journal/audit")
    expect(page.get_by_role("row").filter(has_text="/services/other/wake").first).to_be_visible()

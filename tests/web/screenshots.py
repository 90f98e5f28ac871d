"""Pictures of every page for README and docs: ``python -m tests.web.screenshots docs/screenshots``.

`make screenshots` does it. The pages are those of `tests.web.play`, whose hosts take their time to
boot here, as seen by Chromium. Colours are reduced to a palette: files are five times smaller so.
"""

import sys
from functools import partial
from io import BytesIO
from pathlib import Path
from tempfile import TemporaryDirectory

from PIL import Image
from playwright.sync_api import Page, ViewportSize

from dns_boot.query import ask
from orchestrator import daemon
from orchestrator.hypervisors.memory import MemoryHypervisor
from tests.web.browser.conftest import DESK, PHONE, chromium, person
from tests.web.play import playing

BOOT_S = 0.2
SETTLE_MS = 1500  # for drawings and the first live events
PAGES = {
    "topology": "/",
    "wakes": "/wakes",
    "wake": "/wakes/1",
    "services": "/services",
    "service": "/services/shop",
    "hosts": "/hosts",
    "host": "/hosts/attic",
    "network": "/network",
    "placement": "/placement",
    "front": "/placement/front",
    "dns": "/dns",
    "journal": "/journal",
    "measured": "/measured",
    "lab": "/lab",
    "tokens": "/tokens",
    "api": "/api/docs",
}
SHAPES: dict[str, tuple[ViewportSize, bool, tuple[str, ...]]] = {
    "": (DESK, False, tuple(PAGES)),
    "-dark": (DESK, True, ("topology", "wake")),
    "-phone": (PHONE, False, ("topology", "services")),
}


def _save(page: Page, file: Path) -> None:
    picture = Image.open(BytesIO(page.screenshot()))
    picture.convert("RGB").quantize(128).save(file, optimize=True)
    print(f"{file}: {file.stat().st_size / 1000:.0f} kB")  # noqa: T201


def _plan(page: Page) -> None:
    """Have a plan made, so that there is one to be seen."""
    page.get_by_test_id("plan").click()
    page.get_by_test_id("apply").wait_for()


def _front(page: Page) -> None:
    page.get_by_test_id("find-front").click()
    page.get_by_text("knee", exact=True).first.wait_for()


BEFORE = {"placement": _plan, "front": _front}


def _ask(dns: tuple[str, int]) -> None:
    """Ask for names, so that there is something in the log of queries."""
    for name in ("shop", "blog", "maps", "tiles", "nobody", "shop", "shop", "mail"):
        ask(dns, f"{name}.edge.test", timeout_s=30)


def main() -> None:
    """Take them all."""
    out = Path(sys.argv[1])
    out.mkdir(parents=True, exist_ok=True)
    # The one thing that is not as in `edgewake up`: hosts in memory that take their time to boot.
    daemon.__dict__["MemoryHypervisor"] = partial(MemoryHypervisor, boot_s=BOOT_S)
    with TemporaryDirectory() as folder, playing(Path(folder)) as site, chromium() as browser:
        _ask(site.dns)
        for ending, (size, dark, names) in SHAPES.items():
            with person(browser, site.url, site.tokens["admin"], size=size, dark=dark) as page:
                for name in names:
                    page.goto(PAGES[name])
                    if prepare := BEFORE.get(name):
                        prepare(page)
                    page.wait_for_timeout(SETTLE_MS)
                    _save(page, out / f"{name}{ending}.png")


if __name__ == "__main__":
    main()

"""The page of what is measured beside what is claimed."""

from typing import Any

import pytest
from flask.testing import FlaskClient

from tests.web.pages.reading import HOSTILE, Through, look
from web.pages.measured import SUBJECTS, compared

IMAGE: dict[str, Any] = {
    "name": "hello",
    "family": "multiboot",
    "file_bytes": 70_000,
    "asked_mib": 32,
    "memory_bytes": 44e6,
    "guests": 1,
    "idle_cpu": None,
    "idle_looks": 0,
    "boot_p50_s": 0.1,
    "boots": 3,
}


def a_claim(key: str, most: float) -> dict[str, Any]:
    return {"key": key, "text": HOSTILE, "most": most, "source": HOSTILE}


CLAIMS = [
    a_claim("file_bytes", 7e6),
    a_claim("memory_bytes", 22e6),
    a_claim("idle_cpu", 0.02),
    a_claim("boot_p50_s", 0.1),
]


@pytest.mark.parametrize(
    ("key", "verdict", "worse"),
    [
        ("file_bytes", "better: 1 % of what is claimed", False),
        ("memory_bytes", "worse: 2.0 times what is claimed", True),
        ("idle_cpu", "not measured", False),
        ("boot_p50_s", "as claimed", False),
    ],
)
def test_a_verdict_is_honest(key: str, verdict: str, worse: bool) -> None:
    (claim,) = [each for each in CLAIMS if each["key"] == key]
    (line,) = compared(claim, [IMAGE]).lines
    assert line.verdict.startswith(verdict)
    assert line.worse is worse


def test_bars_and_claims_are_in_one_scale() -> None:
    small = {**IMAGE, "memory_bytes": 11e6}
    one, other = compared(a_claim("memory_bytes", 22e6), [IMAGE, small]).lines
    assert one.share is not None
    assert other.share is not None
    assert one.share == pytest.approx(4 * other.share)
    assert one.claim_share == other.claim_share == pytest.approx(one.share / 2)
    assert one.share < 1


def test_every_claim_is_shown_with_its_source(dashboard: FlaskClient, upstream: Through) -> None:
    image = {**IMAGE, "name": HOSTILE, "family": HOSTILE}
    upstream.answers["/measured"] = {"claims": CLAIMS, "images": [image]}
    page = look(dashboard, "/measured")
    for key in SUBJECTS:
        assert page.all("section", data_testid=f"claim-{key}")
    assert page.text.count(HOSTILE) == 13
    assert page.all("svg", class_="against worse")


def test_no_images_says_what_to_do(dashboard: FlaskClient, upstream: Through) -> None:
    upstream.answers["/measured"] = {"claims": CLAIMS, "images": []}
    assert "No images yet" in look(dashboard, "/measured").text

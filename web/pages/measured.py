"""The page that puts what is measured here beside what is claimed of unikernels.

It is honest where we are worse, and says of how many guests or boots a number is.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from flask import Blueprint, render_template

from web.pages import formats
from web.pages.area import Link, Upstream

LINKS = (Link("/measured", "Measured"),)
ROOM = 1.15  # how much longer a drawing is than its longest bar
SAME = 0.05  # within such a share of the claim, it is the same
Document = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Subject:
    """What a claim is about: its title, how amounts are written, and of what a number is."""

    title: str
    write: Callable[[float | None], str]
    of: Callable[[Document], str]
    how: str


SUBJECTS: Mapping[str, Subject] = {
    "file_bytes": Subject("Size of the image", formats.size, lambda image: image["family"], ""),
    "memory_bytes": Subject(
        "Memory",
        formats.size,
        lambda image: _number(image["guests"], "guest") + f", asks for {_asked(image)}",
        "no guest of it is awake, or its hypervisor does not tell: wake a service that uses it",
    ),
    "idle_cpu": Subject(
        "Processor while idle",
        formats.percent,
        lambda image: _number(image["idle_looks"], "quiet look"),
        "no guest of it was awake and left alone: wake a service that uses it, and wait a minute",
    ),
    "boot_p50_s": Subject(
        "Time to boot",
        formats.seconds,
        lambda image: f"median of {_number(image['boots'], 'boot')}",
        "it was not booted from nothing yet: wake a service that uses it",
    ),
}


@dataclass(frozen=True, slots=True)
class Line:
    """An image beside a claim; shares are of the drawing's width, None where nothing is known."""

    image: str
    measured: str
    of: str
    share: float | None
    claim_share: float
    worse: bool
    verdict: str


@dataclass(frozen=True, slots=True)
class Comparison:
    """A claim and every image beside it."""

    key: str
    title: str
    text: str
    source: str
    claimed: str
    lines: tuple[Line, ...]


def add(pages: Blueprint, upstream: Upstream) -> None:
    """Add the page."""

    @pages.get("/measured")
    def measured() -> str:
        answer = upstream.get("/measured")
        images = answer["images"]
        known = [claim for claim in answer["claims"] if claim["key"] in SUBJECTS]
        return render_template(
            "measured.html",
            images=images,
            comparisons=[compared(claim, images) for claim in known],
        )


def compared(claim: Document, images: Iterable[Document]) -> Comparison:
    """Return each image beside a claim, all in one scale."""
    key, subject, every = claim["key"], SUBJECTS[claim["key"]], tuple(images)
    longest = max([claim["most"], *(image[key] or 0.0 for image in every)]) * ROOM
    return Comparison(
        key=key,
        title=subject.title,
        text=claim["text"],
        source=claim["source"],
        claimed=subject.write(claim["most"]),
        lines=tuple(_line(claim, subject, image, longest) for image in every),
    )


def _line(claim: Document, subject: Subject, image: Document, longest: float) -> Line:
    value = image[claim["key"]]
    return Line(
        image=image["name"],
        measured=subject.write(value),
        of=subject.of(image) if value is not None else "",
        share=None if value is None else value / longest,
        claim_share=claim["most"] / longest,
        worse=value is not None and value > claim["most"] * (1 + SAME),
        verdict=_verdict(value, claim["most"], subject),
    )


def _verdict(value: float | None, most: float, subject: Subject) -> str:
    if value is None:
        return f"not measured: {subject.how or 'its files cannot be read'}"
    if value > most * (1 + SAME):
        return f"worse: {value / most:.1f} times what is claimed"
    if value >= most * (1 - SAME):
        return "as claimed"
    return f"better: {formats.percent(value / most)} of what is claimed"


def _number(count: int, noun: str) -> str:
    return f"{count} {noun}{'' if count == 1 else 's'}"


def _asked(image: Document) -> str:
    return formats.mib(image["asked_mib"])

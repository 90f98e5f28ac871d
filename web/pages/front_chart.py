"""A Pareto front as a chart: where points, axes and marks are. Pure; the template draws it."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from web.pages.placement_words import Term, term

Document = Mapping[str, Any]

WIDTH, HEIGHT = 640.0, 400.0
LEFT, RIGHT, TOP, BOTTOM = 76.0, 24.0, 20.0, 56.0  # margins
TICKS = 5


@dataclass(frozen=True, slots=True)
class Point:
    """A plan of the front on the chart; `values` are of all terms."""

    number: int
    x: float
    y: float
    values: tuple[float, ...]
    knee: bool

    def words(self, terms: Sequence[Term]) -> str:
        """Return it as a sentence."""
        told = ", ".join(
            f"{each.label} {value:.4g} {each.unit}"
            for each, value in zip(terms, self.values, strict=True)
        )
        return f"Plan {self.number + 1}: {told}{', the knee' if self.knee else ''}"


@dataclass(frozen=True, slots=True)
class Tick:
    """A mark of an axis."""

    at: float
    text: str


@dataclass(frozen=True, slots=True)
class Chart:
    """All that is drawn; `line` joins the points in order, as steps, where there are two terms."""

    terms: tuple[Term, ...]
    points: tuple[Point, ...]
    across: tuple[Tick, ...]
    up: tuple[Tick, ...]
    line: str


def chart_of(front: Document) -> Chart:
    """Return the chart of a front of two terms or more; the first two are its axes."""
    names = front["terms"]
    terms = tuple(term(name, front["units"].get(name, "")) for name in names)
    values = [tuple(plan["terms"][name] for name in names) for plan in front["plans"]]
    across = scale([each[0] for each in values])
    up = scale([each[1] for each in values])
    points = tuple(
        Point(
            number,
            LEFT + _place(each[0], across) * (WIDTH - LEFT - RIGHT),
            HEIGHT - BOTTOM - _place(each[1], up) * (HEIGHT - TOP - BOTTOM),
            each,
            number == front["knee"],
        )
        for number, each in enumerate(values)
    )
    return Chart(
        terms,
        points,
        tuple(Tick(LEFT + _place(v, across) * (WIDTH - LEFT - RIGHT), f"{v:g}") for v in across),
        tuple(
            Tick(HEIGHT - BOTTOM - _place(v, up) * (HEIGHT - TOP - BOTTOM), f"{v:g}") for v in up
        ),
        _steps(points) if len(terms) == 2 else "",
    )


def scale(values: Sequence[float]) -> tuple[float, ...]:
    """Return round numbers from below the least to above the largest of some values."""
    least, most = min(values, default=0.0), max(values, default=1.0)
    span = (most - least) or abs(most) or 1.0
    rough = span / TICKS
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(power * each for each in (1, 2, 5, 10) if power * each >= rough)
    first = math.floor(least / step)
    last = max(math.ceil(most / step), first + 1)
    return tuple(round(number * step, 12) for number in range(first, last + 1))


def _place(value: float, marks: Sequence[float]) -> float:
    return (value - marks[0]) / (marks[-1] - marks[0])


def _steps(points: Sequence[Point]) -> str:
    """Return the border between what can be had and what cannot, as steps."""
    ordered = sorted(points, key=lambda point: point.x)
    path = ""
    for point in ordered:
        path += f"H{point.x:.1f}V{point.y:.1f}" if path else f"M{point.x:.1f} {point.y:.1f}"
    return path

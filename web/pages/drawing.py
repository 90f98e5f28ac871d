"""Numbers as shapes for small charts: `templates/_drawings.html` writes them. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass

WIDTH, HEIGHT = 1000.0, 100.0  # of a chart, in its own units
GAP = 0.2  # of a column's room that is left free


@dataclass(frozen=True, slots=True)
class Column:
    """One column of a chart, in the chart's units; y counts from the top."""

    x: float
    y: float
    width: float
    height: float
    value: float


def columns(values: Sequence[float]) -> tuple[Column, ...]:
    """Return a column for each value, the highest as high as the chart."""
    most = max(values, default=0.0) or 1.0
    room = WIDTH / max(1, len(values))
    return tuple(
        Column(
            x=round(index * room, 2),
            y=round(HEIGHT * (1 - value / most), 2),
            width=round(room * (1 - GAP), 2),
            height=round(HEIGHT * value / most, 2),
            value=value,
        )
        for index, value in enumerate(values)
    )

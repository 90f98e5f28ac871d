"""Pareto fronts in two dimensions, where less is better in both."""

from collections.abc import Sequence

Point = tuple[float, float]


def front(points: Sequence[Point]) -> list[Point]:
    """Return the points that no other dominates, by the first coordinate; equal ones once."""
    kept: list[Point] = []
    for point in sorted(set(points)):
        if not kept or point[1] < kept[-1][1]:
            kept.append(point)
    return kept


def hypervolume(points: Sequence[Point], reference: Point) -> float:
    """Return the area that points dominate up to a reference point (Zitzler and Thiele, 1998).

    Points that are not better than the reference in both coordinates dominate nothing.
    """
    area = 0.0
    top = reference[1]
    for x, y in front([p for p in points if p[0] < reference[0] and p[1] < reference[1]]):
        area += (reference[0] - x) * (top - y)
        top = y
    return area


def relative_hypervolumes(fronts: dict[str, Sequence[Point]]) -> dict[str, float]:
    """Return for each set of points the share it dominates of the box around all of them.

    The box reaches from the best to a tenth beyond the worst of each coordinate.
    """
    every = [point for points in fronts.values() for point in points]
    best = tuple(min(axis) for axis in zip(*every, strict=True))
    spans = [max(axis) - min(axis) or 1.0 for axis in zip(*every, strict=True)]
    scaled = {
        name: [((x - best[0]) / spans[0], (y - best[1]) / spans[1]) for x, y in points]
        for name, points in fronts.items()
    }
    return {name: hypervolume(each, (1.1, 1.1)) / 1.1**2 for name, each in scaled.items()}

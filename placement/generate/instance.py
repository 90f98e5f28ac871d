"""What generators and readers return: a problem, and a map to draw it on."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from math import hypot

from placement.problem import Problem


@dataclass(frozen=True, slots=True)
class Node:
    """A point of the map: `x` and `y` in any one unit, `kind` such as ``edge`` or ``clients``."""

    x: float
    y: float
    kind: str

    def distance(self, other: "Node") -> float:
        """Return how far another point is, in that unit."""
        return hypot(self.x - other.x, self.y - other.y)


@dataclass(frozen=True, slots=True)
class Layout:
    """A map of nodes and links; `hosts` and `populations` say at which node each of them is."""

    nodes: Mapping[str, Node]
    links: tuple[tuple[str, str], ...] = ()
    hosts: Mapping[str, str] = field(default_factory=dict)
    populations: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Instance:
    """A problem to solve; `layout` is None when nothing is known of where things are."""

    problem: Problem
    layout: Layout | None = None

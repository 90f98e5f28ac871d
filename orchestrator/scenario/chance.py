"""Chance for scenarios: times between events, and which routers a new one is linked to.

Everything is drawn from a `random.Random` that is given, so a seed decides all of it.
"""

import math
from bisect import bisect_left
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from random import Random


class Shape(StrEnum):
    """How a duration is spread."""

    FIXED = "fixed"
    UNIFORM = "uniform"
    EXPONENTIAL = "exponential"


@dataclass(frozen=True, slots=True)
class Duration:
    """A duration of chance, in seconds.

    It is fixed to `low`, uniform from `low` to `high`, or exponential with the mean `low`.
    """

    shape: Shape
    low: float
    high: float = 0.0

    def draw(self, chance: Random) -> float:
        """Return one, in whole microseconds, so that it is the same wherever it is computed."""
        match self.shape:
            case Shape.FIXED:
                seconds = self.low
            case Shape.UNIFORM:
                seconds = self.low + (self.high - self.low) * chance.random()
            case Shape.EXPONENTIAL:
                seconds = -math.log(1.0 - chance.random()) * self.low
        return max(round(seconds, 6), 1e-6)


class Picker(StrEnum):
    """How the other end of a new link is chosen."""

    RANDOM = "random"  # all alike
    PREFERENTIAL = "preferential"  # by the links they have (Barabási and Albert 1999), plus one
    LIFETIME = "lifetime"  # by how long they are expected to stay


class Lifetimes:
    """How long routers stay, learnt from those that have gone and those that are still there.

    The chance to be there at an age is estimated as Kaplan and Meier (1958) do, so that those that
    have not gone yet count, too.
    """

    def __init__(self) -> None:
        self._gone: list[float] = []

    def add(self, seconds: float) -> None:
        """Learn of a router that has gone after so long."""
        self._gone.append(seconds)

    def remaining(self, ages: Mapping[str, float]) -> dict[str, float]:
        """Return how much longer each is expected to stay, by what is known so far.

        Of one that is older than any that has gone, nothing is known but that: it is expected to
        stay as long as it has been there.
        """
        steps, shares = self._survival(sorted(ages.values()))
        left = [0.0] * len(steps)  # the integral of the share, from a step to the last
        for at in reversed(range(len(steps) - 1)):
            left[at] = left[at + 1] + shares[at] * (steps[at + 1] - steps[at])
        found = {}
        for name, age in ages.items():
            at = bisect_left(steps, age)
            if at == len(steps):
                found[name] = max(age, 1e-6)
                continue
            before = shares[at - 1] if at else 1.0
            found[name] = max((left[at] + before * (steps[at] - age)) / before, 1e-6)
        return found

    def _survival(self, living: Sequence[float]) -> tuple[list[float], list[float]]:
        """Return ages at which routers have gone, and the share that is there after each."""
        gone = sorted(self._gone)
        steps, shares, share = [], [], 1.0
        for age in sorted(set(gone)):
            there = len(gone) - bisect_left(gone, age) + len(living) - bisect_left(living, age)
            here = bisect_left(gone, math.nextafter(age, math.inf)) - bisect_left(gone, age)
            share *= 1 - here / there
            steps.append(age)
            shares.append(share)
        return steps, shares


def pick(weights: Mapping[str, float], many: int, chance: Random) -> list[str]:
    """Return so many different names, or all: each chosen with a chance that goes with its weight.

    In the order in which they were chosen. All weights are positive.
    """
    left = dict(weights)
    chosen = []
    for _ in range(min(many, len(left))):
        mark = chance.random() * math.fsum(left.values())
        name = ""
        for name, weight in left.items():  # noqa: B007 - the last, if rounding left some of the mark
            mark -= weight
            if mark < 0:
                break
        chosen.append(name)
        del left[name]
    return chosen

"""A Pareto front as a value: plans none of which is better than another in all terms, and how good.

All terms are minimised. Indicators that compare fronts scale each term by the range of the two
fronts together, so that watts and milliseconds weigh the same.

E. Zitzler et al., "Performance assessment of multiobjective optimizers", IEEE TEVC 7(2), 2003
(hypervolume, additive epsilon). H. Ishibuchi et al., "Modified distance calculation in generational
distance and inverted generational distance", EMO 2015 (IGD+).
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from placement.matrix import Bools, Floats
from placement.problem import Malformed, Plan


@dataclass(frozen=True, slots=True, eq=False)
class ParetoFront:
    """Plans by the value of the first term, and what was minimised.

    `proven` says that the front is exact: no plan exists that any of these does not match or
    exceed, up to the step with which it was searched.
    """

    terms: tuple[str, ...]
    plans: tuple[Plan, ...]
    proven: bool = False

    @classmethod
    def of(
        cls, terms: Sequence[str], plans: Iterable[Plan], *, proven: bool = False
    ) -> "ParetoFront":
        """Return the front of some plans with terms: the others are left out, equal ones too."""
        every = list(plans)
        points = np.round(_points(terms, every), 6)  # a solver's tolerance
        kept = undominated(points)
        unique = {tuple(points[i]): every[i] for i in reversed(np.flatnonzero(kept))}
        return cls(tuple(terms), tuple(unique[key] for key in sorted(unique)), proven)

    @property
    def points(self) -> Floats:
        """Return the terms of each plan, N x T."""
        return _points(self.terms, self.plans)

    def hypervolume(self, reference: Sequence[float] | None = None) -> float:
        """Return the volume that the front dominates up to a reference point; larger is better.

        Without a reference it is the worst of each term in the front, so the ends count nothing.
        """
        points = self.points
        worst = points.max(axis=0) if reference is None else np.array(reference, dtype=float)
        if worst.shape != (len(self.terms),):
            raise Malformed("reference", f"must have {len(self.terms)} values, one per term")
        return _volume(points[(points < worst).all(axis=1)], worst)

    def additive_epsilon(self, other: "ParetoFront") -> float:
        """Return by how much of its range the front must fall to dominate another one."""
        mine, theirs = _scaled(self, other)
        excess = (mine[:, None] - theirs[None]).max(axis=2).min(axis=0)
        return max(0.0, float(excess.max(initial=0.0)))

    def igd_plus(self, reference: "ParetoFront") -> float:
        """Return how far points of a reference front are from being dominated, on average."""
        mine, theirs = _scaled(self, reference)
        gap = np.maximum(mine[:, None] - theirs[None], 0.0)
        return float(np.sqrt((gap**2).sum(axis=2)).min(axis=0).mean())

    def knee(self) -> Plan:
        """Return the plan where giving up more of one term stops to pay.

        It is the one farthest below the plane through the ends of the front, all terms scaled.
        """
        points = self.points
        span = points.max(axis=0) - points.min(axis=0)
        unit = (points - points.min(axis=0)) / np.where(span > 0, span, 1.0)
        return self.plans[int(np.argmin(unit.sum(axis=1)))]


def undominated(points: Floats) -> Bools:
    """Return which points no other one dominates."""
    kept = np.ones(len(points), dtype=bool)
    for i, point in enumerate(points):
        better = (points <= point).all(axis=1) & (points < point).any(axis=1)
        kept[i] = not better.any()
    return kept


def _points(terms: Sequence[str], plans: Sequence[Plan]) -> Floats:
    rows = [[plan.terms[name] for name in terms] for plan in plans]
    return np.array(rows, dtype=float).reshape(len(plans), len(terms))


def _scaled(one: ParetoFront, other: ParetoFront) -> tuple[Floats, Floats]:
    if one.terms != other.terms or not one.plans or not other.plans:
        raise Malformed("front", "only fronts of the same terms, with plans, compare")
    both = np.vstack((one.points, other.points))
    low, span = both.min(axis=0), both.max(axis=0) - both.min(axis=0)
    span = np.where(span > 0, span, 1.0)
    return (one.points - low) / span, (other.points - low) / span


def _volume(points: Floats, worst: Floats) -> float:
    """Return the volume below a worst point, by slices along the last term."""
    if not len(points):
        return 0.0
    if points.shape[1] == 1:
        return float(worst[0] - points.min())
    points = points[np.argsort(points[:, -1], kind="stable")]
    edges = np.append(points[:, -1], worst[-1])
    total = 0.0
    for i in range(len(points)):
        height = edges[i + 1] - edges[i]
        if height > 0:
            total += height * _volume(points[: i + 1, :-1], worst[:-1])
    return total

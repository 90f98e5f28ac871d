"""Percentiles by nearest rank, for whoever tells how long things took."""

from collections.abc import Sequence
from math import ceil


def percentile(ordered: Sequence[float], share: float) -> float:
    """Return the smallest value that at least such a share of the values does not exceed.

    That is the nearest rank: always a value that was measured. `ordered` is not empty.
    """
    return ordered[max(0, ceil(share * len(ordered)) - 1)]

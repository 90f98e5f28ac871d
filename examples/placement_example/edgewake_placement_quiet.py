"""The placement algorithm ``quiet``: each demand where fewest requests are served already.

One function and one line. The function gets a validated problem and gives a plan; edgewake judges
it, values it and proves a bound. The line says what the algorithm minds, so that a problem with
more is refused instead of answered wrongly.
"""

import numpy as np

from placement.heuristics.packing import Packing, Score, pack
from placement.problem import Options, Plan, Problem
from placement.registry import FILLED, FILLS, Algorithm

QUIET = Algorithm("quiet", "edgewake_placement_quiet:quiet", rules=FILLS, features=FILLED)


def quiet(problem: Problem, _options: Options) -> Plan:
    """Return the plan that keeps requests per host low."""
    return pack(problem, _requests, name="quiet", largest_first=True)


def _requests(packing: Packing) -> Score:
    arrays = packing.arrays
    rate = np.bincount(arrays.rate_class, arrays.rate, minlength=arrays.classes)
    packing.watch((rate / np.maximum(arrays.replicas, 1))[None])
    return lambda pairs: (packing.tally[0, arrays.pair_host[pairs]],)

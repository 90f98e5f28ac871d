"""What the planner's names mean, for people: terms of its objective, algorithms, solvers.

The planner is not asked for them, since the door does not load it; a test compares.
"""

from collections.abc import Mapping
from typing import NamedTuple


class Term(NamedTuple):
    """A term of the objective: its name, its unit, and what it counts."""

    label: str
    unit: str
    help: str


TERMS: Mapping[str, Term] = {
    "latency_ms": Term("Latency", "ms", "one way from clients to the copy they use, mean"),
    "wake_ms": Term("Waiting for wakes", "ms", "what a request waits for a boot, mean"),
    "energy_w": Term("Power", "W", "what hosts that are on draw"),
    "cost_hour": Term("Cost", "money/hour", "hosts that are on, cores and memory in use"),
    "network_mbps": Term("Traffic", "Mbit/s times cost", "what crosses links"),
    "hosts_on": Term("Hosts on", "hosts", "hosts that run something"),
    "utilisation": Term("Fullest host", "share of the fullest", "how full the fullest host is"),
    "migrations": Term("Moves", "moved copies times cost", "copies that leave where they are"),
    "broken": Term("Wishes not met", "weighted amount", "rules that are wishes, not musts"),
    "unplaced": Term("Not placed", "weighted copies", "copies that find no place"),
    "unserved_rps": Term("Not served", "requests/s", "requests that no copy is near enough for"),
    "lost_revenue": Term("Lost revenue", "money/hour", "of slices that are refused"),
    "worst_latency_ms": Term("Worst latency", "ms", "of the clients that are farthest away"),
}

ALGORITHMS: Mapping[str, str] = {
    "auto": "exact for small labs, the ladder for large ones",
    "exact": "a mixed-integer program, proven",
    "ladder": "better and better plans until the deadline",
    "repair": "only what is wrong, with few moves",
    "partition": "by areas, for very large labs",
    "greedy-latency": "nearest to clients, one by one",
    "nearest": "each to its nearest host",
    "first-fit": "the first host with room",
    "first-fit-decreasing": "the largest first",
    "best-fit": "the fullest host with room",
    "best-fit-decreasing": "the same, the largest first",
    "worst-fit": "the emptiest host",
    "dot-product": "by what fits the room that is left",
    "edgewards": "from the edge to the cloud",
    "only-cloud": "all in the cloud",
    "least-used": "VLSP: the least used host",
    "least-busy": "VLSP: the least busy host",
    "nup": "VLSP: no more hosts than needed",
    "energy-efficient": "VLSP: what draws least",
    "simulated-annealing": "random steps, ever smaller",
    "tabu": "local search that remembers",
    "nsga2": "evolution of many plans",
    "random": "anywhere with room, to compare",
}

SOLVERS = ("auto", "highs", "highs-direct", "cbc", "cp-sat")
FRONT_TERMS = tuple(TERMS)[:9]
WARM_ALGORITHMS = ("auto", "exact", "greedy")


def term(name: str, unit: str = "") -> Term:
    """Return a term, also one that is not known here."""
    return TERMS.get(name, Term(name, unit, ""))

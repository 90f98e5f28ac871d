"""All algorithms by name: one line each, loaded when asked for.

An algorithm is a function ``(problem, options) -> Plan``. The problem is validated. Of the plan,
`hosts` are needed, and `flavours` where demands have some; `bound` may stay 0. All else is filled
in by `placement.solving`. It raises `placement.problem.Infeasible` when it finds none, with
``proven`` only if there is none.

What an algorithm minds is said here, and a problem that needs more is refused, not answered
wrongly. Others come from other packages through the entry points ``edgewake.placement``: an entry
point is an `Algorithm`.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from typing import cast, get_args

from placement.problem import (
    EVERY_COPY,
    MAKE_BEFORE_BREAK,
    Malformed,
    Options,
    Plan,
    Problem,
)
from placement.rules import Rule

GROUP = "edgewake.placement"

Function = Callable[[Problem, Options], Plan]

ALL_RULES = frozenset(kind.kind for kind in get_args(Rule))
FEATURES = frozenset(
    {
        "soft",  # demands of which copies may be left out
        "nearest-copy",  # a latency bound for the nearest copy only
        "copy-rps",  # copies that fill up
        "one-flavour",
        "make-before-break",
        "slices",
        "traffic",  # between demands, with links; chains
        "order",
        "limits",
    }
)


@dataclass(frozen=True, slots=True)
class Algorithm:
    """A way to place, and what it minds.

    `function` is ``"module:function"``. `rules` are the kinds of must-rules it keeps, such as
    ``spread``, or ``spread on host`` for those on hosts only; wishes it may break anyway. `exact`
    says that with time enough it proves its plan the best.
    """

    name: str
    function: str
    rules: frozenset[str] = frozenset()
    features: frozenset[str] = frozenset()
    exact: bool = False

    def load(self) -> Function:
        """Return the function."""
        module, _, name = self.function.partition(":")
        return cast(Function, getattr(import_module(module), name))


FILLS = frozenset({"ban", "fence", "spread on host", "split on host", "beside on host"})
FILLED = frozenset({"soft"})
CUTTABLE = frozenset({"ban", "fence"})  # rules that say nothing about several demands at once
_H = "placement.heuristics"

ALGORITHMS: tuple[Algorithm, ...] = (
    Algorithm("exact", "placement.exact:exact", ALL_RULES, FEATURES, exact=True),
    Algorithm("ladder", "placement.ladder.climb:ladder", ALL_RULES, FEATURES - {"order"}),
    Algorithm("auto", "placement.ladder.climb:auto", ALL_RULES, FEATURES),
    Algorithm("repair", "placement.repair:repair", ALL_RULES, FEATURES - {"order"}),
    Algorithm("partition", "placement.partition:partition", CUTTABLE, FILLED),
    Algorithm("first-fit", f"{_H}.bins:first_fit", FILLS, FILLED),
    Algorithm("best-fit", f"{_H}.bins:best_fit", FILLS, FILLED),
    Algorithm("worst-fit", f"{_H}.bins:worst_fit", FILLS, FILLED),
    Algorithm("first-fit-decreasing", f"{_H}.bins:first_fit_decreasing", FILLS, FILLED),
    Algorithm("best-fit-decreasing", f"{_H}.bins:best_fit_decreasing", FILLS, FILLED),
    Algorithm("dot-product", f"{_H}.bins:dot_product", FILLS, FILLED),
    Algorithm("random", f"{_H}.bins:random", FILLS, FILLED),
    Algorithm("nearest", f"{_H}.edge:nearest", FILLS, FILLED),
    Algorithm("edgewards", f"{_H}.edge:edgewards", FILLS, FILLED),
    Algorithm("only-cloud", f"{_H}.edge:only_cloud", FILLS, FILLED),
    Algorithm("least-used", f"{_H}.vlsp:least_used", FILLS, FILLED),
    Algorithm("least-busy", f"{_H}.vlsp:least_busy", FILLS, FILLED),
    Algorithm("nup", f"{_H}.vlsp:nup", FILLS, FILLED),
    Algorithm("energy-efficient", f"{_H}.vlsp:energy_efficient", FILLS, FILLED),
    Algorithm("simulated-annealing", f"{_H}.search:simulated_annealing", FILLS, FILLED),
    Algorithm("tabu", f"{_H}.search:tabu", FILLS, FILLED),
    Algorithm("nsga2", f"{_H}.evolution:nsga2", FILLS, FILLED),
    Algorithm(
        "greedy-latency", "placement.heuristics.greedy_latency:greedy_latency", FILLS, FILLED
    ),
)


def names() -> tuple[str, ...]:
    """Return the names of all algorithms, also of those that other packages bring."""
    return tuple(sorted({each.name for each in ALGORITHMS} | {e.name for e in _others()}))


def algorithm(name: str) -> Algorithm:
    """Return an algorithm by name; `Malformed` lists the known ones."""
    for each in ALGORITHMS:
        if each.name == name:
            return each
    for entry in _others():
        if entry.name == name:
            return cast(Algorithm, entry.load())
    known = ", ".join(names())
    raise Malformed("algorithm", f"no placement algorithm named {name!r}; known: {known}")


def missing(each: Algorithm, problem: Problem, options: Options) -> tuple[str, ...]:
    """Return what a problem and options need that an algorithm does not mind."""
    rules = {
        rule.kind
        for rule in problem.rules
        if rule.must
        and rule.kind not in each.rules
        and f"{rule.kind} on {getattr(rule, 'domain', '')}" not in each.rules
    }
    return (*sorted(f"rule {kind}" for kind in rules), *sorted(_asked(problem, options, each)))


def refuse(each: Algorithm, problem: Problem, options: Options) -> None:
    """Raise `Malformed` if an algorithm would ignore part of a problem."""
    if lacks := missing(each, problem, options):
        able = [other.name for other in ALGORITHMS if not missing(other, problem, options)]
        raise Malformed(
            "algorithm", f"{each.name} ignores {', '.join(lacks)}; use {' or '.join(able)}"
        )


def _asked(problem: Problem, options: Options, each: Algorithm) -> Iterator[str]:
    wanted = {
        "soft": any(d.least is not None and d.least < d.replicas for d in problem.demands),
        "nearest-copy": any(
            d.bound_for != EVERY_COPY and d.latency_bound_ms is not None for d in problem.demands
        ),
        "copy-rps": any(d.copy_rps is not None for d in problem.demands),
        "one-flavour": any(d.one_flavour and d.replicas > 1 for d in problem.demands),
        "make-before-break": bool(problem.current)
        and any(d.move == MAKE_BEFORE_BREAK for d in problem.demands),
        "slices": bool(problem.slices),
        "traffic": any(t.latency_bound_ms is not None for t in problem.traffic)
        or any(chain.latency_bound_ms is not None for chain in problem.chains)
        or (
            bool(problem.traffic or problem.chains)
            and (
                any(link.capacity_mbps is not None for link in problem.links)
                or not problem.joined()
            )
        ),
        "order": bool(options.order),
        "limits": bool(options.limits),
    }
    return (name for name, asked in wanted.items() if asked and name not in each.features)


def _others() -> tuple[EntryPoint, ...]:
    return tuple(entry_points(group=GROUP))

"""A compiled problem, what counts, and all rows: the whole model as one `Matrix`.

`assemble` is the only place that knows all families. Terms come first, since they say which columns
the model needs; the rows about those columns last.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from placement.arrays import Arrays
from placement.matrix import Linear, Matrix
from placement.model import Model
from placement.objectives import WORST, expression
from placement.problem import Options
from placement.rows import base, failures, moves, network, places, relations, requests, slices
from placement.rules import (
    Among,
    Ban,
    Beside,
    Fence,
    Gather,
    Lonely,
    MaxOnline,
    MaxSkew,
    MigrationBudget,
    Occupy,
    Overbook,
    Percentile,
    Preserve,
    Quarantine,
    Root,
    ServeAfterFailure,
    Split,
    SplitAmong,
    Spread,
    Survive,
)

# What each kind of rule adds. Every kind is here: a rule without an entry would be ignored.
FAMILIES: Mapping[type, Callable[[Model, Any], None]] = {
    Ban: places.banned,
    Fence: places.banned,
    Spread: relations.spread,
    Gather: relations.gather,
    Among: relations.among,
    Split: relations.split,
    SplitAmong: relations.split_among,
    Lonely: relations.lonely,
    Beside: relations.beside,
    Occupy: relations.occupy,
    Root: moves.root,
    Quarantine: moves.quarantine,
    Preserve: places.preserve,
    Overbook: places.overbook,
    MaxOnline: places.max_online,
    MaxSkew: relations.max_skew,
    Survive: failures.survive,
    ServeAfterFailure: failures.serve_after_failure,
    Percentile: requests.percentile,
    MigrationBudget: moves.budget,
}

# What is always there, once terms and rules have asked for their columns.
ALWAYS: Mapping[str, Callable[[Model], None]] = {
    "slice_shares": slices.shares,
    "slice_isolation": slices.isolation,
    "network_bounds": network.bounds,
    "both_sides": moves.both_sides,
    "one_flavour": base.one_flavour,
    "apart": base.apart,
    "counts": base.counts,
    "capacity": base.capacity,
    "links": base.links,
}


@dataclass(frozen=True, slots=True, eq=False)
class Assembled:
    """A model, its matrix, and the expression of each term that was asked for."""

    model: Model
    matrix: Matrix
    terms: Mapping[str, Linear]


def assemble(
    arrays: Arrays,
    options: Options,
    *,
    weights: Mapping[str, float],
    limits: Mapping[str, float],
    without: frozenset[str] = frozenset(),
) -> Assembled:
    """Return the model that minimises the weighted terms within the limits.

    `without` leaves out families by name (a rule's `kind`, or one of `ALWAYS`), to see what each
    of them is for.
    """
    model = Model.of(arrays, options)
    for rule in _rules(model):
        if rule.kind not in without:
            FAMILIES[type(rule)](model, rule)
    asked = [name for name in (*weights, *limits) if name != WORST or name in weights]
    terms = {name: expression(model, name) for name in dict.fromkeys(asked)}
    if requests.required(model) and "shares" not in without:
        requests.shares(model)
    for name, family in ALWAYS.items():
        if name not in without:
            family(model)
    for name, limit in limits.items():
        if name in terms:
            slack = 1e-9 * max(1.0, abs(limit))
            model.builder.add_row(f"limit_{name}", terms[name], upper=limit + slack)
    objective = Linear()
    for name, weight in weights.items():
        if weight:
            objective.add_all(terms[name], weight)
    return Assembled(model, model.builder.matrix(objective), terms)


def _rules(model: Model) -> list[Any]:
    """Return the rules to add: splits of single demands on one domain are joined to cliques."""
    simple: dict[str, list[Split]] = {}
    others: list[Any] = []
    for rule in model.arrays.problem.rules:
        single = isinstance(rule, Split) and all(len(each) == 1 for each in rule.sets)
        if isinstance(rule, Split) and single and rule.must:
            simple.setdefault(rule.domain, []).append(rule)
        else:
            others.append(rule)
    for domain, rules in simple.items():
        others += [
            Split(tuple(frozenset({name}) for name in clique), domain)
            for clique in relations.cliques(tuple(rules))
        ]
    return others


def value_of(term: Linear, x: np.ndarray[Any, np.dtype[np.float64]]) -> float:
    """Return the value of an expression at a point."""
    columns, factors = term.joined()
    return float(x[columns] @ factors) + term.constant

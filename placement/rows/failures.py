"""What is left after a failure: copies, or enough of them in the right spots to serve everybody.

B. Ford et al., "Provisioning mobile edge clouds", arXiv 1703.10915, for demand served after the
loss of any single site.
"""

import math

import numpy as np

from placement.matrix import Bools, Entries, Floats, Ints
from placement.model import Model
from placement.problem import SITE
from placement.rows.requests import groups
from placement.rules import ServeAfterFailure, Survive


def survive(model: Model, rule: Survive) -> None:
    """Sum over h in d of n[c,h] <= copies[c] - keep + v, for each domain d that c may use.

    Where not all copies need be placed: sum over h not in d of n[c,h] + v >= keep * P[c].
    """
    of, _ = model.arrays.domains(rule.domain)
    for name in sorted(rule.demands):
        c = model.class_of[name]
        copies = float(model.arrays.copies[c])
        if not copies:
            continue
        pairs = model.arrays.of(c)
        here, row = np.unique(of[model.arrays.pair_host[pairs]], return_inverse=True)
        v = model.wish(rule, 1, rule.keep)
        present = model.present(c)
        entries = Entries()
        if present is None and model.left_out[c] < 0:
            entries.add(row, model.n[pairs], 1.0)
            lower, upper = -math.inf, copies - rule.keep
            sign = -1.0
        else:
            other = row[None, :] != np.arange(len(here))[:, None]
            at, pair = np.nonzero(other)
            entries.add(at, model.n[pairs][pair], 1.0)
            lower, upper = float(rule.keep), math.inf
            if present is not None:
                entries.add(np.arange(len(here)), present, -lower)
                lower = 0.0
            sign = 1.0
        if v is not None:
            entries.add(np.arange(len(here)), v, sign)
        i = np.arange(len(here)) + model.wishes
        model.wishes += len(here)
        model.builder.add_rows("survive", len(here), entries, lower=lower, upper=upper, i=i)


def serve_after_failure(model: Model, rule: ServeAfterFailure) -> None:
    """For each site l that fails: sum over g not in l of b[c,p,g,l] + w[c,p,l] >= P[c],
    b[c,p,g,l] <= n[c,g], sum over p of rate[c,p] * b[c,p,g,l] <= copy_rps[c] * n[c,g],
    and v[c] >= sum over p of rate[c,p] * w[c,p,l].

    b only where p may be served by g, w only for a wish. Copies that never fill up need no b: then
    sum over near h not in l of n[c,h] + w >= P[c].
    """  # noqa: D205 - the formula is the summary
    arrays = model.arrays
    of, far = groups(arrays)
    site, _ = arrays.domains(SITE)
    for name in sorted(rule.demands):
        c = model.class_of[name]
        rows = np.flatnonzero(arrays.rate_class == c)
        pairs = arrays.of(c)
        if not len(rows):
            continue
        v = model.wish(rule, 1, math.inf)
        present = model.present(c)
        host = arrays.pair_host[pairs]
        limit = math.inf if rule.within_ms is None else rule.within_ms
        reach = far[arrays.rate_population[rows]]
        near = np.isfinite(reach) & (reach <= limit)  # rate row x group
        fails = np.unique(site[host])
        for failed in fails.tolist() or [-1]:
            left = np.flatnonzero(site[host] != failed)
            state = _State(rows, near, of[host[left]], model.n[pairs][left])
            _served_without(model, state, c, present, v)


class _State:
    """One demand after one failure: its rate rows, who is near whom, and what is left."""

    __slots__ = ("group", "n", "near", "rows")

    def __init__(self, rows: Ints, near: Bools, group: Ints, n: Ints) -> None:
        self.rows = rows
        self.near = near
        self.group = group
        self.n = n


def _served_without(
    model: Model, state: _State, c: int, present: int | None, v: Ints | None
) -> None:
    copy_rps = model.arrays.demand(c).copy_rps
    builder, count = model.builder, len(state.rows)
    rate: Floats = model.arrays.rate[state.rows]
    number = np.arange(count)
    i = number + model.wishes
    model.wishes += count
    entries = Entries()
    right = np.ones(count)
    if present is not None:
        entries.add(number, present, -1.0)
        right[:] = 0.0
    if v is not None:
        w = builder.add_columns("w", count, 1, i=i)
        entries.add(number, w, 1.0)
        lost = Entries()
        lost.add(0, w, rate)
        lost.add(0, v, -1.0)
        builder.add_rows("lost", 1, lost, upper=0.0, i=i[0])
    if copy_rps is None:
        row, pair = np.nonzero(state.near[:, state.group])
        entries.add(row, state.n[pair], 1.0)
        builder.add_rows("still", count, entries, lower=right, i=i)
        return
    here, at = np.unique(state.group, return_inverse=True)
    row, g = np.nonzero(state.near[:, here])
    b = builder.add_columns("b", len(row), 1, i=np.arange(len(row)) + model.wishes)
    model.wishes += len(row)
    entries.add(row, b, 1.0)
    builder.add_rows("still", count, entries, lower=right, i=i)
    entries = Entries()
    entries.add(np.arange(len(row)), b, 1.0)
    mine, pair = np.nonzero(g[:, None] == at[None, :])
    entries.add(mine, state.n[pair], -1.0)
    builder.add_rows("still_by", len(row), entries, upper=0.0, c=c, i=b)
    entries = Entries()
    entries.add(g, b, rate[row])
    entries.add(at, state.n, -copy_rps)
    builder.add_rows(
        "still_busy", len(here), entries, upper=0.0, i=np.arange(len(here)) + model.wishes
    )
    model.wishes += len(here)

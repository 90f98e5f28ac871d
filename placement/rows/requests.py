"""Who serves whose requests: shares a, for demands with several copies or copies that fill up.

Hosts in one site that are equally far from everybody are one group g, so there is one share per
group. A demand whose only copy serves everything needs none: its share is n.
"""

import math

import numpy as np

from placement.arrays import Arrays
from placement.latencies import UNREACHABLE_MS, worst_cap
from placement.matrix import Bools, Entries, Floats, Ints, Linear
from placement.model import Model, Shares
from placement.problem import EVERY_COPY, SITE, Demand
from placement.rules import Percentile


def direct(demand: Demand) -> bool:
    """Return whether the only copy of a demand serves all its requests."""
    sure = demand.least is None or demand.bound_for == EVERY_COPY
    return demand.replicas == 1 and demand.copy_rps is None and sure


def direct_classes(arrays: Arrays) -> Bools:
    """Return which classes have one copy that serves all requests."""
    return np.array([direct(arrays.demand(c)) for c in range(arrays.classes)], dtype=bool)


def bound_ms(demand: Demand, worst_ms: float | None) -> float:
    """Return how far a request may go."""
    bounds = [demand.latency_bound_ms, worst_ms]
    return min((each for each in bounds if each is not None), default=math.inf)


def groups(arrays: Arrays) -> tuple[Ints, Floats]:
    """Return the group of each host, and the latency of each population to each group."""
    site, _ = arrays.domains(SITE)
    both = np.vstack([site[None, :].astype(float), arrays.latency])
    unique, of = np.unique(both, axis=1, return_inverse=True)
    return of.reshape(-1), unique[1:]


def required(model: Model) -> bool:
    """Return whether shares decide what is allowed, and not only what is best."""
    demands = [model.arrays.demand(int(c)) for c in np.unique(model.arrays.rate_class)]
    worst = worst_cap(model.options.limits)
    return any(
        not direct(d)
        and (d.copy_rps is not None or worst is not None or d.latency_bound_ms is not None)
        for d in demands
    )


def shares(model: Model) -> Shares:
    """Return the columns a, with their rows, made once.

    sum over g of a[c,p,g] + z[c,p] = 1     (alpha in a slice that may be refused)
    a[c,p,g] <= sum over h in g of n[c,h]
    sum over p of rate[c,p] * a[c,p,g] <= copy_rps[c] * sum over h in g of n[c,h]

    z, the share not served, only where demands are soft. Where copies do not fill up z is whole
    and excludes copies that could serve: n[c,h] + most[c,h] * z[c,p] <= most[c,h].
    """
    if model.shares is not None:
        return model.shares
    arrays = model.arrays
    of, far = groups(arrays)
    unserved = np.full(len(arrays.rate), -1, dtype=np.int64)
    row_of = [
        _class(model, c, of, far, unserved)
        for c in np.unique(arrays.rate_class).tolist()
        if not direct(arrays.demand(c))
    ]
    column, rate, group = (
        np.concatenate(each) if row_of else np.empty(0, dtype=np.int64)
        for each in (zip(*row_of, strict=True) if row_of else ((), (), ()))
    )
    model.shares = Shares(column, rate, group, unserved)
    return model.shares


def _class(model: Model, c: int, of: Ints, far: Floats, unserved: Ints) -> tuple[Ints, Ints, Ints]:
    """Add the columns and rows of one class; return its columns, rate rows and groups."""
    arrays, builder = model.arrays, model.builder
    demand, pairs = arrays.demand(c), arrays.of(c)
    near = of[arrays.pair_host[pairs]]
    here = np.unique(near)
    rows = np.flatnonzero(arrays.rate_class == c)
    population = arrays.rate_population[rows]
    limit = bound_ms(demand, worst_cap(model.options.limits))
    rate, group = (each.ravel() for each in np.meshgrid(rows, here, indexing="ij"))
    allowed = far[arrays.rate_population[rate], group] <= limit
    rate, group = rate[allowed], group[allowed]
    a = builder.add_columns(
        "a",
        len(rate),
        1,
        whole=demand.copy_rps is None,
        c=c,
        p=arrays.rate_population[rate],
        g=group,
    )
    soft = model.left_out[c] >= 0
    if soft:
        whole = demand.copy_rps is None
        unserved[rows] = builder.add_columns("z", len(rows), 1, integer=whole, c=c, p=population)
        if whole:
            _not_while_served(model, c, of, far, unserved[rows])
    local = np.searchsorted(rows, rate)
    entries = Entries()
    entries.add(local, a, 1.0)
    right = np.ones(len(rows))
    if soft:
        entries.add(np.arange(len(rows)), unserved[rows], 1.0)
    if (alpha := model.admission(c)) is not None:
        entries.add(np.arange(len(rows)), alpha, -1.0)
        right[:] = 0.0
    builder.add_rows("served", len(rows), entries, lower=right, upper=right, c=c, p=population)
    entries = Entries()
    entries.add(np.arange(len(a)), a, 1.0)
    share, pair = np.nonzero(group[:, None] == near[None, :])
    entries.add(share, model.n[pairs][pair], -1.0)
    builder.add_rows(
        "served_by", len(a), entries, upper=0.0, c=c, p=arrays.rate_population[rate], g=group
    )
    if demand.copy_rps is not None:
        entries = Entries()
        entries.add(np.searchsorted(here, group), a, arrays.rate[rate])
        entries.add(np.searchsorted(here, near), model.n[pairs], -demand.copy_rps)
        builder.add_rows("busy", len(here), entries, upper=0.0, c=c, g=here)
    return a, rate, group


def _not_while_served(model: Model, c: int, of: Ints, far: Floats, z: Ints) -> None:
    arrays, pairs = model.arrays, model.arrays.of(c)
    limit = bound_ms(arrays.demand(c), None)
    population = arrays.rate_population[arrays.rate_class == c]
    near = far[population[:, None], of[arrays.pair_host[pairs]][None, :]] <= limit
    row, pair = np.nonzero(near)
    most = arrays.most[pairs][pair].astype(float)
    entries = Entries()
    number = np.arange(len(row))
    entries.add(number, model.n[pairs][pair], 1.0)
    entries.add(number, z[row], most)
    model.builder.add_rows("not_while_served", len(row), entries, upper=most, c=c, i=number)


def latency(model: Model) -> Linear:
    """Sum over c,p of rate[c,p] * latency[p,h] * share, for all requests that are served."""
    arrays, found = model.arrays, Linear()
    straight = direct_classes(arrays)
    requests_s = np.bincount(arrays.rate_class, arrays.rate, minlength=arrays.classes)
    wanted = (straight & (requests_s > 0))[arrays.pair_class]
    if wanted.any():
        weight = requests_s[arrays.pair_class] * arrays.mean_latency()
        found.add(model.n[wanted], weight[wanted])
    if not straight[arrays.rate_class].all():
        some = shares(model)
        _, far = groups(arrays)
        ms = np.minimum(far[arrays.rate_population[some.rate], some.group], UNREACHABLE_MS)
        found.add(some.column, arrays.rate[some.rate] * ms)
    return found


def unserved(model: Model) -> Linear:
    """Sum over soft c,p of rate[c,p] * (u[c] or z[c,p])."""
    arrays, found = model.arrays, Linear()
    straight = direct_classes(arrays)
    requests_s = np.bincount(arrays.rate_class, arrays.rate, minlength=arrays.classes)
    alone = np.flatnonzero(straight & (model.left_out >= 0) & (requests_s > 0))
    found.add(model.left_out[alone], requests_s[alone])
    if not straight[arrays.rate_class].all():
        z = shares(model).unserved
        found.add(z[z >= 0], arrays.rate[z >= 0])
    return found


def percentile(model: Model, rule: Percentile) -> None:
    """Sum over p and near g of rate[c,p] * a[c,p,g] + v >= share * rate[c] * P[c]."""
    arrays = model.arrays
    for name in sorted(rule.demands):
        c, demand = model.demand(name)
        rows = np.flatnonzero(arrays.rate_class == c)
        if not len(rows):
            continue
        wanted = rule.share * float(arrays.rate[rows].sum())
        found = Linear()
        if direct(demand):
            pairs = arrays.of(c)
            far = arrays.latency[arrays.rate_population[rows]][:, arrays.pair_host[pairs]]
            found.add(model.n[pairs], arrays.rate[rows] @ (far <= rule.within_ms))
        else:
            some = shares(model)
            _, far = groups(arrays)
            mine = arrays.rate_class[some.rate] == c
            rate, group = some.rate[mine], some.group[mine]
            near = far[arrays.rate_population[rate], group] <= rule.within_ms
            found.add(some.column[mine][near], arrays.rate[rate][near])
        if (present := model.present(c)) is not None:
            found.add(present, -wanted)
            wanted = 0.0
        if (v := model.wish(rule, 1, math.inf)) is not None:
            found.add(v, 1.0)
        model.builder.add_row("percentile", found, lower=wanted - 1e-9)

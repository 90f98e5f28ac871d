"""Rules about hosts: wishes to avoid them, and what they may hold."""

import numpy as np

from placement.matrix import INF, Entries
from placement.model import Model
from placement.rules import Ban, Fence, MaxOnline, Overbook, Preserve


def banned(model: Model, rule: Ban | Fence) -> None:
    """Charge each copy on a host that is banned, or outside the fence.

    As a must, such pairs were never made.
    """
    if rule.must:
        return
    pairs = model.pairs_of(rule.demands)
    wrong = model.mask_of(rule.hosts)[model.arrays.pair_host[pairs]]
    if isinstance(rule, Fence):
        wrong = ~wrong
    model.broken.add(model.n[pairs[wrong]], rule.weight)


def preserve(model: Model, rule: Preserve) -> None:
    """Sum over c,f of need * n, at least `amount` for copies of D, <= room[h,k] + v[h]."""
    arrays = model.arrays
    k = arrays.resources.index(rule.resource)
    need = arrays.need[:, k].copy()
    mine = model.pairs_of(rule.demands)
    need[mine] = np.maximum(need[mine], rule.amount)
    hosts = np.unique(arrays.pair_host[mine])
    row = np.full(len(arrays.hosts), -1)
    row[hosts] = np.arange(len(hosts))
    inside = row[arrays.pair_host] >= 0
    entries = Entries()
    entries.add(row[arrays.pair_host[inside]], model.n[inside], need[inside])
    if (v := model.wish(rule, len(hosts), INF)) is not None:
        entries.add(np.arange(len(hosts)), v, -1.0)
    i = np.arange(len(hosts)) + model.wishes
    model.wishes += len(hosts)
    model.builder.add_rows("preserve", len(hosts), entries, upper=arrays.room[hosts, k], i=i)


def overbook(model: Model, rule: Overbook) -> None:
    """Sum over c,f of need * n <= factor * physical[h,k] + v[h], on the hosts named."""
    arrays = model.arrays
    k = arrays.resources.index(rule.resource)
    hosts = np.flatnonzero(model.mask_of(rule.hosts))
    row = np.full(len(arrays.hosts), -1)
    row[hosts] = np.arange(len(hosts))
    inside = row[arrays.pair_host] >= 0
    entries = Entries()
    entries.add(row[arrays.pair_host[inside]], model.n[inside], arrays.need[inside, k])
    if (v := model.wish(rule, len(hosts), INF)) is not None:
        entries.add(np.arange(len(hosts)), v, -1.0)
    i = np.arange(len(hosts)) + model.wishes
    model.wishes += len(hosts)
    upper = rule.factor * arrays.physical[hosts, k]
    model.builder.add_rows("overbook", len(hosts), entries, upper=upper, i=i)


def max_online(model: Model, rule: MaxOnline) -> None:
    """Sum over the hosts of y[h] <= limit + v."""
    entries = Entries()
    entries.add(0, model.on()[model.mask_of(rule.hosts)], 1.0)
    if (v := model.wish(rule, 1, INF)) is not None:
        entries.add(0, v, -1.0)
    model.builder.add_rows("online", 1, entries, upper=float(rule.limit), i=model.wishes)
    model.wishes += 1

"""Where copies go: all are placed, hosts have room for them, and a host with any is on."""

import numpy as np

from placement.matrix import Entries
from placement.model import Model


def counts(model: Model) -> None:
    """Sum over h,f of n[c,h,f] + u[c] = copies[c], or copies[c] * alpha[s] in a slice s.

    u only where demands are soft, alpha only where the slice may be refused.
    """
    arrays = model.arrays
    wanted = np.flatnonzero(arrays.copies > 0)
    row = np.cumsum(arrays.copies > 0) - 1
    entries = Entries()
    entries.add(row[arrays.pair_class], model.n, 1.0)
    soft = wanted[model.left_out[wanted] >= 0]
    entries.add(row[soft], model.left_out[soft], 1.0)
    right = arrays.copies[wanted].astype(float)
    if model.admitted:
        for c in wanted.tolist():
            alpha = model.admission(c)
            if alpha is not None:
                entries.add(row[c], alpha, -float(arrays.copies[c]))
                right[row[c]] = 0.0
    model.builder.add_rows("copies", len(wanted), entries, lower=right, upper=right, c=wanted)


def apart(model: Model) -> None:
    """Sum over f of n[c,h,f] <= members[c], where copies of one demand never share a host.

    With one flavour the bound of n says the same.
    """
    arrays = model.arrays
    key = arrays.pair_class * max(len(arrays.hosts), 1) + arrays.pair_host
    spots, row, times = np.unique(key, return_inverse=True, return_counts=True)
    alone = np.array([not arrays.demand(c).share_host for c in range(arrays.classes)], dtype=bool)
    wanted = (times > 1) & alone[spots // max(len(arrays.hosts), 1)]
    number = np.cumsum(wanted) - 1
    inside = wanted[row]
    entries = Entries()
    entries.add(number[row[inside]], model.n[inside], 1.0)
    spots = spots[wanted]
    c, h = np.divmod(spots, max(len(arrays.hosts), 1))
    model.builder.add_rows("apart", len(spots), entries, upper=arrays.many[c], c=c, h=h)


def one_flavour(model: Model) -> None:
    """n[c,h,f] <= most[c,h,f] * z[c,f] and sum over f of z[c,f] <= 1, where copies are alike."""
    arrays = model.arrays
    for c in range(arrays.classes):
        demand = arrays.demand(c)
        if not demand.one_flavour or len(demand.flavours) < 2 or demand.replicas < 2:
            continue
        pairs = arrays.of(c)
        chosen, row = np.unique(arrays.pair_flavour[pairs], return_inverse=True)
        z = model.builder.add_columns("z", len(chosen), 1, integer=True, c=c, f=chosen)
        entries = Entries()
        number = np.arange(len(row))
        entries.add(number, model.n[pairs], 1.0)
        entries.add(number, z[row], -arrays.most[pairs].astype(float))
        model.builder.add_rows("alike", len(row), entries, upper=0.0, c=c, i=number)
        entries = Entries()
        entries.add(0, z, 1.0)
        model.builder.add_rows("one_flavour", 1, entries, upper=1.0, c=c)


def capacity(model: Model) -> None:
    """Sum over c,f of need[c,h,f,k] * n[c,h,f] <= room[h,k] * y[h]; without y where none counts."""
    arrays = model.arrays
    for k in range(len(arrays.resources)):
        some = arrays.need[:, k] > 0
        host, need = arrays.pair_host[some], arrays.need[some, k]
        full = np.bincount(host, need * arrays.most[some], minlength=len(arrays.hosts))
        wanted = full > (arrays.room[:, k] if model.y is None else 0)
        row = np.cumsum(wanted) - 1
        inside = wanted[host]
        entries = Entries()
        entries.add(row[host[inside]], model.n[some][inside], need[inside])
        hosts = np.flatnonzero(wanted)
        upper = arrays.room[hosts, k]
        if model.y is not None:
            entries.add(row[hosts], model.y[hosts], -upper)
            upper = np.zeros(len(hosts))
        model.builder.add_rows("capacity", len(hosts), entries, upper=upper, h=hosts, k=k)


def links(model: Model) -> None:
    """n[c,h,f] <= most[c,h,f] * y[h]: the tight link.

    Capacity implies it for whole n, so these rows may be left out, but for copies that need
    nothing.
    """
    if model.y is None:
        return
    arrays = model.arrays
    free = ~(arrays.need > 0).any(axis=1)
    for pairs, implied in ((np.flatnonzero(free), False), (np.flatnonzero(~free), True)):
        row = np.arange(len(pairs))
        entries = Entries()
        entries.add(row, model.n[pairs], 1.0)
        entries.add(row, model.y[arrays.pair_host[pairs]], -arrays.most[pairs].astype(float))
        model.builder.add_rows(
            "link",
            len(pairs),
            entries,
            upper=0.0,
            implied=implied,
            c=arrays.pair_class[pairs],
            h=arrays.pair_host[pairs],
            f=arrays.pair_flavour[pairs],
        )

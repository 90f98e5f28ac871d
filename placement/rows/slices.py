"""Slices: a share of every host that is kept for them, and hosts of their own."""

import numpy as np

from placement.matrix import Entries
from placement.model import Model
from placement.rows.relations import alone


def shares(model: Model) -> None:
    """Q[s,h] >= need of s on h, Q[s,h] >= share[s,k] * room[h,k] * alpha[s],
    and sum over s of Q[s,h] + need of all others on h <= room[h,k], for each resource k.
    """  # noqa: D205 - the formula is the summary
    arrays = model.arrays
    hosts = np.arange(len(arrays.hosts))
    for k, resource in enumerate(arrays.resources):
        owners = [
            (s, each)
            for s, each in enumerate(arrays.problem.slices)
            if each.share.get(resource, 0.0) > 0
        ]
        if not owners:
            continue
        room = Entries()
        others = np.ones(arrays.pairs, dtype=bool)
        for s, each in owners:
            pairs = model.pairs_of(each.demands)
            others[pairs] = False
            q = model.builder.add_columns("Q", len(hosts), arrays.room[:, k], s=s, h=hosts, k=k)
            used = Entries()
            used.add(arrays.pair_host[pairs], model.n[pairs], arrays.need[pairs, k])
            used.add(hosts, q, -1.0)
            model.builder.add_rows("quota", len(hosts), used, upper=0.0, s=s, h=hosts, k=k)
            kept = Entries()
            kept.add(hosts, q, 1.0)
            least = each.share[resource] * arrays.room[:, k]
            if (alpha := model.admitted.get(each.name)) is not None:
                kept.add(hosts, alpha, -least)
                least = np.zeros(len(hosts))
            model.builder.add_rows("share", len(hosts), kept, lower=least, s=s, h=hosts, k=k)
            room.add(hosts, q, 1.0)
        room.add(arrays.pair_host[others], model.n[others], arrays.need[others, k])
        model.builder.add_rows("quotas", len(hosts), room, upper=arrays.room[:, k], h=hosts, k=k)


def isolation(model: Model) -> None:
    """Give an isolated slice hosts of its own: see `placement.rows.relations.alone`."""
    for each in model.arrays.problem.slices:
        if each.isolated:
            inside = np.zeros(model.arrays.pairs, dtype=bool)
            inside[model.pairs_of(each.demands)] = True
            alone(model, inside, None)

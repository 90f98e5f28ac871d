"""What moves: copies that stay where they run, the room both sides hold, and rules about both."""

import numpy as np

from placement.classes import flavours, need
from placement.matrix import INF, Entries, Floats, Ints, Linear
from placement.model import Model, Stays
from placement.problem import MAKE_BEFORE_BREAK
from placement.rules import MigrationBudget, Quarantine, Root


def stays(model: Model) -> Stays:
    """Return how many copies stay, made once.

    keep[c,h] <= now[c,h] and keep[c,h] <= sum over f of n[c,h,f]; where n cannot exceed now, the
    sum itself.
    """
    if model.stays is not None:
        return model.stays
    arrays = model.arrays
    hosts = max(len(arrays.hosts), 1)
    key = arrays.pair_class * hosts + arrays.pair_host
    now = arrays.now_class * hosts + arrays.now_host
    low, high = np.searchsorted(key, now, "left"), np.searchsorted(key, now, "right")
    entry = np.repeat(np.arange(len(now)), high - low)
    pair = _spans(low, high)
    most = np.bincount(entry, arrays.most[pair], minlength=len(now))
    apart = np.array([not arrays.demand(int(c)).share_host for c in arrays.now_class], dtype=bool)
    most = np.where(apart, np.minimum(most, arrays.many[arrays.now_class]), most)
    capped = np.flatnonzero(most > arrays.now_count)
    keep = model.builder.add_columns(
        "keep",
        len(capped),
        arrays.now_count[capped],
        integer=True,
        c=arrays.now_class[capped],
        h=arrays.now_host[capped],
    )
    row = np.full(len(now), -1)
    row[capped] = np.arange(len(capped))
    inside = row[entry] >= 0
    entries = Entries()
    entries.add(np.arange(len(capped)), keep, 1.0)
    entries.add(row[entry[inside]], model.n[pair[inside]], -1.0)
    model.builder.add_rows(
        "keep",
        len(capped),
        entries,
        upper=0.0,
        c=arrays.now_class[capped],
        h=arrays.now_host[capped],
    )
    model.stays = Stays(
        np.concatenate((entry[~inside], capped)),
        np.concatenate((model.n[pair[~inside]], keep)),
    )
    return model.stays


def moved(model: Model, cost: Floats) -> Linear:
    """Sum over demands of cost * (min(copies now, replicas) - copies that stay), cost per class."""
    arrays, found = model.arrays, Linear()
    demands, current = arrays.problem.demands, arrays.problem.current
    for c, members in enumerate(arrays.members):
        for index in members if current else ():
            now = len(current.get(demands[index].name, ()))
            found.constant += float(cost[c]) * min(now, demands[index].replicas)
    some = stays(model)
    found.add(some.column, -cost[arrays.now_class[some.entry]])
    return found


def both_sides(model: Model) -> None:
    """Sum over c,f of need * n + sum over c of need * (now[c,h] - keep[c,h]) <= room[h,k].

    For the resources held while moving, and demands that are made before broken. A copy that
    leaves needs what its first flavour needs there.
    """
    arrays = model.arrays
    before = np.array(
        [arrays.demand(int(c)).move == MAKE_BEFORE_BREAK for c in arrays.now_class], dtype=bool
    )
    if not before.any():
        return
    some = stays(model)
    held = sorted(arrays.problem.held_while_moving & set(arrays.resources))
    for k in (arrays.resources.index(name) for name in held):
        old = np.zeros(len(before))
        for i in np.flatnonzero(before):
            demand = arrays.demand(int(arrays.now_class[i]))
            host = arrays.hosts[arrays.now_host[i]]
            old[i] = need(demand, flavours(demand)[0], host).get(arrays.resources[k], 0.0)
        hosts = np.unique(arrays.now_host[old > 0])
        row = np.full(len(arrays.hosts), -1)
        row[hosts] = np.arange(len(hosts))
        taken = np.bincount(arrays.now_host, old * arrays.now_count, minlength=len(arrays.hosts))
        entries = Entries()
        inside = row[arrays.pair_host] >= 0
        entries.add(row[arrays.pair_host[inside]], model.n[inside], arrays.need[inside, k])
        leaving = old[some.entry] > 0
        entry = some.entry[leaving]
        entries.add(row[arrays.now_host[entry]], some.column[leaving], -old[entry])
        upper = arrays.room[hosts, k] - taken[hosts]
        model.builder.add_rows("both_sides", len(hosts), entries, upper=upper, h=hosts, k=k)


def budget(model: Model, rule: MigrationBudget) -> None:
    """Bound what moves: moved copies <= limit + v."""
    found = moved(model, np.ones(model.arrays.classes))
    if (v := model.wish(rule, 1, INF)) is not None:
        found.add(v, -1.0)
    model.builder.add_row("budget", found, upper=float(rule.limit))


def root(model: Model, rule: Root) -> None:
    """keep[c,h] = now[c,h]; a wish costs now[c,h] - keep[c,h]."""
    classes = [model.class_of[name] for name in rule.demands]
    _held(model, np.flatnonzero(np.isin(model.arrays.now_class, classes)), rule, 1.0)


def quarantine(model: Model, rule: Quarantine) -> None:
    """n[c,h] = now[c,h] on the hosts; a wish costs n[c,h] + now[c,h] - 2 keep[c,h]."""
    arrays = model.arrays
    closed = model.mask_of(rule.hosts)
    pairs = closed[arrays.pair_host]
    inside = np.flatnonzero(closed[arrays.now_host])
    if rule.must:
        hosts = max(len(arrays.hosts), 1)
        spots = (arrays.now_class * hosts + arrays.now_host)[inside]
        keys = (arrays.pair_class * hosts + arrays.pair_host)[pairs]
        known = np.isin(keys, spots)
        entries = Entries()
        entries.add(np.searchsorted(spots, keys[known]), model.n[pairs][known], 1.0)
        right = arrays.now_count[inside].astype(float)
        c, h = arrays.now_class[inside], arrays.now_host[inside]
        model.builder.add_rows(
            "quarantine", len(inside), entries, lower=right, upper=right, c=c, h=h
        )
        return  # all other pairs there were closed when the problem was compiled
    model.broken.add(model.n[pairs], rule.weight)
    _held(model, inside, rule, 2.0)
    model.broken.constant -= rule.weight * float(arrays.now_count[inside].sum())


def _held(model: Model, which: Ints, rule: Root | Quarantine, times: float) -> None:
    """Keep entries of ``now`` where they are, or charge those that leave."""
    some, now = stays(model), model.arrays.now_count
    inside = np.isin(some.entry, which)
    if not rule.must:
        model.broken.add(some.column[inside], -times * rule.weight)
        model.broken.constant += times * rule.weight * float(now[which].sum())
        return
    row = np.full(len(now), -1)
    row[which] = np.arange(len(which))
    entries = Entries()
    entries.add(row[some.entry[inside]], some.column[inside], 1.0)
    c, h = model.arrays.now_class[which], model.arrays.now_host[which]
    model.builder.add_rows("root", len(which), entries, lower=now[which], c=c, h=h)


def _spans(low: Ints, high: Ints) -> Ints:
    """Return all numbers of all spans, one after the other."""
    lengths = high - low
    before = np.repeat(np.cumsum(lengths) - lengths, lengths)
    spread: Ints = np.arange(int(lengths.sum())) - before + np.repeat(low, lengths)
    return spread

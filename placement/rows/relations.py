"""Where copies may be relative to each other. Strong forms: cliques and disaggregated links.

Notation: D demands of a rule, d domain, g group of hosts, v how much a wish is broken (absent for a
must), n[D,d] the copies of D in d.
"""

import numpy as np

from placement.matrix import INF, Entries, Ints
from placement.model import Model
from placement.rules import (
    Among,
    Beside,
    Gather,
    Lonely,
    MaxSkew,
    Occupy,
    Split,
    SplitAmong,
    Spread,
)


def spread(model: Model, rule: Spread) -> None:
    """n[D,d] <= 1 + v[d], for each domain d: one row per clique, never one per two copies."""
    pairs = model.pairs_of(rule.demands)
    of, _ = model.arrays.domains(rule.domain)
    here, row = np.unique(of[model.arrays.pair_host[pairs]], return_inverse=True)
    entries = Entries()
    entries.add(row, model.n[pairs], 1.0)
    if (v := model.wish(rule, len(here), INF)) is not None:
        entries.add(np.arange(len(here)), v, -1.0)
    model.builder.add_rows("spread", len(here), entries, upper=1.0, i=_numbers(model, here))


def gather(model: Model, rule: Gather) -> None:
    """All copies in one domain: `among`, with the domains as groups."""
    of, names = model.arrays.domains(rule.domain)
    inside = np.arange(len(names))[:, None] == of[None, :]
    _among(model, rule, inside)


def among(model: Model, rule: Among) -> None:
    """All copies in one of the groups."""
    _among(model, rule, np.array([model.mask_of(group) for group in rule.groups]))


def _among(model: Model, rule: Among | Gather, inside: Ints) -> None:
    """n[c,h,f] <= most * sum over g with h of X[g], sum of X <= 1.

    As a wish: kept[g] <= n[D,g], kept[g] <= all copies * X[g], v = n[D] - sum of kept.
    """
    pairs = model.pairs_of(rule.demands)
    host = model.arrays.pair_host[pairs]
    groups = np.flatnonzero(inside[:, host].any(axis=1)) if len(inside) else np.empty(0, np.int64)
    x = model.builder.add_columns("X", len(groups), 1, integer=True, i=_numbers(model, groups))
    entries = Entries()
    entries.add(0, x, 1.0)
    model.builder.add_rows("one_group", int(bool(len(x))), entries, upper=1.0, i=model.wishes)
    of, pair = np.nonzero(inside[groups][:, host]) if len(groups) else (groups, groups)
    most = model.arrays.most[pairs].astype(float)
    if rule.must:
        entries = Entries()
        entries.add(np.arange(len(pairs)), model.n[pairs], 1.0)
        entries.add(pair, x[of], -most[pair])
        model.builder.add_rows("in_group", len(pairs), entries, upper=0.0, i=_numbers(model, pairs))
        return
    _kept(model, rule.weight, pairs, (of, pair), x)


def _kept(model: Model, weight: float, pairs: Ints, inside: tuple[Ints, Ints], x: Ints) -> None:
    """Charge the copies of pairs that are in no chosen group.

    kept[g] <= n[D,g] and kept[g] <= all copies * X[g]; the charge is n[D] - sum of kept.
    """
    of, pair = inside
    all_copies = float(model.arrays.copies[np.unique(model.arrays.pair_class[pairs])].sum())
    kept = model.builder.add_columns("kept", len(x), all_copies, integer=True, i=_numbers(model, x))
    entries = Entries()
    entries.add(np.arange(len(x)), kept, 1.0)
    entries.add(of, model.n[pairs[pair]], -1.0)
    model.builder.add_rows("kept", len(x), entries, upper=0.0, i=_numbers(model, x))
    entries = Entries()
    entries.add(np.arange(len(x)), kept, 1.0)
    entries.add(np.arange(len(x)), x, -all_copies)
    model.builder.add_rows("kept_in", len(x), entries, upper=0.0, i=_numbers(model, x))
    model.broken.add(model.n[pairs], weight)
    model.broken.add(kept, -weight)


def cliques(rules: tuple[Split, ...]) -> list[tuple[str, ...]]:
    """Return sets of demands that are mutually apart, covering every two that some rule parts.

    Only for rules whose sets have one demand each.
    """
    apart: dict[str, set[str]] = {}
    for rule in rules:
        names = {name for each in rule.sets for name in each}
        for name in names:
            apart.setdefault(name, set()).update(names - {name})
    covered: set[frozenset[str]] = set()
    found: list[tuple[str, ...]] = []
    for first in sorted(apart):
        for second in sorted(apart[first]):
            if frozenset((first, second)) in covered:
                continue
            clique = [first, second]
            for third in sorted(apart[first] & apart[second]):
                if apart[third].issuperset(clique):
                    clique.append(third)
            covered.update(frozenset((a, b)) for a in clique for b in clique if a != b)
            found.append(tuple(clique))
    return found


def split(model: Model, rule: Split) -> None:
    """Part sets: n[c,h,f] <= most * z[D,d] and sum over sets D of z[D,d] <= 1 + v[d].

    z is n itself where a set has one single copy to offer in the domain.
    """
    of, _ = model.arrays.domains(rule.domain)
    domains, columns = [], []
    for number, names in enumerate(rule.sets):
        pairs = model.pairs_of(names)
        here, row, times = np.unique(
            of[model.arrays.pair_host[pairs]], return_inverse=True, return_counts=True
        )
        most = model.arrays.most[pairs]
        full = np.bincount(row, most, minlength=len(here))
        z = np.full(len(here), -1)
        single = (times == 1) & (full == 1)
        alone = single[row]
        z[row[alone]] = model.n[pairs[alone]]
        some = np.flatnonzero(~single)
        z[some] = model.builder.add_columns(
            "s", len(some), 1, integer=True, i=_numbers(model, some), d=number
        )
        linked = np.flatnonzero(~alone)
        entries = Entries()
        entries.add(np.arange(len(linked)), model.n[pairs[linked]], 1.0)
        entries.add(np.arange(len(linked)), z[row[linked]], -most[linked].astype(float))
        model.builder.add_rows(
            "in_set", len(linked), entries, upper=0.0, i=_numbers(model, linked), d=number
        )
        domains.append(here)
        columns.append(z)
    if not columns:
        return
    here, row, times = np.unique(np.concatenate(domains), return_inverse=True, return_counts=True)
    wanted = times > 1
    place = np.cumsum(wanted) - 1
    inside = wanted[row]
    entries = Entries()
    entries.add(place[row[inside]], np.concatenate(columns)[inside], 1.0)
    count = int(wanted.sum())
    if (v := model.wish(rule, count, INF)) is not None:
        entries.add(np.arange(count), v, -1.0)
    model.builder.add_rows("split", count, entries, upper=1.0, i=_numbers(model, np.arange(count)))


def split_among(model: Model, rule: SplitAmong) -> None:
    """n[c,h,f] <= most * X[D,g(h)], sum over g of X[D,g] <= 1, sum over D of X[D,g] <= 1."""
    inside = np.array([model.mask_of(group) for group in rule.groups])
    count = len(rule.groups)
    x = model.builder.add_columns(
        "X",
        count * len(rule.sets),
        1,
        integer=True,
        i=_numbers(model, np.arange(count * len(rule.sets))),
    ).reshape(len(rule.sets), count)
    for family, grid in (("one_group", x), ("one_set", x.T)):
        entries = Entries()
        row, _ = np.indices(grid.shape)
        entries.add(row.ravel(), grid.ravel(), 1.0)
        numbers = _numbers(model, np.arange(len(grid)))
        model.builder.add_rows(family, len(grid), entries, upper=1.0, i=numbers)
    for number, names in enumerate(rule.sets):
        pairs = model.pairs_of(names)
        host = model.arrays.pair_host[pairs]
        of, pair = np.nonzero(inside[:, host]) if count else (pairs[:0], pairs[:0])
        if not rule.must:
            _kept(model, rule.weight, pairs, (of, pair), x[number])
            continue
        entries = Entries()
        entries.add(np.arange(len(pairs)), model.n[pairs], 1.0)
        entries.add(pair, x[number][of], -model.arrays.most[pairs][pair].astype(float))
        model.builder.add_rows(
            "in_group", len(pairs), entries, upper=0.0, i=_numbers(model, pairs), d=number
        )


def lonely(model: Model, rule: Lonely) -> None:
    """N <= most * z[h] for D, and n <= most * (1 - z[h] + v[h]) for all others."""
    inside = np.zeros(model.arrays.pairs, dtype=bool)
    inside[model.pairs_of(rule.demands)] = True
    alone(model, inside, rule)


def alone(model: Model, inside: Ints, rule: Lonely | None) -> None:
    """Keep pairs that are inside and all others on different hosts; with a wish, charge hosts."""
    host = model.arrays.pair_host
    both = np.intersect1d(host[inside], host[~inside])
    row = np.full(len(model.arrays.hosts), -1)
    row[both] = np.arange(len(both))
    z = model.builder.add_columns("l", len(both), 1, integer=True, i=_numbers(model, both), h=both)
    v = model.wish(rule, len(both), 1, whole=True) if rule is not None else None
    most = model.arrays.most.astype(float)
    for mine, sign in ((inside, -1.0), (~inside, 1.0)):
        pairs = np.flatnonzero(mine & (row[host] >= 0))
        entries = Entries()
        number = np.arange(len(pairs))
        entries.add(number, model.n[pairs], 1.0)
        entries.add(number, z[row[host[pairs]]], sign * most[pairs])
        if v is not None and sign > 0:
            entries.add(number, v[row[host[pairs]]], -most[pairs])
        upper = most[pairs] if sign > 0 else 0.0
        model.builder.add_rows("lonely", len(pairs), entries, upper=upper, i=_numbers(model, pairs))


def beside(model: Model, rule: Beside) -> None:
    """n[c,h,f] <= most * n[of,d(h)]; as a wish n[c,d] <= all copies * n[of,d] + v[d]."""
    arrays = model.arrays
    domain, _ = arrays.domains(rule.domain)
    mine = model.pairs_of(frozenset({rule.demand}))
    theirs = model.pairs_of(frozenset({rule.of}))
    where, there = domain[arrays.pair_host[mine]], domain[arrays.pair_host[theirs]]
    most = arrays.most[mine].astype(float)
    entries = Entries()
    if rule.must:
        row, pair = np.nonzero(where[:, None] == there[None, :])
        entries.add(np.arange(len(mine)), model.n[mine], 1.0)
        entries.add(row, model.n[theirs][pair], -most[row])
        model.builder.add_rows("beside", len(mine), entries, upper=0.0, i=_numbers(model, mine))
        return
    here, row = np.unique(where, return_inverse=True)
    copies = float(arrays.copies[model.class_of[rule.demand]])
    entries.add(row, model.n[mine], 1.0)
    at, pair = np.nonzero(here[:, None] == there[None, :])
    entries.add(at, model.n[theirs][pair], -copies)
    v = model.wish(rule, len(here), copies)
    entries.add(np.arange(len(here)), v if v is not None else 0, -1.0)
    model.builder.add_rows("beside", len(here), entries, upper=0.0, i=_numbers(model, here))


def occupy(model: Model, rule: Occupy) -> None:
    """Y[d] <= n[D,d] and sum over d of Y[d] + v >= at_least * P[c], for each demand c of D."""
    pairs = model.pairs_of(rule.demands)
    of, _ = model.arrays.domains(rule.domain)
    here, row = np.unique(of[model.arrays.pair_host[pairs]], return_inverse=True)
    y = model.builder.add_columns("Y", len(here), 1, integer=True, i=_numbers(model, here))
    entries = Entries()
    entries.add(np.arange(len(here)), y, 1.0)
    entries.add(row, model.n[pairs], -1.0)
    model.builder.add_rows("occupied", len(here), entries, upper=0.0, i=_numbers(model, here))
    v = model.wish(rule, 1, rule.at_least)
    for c in sorted({model.class_of[name] for name in rule.demands}):
        if not model.arrays.copies[c]:
            continue
        entries = Entries()
        entries.add(0, y, 1.0)
        least = float(rule.at_least)
        if (present := model.present(c)) is not None:
            entries.add(0, present, -least)
            least = 0.0
        if v is not None:
            entries.add(0, v, 1.0)
        model.builder.add_rows("occupy", 1, entries, lower=least, c=c)


def max_skew(model: Model, rule: MaxSkew) -> None:
    """Level copies: m <= n[c,d] <= m + skew + v, for every domain d, also those c cannot use."""
    of, names = model.arrays.domains(rule.domain)
    for demand in sorted(rule.demands):
        c = model.class_of[demand]
        pairs = model.arrays.of(c)
        m = model.builder.add_columns(
            "m", 1, float(model.arrays.copies[c]), integer=True, c=c, i=model.wishes
        )
        v = model.wish(rule, 1, INF)
        row = of[model.arrays.pair_host[pairs]]
        for sign in (1.0, -1.0):
            entries = Entries()
            entries.add(row, model.n[pairs], sign)
            entries.add(np.arange(len(names)), m, -sign)
            if v is not None and sign > 0:
                entries.add(np.arange(len(names)), v, -1.0)
            upper = float(rule.skew) if sign > 0 else 0.0
            model.builder.add_rows("skew", len(names), entries, upper=upper, c=c)


def _numbers(model: Model, like: Ints) -> Ints:
    """Return numbers for names that no other rule uses."""
    first = model.wishes
    model.wishes += len(like)
    return np.arange(first, model.wishes)

"""Churn replayed: an algorithm is asked anew in every epoch, and knows what runs where.

Copies on hosts that failed are lost. What an algorithm finds no place for is left out, epoch by
epoch, and counted as unserved. Migrations are counted here, from the plans themselves.
"""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from statistics import fmean
from typing import Any

from placement.generate import _make
from placement.generate.churn import Epoch
from placement.problem import Options, Plan, Problem
from placement.study import seam

Sites = Mapping[str, tuple[str, ...]]


@dataclass(slots=True)
class Tally:
    """What has been counted over the epochs so far."""

    plans: list[Plan] = field(default_factory=list)
    hosts_on: list[int] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)
    migrations: int = 0
    restarts: int = 0
    unserved: list[float] = field(default_factory=list)


def replay(epochs: Sequence[Epoch], algorithm: seam.Algorithm, options: Options) -> dict[str, Any]:
    """Return the row of a replay.

    `value`, the terms, `gap` and `hosts_on` are means over the epochs, `seconds` is a sum.
    `migrations` counts copies that moved although their host was up, `restarts` those that were
    lost with a host and run again elsewhere; `unserved` is the share of all requests, over all
    epochs, whose service had no place.
    """
    tally = Tally()
    current: Sites = {}
    for epoch in epochs:
        current = _step(epoch.problem, current, partial(_planned, algorithm, options), tally)
    if not tally.plans:
        return {"status": "infeasible", "message": "no epoch had a plan", "epochs": len(epochs)}
    return {
        "status": "invalid" if tally.wrong else "ok",
        "message": "; ".join(tally.wrong[:3]),
        "value": fmean(plan.value for plan in tally.plans),
        "bound": _mean([plan.bound for plan in tally.plans]),
        "gap": _mean([plan.gap for plan in tally.plans]),
        "seconds": sum(plan.seconds for plan in tally.plans),
        **{term: fmean(p.terms[term] for p in tally.plans) for term in tally.plans[0].terms},
        "hosts_on": fmean(tally.hosts_on),
        "migrations": tally.migrations,
        "restarts": tally.restarts,
        "unserved": fmean(tally.unserved),
        "epochs": len(epochs),
    }


def _step(
    problem: Problem,
    before: Sites,
    planned: Callable[[Problem], tuple[Plan | None, Problem]],
    tally: Tally,
) -> Sites:
    """Plan one epoch, count, and return where copies run then."""
    up = set(_make.host_names(problem))
    wanted = _make.rates(problem)
    kept = {
        name: tuple(host for host in hosts if host in up)
        for name, hosts in before.items()
        if name in wanted
    }
    asked = _make.with_current(problem, kept)
    plan, asked = planned(asked)
    after: Sites = seam.placed(plan) if plan else {}
    served = _make.rates(asked) if plan else {}
    total = sum(sum(each.values()) for each in wanted.values())
    lost = sum(sum(each.values()) for name, each in wanted.items() if name not in served)
    number = len(tally.unserved)
    tally.unserved.append(lost / total if total else 0.0)
    if plan:
        tally.plans.append(plan)
        tally.hosts_on.append(len({host for hosts in after.values() for host in hosts}))
        tally.wrong += [f"epoch {number}: {each}" for each in seam.violations(asked, plan)]
    moved, restarted = _moves({name: before[name] for name in kept}, kept, after)
    tally.migrations += moved
    tally.restarts += restarted
    return after


def _planned(
    algorithm: seam.Algorithm, options: Options, problem: Problem
) -> tuple[Plan | None, Problem]:
    """Return a plan and the problem it answers: with fewer demands where there is no other."""
    while demands := set(_make.rates(problem)):
        try:
            return algorithm.solve(problem, options), problem
        except seam.NoPlan as error:
            hopeless = seam.left_out(error) & demands
        if not hopeless:
            break
        hosts = _make.host_names(problem)
        problem = _make.part(problem, hosts=hosts, demands=demands - hopeless)
    return None, problem


def _moves(before: Sites, kept: Sites, after: Sites) -> tuple[int, int]:
    """Return how many copies moved of their own, and how many had to because a host failed.

    A copy that is only stopped is neither.
    """
    moved = restarted = 0
    for name, hosts in before.items():
        new = Counter(after.get(name, ())) - Counter(kept[name])
        left = Counter(kept[name]) - Counter(after.get(name, ()))
        lost = len(hosts) - len(kept[name])
        again = min(new.total(), lost)
        restarted += again
        moved += min(new.total() - again, left.total())
    return moved, restarted


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return fmean(known) if len(known) == len(values) else None

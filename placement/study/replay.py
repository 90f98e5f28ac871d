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

Places = Mapping[str, tuple[str, ...]]


@dataclass(slots=True)
class Tally:
    """What has been counted over the epochs so far; `plans` are those that are right.

    `epochs` has what happened in each: `placement.study.table.TIMELINE`.
    """

    plans: list[Plan] = field(default_factory=list)
    hosts_on: list[int] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)
    migrations: int = 0
    restarts: int = 0
    unserved: list[float] = field(default_factory=list)
    epochs: list[list[float | None]] = field(default_factory=list)


def replay(epochs: Sequence[Epoch], algorithm: seam.Algorithm, options: Options) -> dict[str, Any]:
    """Return the row of a replay.

    `value`, the terms, `gap` and `hosts_on` are means over the epochs, `seconds` is a sum; of plans
    that are wrong, only hosts and moves count.
    `migrations` counts copies that moved although their host was up, `restarts` those that were
    lost with a host and run again elsewhere; `unserved` is the share of all requests, over all
    epochs, whose service had no place. ``plan`` is where copies run in the last epoch, and
    ``timeline`` has every epoch.
    """
    tally = Tally()
    current: Places = {}
    for epoch in epochs:
        current = _step(epoch, current, partial(_planned, algorithm, options), tally)
    if not tally.hosts_on:
        return {"status": "infeasible", "message": "no epoch had a plan", "epochs": len(epochs)}
    return {
        "status": "invalid" if tally.wrong else "ok",
        "message": "; ".join(tally.wrong[:3]),
        **_means(tally.plans),
        "hosts_on": fmean(tally.hosts_on),
        "migrations": tally.migrations,
        "restarts": tally.restarts,
        "unserved": fmean(tally.unserved),
        "epochs": len(epochs),
        "plan": dict(current),
        "timeline": tally.epochs,
    }


def _step(
    epoch: Epoch,
    before: Places,
    planned: Callable[[Problem], tuple[Plan | None, Problem]],
    tally: Tally,
) -> Places:
    """Plan one epoch, count, and return where copies run then."""
    problem = epoch.problem
    up = set(_make.host_names(problem))
    wanted = _make.rates(problem)
    kept = {
        name: tuple(host for host in hosts if host in up)
        for name, hosts in before.items()
        if name in wanted
    }
    asked = _make.with_current(problem, kept)
    plan, asked = planned(asked)
    after: Places = seam.placed(plan) if plan else {}
    served = _make.rates(asked) if plan else {}
    total = sum(sum(each.values()) for each in wanted.values())
    lost = sum(sum(each.values()) for name, each in wanted.items() if name not in served)
    number = len(tally.unserved)
    tally.unserved.append(lost / total if total else 0.0)
    if plan:
        tally.hosts_on.append(len({host for hosts in after.values() for host in hosts}))
        wrong = seam.violations(asked, plan)
        tally.wrong += [f"epoch {number}: {each}" for each in wrong]
        tally.plans += [] if wrong else [plan]
    moved, restarted = _moves({name: before[name] for name in kept}, kept, after)
    tally.migrations += moved
    tally.restarts += restarted
    on = len({host for hosts in after.values() for host in hosts})
    happened = [epoch.arrived, epoch.departed, epoch.moved, epoch.failed]
    found = [plan.value, plan.seconds] if plan else [None, None]
    tally.epochs.append([*happened, *found, on, moved, restarted, tally.unserved[-1]])
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


def _moves(before: Places, kept: Places, after: Places) -> tuple[int, int]:
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


def _means(plans: Sequence[Plan]) -> dict[str, float]:
    """Return what plans that are right have in the mean, and how long they took in all."""
    if not plans:
        return {}
    return {
        "value": fmean(plan.value for plan in plans),
        "bound": fmean(plan.bound for plan in plans),
        "gap": fmean(plan.gap for plan in plans),
        "seconds": sum(plan.seconds for plan in plans),
        **{term: fmean(plan.terms[term] for plan in plans) for term in plans[0].terms},
    }

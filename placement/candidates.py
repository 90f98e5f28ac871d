"""Which hosts can take a demand, and for every other host why not: for people, and for one demand.

The filter of `placement.arrays` asks the same of thousands at once; tests compare them.
`candidates` asks what can never change; `feasible` adds what depends on what already runs. Each
rule is one function that answers with a clause, or with nothing when it has no objection. The
judge in `placement.check` shares none of this.
"""

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from itertools import chain

from placement.classes import flavours, need
from placement.problem import (
    EVERY_COPY,
    HOST,
    MEMORY,
    Amounts,
    Demand,
    Flavour,
    Host,
    Problem,
    Ranking,
)
from placement.rules import Ban, Beside, Fence, Quarantine, Split, Spread

SHOWN_REASONS = 5  # how many hosts an error spells out
ROUNDING = 1e-9  # sums of fractions are not exact
UNITS = {"cpu": "CPU", MEMORY: "MiB of memory"}

_NOTHING: Mapping[str, float] = {}
_FIT: Mapping[str, str] = {}

Check = Callable[[Problem, Demand, Host], str]
Placed = Mapping[str, Collection[str]]


def candidates(problem: Problem, demand: Demand) -> Ranking:
    """Return the hosts where a demand could run if nothing else did, in the problem's order."""
    reasons: dict[str, str] = {}
    for host in problem.hosts:
        for check in CHECKS:
            if reason := check(problem, demand, host):
                reasons[host.name] = reason
                break
    return _ranking(problem, reasons)


def feasible(
    problem: Problem, demand: Demand, used: Mapping[str, Amounts], placed: Placed
) -> Ranking:
    """Return the hosts where one more copy of a demand fits now, in the problem's order.

    `used` is what is taken at each host, `placed` the hosts where copies of each demand run. Of the
    rules that compare demands, must-rules `Split` and `Spread` on hosts and `Beside` are minded.
    """
    reasons = dict(candidates(problem, demand).reasons)
    bonds = _bonds(problem, demand, placed)
    for host in problem.hosts:
        if host.name in reasons:
            continue
        reason = bonds.get(host.name) or _room(demand, host, used)
        if reason:
            reasons[host.name] = reason
    return _ranking(problem, reasons)


def flavour_at(demand: Demand, host: Host, used: Amounts = _NOTHING) -> Flavour | None:
    """Return the first flavour that a host can run with what is left there."""
    for flavour in flavours(demand):
        if host.name not in flavour.unfit and not shortage(
            need(demand, flavour, host.name), host, used
        ):
            return flavour
    return None


def hopeless(problem: Problem) -> dict[str, str]:
    """Return the demands that cannot be placed even if they were alone, and why."""
    replicas = {demand.name: demand.replicas for demand in problem.demands}
    refusable = {
        name for each in problem.slices if each.revenue is not None for name in each.demands
    }
    reasons: dict[str, str] = {}
    for demand in problem.demands:
        least = demand.replicas if demand.least is None else demand.least
        if demand.name in refusable or not least:
            continue
        found = candidates(problem, demand)
        if not found.hosts or (len(found.hosts) < least and not may_share(problem, demand)):
            hosts = "1 host" if least == 1 else f"{least} hosts"
            count = len(found.hosts) or "none"
            why = summary(found.reasons)
            reasons[demand.name] = f"{hosts} wanted, {count} can take it: {why}"
    for rule in problem.rules:
        if isinstance(rule, Beside) and rule.must and rule.domain == HOST:
            mine = next(d for d in problem.demands if d.name == rule.demand)
            alone = mine.least is None and not mine.share_host and mine.name not in refusable
            if alone and replicas[rule.of] < mine.replicas:
                copies = f"{mine.replicas} copies, but only {replicas[rule.of]} of {rule.of}"
                reasons.setdefault(mine.name, f"{copies}, beside which each must be")
    return reasons


def summary(reasons: Mapping[str, str]) -> str:
    """Return the first few reasons as one clause; hosts that share one are named together."""
    hosts: dict[str, list[str]] = {}
    for host, reason in reasons.items():
        hosts.setdefault(reason, []).append(host)
    shown = list(hosts.items())[:SHOWN_REASONS]
    clauses = [f"{_names(those)}: {reason}" for reason, those in shown]
    left = len(reasons) - sum(len(those) for _, those in shown)
    if left:
        clauses.append(f"and {left} more")
    return "; ".join(clauses) or "there are no other hosts"


def _names(hosts: Sequence[str]) -> str:
    """Return the names of the first few hosts."""
    more = [f"and {len(hosts) - SHOWN_REASONS} more"] if len(hosts) > SHOWN_REASONS else []
    return ", ".join([*hosts[:SHOWN_REASONS], *more])


def shortage(wanted: Amounts, host: Host, used: Amounts = _NOTHING) -> str:
    """Return which resource is short, memory first, or an empty string when all fits."""
    first = (MEMORY,) if MEMORY in wanted else ()
    for resource in chain(first, wanted):
        left = host.room(resource) - used.get(resource, 0.0)
        if wanted[resource] > left + ROUNDING:
            unit = UNITS.get(resource, resource)
            return f"needs {wanted[resource]:g} {unit}, {left:g} free"
    return ""


def _ranking(problem: Problem, reasons: Mapping[str, str]) -> Ranking:
    return Ranking(tuple(h.name for h in problem.hosts if h.name not in reasons), reasons)


# --- what a demand asks of a host ---------------------------------------------------------------


def fence(problem: Problem, demand: Demand, host: Host) -> str:
    """Fence: a must-rule lists the hosts it may use."""
    for rule in problem.rules:
        if not isinstance(rule, Fence) or not rule.must or demand.name not in rule.demands:
            continue
        if host.name not in rule.hosts:
            return "not one of the hosts it may run on"
    return ""


def ban(problem: Problem, demand: Demand, host: Host) -> str:
    """Ban: a must-rule lists hosts it may not use."""
    for rule in problem.rules:
        if not isinstance(rule, Ban) or not rule.must or demand.name not in rule.demands:
            continue
        if host.name in rule.hosts:
            return "one of the hosts it must avoid"
    return ""


def quarantine(problem: Problem, demand: Demand, host: Host) -> str:
    """Quarantine: nothing new comes to a host."""
    for rule in problem.rules:
        if not isinstance(rule, Quarantine) or not rule.must or host.name not in rule.hosts:
            continue
        if host.name not in problem.current.get(demand.name, ()):
            return "it is in quarantine"
    return ""


def labels(_problem: Problem, demand: Demand, host: Host) -> str:
    """Every label of the demand is on the host."""
    missing = sorted(demand.labels - host.labels)
    return f"lacks the label {missing[0][0]}={missing[0][1]}" if missing else ""


def fit(problem: Problem, demand: Demand, host: Host) -> str:
    """Kind: the host can run such a demand at all, in some flavour."""
    if why := problem.unfit.get(demand.name, _FIT).get(host.name, ""):
        return why
    reasons = [flavour.unfit.get(host.name, "") for flavour in demand.flavours]
    return "; ".join(reasons) if reasons and all(reasons) else ""


def size(_problem: Problem, demand: Demand, host: Host) -> str:
    """Room: the host is large enough for some flavour when it is empty."""
    return _room(demand, host, {})


def latency_bound(problem: Problem, demand: Demand, host: Host) -> str:
    """Every population with a rate reaches the host within the bound, if it may have to."""
    if demand.latency_bound_ms is None:
        return ""
    bound_ms = demand.latency_bound_ms
    rated = [population for population, rate in demand.rates.items() if rate > 0]
    reasons = [why for each in rated if (why := too_far(problem, each, host, bound_ms))]
    every = demand.bound_for == EVERY_COPY or (demand.replicas == 1 and demand.least is None)
    return reasons[0] if reasons and every else ""


def too_far(problem: Problem, population: str, host: Host, bound_ms: float) -> str:
    """Return why a population is not within a bound of a host, or an empty string."""
    ms = latency(problem, population, host)
    if math.isinf(ms):
        return f"no path from {population}"
    return f"{ms:g} ms from {population}, bound {bound_ms:g} ms" if ms > bound_ms else ""


def latency(problem: Problem, population: str, host: Host) -> float:
    """Return the one-way latency in ms from a population to a host, infinite without a path."""
    row = problem.latency_ms.get(population, _NOTHING)
    if host.name in row:
        return row[host.name]
    return row.get(host.site or host.name, math.inf)


CHECKS: tuple[Check, ...] = (fence, ban, quarantine, labels, fit, size, latency_bound)


# --- what runs already --------------------------------------------------------------------------


def _bonds(problem: Problem, demand: Demand, placed: Placed) -> dict[str, str]:
    """Return the hosts closed by copies that run already, with the reason."""
    closed = _closed_by_beside(problem, demand, placed)
    for other in sorted(apart_from(problem, demand.name)):
        closed.update(dict.fromkeys(placed.get(other, ()), f"must be apart from {other}"))
    if not may_share(problem, demand):
        here = placed.get(demand.name, ())
        closed.update(dict.fromkeys(here, "a copy of it runs there already"))
    return closed


def may_share(problem: Problem, demand: Demand) -> bool:
    """Return whether copies of a demand may share a host, must-rules `Spread` considered."""
    return demand.share_host and not any(
        isinstance(rule, Spread)
        and rule.must
        and rule.domain == HOST
        and demand.name in rule.demands
        for rule in problem.rules
    )


def apart_from(problem: Problem, demand: str) -> frozenset[str]:
    """Return the demands that must-rules keep off the hosts of a demand."""
    others: set[str] = set()
    for rule in problem.rules:
        if not rule.must:
            continue
        if isinstance(rule, Spread) and demand in rule.demands and rule.domain == HOST:
            others |= rule.demands
        if isinstance(rule, Split) and rule.domain == HOST:
            mine = [each for each in rule.sets if demand in each]
            if mine:
                others |= frozenset().union(*(each for each in rule.sets if each not in mine))
    return frozenset(others - {demand})


def _closed_by_beside(problem: Problem, demand: Demand, placed: Placed) -> dict[str, str]:
    """Return the hosts closed because they lack a partner, or because one waits elsewhere."""
    mine = set(placed.get(demand.name, ()))
    closed: dict[str, str] = {}
    for rule in problem.rules:
        if not (isinstance(rule, Beside) and rule.must and demand.name in (rule.demand, rule.of)):
            continue
        other = rule.of if rule.demand == demand.name else rule.demand
        domain = {host.name: host.domain(rule.domain) for host in problem.hosts}
        allowed = {domain[host] for host in placed.get(other, ()) if host in domain}
        if demand.name == rule.of:
            allowed -= {domain[host] for host in mine if host in domain}
        for host in problem.hosts:
            if allowed and domain[host.name] not in allowed:
                closed.setdefault(host.name, f"must be together with {other}")
    return closed


def _room(demand: Demand, host: Host, used: Mapping[str, Amounts]) -> str:
    taken = used.get(host.name, _NOTHING)
    reason = ""
    for flavour in flavours(demand):
        if host.name in flavour.unfit:
            continue
        short = shortage(need(demand, flavour, host.name), host, taken)
        if not short:
            return ""
        reason = reason or short
    return reason

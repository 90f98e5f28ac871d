"""Which sites can take a demand, and for every other site why not.

`candidates` asks what can never change (rules of the demand, size of the site, latency bound);
`feasible` adds what depends on what already runs. The model builds variables for candidates only,
the heuristics walk over feasible sites. Each rule is one function that answers with a clause, or
with nothing when it has no objection. The judge in `placement.check` shares none of this.
"""

import math
from collections.abc import Callable, Collection, Mapping

from placement.problem import Demand, Malformed, Problem, Ranking, Resources, Site

SHOWN_REASONS = 5  # how many sites an error spells out

_NOWHERE: Mapping[str, float] = {}
_ANYTHING: Mapping[str, str] = {}

Rule = Callable[[Problem, Demand, Site], str]


def candidates(problem: Problem, demand: Demand) -> Ranking:
    """Return the sites where a demand could run if nothing else did, in the problem's order."""
    reasons: dict[str, str] = {}
    for site in problem.sites:
        for rule in RULES:
            reason = rule(problem, demand, site)
            if reason:
                reasons[site.name] = reason
                break
    return _ranking(problem, reasons)


def feasible(
    problem: Problem,
    demand: Demand,
    used: Mapping[str, Resources],
    placed: Mapping[str, Collection[str]],
) -> Ranking:
    """Return the sites where one more copy of a demand fits now, in the problem's order.

    `used` is what is taken at each site, `placed` the sites where copies of each demand run.
    """
    reasons = dict(candidates(problem, demand).reasons)
    bonds = _bonds(problem, demand, placed)
    for site in problem.sites:
        if site.name in reasons:
            continue
        reason = bonds.get(site.name) or _room(problem, demand, site, used)
        if reason:
            reasons[site.name] = reason
    return _ranking(problem, reasons)


def hopeless(problem: Problem) -> dict[str, str]:
    """Return the demands that cannot be placed even if they were alone, and why."""
    replicas = {demand.name: demand.replicas for demand in problem.demands}
    reasons: dict[str, str] = {}
    for demand in problem.demands:
        found = candidates(problem, demand)
        if len(found.sites) < demand.replicas:
            wanted, count = demand.replicas, len(found.sites) or "none"
            text = f"{wanted} site(s) wanted, {count} can take it"
            reasons[demand.name] = f"{text}: {summary(found.reasons)}"
        for other in sorted(demand.together_with):
            if replicas[other] < demand.replicas:
                copies = f"{demand.replicas} copies, but only {replicas[other]} of {other}"
                reasons.setdefault(demand.name, f"{copies}, with which each must share a site")
    return reasons


def demand_named(problem: Problem, name: str) -> Demand:
    """Return a demand by name; `Malformed` with the known names if there is none."""
    for demand in problem.demands:
        if demand.name == name:
            return demand
    known = ", ".join(sorted(demand.name for demand in problem.demands))
    raise Malformed("demands", f"no demand named {name!r}; known: {known or 'none'}")


def summary(reasons: Mapping[str, str]) -> str:
    """Return the reasons of the first few sites as one clause."""
    clauses = [f"{site}: {reason}" for site, reason in list(reasons.items())[:SHOWN_REASONS]]
    if len(reasons) > SHOWN_REASONS:
        clauses.append(f"and {len(reasons) - SHOWN_REASONS} more")
    return "; ".join(clauses) or "there are no other sites"


def shortage(need: Resources, free: Resources) -> str:
    """Return which resource is short, or an empty string when the need fits."""
    if need.fits_in(free):
        return ""
    if not Resources(0.0, need.memory_mib).fits_in(Resources(0.0, free.memory_mib)):
        return f"needs {need.memory_mib:g} MiB of memory, {free.memory_mib:g} free"
    return f"needs {need.cpu:g} CPU, {free.cpu:g} free"


def _ranking(problem: Problem, reasons: Mapping[str, str]) -> Ranking:
    return Ranking(tuple(s.name for s in problem.sites if s.name not in reasons), reasons)


# --- what a demand asks of a site ---------------------------------------------------------------


def only_on(_problem: Problem, demand: Demand, site: Site) -> str:
    """Fence: the demand lists the sites it may use."""
    if not demand.only_on or site.name in demand.only_on:
        return ""
    return "not one of the sites it may run on"


def never_on(_problem: Problem, demand: Demand, site: Site) -> str:
    """Ban: the demand lists sites it may not use."""
    return "one of the sites it must avoid" if site.name in demand.never_on else ""


def fit(problem: Problem, demand: Demand, site: Site) -> str:
    """Kind: the site can run such a demand at all."""
    return problem.unfit.get(demand.name, _ANYTHING).get(site.name, "")


def labels(_problem: Problem, demand: Demand, site: Site) -> str:
    """Every label of the demand is on the site."""
    missing = sorted(demand.labels - site.labels)
    return f"lacks the label {missing[0][0]}={missing[0][1]}" if missing else ""


def size(problem: Problem, demand: Demand, site: Site) -> str:
    """Room: the site is large enough when it is empty."""
    return shortage(problem.need(demand, site.name), site.capacity)


def latency_bound(problem: Problem, demand: Demand, site: Site) -> str:
    """Every population with a rate reaches the site within the bound (one way)."""
    if demand.latency_bound_ms is None:
        return ""
    bound_ms, table = demand.latency_bound_ms, problem.latency_ms
    for population, rate in demand.rates.items():
        if rate > 0 and table.get(population, _NOWHERE).get(site.name, math.inf) > bound_ms:
            return too_far(problem, population, site.name, bound_ms)
    return ""


def too_far(problem: Problem, population: str, site: str, bound_ms: float) -> str:
    """Return why a population is not within a bound of a site, or an empty string."""
    latency = problem.latency_ms.get(population, {}).get(site)
    if latency is None:
        return f"no path from {population}"
    return f"{latency:g} ms from {population}, bound {bound_ms:g} ms" if latency > bound_ms else ""


RULES: tuple[Rule, ...] = (only_on, never_on, labels, fit, size, latency_bound)


# --- what runs already --------------------------------------------------------------------------


def _bonds(
    problem: Problem, demand: Demand, placed: Mapping[str, Collection[str]]
) -> dict[str, str]:
    """Return the sites closed by copies that run already, with the reason."""
    closed = _closed_by_together(problem, demand, placed)
    apart = set(demand.apart_from)
    apart.update(other.name for other in problem.demands if demand.name in other.apart_from)
    for other in sorted(apart):
        closed.update(dict.fromkeys(placed.get(other, ()), f"must be apart from {other}"))
    closed.update(dict.fromkeys(placed.get(demand.name, ()), "a copy of it runs there already"))
    return closed


def _closed_by_together(
    problem: Problem, demand: Demand, placed: Mapping[str, Collection[str]]
) -> dict[str, str]:
    """Return the sites closed because they lack a partner, or because a partner waits elsewhere."""
    mine = set(placed.get(demand.name, ()))
    allowed = {other: set(placed.get(other, ())) for other in demand.together_with}
    for other in problem.demands:
        if demand.name in other.together_with and other.name not in allowed:
            allowed[other.name] = set(placed.get(other.name, ())) - mine
    return {
        site.name: f"must be together with {other}"
        for other, sites in sorted(allowed.items())
        for site in problem.sites
        if sites and site.name not in sites
    }


def _room(problem: Problem, demand: Demand, site: Site, used: Mapping[str, Resources]) -> str:
    taken = used.get(site.name)
    if not taken:
        return ""
    return shortage(problem.need(demand, site.name), site.capacity - taken)

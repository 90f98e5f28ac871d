"""An independent judge of plans.

`violations` says in plain sentences what is wrong with a plan. It is written from the meaning of
`Problem` alone and shares no code with the model or the heuristics, so that a mistake there cannot
hide here. Tests use it on every algorithm, and the orchestrator before it applies a plan.
"""

from collections import Counter
from collections.abc import Iterator

from placement.problem import Demand, Plan, Problem, Site

TOLERANCE = 1e-6  # of a core or a MiB: sums of fractions are not exact


def violations(problem: Problem, plan: Plan) -> tuple[str, ...]:
    """Return everything that makes a plan no answer to a problem; empty when it is one."""
    sites = {site.name: site for site in problem.sites}
    return (
        *_names(problem, plan, sites),
        *_copies(problem, plan),
        *_capacity(problem, plan),
        *(
            f"{demand.name} at {name}: {complaint}"
            for demand in problem.demands
            for name in plan.sites.get(demand.name, ())
            if name in sites
            for complaint in _rules(problem, demand, sites[name])
        ),
        *_relations(problem, plan),
    )


def _names(problem: Problem, plan: Plan, sites: dict[str, Site]) -> Iterator[str]:
    demands = {demand.name for demand in problem.demands}
    for name, chosen in plan.sites.items():
        if name not in demands:
            yield f"{name}: nobody demanded it"
        yield from (f"{name}: there is no site {site}" for site in chosen if site not in sites)


def _copies(problem: Problem, plan: Plan) -> Iterator[str]:
    for demand in problem.demands:
        chosen = plan.sites.get(demand.name, ())
        if len(chosen) != demand.replicas:
            yield f"{demand.name}: {len(chosen)} copies planned, {demand.replicas} demanded"
        for site, count in Counter(chosen).items():
            if count > 1:
                yield f"{demand.name}: {count} copies share {site}"


def _capacity(problem: Problem, plan: Plan) -> Iterator[str]:
    for site in problem.sites:
        cpu = memory = 0.0
        for demand in problem.demands:
            count = plan.sites.get(demand.name, ()).count(site.name)
            cpu += count * demand.resources.cpu
            extra_mib = problem.extra_mib.get(demand.name, {}).get(site.name, 0.0)
            memory += count * (demand.resources.memory_mib + extra_mib)
        if cpu > site.capacity.cpu + TOLERANCE:
            yield f"{site.name}: {cpu:g} CPU planned, {site.capacity.cpu:g} there"
        if memory > site.capacity.memory_mib + TOLERANCE:
            yield f"{site.name}: {memory:g} MiB planned, {site.capacity.memory_mib:g} there"


def _rules(problem: Problem, demand: Demand, site: Site) -> Iterator[str]:
    if demand.only_on and site.name not in demand.only_on:
        yield f"may run only on {', '.join(sorted(demand.only_on))}"
    if site.name in demand.never_on:
        yield "may never run there"
    if why := problem.unfit.get(demand.name, {}).get(site.name):
        yield f"the site cannot run it: {why}"
    for key, value in sorted(demand.labels):
        if (key, value) not in site.labels:
            yield f"the site has no label {key}={value}"
    bound = demand.latency_bound_ms
    for population, rate in demand.rates.items():
        if bound is None or rate <= 0:
            continue
        if site.name not in problem.latency_ms.get(population, {}):
            yield f"{population} has no path to it"
        elif problem.latency_ms[population][site.name] > bound:
            yield f"farther than {bound:g} ms from {population}"


def _relations(problem: Problem, plan: Plan) -> Iterator[str]:
    for demand in problem.demands:
        mine = set(plan.sites.get(demand.name, ()))
        for other in sorted(demand.apart_from):
            for site in sorted(mine.intersection(plan.sites.get(other, ()))):
                yield f"{demand.name} and {other} must be apart, both are at {site}"
        for other in sorted(demand.together_with):
            for site in sorted(mine.difference(plan.sites.get(other, ()))):
                yield f"{demand.name} must be together with {other}, which is not at {site}"

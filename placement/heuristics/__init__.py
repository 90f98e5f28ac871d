"""Fast placement without proof: the loop that simple heuristics share, one demand after the other.

They mind what `placement.candidates.feasible` minds, and the registry refuses problems with more.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping

from placement.candidates import flavour_at, hopeless, summary
from placement.classes import need
from placement.problem import Amounts, Demand, Infeasible, Plan, Problem, Ranking
from placement.rules import Beside

Rank = Callable[[Problem, Demand, Mapping[str, Amounts], Mapping[str, list[str]]], Ranking]


def fill(problem: Problem, *, name: str, order: Iterable[Demand], rank: Rank) -> Plan:
    """Place one copy after the other at the first host of its ranking, and never take one back.

    Demands come in the given order, except that those one must be beside come before it. A copy
    runs in the first flavour that fits. Soft demands are left out where no host is found.

    Raises:
        Infeasible: with every demand that found no host; no proof that there is no plan.

    """
    reasons = hopeless(problem)
    if reasons:
        raise Infeasible(reasons)
    hosts = {host.name: host for host in problem.hosts}
    used: dict[str, Amounts] = {}
    placed: dict[str, list[str]] = {demand.name: [] for demand in problem.demands}
    chosen: dict[str, list[str]] = {demand.name: [] for demand in problem.demands}
    for demand in _partners_first(problem, order):
        for number in range(demand.replicas):
            ranking = rank(problem, demand, used, placed)
            if not ranking.hosts:
                if number < (demand.replicas if demand.least is None else demand.least):
                    reasons[demand.name] = f"{name} found no host: {summary(ranking.reasons)}"
                break
            host = ranking.hosts[0]
            flavour = flavour_at(demand, hosts[host], used.get(host, {}))
            if flavour is None:
                raise AssertionError(f"{host} was ranked for {demand.name}, but none fits")
            placed[demand.name].append(host)
            chosen[demand.name].append(flavour.name)
            used[host] = added(used.get(host, {}), need(demand, flavour, host))
    if reasons:
        raise Infeasible(reasons, proven=False)
    return Plan(
        {demand: tuple(each) for demand, each in placed.items()},
        value=0.0,
        flavours={demand: tuple(each) for demand, each in chosen.items()},
    )


def added(one: Amounts, other: Amounts) -> dict[str, float]:
    """Return the sum of two amounts, resource by resource."""
    return {name: one.get(name, 0.0) + other.get(name, 0.0) for name in {**one, **other}}


def _partners_first(problem: Problem, order: Iterable[Demand]) -> Iterator[Demand]:
    by_name = {demand.name: demand for demand in problem.demands}
    partners: dict[str, list[str]] = {}
    for rule in problem.rules:
        if isinstance(rule, Beside) and rule.must:
            partners.setdefault(rule.demand, []).append(rule.of)
    seen: set[str] = set()

    def visit(demand: Demand) -> Iterator[Demand]:
        if demand.name not in seen:
            seen.add(demand.name)
            for other in sorted(partners.get(demand.name, ())):
                yield from visit(by_name[other])
            yield demand

    for demand in order:
        yield from visit(demand)

"""Why there is no plan: who finds no host, and a small set of constraints that exclude each other.

First everything that can be placed is, with all demands soft; who is left over has a reason. Then
constraints are taken away in halves (U. Junker, "QuickXPlain", AAAI 2004) until those that are left
clash, and without any of them would not. Both are bounded in time; what is not minimal by then is
not reported.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace

from placement.candidates import candidates, hopeless, summary
from placement.classes import flavours, need
from placement.exact import Clock, NoPlan, exact
from placement.problem import (
    KILL_AND_BOOT,
    MAKE_BEFORE_BREAK,
    SITE,
    Demand,
    Host,
    Infeasible,
    Link,
    Options,
    Problem,
)
from placement.rules import Preserve, told

SECONDS = 10.0  # for each of the two searches, and never more than the options allow
PLENTY = 1000.0  # times all that is demanded: enough beside any share that a slice keeps
FAR_MS = 1e6  # longer than any bound on the latency of traffic

Relax = Callable[[Problem], Problem]


@dataclass(frozen=True, slots=True)
class Constraint:
    """A part of a problem that can be taken away, and how; or the limit on a term."""

    name: str
    relax: Relax
    limit: str = ""


class _Late(Exception):  # noqa: N818
    """Time is up."""


def infeasible(problem: Problem, options: Options) -> Infeasible:
    """Return why a problem that is proven to have no plan has none."""
    seconds = min(SECONDS, options.deadline_s)
    reasons = hopeless(problem)
    if not reasons:
        reasons = _left_over(problem, replace(options, deadline_s=seconds))
    try:
        clash = _explained(problem, options.limits, Clock.of(seconds))
    except _Late:
        clash = ()
    if not reasons and not clash and options.limits:
        reasons = {"limits": "cannot hold together"}
    if not reasons and not clash:
        reasons = {demand.name: "proven to have no plan" for demand in problem.demands}
    return Infeasible(reasons, clash)


def _left_over(problem: Problem, options: Options) -> dict[str, str]:
    """Return the demands left over when as many copies as possible are placed, and why."""
    soft = replace(problem, demands=tuple(replace(d, least=0, weight=1.0) for d in problem.demands))
    only = replace(
        options, weights={"unplaced": 1.0}, order=(), limits={}, start=None, solver="auto"
    )
    try:
        plan = exact(soft, only)
    except NoPlan:
        return {}
    reasons: dict[str, str] = {}
    totals = _totals(problem)
    for demand in problem.demands:
        fewest = demand.replicas if demand.least is None else demand.least
        missing = fewest - len(plan.hosts[demand.name])
        if missing > 0:
            closed = candidates(problem, demand).reasons
            clause = f"{missing} of {demand.replicas} copies find no host beside the others"
            told = [*totals, *([summary(closed)] if closed else [])]
            why = "; ".join(told) or "they and the constraints on others exclude each other"
            reasons[demand.name] = f"{clause} ({why})"
    return reasons


def _totals(problem: Problem) -> list[str]:
    """Return a clause for each resource that is short in all."""
    clauses = []
    names = {name for demand in problem.demands for name in demand.resources}
    for name in sorted(names):
        need = sum(
            _fewest(problem, d, name) * (d.replicas if d.least is None else d.least)
            for d in problem.demands
        )
        have = sum(host.room(name) for host in problem.hosts)
        if need > have:
            clauses.append(f"{need:g} {name} demanded in all, {have:g} there")
    return clauses


def _fewest(problem: Problem, demand: Demand, resource: str) -> float:
    """Return the least that a copy takes of a resource, over all hosts and flavours."""
    return min(
        (
            need(demand, flavour, host.name).get(resource, 0.0)
            for host in problem.hosts
            for flavour in flavours(demand)
        ),
        default=0.0,
    )


# --- a small set --------------------------------------------------------------------------------


def _explained(problem: Problem, limits: Mapping[str, float], clock: Clock) -> tuple[str, ...]:
    bounds = [
        Constraint(f"{term} of {most:g} at most", lambda p: p, term)
        for term, most in limits.items()
    ]
    search = _Search(problem, limits, [*_constraints(problem), *bounds], clock)
    if not search.clash(search.every) or search.clash([]):
        return ()  # what clashes is no constraint of this list
    found = _quick(search, [], search.every, added=False)
    return tuple(each.name for each in search.every if each in found)


def _quick(
    search: "_Search", background: list[Constraint], among: list[Constraint], *, added: bool
) -> list[Constraint]:
    """Return a smallest part of `among` that clashes with the background (QuickXPlain)."""
    if added and search.clash(background):
        return []
    if len(among) == 1:
        return among
    first, second = among[: len(among) // 2], among[len(among) // 2 :]
    right = _quick(search, background + first, second, added=bool(first))
    left = _quick(search, background + right, first, added=bool(right))
    return left + right


@dataclass(frozen=True, slots=True)
class _Search:
    """A problem, all its constraints, and when to stop looking."""

    problem: Problem
    limits: Mapping[str, float]
    every: list[Constraint]
    clock: Clock

    def clash(self, kept: list[Constraint]) -> bool:
        """Return whether there is no plan once all constraints but some are gone."""
        if self.clock.left() <= 0.01:
            raise _Late
        problem = self.problem
        for each in self.every:
            if each not in kept:
                problem = each.relax(problem)
        limits = {each.limit: self.limits[each.limit] for each in kept if each.limit}
        try:
            exact(problem, Options(weights={}, limits=limits, deadline_s=self.clock.left()))
        except NoPlan as no:
            if not no.proven:
                raise _Late from no
            return True
        return False


def _constraints(problem: Problem) -> list[Constraint]:
    """Return what can be taken away from a problem, in the order it is told in."""
    resources = sorted(_enough(problem))
    unfit = Constraint("hosts that are unfit", lambda p: replace(p, unfit={}))
    return [
        *(each for demand in problem.demands for each in _demand_constraints(demand)),
        *(Constraint(told(rule), _without_rule(rule)) for rule in problem.rules if rule.must),
        *(Constraint(f"{name} of the hosts", _plenty(name)) for name in resources),
        *([unfit] if any(problem.unfit.values()) else []),
        *([] if problem.joined() else [Constraint("links that lead not everywhere", _joined)]),
        *(
            Constraint(f"capacity of link {link.a} to {link.b}", _wide_link(i))
            for i, link in enumerate(problem.links)
            if link.capacity_mbps is not None
        ),
        *(
            Constraint(
                f"{each.latency_bound_ms:g} ms from {each.source} to {each.target}",
                _slow_traffic(i),
            )
            for i, each in enumerate(problem.traffic)
            if each.latency_bound_ms is not None
        ),
        *(
            Constraint(f"{chain.latency_bound_ms:g} ms over chain {chain.name}", _slow_chain(i))
            for i, chain in enumerate(problem.chains)
            if chain.latency_bound_ms is not None
        ),
        *(
            Constraint(f"slice {part.name}", _plain_slice(i))
            for i, part in enumerate(problem.slices)
            if part.isolated or part.share
        ),
    ]


def _demand_constraints(demand: Demand) -> Iterator[Constraint]:
    name = demand.name
    if demand.replicas and demand.least != 0:
        count = f"{demand.replicas} copies" if demand.replicas > 1 else "the copy"
        yield _of_demand(f"{count} of {name}", name, least=0)
    if demand.latency_bound_ms is not None:
        yield _of_demand(f"{demand.latency_bound_ms:g} ms to {name}", name, latency_bound_ms=None)
    if demand.labels:
        yield _of_demand(f"labels of {name}", name, labels=frozenset())
    if demand.replicas > 1 and not demand.share_host:
        yield _of_demand(f"copies of {name} on different hosts", name, share_host=True)
    if demand.move == MAKE_BEFORE_BREAK:
        yield _of_demand(f"room for {name} on both sides", name, move=KILL_AND_BOOT)


def _of_demand(text: str, name: str, **changed: object) -> Constraint:
    def relax(problem: Problem) -> Problem:
        def one(demand: Demand) -> Demand:
            return replace(demand, **changed) if demand.name == name else demand  # type: ignore[arg-type]

        return replace(problem, demands=tuple(one(d) for d in problem.demands))

    return Constraint(text, relax)


def _without_rule(rule: object) -> Relax:
    return lambda p: replace(p, rules=tuple(each for each in p.rules if each is not rule))


def _enough(problem: Problem) -> dict[str, float]:
    """Return how much of each resource is enough, wherever all copies run."""
    enough: dict[str, float] = {}
    for demand in problem.demands:
        known = flavours(demand)
        needs = [demand.resources, *(flavour.resources for flavour in known)]
        needs += [at for flavour in known for at in flavour.resources_at.values()]
        for amounts in needs:
            for name, units in amounts.items():
                enough[name] = enough.get(name, 0.0) + PLENTY * units * max(1, demand.replicas)
    for rule in problem.rules:
        if isinstance(rule, Preserve):
            more = PLENTY * rule.amount * sum(demand.replicas for demand in problem.demands)
            enough[rule.resource] = enough.get(rule.resource, 0.0) + more
    return enough


def _plenty(name: str) -> Relax:
    def relax(problem: Problem) -> Problem:
        enough = _enough(problem)[name]

        def one(host: Host) -> Host:
            room = max(host.room(name), enough)
            return replace(
                host,
                capacity={**host.capacity, name: room},
                overcommit={**host.overcommit, name: 1.0},
            )

        return replace(problem, hosts=tuple(one(host) for host in problem.hosts))

    return relax


def _joined(problem: Problem) -> Problem:
    """Return a problem whose sites are all joined, by links that are very long."""
    sites = list(dict.fromkeys(host.domain(SITE) for host in problem.hosts))
    known = {frozenset((link.a, link.b)) for link in problem.links}
    new = [site for site in sites[1:] if frozenset((sites[0], site)) not in known]
    more = tuple(Link(sites[0], site, latency_ms=FAR_MS) for site in new)
    return replace(problem, links=(*problem.links, *more))


def _wide_link(i: int) -> Relax:
    return lambda p: replace(
        p,
        links=tuple(
            replace(each, capacity_mbps=None) if j == i else each for j, each in enumerate(p.links)
        ),
    )


def _slow_traffic(i: int) -> Relax:
    return lambda p: replace(
        p,
        traffic=tuple(
            replace(each, latency_bound_ms=None) if j == i else each
            for j, each in enumerate(p.traffic)
        ),
    )


def _slow_chain(i: int) -> Relax:
    return lambda p: replace(
        p,
        chains=tuple(
            replace(each, latency_bound_ms=None) if j == i else each
            for j, each in enumerate(p.chains)
        ),
    )


def _plain_slice(i: int) -> Relax:
    return lambda p: replace(
        p,
        slices=tuple(
            replace(each, share={}, isolated=False) if j == i else each
            for j, each in enumerate(p.slices)
        ),
    )

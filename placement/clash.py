"""Why there is no plan: who finds no host, and a small set of constraints that exclude each other.

First everything that can be placed is, with all demands soft; who is left over has a reason. Then
constraints are taken away in halves (U. Junker, "QuickXPlain", AAAI 2004) until those that are left
clash, and without any of them would not. Both are bounded in time; what is not minimal by then is
not reported.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

from placement.candidates import candidates, hopeless, summary
from placement.exact import Clock, NoPlan, exact
from placement.problem import Demand, Infeasible, Options, Problem
from placement.rules import told

SECONDS = 10.0  # for each of the two searches, and never more than the options allow
PLENTY = 1e9  # of any resource

Relax = Callable[[Problem], Problem]


@dataclass(frozen=True, slots=True)
class Constraint:
    """A part of a problem that can be taken away, and how."""

    name: str
    relax: Relax


class _Late(Exception):  # noqa: N818
    """Time is up."""


def infeasible(problem: Problem, options: Options) -> Infeasible:
    """Return why a problem that is proven to have no plan has none."""
    seconds = min(SECONDS, options.deadline_s)
    reasons = hopeless(problem)
    if not reasons:
        reasons = _left_over(problem, replace(options, deadline_s=seconds))
    if options.limits:
        return Infeasible(reasons or {"limits": "cannot hold together"})
    try:
        clash = _explained(problem, Clock.of(seconds))
    except _Late:
        clash = ()
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
    for demand in problem.demands:
        fewest = demand.replicas if demand.least is None else demand.least
        missing = fewest - len(plan.hosts[demand.name])
        if missing > 0:
            closed = candidates(problem, demand).reasons
            clause = f"{missing} of {demand.replicas} copies find no host beside the others"
            told_why = summary(closed) if closed else "its constraints clash"
            reasons[demand.name] = f"{clause} ({_totals(problem)}{told_why})"
    return reasons


def _totals(problem: Problem) -> str:
    """Return a clause for each resource that is short in all, or nothing."""
    clauses = []
    names = {name for demand in problem.demands for name in demand.resources}
    for name in sorted(names):
        need = sum(
            d.resources.get(name, 0.0) * (d.replicas if d.least is None else d.least)
            for d in problem.demands
            if not d.flavours
        )
        have = sum(host.room(name) for host in problem.hosts)
        if need > have:
            clauses.append(f"{need:g} {name} demanded in all, {have:g} there; ")
    return "".join(clauses)


# --- a small set --------------------------------------------------------------------------------


def _explained(problem: Problem, clock: Clock) -> tuple[str, ...]:
    every = _constraints(problem)
    if not _clash(problem, every, [], clock):
        return ()  # the limits of options clash, or what is no constraint here
    found = _quick([], [], every, problem, every, clock)
    return tuple(each.name for each in every if each in found)


def _quick(
    background: list[Constraint],
    added: list[Constraint],
    among: list[Constraint],
    problem: Problem,
    every: list[Constraint],
    clock: Clock,
) -> list[Constraint]:
    """Return a smallest part of `among` that clashes with the background (QuickXPlain)."""
    if added and _clash(problem, every, [c for c in every if c not in background], clock):
        return []
    if len(among) == 1:
        return among
    first, second = among[: len(among) // 2], among[len(among) // 2 :]
    right = _quick(background + first, first, second, problem, every, clock)
    left = _quick(background + right, right, first, problem, every, clock)
    return left + right


def _clash(
    problem: Problem, every: list[Constraint], relaxed: list[Constraint], clock: Clock
) -> bool:
    """Return whether there is no plan once some constraints are gone."""
    if clock.left() <= 0.01:
        raise _Late
    for each in every:
        if each in relaxed:
            problem = each.relax(problem)
    try:
        exact(problem, Options(weights={}, deadline_s=clock.left(), solver="auto"))
    except NoPlan as no:
        if not no.proven:
            raise _Late from no
        return True
    return False


def _constraints(problem: Problem) -> list[Constraint]:
    """Return what can be taken away from a problem, in the order it is told in."""
    found: list[Constraint] = []
    for demand in problem.demands:
        if demand.replicas and demand.least != 0:
            count = f"{demand.replicas} copies" if demand.replicas > 1 else "the copy"
            found.append(_of_demand(f"{count} of {demand.name}", demand.name, least=0))
        if demand.latency_bound_ms is not None:
            text = f"{demand.latency_bound_ms:g} ms to {demand.name}"
            found.append(_of_demand(text, demand.name, latency_bound_ms=None))
        if demand.labels:
            found.append(_of_demand(f"labels of {demand.name}", demand.name, labels=frozenset()))
        if demand.replicas > 1 and not demand.share_host:
            text = f"copies of {demand.name} on different hosts"
            found.append(_of_demand(text, demand.name, share_host=True))
    for rule in problem.rules:
        if rule.must:
            found.append(Constraint(told(rule), _without_rule(rule)))
    for name in sorted({name for host in problem.hosts for name in host.capacity}):
        found.append(Constraint(f"{name} of the hosts", _plenty(name)))
    if any(problem.unfit.values()):
        found.append(Constraint("hosts that are unfit", lambda p: replace(p, unfit={})))
    for i, link in enumerate(problem.links):
        if link.capacity_mbps is not None:
            found.append(Constraint(f"capacity of link {link.a} to {link.b}", _wide_link(i)))
    for i, each in enumerate(problem.traffic):
        if each.latency_bound_ms is not None:
            text = f"{each.latency_bound_ms:g} ms from {each.source} to {each.target}"
            found.append(Constraint(text, _slow_traffic(i)))
    for i, chain in enumerate(problem.chains):
        if chain.latency_bound_ms is not None:
            text = f"{chain.latency_bound_ms:g} ms over chain {chain.name}"
            found.append(Constraint(text, _slow_chain(i)))
    for i, part in enumerate(problem.slices):
        if part.isolated or part.share:
            found.append(Constraint(f"slice {part.name}", _plain_slice(i)))
    return found


def _of_demand(text: str, name: str, **changed: object) -> Constraint:
    def relax(problem: Problem) -> Problem:
        def one(demand: Demand) -> Demand:
            return replace(demand, **changed) if demand.name == name else demand  # type: ignore[arg-type]

        return replace(problem, demands=tuple(one(d) for d in problem.demands))

    return Constraint(text, relax)


def _without_rule(rule: object) -> Relax:
    return lambda p: replace(p, rules=tuple(each for each in p.rules if each is not rule))


def _plenty(name: str) -> Relax:
    return lambda p: replace(
        p, hosts=tuple(replace(h, capacity={**h.capacity, name: PLENTY}) for h in p.hosts)
    )


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

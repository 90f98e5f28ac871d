"""Says why a copy is where it is, and what another host would cost.

Each copy of a demand is tried on every other host, alone: either a rule forbids it, and the judge
says which, or the objective changes by so much. It takes one evaluation per host, so it is for
people who ask about one demand.
"""

from dataclasses import dataclass, replace

from placement.candidates import candidates, flavour_at
from placement.check import violations
from placement.evaluate import evaluate, value_of
from placement.problem import DEFAULT_WEIGHTS, Flow, Options, Plan, Problem
from placement.validate import demand_named

MOST_TOLD = 3  # hosts in a sentence


@dataclass(frozen=True, slots=True)
class Alternative:
    """Another host: by how much the value would change, and that of each term; or why not.

    `change` is None if `why_not` says why the copy cannot be there.
    """

    host: str
    flavour: str = ""
    change: float | None = None
    terms: tuple[tuple[str, float], ...] = ()
    why_not: str = ""


@dataclass(frozen=True, slots=True)
class Explanation:
    """Where one copy is, and all other hosts: the best first, then those that cannot be."""

    demand: str
    host: str
    flavour: str
    alternatives: tuple[Alternative, ...]

    def __str__(self) -> str:
        """Return a sentence about the second-best host, or why there is none."""
        second = self.alternatives[0] if self.alternatives else None
        if second is None or second.change is None:
            reasons = [
                f"{each.host}: {each.why_not.removeprefix(f'{each.host}: ')}"
                for each in self.alternatives[:MOST_TOLD]
            ]
            if len(self.alternatives) > MOST_TOLD:
                reasons.append(f"{len(self.alternatives) - MOST_TOLD} more")
            told = "; ".join(reasons) or "there is none"
            return f"{self.demand} is on {self.host}: no other host can take it ({told})"
        least = ", ".join(f"{name} {by:+g}" for name, by in second.terms) or "nothing changes"
        return (
            f"{self.demand} is on {self.host}: the next best, {second.host}, "
            f"changes the value by {second.change:+g} ({least})"
        )


def explain(
    problem: Problem, plan: Plan, demand: str, options: Options | None = None
) -> tuple[Explanation, ...]:
    """Return an explanation for each copy of a demand; `Malformed` if there is no such demand.

    What counts are the weights of `options`, or with an order its first term.
    """
    wanted = demand_named(problem, demand)
    weights = dict(DEFAULT_WEIGHTS)
    if options is not None:
        weights = dict(options.counts)
    closed = candidates(problem, wanted).reasons
    before = evaluate(problem, plan)
    hosts = plan.hosts.get(demand, ())
    names = plan.flavours.get(demand) or ("",) * len(hosts)
    found = []
    for copy, (host, flavour) in enumerate(zip(hosts, names, strict=True)):
        others = [
            Alternative(other.name, why_not=closed[other.name])
            if other.name in closed
            else _tried(problem, plan, demand, copy, other.name, weights=weights, before=before)
            for other in problem.hosts
            if other.name != host
        ]
        others.sort(key=lambda each: (each.change is None, each.change or 0.0, each.host))
        found.append(Explanation(demand, host, flavour, tuple(others)))
    return tuple(found)


def _tried(
    problem: Problem,
    plan: Plan,
    demand: str,
    copy: int,
    host: str,
    *,
    weights: dict[str, float],
    before: dict[str, float],
) -> Alternative:
    """Return what it means to have one copy on another host."""
    wanted = demand_named(problem, demand)
    there = next(each for each in problem.hosts if each.name == host)
    flavour = flavour_at(wanted, there)
    name = "" if flavour is None else flavour.name
    hosts = plan.hosts[demand]
    old = hosts[copy]
    moved = (*hosts[:copy], host, *hosts[copy + 1 :])
    names = plan.flavours.get(demand) or ("",) * len(hosts)
    served = {
        population: {host if at == old else at: share for at, share in row.items()}
        for population, row in plan.served.get(demand, {}).items()
    }
    flows: tuple[Flow, ...] = tuple(f for f in plan.flows if demand not in (f.source, f.target))
    other = replace(
        plan,
        hosts={**plan.hosts, demand: moved},
        flavours={**plan.flavours, demand: (*names[:copy], name, *names[copy + 1 :])},
        served={**plan.served, demand: served} if served else plan.served,
        flows=flows,
    )
    wrong = [each for each in violations(problem, other) if "says not which links" not in each]
    if wrong:
        return Alternative(host, name, why_not=wrong[0])
    after = evaluate(problem, other)
    changes = tuple(
        (term, after[term] - before[term])
        for term in weights
        if abs(after[term] - before[term]) > 1e-9
    )
    return Alternative(host, name, value_of(after, weights) - value_of(before, weights), changes)

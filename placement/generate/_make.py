"""The one place where generators make and change problems.

Generators, churn and the study speak of hosts, demands and rates through these few functions, so
that a change of the nouns in `placement.problem` is a change of this page. Numbers are rounded: a
seed then gives the same problem whatever the last bit of a machine's arithmetic.
"""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import replace
from hashlib import sha256

from placement.problem import CPU, MEMORY, Demand, Host, Problem
from placement.rules import (
    Beside,
    MaxOnline,
    MigrationBudget,
    Overbook,
    Quarantine,
    Rule,
    Split,
    SplitAmong,
    demands_of,
)
from placement.wire import problem_text

DIGITS = 6


def host(
    name: str,
    *,
    cpu: float,
    memory_mib: float,
    site: str = "",
    rack: str = "",
    idle_w: float = 0.0,
    busy_w: float = 0.0,
    host_hour: float = 0.0,
) -> Host:
    """Return a host; units as in `placement.problem.Host`."""
    return Host(
        name,
        {CPU: _round(cpu), MEMORY: _round(memory_mib)},
        site=site,
        domains={"rack": rack} if rack else {},
        idle_w=_round(idle_w),
        busy_w=_round(busy_w),
        host_hour=_round(host_hour),
    )


def demand(
    name: str,
    *,
    cpu: float,
    memory_mib: float,
    rates: Mapping[str, float],
    replicas: int = 1,
    bound_ms: float = 0.0,
) -> Demand:
    """Return a demand; `cpu` and `memory_mib` are of each copy, a bound of 0 is none."""
    return Demand(
        name,
        {CPU: _round(cpu), MEMORY: _round(memory_mib)},
        replicas=replicas,
        rates={population: _round(rate) for population, rate in rates.items()},
        latency_bound_ms=_round(bound_ms) if bound_ms else None,
    )


def problem(
    hosts: Iterable[Host],
    demands: Iterable[Demand],
    latency_ms: Mapping[str, Mapping[str, float]],
) -> Problem:
    """Return a problem; `latency_ms[population][host]` is one way."""
    table = {
        population: {name: _round(latency) for name, latency in row.items()}
        for population, row in latency_ms.items()
    }
    return Problem(tuple(hosts), tuple(demands), table)


def capacity(hosts: Iterable[Host]) -> tuple[list[float], list[float]]:
    """Return the cores and the MiB of each host."""
    amounts = [each.capacity for each in hosts]
    return [each[CPU] for each in amounts], [each[MEMORY] for each in amounts]


def host_names(problem: Problem) -> tuple[str, ...]:
    """Return the names of the hosts, in the problem's order."""
    return tuple(each.name for each in problem.hosts)


def rates(problem: Problem) -> dict[str, Mapping[str, float]]:
    """Return the requests per second from each population to each demand, by demand."""
    return {each.name: each.rates for each in problem.demands}


def latencies_ms(problem: Problem) -> Mapping[str, Mapping[str, float]]:
    """Return the one-way latency from each population to each host, by population."""
    return problem.latency_ms


def part(problem: Problem, *, hosts: Collection[str], demands: Collection[str]) -> Problem:
    """Return a problem with only some of its hosts and demands, and what is among those only.

    Chains and traffic are left where all their demands are, rules for the demands that are left.
    """
    kept = frozenset(demands)
    there = tuple(each for each in problem.hosts if each.name in hosts)
    places = {each.name for each in there} | {each.site for each in there}
    return replace(
        problem,
        hosts=there,
        demands=tuple(each for each in problem.demands if each.name in kept),
        latency_ms={
            population: {name: latency for name, latency in row.items() if name in places}
            for population, row in problem.latency_ms.items()
        },
        current={name: at for name, at in problem.current.items() if name in kept},
        unfit={name: why for name, why in problem.unfit.items() if name in kept},
        rules=tuple(left for rule in problem.rules if (left := _rule_among(rule, kept))),
        traffic=tuple(each for each in problem.traffic if {each.source, each.target} <= kept),
        chains=tuple(each for each in problem.chains if kept.issuperset(each.demands)),
        slices=tuple(replace(each, demands=each.demands & kept) for each in problem.slices),
    )


def _rule_among(rule: Rule, kept: frozenset[str]) -> Rule | None:
    """Return what a rule says of some demands; None if that is nothing."""
    named = demands_of(rule)
    if named <= kept:
        return rule
    match rule:
        case Split(sets=sets) | SplitAmong(sets=sets):
            left = tuple(each & kept for each in sets if each & kept)
            return replace(rule, sets=left) if left else None
        case Beside() | Quarantine() | Overbook() | MaxOnline() | MigrationBudget():
            return None
        case _:
            return replace(rule, demands=named & kept) if named & kept else None


def with_rates(problem: Problem, new: Mapping[str, Mapping[str, float]]) -> Problem:
    """Return a problem with other rates for some of its demands."""
    return replace(
        problem,
        demands=tuple(
            replace(each, rates=new[each.name]) if each.name in new else each
            for each in problem.demands
        ),
    )


def with_current(problem: Problem, current: Mapping[str, tuple[str, ...]]) -> Problem:
    """Return a problem that knows where copies run now."""
    return replace(problem, current=current)


def fingerprint(problem: Problem) -> str:
    """Return the SHA-256 of a problem's JSON, in hexadecimal."""
    return sha256(problem_text(problem).encode()).hexdigest()


def _round(number: float) -> float:
    return round(number, DIGITS)

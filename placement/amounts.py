"""By how much a plan breaks each rule, counted from the meaning of the rule alone.

For the judge (`placement.check`) and for what wishes cost (`placement.evaluate`). Nothing here is
shared with the model: a mistake there cannot hide here.
"""

import math
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

from placement.problem import EVERY_COPY, SITE, Demand, Flavour, Host, Plan, Problem
from placement.rules import (
    Among,
    Ban,
    Beside,
    Fence,
    Gather,
    Lonely,
    MaxOnline,
    MaxSkew,
    MigrationBudget,
    Occupy,
    Overbook,
    Percentile,
    Preserve,
    Quarantine,
    Root,
    Rule,
    ServeAfterFailure,
    Split,
    SplitAmong,
    Spread,
    Survive,
)

NO_PATH_MS = 10_000.0  # what a request without any path counts
TOLERANCE = 1e-6  # of a core, a MiB or a request: sums of fractions are not exact


@dataclass(frozen=True, slots=True)
class State:
    """A plan, read once: who runs where, by name. Unknown demands and hosts are left out."""

    problem: Problem
    plan: Plan
    hosts: Mapping[str, Host]
    demands: Mapping[str, Demand]
    counts: Mapping[str, Counter[str]]  # demand → host → copies
    loads: Mapping[str, Counter[str]]  # host → resource → amount in use
    now: Mapping[str, Counter[str]]  # demand → host → copies that run now

    @classmethod
    def of(cls, problem: Problem, plan: Plan) -> "State":
        """Return the state that a plan makes."""
        hosts = {host.name: host for host in problem.hosts}
        demands = {demand.name: demand for demand in problem.demands}
        counts = {
            name: Counter(h for h in plan.hosts.get(name, ()) if h in hosts) for name in demands
        }
        loads: dict[str, Counter[str]] = {name: Counter() for name in hosts}
        for demand in problem.demands:
            for host, flavour in copies(demand, plan):
                if host in hosts:
                    for resource, amount in needs(demand, flavour, host).items():
                        loads[host][resource] += amount  # type: ignore[assignment]
        now = {name: Counter(problem.current.get(name, ())) for name in demands}
        return cls(problem, plan, hosts, demands, counts, loads, now)

    def placed(self, demand: str) -> int:
        """Return how many copies of a demand run."""
        return sum(self.counts[demand].values())

    def per_domain(self, demands: Iterable[str], kind: str) -> Counter[str]:
        """Return how many copies of some demands each domain of a type holds."""
        found: Counter[str] = Counter()
        for demand in demands:
            for host, count in self.counts[demand].items():
                found[self.hosts[host].domain(kind)] += count
        return found

    def far(self, population: str, host: str) -> float:
        """Return the latency in ms from a population to a host; infinite if there is no path."""
        row = self.problem.latency_ms.get(population, {})
        if host in row:
            return row[host]
        return row.get(self.hosts[host].domain(SITE), math.inf)

    def served(self, demand: Demand, population: str) -> list[tuple[float, float]]:
        """Return (share, ms) of a population's requests to a demand, as far as they are served.

        The nearest copy serves all, unless the plan says otherwise, or the copy is beyond a bound
        that holds for the nearest copy.
        """
        if demand.name in self.plan.served:
            shares = self.plan.served[demand.name].get(population, {})
            return [
                (share, min(self.far(population, host), NO_PATH_MS))
                for host, share in shares.items()
                if host in self.hosts and share > 0
            ]
        ms = min((self.far(population, host) for host in self.counts[demand.name]), default=None)
        if ms is None:
            return []
        bound = demand.latency_bound_ms
        if demand.bound_for != EVERY_COPY and bound is not None and ms > bound:
            return []
        return [(1.0, min(ms, NO_PATH_MS))]


def copies(demand: Demand, plan: Plan) -> list[tuple[str, Flavour]]:
    """Return host and flavour of each copy; the first flavour where the plan names none."""
    known = {flavour.name: flavour for flavour in demand.flavours} or {"": Flavour("")}
    first = next(iter(known.values()))
    hosts = plan.hosts.get(demand.name, ())
    names = plan.flavours.get(demand.name, ())
    chosen = [known.get(name, first) for name in names]
    return list(zip(hosts, chosen + [first] * (len(hosts) - len(chosen)), strict=False))


def needs(demand: Demand, flavour: Flavour, host: str) -> dict[str, float]:
    """Return what a copy in a flavour needs on a host."""
    return {**demand.resources, **flavour.resources, **flavour.resources_at.get(host, {})}


def amount(state: State, rule: Rule) -> float:  # noqa: C901, PLR0911, PLR0912 - one line per rule
    """Return by how much a plan breaks a rule; 0 if it keeps it."""
    match rule:
        case Ban():
            return sum(state.counts[d][h] for d in rule.demands for h in rule.hosts)
        case Fence():
            inside = sum(state.counts[d][h] for d in rule.demands for h in rule.hosts)
            return sum(map(state.placed, rule.demands)) - inside
        case Spread():
            return sum(n - 1 for n in state.per_domain(rule.demands, rule.domain).values() if n)
        case Gather():
            inside = max(state.per_domain(rule.demands, rule.domain).values(), default=0)
            return sum(map(state.placed, rule.demands)) - inside
        case Among():
            held = [_inside(state, rule.demands, group) for group in rule.groups]
            return sum(map(state.placed, rule.demands)) - max(held, default=0)
        case Split():
            return _split(state, rule)
        case SplitAmong():
            return _split_among(state, rule)
        case Lonely():
            return _shared_hosts(state, rule.demands)
        case Beside():
            there = state.per_domain([rule.of], rule.domain)
            mine = state.per_domain([rule.demand], rule.domain)
            return sum(count for domain, count in mine.items() if not there[domain])
        case Occupy():
            held = [n for n in state.per_domain(rule.demands, rule.domain).values() if n]
            return max(0, rule.at_least - len(held)) if held else 0
        case Root():
            return sum(
                max(0, count - state.counts[d][host])
                for d in rule.demands
                for host, count in state.now[d].items()
                if host in state.hosts
            )
        case Quarantine():
            return sum(
                abs(state.counts[d][host] - state.now[d][host])
                for d in state.demands
                for host in rule.hosts
                if host in state.hosts
            )
        case Preserve():
            return _short(state, rule)
        case Overbook():
            return sum(
                _over(
                    state.loads[host][rule.resource],
                    rule.factor * state.hosts[host].capacity.get(rule.resource, 0.0),
                )
                for host in rule.hosts
                if host in state.hosts
            )
        case MaxOnline():
            on = {host for counts in state.counts.values() for host, n in counts.items() if n}
            return max(0, len(on & rule.hosts) - rule.limit)
        case MaxSkew():
            return sum(_skewed(state, demand, rule) for demand in rule.demands)
        case Survive():
            return sum(_lost(state, demand, rule) for demand in rule.demands)
        case ServeAfterFailure():
            return sum(_unserved(state, state.demands[demand], rule) for demand in rule.demands)
        case Percentile():
            return sum(_late(state, state.demands[demand], rule) for demand in rule.demands)
        case MigrationBudget():
            return max(0, sum(moved(state, demand) for demand in state.demands) - rule.limit)


def moved(state: State, demand: str) -> int:
    """Return how many copies that run now do not stay, of those that are to run at all."""
    now = state.now[demand]
    kept = sum((now & state.counts[demand]).values())
    return min(sum(now.values()), state.demands[demand].replicas) - kept


def _inside(state: State, demands: Iterable[str], hosts: Iterable[str]) -> int:
    group = set(hosts)
    return sum(n for d in demands for host, n in state.counts[d].items() if host in group)


def _split(state: State, rule: Split) -> int:
    sets: Counter[str] = Counter()
    for names in rule.sets:
        sets.update({domain for domain, n in state.per_domain(names, rule.domain).items() if n})
    return sum(n - 1 for n in sets.values() if n > 1)


def _split_among(state: State, rule: SplitAmong) -> int:
    """Return the copies outside, for the matching of sets to groups that leaves fewest out."""
    import networkx as nx  # noqa: PLC0415 - seldom used, and a wake should not wait for it

    graph: Any = nx.Graph()
    for s, names in enumerate(rule.sets):
        for g, group in enumerate(rule.groups):
            if inside := _inside(state, names, group):
                graph.add_edge(("set", s), ("group", g), weight=inside)
    matched = nx.max_weight_matching(graph)
    kept = sum(graph.edges[edge]["weight"] for edge in matched)
    return sum(state.placed(name) for names in rule.sets for name in names) - int(kept)


def _shared_hosts(state: State, demands: frozenset[str]) -> int:
    mine = {h for d in demands for h, n in state.counts[d].items() if n}
    others = set(state.demands) - demands
    return len(mine & {h for d in others for h, n in state.counts[d].items() if n})


def _short(state: State, rule: Preserve) -> float:
    """Return the units missing on hosts of the demands if each copy took what it may."""
    wanted: Counter[str] = Counter()
    mine: set[str] = set()
    for demand in state.problem.demands:
        for host, flavour in copies(demand, state.plan):
            least = rule.amount if demand.name in rule.demands else 0.0
            units = max(needs(demand, flavour, host).get(rule.resource, 0.0), least)
            wanted[host] += units  # type: ignore[assignment]
            if demand.name in rule.demands:
                mine.add(host)
    return sum(
        _over(float(wanted[host]), state.hosts[host].room(rule.resource))
        for host in mine
        if host in state.hosts
    )


def _over(used: float, there: float) -> float:
    return used - there if used > there + TOLERANCE else 0.0


def _skewed(state: State, demand: str, rule: MaxSkew) -> int:
    held = state.per_domain([demand], rule.domain)
    every = [held[domain] for domain in {host.domain(rule.domain) for host in state.hosts.values()}]
    return max(0, max(every, default=0) - min(every, default=0) - rule.skew)


def _lost(state: State, demand: str, rule: Survive) -> int:
    placed = state.placed(demand)
    worst = max(state.per_domain([demand], rule.domain).values(), default=0)
    return max(0, rule.keep - (placed - worst)) if placed else 0


def _unserved(state: State, demand: Demand, rule: ServeAfterFailure) -> float:
    """Return the requests per second that cannot be served after the worst loss of one site."""
    if not state.placed(demand.name):
        return 0.0
    sites = {state.hosts[host].domain(SITE) for host in state.counts[demand.name]}
    total = sum(rate for rate in demand.rates.values() if rate > 0)
    worst = max(total - _served_without(state, demand, rule, site) for site in sites)
    return worst if worst > TOLERANCE * max(1.0, total) else 0.0


def _served_without(state: State, demand: Demand, rule: ServeAfterFailure, site: str) -> float:
    limit = math.inf if rule.within_ms is None else rule.within_ms
    left = {
        host: n
        for host, n in state.counts[demand.name].items()
        if n and state.hosts[host].domain(SITE) != site
    }
    near = {
        population: [
            host
            for host in left
            if math.isfinite(state.far(population, host)) and state.far(population, host) <= limit
        ]
        for population, rate in demand.rates.items()
        if rate > 0
    }
    if demand.copy_rps is None:
        return sum(demand.rates[population] for population, hosts in near.items() if hosts)
    import networkx as nx  # noqa: PLC0415 - seldom used, and a wake should not wait for it

    graph: Any = nx.DiGraph()
    graph.add_nodes_from(["from", "to"])
    for population, hosts in near.items():
        rate = Fraction(demand.rates[population])
        graph.add_edge("from", ("population", population), capacity=rate)
        for host in hosts:
            graph.add_edge(("population", population), ("host", host), capacity=rate)
    for host, n in left.items():
        graph.add_edge(("host", host), "to", capacity=n * Fraction(demand.copy_rps))
    flow = nx.maximum_flow_value(graph, "from", "to", flow_func=nx.algorithms.flow.edmonds_karp)
    return float(flow)


def _late(state: State, demand: Demand, rule: Percentile) -> float:
    """Return the requests per second that would have to be served in time, too."""
    rates = {population: rate for population, rate in demand.rates.items() if rate > 0}
    if not state.placed(demand.name) or not rates:
        return 0.0
    near = sum(
        rate * share
        for population, rate in rates.items()
        for share, ms in state.served(demand, population)
        if ms <= rule.within_ms and math.isfinite(ms)
    )
    short = rule.share * sum(rates.values()) - near
    return short if short > TOLERANCE * max(1.0, sum(rates.values())) else 0.0

"""What a plan is judged by: each term one function, with its unit.

A term is linear in the variables of the model, so one function serves twice: the MILP minimises it,
and `evaluate` puts a finished plan into it. `Plan.terms` is therefore comparable between
algorithms. A new term is one function and one line in `TERMS`.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from time import perf_counter

from placement.problem import Demand, Malformed, Options, Plan, Problem

UNREACHABLE_MS = 10_000.0  # charged where there is no path; longer than any real one

Sites = Mapping[str, Sequence[str]]


@dataclass(frozen=True, slots=True)
class Runs:
    """x: a copy of the demand runs at the site (0 or 1)."""

    demand: str
    site: str


@dataclass(frozen=True, slots=True)
class On:
    """y: the site runs anything at all (0 or 1)."""

    site: str


@dataclass(frozen=True, slots=True)
class Served:
    """a: the share of a population's requests to the demand that go to the site (0 to 1)."""

    population: str
    demand: str
    site: str


Variable = Runs | On | Served


@dataclass(frozen=True, slots=True)
class Term:
    """A linear expression: a constant, and a coefficient per variable."""

    coefficients: Mapping[Variable, float]
    constant: float = 0.0


# --- the terms; `sites` are the sites to consider for each demand -------------------------------


def latency_ms(problem: Problem, sites: Sites) -> Term:
    """Mean one-way latency of a request to its nearest copy, in ms, over all demands by rate.

    sum over p,d,s of rate[p,d] * latency[p,s] * a[p,d,s] / sum of rates
    """
    total = sum(rate for demand in problem.demands for rate in demand.rates.values())
    return Term(
        {
            Served(population, demand.name, site): rate * latency(problem, population, site) / total
            for demand in problem.demands
            for site in sites[demand.name]
            for population, rate in demand.rates.items()
            if rate > 0
        }
    )


def energy_w(problem: Problem, sites: Sites) -> Term:
    """Electrical power in W: idle power of sites that are on, plus the share of busy cores.

    sum over s of idle[s] * y[s] + sum over d,s of (busy[s] - idle[s]) * cpu[d] / cpu[s] * x[d,s]
    """
    by_name = {site.name: site for site in problem.sites}
    coefficients: dict[Variable, float] = {On(s.name): s.idle_w for s in problem.sites}
    for demand in problem.demands:
        for name in sites[demand.name]:
            site = by_name[name]
            share = demand.resources.cpu / site.capacity.cpu if site.capacity.cpu else 0.0
            coefficients[Runs(demand.name, name)] = (site.busy_w - site.idle_w) * share
    return Term(coefficients)


def cost_hour(problem: Problem, sites: Sites) -> Term:
    """Money per hour: sites that are on, cores and GiB reserved.

    sum over s of host[s] * y[s] + sum over d,s of (core[s] * cpu[d] + gib[s] * GiB[d]) * x[d,s]
    """
    by_name = {site.name: site for site in problem.sites}
    coefficients: dict[Variable, float] = {On(s.name): s.host_hour for s in problem.sites}
    for demand in problem.demands:
        need = demand.resources
        for name in sites[demand.name]:
            site = by_name[name]
            coefficients[Runs(demand.name, name)] = (
                site.cpu_hour * need.cpu + site.gib_hour * need.memory_mib / 1024
            )
    return Term(coefficients)


def migrations(problem: Problem, sites: Sites) -> Term:
    """Count of copies that run now and would have to move; one that is only stopped is none.

    sum over d of min(copies now, replicas[d]) - sum over s in current[d] of x[d,s]
    """
    coefficients: dict[Variable, float] = {}
    moved = 0
    for demand in problem.demands:
        now = set(problem.current.get(demand.name, ()))
        moved += min(len(now), demand.replicas)
        coefficients.update((Runs(demand.name, s), -1.0) for s in sites[demand.name] if s in now)
    return Term(coefficients, float(moved))


TERMS: dict[str, Callable[[Problem, Sites], Term]] = {
    "latency_ms": latency_ms,
    "energy_w": energy_w,
    "cost_hour": cost_hour,
    "migrations": migrations,
}


# --- use ----------------------------------------------------------------------------------------


def latency(problem: Problem, population: str, site: str) -> float:
    """Return the one-way latency in ms, `UNREACHABLE_MS` where there is no path."""
    return problem.latency_ms.get(population, {}).get(site, UNREACHABLE_MS)


def mean_latencies_ms(problem: Problem, demand: Demand, sites: Iterable[str]) -> dict[str, float]:
    """Return the rate-weighted mean latency of a demand's clients to each site; 0 without rates."""
    total = sum(demand.rates.values())
    rows = [
        (rate / total, problem.latency_ms.get(population, {}))
        for population, rate in demand.rates.items()
        if rate > 0
    ]
    return {
        site: sum([share * row.get(site, UNREACHABLE_MS) for share, row in rows]) for site in sites
    }


def check_weights(weights: Mapping[str, float]) -> None:
    """Raise `Malformed` at the first unknown term or senseless weight."""
    for name, weight in weights.items():
        if name not in TERMS:
            raise Malformed(f"weights.{name}", f"no such term; known: {', '.join(TERMS)}")
        if not 0 <= weight < float("inf"):
            raise Malformed(f"weights.{name}", f"must be at least 0 and finite, not {weight}")


def objective(problem: Problem, sites: Sites, weights: Mapping[str, float]) -> Term:
    """Return the weighted sum of the terms; see `check_weights` for what it raises."""
    total: dict[Variable, float] = {}
    constant = 0.0
    check_weights(weights)
    for name, weight in weights.items():
        term = TERMS[name](problem, sites)
        constant += weight * term.constant
        for variable, coefficient in term.coefficients.items():
            total[variable] = total.get(variable, 0.0) + weight * coefficient
    return Term(total, constant)


def evaluate(problem: Problem, sites: Sites) -> dict[str, float]:
    """Return the value of every term for a plan whose demands and sites all exist."""
    on = {site for chosen in sites.values() for site in chosen}
    nearest = {
        (population, demand.name): _nearest(problem, population, sites[demand.name])
        for demand in problem.demands
        if sites[demand.name]
        for population in demand.rates
    }

    def value(variable: Variable) -> bool:
        match variable:
            case On(site):
                return site in on
            case Served(population, demand, site):
                return nearest[population, demand] == site
            case Runs(demand, site):
                return site in sites[demand]

    return {
        name: term.constant + sum(c for v, c in term.coefficients.items() if value(v))
        for name, term in ((name, make(problem, sites)) for name, make in TERMS.items())
    }


def _nearest(problem: Problem, population: str, sites: Sequence[str]) -> str:
    return min(sites, key=lambda site: latency(problem, population, site))


def plan_of(
    problem: Problem,
    sites: Sites,
    options: Options,
    *,
    algorithm: str,
    started: float,
    bound: float | None = None,
) -> Plan:
    """Return the plan that puts each demand at these sites, with its terms, value and reasons.

    `started` is a `time.perf_counter` reading. A bound above the value is rounding and is cut.
    """
    check_weights(options.weights)
    terms = evaluate(problem, sites)
    value = sum(weight * terms[name] for name, weight in options.weights.items())
    bound = None if bound is None else min(bound, value)
    best_first: dict[str, tuple[str, ...]] = {}
    why: dict[str, str] = {}
    for demand in problem.demands:
        mean = mean_latencies_ms(problem, demand, sites[demand.name])
        best_first[demand.name] = tuple(site for _, site in sorted((m, s) for s, m in mean.items()))
        listed = ", ".join(f"{s} ({mean[s]:.1f} ms)" for s in best_first[demand.name])
        why[demand.name] = f"{algorithm} chose {listed or 'no site'} (mean one-way latency)"
    return Plan(
        sites=best_first,
        value=value,
        terms=terms,
        bound=bound,
        gap=None if bound is None else (value - bound) / max(abs(value), 1e-9),
        algorithm=algorithm,
        seconds=perf_counter() - started,
        why=why,
    )

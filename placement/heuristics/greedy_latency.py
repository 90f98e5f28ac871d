"""Greedy latency: each demand at the nearest host that takes it.

`place_one` answers the question of a wake (one demand, now) in well under a millisecond at 100
hosts; `greedy_latency` asks it for every demand, large ones first, to make a whole plan.
"""

from collections.abc import Collection, Mapping, Sequence

from placement.amounts import NO_PATH_MS
from placement.candidates import feasible, latency, too_far
from placement.heuristics import fill
from placement.problem import MEMORY, Amounts, Demand, Host, Options, Plan, Problem, Ranking
from placement.validate import demand_named

NEAR_TIE_MS = 1.0  # latencies in the same millisecond count as equal


def place_one(
    problem: Problem,
    demand_name: str,
    used: Mapping[str, Amounts],
    prefer: Sequence[str] = (),
    *,
    population: str = "",
) -> Ranking:
    """Return every host that can take one more copy of a demand now, best first.

    `used` is what is taken at each host, `problem.current` where copies run. The nearest host
    comes first: nearest to `population` if one asks (it is then held to the demand's latency bound
    too), else by the rate-weighted mean. Within one millisecond the order is: hosts of `prefer`
    (the last plan) in their order, hosts that are on, most free memory, name.

    Raises:
        Malformed: the problem has no such demand.

    """
    demand = demand_named(problem, demand_name)
    ranking = feasible(problem, demand, used, problem.current)
    if population and demand.latency_bound_ms is not None:
        ranking = _within(problem, ranking, population, demand.latency_bound_ms)
    return _ranked(
        problem, demand, ranking, used, problem.current, prefer=prefer, population=population
    )


def greedy_latency(problem: Problem, _options: Options) -> Plan:
    """Return the plan that places the largest demands first, each at its nearest feasible host.

    Near ties go to where a copy runs now. See `placement.heuristics.fill` for what it raises.
    """

    def rank(
        problem: Problem,
        demand: Demand,
        used: Mapping[str, Amounts],
        placed: Mapping[str, Collection[str]],
    ) -> Ranking:
        ranking = feasible(problem, demand, used, placed)
        now = problem.current.get(demand.name, ())
        return _ranked(problem, demand, ranking, used, placed, prefer=now)

    order = sorted(problem.demands, key=lambda demand: -_largest_share(problem, demand))
    return fill(problem, name="greedy-latency", order=order, rank=rank)


def _within(problem: Problem, ranking: Ranking, population: str, bound_ms: float) -> Ranking:
    hosts = {host.name: host for host in problem.hosts}
    far = {name: too_far(problem, population, hosts[name], bound_ms) for name in ranking.hosts}
    kept = tuple(name for name in ranking.hosts if not far[name])
    return Ranking(kept, {**ranking.reasons, **{name: why for name, why in far.items() if why}})


def _ranked(
    problem: Problem,
    demand: Demand,
    ranking: Ranking,
    used: Mapping[str, Amounts],
    placed: Mapping[str, Collection[str]],
    *,
    prefer: Sequence[str],
    population: str = "",
) -> Ranking:
    place_in_plan = {host: index for index, host in reversed(list(enumerate(prefer)))}
    on = {name for name, taken in used.items() if any(taken.values())}
    on.update(*placed.values())
    left = set(ranking.hosts)
    hosts = [host for host in problem.hosts if host.name in left]
    free = {
        host.name: host.room(MEMORY) - used.get(host.name, {}).get(MEMORY, 0.0) for host in hosts
    }
    if population:
        distance = {
            host.name: min(latency(problem, population, host), NO_PATH_MS) for host in hosts
        }
    else:
        distance = _mean_latencies_ms(problem, demand, hosts)

    def score(host: str) -> tuple[float, int, bool, float, str]:
        near = distance[host] // NEAR_TIE_MS
        rank = place_in_plan.get(host, len(place_in_plan))
        return near, rank, host not in on, -free[host], host

    return Ranking(tuple(sorted(ranking.hosts, key=score)), ranking.reasons)


def _mean_latencies_ms(problem: Problem, demand: Demand, hosts: Sequence[Host]) -> dict[str, float]:
    """Return the rate-weighted mean latency of a demand's clients to each host; 0 without rates."""
    total = sum(demand.rates.values())
    rows = [
        (rate / total, problem.latency_ms.get(population, {}))
        for population, rate in demand.rates.items()
        if rate > 0
    ]
    return {
        host.name: sum(
            [
                share * row.get(host.name, row.get(host.site or host.name, NO_PATH_MS))
                for share, row in rows
            ]
        )
        for host in hosts
    }


def _largest_share(problem: Problem, demand: Demand) -> float:
    """Return how large a demand is, as the largest share of any resource of the biggest host."""
    return max(
        (
            units / most
            for name, units in demand.resources.items()
            if (most := max((host.room(name) for host in problem.hosts), default=0.0))
        ),
        default=0.0,
    )

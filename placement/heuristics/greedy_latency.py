"""Greedy latency: each demand at the nearest site that takes it.

`place_one` answers the question of a wake (one demand, now) in well under a millisecond at 100
sites; `greedy_latency` asks it for every demand, large ones first, to make a whole plan.
"""

from collections.abc import Collection, Mapping, Sequence

from placement.candidates import demand_named, feasible, too_far
from placement.heuristics import fill
from placement.objectives import latency, mean_latencies_ms
from placement.problem import Demand, Options, Plan, Problem, Ranking, Resources

NEAR_TIE_MS = 1.0  # latencies in the same millisecond count as equal


def place_one(
    problem: Problem,
    demand_name: str,
    used: Mapping[str, Resources],
    prefer: Sequence[str] = (),
    *,
    population: str = "",
) -> Ranking:
    """Return every site that can take one more copy of a demand now, best first.

    `used` is what is taken at each site, `problem.current` where copies run. The nearest site
    comes first: nearest to `population` if one asks (it is then held to the demand's latency bound
    too), else by the rate-weighted mean. Within one millisecond the order is: sites of `prefer`
    (the last plan) in their order, sites that are on, most free memory, name.

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


def greedy_latency(problem: Problem, options: Options) -> Plan:
    """Return the plan that places the largest demands first, each at its nearest feasible site.

    Near ties go to where a copy runs now. See `placement.heuristics.fill` for what it raises.
    """

    def rank(
        problem: Problem,
        demand: Demand,
        used: Mapping[str, Resources],
        placed: Mapping[str, Collection[str]],
    ) -> Ranking:
        ranking = feasible(problem, demand, used, placed)
        now = problem.current.get(demand.name, ())
        return _ranked(problem, demand, ranking, used, placed, prefer=now)

    order = sorted(problem.demands, key=lambda demand: -_largest_share(problem, demand))
    return fill(problem, options, name="greedy-latency", order=order, rank=rank)


def _within(problem: Problem, ranking: Ranking, population: str, bound_ms: float) -> Ranking:
    far = {site: too_far(problem, population, site, bound_ms) for site in ranking.sites}
    kept = tuple(site for site in ranking.sites if not far[site])
    return Ranking(kept, {**ranking.reasons, **{s: why for s, why in far.items() if why}})


def _ranked(
    problem: Problem,
    demand: Demand,
    ranking: Ranking,
    used: Mapping[str, Resources],
    placed: Mapping[str, Collection[str]],
    *,
    prefer: Sequence[str],
    population: str = "",
) -> Ranking:
    place_in_plan = {site: index for index, site in reversed(list(enumerate(prefer)))}
    on = {name for name, taken in used.items() if taken.cpu or taken.memory_mib}
    on.update(*placed.values())
    free = {
        site.name: site.capacity.memory_mib
        - (used[site.name].memory_mib if site.name in used else 0.0)
        for site in problem.sites
    }

    if population:
        distance = {site: latency(problem, population, site) for site in ranking.sites}
    else:
        distance = mean_latencies_ms(problem, demand, ranking.sites)

    def score(site: str) -> tuple[float, int, bool, float, str]:
        near = distance[site] // NEAR_TIE_MS
        rank = place_in_plan.get(site, len(place_in_plan))
        return near, rank, site not in on, -free[site], site

    return Ranking(tuple(sorted(ranking.sites, key=score)), ranking.reasons)


def _largest_share(problem: Problem, demand: Demand) -> float:
    """Return how large a demand is, as the largest share of any resource of the biggest site."""
    cpu = max((site.capacity.cpu for site in problem.sites), default=0.0)
    memory = max((site.capacity.memory_mib for site in problem.sites), default=0.0)
    return max(
        demand.resources.cpu / cpu if cpu else 0.0,
        demand.resources.memory_mib / memory if memory else 0.0,
    )

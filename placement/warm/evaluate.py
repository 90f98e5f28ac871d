"""What a warm plan is worth: the only definition of its terms, and the delays of each service."""

from collections.abc import Mapping
from dataclasses import dataclass

from placement.problem import MEMORY
from placement.warm.formulas import asleep, erlang_b
from placement.warm.problem import (
    POOLED,
    Place,
    Sleeper,
    Spare,
    WarmOptions,
    WarmPlan,
    WarmProblem,
    needs_of,
)

UNREACHABLE_MS = 10_000.0  # charged where there is no path; as in `placement.latencies`

UNITS: Mapping[str, str] = {"waking": "clients", "travelling": "clients", "memory_mib": "MiB"}


@dataclass(frozen=True, slots=True)
class Delay:
    """What one request waits on average (seconds): for a wake, and for the way to the host."""

    wake_s: float
    travel_s: float


def asleep_of(service: Sleeper) -> float:
    """Return the probability that a request finds a service asleep."""
    stated = service.asleep
    return asleep(service.rate, service.idle_s) if stated is None else stated


def travel_s(problem: WarmProblem, service: Sleeper, host: str) -> float:
    """Return the mean one-way time of a service's requests to a host, in seconds."""
    if service.rate <= 0:
        return 0.0
    ms = sum(
        rate * min(UNREACHABLE_MS, problem.latency_ms.get(population, {}).get(host, UNREACHABLE_MS))
        for population, rate in service.rates.items()
    )
    return ms / service.rate / 1000


def misses(problem: WarmProblem, plan: WarmPlan) -> dict[tuple[str, str], float]:
    """Return with what probability each pool (recipe, host) that a plan uses is found empty."""
    wakes: dict[tuple[str, str], float] = {}
    for service in problem.services:
        place = plan.places[service.name]
        if place.rung == POOLED:
            key = (service.recipe, place.host)
            wakes[key] = wakes.get(key, 0.0) + service.rate * asleep_of(service)
    spares = {each.name: each.at for each in problem.recipes}
    return {
        (recipe, host): erlang_b(
            plan.pools.get(recipe, {}).get(host, 0), each * spares[recipe][host].refill_s
        )
        for (recipe, host), each in wakes.items()
    }


def delays(problem: WarmProblem, plan: WarmPlan) -> dict[str, Delay]:
    """Return what a request of each service waits; the plan must pass the judge."""
    empty = misses(problem, plan)
    spares = {each.name: each.at for each in problem.recipes}
    found = {}
    for service in problem.services:
        place = plan.places[service.name]
        if place.rung == POOLED:
            key = (service.recipe, place.host)
            wake_s = pooled_s(spares[service.recipe][place.host], empty[key])
        else:
            wake_s = _rung_s(service, place)
        travel = travel_s(problem, service, place.host)
        found[service.name] = Delay(asleep_of(service) * wake_s, travel)
    return found


def pooled_s(spare: Spare, empty: float) -> float:
    """Return how long a wake from a pool takes that is empty with some probability."""
    return spare.adopt_s + empty * (spare.miss_s - spare.adopt_s)


def _rung_s(service: Sleeper, place: Place) -> float:
    return next(rest.wake_s for rest in service.rests[place.host] if rest.rung == place.rung)


def evaluate(problem: WarmProblem, plan: WarmPlan) -> dict[str, float]:
    """Return every term of a plan that passes the judge."""
    waits = delays(problem, plan)
    return {
        "waking": sum(each.rate * waits[each.name].wake_s for each in problem.services),
        "travelling": sum(each.rate * waits[each.name].travel_s for each in problem.services),
        "memory_mib": sum(
            needs_of(problem, plan, host.name).get(MEMORY, 0.0) for host in problem.hosts
        ),
    }


def worth(terms: Mapping[str, float], options: WarmOptions) -> float:
    """Return the value that terms add up to."""
    return terms["waking"] + terms["travelling"] + options.mib_price * terms["memory_mib"]

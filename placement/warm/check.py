"""An independent judge of warm plans.

`violations` says in plain sentences what is wrong with a plan, from the meaning of `WarmProblem`
alone; it shares no code with the exact model or the greedy one. `plan_warm` asks it about every
plan, and so should whoever reads a plan from a file.
"""

from collections import Counter
from collections.abc import Iterator

from placement.problem import Amounts
from placement.warm.problem import POOLED, Place, Sleeper, WarmPlan, WarmProblem

TOLERANCE = 1e-6  # relative, of sums of fractions


def violations(problem: WarmProblem, plan: WarmPlan) -> tuple[str, ...]:
    """Return everything that makes a plan no answer to a problem; empty when it is one."""
    return (*_services(problem, plan), *_pools(problem, plan), *_room(problem, plan))


def _services(problem: WarmProblem, plan: WarmPlan) -> Iterator[str]:
    known = {service.name for service in problem.services}
    yield from (f"{name}: there is no such service" for name in plan.places if name not in known)
    for service in problem.services:
        place = plan.places.get(service.name)
        if place is None:
            yield f"{service.name}: the plan says not where it rests"
        else:
            yield from (
                f"{service.name} at {place.host}: {wrong}"
                for wrong in _place(problem, plan, service, place)
            )


def _place(problem: WarmProblem, plan: WarmPlan, service: Sleeper, place: Place) -> Iterator[str]:
    if place.host not in {host.name for host in problem.hosts}:
        yield "there is no such host"
        return
    rungs = {rest.rung for rest in service.rests.get(place.host, ())}
    if not rungs:
        yield "the host cannot run it"
    elif place.rung == POOLED:
        yield from _pooled(plan, service, place.host)
    elif place.rung not in rungs:
        yield f"it cannot rest {place.rung} there"
    yield from _too_far(problem, service, place.host)


def _pooled(plan: WarmPlan, service: Sleeper, host: str) -> Iterator[str]:
    if not service.recipe:
        yield "it has no recipe to be made by"
    elif not plan.pools.get(service.recipe, {}).get(host, 0) >= 1:
        yield f"nothing of recipe {service.recipe} is kept there"


def _too_far(problem: WarmProblem, service: Sleeper, host: str) -> Iterator[str]:
    bound = service.latency_bound_ms
    for population, rate in service.rates.items():
        if bound is None or rate <= 0:
            continue
        far = problem.latency_ms.get(population, {}).get(host)
        if far is None:
            yield f"{population} has no path to it"
        elif far > bound:
            yield f"farther than {bound:g} ms from {population}"


def _pools(problem: WarmProblem, plan: WarmPlan) -> Iterator[str]:
    recipes = {recipe.name: recipe.at for recipe in problem.recipes}
    for name, counts in plan.pools.items():
        if name not in recipes:
            yield f"{name}: there is no such recipe"
            continue
        for host, count in counts.items():
            spare = recipes[name].get(host)
            if spare is None:
                yield f"{name} at {host}: no anonymous instance can be kept there"
            elif count != int(count) or not 0 <= count <= spare.most:
                yield f"{name} at {host}: {count} kept, 0 to {spare.most} can be"


def _room(problem: WarmProblem, plan: WarmPlan) -> Iterator[str]:
    held: Counter[tuple[str, str]] = Counter()
    for where, needs, count in _holding(problem, plan):
        for resource, amount in needs.items():
            held[where, resource] += count * amount  # type: ignore[assignment]
    for host in problem.hosts:
        for resource in sorted({resource for name, resource in held if name == host.name}):
            used, there = held[host.name, resource], host.room.get(resource, 0.0)
            if used > there + TOLERANCE * max(1.0, there):
                yield f"{host.name}: {used:g} {resource} held, {there:g} there"


def _holding(problem: WarmProblem, plan: WarmPlan) -> Iterator[tuple[str, Amounts, int]]:
    """Yield what holds something: its host, what each holds, and how many there are."""
    for service in problem.services:
        if (place := plan.places.get(service.name)) is not None:
            for rest in service.rests.get(place.host, ()):
                if rest.rung == place.rung:
                    yield place.host, rest.needs, 1
    for recipe in problem.recipes:
        for where, count in plan.pools.get(recipe.name, {}).items():
            if where in recipe.at:
                yield where, recipe.at[where].needs, count

"""What makes a question of warm instances senseless; paths are those of the JSON."""

import math
from collections import Counter
from collections.abc import Iterable, Iterator
from numbers import Real

from placement.problem import Malformed
from placement.validate import LARGEST
from placement.warm.problem import POOLED, Recipe, Sleeper, WarmOptions, WarmProblem

MOST_KEPT = 100  # anonymous instances of one recipe on one host: each is a column of the exact way

ALGORITHMS = ("auto", "exact", "greedy")

Numbers = Iterator[tuple[str, float | None]]


def validate(problem: WarmProblem) -> None:
    """Raise `Malformed` at the first name or number that makes no sense.

    Names must be unique and a service's recipe must exist; every number must be from 0 to
    `LARGEST`. Hosts that a service or a recipe names may be absent: hosts come and go.
    """
    _unique("hosts", (each.name for each in problem.hosts))
    _unique("services", (each.name for each in problem.services))
    _unique("recipes", (each.name for each in problem.recipes))
    for path, number in _numbers(problem):
        if number is not None and not _in_range(number):
            raise Malformed(path, f"must be a number from 0 to {LARGEST:g}, not {number!r}")
    recipes = {each.name for each in problem.recipes}
    for index, service in enumerate(problem.services):
        _service(f"services[{index}]", service, recipes)
    for index, recipe in enumerate(problem.recipes):
        _recipe(f"recipes[{index}]", recipe)


def check_options(options: WarmOptions) -> None:
    """Raise `Malformed` at the first option that makes no sense."""
    if options.algorithm not in ALGORITHMS:
        known = ", ".join(ALGORITHMS)
        raise Malformed(
            "algorithm", f"no warm algorithm named {options.algorithm!r}; known: {known}"
        )
    for field in ("mib_price", "gap"):
        if not _in_range(getattr(options, field)):
            raise Malformed(field, "must be a finite number, at least 0")
    if not _in_range(options.deadline_s) or not options.deadline_s > 0:
        raise Malformed("deadline_s", f"must be a number above 0, not {options.deadline_s!r}")
    if options.solver != "auto":
        from placement.solvers import check_name  # noqa: PLC0415 - numpy, only for who names one

        check_name(options.solver)


def _service(path: str, service: Sleeper, recipes: set[str]) -> None:
    if service.asleep is not None and service.asleep > 1:
        raise Malformed(f"{path}.asleep", f"is a probability, not {service.asleep:g}")
    if service.recipe and service.recipe not in recipes:
        raise Malformed(f"{path}.recipe", f"there is no recipe {service.recipe!r}")
    for host, rests in service.rests.items():
        rungs = [rest.rung for rest in rests]
        _unique(f"{path}.rests.{host}", rungs)
        if POOLED in rungs:
            raise Malformed(f"{path}.rests.{host}", f"{POOLED!r} comes of a recipe, not of a rest")


def _recipe(path: str, recipe: Recipe) -> None:
    for host, spare in recipe.at.items():
        if spare.adopt_s > spare.miss_s:
            raise Malformed(
                f"{path}.at.{host}.adopt_s", "is longer than miss_s: the pool would be in the way"
            )
        if spare.most != int(spare.most) or spare.most > MOST_KEPT:
            raise Malformed(
                f"{path}.at.{host}.most", f"must be a whole number, {MOST_KEPT} at most"
            )


def _numbers(problem: WarmProblem) -> Numbers:
    for index, host in enumerate(problem.hosts):
        yield from ((f"hosts[{index}].room.{name}", each) for name, each in host.room.items())
    for index, service in enumerate(problem.services):
        yield from _of_service(f"services[{index}]", service)
    for index, recipe in enumerate(problem.recipes):
        yield from _of_recipe(f"recipes[{index}]", recipe)
    for population, row in problem.latency_ms.items():
        yield from ((f"latency_ms.{population}.{host}", ms) for host, ms in row.items())


def _of_service(path: str, service: Sleeper) -> Numbers:
    yield from ((f"{path}.rates.{name}", rate) for name, rate in service.rates.items())
    for name in ("idle_s", "asleep", "latency_bound_ms"):
        yield f"{path}.{name}", getattr(service, name)
    for host, rests in service.rests.items():
        for index, rest in enumerate(rests):
            yield f"{path}.rests.{host}[{index}].wake_s", rest.wake_s
            for name, amount in rest.needs.items():
                yield f"{path}.rests.{host}[{index}].needs.{name}", amount


def _of_recipe(path: str, recipe: Recipe) -> Numbers:
    for host, spare in recipe.at.items():
        for name in ("adopt_s", "miss_s", "refill_s", "most"):
            yield f"{path}.at.{host}.{name}", getattr(spare, name)
        for name, amount in spare.needs.items():
            yield f"{path}.at.{host}.needs.{name}", amount


def _in_range(number: object) -> bool:
    fits = isinstance(number, Real) and not isinstance(number, bool)
    return fits and math.isfinite(float(number)) and 0 <= float(number) <= LARGEST  # type: ignore[arg-type]


def _unique(path: str, names: Iterable[str]) -> None:
    for name, count in Counter(names).items():
        if count > 1:
            raise Malformed(path, f"the name {name!r} is used {count} times")

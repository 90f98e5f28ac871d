"""A question of warm instances and its answer: `WarmProblem` and `WarmOptions`, `WarmPlan`.

Units are those of `placement.problem`: amounts by resource (`memory_mib` in MiB, `cpu` in cores,
any other in a unit of your own), rates in requests per second, latencies in milliseconds, one way.
Wake times are seconds.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from placement.problem import Amounts

# The rungs that an instance may rest at, and POOLED: made of an anonymous instance when it wakes.
# Any other name is a rung of your own.
COLD, SAVED, PAUSED, READY, POOLED = "cold", "saved", "paused", "ready", "pooled"


# --- the question -------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class WarmHost:
    """A host, with what idle instances may hold there: what is left beside all that is awake."""

    name: str
    room: Amounts = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Rest:
    """A way for the idle instance of a service to rest on a host.

    It holds `needs` as long as it rests, and a wake from there takes `wake_s`.
    """

    rung: str
    wake_s: float
    needs: Amounts = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Sleeper:
    """A service whose one instance rests somewhere between requests.

    `rests[host]` are the ways it may rest there; a host that is absent cannot run it.
    `rates[population]` are requests per second. An instance that nobody asked for `idle_s` seconds
    goes to sleep (None: never), so with Poisson arrivals at a total rate r a request finds it
    asleep with probability exp(-r * idle_s); `asleep` states that probability instead. It rests
    nowhere that is farther than `latency_bound_ms` from a population with a rate. `recipe` names
    the anonymous instances that it can be made of (empty: none).
    """

    name: str
    rests: Mapping[str, tuple[Rest, ...]]
    rates: Mapping[str, float] = field(default_factory=dict)
    idle_s: float | None = None
    asleep: float | None = None
    latency_bound_ms: float | None = None
    recipe: str = ""

    @property
    def rate(self) -> float:
        """Return the requests per second of all populations."""
        return sum(self.rates.values())


@dataclass(frozen=True, slots=True)
class Spare:
    """What anonymous instances of one recipe are like on one host.

    Each holds `needs` and rests at `rung`. To make a service of one takes `adopt_s`; if none is
    there, a wake takes `miss_s`. The one that was taken is replaced within `refill_s`, on average.
    At most `most` are kept.
    """

    needs: Amounts
    adopt_s: float
    miss_s: float
    refill_s: float
    most: int = 8
    rung: str = PAUSED


@dataclass(frozen=True, slots=True)
class Recipe:
    """A boot recipe, and the hosts that can keep anonymous instances of it."""

    name: str
    at: Mapping[str, Spare]


@dataclass(frozen=True, slots=True)
class WarmProblem:
    """A whole question. `latency_ms[population][host]` is one way; a missing pair has no path."""

    hosts: tuple[WarmHost, ...]
    services: tuple[Sleeper, ...]
    recipes: tuple[Recipe, ...] = ()
    latency_ms: Mapping[str, Mapping[str, float]] = field(default_factory=dict)

    def cold(self) -> "WarmProblem":
        """Return the same where what may rest cold on a host must, for comparison."""
        bare = (
            replace(
                service,
                recipe="",
                rests={
                    host: tuple(rest for rest in rests if rest.rung == COLD) or rests
                    for host, rests in service.rests.items()
                },
            )
            for service in self.services
        )
        return replace(self, services=tuple(bare), recipes=())


@dataclass(frozen=True, slots=True)
class WarmOptions:
    """How to answer.

    What counts is the mean number of clients that wait, and `mib_price` for each MiB held: how
    many waiting clients one MiB must save to be worth it. `algorithm` is ``exact``, ``greedy`` or
    ``auto``, which is exact for problems of moderate size. Without `bound`, ``greedy`` does not
    prove how far from the best it is, which takes longer than the plan. The rest is as in
    `placement.Options`.
    """

    mib_price: float = 0.0
    algorithm: str = "auto"
    deadline_s: float = 30.0
    gap: float = 0.0
    solver: str = "auto"
    threads: int = 1
    seed: int = 0
    bound: bool = True


# --- the answer ---------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Place:
    """Where the idle instance of a service rests, and how; POOLED: it is made when it wakes."""

    host: str
    rung: str


@dataclass(frozen=True, slots=True)
class WarmTarget:
    """What a host is to keep: `count` idle instances at a rung.

    `name` is that of a service or, if `anonymous`, of a boot recipe.
    """

    name: str
    host: str
    rung: str
    count: int = 1
    anonymous: bool = False


@dataclass(frozen=True, slots=True)
class WarmPlan:
    """An answer: `places[service]`, and `pools[recipe][host]`, the anonymous instances kept there.

    `value` is what was minimised, `terms` its parts: `waking` and `travelling` (mean number of
    clients that wait for a wake, or whose request is under way) and `memory_mib`. `bound` is proven
    to be below the value of every plan, `gap` their relative distance.
    """

    places: Mapping[str, Place]
    pools: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    value: float = 0.0
    terms: Mapping[str, float] = field(default_factory=dict)
    bound: float = 0.0
    gap: float = 1.0
    algorithm: str = ""
    solver: str = ""
    build_s: float = 0.0
    solve_s: float = 0.0

    @property
    def seconds(self) -> float:
        """Return how long it took in all."""
        return self.build_s + self.solve_s

    def targets(self, problem: WarmProblem) -> tuple[WarmTarget, ...]:
        """Return what hosts are to keep, in the order of the problem: pools, then services.

        Services that rest cold, or are made of anonymous instances, are kept nowhere.
        """
        spares = {each.name: each.at for each in problem.recipes}
        pools = (
            WarmTarget(recipe, host, spares[recipe][host].rung, count, anonymous=True)
            for recipe, counts in self.pools.items()
            for host, count in counts.items()
            if count
        )
        kept = (
            WarmTarget(each.name, place.host, place.rung)
            for each in problem.services
            if (place := self.places[each.name]).rung not in {COLD, POOLED}
        )
        return (*pools, *kept)


def needs_of(problem: WarmProblem, plan: WarmPlan, host: str) -> dict[str, float]:
    """Return what a plan holds on a host, by resource; what it names wrongly holds nothing."""
    held: dict[str, float] = {}
    for service in problem.services:
        place = plan.places.get(service.name)
        if place is None or place.host != host:
            continue
        rests = {rest.rung: rest.needs for rest in service.rests.get(host, ())}
        _add(held, rests.get(place.rung, {}), 1)
    for recipe in problem.recipes:
        if host in recipe.at:
            _add(held, recipe.at[host].needs, plan.pools.get(recipe.name, {}).get(host, 0))
    return held


def _add(held: dict[str, float], needs: Amounts, times: int) -> None:
    for resource, amount in needs.items():
        held[resource] = held.get(resource, 0.0) + times * amount

"""A placement question and its answer: `Problem` and `Options` in, `Plan` out.

This is the vocabulary of the placement library. It knows nothing of hypervisors, DNS or lab files
and can be used alone, in a notebook. Units: `cpu` processor cores, `memory_mib` MiB, latencies in
milliseconds, power in watts, money per hour in any one currency, rates in requests per second.
"""

import math
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields


@dataclass(frozen=True, slots=True)
class Resources:
    """An amount of each resource."""

    cpu: float
    memory_mib: float

    def fits_in(self, other: "Resources") -> bool:
        """Return whether this amount is at most the other one, in every resource."""
        return self.cpu <= other.cpu + 1e-9 and self.memory_mib <= other.memory_mib + 1e-9

    def __add__(self, other: "Resources") -> "Resources":
        return Resources(self.cpu + other.cpu, self.memory_mib + other.memory_mib)

    def __sub__(self, other: "Resources") -> "Resources":
        return Resources(self.cpu - other.cpu, self.memory_mib - other.memory_mib)


@dataclass(frozen=True, slots=True)
class Site:
    """A place where demands can run, with what it has for them and what it costs.

    `idle_w` is drawn as soon as one demand runs here, `busy_w` with all of `capacity.cpu` in use,
    linear in between. `host_hour` likewise is paid once any demand runs here.
    """

    name: str
    capacity: Resources
    domain: str = ""
    labels: frozenset[tuple[str, str]] = frozenset()
    idle_w: float = 0.0
    busy_w: float = 0.0
    host_hour: float = 0.0
    cpu_hour: float = 0.0
    gib_hour: float = 0.0


@dataclass(frozen=True, slots=True)
class Demand:
    """Something to place: `replicas` identical copies, each needing `resources`.

    Copies of one demand never share a site. `rates` gives the requests per second that each
    population sends to it; every copy is within `latency_bound_ms` of each population with a rate.
    `only_on` empty means any site; `labels` must all be on the site. `apart_from` names demands
    that never share a site with this one (said once, it holds both ways). `together_with` names
    demands of which every site of this one must also hold a copy.
    """

    name: str
    resources: Resources
    replicas: int = 1
    rates: Mapping[str, float] = field(default_factory=dict)
    latency_bound_ms: float | None = None
    only_on: frozenset[str] = frozenset()
    never_on: frozenset[str] = frozenset()
    labels: frozenset[tuple[str, str]] = frozenset()
    apart_from: frozenset[str] = frozenset()
    together_with: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Problem:
    """A whole question.

    `latency_ms[population][site]` is one way; a missing pair means no path, and such a site is no
    candidate for a demand with a latency bound and a rate from that population. `current` says
    where copies run now (demand name → site names), for the cost of moving. `unfit[demand][site]`
    says in a clause why a site cannot run a demand at all, whatever is free there.
    `extra_mib[demand][site]` is memory that a copy takes at a site beside its own; absent: none.
    """

    sites: tuple[Site, ...]
    demands: tuple[Demand, ...]
    latency_ms: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    current: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    unfit: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    extra_mib: Mapping[str, Mapping[str, float]] = field(default_factory=dict)

    def need(self, demand: Demand, site: str) -> Resources:
        """Return what one copy of a demand takes at a site."""
        extra = self.extra_mib.get(demand.name)
        more = extra.get(site, 0.0) if extra else 0.0
        own = demand.resources
        return Resources(own.cpu, own.memory_mib + more) if more else own


@dataclass(frozen=True, slots=True)
class Plan:
    """An answer: `sites[demand]` lists one site per replica, best first.

    `value` is the total objective, `terms` its parts by name; `bound` a proven lower bound on the
    value of any plan (None if the algorithm proves none) and `gap` their relative distance.
    `algorithm` and `seconds` say who decided and how long it took; `why[demand]` is one sentence.
    """

    sites: Mapping[str, tuple[str, ...]]
    value: float
    terms: Mapping[str, float] = field(default_factory=dict)
    bound: float | None = None
    gap: float | None = None
    algorithm: str = ""
    seconds: float = 0.0
    why: Mapping[str, str] = field(default_factory=dict)


# How much of each term is worth as much as one millisecond of mean latency.
DEFAULT_WEIGHTS: Mapping[str, float] = {
    "latency_ms": 1.0,
    "energy_w": 0.01,  # 100 W
    "cost_hour": 1.0,  # one unit of money per hour
    "migrations": 0.5,  # two moved copies
}


@dataclass(frozen=True, slots=True)
class Options:
    """How to answer: what counts and how long it may take.

    `weights` are by term (see `placement.objectives.TERMS`); an absent term counts nothing. The
    search ends after `time_limit_s`, or when the plan is proven within the relative `gap` of the
    best. `solver` is ``highs``, ``cbc``, or ``auto`` for HiGHS where it is installed, else CBC.
    """

    weights: Mapping[str, float] = field(default_factory=lambda: dict(DEFAULT_WEIGHTS))
    time_limit_s: float = 60.0
    gap: float = 0.0
    solver: str = "auto"


@dataclass(frozen=True, slots=True)
class Ranking:
    """Where a demand can run, best first, and for every other site one clause why it cannot."""

    sites: tuple[str, ...]
    reasons: Mapping[str, str]


class Malformed(ValueError):  # noqa: N818 - reads as a sentence where it is raised
    """A problem, plan or option makes no sense; `field` is a path such as ``sites[0].name``."""

    def __init__(self, field: str, message: str) -> None:
        super().__init__(f"{field}: {message}" if field else message)
        self.field = field


class SolverFailed(Exception):  # noqa: N818
    """The solver could not be run at all, which says nothing about the problem."""


class Infeasible(Exception):  # noqa: N818 - reads as a sentence where it is raised
    """No plan exists (or none was found); `reasons` maps demands to why they cannot be placed."""

    def __init__(self, reasons: Mapping[str, str]) -> None:
        super().__init__("; ".join(f"{name}: {why}" for name, why in reasons.items()))
        self.reasons = dict(reasons)


def validate(problem: Problem) -> None:
    """Raise `Malformed` at the first name or number of a problem that makes no sense.

    Names must be unique, the demands that constraints name must exist, and every number must be
    finite and not negative. Sites named by a demand or by `current` may be absent: hosts come and
    go.
    """
    _unique("sites", [site.name for site in problem.sites])
    _unique("demands", [demand.name for demand in problem.demands])
    known = {demand.name for demand in problem.demands}
    for index, demand in enumerate(problem.demands):
        for kind in ("apart_from", "together_with"):
            for other in sorted(getattr(demand, kind)):
                if other == demand.name or other not in known:
                    what = "the demand itself" if other == demand.name else "no demand here"
                    raise Malformed(f"demands[{index}].{kind}", f"{other!r} is {what}")
    for path, number in _numbers(problem):
        if not math.isfinite(number) or number < 0:
            raise Malformed(path, f"must be a finite number of at least 0, not {number}")


def _unique(path: str, names: list[str]) -> None:
    for name, count in Counter(names).items():
        if count > 1:
            raise Malformed(path, f"the name {name!r} is used {count} times")


def _numbers(problem: Problem) -> Iterator[tuple[str, float]]:
    """Yield every number of a problem with its path."""
    for index, site in enumerate(problem.sites):
        yield from _fields(f"sites[{index}].capacity", site.capacity)
        yield from _fields(f"sites[{index}]", site)
    for index, demand in enumerate(problem.demands):
        yield from _fields(f"demands[{index}].resources", demand.resources)
        yield from _fields(f"demands[{index}]", demand)
        for population, rate in demand.rates.items():
            yield f"demands[{index}].rates.{population}", rate
    for population, row in problem.latency_ms.items():
        for name, latency in row.items():
            yield f"latency_ms.{population}.{name}", latency
    for demand_name, extra in problem.extra_mib.items():
        for name, more in extra.items():
            yield f"extra_mib.{demand_name}.{name}", more


def _fields(path: str, value: Resources | Site | Demand) -> Iterator[tuple[str, float]]:
    for each in fields(value):
        number = getattr(value, each.name)
        if isinstance(number, int | float):
            yield f"{path}.{each.name}", number

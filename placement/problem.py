"""A placement question and its answer: `Problem` in, `Plan` out.

This is the vocabulary of the placement library. It knows nothing of hypervisors, DNS or lab files
and can be used alone, in a notebook. Units: `cpu` processor cores, `memory_mib` MiB, latencies in
milliseconds, power in watts, money per hour in any one currency, rates in requests per second.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field


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
    population sends to it. `only_on` empty means any site; `labels` must all be on the site.
    `apart_from` and `together_with` name other demands.
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
    where copies run now (demand name → site names), for the cost of moving.
    """

    sites: tuple[Site, ...]
    demands: tuple[Demand, ...]
    latency_ms: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    current: Mapping[str, tuple[str, ...]] = field(default_factory=dict)


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


class Infeasible(Exception):  # noqa: N818 - reads as a sentence where it is raised
    """No plan exists (or none was found); `reasons` maps demands to why they cannot be placed."""

    def __init__(self, reasons: Mapping[str, str]) -> None:
        super().__init__("; ".join(f"{name}: {why}" for name, why in reasons.items()))
        self.reasons = dict(reasons)

"""A placement question and its answer: `Problem` and `Options` in, `Plan` out.

This is the vocabulary of the placement library. It knows nothing of hypervisors, DNS or lab files
and can be used alone, in a notebook. The rules a plan obeys are in `placement.rules`, what makes a
question senseless in `placement.validate`.

Units, and what is a unit of what:

- An **amount** is a number of units of one named resource: `cpu` counts processor cores,
  `memory_mib` MiB (2^20 bytes); any other name is a resource of your own, in your own unit.
- Latencies, boot times and delays are milliseconds; latencies are one way.
- Rates are requests per second, traffic is Mbit/s, power watts, money per hour in one currency.
- A **demand** is one service; a **copy** (replica) of it is the unit that is placed, on one host,
  in one flavour. A **class** (see `placement.arrays`) is a set of demands that differ in name only.
- A **host** is the unit of capacity and of being switched on; a **domain** is a set of hosts that
  fail together or lie together, of a type: `host` (itself), `site`, and any other you name.
- A **population** is a set of clients in one spot; the unit of association is the share of its
  requests to one demand that one copy serves.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from placement.rules import Rule

if TYPE_CHECKING:
    import networkx as nx

CPU = "cpu"  # processor cores
MEMORY = "memory_mib"  # MiB
HOST, SITE = "host", "site"  # the two domain types that every host has

KILL_AND_BOOT, MAKE_BEFORE_BREAK = "kill-and-boot", "make-before-break"
EVERY_COPY, NEAREST_COPY = "every-copy", "nearest-copy"

SHOWN_REASONS = 10  # how many demands the text of an error spells out

Amounts = Mapping[str, float]  # resource name → amount


# --- the question -------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Host:
    """A machine where copies run, with what it has for them and what it costs.

    `capacity` is physical; plans may use `overcommit[resource]` times that (1 where absent), and
    100 % busy means that. A host without `site` is a site of its own; one without a domain of some
    type is a domain of its own. `idle_w` is drawn as soon as one copy runs here, `busy_w` with all
    cpu in use, linear in between. `host_hour` is paid once any copy runs here,
    `unit_hour[resource]` per unit in use. A boot takes `boot_factor` times as long as the flavour
    says.
    """

    name: str
    capacity: Amounts
    site: str = ""
    domains: Mapping[str, str] = field(default_factory=dict)
    labels: frozenset[tuple[str, str]] = frozenset()
    overcommit: Mapping[str, float] = field(default_factory=dict)
    idle_w: float = 0.0
    busy_w: float = 0.0
    host_hour: float = 0.0
    unit_hour: Mapping[str, float] = field(default_factory=dict)
    boot_factor: float = 1.0

    def room(self, resource: str) -> float:
        """Return how much of a resource plans may use here, over-commit counted."""
        return self.capacity.get(resource, 0.0) * self.overcommit.get(resource, 1.0)

    def domain(self, kind: str) -> str:
        """Return the name of the domain of a type that holds this host."""
        if kind == HOST:
            return self.name
        return (self.site if kind == SITE else self.domains.get(kind, "")) or self.name


@dataclass(frozen=True, slots=True)
class Flavour:
    """One way to run a demand, such as a Mirage, a Rumprun or a Linux image of the same service.

    `resources` overrides the demand's, name by name; `resources_at[host]` overrides both on one
    host, such as where a hypervisor takes memory of its own beside a guest's. `boot_ms` None means
    the demand's. `unfit[host]` says why a host cannot run it.
    """

    name: str
    resources: Amounts = field(default_factory=dict)
    resources_at: Mapping[str, Amounts] = field(default_factory=dict)
    unfit: Mapping[str, str] = field(default_factory=dict)
    boot_ms: float | None = None


@dataclass(frozen=True, slots=True)
class Demand:
    """A service to place: `replicas` identical copies, each needing `resources`.

    Each copy runs in one of `flavours` (empty: one flavour named ``""``), all in the same one with
    `one_flavour`. Copies of one demand never share a host, unless `share_host`.

    `least` is the fewest copies that will do: None is all of them (hard), 0 makes the demand soft.
    `weight` is what a copy left out counts in the term `unplaced`.

    `rates[population]` are requests per second; each goes to the nearest copy, or where copies
    serve `copy_rps` requests per second at most, to the best share among them. `latency_bound_ms`
    holds for every copy and every population with a rate, or with `bound_for` ``nearest-copy``
    only for the copies that serve the population. `labels` must all be on the host.
    `cost_at[host]` is money per hour for one copy there, on top of what the host charges.

    A cold start takes `boot_ms`. Copies that nobody asked for `idle_s` seconds go to sleep (None:
    never), so with Poisson arrivals at a total rate r a request is cold with probability
    exp(-r * idle_s); `cold` states it instead. Moving a copy counts `move_cost` in the term
    `migrations`; with `move` ``make-before-break`` old and new copy run side by side for a while.
    """

    name: str
    resources: Amounts = field(default_factory=dict)
    replicas: int = 1
    flavours: tuple[Flavour, ...] = ()
    one_flavour: bool = False
    share_host: bool = False
    least: int | None = None
    weight: float = 1.0
    rates: Mapping[str, float] = field(default_factory=dict)
    copy_rps: float | None = None
    latency_bound_ms: float | None = None
    bound_for: str = EVERY_COPY
    labels: frozenset[tuple[str, str]] = frozenset()
    cost_at: Mapping[str, float] = field(default_factory=dict)
    boot_ms: float = 0.0
    idle_s: float | None = None
    cold: float | None = None
    move: str = KILL_AND_BOOT
    move_cost: float = 1.0


@dataclass(frozen=True, slots=True)
class Traffic:
    """Mbit/s that all copies of `source` together send to all copies of `target`.

    It is spread evenly over the copies at both ends. `latency_bound_ms` bounds its mean latency,
    over the links it takes.
    """

    source: str
    target: str
    mbps: float
    latency_bound_ms: float | None = None


@dataclass(frozen=True, slots=True)
class Link:
    """A link between two nodes, used both ways, each way with `capacity_mbps` (None: no limit).

    A node is a site, or any other name for a router between sites. `cost` is what one Mbit/s
    on it counts in the term `network_mbps`.
    """

    a: str
    b: str
    capacity_mbps: float | None = None
    latency_ms: float = 0.0
    cost: float = 1.0


@dataclass(frozen=True, slots=True)
class Chain:
    """Demands of one copy each that requests pass in order, such as firewall, cache, server.

    `mbps` flow over each hop. `latency_bound_ms` bounds the whole path: from `population` (if one
    is named) to the first demand, and over every hop's links.
    """

    name: str
    demands: tuple[str, ...]
    latency_bound_ms: float | None = None
    population: str = ""
    mbps: float = 0.0


@dataclass(frozen=True, slots=True)
class Slice:
    """A tenant's part of the network: demands with rights in common.

    On every host, `share[resource]` (0 to 1) of the room is kept for the slice whether used or
    not. An `isolated` slice shares no host with others. With a `revenue` (money per hour) the slice
    may be refused as a whole: then none of its demands runs, and the revenue is lost.
    """

    name: str
    demands: frozenset[str]
    share: Mapping[str, float] = field(default_factory=dict)
    isolated: bool = False
    revenue: float | None = None


@dataclass(frozen=True, slots=True)
class Problem:
    """A whole question.

    `latency_ms[population][place]` is one way; a place is a host, or a site whose hosts are all
    that far. A missing pair means no path: such a host is no candidate for a demand with a latency
    bound and a rate from there. `current` says where copies run now (demand name → host names).
    `unfit[demand][host]` says in a clause why a host cannot run a demand at all, in any flavour.
    Without any `links`, traffic between two different sites costs 1 per Mbit/s and takes no time.
    `held_while_moving` are the resources that a make-before-break move holds on both sides.
    """

    hosts: tuple[Host, ...]
    demands: tuple[Demand, ...]
    latency_ms: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    current: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    unfit: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    rules: tuple[Rule, ...] = ()
    traffic: tuple[Traffic, ...] = ()
    links: tuple[Link, ...] = ()
    chains: tuple[Chain, ...] = ()
    slices: tuple[Slice, ...] = ()
    held_while_moving: frozenset[str] = frozenset({MEMORY})

    def joined(self) -> bool:
        """Return whether links lead from every site to every other; without any, they do."""
        if not self.links:
            return True
        near: dict[str, set[str]] = {}
        for link in self.links:
            near.setdefault(link.a, set()).add(link.b)
            near.setdefault(link.b, set()).add(link.a)
        sites = {host.domain(SITE) for host in self.hosts}
        waiting, reached = list(sites)[:1], set(list(sites)[:1])
        while waiting:
            new = near.get(waiting.pop(), set()) - reached
            reached |= new
            waiting += new
        return sites <= reached

    @classmethod
    def from_networkx(cls, graph: "nx.Graph[Any]", demands: tuple[Demand, ...]) -> "Problem":
        """Return the problem of placing demands on a graph; see `placement.graph.problem_of`."""
        from placement.graph import problem_of  # noqa: PLC0415 - networkx only for who brings one

        return problem_of(graph, demands)


# --- the answer ---------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Flow:
    """The share (0 to 1) of the traffic from `source` to `target` that takes a link from u to v."""

    source: str
    target: str
    u: str
    v: str
    share: float


@dataclass(frozen=True, slots=True)
class Moment:
    """So many `seconds` after a search began its best plan had this `value`.

    `bound` is what was proven by then: no plan is below it.
    """

    seconds: float
    value: float
    bound: float = 0.0


@dataclass(frozen=True, slots=True)
class Plan:
    """An answer: `hosts[demand]` lists one host per copy, best first, `flavours[demand]` with it.

    `value` is the total objective, `terms` its parts by name (all terms, also those that count
    nothing); with a lexicographic order the value is the first term's. `bound` is a proven lower
    bound on the value of any plan: that of the solver, else of the LP relaxation, else 0, which no
    term is ever below. `gap` is their relative distance.

    `served[demand][population][host]` is the share of requests served there; demands that are not
    in it are served by the nearest copy. `flows` say which links traffic takes, where that was
    decided. `admitted` are the slices that were, of those that may be refused.

    `algorithm`, `solver`, `build_s` and `solve_s` say who decided and how long it took;
    `why[demand]` is one sentence. `trace` has when the search found better plans and bounds, of
    algorithms that keep it: the ladder, the exact one by HiGHS, annealing, tabu and NSGA-II.
    """

    hosts: Mapping[str, tuple[str, ...]]
    value: float
    terms: Mapping[str, float] = field(default_factory=dict)
    bound: float = 0.0
    gap: float = 1.0
    flavours: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    served: Mapping[str, Mapping[str, Mapping[str, float]]] = field(default_factory=dict)
    flows: tuple[Flow, ...] = ()
    admitted: frozenset[str] = frozenset()
    algorithm: str = ""
    solver: str = ""
    build_s: float = 0.0
    solve_s: float = 0.0
    why: Mapping[str, str] = field(default_factory=dict)
    trace: tuple[Moment, ...] = ()

    @property
    def seconds(self) -> float:
        """Return how long it took in all."""
        return self.build_s + self.solve_s


# How much of each term is worth as much as one millisecond of mean latency.
DEFAULT_WEIGHTS: Mapping[str, float] = {
    "latency_ms": 1.0,
    "wake_ms": 1.0,
    "energy_w": 0.01,  # 100 W
    "cost_hour": 1.0,  # one unit of money per hour
    "network_mbps": 0.01,  # 100 Mbit/s on one link
    "migrations": 0.5,  # two moved copies
    "broken": 1.0,  # one `should` rule of weight 1, broken once
    "unplaced": 1000.0,  # a soft copy is left out only where it must
    "unserved_rps": 1000.0,
    "lost_revenue": 1.0,
}


@dataclass(frozen=True, slots=True)
class Options:
    """How to answer: what counts and how long it may take.

    What counts is the sum of `weights` by term (see `placement.objectives.TERMS`; an absent term
    counts nothing). With `order`, the terms named are minimised one after the other instead, each
    kept within the relative `slack` of its best, and `weights` decide last. `limits` bound terms
    from above, whatever else counts: one term of weight 1 with limits on the others is the
    ε-constraint method.

    The search ends after `deadline_s`, or when the plan is proven within the relative `gap` of the
    best. `solver` is ``auto`` or a name of `placement.solvers.SOLVERS`, `algorithm` one of
    `placement.registry.names()`. `start` is a plan to begin from. `nearest` limits each class to
    that many candidate hosts (None: all). Equal seeds give equal plans, deadlines aside.
    """

    weights: Mapping[str, float] = field(default_factory=lambda: dict(DEFAULT_WEIGHTS))
    order: tuple[str, ...] = ()
    slack: float = 1e-6
    limits: Mapping[str, float] = field(default_factory=dict)
    deadline_s: float = 60.0
    gap: float = 0.0
    solver: str = "auto"
    algorithm: str = "exact"
    start: Plan | None = None
    nearest: int | None = None
    threads: int = 1
    seed: int = 0

    @property
    def counts(self) -> Mapping[str, float]:
        """The weights of terms that make the value of a plan."""
        return {self.order[0]: 1.0} if self.order else dict(self.weights)


@dataclass(frozen=True, slots=True)
class Ranking:
    """Where a demand can run, best first, and for every other host one clause why it cannot."""

    hosts: tuple[str, ...]
    reasons: Mapping[str, str]


# --- what can go wrong --------------------------------------------------------------------------


class Malformed(ValueError):  # noqa: N818 - reads as a sentence where it is raised
    """A problem, plan or option makes no sense; `field` is a path such as ``hosts[0].name``."""

    def __init__(self, field: str, message: str) -> None:
        super().__init__(f"{field}: {message}" if field else message)
        self.field = field


class SolverFailed(Exception):  # noqa: N818
    """The solver could not be run at all, which says nothing about the problem."""


class Infeasible(Exception):  # noqa: N818 - reads as a sentence where it is raised
    """No plan exists, or none was found; then `proven` is False.

    `reasons` maps demands to why they cannot be placed; `clash` names constraints that exclude
    each other: together they cannot hold, and where time allowed, any of them gone, the rest can.
    """

    def __init__(
        self, reasons: Mapping[str, str], clash: tuple[str, ...] = (), *, proven: bool = True
    ) -> None:
        text = "; ".join(f"{name}: {why}" for name, why in [*reasons.items()][:SHOWN_REASONS])
        if len(reasons) > SHOWN_REASONS:
            text += f"; and {len(reasons) - SHOWN_REASONS} more demands"
        if clash:
            text = f"{text}; " * bool(text) + "these clash: " + ", ".join(clash)
        super().__init__(text)
        self.reasons = dict(reasons)
        self.clash = clash
        self.proven = proven

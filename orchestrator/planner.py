"""The one translation between our state and the placement library.

Our lab and what runs become a `placement.Problem`, answered by a `Plan` or a `Front`;
`orchestrator.moving` makes changes of a plan. On the wake path only `rank` is called: the fast
greedy engine, guided by the last plan; the MILP never is.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from time import perf_counter

from orchestrator.errors import EdgewakeError
from orchestrator.model import Capacity, Host, Instance, Lab, Service, Slice
from orchestrator.topology import Topology
from placement import solve
from placement.evaluate import UNITS
from placement.heuristics.greedy_latency import place_one
from placement.problem import (
    CPU,
    KILL_AND_BOOT,
    MEMORY,
    Amounts,
    Demand,
    Flavour,
    Infeasible,
    Malformed,
    Options,
    Plan,
    Problem,
    Ranking,
    SolverFailed,
)
from placement.problem import Chain as Path
from placement.problem import Host as Candidate
from placement.problem import Link as Wire
from placement.problem import Slice as Tenant
from placement.rules import Ban, Beside, Fence, Rule, Split

NOWHERE: Mapping[str, Mapping[str, str]] = {}
NO_COPIES: Mapping[str, int] = {}
PLAN_S = 30.0  # how long a plan may take unless it is said otherwise
OPTIONS = Options(algorithm="auto", deadline_s=PLAN_S)

Progress = Callable[[int, float], None]  # points found, and the share that is searched


@dataclass(frozen=True, slots=True)
class Front:
    """Placements none of which is better than another in all of some terms, by the first of them.

    `units` are those of the terms; `proven` says that none is missing. `knee` is the place of the
    one where giving up more of a term stops to pay.
    """

    terms: tuple[str, ...]
    units: tuple[str, ...]
    plans: tuple[Plan, ...]
    proven: bool
    knee: int
    seconds: float


class Planner:
    """Answers placement questions about one lab. Immutable but for the plan it last made."""

    def __init__(self, lab: Lab) -> None:
        self.lab = lab
        self.topology = Topology.of(lab)
        self.problem = problem_of(lab, self.topology)
        self.last_plan: Plan | None = None

    def rank(
        self,
        service: str,
        used: Mapping[str, Capacity],
        where: Mapping[str, tuple[str, ...]],
        unfit: Mapping[str, str],
        population: str,
    ) -> Ranking:
        """Return the hosts that can take one more instance now, best first, and why others cannot.

        `used` is what is spoken for on each host, `where` on which hosts each service has
        instances, `unfit` which hosts cannot run it and why, `population` who asks (empty if
        unknown).
        """
        prefer = self.last_plan.hosts.get(service, ()) if self.last_plan else ()
        return place_one(
            replace(self.problem, current=where, unfit={service: unfit}),
            service,
            {name: _amounts(amount) for name, amount in used.items()},
            prefer,
            population=population,
        )

    def distance_ms(self, population: str, host: str) -> float:
        """Return the one-way latency from a population to a host; infinite if there is no path."""
        return self.problem.latency_ms.get(population, {}).get(host, float("inf"))

    def question(
        self,
        current: Sequence[Instance],
        unfit: Mapping[str, Mapping[str, str]],
        boots: Mapping[str, Mapping[str, str]] = NOWHERE,
        copies: Mapping[str, int] = NO_COPIES,
    ) -> Problem:
        """Return the lab as a placement problem, with where instances run now.

        `unfit` says for each service which hosts cannot run it, and why; `boots` which of its
        images each host would boot, as far as that is known; `copies` how many a service should
        have, where that is not its `replicas`.
        """
        services = {service.name: service for service in self.lab.services}
        where: dict[str, tuple[str, ...]] = {}
        for instance in current:
            if instance.service in services:
                where[instance.service] = (*where.get(instance.service, ()), instance.host)
        demands = tuple(
            replace(
                demand,
                replicas=copies.get(demand.name, demand.replicas),
                flavours=_flavours(self.lab, services[demand.name], boots.get(demand.name, {})),
            )
            for demand in self.problem.demands
        )
        return replace(self.problem, demands=demands, current=where, unfit=unfit)

    def plan(self, question: Problem, options: Options = OPTIONS) -> Plan:
        """Place every service of the lab anew, minding where instances run now.

        Small labs are solved exactly, larger ones as well as time allows, unless `options` say
        otherwise. Raises `EdgewakeError` with one reason per service when no placement exists, when
        the options make no sense, and when the independent judge finds the plan wrong (which would
        be a defect of ours).
        """
        with _in_our_words(question):
            plan = solve(question, options)
        self.last_plan = plan
        return plan

    def front(
        self,
        question: Problem,
        terms: Sequence[str],
        options: Options = OPTIONS,
        *,
        points: int | None = None,
        progress: Progress | None = None,
    ) -> Front:
        """Return the Pareto front of some terms: exact for two, else what NSGA-II finds.

        With `points`, only a grid of so many bounds is asked for. Raises `EdgewakeError` as `plan`
        does.
        """
        from placement.fronts import front  # noqa: PLC0415 - numpy, only for who asks

        since = perf_counter()
        with _in_our_words(question):
            found = front(question, terms, options, points=points, progress=progress)
        return Front(
            terms=found.terms,
            units=tuple(UNITS[term] for term in found.terms),
            plans=found.plans,
            proven=found.proven,
            knee=found.plans.index(found.knee()),
            seconds=perf_counter() - since,
        )


@contextmanager
def _in_our_words(question: Problem) -> Iterator[None]:
    """Turn the library's errors into ours."""
    try:
        yield
    except Infeasible as error:
        none = "exists" if error.proven else "was found"
        raise EdgewakeError(
            f"no placement of all services {none}: {error}",
            hint=_hint(error, question),
        ) from error
    except Malformed as error:
        raise EdgewakeError(f"this cannot be planned: {error}") from error
    except SolverFailed as error:
        raise EdgewakeError(f"the solver gave no placement: {error}") from error


def _hint(error: Infeasible, question: Problem) -> str:
    """Return what to do where no plan exists: about images, where no host can boot one."""
    hosts = {host.name for host in question.hosts}
    if hosts and any(hosts <= question.unfit.get(name, {}).keys() for name in error.reasons):
        return "see docs/images.md for what each kind of host can boot"
    return "give hosts more capacity, or services fewer replicas or wider constraints"


def problem_of(lab: Lab, topology: Topology) -> Problem:
    """Return the lab as a placement problem, with nothing running.

    Of a lab with chains the links count too: its hosts' sites are then the routers they hang on.
    """
    return Problem(
        hosts=tuple(_host(host, _node(host, lab)) for host in lab.hosts),
        demands=tuple(_demand(service, lab) for service in lab.services),
        rules=tuple(rule for service in lab.services for rule in _rules(service)),
        latency_ms=topology.latency_table(
            [population.name for population in lab.populations],
            [host.name for host in lab.hosts],
        ),
        links=tuple(_links(lab)) if lab.chains else (),
        chains=tuple(_chains(lab)),
        slices=tuple(_slice(each) for each in lab.slices if each.services),
    )


def _node(host: Host, lab: Lab) -> str:
    """Return the node of the graph at which a host sends and receives, for its traffic."""
    if not lab.chains:
        return host.site
    return host.router or host.name


def _links(lab: Lab) -> Iterator[Wire]:
    """Yield the links with what slices leave of them."""
    kept = sum(each.mbps for each in lab.slices)
    for link in lab.links:
        room = max(0.0, link.bandwidth_mbps - kept)
        yield Wire(link.a, link.b, capacity_mbps=room, latency_ms=link.latency_ms)


def _chains(lab: Lab) -> Iterator[Path]:
    """Yield the chains; of one in a slice, only what its slice does not carry needs more room."""
    kept = {each.name: each.mbps for each in lab.slices}
    for chain in lab.chains:
        mbps = chain.mbps
        for each in lab.slices:
            if set(chain.functions) <= each.services:
                carried = min(mbps, kept[each.name])
                kept[each.name] -= carried
                mbps -= carried
        yield Path(chain.name, chain.functions, chain.latency_bound_ms, chain.population, mbps)


def _slice(each: Slice) -> Tenant:
    share = {CPU: each.cpu, MEMORY: each.memory}
    kept = {resource: part for resource, part in share.items() if part}
    return Tenant(each.name, each.services, kept, isolated=each.isolated)


def _host(host: Host, node: str) -> Candidate:
    price = host.price
    return Candidate(
        name=host.name,
        capacity=_amounts(host.usable),
        site=node,
        labels=frozenset(host.labels),
        idle_w=host.energy.idle_w,
        busy_w=host.energy.busy_w,
        host_hour=price.host_hour,
        unit_hour={CPU: price.cpu_hour, MEMORY: price.gib_hour / 1024},
    )


def _demand(service: Service, lab: Lab) -> Demand:
    return Demand(
        name=service.name,
        resources=_amounts(service.resources),
        flavours=_flavours(lab, service, {}),
        replicas=service.replicas,
        rates={population.name: population.requests_s for population in lab.populations},
        latency_bound_ms=service.latency_bound_ms,
        labels=frozenset(service.constraints.labels),
        # Services that sleep are placed too, but hold nothing yet while others move: room on both
        # sides would be asked for what is not there. `moving` makes before it breaks anyway.
        move=KILL_AND_BOOT,
    )


def _rules(service: Service) -> list[Rule]:
    constraints, name = service.constraints, frozenset({service.name})
    rules: list[Rule] = []
    if constraints.hosts:
        rules.append(Fence(name, constraints.hosts))
    if constraints.avoid_hosts:
        rules.append(Ban(name, constraints.avoid_hosts))
    rules += [Split((name, frozenset({other}))) for other in sorted(constraints.apart_from)]
    rules += [Beside(service.name, other) for other in sorted(constraints.together_with)]
    return rules


def _flavours(lab: Lab, service: Service, boots: Mapping[str, str]) -> tuple[Flavour, ...]:
    """Return the images of a service as flavours; a host runs only the one it would boot.

    What hypervisors take beside a guest's own is part of what each needs on their hosts.
    """
    own = service.resources
    taken = {host.name: host.taken_by(own) for host in lab.hosts}
    more = {host: _amounts(each) for host, each in taken.items() if each != own}
    if len(service.images) < 2 or not boots:
        return (Flavour("", resources_at=more),) if more else ()
    return tuple(
        Flavour(
            image,
            resources_at=more,
            unfit={host: f"boots {other}" for host, other in boots.items() if other != image},
        )
        for image in service.images
    )


def _amounts(capacity: Capacity) -> Amounts:
    return {CPU: capacity.cpu, MEMORY: float(capacity.memory_mib)}

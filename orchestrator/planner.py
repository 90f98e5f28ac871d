"""The one translation between our state and the placement library.

Our lab and what runs become a `placement.Problem`; a `Plan` becomes `Changes`. On the wake path
only `rank` is called: the fast greedy engine, guided by the last plan; the MILP never is.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace

from orchestrator.changes import Announce, Boot, Change, Changes, Stop, Withdraw
from orchestrator.errors import EdgewakeError
from orchestrator.model import Capacity, Host, Instance, Lab, Service
from orchestrator.topology import Topology
from placement.check import violations
from placement.heuristics.greedy_latency import place_one
from placement.problem import (
    Demand,
    Infeasible,
    Options,
    Plan,
    Problem,
    Ranking,
    Resources,
    Site,
    SolverFailed,
)


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
        prefer = self.last_plan.sites.get(service, ()) if self.last_plan else ()
        return place_one(
            replace(self.problem, current=where, unfit={service: unfit}),
            service,
            {name: _resources(amount) for name, amount in used.items()},
            prefer,
            population=population,
        )

    def distance_ms(self, population: str, host: str) -> float:
        """Return the one-way latency from a population to a host; infinite if there is no path."""
        return self.problem.latency_ms.get(population, {}).get(host, float("inf"))

    def plan(
        self,
        current: Sequence[Instance],
        unfit: Mapping[str, Mapping[str, str]],
        options: Options | None = None,
    ) -> Plan:
        """Place every service of the lab anew by MILP, minding where instances run now.

        `unfit` says for each service which hosts cannot run it, and why. Raises `EdgewakeError`
        with one reason per service when no placement exists, and when the independent judge finds
        the plan wrong (which would be a defect of ours).
        """
        from placement.milp import solve  # noqa: PLC0415 - 40 MB that a box which never plans saves

        where: dict[str, tuple[str, ...]] = {}
        for instance in current:
            where[instance.service] = (*where.get(instance.service, ()), instance.host)
        problem = replace(self.problem, current=where, unfit=unfit)
        try:
            plan = solve(problem, options or Options())
        except Infeasible as error:
            raise EdgewakeError(
                f"no placement of all services exists: {error}",
                hint="give hosts more capacity, or services fewer replicas or wider constraints",
            ) from error
        except SolverFailed as error:
            raise EdgewakeError(f"the solver gave no placement: {error}") from error
        if wrong := violations(problem, plan):
            raise EdgewakeError("the plan was refused by the judge: " + "; ".join(wrong))
        self.last_plan = plan
        return plan


def problem_of(lab: Lab, topology: Topology) -> Problem:
    """Return the lab as a placement problem, with nothing running."""
    return Problem(
        sites=tuple(_site(host) for host in lab.hosts),
        demands=tuple(_demand(service, lab) for service in lab.services),
        latency_ms=topology.latency_table(
            [population.name for population in lab.populations],
            [host.name for host in lab.hosts],
        ),
        extra_mib=_extra_mib(lab),
    )


def changes_for(plan: Plan, awake: Sequence[Instance]) -> Changes:
    """Return what leads from the instances that are awake now to where the plan wants them.

    Sleeping services are left asleep: the plan guides where they wake.
    """
    by_service: dict[str, list[Instance]] = {}
    for instance in awake:
        by_service.setdefault(instance.service, []).append(instance)
    changes: list[Change] = []
    for service, instances in sorted(by_service.items()):
        changes += _moves(service, instances, plan.sites.get(service, ()))
    return Changes(tuple(changes), why=f"{plan.algorithm}, value {plan.value:g}")


def _moves(service: str, instances: Sequence[Instance], wanted: Sequence[str]) -> list[Change]:
    here = {instance.host for instance in instances}
    missing = [host for host in wanted if host not in here]
    surplus = [instance for instance in instances if instance.host not in wanted]
    moves: list[Change] = []
    for host, old in zip(missing, surplus, strict=False):
        moves += [
            Boot(service, host),
            Announce(service, host),
            Withdraw(service, old.name, old.host),
            Stop(service, old.name, old.host),
        ]
    return moves


def _site(host: Host) -> Site:
    return Site(
        name=host.name,
        capacity=_resources(host.usable),
        domain=host.site,
        labels=frozenset(host.labels),
        idle_w=host.energy.idle_w,
        busy_w=host.energy.busy_w,
        host_hour=host.price.host_hour,
        cpu_hour=host.price.cpu_hour,
        gib_hour=host.price.gib_hour,
    )


def _demand(service: Service, lab: Lab) -> Demand:
    constraints = service.constraints
    return Demand(
        name=service.name,
        resources=_resources(service.resources),
        replicas=service.replicas,
        rates={population.name: population.requests_s for population in lab.populations},
        latency_bound_ms=service.latency_bound_ms,
        only_on=constraints.hosts,
        never_on=constraints.avoid_hosts,
        labels=frozenset(constraints.labels),
        apart_from=constraints.apart_from,
        together_with=constraints.together_with,
    )


def _extra_mib(lab: Lab) -> dict[str, dict[str, float]]:
    """Return what hosts' hypervisors add to the memory of services' guests, where they do."""
    extra: dict[str, dict[str, float]] = {}
    for host in lab.hosts:
        for service in lab.services:
            own = service.resources
            if more := host.taken_by(own).memory_mib - own.memory_mib:
                extra.setdefault(service.name, {})[host.name] = more
    return extra


def _resources(capacity: Capacity) -> Resources:
    return Resources(cpu=capacity.cpu, memory_mib=capacity.memory_mib)

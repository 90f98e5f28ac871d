"""Which machine runs each virtual router: the lab's routers and links as a placement problem.

For ``edgewake plan routers``. A router takes processor and memory of a machine. A link between
routers on two machines loads what joins these, with as much as the link carries: 1 for each
Mbit/s within a site, 2 between sites. A router keeps to the machine that the lab file names; one
to which hosts' guests are attached keeps to one of those hosts, since their bridge is there.

Every algorithm of `placement.registry` can be asked: the four engines of VLSP, which place routers,
are baselines beside the MILP. A lab says nothing about latency between machines, so it does not
count. Nothing is changed: the answer is what to write at `routers.NAME.host`.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from orchestrator.errors import EdgewakeError, LabError
from orchestrator.model import Capacity, Host, Lab, Link, Router
from placement import solve
from placement.cluster import cluster
from placement.matrix import ROUNDING, Ints
from placement.problem import (
    CPU,
    MEMORY,
    Demand,
    Infeasible,
    Malformed,
    Options,
    Plan,
    Problem,
    SolverFailed,
    Traffic,
)
from placement.problem import Host as Machine
from placement.problem import Link as Wire
from placement.rules import Fence

NEED = Capacity(cpu=0.05, memory_mib=16)  # a namespace, a routing daemon in it, and little else
OPTIONS = Options(algorithm="auto", deadline_s=30.0)
COMPARED = ("auto", "least-used", "least-busy", "nup", "energy-efficient", "random")
BEGUN = frozenset({"auto", "exact", "ladder"})  # what goes on from a plan that is there
CORE = "core"  # joins the sites; no host or site has a node of this name
NO_CAPACITY: Mapping[str, Capacity] = {}


@dataclass(frozen=True, slots=True)
class RouterPlan:
    """Where routers run: `hosts[router]`, those that the lab file names included.

    `crossing` are the links between routers on two machines, `mbps` what they carry together;
    `most` is how many routers the fullest machine has. `plan` is the library's, with its terms,
    its proven bound, and a sentence for each router.
    """

    hosts: Mapping[str, str]
    crossing: tuple[Link, ...]
    mbps: float
    most: int
    plan: Plan


@dataclass(frozen=True, slots=True)
class Compared:
    """What one algorithm found: a plan, or in `why` that it found none."""

    algorithm: str
    found: RouterPlan | None
    why: str = ""


def plan_routers(
    lab: Lab,
    *,
    machines: Sequence[str] = (),
    need: Capacity = NEED,
    used: Mapping[str, Capacity] = NO_CAPACITY,
    options: Options = OPTIONS,
) -> RouterPlan:
    """Return the machine of each router; arguments as those of `question`.

    Raises:
        EdgewakeError: not all routers can be placed, or the options make no sense.
        LabError: a machine, or one that a router names, is no host of the lab.

    """
    return _solved(lab, question(lab, machines=machines, need=need, used=used), options)


def compare(
    lab: Lab,
    algorithms: Sequence[str] = COMPARED,
    *,
    machines: Sequence[str] = (),
    need: Capacity = NEED,
    used: Mapping[str, Capacity] = NO_CAPACITY,
    options: Options = OPTIONS,
) -> tuple[Compared, ...]:
    """Return what each algorithm finds, in their order, by the same objective.

    Raises as `plan_routers`, but that an algorithm without a plan is one line of the table.
    """
    asked = question(lab, machines=machines, need=need, used=used)
    return tuple(_compared(lab, asked, name, options) for name in algorithms)


def question(
    lab: Lab,
    *,
    machines: Sequence[str] = (),
    need: Capacity = NEED,
    used: Mapping[str, Capacity] = NO_CAPACITY,
) -> Problem:
    """Return the lab's routers as a placement problem.

    `machines` are the hosts that may run routers (none named: all), `need` is what a router takes,
    `used` what is spoken for on each host.
    """
    known = {host.name for host in lab.hosts}
    for name in machines:
        if name not in known:
            raise LabError(f"there is no host named {name!r} that could run routers")
    chosen = [host for host in lab.hosts if not machines or host.name in machines]
    if not lab.routers or not chosen:
        raise LabError(f"lab {lab.name}: there are no {'hosts' if lab.routers else 'routers'}")
    return Problem(
        hosts=tuple(_machine(host, used.get(host.name)) for host in chosen),
        demands=tuple(
            Demand(router.name, {CPU: need.cpu, MEMORY: float(need.memory_mib)})
            for router in lab.routers
        ),
        rules=tuple(_fences(lab, chosen)),
        traffic=tuple(_traffic(lab)),
        links=tuple(_wires(chosen)),
    )


def _machine(host: Host, used: Capacity | None) -> Machine:
    spoken = used or Capacity(cpu=0.0, memory_mib=0)
    return Machine(
        name=host.name,
        capacity={
            CPU: max(0.0, host.usable.cpu - spoken.cpu),
            MEMORY: float(max(0, host.usable.memory_mib - spoken.memory_mib)),
        },
        idle_w=host.energy.idle_w,
        busy_w=host.energy.busy_w,
        host_hour=host.price.host_hour,
        unit_hour={CPU: host.price.cpu_hour, MEMORY: host.price.gib_hour / 1024},
    )


def _fences(lab: Lab, chosen: Sequence[Host]) -> Iterator[Fence]:
    """Yield where routers must be: on the machine named, or where guests are attached to them."""
    names = {host.name for host in chosen}
    for router in lab.routers:
        if router.host:
            if router.host not in names:
                raise LabError(
                    f"router {router.name} is on {router.host!r}, which is no machine for routers",
                    hint="name a host of the lab, and do not leave it out",
                )
            yield Fence(frozenset({router.name}), frozenset({router.host}))
        elif here := _attached(router, chosen):
            yield Fence(frozenset({router.name}), here)


def _attached(router: Router, chosen: Sequence[Host]) -> frozenset[str]:
    return frozenset(host.name for host in chosen if host.router == router.name)


def _traffic(lab: Lab) -> Iterator[Traffic]:
    """Yield what the links between two routers carry together."""
    routers = {router.name for router in lab.routers}
    mbps: dict[tuple[str, ...], float] = {}
    for link in lab.links:
        if {link.a, link.b} <= routers and link.a != link.b:
            ends = tuple(sorted((link.a, link.b)))
            mbps[ends] = mbps.get(ends, 0.0) + link.bandwidth_mbps
    for (a, b), together in mbps.items():
        yield Traffic(a, b, together)


def _wires(chosen: Sequence[Host]) -> Iterator[Wire]:
    """Yield what joins machines: each its site, and each site the core, at half a unit each."""
    for host in chosen:
        yield Wire(host.name, _site(host), cost=0.5)
    for site in dict.fromkeys(_site(host) for host in chosen):
        yield Wire(site, CORE, cost=0.5)


def _site(host: Host) -> str:
    """Return the node of a host's site; a host without one is a site by itself."""
    return f"site:{host.site}" if host.site else f"site of:{host.name}"


# --- the answer -----------------------------------------------------------------------------------


def _compared(lab: Lab, asked: Problem, name: str, options: Options) -> Compared:
    try:
        return Compared(name, _solved(lab, asked, replace(options, algorithm=name)))
    except EdgewakeError as error:
        return Compared(name, None, error.message)


def _solved(lab: Lab, asked: Problem, options: Options) -> RouterPlan:
    if options.start is None and options.algorithm in BEGUN:
        options = replace(options, start=_start(lab, asked))
    try:
        plan = solve(asked, options)
    except Infeasible as error:
        none = "exists" if error.proven else "was found"
        raise EdgewakeError(
            f"no placement of all routers {none}: {error}",
            hint="let more hosts run routers, or say how little a router needs",
        ) from error
    except Malformed as error:
        raise EdgewakeError(f"the routers cannot be placed: {error}") from error
    except SolverFailed as error:
        raise EdgewakeError(f"the solver gave no placement of routers: {error}") from error
    hosts = {name: chosen[0] for name, chosen in plan.hosts.items()}
    crossing = tuple(
        link
        for link in lab.links
        if link.a in hosts and link.b in hosts and hosts[link.a] != hosts[link.b]
    )
    at = list(hosts.values())
    return RouterPlan(
        hosts=hosts,
        crossing=crossing,
        mbps=sum(link.bandwidth_mbps for link in crossing),
        most=max(at.count(name) for name in set(at)),
        plan=plan,
    )


def _start(lab: Lab, asked: Problem) -> Plan | None:
    """Return a plan to begin from: routers together that are linked. None if none was found.

    Solvers take minutes to find that by themselves where there are 50 routers.
    """
    number = {demand.name: i for i, demand in enumerate(asked.demands)}
    traffic = np.zeros((len(number), len(number)))
    for each in asked.traffic:
        a, b = number[each.source], number[each.target]
        traffic[a, b] = traffic[b, a] = each.mbps
    names = [host.name for host in asked.hosts]
    sites = np.array([_site(lab.host(name)) for name in names])
    distance = np.where(sites[:, None] == sites[None, :], 1.0, 2.0) - np.eye(len(names))
    allowed = np.ones((len(number), len(names)), dtype=bool)
    for rule in asked.rules:
        if isinstance(rule, Fence):
            inside = [name in rule.hosts for name in names]
            allowed[[number[name] for name in rule.demands]] = inside
    place = cluster(traffic, distance, _slots(asked), allowed)
    if place is None:
        return None
    hosts = {name: (names[h],) for name, h in zip(number, place.tolist(), strict=True)}
    return Plan(hosts, 0.0)


def _slots(asked: Problem) -> Ints:
    """Return how many routers fit on each machine: all need the same."""
    need = {name: amount for name, amount in asked.demands[0].resources.items() if amount > 0}
    most = len(asked.demands)
    rooms = [
        min([most, *(int(host.room(k) / amount + ROUNDING) for k, amount in need.items())])
        for host in asked.hosts
    ]
    return np.array(rooms, dtype=np.int64)

"""In which order what is awake goes to where a plan wants it: `placement.migration` in our words.

Each move is make-before-break, so for a while both hosts hold what it takes. The order sees to it
that no host is ever too full on the way, and that the rules let each host take what comes; where
moves wait for each other in a cycle, one goes by way of a spare host. Nothing is stopped before it
runs elsewhere: a move that would need that is left, and said to be.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

from orchestrator.changes import Announce, Boot, Change, Changes, Stop, Withdraw
from orchestrator.model import Capacity, Instance
from placement.problem import CPU, MAKE_BEFORE_BREAK, MEMORY, Demand, Flavour, Plan, Problem
from placement.problem import Host as Candidate

Places = dict[str, tuple[str, ...]]
NOTHING: Mapping[str, Capacity] = {}


def changes_for(
    plan: Plan,
    awake: Sequence[Instance],
    problem: Problem,
    held: Mapping[str, Capacity] = NOTHING,
    others: Sequence[Instance] = (),
) -> Changes:
    """Return what leads from the instances that are awake now to where the plan wants them.

    Sleeping services are left asleep: the plan guides where they wake. `problem` is the question
    that the plan answers. `others` are instances that stay where they are, such as those that boot
    or end: rules mind them. `held` is what is spoken for on each host beside all of these.
    """
    from placement.migration import migration  # noqa: PLC0415 - only for who moves something

    now: Places = {demand.name: () for demand in problem.demands}
    then = dict(now)
    moving, staying = _by_service(awake), _by_service(others)
    for service in now.keys() & (moving.keys() | staying.keys()):
        here = tuple(instance.host for instance in moving.get(service, ()))
        fixed = tuple(host for instance in staying.get(service, ()) for host in instance.hosts)
        wanted = [host for host in plan.hosts.get(service, ()) if host not in fixed]
        now[service] = (*here, *fixed)
        then[service] = (*_wanted(here, wanted), *fixed)
    moves = migration(
        _moving(problem, now, held), Plan(then, 0.0), current=Plan(now, 0.0), gentle=True
    )
    names = {(instance.service, instance.host): instance.name for instance in awake}
    changes: list[Change] = []
    for action in moves.actions:
        name = names.pop((action.demand, action.source), "")
        changes += _move(action.demand, name, action.source, action.target, action.why)
    why = f"{plan.algorithm}, value {plan.value:g}"
    return Changes(tuple(changes), why=why, left=moves.left)


def _by_service(awake: Sequence[Instance]) -> dict[str, list[Instance]]:
    found: dict[str, list[Instance]] = {}
    for instance in awake:
        found.setdefault(instance.service, []).append(instance)
    return found


def _wanted(now: Sequence[str], plan: Sequence[str]) -> tuple[str, ...]:
    """Return where the instances go: to hosts of the plan without one, as far as there are some."""
    missing = iter([host for host in plan if host not in now])
    return tuple(host if host in plan else next(missing, host) for host in now)


def _move(service: str, instance: str, source: str, target: str, why: str) -> Iterator[Change]:
    yield Boot(service, target, why)
    yield Announce(service, target)
    yield Withdraw(service, instance, source)
    yield Stop(service, instance, source)


def _moving(problem: Problem, now: Places, held: Mapping[str, Capacity]) -> Problem:
    """Return the problem of the moves: only what is awake, and only the room that is left for it.

    Which image a host boots is no matter here: what hypervisors take is the same for all.
    """
    return replace(
        problem,
        hosts=tuple(_without(host, held.get(host.name)) for host in problem.hosts),
        demands=tuple(_awake(demand, len(now[demand.name])) for demand in problem.demands),
        current=now,
    )


def _without(host: Candidate, held: Capacity | None) -> Candidate:
    if held is None:
        return host
    taken = {CPU: held.cpu, MEMORY: float(held.memory_mib)}
    left = {k: units - max(0.0, taken.get(k, 0.0)) for k, units in host.capacity.items()}
    return replace(host, capacity={k: max(0.0, units) for k, units in left.items()})


def _awake(demand: Demand, copies: int) -> Demand:
    one = tuple(Flavour("", resources_at=each.resources_at) for each in demand.flavours[:1])
    return replace(demand, replicas=copies, flavours=one, move=MAKE_BEFORE_BREAK)

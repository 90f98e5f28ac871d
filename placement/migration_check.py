"""An independent judge of migrations: plays the actions, step by step.

It is written from the meaning of `placement.migration.Action` alone and shares no code with the
schedule. Nothing is taken as given: who runs where, what each host holds at any instant whatever
the order in which the actions of a batch end, and where it all leads.
"""

from collections import Counter
from collections.abc import Iterator

from placement.amounts import TOLERANCE, needs
from placement.migration import Action, Migration
from placement.problem import KILL_AND_BOOT, Demand, Flavour, Plan, Problem

Copies = Counter[tuple[str, str, str]]  # demand, host, flavour


def wrong_steps(
    problem: Problem, current: Plan, moves: Migration, *, most_changes: int | None = None
) -> tuple[str, ...]:
    """Return everything wrong with a migration from a current plan; empty if there is nothing.

    A host that is too full to begin with may stay so, but nothing may come to it.
    """
    return tuple(_wrong(problem, current, moves, most_changes))


def _wrong(
    problem: Problem, current: Plan, moves: Migration, most_changes: int | None
) -> Iterator[str]:
    demands = {demand.name: demand for demand in problem.demands}
    here = _copies(problem, current)
    first, goal = Counter(here), _copies(problem, moves.reached)
    stopped: Counter[str] = Counter()
    for number, batch in enumerate(moves.batches):
        where = f"batch {number + 1}"
        peak, after = Counter(here), Counter(here)
        in_place: list[Action] = []
        for action in batch:
            yield from (f"{where}: {wrong}" for wrong in _shape(demands, action, stopped))
            if action.source:
                leaves = (action.demand, action.source, action.was)
                if not after[leaves]:
                    yield f"{where}: no copy of {action.demand} runs at {action.source} to leave it"
                after[leaves] -= 1
            if action.target:
                after[action.demand, action.target, action.flavour] += 1
                if action.kind == "restart" and action.source == action.target:
                    in_place.append(action)
                else:
                    peak[action.demand, action.target, action.flavour] += 1
        yield from (f"{where}: {wrong}" for wrong in _over(problem, here, peak, in_place))
        here = +after
        yield from (f"{where}: {wrong}" for wrong in _gone(first, here, goal, stopped))
    if here != goal:
        yield "the actions do not lead to the plan that is said to be reached"
    changed = sum((first - here).values())
    changed = max(changed, sum((here - first).values()))
    if most_changes is not None and changed > most_changes:
        yield f"{changed} copies change, at most {most_changes} may"


def _shape(demands: dict[str, Demand], action: Action, stopped: Counter[str]) -> Iterator[str]:
    """Say where an action is none, or does what the demand does not allow."""
    ends = {"migrate": (True, True), "restart": (True, True), "boot": (False, True)}
    ends["stop"] = (True, False)
    if action.demand not in demands or action.kind not in ends:
        yield f"{action.kind} of {action.demand}: no such action or demand"
        return
    if (bool(action.source), bool(action.target)) != ends[action.kind]:
        yield f"{action.kind} of {action.demand} from {action.source!r} to {action.target!r}"
    gentle = demands[action.demand].move != KILL_AND_BOOT
    if action.kind == "restart" and gentle:
        yield f"{action.demand} is killed, but moves make-before-break"
    if action.kind == "migrate" and not gentle:
        yield f"{action.demand} is on both sides, but moves by kill-and-boot"
    if action.kind == "stop" and action.why:
        stopped[action.demand] += 1
    if action.kind == "boot" and action.why:
        stopped[action.demand] -= 1
        if stopped[action.demand] < 0:
            yield f"{action.demand} boots again, but was not stopped"


def _gone(first: Copies, here: Copies, goal: Copies, stopped: Counter[str]) -> Iterator[str]:
    """Say which demands have fewer copies than at both ends, without a stop that says why."""
    counts = [Counter[str](), Counter[str](), Counter[str]()]
    for found, copies in zip(counts, (first, here, goal), strict=True):
        for (name, _, _), count in copies.items():
            found[name] += count
    for name, count in counts[0].items():
        least = min(count, counts[2][name]) - stopped[name]
        if counts[1][name] < least:
            yield f"{name}: {counts[1][name]} copies run, {least} could"


def _over(problem: Problem, before: Copies, peak: Copies, in_place: list[Action]) -> Iterator[str]:
    """Say which hosts can be too full while a batch runs."""
    old, new = _loads(problem, before), _loads(problem, peak)
    demands = {demand.name: demand for demand in problem.demands}
    for each in in_place:  # the one is gone before the other comes: the larger counts
        was = _need(demands[each.demand], each.was, each.source)
        for resource, units in _need(demands[each.demand], each.flavour, each.target).items():
            more = max(0.0, units - was.get(resource, 0.0))
            new[each.target][resource] += more  # type: ignore[assignment]
    for host in problem.hosts:
        for resource, used in new[host.name].items():
            there = max(host.room(resource), old[host.name][resource])
            if used > there + TOLERANCE:
                yield f"{host.name} holds {used:g} {resource}, {there:g} there"


def _copies(problem: Problem, plan: Plan) -> Copies:
    found: Copies = Counter()
    for demand in problem.demands:
        hosts = plan.hosts.get(demand.name, ())
        first = demand.flavours[0].name if demand.flavours else ""
        names = plan.flavours.get(demand.name) or (first,) * len(hosts)
        found.update((demand.name, host, name) for host, name in zip(hosts, names, strict=True))
    return found


def _loads(problem: Problem, copies: Copies) -> dict[str, Counter[str]]:
    loads: dict[str, Counter[str]] = {host.name: Counter() for host in problem.hosts}
    demands = {demand.name: demand for demand in problem.demands}
    for (name, host, flavour), count in copies.items():
        for resource, units in _need(demands[name], flavour, host).items():
            loads[host][resource] += count * units  # type: ignore[assignment]
    return loads


def _need(demand: Demand, flavour: str, host: str) -> dict[str, float]:
    known = {each.name: each for each in demand.flavours}
    return needs(demand, known.get(flavour, Flavour("")), host)

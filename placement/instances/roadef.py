"""Machine reassignment, ROADEF/EURO challenge 2012 (Google): processes on machines, and their cost.

Its costs are not those of `placement.objectives` (load above a safety capacity, balance between
resources, the most moved service), so it has an evaluator of its own: whole numbers, exact, each
part as the challenge's specification says it. `solve` is the whole model as a matrix, for instances
small enough.

G. Calégari, "Google ROADEF/EURO challenge 2011-2012: machine reassignment", specification, 2011.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from placement.instances.base import Numbers, Reference
from placement.matrix import Bools, Builder, Entries, Ints, Linear
from placement.problem import Malformed
from placement.solvers import Limits, highs

MOST = 100_000  # machines, services or processes


@dataclass(frozen=True, slots=True)
class Balance:
    """How much of `second` should be free per unit of `first` that is, and what a lack costs."""

    first: int
    second: int
    target: int
    weight: int


@dataclass(frozen=True, slots=True, eq=False)
class Reassignment:
    """An instance: M machines, P processes, S services, R resources; all numbers are whole.

    | field | shape | meaning |
    |---|---|---|
    | `transient`, `load_weight` | R | needed on both sides of a move; cost of a unit above safety |
    | `capacity`, `safety` | M x R | |
    | `neighbourhood`, `location` | M | |
    | `machine_move` | M x M | cost of a move from one to another |
    | `spread` | S | least locations of a service |
    | `depends` | S tuples | services that must be in each neighbourhood where this one is |
    | `service`, `process_move` | P | |
    | `need` | P x R | |
    | `weights` | 3 | of process moves, service moves and machine moves |
    | `start` | P | the machine of each process to begin with |
    """

    name: str
    transient: Bools
    load_weight: Ints
    capacity: Ints
    safety: Ints
    neighbourhood: Ints
    location: Ints
    machine_move: Ints
    spread: Ints
    depends: tuple[tuple[int, ...], ...]
    service: Ints
    need: Ints
    process_move: Ints
    balances: tuple[Balance, ...]
    weights: tuple[int, int, int]
    start: Ints
    reference: Reference


def read_roadef(
    model: Path, assignment: Path, *, bound: Path | None = None, best: float | None = None
) -> Reassignment:
    """Return an instance from its model and its first assignment.

    `bound` is a file with one number, `best` the best cost known.

    Raises:
        Malformed: a file is not in the format.

    """
    numbers = Numbers(model)
    resources = numbers.count("the count of resources", 1, 1000)
    kinds = _whole(numbers, "resources", resources, 2)
    machines = numbers.count("the count of machines", 1, MOST)
    rows = _whole(numbers, "machines", machines, 2 + 2 * resources + machines)
    services = numbers.count("the count of services", 1, MOST)
    spread, depends = _services(numbers, services)
    processes = numbers.count("the count of processes", 1, MOST)
    tasks = _whole(numbers, "processes", processes, 2 + resources)
    if (tasks[:, 0] >= services).any():
        raise numbers.wrong("a process is of a service that does not exist")
    balances = tuple(_balance(numbers, resources) for _ in range(numbers.count("balance costs")))
    weights = _whole(numbers, "weights", 1, 3)[0]
    numbers.end()
    begun = Numbers(assignment)
    start = _whole(begun, "the assignment", 1, processes)[0]
    begun.end()
    if (start >= machines).any():
        raise begun.wrong("a process is on a machine that does not exist")
    least = Numbers(bound).number("the bound") if bound else None
    return Reassignment(
        name=model.stem.removeprefix("model_"),
        transient=kinds[:, 0].astype(bool),
        load_weight=kinds[:, 1],
        capacity=rows[:, 2 : 2 + resources],
        safety=rows[:, 2 + resources : 2 + 2 * resources],
        neighbourhood=rows[:, 0],
        location=rows[:, 1],
        machine_move=rows[:, 2 + 2 * resources :],
        spread=spread,
        depends=depends,
        service=tasks[:, 0],
        need=tasks[:, 1:-1],
        process_move=tasks[:, -1],
        balances=balances,
        weights=(int(weights[0]), int(weights[1]), int(weights[2])),
        start=start,
        reference=Reference(bound.name if bound else "", bound=least, best=best),
    )


def _whole(numbers: Numbers, what: str, rows: int, columns: int) -> Ints:
    found = numbers.table(what, rows, columns)
    if (found != np.floor(found)).any() or found.max(initial=0) > 2**53:
        raise numbers.wrong(f"{what} must be whole numbers")
    return found.astype(np.int64)


def _services(numbers: Numbers, services: int) -> tuple[Ints, tuple[tuple[int, ...], ...]]:
    spread, depends = [], []
    for _ in range(services):
        spread.append(numbers.count("the spread of a service"))
        many = numbers.count("the count of dependencies", 0, services)
        depends.append(tuple(numbers.count("a dependency", 0, services - 1) for _ in range(many)))
    return np.array(spread, dtype=np.int64), tuple(depends)


def _balance(numbers: Numbers, resources: int) -> Balance:
    first = numbers.count("a resource", 0, resources - 1)
    second = numbers.count("a resource", 0, resources - 1)
    return Balance(first, second, numbers.count("a target"), numbers.count("a weight"))


# --- what an assignment is worth, and whether it may be -------------------------------------------


def cost(instance: Reassignment, machine: Ints) -> int:
    """Return the cost of an assignment: the machine of each process."""
    used = usage(instance, machine)
    over = np.maximum(0, used - instance.safety)
    total = int((over.sum(axis=0) * instance.load_weight).sum())
    free = instance.capacity - used
    for each in instance.balances:
        lack = np.maximum(0, each.target * free[:, each.first] - free[:, each.second])
        total += each.weight * int(lack.sum())
    moved = machine != instance.start
    per_service = np.bincount(instance.service[moved], minlength=len(instance.spread))
    process, service, machines = instance.weights
    total += process * int(instance.process_move[moved].sum())
    total += service * int(per_service.max(initial=0))
    total += machines * int(instance.machine_move[instance.start, machine].sum())
    return total


def usage(instance: Reassignment, machine: Ints) -> Ints:
    """Return what is in use, M x R."""
    used = np.zeros_like(instance.capacity)
    np.add.at(used, machine, instance.need)
    return used


def violations(instance: Reassignment, machine: Ints) -> tuple[str, ...]:
    """Return what makes an assignment none; empty when it is one."""
    return tuple(_violations(instance, machine))


def _violations(instance: Reassignment, machine: Ints) -> Iterator[str]:
    if len(machine) != len(instance.start) or (machine < 0).any():
        yield "not every process has a machine"
        return
    used = usage(instance, machine)
    held = used.copy()
    gone = machine != instance.start
    np.add.at(held, instance.start[gone], instance.need[gone] * instance.transient)
    for m, r in np.argwhere(held > instance.capacity).tolist():
        yield f"machine {m}: {held[m, r]} of resource {r}, {instance.capacity[m, r]} there"
    for s in range(len(instance.spread)):
        mine = machine[instance.service == s]
        if len(np.unique(mine)) < len(mine):
            yield f"service {s}: two processes share a machine"
        if len(np.unique(instance.location[mine])) < instance.spread[s]:
            yield f"service {s}: in fewer than {instance.spread[s]} locations"
        near = set(instance.neighbourhood[mine].tolist())
        for other in instance.depends[s]:
            there = set(instance.neighbourhood[machine[instance.service == other]].tolist())
            if near - there:
                yield f"service {s}: somewhere without service {other}"


# --- the whole model ------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, eq=False)
class Answer:
    """The assignment found, its cost, and a proven bound on the cost of any."""

    machine: Ints
    cost: int
    bound: float

    @property
    def optimal(self) -> bool:
        """Return whether no assignment can cost less; costs are whole."""
        return self.bound > self.cost - 1 + 1e-3


def solve(instance: Reassignment, seconds: float = 60.0, *, seed: int = 0) -> Answer:
    """Return the best assignment found by HiGHS over the whole model, from the first one on.

    Raises:
        Malformed: the first assignment is none, or the model would have too many columns.

    """
    processes, machines = len(instance.start), len(instance.capacity)
    if processes * machines > 500_000:
        raise Malformed(instance.name, f"{processes} x {machines} is too large for the whole model")
    if wrong := violations(instance, instance.start):
        raise Malformed(instance.name, f"the first assignment is wrong: {wrong[0]}")
    builder = Builder()
    x = builder.add_columns("x", processes * machines, 1, integer=True).reshape(processes, machines)
    objective = Linear()
    _rows(instance, builder, x, objective)
    matrix = builder.matrix(objective)
    begin = np.full(matrix.columns, np.nan)
    begin[x.ravel()] = 0.0
    begin[x[np.arange(processes), instance.start]] = 1.0
    outcome = highs.solve(matrix, Limits(seconds, 0.0, 1, seed), begin)
    best, least = instance.start, cost(instance, instance.start)
    if outcome.x is not None:
        machine = outcome.x[x].argmax(axis=1)
        if not violations(instance, machine) and cost(instance, machine) < least:
            best, least = machine, cost(instance, machine)
    return Answer(best, least, max(0.0, min(outcome.bound, float(least))))


def _rows(instance: Reassignment, builder: Builder, x: Any, objective: Linear) -> None:
    processes, machines = x.shape
    p, m = np.divmod(np.arange(x.size), machines)
    once = Entries()
    once.add(p, x.ravel(), 1.0)
    builder.add_rows("once", processes, once, lower=1.0, upper=1.0)
    stays = np.arange(processes), instance.start
    held = np.zeros_like(instance.capacity)  # what leaves keeps its transient needs
    np.add.at(held, instance.start, instance.need * instance.transient)
    for r in range(len(instance.load_weight)):
        load = Entries()
        load.add(m, x.ravel(), instance.need[p, r].astype(float))
        right = instance.capacity[:, r].astype(float)
        if instance.transient[r]:
            load.add(instance.start, x[stays], -instance.need[:, r].astype(float))
            right = right - held[:, r]
        builder.add_rows("capacity", machines, load, upper=right, r=r)
        if instance.load_weight[r]:
            over = builder.add_columns("over", machines, np.inf)
            excess = Entries()
            excess.add(m, x.ravel(), instance.need[p, r].astype(float))
            excess.add(np.arange(machines), over, -1.0)
            builder.add_rows("safety", machines, excess, upper=instance.safety[:, r], r=r)
            objective.add(over, float(instance.load_weight[r]))
    for each in instance.balances:
        lack = builder.add_columns("lack", machines, np.inf)
        free = Entries()  # target * free first - free second <= lack
        units = instance.need[:, each.second] - each.target * instance.need[:, each.first]
        free.add(m, x.ravel(), units[p].astype(float))
        free.add(np.arange(machines), lack, -1.0)
        whole = instance.capacity[:, each.second] - each.target * instance.capacity[:, each.first]
        builder.add_rows("balance", machines, free, upper=whole.astype(float))
        objective.add(lack, float(each.weight))
    _move_costs(instance, builder, x, objective)
    _service_rows(instance, builder, x)


def _move_costs(instance: Reassignment, builder: Builder, x: Any, objective: Linear) -> None:
    process, service, machine = instance.weights
    far = machine * instance.machine_move[instance.start].astype(float)
    far += process * instance.process_move[:, None]
    far[np.arange(len(far)), instance.start] = 0.0
    objective.add(x.ravel(), far.ravel())
    most = builder.add_columns("most_moved", 1, np.inf)
    moved = Entries()  # processes of a service - those that stay <= most
    moved.add(instance.service, x[np.arange(len(far)), instance.start], -1.0)
    services = len(instance.spread)
    moved.add(np.arange(services), most, -1.0)
    size = np.bincount(instance.service, minlength=services).astype(float)
    builder.add_rows("moved", services, moved, upper=-size)
    objective.add(most, float(service))


def _service_rows(instance: Reassignment, builder: Builder, x: Any) -> None:
    """Add conflict, spread and dependency rows."""
    machines = x.shape[1]
    hoods, hood = np.unique(instance.neighbourhood, return_inverse=True)
    places, place = np.unique(instance.location, return_inverse=True)
    inside = {s: np.flatnonzero(instance.service == s) for s in range(len(instance.spread))}
    for s, mine in inside.items():
        column, m = x[mine].ravel(), np.tile(np.arange(machines), len(mine))
        if len(mine) > 1:
            apart = Entries()
            apart.add(m, column, 1.0)
            builder.add_rows("conflict", machines, apart, upper=1.0, s=s)
        if instance.spread[s] > 1:
            there = builder.add_columns("there", len(places), 1)
            count, enough = Entries(), Entries()
            count.add(place[m], column, -1.0)
            count.add(np.arange(len(places)), there, 1.0)
            builder.add_rows("location", len(places), count, upper=0.0, s=s)
            enough.add(0, there, 1.0)
            builder.add_rows("spread", 1, enough, lower=float(instance.spread[s]), s=s)
        for other in instance.depends[s]:
            theirs = inside[other]
            near = Entries()  # each process here, against all of the other service
            row = np.repeat(np.arange(len(mine)), machines) * len(hoods) + hood[m]
            near.add(row, column, 1.0)
            where = np.tile(hood, len(theirs))
            for i in range(len(mine)):
                near.add(i * len(hoods) + where, x[theirs].ravel(), -1.0)
            builder.add_rows("depends", len(mine) * len(hoods), near, upper=0.0, s=s)

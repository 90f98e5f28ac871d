"""Single-source capacitated facility location: each customer served by one facility that is opened.

It is the base model of this library with one resource: activation, assignment, capacity.

K. Holmberg, M. Rönnqvist, D. Yuan, "An exact algorithm for the capacitated facility location
problems with single sourcing", EJOR 113(3), 1999. J. E. Beasley, OR-Library, cap41 to cap134, as
single-source instances by G. Guastaroba and M. G. Speranza, EJOR 238(2), 2014.
"""

from pathlib import Path

from placement.instances.base import Instance, Numbers, Reference
from placement.matrix import Floats
from placement.problem import Demand, Host, Malformed, Options, Problem

LOAD = "load"
MOST = 2_000_000  # facilities times customers


def read_sscflp(path: Path) -> Instance:
    """Return an instance of the sets of OR-Datasets, files ``p1``, ``p2``, and so on.

    The file has facilities and customers, capacities, opening costs, demands, and the costs with a
    row per customer. The optimum of the n-th is on the n-th line of the file ``os`` beside it.

    Raises:
        Malformed: a file is not in the format.

    """
    numbers = Numbers(path)
    facilities, customers = _counts(numbers)
    capacity = numbers.row("the capacities", facilities)
    opening = numbers.row("the opening costs", facilities)
    demand = numbers.row("the demands", customers)
    cost = numbers.table("the costs", customers, facilities)
    numbers.end()
    return _instance(path, capacity, opening, demand, cost=cost.T, found=_optimum(path))


def read_cap(path: Path) -> Instance:
    """Return an instance of OR-Library's cap files as single-source ones, optimum at the end.

    The file has facilities and customers, capacity and opening cost of each facility, demands, the
    costs with a row per facility, and perhaps the optimum.

    Raises:
        Malformed: the file is not in the format.

    """
    numbers = Numbers(path)
    facilities, customers = _counts(numbers)
    both = numbers.table("capacities and opening costs", facilities, 2)
    demand = numbers.row("the demands", customers)
    cost = numbers.table("the costs", facilities, customers)
    optimum = numbers.number("the optimum") if numbers.left else None
    numbers.end()
    reference = Reference(f"{path.name}, last line", optimum)
    return _instance(path, both[:, 0], both[:, 1], demand, cost=cost, found=reference)


def _counts(numbers: Numbers) -> tuple[int, int]:
    facilities = numbers.count("the count of facilities", 1, MOST)
    return facilities, numbers.count("the count of customers", 1, MOST // facilities)


def _optimum(path: Path) -> Reference:
    """Return the reference from the file ``os``, if there is one."""
    table = path.parent / "os"
    if not table.exists():
        return Reference("")
    number = path.name.removeprefix("p")
    if not number.isdecimal():
        raise Malformed(path.name, "has no number that would say which line of os is its own")
    optima = Numbers(table)
    if not 1 <= int(number) <= optima.left:
        raise Malformed(table.name, f"has {optima.left} values, none for {path.name}")
    values = optima.row("the optima", int(number))
    return Reference(f"{table.name}, line {number}", float(values[-1]))


def _instance(
    path: Path,
    capacity: Floats,
    opening: Floats,
    demand: Floats,
    *,
    cost: Floats,
    found: Reference,
) -> Instance:
    names = [f"f{i}" for i in range(len(capacity))]
    problem = Problem(
        tuple(
            Host(name, {LOAD: float(capacity[i])}, host_hour=float(opening[i]))
            for i, name in enumerate(names)
        ),
        tuple(
            Demand(
                f"c{j}",
                {LOAD: float(demand[j])},
                cost_at={name: float(cost[i, j]) for i, name in enumerate(names)},
            )
            for j in range(len(demand))
        ),
    )
    return Instance(path.name, problem, Options(weights={"cost_hour": 1.0}), found)

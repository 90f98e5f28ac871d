"""Generalised assignment: each job to one agent, where it costs and weighs what it does there.

P. C. Chu, J. E. Beasley, "A genetic algorithm for the generalised assignment problem", Computers &
Operations Research 24(1), 1997; D. G. Cattrysse, 1990. The file has agents and jobs, the costs, the
weights (a row per agent each) and the capacities. `data.csv` of fontanf/generalizedassignmentsolver
has bound, optimum and best known.
"""

import csv
import io
from pathlib import Path

from placement.instances.base import Instance, Numbers, Reference, read
from placement.problem import Demand, Flavour, Host, Malformed, Options, Problem

LOAD = "load"
MOST = 1_000_000  # agents times jobs


def read_gap(path: Path, table: Path | None = None) -> Instance:
    """Return an instance; the reference is looked up in the table, by folder and name.

    Raises:
        Malformed: a file is not in the format.

    """
    numbers = Numbers(path)
    agents = numbers.count("the count of agents", 1, MOST)
    jobs = numbers.count("the count of jobs", 1, MOST // agents)
    cost = numbers.table("the costs", agents, jobs)
    weight = numbers.table("the weights", agents, jobs)
    capacity = numbers.row("the capacities", agents)
    numbers.end()
    names = [f"a{i}" for i in range(agents)]
    problem = Problem(
        tuple(Host(name, {LOAD: float(capacity[i])}) for i, name in enumerate(names)),
        tuple(
            Demand(
                f"j{j}",
                flavours=(
                    Flavour(
                        "",
                        resources_at={n: {LOAD: float(weight[i, j])} for i, n in enumerate(names)},
                    ),
                ),
                cost_at={name: float(cost[i, j]) for i, name in enumerate(names)},
            )
            for j in range(jobs)
        ),
    )
    reference = Reference("") if table is None else _reference(path, table)
    return Instance(path.name, problem, Options(weights={"cost_hour": 1.0}), reference)


def _reference(path: Path, table: Path) -> Reference:
    name = f"{path.parent.name}/{path.name}"
    for row in csv.DictReader(io.StringIO(read(table))):
        if row.get("Path") == name:
            bound, optimum, best = (
                _number(table, name, row.get(column))
                for column in ("Best known bound", "Optimum", "Best known solution value")
            )
            return Reference(f"{table.name}, {name}", optimum, bound, best)
    raise Malformed(table.name, f"has no row for {name}")


def _number(table: Path, name: str, text: str | None) -> float | None:
    try:
        return float(text) if text else None
    except ValueError as error:
        raise Malformed(table.name, f"{name}: {text!r} is no number") from error

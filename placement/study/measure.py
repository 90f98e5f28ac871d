"""One run, in the process that is its own: build the instance, solve it, have it judged.

The result is a row of plain values, the moments of the search where the algorithm keeps them, and,
if it is small enough to be drawn, the plan. What the
process cost is measured from outside, by `placement.study.worker`.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from time import perf_counter
from typing import Any

from placement.problem import Malformed, Options, Plan, Problem
from placement.study import seam
from placement.study.instances import Built, Case, build
from placement.study.replay import replay

SOFT_SHARE = 0.8  # of the deadline: where an algorithm is asked to stop by itself
LARGEST_KEPT = 300  # copies in a plan that is kept, to be drawn

Result = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Task:
    """What one run is told."""

    case: Case
    algorithm: str
    parameters: Mapping[str, Any]
    seed: int
    deadline_s: float
    memory_mib: int

    @classmethod
    def of(cls, told: Mapping[str, Any]) -> "Task":
        """Return the task of its JSON."""
        return cls(**{**told, "case": Case(**told["case"])})


def measure(task: Task) -> Result:
    """Return the result of a run: its row, and ``plan``, ``trace``, ``timeline`` where kept.

    `status` is ok; infeasible (no plan was found); invalid (the judge objects to the plan); memory;
    or error (the algorithm or the instance raised what it should not).
    """
    try:
        started = perf_counter()
        built = build(task.case)
        build_s = perf_counter() - started
        algorithm = seam.algorithm(task.algorithm, task.parameters, task.seed)
        soft = SOFT_SHARE * task.deadline_s / max(1, len(built.epochs))
        options = seam.options(task.parameters, seed=task.seed, deadline_s=soft)
        return {**_solved(built, algorithm, options), "build_s": build_s}
    except MemoryError:
        return failed("memory", f"needs more than {task.memory_mib} MiB")
    except (Malformed, OSError, ImportError) as error:
        return failed("error", str(error))
    except (Exception, SystemExit) as error:  # noqa: BLE001 - whatever an algorithm raises is its result
        return failed("error", f"{type(error).__name__}: {error}")


def failed(status: str, message: str) -> Result:
    """Return the row of a run that has no plan."""
    return {"status": status, "message": " ".join(message.split())[:500]}


def _solved(built: Built, algorithm: seam.Algorithm, options: Options) -> Result:
    if built.epochs:
        row = replay(built.epochs, algorithm, options)
        if not _small(row.get("plan", {})):
            del row["plan"]
        return row
    problem = built.instance.problem
    started = perf_counter()
    try:
        plan = algorithm.solve(problem, options)
    except seam.NoPlan as error:
        return {**failed("infeasible", str(error)), "seconds": perf_counter() - started}
    return _row(problem, plan)


def _row(problem: Problem, plan: Plan) -> Result:
    placed = seam.placed(plan)
    wrong = seam.violations(problem, plan)
    row: Result = {
        "status": "invalid" if wrong else "ok",
        "message": "; ".join(wrong[:3]),
        **({} if wrong else _judged(plan)),
        "hosts_on": len({host for hosts in placed.values() for host in hosts}),
        "unserved": 0.0,
    }
    if not wrong and (trace := seam.trace(plan)):
        row["trace"] = trace
    if _small(placed):
        row["plan"] = placed
    return row


def _small(placed: Mapping[str, tuple[str, ...]]) -> bool:
    return sum(map(len, placed.values())) <= LARGEST_KEPT


def _judged(plan: Plan) -> Result:
    facts = {"value": plan.value, "bound": plan.bound, "gap": plan.gap, "seconds": plan.seconds}
    return {**facts, **plan.terms}

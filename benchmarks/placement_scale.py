"""Placement at scale: the ladder beside plain solvers, one copy more, and repair after a loss.

Every run is a process of its own, so that its CPU time and memory are its own; the ratios are to
the ladder in the same run of this program. Seconds are CPU seconds where one process works: on a
busy machine they say most. `ladder on 2` works in two processes, so its times are of the wall.

Instances are those of `placement.generate.uniform`: hosts in a square 20 ms wide, each with 8, 16
or 32 cores, 2 or 4 GiB per core, 30 to 90 W as soon as anything runs and 6 W for each busy core;
demands differ in size (0.5 to 1.5 times the mean in cores, 0.25 to 1.75 in memory), in their
population and in their rate; hosts are 60 % full. What counts is watts, and 100 W per host for each
millisecond of mean latency. With classes, that many kinds of demand are drawn.

    python -m benchmarks.placement_scale                  (some minutes)
    python -m benchmarks.placement_scale --up-to 1000     (half an hour on a quiet machine)
    python -m benchmarks.placement_scale --only online,replace
"""

import argparse
import json
import math
import os
import resource
import statistics
import subprocess
import sys
from dataclasses import dataclass, replace
from importlib.util import find_spec
from random import Random
from time import perf_counter, process_time
from typing import Any

from rich.console import Console
from rich.table import Table

from placement.arrays import compile_problem
from placement.assemble import assemble
from placement.check import violations
from placement.generate.uniform import uniform
from placement.ladder.climb import climb
from placement.online import Online
from placement.problem import Demand, Host, Infeasible, Options, Plan, Problem, SolverFailed
from placement.repair import repair
from placement.solving import solve

SIZES = ((10, 50), (50, 500), (100, 1_000), (200, 5_000), (1_000, 10_000))
CLASSES = {50: 10, 500: 75, 1_000: 150, 5_000: 750, 10_000: 1_500}  # kinds, by demands
POPULATIONS = 1_000  # at most
WATTS_PER_MS = 100.0  # per host: what a millisecond of mean latency counts
TARGET = 0.01
SECONDS = {10: 10.0, 50: 20.0, 100: 30.0, 200: 60.0, 1_000: 150.0}  # deadline, by hosts
PATIENCE = 5  # times as long by the wall as in CPU seconds: that busy a machine may be
THREADS = 2


# --- the instance -------------------------------------------------------------------------------


def instance(
    hosts: int,
    demands: int,
    *,
    classes: int = 0,
    seed: int = 0,
    utilisation: float = 0.6,
    populations: int = POPULATIONS,
) -> Problem:
    """Return an instance as the head of this module says; equal seeds give equal ones."""
    return uniform(
        Random(f"{hosts} {demands} {classes} {seed}"),  # noqa: S311 - not for secrets
        hosts=hosts,
        services=demands,
        utilisation=utilisation,
        classes=classes,
        populations=min(hosts, populations),
    ).problem


def weights_of(problem: Problem) -> dict[str, float]:
    """Return what counts: watts, and the mean latency by the number of hosts."""
    return {"energy_w": 1.0, "latency_ms": WATTS_PER_MS * len(problem.hosts)}


def apart(problem: Problem) -> Problem:
    """Return the same problem with no two demands in one class; the difference costs nothing."""
    demands = tuple(replace(d, move_cost=1.0 + i) for i, d in enumerate(problem.demands))
    return replace(problem, demands=demands)


# --- one run, in a process of its own -------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Run:
    """What one run gave; `marks` are (seconds, value, bound) of each step.

    Seconds are CPU seconds, but those of a ladder in several processes, which are of the wall.
    """

    how: str
    value: float
    bound: float
    wall_s: float
    cpu_s: float
    rss_mb: float
    marks: tuple[tuple[float, float, float], ...] = ()
    wrong: str = ""

    @property
    def gap(self) -> float:
        """Return the relative gap at the end."""
        return (self.value - self.bound) / self.value if self.value else 1.0

    def reached(self, gap: float) -> float | None:
        """Return after how many seconds a plan was within a gap of the bound proven at the end."""
        for seconds, value, _ in self.marks:
            if value and (value - self.bound) / value <= gap:
                return seconds
        return None


def run_here(how: str, hosts: int, demands: int, classes: int, seconds: float) -> Run:
    """Run one way on one instance and return what it gave."""
    problem = instance(hosts, demands, classes=classes)
    since, cpu = perf_counter(), _cpu()
    marks: list[tuple[float, float, float]] = []
    try:
        plan = _planned(how, problem, seconds, marks)
    except (Infeasible, SolverFailed) as error:
        return Run(how, 0.0, 0.0, perf_counter() - since, _cpu() - cpu, _rss(), wrong=str(error))
    wall, spent = perf_counter() - since, _cpu() - cpu
    wrong = "; ".join(violations(problem, plan)[:3])
    if not marks:
        marks = [(spent, plan.value, plan.bound)]
    return Run(how, plan.value, plan.bound, wall, spent, _rss(), tuple(marks), wrong)


def _planned(
    how: str, problem: Problem, seconds: float, marks: list[tuple[float, float, float]]
) -> Plan:
    options = Options(
        weights=weights_of(problem), algorithm="exact", deadline_s=seconds, gap=TARGET
    )
    if how == "ladder":
        return _climbed(problem, replace(options, deadline_s=PATIENCE * seconds), seconds, marks)
    if how == "ladder on 2":
        return _climbed(problem, replace(options, threads=THREADS), math.inf, marks)
    if how == "partition":
        return solve(problem, replace(options, algorithm="partition", threads=THREADS))
    if how == "no classes":
        return solve(apart(problem), replace(options, solver="highs"))
    solver = {"pulp": "highs", "array": "highs-direct", "cp-sat": "cp-sat"}[how]
    near = 20 if len(problem.hosts) > 100 else None
    return solve(problem, replace(options, solver=solver, nearest=near))


def _climbed(
    problem: Problem, options: Options, cpu_s: float, marks: list[tuple[float, float, float]]
) -> Plan:
    """Climb for so many CPU seconds, or until the deadline where they are unlimited."""
    begun, last = process_time(), None
    for last in climb(problem, options):
        spent = process_time() - begun
        seconds = spent if math.isfinite(cpu_s) else last.seconds
        marks.append((seconds, last.value if last.x is not None else 0.0, last.bound))
        if spent > cpu_s:
            break
    if last is None:
        raise Infeasible({}, proven=False)
    return replace(last.plan(), value=last.value, bound=last.bound)


def _cpu() -> float:
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    return process_time() + children.ru_utime + children.ru_stime


def _rss() -> float:
    """Return the largest resident set of this process and of its largest child, in MB."""
    own = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    child = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
    return (own + child) * 1024 / 1e6


def run_apart(how: str, hosts: int, demands: int, classes: int, seconds: float) -> Run:
    """Run in a process of its own; pinned to one thread per process, as solvers are."""
    asked = json.dumps([how, hosts, demands, classes, seconds])
    command = [sys.executable, "-m", "benchmarks.placement_scale", "--one", asked]
    done = subprocess.run(
        command,
        check=True,
        capture_output=True,
        text=True,
        env={**os.environ, "OPENBLAS_NUM_THREADS": "1"},
    )
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return Run(**{**found, "marks": tuple(tuple(each) for each in found["marks"])})


# --- tables -------------------------------------------------------------------------------------


def ladders(console: Console, up_to: int, ways: tuple[str, ...]) -> None:
    """Print how long each way takes, on all sizes, all different and in classes."""
    table = Table(
        *("instance", "way", "first s", "3 % s", "1 % s", "wall s", "CPU s", "ratio"),
        *("gap %", "MB"),
        title=f"CPU s to {TARGET:.0%} (to the bound proven at the end), seed 0",
    )
    for hosts, demands in SIZES:
        if hosts > up_to:
            continue
        for classes in (0, CLASSES[demands]):
            base: Run | None = None
            for how in ways:
                if not _sensible(how, hosts, classes):
                    continue
                run = run_apart(how, hosts, demands, classes, SECONDS[hosts])
                base = base or run
                kind = f"{classes} classes" if classes else "all different"
                row = _row(f"{hosts}x{demands} {kind}", run, base)
                table.add_row(*row)
                print(" | ".join(row), flush=True)
    console.print(table)


def _sensible(how: str, hosts: int, classes: int) -> bool:
    if how == "no classes":
        return bool(classes) and hosts <= 200
    if how == "cp-sat":
        return hosts <= 100 and find_spec("ortools") is not None
    if how == "partition":
        return hosts >= 200
    return how != "pulp" or hosts <= 200


def _row(name: str, run: Run, base: Run) -> tuple[str, ...]:
    if not run.value:
        return name, run.how, "", "", "", f"{run.wall_s:.1f}", f"{run.cpu_s:.1f}", "", "no plan", ""
    first = next((seconds for seconds, value, _ in run.marks if value), run.wall_s)
    three, one = (_seconds(run.reached(gap)) for gap in (0.03, TARGET))
    ratio = f"{run.cpu_s / base.cpu_s:.1f}"
    spent = f"{run.wall_s:.1f}", f"{run.cpu_s:.1f}", ratio
    gap = f"{100 * run.gap:.2f}" + (" WRONG" if run.wrong else "")
    return name, run.how, f"{first:.2f}", three, one, *spent, gap, f"{run.rss_mb:.0f}"


def _seconds(value: float | None) -> str:
    return "not" if value is None else f"{value:.1f}"


def online(console: Console, questions: int = 500) -> None:
    """Print how long one copy more takes, asked and bound, by the number of hosts."""
    table = Table("hosts", "prepare ms", "median µs", "p99 µs", title="place_one, then bind")
    for hosts in (10, 100, 1_000, 10_000):
        problem = instance(hosts, 500, utilisation=min(0.6, 100 / hosts), populations=100)
        since = perf_counter()
        prepared = Online(problem)
        names = [demand.name for demand in problem.demands[:questions]]
        for name in names:
            prepared.rank(name)  # what never changes about a demand is learnt once
        ready = 1e3 * (perf_counter() - since)
        taken = []
        for name in names:
            before = perf_counter()
            spot = prepared.place_one(name)
            if spot is not None:
                prepared.bind(name, spot)
            taken.append(1e6 * (perf_counter() - before))
        p99 = statistics.quantiles(taken, n=100)[98]
        table.add_row(f"{hosts}", f"{ready:.0f}", f"{statistics.median(taken):.0f}", f"{p99:.0f}")
    console.print(table)


def replacing(console: Console, hosts: int = 5_000, copies: int = 30_000) -> None:
    """Print how long re-placing takes after hosts are lost; BtrPlace: 3 minutes at this size."""
    problem = running(hosts, copies)
    table = Table("hosts lost", "copies moved", "needed", "wall s", "CPU s", title="re-placing")
    for share in (0.001, 0.01, 0.05):
        lost = frozenset(host.name for host in problem.hosts[: int(share * hosts)])
        left = tuple(host for host in problem.hosts if host.name not in lost)
        asked = replace(problem, hosts=left)
        needed = sum(chosen[0] in lost for chosen in problem.current.values())
        since, cpu = perf_counter(), process_time()
        plan = repair(asked, Options(weights={"energy_w": 1.0}, deadline_s=180))
        wall, spent = perf_counter() - since, process_time() - cpu
        moved = sum(problem.current[name] != found for name, found in plan.hosts.items())
        table.add_row(f"{len(lost)}", f"{moved}", f"{needed}", f"{wall:.1f}", f"{spent:.1f}")
    console.print(table)


def running(hosts: int, copies: int) -> Problem:
    """Return hosts with everything running already, at random hosts with room."""
    random = Random("running")  # noqa: S311 - not for secrets
    free = [[16.0, 32768.0] for _ in range(hosts)]
    demands, current = [], {}
    for i in range(copies):
        cpu, memory = random.choice((1.0, 2.0)), float(random.choice((1024, 2048, 4096)))
        while True:
            host = random.randrange(hosts)
            if free[host][0] >= cpu and free[host][1] >= memory:
                break
        free[host][0] -= cpu
        free[host][1] -= memory
        demands.append(Demand(f"vm{i}", {"cpu": cpu, "memory_mib": memory}))
        current[f"vm{i}"] = (f"h{host}",)
    machines = tuple(
        Host(f"h{i}", {"cpu": 16.0, "memory_mib": 32768.0}, idle_w=60, busy_w=120)
        for i in range(hosts)
    )
    return Problem(machines, tuple(demands), current=current)


def pulps_share(console: Console, up_to: int) -> None:
    """Print how much of the time to 1 % the hand-over through pulp takes."""
    from placement.solvers.through_pulp import emit  # noqa: PLC0415 - pulp only where it is measured

    table = Table("instance", "columns", "emit CPU s", "build arrays CPU s", title="pulp's work")
    for hosts, demands in SIZES:
        if hosts > up_to:
            continue
        problem = instance(hosts, demands)
        cpu = process_time()
        arrays = compile_problem(problem, nearest=20 if hosts > 50 else None)
        options = Options()
        matrix = assemble(arrays, options, weights=weights_of(problem), limits={}).matrix
        built = process_time() - cpu
        cpu = process_time()
        emit(matrix)
        table.add_row(
            f"{hosts}x{demands}",
            f"{matrix.columns}",
            f"{process_time() - cpu:.2f}",
            f"{built:.2f}",
        )
    console.print(table)


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--up-to", type=int, default=100, help="hosts of the largest instance")
    parser.add_argument("--only", default="ladder,pulp,online,replace")
    parser.add_argument(
        "--ways", default="ladder,ladder on 2,pulp,array,no classes,cp-sat,partition"
    )
    parser.add_argument("--one", help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.one:
        run = run_here(*json.loads(chosen.one))
        print(json.dumps({name: getattr(run, name) for name in Run.__slots__}))
        return
    console = Console(width=120)
    if find_spec("ortools") is None:
        console.print("without CP-SAT: OR-tools is not installed (pip install ortools)")
    wanted = chosen.only.split(",")
    if "ladder" in wanted:
        ladders(console, chosen.up_to, tuple(chosen.ways.split(",")))
    if "pulp" in wanted:
        pulps_share(console, chosen.up_to)
    if "online" in wanted:
        online(console)
    if "replace" in wanted:
        replacing(console)


if __name__ == "__main__":
    main()

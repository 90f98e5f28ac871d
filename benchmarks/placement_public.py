"""Public placement instances: value, gap to the published optimum or best known, and time.

The files are read in place from a folder of yours:

| folder | from (repository, path) |
|---|---|
| `gap/` | fontanf/generalizedassignmentsolver, `data` |
| `sscflp/holmberg/`, `sscflp/orlib/` | Oscar-Oliveira/OR-Datasets, `Facility-Location/SSCFLP` |
| `orlib_cap/` | OR-Library cap61 to cap134 as single-source ones, optimum at the end |
| `eua/` | PhuLai/eua-dataset |
| `roadef2012/A/` | wjaskowski/roadef-challange-2012-public, `data/A` |

    python -m benchmarks.placement_public FOLDER --sets gap holmberg --seconds 60

Times are seconds of processor, then seconds on the clock, to which the limit applies: on a busy
machine there is little of the one in much of the other. For the edge user
cases, which have no published values, it prints the proven optimum beside greedy and
random methods instead.
"""

import argparse
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from time import perf_counter, process_time

from placement.instances import Instance, roadef
from placement.instances.eua import Case, read_eua
from placement.instances.facility import read_cap, read_sscflp
from placement.instances.gap import read_gap
from placement.problem import Infeasible, Options, Plan
from placement.solving import solve

CASES = (Case(100, 60), Case(200, 62), Case(400, 62), Case(512, 125))
RIVALS = ("first-fit", "best-fit-decreasing", "dot-product", "random", "simulated-annealing")
BEST_A1_1 = 44_306_501  # ROADEF/EURO 2012, team S41's table; the lower bound there is 44,306,390

AnyInstance = Instance | roadef.Reassignment


@dataclass(frozen=True, slots=True)
class Row:
    """What one instance gave: relative gap to the published value, whether proven, seconds."""

    gap: float | None
    proven: bool
    cpu_s: float
    wall_s: float


@dataclass(frozen=True, slots=True)
class Effort:
    """Which algorithm, how long, and up to how many cells machine reassignment is solved."""

    algorithm: str
    seconds: float
    largest: int


class Stopwatch:
    """Seconds of processor and on the clock since it was made."""

    def __init__(self) -> None:
        self._cpu, self._wall = process_time(), perf_counter()

    def row(self, gap: float | None, *, proven: bool) -> Row:
        """Return a row with the seconds so far."""
        return Row(gap, proven, process_time() - self._cpu, perf_counter() - self._wall)


def _gap(folder: Path) -> Iterator[AnyInstance]:
    table = folder / "gap" / "data.csv"
    for path in sorted((folder / "gap").glob("*/*")):
        yield read_gap(path, table)


def _holmberg(folder: Path) -> Iterator[AnyInstance]:
    return (read_sscflp(path) for path in _numbered(folder / "sscflp" / "holmberg"))


def _orlib(folder: Path) -> Iterator[AnyInstance]:
    return (read_sscflp(path) for path in _numbered(folder / "sscflp" / "orlib"))


def _cap(folder: Path) -> Iterator[AnyInstance]:
    return (read_cap(path) for path in sorted((folder / "orlib_cap").glob("cap*")))


def _roadef(folder: Path) -> Iterator[AnyInstance]:
    inside = folder / "roadef2012" / "A"
    for path in sorted(inside.glob("model_*.txt")):
        name = path.stem.removeprefix("model_")
        yield roadef.read_roadef(
            path,
            inside / f"assignment_{name}.txt",
            bound=inside / f"lb_{name}.txt",
            best=BEST_A1_1 if name == "a1_1" else None,
        )


def _eua(folder: Path) -> Iterator[AnyInstance]:
    sites = folder / "eua" / "edge-servers" / "site-optus-melbCBD.csv"
    users = folder / "eua" / "users" / "users-melbcbd-generated.csv"
    return (read_eua(sites, users, case) for case in CASES)


def _numbered(folder: Path) -> list[Path]:
    return sorted(folder.glob("p*"), key=lambda path: int(path.name[1:]))


SETS: dict[str, Callable[[Path], Iterator[AnyInstance]]] = {
    "gap": _gap,
    "holmberg": _holmberg,
    "orlib": _orlib,
    "cap": _cap,
    "eua": _eua,
    "roadef": _roadef,
}


def main() -> None:
    """Print one line per instance, and one per set."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--sets", nargs="+", choices=SETS, default=list(SETS))
    parser.add_argument("--only", nargs="+", default=[], help="names of instances")
    parser.add_argument("--algorithm", default="ladder", help="terms in order are for exact")
    parser.add_argument("--seconds", type=float, default=60.0, help="on the clock, per instance")
    parser.add_argument(
        "--largest", type=int, default=30_000, help="processes times machines that are solved"
    )
    args = parser.parse_args()
    effort = Effort(args.algorithm, args.seconds, args.largest)
    for name in args.sets:
        print(
            f"{name}: {'instance':26s} {'value':>14s} {'published':>14s} {'gap':>9s} {'proven':>8s}"
            f" {'cpu':>7s} {'clock':>9s}"
        )
        rows = [
            _row(each, effort)
            for each in SETS[name](args.folder)
            if not args.only or each.name in args.only
        ]
        _summary(name, rows)


def _summary(name: str, rows: list[Row | None]) -> None:
    ran = [row for row in rows if row]
    gaps = [row.gap for row in ran if row.gap is not None]
    print(
        f"{name}: {len(ran)} of {len(rows)} solved, {sum(row.proven for row in ran)} proven,"
        f" {sum(gap <= 1e-6 for gap in gaps)} of {len(gaps)} at the published value, largest gap"
        f" {max(gaps, default=0.0):.3%}, longest {max((row.cpu_s for row in ran), default=0):.1f} s"
        f" of processor\n",
        flush=True,
    )


def _row(instance: AnyInstance, effort: Effort) -> Row | None:
    """Print and return what one instance gives; None if it was not solved."""
    if isinstance(instance, roadef.Reassignment):
        return _reassigned(instance, effort)
    watch = Stopwatch()
    asked = replace(
        instance.options,
        algorithm="exact" if instance.options.order else effort.algorithm,
        deadline_s=effort.seconds,
        solver="highs-direct",
    )
    try:
        plan = solve(instance.problem, asked)
    except Infeasible as error:
        print(f"  {instance.name:32s} {error}", flush=True)
        return None
    if instance.options.order:
        row = watch.row(None, proven=plan.gap < 1e-6)  # the gap is that of the users
        row = replace(row, proven=row.proven and row.wall_s < effort.seconds)
        _allocated("exact", instance, plan, row)
        for name in RIVALS:
            _rival(name, instance, effort.seconds)
        return row
    row = watch.row(instance.reference.gap(plan.value), proven=plan.gap < 1e-6)
    _line(instance.name, plan.value, instance.reference.target, row)
    return row


def _line(name: str, value: float, published: float | None, row: Row) -> None:
    known = "" if published is None else f"{published:.2f}"
    apart = "" if row.gap is None else f"{row.gap:.4%}"
    sure = "optimal" if row.proven else ""
    print(
        f"  {name:32s} {value:14.2f} {known:>14s} {apart:>9s} {sure:>8s} {row.cpu_s:7.2f}"
        f" {row.wall_s:7.2f} s",
        flush=True,
    )


def _rival(name: str, instance: Instance, seconds: float) -> None:
    weights = {"unplaced": 1000.0, "hosts_on": 1.0}
    watch = Stopwatch()
    options = Options(algorithm=name, weights=weights, deadline_s=min(seconds, 20.0))
    plan = solve(instance.problem, options)
    _allocated(name, instance, plan, watch.row(None, proven=False))


def _allocated(name: str, instance: Instance, plan: Plan, row: Row) -> None:
    users = len(instance.problem.demands)
    served, on = users - plan.terms["unplaced"], plan.terms["hosts_on"]
    sure = "optimal" if row.proven else ""
    print(
        f"  {instance.name:36s} {name:20s} {served:5.0f} users on {on:4.0f} servers {sure:>8s}"
        f" {row.cpu_s:7.2f} {row.wall_s:7.2f} s",
        flush=True,
    )


def _reassigned(instance: roadef.Reassignment, effort: Effort) -> Row | None:
    first = roadef.cost(instance, instance.start)
    if len(instance.start) * len(instance.capacity) > effort.largest:
        print(f"  {instance.name:32s} first cost {first}; too large for the whole model")
        return None
    watch = Stopwatch()
    answer = roadef.solve(instance, effort.seconds)
    target = instance.reference.target or instance.reference.bound
    gap = None if target is None else (answer.cost - target) / target
    row = watch.row(gap, proven=answer.optimal)
    _line(instance.name, answer.cost, target, row)
    return row


if __name__ == "__main__":
    main()

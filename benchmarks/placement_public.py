"""Public placement instances: value, gap to the published optimum or best known, and time.

The files are read in place from a folder of yours:

| folder | from (repository, path) |
|---|---|
| `gap/` | fontanf/generalizedassignmentsolver, `data` |
| `sscflp/holmberg/`, `sscflp/orlib/` | Oscar-Oliveira/OR-Datasets, `Facility-Location/SSCFLP` |
| `orlib_cap/` | OR-Library cap61 to cap134 as single-source ones, optimum at the end |
| `eua/` | PhuLai/eua-dataset |
| `roadef2012/A/` | wjaskowski/roadef-challange-2012-public, `data/A` |

    python benchmarks/placement_public.py FOLDER --sets gap holmberg --seconds 60

For the edge user cases, which have no published values, it prints the proven optimum beside greedy
and random methods instead.
"""

import argparse
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from time import perf_counter

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
    parser.add_argument("--seconds", type=float, default=60.0, help="per instance")
    parser.add_argument("--largest", type=int, default=30_000, help="pairs of demand and host")
    args = parser.parse_args()
    for name in args.sets:
        print(
            f"{name}: {'instance':28s} {'value':>14s} {'published':>14s} {'gap':>9s} {'proven':>8s}"
        )
        rows = [_row(each, args.seconds, args.largest) for each in SETS[name](args.folder)]
        ran = [row for row in rows if row]
        equal = sum(row[0] <= 1e-6 for row in ran if row[0] is not None)
        known = sum(row[0] is not None for row in ran)
        proven = sum(row[1] for row in ran)
        print(
            f"{name}: {len(ran)} of {len(rows)} run, {proven} proven optimal, {equal} of {known}"
            f" at the published value, longest {max((row[2] for row in ran), default=0):.1f} s\n"
        )


def _row(
    instance: AnyInstance, seconds: float, largest: int
) -> tuple[float | None, bool, float] | None:
    """Print what one instance gives; return gap, whether it is proven, and seconds."""
    if isinstance(instance, roadef.Reassignment):
        return _reassigned(instance, seconds, largest)
    pairs = len(instance.problem.hosts) * len(instance.problem.demands)
    if pairs > largest and not instance.options.order:
        print(f"  {instance.name:40s} left out: {pairs} pairs")
        return None
    since = perf_counter()
    try:
        plan = solve(
            instance.problem,
            replace(instance.options, deadline_s=seconds, solver="highs-direct"),
        )
    except Infeasible as error:
        print(f"  {instance.name:40s} {error}")
        return None, False, perf_counter() - since
    spent = perf_counter() - since
    if instance.options.order:
        _allocated("exact", instance, plan, spent)
        for name in RIVALS:
            _rival(name, instance, seconds)
        return None, plan.gap < 1e-6 and spent < seconds, spent  # the gap is that of the users
    gap = instance.reference.gap(plan.value)
    published = instance.reference.target
    _line(instance.name, plan.value, published, gap, proven=plan.gap < 1e-6, seconds=spent)
    return gap, plan.gap < 1e-6, spent


def _line(
    name: str,
    value: float,
    published: float | None,
    gap: float | None,
    *,
    proven: bool,
    seconds: float,
) -> None:
    known = "" if published is None else f"{published:.2f}"
    apart = "" if gap is None else f"{gap:.4%}"
    sure = "optimal" if proven else ""
    print(f"  {name:32s} {value:14.2f} {known:>14s} {apart:>9s} {sure:>8s} {seconds:7.2f} s")


def _rival(name: str, instance: Instance, seconds: float) -> None:
    weights = {"unplaced": 1000.0, "hosts_on": 1.0}
    since = perf_counter()
    options = Options(algorithm=name, weights=weights, deadline_s=min(seconds, 20.0))
    plan = solve(instance.problem, options)
    _allocated(name, instance, plan, perf_counter() - since)


def _allocated(name: str, instance: Instance, plan: Plan, seconds: float) -> None:
    users = len(instance.problem.demands)
    served, on = users - plan.terms["unplaced"], plan.terms["hosts_on"]
    print(
        f"  {instance.name:36s} {name:20s} {served:5.0f} users on {on:4.0f} servers"
        f" {seconds:7.2f} s"
    )


def _reassigned(
    instance: roadef.Reassignment, seconds: float, largest: int
) -> tuple[float | None, bool, float] | None:
    first = roadef.cost(instance, instance.start)
    if len(instance.start) * len(instance.capacity) > largest:
        print(f"  {instance.name:32s} first cost {first}; too large for the whole model")
        return None
    since = perf_counter()
    answer = roadef.solve(instance, seconds)
    spent = perf_counter() - since
    target = instance.reference.target or instance.reference.bound
    gap = None if target is None else (answer.cost - target) / target
    _line(instance.name, answer.cost, target, gap, proven=answer.optimal, seconds=spent)
    return gap, answer.optimal, spent


if __name__ == "__main__":
    main()

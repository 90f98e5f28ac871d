"""The report of a study: a page of Markdown with its tables and figures, beside the data.

Written into the results folder: ``report.md``, ``figures/*.svg`` and ``*.png``, ``results.csv``
and ``results.parquet`` with one row per run, ``traces.*`` with what searches found when,
``timeline.*`` with churn epoch by epoch, ``summary.csv`` and ``tests.csv`` with what the page
shows.
"""

from collections.abc import Iterator, Sequence
from dataclasses import asdict
from math import ceil, isnan, log2
from pathlib import Path
from typing import TYPE_CHECKING, Any

from placement.generate import _make
from placement.problem import Malformed
from placement.study import figures, stats
from placement.study.extras import check, optional
from placement.study.front import Point, relative_hypervolumes
from placement.study.instances import Case, build
from placement.study.spec import shown
from placement.study.store import Store
from placement.study.table import (
    TIMES,
    good,
    load,
    load_timeline,
    load_traces,
    one_objective,
    write,
)

if TYPE_CHECKING:
    import pandas as pd

MOST_FAILURES = 20  # rows of the list of what went wrong
MESSAGE = 200  # characters shown of a message
ROUNDING = 1e-12  # numbers nearer to 0 are solvers' rounding
OF_ITS_OWN = frozenset({"value", "bound"})  # of one meaning only if all weights are equal
SIGNIFICANT = 0.05


def report(folder: Path | str) -> Path:
    """Write the report of a results folder, as far as its runs are finished; return its path.

    Raises:
        StudyError: the folder holds no finished run.
        MissingExtra: a package for tables or figures is not installed.

    """
    check()
    folder = Path(folder)
    table = load(folder)
    manifest = Store(folder).manifest()
    (folder / "figures").mkdir(exist_ok=True)
    write(table, folder)
    traces = load_traces(folder)
    timeline = load_timeline(folder)
    for name, found in (("traces", traces), ("timeline", timeline)):
        if not found.empty:
            write(found, folder, name)
    blocks = [
        *_head(table, manifest),
        *_results(table, manifest["study"]["metrics"], folder),
        *_tests(table, manifest["study"], folder),
        *_figures(table, traces, timeline, manifest, folder),
        *_failures(table),
        *_environment(manifest["environment"]),
    ]
    page = folder / "report.md"
    page.write_text("\n\n".join(blocks) + "\n", encoding="utf-8")
    return page


def grid_table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a Markdown table."""
    lines = [list(head), ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(cell.replace('|', '/') for cell in line)} |" for line in lines)


def number(value: float) -> str:
    """Return a number with four digits that count; nothing for what is not known."""
    if isnan(value):
        return ""
    if abs(value) < ROUNDING:
        return "0"
    return f"{value:.4g}" if abs(value) < 1e6 else f"{value:.3e}"


def _head(table: "pd.DataFrame", manifest: dict[str, Any]) -> Iterator[str]:
    study = manifest["study"]
    planned, done, ok = len(manifest["runs"]), len(table), len(good(table))
    yield f"# {study['name']}"
    limits = f"at most {study['deadline_s']:g} s and {study['memory_mib']} MiB"
    missing = f" Not finished yet: {planned - done}." if planned > done else ""
    yield (
        f"{_counted(done, 'run')} of {_counted(table['algorithm'].nunique(), 'algorithm')} on "
        f"{_counted(table['case'].nunique(), 'instance')}, {ok} with a valid plan."
        f"{missing} Per run {limits}. Every run is a row of [results.csv](results.csv)."
    )
    yield "## Instances and algorithms"
    yield grid_table(
        ["instances", "from", "parameters", "seeds"],
        [
            [
                label,
                each["generator"] or f"{len(each['files'])} files ({each['reader']})",
                _told({**each["parameters"], **_churned(each["churn"])}),
                str(len(each["seeds"])),
            ]
            for label, each in study["instances"].items()
        ],
    )
    yield grid_table(
        ["algorithm", "is", "parameters"],
        [
            [label, each["algorithm"] or label, _told(each["parameters"])]
            for label, each in study["algorithms"].items()
        ],
    )


def _churned(churn: dict[str, list[Any]] | None) -> dict[str, list[Any]]:
    return {f"churn {key}": values for key, values in (churn or {}).items()}


def _told(grid: dict[str, list[Any]]) -> str:
    return "; ".join(f"{key} {', '.join(map(shown, values))}" for key, values in grid.items())


def _counted(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


def _results(table: "pd.DataFrame", metrics: Sequence[str], folder: Path) -> Iterator[str]:
    yield "## Results"
    yield (
        "Mean over the runs with a valid plan, and its 95 % confidence interval (bootstrap, "
        f"{stats.RESAMPLES} resamples)."
    )
    if not one_objective(table):
        yield (
            "Not all algorithms minimise the same weights, so their values and bounds cannot be "
            "compared: tests and figures leave them out."
        )
    records = []
    for setting, rows in table.groupby("setting", sort=False):
        yield f"### {setting}"
        lines = []
        for algorithm, mine in rows.groupby("algorithm", sort=False):
            means = {metric: stats.mean(list(good(mine)[metric])) for metric in metrics}
            lines.append(
                [
                    algorithm,
                    f"{len(good(mine))} of {len(mine)}",
                    *(_interval(each) for each in means.values()),
                ]
            )
            records += [
                {"setting": setting, "algorithm": algorithm, "metric": metric, **asdict(each)}
                for metric, each in means.items()
            ]
        yield grid_table(["algorithm", "with a plan", *metrics], lines)
    optional("pandas").DataFrame(records).to_csv(folder / "summary.csv", index=False)


def _comparable(table: "pd.DataFrame", metrics: Sequence[str]) -> list[str]:
    """Return the metrics that mean the same for all algorithms."""
    alike = one_objective(table)
    return [metric for metric in metrics if alike or metric not in OF_ITS_OWN]


def _interval(each: stats.Mean) -> str:
    if isnan(each.low) or each.low == each.high:
        return number(each.mean)
    return f"{number(each.mean)} [{number(each.low)}, {number(each.high)}]"


def _tests(table: "pd.DataFrame", study: dict[str, Any], folder: Path) -> Iterator[str]:
    baseline = study["baseline"] or table["algorithm"].iloc[0]
    if table["algorithm"].nunique() < 2:
        return
    yield "## Paired tests"
    yield (
        f"Each algorithm against {baseline} on the instances both have a plan for: Wilcoxon's "
        "signed-rank test, two-sided, corrected for the number of algorithms after Holm. Less is "
        f"better; a win is less than {baseline}."
    )
    records = []
    for metric in _comparable(table, study["metrics"]):
        compared = stats.compare(table, metric, baseline)
        if all(each.pairs == each.ties for each in compared):
            continue  # nothing to compare, or nothing differs
        p = stats.friedman(table, metric)
        alike = "" if isnan(p) else f" Friedman over all algorithms: p = {p:.2g}."
        yield f"### {metric}: against {baseline}\n\n{_significant(compared)}{alike}"
        yield grid_table(
            ["algorithm", "pairs", "median difference", "wins/ties/losses", "p", "p (Holm)"],
            [
                [
                    each.algorithm,
                    str(each.pairs),
                    number(each.median),
                    f"{each.wins}/{each.ties}/{each.losses}",
                    "" if isnan(each.p) else f"{each.p:.2g}",
                    "" if isnan(each.p_holm) else f"{each.p_holm:.2g}",
                ]
                for each in compared
            ],
        )
        records += [{"metric": metric, "baseline": baseline, **asdict(each)} for each in compared]
    optional("pandas").DataFrame(records).to_csv(folder / "tests.csv", index=False)


def _significant(compared: Sequence[stats.Comparison]) -> str:
    differ = [each.algorithm for each in compared if each.p_holm < SIGNIFICANT]
    found = ", ".join(differ) or "none"
    # Of n pairs Wilcoxon's exact p is 2 / 2^n at least; Holm multiplies the least by the tests.
    needed = ceil(1 + log2(len(compared) / SIGNIFICANT))
    few = max(each.pairs for each in compared) < needed
    told = f" With fewer than {needed} instances no difference can be." if few else ""
    return f"Different at the level of {SIGNIFICANT:g}: {found}.{told}"


# --- figures --------------------------------------------------------------------------------------


def _figures(
    table: "pd.DataFrame",
    traces: "pd.DataFrame",
    timeline: "pd.DataFrame",
    manifest: dict[str, Any],
    folder: Path,
) -> Iterator[str]:
    study = manifest["study"]
    ok = good(table)
    if ok.empty:
        return
    yield "## Figures"
    for metric in _comparable(table, study["metrics"]):
        if ok[metric].nunique() > 1:
            yield _shown(folder, f"box-{metric}", f"Spread of {metric}", figures.box(table, metric))
    if one_objective(table):  # else values of one instance cannot be compared
        told = "Mean distance from the best plan known, over time"
        yield _shown(folder, "distance-over-time", told, figures.distance_over_time(table, traces))
        if figures.proving(traces):
            told = "Mean proven gap over time, of algorithms that prove a bound as they go"
            yield _shown(folder, "gap-over-time", told, figures.gap_over_time(table, traces))
        yield _shown(folder, "profile", "Performance profile of the value", figures.profile(table))
    if scale := study["scale_by"]:
        draw = figures.scaling(table, scale)
        yield _shown(folder, "scaling", f"Time by {scale}", draw)
    if timeline[["migrations", "restarts"]].to_numpy().any():
        told = "Copies that migrated or restarted so far, mean over the runs"
        yield _shown(folder, "moves-over-time", told, figures.moves_over_time(timeline))
    if study["pareto"]:
        yield from _pareto(ok, study["pareto"], folder)
    yield from _placement(manifest, folder, study["baseline"])


def _shown(folder: Path, name: str, told: str, draw: figures.Draw) -> str:
    figures.save(draw, folder / "figures" / name)
    return f"### {told}\n\n![{told}](figures/{name}.svg)"


def _pareto(ok: "pd.DataFrame", axes: Sequence[str], folder: Path) -> Iterator[str]:
    fronts: list[tuple[str, dict[str, Sequence[Point]]]] = []
    known = ok.dropna(subset=list(axes))
    for (_, setting), rows in known.groupby(["case", "setting"], sort=False):
        points: dict[str, list[Point]] = {}
        for name, x, y in zip(rows["algorithm"], rows[axes[0]], rows[axes[1]], strict=True):
            points.setdefault(figures.family(name), []).append((float(x), float(y)))
        fronts.append((setting, dict(points)))
    if not fronts:
        return
    setting, points_of_first = fronts[0]
    areas = relative_hypervolumes(points_of_first)
    points_of_first = {f"{n} ({areas[n]:.2f})": each for n, each in points_of_first.items()}
    told = f"Pareto front of {axes[0]} and {axes[1]}, first instance of {setting}"
    yield _shown(folder, "pareto", told, figures.pareto(points_of_first, axes))
    shares: dict[str, list[float]] = {}
    for _, each in fronts:
        for name, share in relative_hypervolumes(each).items():
            shares.setdefault(name, []).append(share)
    yield (
        "Hypervolume of the front (in brackets: of the one that is drawn), as a share of the box "
        "from the best of each metric to a tenth beyond the worst, over all plans of an instance; "
        f"mean over {len(fronts)} instances:"
    )
    yield grid_table(
        ["algorithm", "hypervolume"],
        [[name, _interval(stats.mean(each))] for name, each in shares.items()],
    )


def _placement(manifest: dict[str, Any], folder: Path, baseline: str) -> Iterator[str]:
    """Yield the plan of the baseline on the first instance that has a map."""
    for columns, result in Store(folder).rows():
        if not result.get("plan") or columns["algorithm"] != (baseline or columns["algorithm"]):
            continue
        try:
            built = build(Case(**manifest["cases"][columns["case"]]))
        except (Malformed, OSError):  # its file is not here, as after copying the folder
            continue
        instance = built.instance
        if instance.layout:
            problem = built.epochs[-1].problem if built.epochs else instance.problem
            when = ", in the last epoch" if built.epochs else ""
            told = f"A plan of {columns['algorithm']} on {columns['instance']}{when}"
            rates, latency_ms = _make.rates(problem), _make.latencies_ms(problem)
            draw = figures.placement(result["plan"], instance.layout, rates, latency_ms)
            yield _shown(folder, "placement", told, draw)
            yield (
                "A square is a node with hosts, with the number of copies that run there (white: "
                "none); dots are clients, and lines lead to where they are served."
            )
            return


# --- the rest -------------------------------------------------------------------------------------


def _failures(table: "pd.DataFrame") -> Iterator[str]:
    bad = table[table["status"] != "ok"]
    if bad.empty:
        return
    yield "## Runs without a valid plan"
    kinds = list(bad.groupby(["algorithm", "status", "message"], sort=False))
    yield grid_table(
        ["algorithm", "status", "message", "runs", "the first: instance", "seed"],
        [
            [
                algorithm,
                status,
                message[:MESSAGE],
                str(len(rows)),
                rows["setting"].iloc[0],
                str(rows["seed"].iloc[0]),
            ]
            for (algorithm, status, message), rows in kinds[:MOST_FAILURES]
        ],
    )
    if len(kinds) > MOST_FAILURES:
        yield f"And {len(kinds) - MOST_FAILURES} more; all are in results.csv."


def _environment(facts: dict[str, str]) -> Iterator[str]:
    yield "## Environment"
    yield grid_table(["", ""], [[name, value] for name, value in facts.items()])
    yield f"Columns that differ from one repetition of a study to the next: {', '.join(TIMES)}."

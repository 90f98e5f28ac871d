"""The figures of a study, by matplotlib: each function returns one, `save` writes SVG and PNG.

No global state of matplotlib is used, and nothing in a file depends on the day: the same table
gives the same bytes.
"""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from math import inf
from pathlib import Path
from typing import TYPE_CHECKING, Any

from placement.generate.instance import Layout
from placement.study.extras import optional
from placement.study.front import Point, front
from placement.study.stats import mean
from placement.study.table import TINY, good

if TYPE_CHECKING:
    import pandas as pd

WIDE, HIGH = 6.4, 3.8  # inches
DPI = 110
MARKS = "os^vD<>pX*"
LONG_LABEL = 24  # characters beside an axis
LEAST_S = 1e-4  # seconds are drawn on a log axis
UNITS = {
    "value": "objective",
    "gap": "proven gap",
    "above_best": "above best known",
    "seconds": "time (s)",
    "wall_s": "elapsed time (s)",
    "cpu_s": "processor time (s)",
    "max_rss_mib": "memory (MiB)",
    "latency_ms": "mean latency (ms)",
    "energy_w": "power (W)",
    "cost_hour": "cost (money/hour)",
    "unserved": "requests not served (share)",
}
SETTINGS = {
    "svg.hashsalt": "edgewake",
    "svg.fonttype": "none",
    "font.size": 9.0,
    "axes.grid": True,
    "grid.alpha": 0.3,
    "axes.axisbelow": True,
    "legend.frameon": False,
    "axes.spines.top": False,
    "axes.spines.right": False,
}
UNDATED: Mapping[str, Mapping[str, None]] = {  # what says when and by what a file was written
    ".svg": {"Date": None, "Creator": None},
    ".png": {"Software": None},
    ".pdf": {"CreationDate": None, "Creator": None, "Producer": None},
}

Draw = Callable[[Any], None]


def save(draw: Draw, path: Path) -> None:
    """Write a figure as PATH.svg and PATH.png; `draw` is given the axes."""
    for suffix in (".svg", ".png"):
        save_as(draw, path.with_suffix(suffix))


def save_as(draw: Draw, path: Path) -> None:
    """Write a figure in the format that the name of its file ends with."""
    with optional("matplotlib").rc_context(SETTINGS):
        figure = optional("matplotlib.figure").Figure(figsize=(WIDE, HIGH), layout="constrained")
        draw(figure.subplots())
        figure.savefig(path, dpi=DPI, metadata=UNDATED[path.suffix])


def box(table: "pd.DataFrame", metric: str) -> Draw:
    """Return the box plot of a metric by algorithm: quartiles, and whiskers to 1.5 times those."""
    rows = good(table).dropna(subset=[metric])
    names = list(dict.fromkeys(rows["algorithm"]))

    def draw(axes: Any) -> None:
        values = [rows.loc[rows["algorithm"] == name, metric].to_numpy() for name in names]
        drawn = axes.boxplot(values, orientation="horizontal", patch_artist=True, widths=0.6)
        for number, patch in enumerate(drawn["boxes"]):
            patch.set(facecolor=_colour(number), alpha=0.5)
        for line in drawn["medians"]:
            line.set(color="black")
        axes.set_yticks(range(1, len(names) + 1), [_wrapped(name) for name in names])
        axes.invert_yaxis()
        axes.set_xlabel(_unit(metric))
        if metric in {"seconds", "wall_s", "cpu_s"}:
            axes.set_xscale("log")

    return draw


def distance_over_time(table: "pd.DataFrame", traces: "pd.DataFrame") -> Draw:
    """Return how far from the best plan known each algorithm is after so many seconds.

    Runs whose algorithm keeps a trace count with each of its moments, all others when they are
    done. Of the variants of one algorithm (its time limits, say), the best at that time counts;
    before the first plan, the distance is 1. Distances are averaged over instances and cut at 1.
    """
    best = good(table).groupby("case")["value"].min()

    def height(row: Mapping[str, Any], value: float, _bound: float) -> float:
        least = float(best[row["case"]])
        return (value - least) / max(abs(least), TINY)

    return _over_time(table, traces, height, "mean distance from the best known", every=True)


def gap_over_time(table: "pd.DataFrame", traces: "pd.DataFrame") -> Draw:
    """Return the proven gap of each algorithm after so many seconds: value over its own bound.

    Only algorithms that `proving` names are drawn; averages and cuts are those of the distance.
    """
    some = table[table["algorithm"].isin(proving(traces))]

    def height(_row: Mapping[str, Any], value: float, bound: float) -> float:
        return (value - bound) / max(abs(value), TINY)

    return _over_time(some, traces, height, "mean proven gap", every=False)


def proving(traces: "pd.DataFrame") -> frozenset[str]:
    """Return the algorithms that prove bounds as they go: the end of a run has one from elsewhere.

    That is the bound of the LP relaxation, which every plan is given afterwards.
    """
    before = traces[traces.duplicated(["id", "algorithm"], keep="last")]
    return frozenset(before.loc[before["bound"] > 0, "algorithm"])


def _over_time(
    table: "pd.DataFrame",
    traces: "pd.DataFrame",
    height: Callable[[Mapping[str, Any], float, float], float],
    axis: str,
    *,
    every: bool,
) -> Draw:
    """Return the mean height of the runs of each family of algorithms over time.

    Unless `every` run counts, those without a trace are left out.
    """
    moments = {
        key: list(zip(each["seconds"], each["value"], each["bound"], strict=True))
        for key, each in traces.groupby(["id", "algorithm"], sort=False)
    }
    families: dict[str, dict[tuple[Any, ...], list[tuple[float, float]]]] = {}
    whole = table[["case", "repetition"]].drop_duplicates().shape[0]
    for row in good(table).to_dict("records"):
        own = moments.get((row["id"], row["algorithm"]))
        if own is None and not every:
            continue
        own = own or [(row["seconds"], row["value"], row["bound"])]
        curves = families.setdefault(family(row["algorithm"]), {})
        curve = curves.setdefault((row["case"], row["repetition"]), [])
        curve += [(max(LEAST_S, at), height(row, value, bound)) for at, value, bound in own]

    def draw(axes: Any) -> None:
        ends = [at for curves in families.values() for each in curves.values() for at, _ in each]
        for number, (name, curves) in enumerate(families.items()):
            times, heights = _mean_curve(list(curves.values()), whole)
            axes.step(
                [*times, max(ends)],
                [*heights, heights[-1]],
                where="post",
                label=name,
                color=_colour(number),
            )
        axes.set_xscale("log")
        axes.set_ylim(0, 1.02)
        axes.set_xlabel(_unit("seconds"))
        axes.set_ylabel(axis)
        axes.legend()

    return draw


def _mean_curve(
    curves: Sequence[Sequence[tuple[float, float]]], whole: int
) -> tuple[list[float], list[float]]:
    """Return the mean of falling curves, each 1 before it begins; those missing of `whole` are 1.

    A curve never rises: what has been found stays found.
    """
    steps = sorted((at, number, high) for number, each in enumerate(curves) for at, high in each)
    now = [1.0] * len(curves)
    times, heights = [LEAST_S], [1.0]
    for at, number, high in steps:
        now[number] = min(now[number], high)
        times.append(at)
        heights.append((sum(now) + whole - len(now)) / whole)
    return times, heights


def moves_over_time(timeline: "pd.DataFrame") -> Draw:
    """Return how many copies have migrated or restarted up to each epoch, mean over the runs."""
    moves = timeline.assign(moves=timeline["migrations"] + timeline["restarts"])
    moves["moves"] = moves.groupby(["id", "algorithm"])["moves"].cumsum()

    def draw(axes: Any) -> None:
        for number, (name, mine) in enumerate(moves.groupby("algorithm", sort=False)):
            so_far = mine.groupby("epoch")["moves"].mean()
            axes.plot(so_far.index, so_far, "o-", label=name, color=_colour(number))
        axes.xaxis.get_major_locator().set_params(integer=True)
        axes.set_xlabel("epoch")
        axes.set_ylabel("copies moved so far")
        axes.legend()

    return draw


def profile(table: "pd.DataFrame") -> Draw:
    """Return the performance profile of Dolan and More (2002) of the values.

    It shows on which share of the instances an algorithm is at most so far above the best known.
    """
    names = list(dict.fromkeys(table["algorithm"]))

    def draw(axes: Any) -> None:
        most = float(good(table)["above_best"].max()) or 0.01
        for number, name in enumerate(names):
            mine = table[table["algorithm"] == name]
            known = sorted(float(each) for each in good(mine)["above_best"].dropna())
            heights = [(rank + 1) / len(mine) for rank in range(len(known))]
            axes.step(
                [0.0, *known, most],
                [0.0, *heights, heights[-1] if heights else 0.0],
                where="post",
                label=name,
                color=_colour(number),
            )
        axes.set_ylim(0, 1.02)
        axes.set_xlabel("at most so far above the best known")
        axes.set_ylabel("share of the runs")
        axes.legend()

    return draw


def scaling(table: "pd.DataFrame", parameter: str, metric: str = "seconds") -> Draw:
    """Return how a metric grows with an instance parameter: means with 95 % intervals."""
    column = f"instance.{parameter}"
    rows = good(table).dropna(subset=[column, metric])

    def draw(axes: Any) -> None:
        for number, (name, mine) in enumerate(rows.groupby("algorithm", sort=False)):
            groups = [
                (at, mean(list(each[metric]))) for at, each in mine.groupby(column, sort=True)
            ]
            places = [at for at, _ in groups]
            axes.plot(
                places, [m.mean for _, m in groups], marker="o", color=_colour(number), label=name
            )
            axes.fill_between(
                places,
                [m.low for _, m in groups],
                [m.high for _, m in groups],
                color=_colour(number),
                alpha=0.15,
            )
        axes.set_xscale("log")
        axes.set_yscale("log")
        ticks = sorted(rows[column].unique())
        axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
        axes.xaxis.set_minor_locator(optional("matplotlib.ticker").NullLocator())
        axes.set_xlabel(parameter)
        axes.set_ylabel(_unit(metric))
        axes.legend(loc="center left", bbox_to_anchor=(1.0, 0.5))  # bands leave no room inside

    return draw


def pareto(
    points: Mapping[str, Sequence[Point]], names: Sequence[str], *, knee: Point | None = None
) -> Draw:
    """Return the plans of one instance in two metrics, with the front of each algorithm.

    Marks are hollow and of different shapes, so that equal plans are seen. A `knee` is named.
    """

    def draw(axes: Any) -> None:
        for number, (name, mine) in enumerate(points.items()):
            kept = front(mine)
            axes.step(
                [x for x, _ in kept], [y for _, y in kept], where="post", color=_colour(number)
            )
            axes.plot(
                [x for x, _ in mine],
                [y for _, y in mine],
                MARKS[number % len(MARKS)],
                color=_colour(number),
                fillstyle="none",
                label=name,
            )
        if knee is not None:
            axes.plot(*knee, "o", color=_colour(0))
            axes.annotate("knee", knee, xytext=(5, 5), textcoords="offset points")
        axes.set_xlabel(_unit(names[0]))
        axes.set_ylabel(_unit(names[1]))
        if len(points) > 1:
            axes.legend()

    return draw


def placement(
    plan: Mapping[str, Sequence[str]],
    layout: Layout,
    asked: Mapping[str, Mapping[str, float]],
    latency_ms: Mapping[str, Mapping[str, float]],
) -> Draw:
    """Return a plan on the map: hosts with how many copies they run, and who is served from where.

    `asked` has the requests of each population to each demand; a line leads from a population to
    the node of the nearest copy.
    """
    copies = Counter(dict.fromkeys(layout.hosts.values(), 0))
    copies.update(layout.hosts[host] for hosts in plan.values() for host in hosts)
    served = {
        (layout.populations[population], layout.hosts[_nearest(latency_ms[population], hosts)])
        for demand, hosts in plan.items()
        for population, rate in asked.get(demand, {}).items()
        if rate > 0 and hosts
    }
    clients = frozenset(layout.populations.values())

    def draw(axes: Any) -> None:
        def line(one: str, other: str, **style: Any) -> None:
            ends = layout.nodes[one], layout.nodes[other]
            axes.plot([end.x for end in ends], [end.y for end in ends], **style)

        for one, other in layout.links:
            line(one, other, color="0.75", linewidth=0.8, zorder=1)
        for one, other in sorted(served):
            line(one, other, color=_colour(0), linewidth=0.8, alpha=0.5, zorder=2)
        for name, node in layout.nodes.items():
            style = _mark(name in clients, copies.get(name))
            axes.plot([node.x], [node.y], linestyle="", zorder=3, **style)
            if copies[name]:
                text = str(copies[name])
                axes.annotate(text, (node.x, node.y), ha="center", va="center", fontsize=7)
        axes.set_axis_off()
        axes.set_aspect("equal", "datalim")
        axes.margins(0.05)

    return draw


def _nearest(latency_ms: Mapping[str, float], hosts: Sequence[str]) -> str:
    return min(hosts, key=lambda host: latency_ms.get(host, inf))


def _mark(has_clients: bool, copies: int | None) -> dict[str, Any]:
    """Return how a node is drawn; `copies` is None if it has no hosts."""
    if copies is None:
        colour, size = (_colour(0), 3.5) if has_clients else ("0.6", 2.5)
        return {"marker": "o", "color": colour, "markersize": size}
    inside, edge = (_colour(1), _colour(1)) if copies else ("white", "0.4")
    return {"marker": "s", "color": inside, "markeredgecolor": edge, "markersize": 11}


def family(algorithm: str) -> str:
    """Return the label of an algorithm without the parameters that make it a variant."""
    return algorithm.partition(" (")[0]


def _wrapped(label: str) -> str:
    return label.replace(" (", "\n(") if len(label) > LONG_LABEL else label


def _unit(metric: str) -> str:
    return UNITS.get(metric, metric.replace("_", " "))


def _colour(number: int) -> str:
    return f"C{number % 10}"

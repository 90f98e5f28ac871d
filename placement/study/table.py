"""The table of a study: one row per run, as a pandas data frame, Parquet and CSV.

The first columns say which run it is, then comes what it gave. `setting` names the instance with
the parameters that vary; `above_best` is the value relative to the best of all algorithms on the
same instance, minus 1.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from placement.study import seam
from placement.study.errors import StudyError
from placement.study.extras import optional
from placement.study.runs import instance_label
from placement.study.spec import COLUMNS
from placement.study.store import Store

if TYPE_CHECKING:
    import pandas as pd

TIMES = ("seconds", "build_s", "wall_s", "cpu_s", "max_rss_mib")  # what no seed can fix
TIMELINE = (
    "arrived",
    "departed",
    "moved",
    "failed",
    "value",
    "seconds",
    "hosts_on",
    "migrations",
    "restarts",
    "unserved",
)
TINY = 1e-9
WEIGHTS = "algorithm.weights"  # plans are compared by value only if they have the same objective


def load(*folders: Path | str) -> "pd.DataFrame":
    """Return the table of the finished runs of one results folder or several, in their order.

    A run that is in several folders counts once.

    Raises:
        StudyError: a folder holds no study.
        MissingExtra: pandas is not installed.

    """
    pandas = optional("pandas")
    rows: dict[tuple[str, str], dict[str, Any]] = {}
    for folder in folders:
        for columns, result in Store(Path(folder)).rows():
            for kept in ("plan", "trace", "timeline"):
                result.pop(kept, None)
            rows.setdefault((columns["id"], columns["algorithm"]), {**columns, **result})
    table = pandas.DataFrame(list(rows.values()))
    if table.empty:
        raise StudyError(f"no run is finished in {', '.join(map(str, folders)) or 'no folder'}")
    for name in (*COLUMNS, *TIMES, *seam.terms()):
        if name in table:
            table[name] = pandas.to_numeric(table[name])
        elif name not in seam.terms():
            table[name] = float("nan")
    table.insert(2, "setting", _settings(table))
    table["above_best"] = _above_best(table)
    return _ordered(table)


def load_traces(*folders: Path | str) -> "pd.DataFrame":
    """Return what searches found when: a row per moment of every run that kept some.

    `id` and `algorithm` say which run of the table it is; `moment` counts from 0; `seconds`,
    `value` and `bound` are those of the best plan so far. The last moment is the end of the run.

    Raises:
        StudyError: a folder holds no study.
        MissingExtra: pandas is not installed.

    """

    def moments(result: dict[str, Any]) -> list[list[Any]]:
        found: list[list[Any]] = result.get("trace", [])
        end = [[result[name] for name in ("seconds", "value", "bound")]] if found else []
        return [*found, *end]

    return _long(folders, ("moment", "seconds", "value", "bound"), moments)


def load_timeline(*folders: Path | str) -> "pd.DataFrame":
    """Return churn epoch by epoch: a row per epoch of every run that replayed it.

    `id` and `algorithm` say which run of the table it is; `epoch` counts from 0. `arrived`,
    `departed`, `moved` and `failed` count services that came, went, or whose clients moved, and
    hosts that failed; `value` and `seconds` are those of the plan (none: not a number), `hosts_on`,
    `migrations`, `restarts` and `unserved` what came of it.

    Raises:
        StudyError: a folder holds no study.
        MissingExtra: pandas is not installed.

    """
    return _long(folders, ("epoch", *TIMELINE), lambda result: result.get("timeline", []))


def _long(
    folders: Sequence[Path | str],
    columns: Sequence[str],
    parts: Callable[[dict[str, Any]], list[list[Any]]],
) -> "pd.DataFrame":
    """Return a table with a row for each part of each run; of runs in several folders the first."""
    rows: dict[tuple[str, str], list[tuple[Any, ...]]] = {}
    for folder in folders:
        for told, result in Store(Path(folder)).rows():
            key = told["id"], told["algorithm"]
            if key not in rows:
                rows[key] = [(*key, number, *each) for number, each in enumerate(parts(result))]
    every = [row for found in rows.values() for row in found]
    return optional("pandas").DataFrame(every, columns=["id", "algorithm", *columns])


def write(table: "pd.DataFrame", folder: Path, name: str = "results") -> None:
    """Write a table as Parquet and CSV."""
    optional("pyarrow")
    table.to_parquet(folder / f"{name}.parquet", index=False)
    table.to_csv(folder / f"{name}.csv", index=False, lineterminator="\n")


def good(table: "pd.DataFrame") -> "pd.DataFrame":
    """Return the rows that have a valid plan."""
    return table[table["status"] == "ok"]


def one_objective(table: "pd.DataFrame") -> bool:
    """Return whether all runs have minimised the same, so that their values can be compared."""
    return WEIGHTS not in table or bool(table[WEIGHTS].fillna("").nunique() == 1)


def _settings(table: "pd.DataFrame") -> list[str]:
    varied: dict[str, list[str]] = {}
    for label, rows in table.groupby("instance", sort=False):
        columns = [name for name in rows if name.startswith("instance.")]
        varied[label] = [name for name in columns if rows[name].nunique(dropna=True) > 1]
    records = table.to_dict("records")
    return [instance_label(_known(each), varied[each["instance"]]) for each in records]


def _known(record: dict[str, Any]) -> dict[str, Any]:
    """Return a record without what is not a number; whole numbers are whole again."""
    return {
        key: int(value) if isinstance(value, float) and value.is_integer() else value
        for key, value in record.items()
        if not (isinstance(value, float) and value != value)  # noqa: PLR0124 - that is NaN
    }


def _above_best(table: "pd.DataFrame") -> Any:
    value = table["value"].where(table["status"] == "ok")
    comparable = [table["case"]]
    if WEIGHTS in table:
        comparable.append(table[WEIGHTS].fillna(""))
    best = value.groupby(comparable).transform("min")
    return (value - best) / best.abs().clip(lower=TINY)


def _ordered(table: "pd.DataFrame") -> "pd.DataFrame":
    known = ["id", "study", "setting", "instance", "case", "seed", "repetition", "algorithm"]
    parameters = [name for name in table if name.startswith(("instance.", "algorithm."))]
    results = [
        name
        for name in ("status", "message", *COLUMNS, *seam.terms(), *TIMES)
        if name in table and name not in parameters
    ]
    rest = [name for name in table if name not in {*known, *parameters, *results}]
    return table[list(dict.fromkeys([*known, *parameters, *results, *rest]))]

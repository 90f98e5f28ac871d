"""The report: every figure and number of a study, from a table alone."""

import re
import xml.etree.ElementTree as ET
from collections.abc import Callable
from io import StringIO
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from placement.generate import generate
from placement.generate._make import rates
from placement.problem import Options
from placement.solving import solve
from placement.study import StudyError, figures, load, report, run
from placement.study.progress import Lines, duration, shown
from placement.study.report import number
from placement.study.store import Store

PNG = b"\x89PNG\r\n\x1a\n"
SVG = "{http://www.w3.org/2000/svg}svg"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the results of a study in which something is of every kind."""
    from placement.study import Study  # noqa: PLC0415

    folder = tmp_path_factory.mktemp("study")
    file = folder / "every.yaml"
    file.write_text(
        "instances:\n"
        "  flat: {generator: uniform, parameters: {hosts: [3, 6], services: 12}, seeds: 2}\n"
        "  tight: {generator: uniform, parameters: {bound_ms: 0.001}}\n"
        "algorithms:\n"
        "  first-fit: {}\n"
        "  exact: {parameters: {gap: [0.02, 0.3]}}\n"
        "baseline: first-fit\n"
        "scale_by: hosts\n"
        "pareto: [latency_ms, energy_w]\n"
        "metrics: [value, gap, seconds, hosts_on]\n"
    )
    run(Study.read(file), folder / "out", workers=2)
    report(folder / "out")
    return folder / "out"


def test_every_link_of_the_page_leads_to_a_file(folder: Path) -> None:
    page = (folder / "report.md").read_text()
    links = re.findall(r"\]\(([^)]+)\)", page)
    assert {Path(link).stem for link in links} >= {
        *("results", "box-value", "box-gap", "box-seconds", "box-hosts_on"),
        *("distance-over-time", "gap-over-time", "profile", "scaling", "pareto", "placement"),
    }
    assert all((folder / link).is_file() for link in links)


def test_the_page_says_what_was_done_and_where(folder: Path) -> None:
    page = (folder / "report.md").read_text()
    assert page.startswith("# every\n\n15 runs of 3 algorithms on 5 instances, 12 with a valid")
    assert "| flat | uniform | hosts 3, 6; services 12 | 2 |" in page
    assert "### flat (hosts=3)" in page
    assert "### value: against first-fit" in page
    assert "none. With fewer than 7 instances no difference can be." in page
    assert "| exact (gap=0.02) | 4 |" in page
    assert "| first-fit | infeasible | " in page
    assert " | 1 | tight | 0 |" in page
    for name in ("Python", "cores", "highspy", "commit", "load before"):
        assert f"| {name} | " in page
    assert "Hypervolume" in page


def test_parquet_and_csv_hold_the_same_table(folder: Path) -> None:
    table, parquet = load(folder), pd.read_parquet(folder / "results.parquet")
    csv = pd.read_csv(folder / "results.csv")
    assert len(table) == len(parquet) == len(csv) == 15
    assert list(table) == list(parquet) == list(csv)
    assert parquet["value"].equals(table["value"])
    assert csv["value"].to_numpy() == pytest.approx(table["value"].to_numpy(), nan_ok=True)
    assert not {"plan", "Unnamed: 0"} & set(csv)


def test_summary_and_tests_are_there_as_data(folder: Path) -> None:
    summary, tests = (pd.read_csv(folder / name) for name in ("summary.csv", "tests.csv"))
    table = load(folder)
    row = summary.query("setting == 'flat (hosts=6)' and algorithm == 'first-fit'").iloc[0]
    mine = table.query("setting == 'flat (hosts=6)' and algorithm == 'first-fit'")
    assert row["mean"] == pytest.approx(mine["value"].mean())
    assert row["low"] <= row["mean"] <= row["high"]
    assert set(tests["algorithm"]) == {"exact (gap=0.02)", "exact (gap=0.3)"}
    assert set(tests["baseline"]) == {"first-fit"}


def test_figures_are_svg_and_png(folder: Path) -> None:
    found = sorted((folder / "figures").iterdir())
    assert len(found) == 20
    for file in found:
        if file.suffix == ".svg":
            assert ET.parse(file).getroot().tag == SVG  # noqa: S314 - we wrote it
            assert file.stat().st_size < 100_000
        else:
            assert file.read_bytes().startswith(PNG)


def test_the_same_table_gives_the_same_bytes(folder: Path) -> None:
    before = {f.name: f.read_bytes() for f in (folder / "figures").iterdir()}
    page = (folder / "report.md").read_text()
    report(folder)
    assert {f.name: f.read_bytes() for f in (folder / "figures").iterdir()} == before
    assert (folder / "report.md").read_text() == page


def test_nothing_of_this_machine_is_in_what_is_shown(folder: Path) -> None:
    shown = [*folder.glob("*.md"), *folder.glob("*.csv"), *folder.glob("figures/*.svg")]
    assert len(shown) == 15
    assert not [file for file in shown if str(folder.parent) in file.read_text()]


def test_a_report_of_half_a_study_says_so(study: Any, tmp_path: Path) -> None:
    run(study({"first-fit": {}}), tmp_path)
    for part in sorted((tmp_path / "runs").iterdir())[:3]:
        part.unlink()
    page = report(tmp_path).read_text()
    assert "1 run of 1 algorithm on 1 instance, 1 with" in page
    assert "Not finished yet: 3." in page
    assert "Paired tests" not in page


def test_a_report_without_any_plan_has_no_figures(study: Any, tmp_path: Path) -> None:
    wanted = study({"bad": {"algorithm": "plug_ins.py:raises"}})
    run(wanted, tmp_path)
    page = report(tmp_path).read_text()
    assert "## Figures" not in page
    assert (
        "| bad | error | KeyError: 'what was not there' | 4 | small (hosts=3) | 0 |" in page
    )  # once, and not once per run


@pytest.mark.parametrize(
    ("value", "told"), [(1.5e-16, "0"), (0.00012345, "0.0001234"), (2e7, "2.000e+07")]
)
def test_numbers_have_four_digits_and_no_rounding_of_solvers(value: float, told: str) -> None:
    assert number(value) == told


def test_a_report_of_nothing_is_an_error(study: Any, tmp_path: Path) -> None:
    run(study({"first-fit": {}}), tmp_path)
    for part in (tmp_path / "runs").iterdir():
        part.unlink()
    with pytest.raises(StudyError, match="no run is finished"):
        report(tmp_path)


def test_values_of_different_objectives_are_not_compared(study: Any, tmp_path: Path) -> None:
    weights = [{"latency_ms": 1.0}, {"energy_w": 1.0}, {"latency_ms": 1.0, "energy_w": 0.1}]
    wanted = study(
        {"exact": {"parameters": {"weights": weights}}}, pareto=["latency_ms", "energy_w"]
    )
    run(wanted, tmp_path)
    table = load(tmp_path)
    assert len(table["algorithm"].unique()) == 3
    assert (table["above_best"] == 0).all()
    page = report(tmp_path).read_text()
    assert "over-time" not in page
    assert "profile" not in page
    assert "box-value" not in page
    assert "### value: against" not in page
    assert "their values and bounds cannot be compared" in page
    assert "figures/pareto.svg" in page


# --- single figures -------------------------------------------------------------------------------


def _drawn(draw: Callable[[Any], None]) -> Any:
    from matplotlib.figure import Figure  # noqa: PLC0415

    axes = Figure().subplots()
    draw(axes)
    return axes


def _rows(**columns: list[Any]) -> pd.DataFrame:
    count = len(next(iter(columns.values())))
    return pd.DataFrame({"repetition": [0] * count, "status": ["ok"] * count, **columns})


def _traces(*moments: tuple[str, str, float, float, float]) -> pd.DataFrame:
    columns = ["id", "algorithm", "seconds", "value", "bound"]
    return pd.DataFrame(list(moments), columns=columns)


def test_distance_over_time_is_the_best_so_far_of_a_family() -> None:
    table = _rows(
        case=["1", "1", "2", "2"],
        algorithm=["a (t=1)", "a (t=9)", "a (t=1)", "b"],
        id=["1", "2", "3", "4"],
        seconds=[1.0, 9.0, 2.0, 5.0],
        value=[1.4, 1.0, 12.0, 10.0],
        bound=[1.0, 1.0, 9.0, 9.0],
    )
    line, other = _drawn(figures.distance_over_time(table, _traces())).lines
    assert list(line.get_xdata()) == [1e-4, 1.0, 2.0, 9.0, 9.0]
    assert list(line.get_ydata()) == pytest.approx([1.0, 0.7, 0.3, 0.1, 0.1])
    assert list(other.get_ydata()) == pytest.approx([1.0, 0.5, 0.5])


def test_gap_over_time_has_a_step_for_each_moment_of_a_trace() -> None:
    table = _rows(
        case=["1", "1", "1"],
        algorithm=["ladder", "greedy", "annealing"],
        id=["1", "2", "3"],
        seconds=[4.0, 2.0, 3.0],
        value=[10.0, 12.0, 11.0],
        bound=[10.0, 9.0, 9.0],
    )
    late = ("3", "annealing", 2.0, 11.0, 0.0), ("3", "annealing", 3.0, 11.0, 9.0)  # LP's bound
    moments = [(0.5, 20.0, 0.0), (1.0, 16.0, 8.0), (3.0, 10.0, 8.0), (4.0, 10.0, 10.0)]
    traces = _traces(*(("1", "ladder", *each) for each in moments), *late)
    (line,) = _drawn(figures.gap_over_time(table, traces)).lines
    assert line.get_label() == "ladder"
    assert list(line.get_xdata()) == [1e-4, 0.5, 1.0, 3.0, 4.0, 4.0]
    assert list(line.get_ydata()) == pytest.approx([1.0, 1.0, 0.5, 0.2, 0.0, 0.0])
    drawn = _drawn(figures.distance_over_time(table, traces)).lines
    assert list(drawn[0].get_ydata()) == pytest.approx([1.0, 1.0, 0.6, 0.0, 0.0, 0.0])
    assert list(drawn[1].get_ydata()) == pytest.approx([1.0, 0.2, 0.2])


def test_a_profile_counts_what_failed() -> None:
    table = _rows(case=["1", "2"], algorithm=["a", "a"], above_best=[0.1, float("nan")])
    table.loc[1, "status"] = "timeout"
    (line,) = _drawn(figures.profile(table)).lines
    assert max(line.get_ydata()) == 0.5


def test_scaling_has_a_point_per_size() -> None:
    table = _rows(algorithm=["a"] * 4, seconds=[1.0, 3.0, 10.0, 30.0])
    table["instance.hosts"] = [10, 10, 20, 20]
    (line,) = _drawn(figures.scaling(table, "hosts")).lines
    assert list(line.get_xdata()) == [10, 20]
    assert list(line.get_ydata()) == [2.0, 20.0]


def test_plans_in_one_place_are_all_seen_and_the_knee_is_named() -> None:
    two = {"a": [(1.0, 2.0)], "b": [(1.0, 2.0)]}
    axes = _drawn(figures.pareto(two, ("latency_ms", "energy_w")))
    marks = [line.get_marker() for line in axes.lines if line.get_marker() != "None"]
    assert len(set(marks)) == 2
    assert axes.get_legend() is not None
    axes = _drawn(figures.pareto({"a": two["a"]}, ("latency_ms", "energy_w"), knee=(1.0, 2.0)))
    assert [text.get_text() for text in axes.texts] == ["knee"]
    assert axes.get_legend() is None


def test_a_placement_tells_how_many_copies_run_where() -> None:
    instance = generate("hierarchical", 1)
    plan = solve(instance.problem, Options(algorithm="greedy-latency", weights={}))
    assert instance.layout
    draw = figures.placement(
        plan.hosts, instance.layout, rates(instance.problem), instance.problem.latency_ms
    )
    told = [int(text.get_text()) for text in _drawn(draw).texts]
    assert sum(told) == sum(len(at) for at in plan.hosts.values())


# --- progress -------------------------------------------------------------------------------------


def test_progress_in_plain_lines() -> None:
    stream = StringIO()
    lines = Lines("x", stream)
    for done, status in enumerate(["", "ok", "timeout", "ok"]):
        lines(done, 3, status)
    first, *_, last = stream.getvalue().splitlines()
    assert first == "x: 0 of 3 runs"
    assert last == "x: 3 of 3 runs, 1 without a plan"


def test_after_an_interruption_only_new_runs_are_counted_as_without_a_plan() -> None:
    stream = StringIO()
    lines = Lines("x", stream)
    lines(2, 3, "")
    lines(3, 3, "timeout")
    assert stream.getvalue().splitlines()[-1] == (
        "x: 3 of 3 runs, 1 of the new ones without a plan"
    )


def test_plain_lines_tell_the_time_left(monkeypatch: pytest.MonkeyPatch) -> None:
    stream, now = StringIO(), iter([100.0, 110.0, 130.0])
    monkeypatch.setattr("placement.study.progress.time.monotonic", lambda: next(now))
    lines = Lines("x", stream)
    for done, status in ((10, ""), (15, "ok"), (20, "ok")):
        lines(done, 100, status)
    assert stream.getvalue().splitlines()[1:] == [
        "x: 15 of 100 runs, about 3 min left",
        "x: 20 of 100 runs, about 4 min left",
    ]


@pytest.mark.parametrize(
    ("seconds", "told"), [(8.2, "8 s"), (99.0, "99 s"), (180.0, "3 min"), (9000.0, "2.5 h")]
)
def test_durations(seconds: float, told: str) -> None:
    assert duration(seconds) == told


class _Terminal(StringIO):
    def isatty(self) -> bool:
        return True


def test_a_terminal_gets_a_bar() -> None:
    stream = _Terminal()
    with shown("x", stream) as progress:
        progress(0, 2, "")
        progress(1, 2, "crashed")
        progress(2, 2, "ok")
    assert "2/2" in stream.getvalue()
    assert "1 without a plan" in stream.getvalue()


def test_plans_are_kept_only_where_they_can_be_drawn(study: Any, tmp_path: Path) -> None:
    sizes = {"generator": "uniform", "parameters": {"services": [300, 301], "hosts": 20}}
    run(study({"first-fit": {}}, instances={"u": sizes}), tmp_path)
    kept = ["plan" in result for _, result in Store(tmp_path).rows()]
    assert kept == [True, False]

"""Studies carried out: all runs once, whatever happens to them or to us."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from placement.study import Study, load, load_traces, report, run
from placement.study.errors import FolderInUse, MissingExtra, StudyError
from placement.study.store import Store
from placement.study.table import TIMES

STUDY_FILE = """\
name: long
instances: {{u: {{generator: uniform, parameters: {{hosts: 3, services: 5}}, seeds: {seeds}}}}}
algorithms:
  slow: {{algorithm: '{plug_ins}:counted', parameters: {{log: '{log}', pause_s: {pause_s}}}}}
"""
PLUG_INS = Path(__file__).with_name("plug_ins.py")


def _results(folder: Path) -> dict[str, dict[str, Any]]:
    return {columns["algorithm"]: result for columns, result in Store(folder).rows()}


def test_every_run_is_a_row(study: Any, tmp_path: Path) -> None:
    seen: list[tuple[int, int, str]] = []
    wanted = study({"first-fit": {}, "exact": {"parameters": {"gap": [0.05, 0.5]}}})
    outcome = run(wanted, tmp_path, progress=lambda *told: seen.append(told))
    assert (outcome.runs, outcome.found, outcome.done, outcome.failed) == (12, 0, 12, 0)
    assert seen == [(0, 12, ""), *((n, 12, "ok") for n in range(1, 13))]
    table = load(tmp_path)
    assert len(table) == 12
    assert set(table["setting"]) == {"small (hosts=3)", "small (hosts=4)"}
    exact, loose, first = (
        table[table["algorithm"] == name].reset_index()
        for name in ("exact (gap=0.05)", "exact (gap=0.5)", "first-fit")
    )
    assert (exact["gap"] <= 0.05).all()
    assert (exact["value"] <= first["value"]).all()
    assert (exact["bound"] <= loose["value"] + 1e-9).all()
    assert (table.groupby("case")["above_best"].min() == 0).all()
    for row in table.to_dict("records"):
        weighted = row["latency_ms"] + 0.01 * row["energy_w"] + row["cost_hour"]
        assert row["value"] == pytest.approx(weighted)
        assert row["wall_s"] >= row["seconds"] > 0
        assert 5 < row["max_rss_mib"] < 4000


def test_what_a_search_found_when_is_kept_and_the_same_for_the_same_seed(
    study: Any, tmp_path: Path
) -> None:
    algorithms = {"simulated-annealing": {}, "ladder": {}, "first-fit": {}}
    for name, workers in (("one", 1), ("two", 2)):
        run(study(algorithms), tmp_path / name, workers=workers)
    one, two = (load_traces(tmp_path / name) for name in ("one", "two"))
    assert one.drop(columns="seconds").equals(two.drop(columns="seconds"))
    table = load(tmp_path / "one").set_index(["id", "algorithm"])
    assert set(one["algorithm"]) == {"simulated-annealing", "ladder"}
    for key, moments in one.groupby(["id", "algorithm"]):
        assert list(moments["moment"]) == list(range(len(moments)))
        assert moments["seconds"].is_monotonic_increasing
        assert (moments["value"].diff().dropna() <= 1e-9).all()
        assert moments["value"].iloc[-1] == table.loc[key, "value"]
    report(tmp_path / "one")
    kept = pd.read_parquet(tmp_path / "one" / "traces.parquet")
    assert kept.equals(one)
    assert (tmp_path / "one" / "figures" / "distance-over-time.png").is_file()


@pytest.mark.parametrize("workers", [2, 3])
def test_any_number_of_workers_gives_the_same_table(
    study: Any, tmp_path: Path, workers: int
) -> None:
    algorithms = {
        "exact": {"parameters": {"gap": 0.05}},
        "greedy-latency": {},
        "lucky": {"algorithm": "plug_ins.py:seeded"},
    }
    wanted = study(algorithms, repetitions=2)
    run(wanted, tmp_path / "one", workers=1)
    run(wanted, tmp_path / "many", workers=workers)
    one, many = (load(tmp_path / name).drop(columns=list(TIMES)) for name in ("one", "many"))
    assert one.equals(many)
    lucky = one[one["algorithm"] == "lucky"]
    assert lucky["bound"].nunique() == len(lucky)  # each repetition and instance has its seed


@pytest.mark.parametrize(
    ("name", "status", "message"),
    [
        ("raises", "error", "KeyError: 'what was not there'"),
        ("exits", "error", "SystemExit: I have had enough"),
        ("vanishes", "crashed", "ended with code 3"),
        ("leaves_a_child", "ok", ""),
        ("crashes", "crashed", "ended by SIGSEGV: "),
        ("kills_its_worker", "crashed", "the worker process ended with -9"),
        ("sleeps", "timeout", "not done within 2 s"),
        ("eats", "memory", "needs more than 200 MiB"),
        ("overfull", "invalid", "cpu planned"),
        ("nothing", "error", "nothing returned None, which is no Plan"),
        ("seeded", "ok", ""),
        ("talks", "ok", ""),
    ],
)
def test_what_goes_wrong_is_a_row_and_stops_nobody(
    study: Any, tmp_path: Path, name: str, status: str, message: str
) -> None:
    algorithms = {"bad": {"algorithm": f"plug_ins.py:{name}"}, "first-fit": {}}
    one = {"u": {"generator": "uniform", "parameters": {"hosts": 3, "services": 9}, "seeds": [1]}}
    wanted = study(algorithms, instances=one, deadline_s=2.0, memory_mib=200)
    outcome = run(wanted, tmp_path)
    found = _results(tmp_path)
    assert found["bad"]["status"] == status
    assert message in found["bad"]["message"]
    assert found["first-fit"]["status"] == "ok"
    assert outcome.failed == (status != "ok")
    assert len(load(tmp_path)) == 2


def test_an_instance_that_cannot_be_built_or_solved_is_a_row(study: Any, tmp_path: Path) -> None:
    wrong = tmp_path / "wrong.json"
    wrong.write_text("{}")
    instances = {
        "file": {"files": [str(wrong)]},
        "few": {"generator": "uniform", "parameters": {"hosts": 50, "services": 2}},
        "far": {"generator": "uniform", "parameters": {"bound_ms": 0.001}},
    }
    run(study({"first-fit": {}}, instances=instances), tmp_path / "out")
    told = {c["instance"]: (r["status"], r["message"]) for c, r in Store(tmp_path / "out").rows()}
    assert told["file"] == ("error", "hosts: missing")
    assert told["few"][0] == "error"
    assert "too few" in told["few"][1]
    assert told["far"][0] == "infeasible"
    assert "bound 0.001 ms" in told["far"][1]
    assert load(tmp_path / "out")["value"].isna().all()


def test_a_parameter_that_a_plug_in_does_not_take_is_a_row(study: Any, tmp_path: Path) -> None:
    mine = {"algorithm": "plug_ins.py:good", "parameters": {"coffee": 1}}
    run(study({"mine": mine}), tmp_path)
    message = _results(tmp_path)["mine"]["message"]
    assert "good takes no such parameter; known: weights," in message


def test_a_late_run_leaves_no_program_behind(study: Any, tmp_path: Path) -> None:
    log = tmp_path / "pid"
    entry = {"algorithm": "plug_ins.py:sleeps", "parameters": {"log": str(log)}}
    one = {"u": {"generator": "uniform", "parameters": {"hosts": 3, "services": 9}}}
    run(study({"s": entry}, instances=one, deadline_s=3.0), tmp_path / "out")
    assert _results(tmp_path / "out")["s"]["status"] == "timeout"
    assert _gone(int(log.read_text()))


def _gone(pid: int) -> bool:
    """Return whether a process has ended, with a little patience."""
    for _ in range(200):
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        except FileNotFoundError:
            return True
        if state == "Z":
            return True
        time.sleep(0.05)
    return False


# --- taking up again ------------------------------------------------------------------------------


def _long(tmp_path: Path, *, seeds: int = 12, pause_s: float = 0.15) -> tuple[Path, Path]:
    log, file = tmp_path / "log", tmp_path / "long.yaml"
    text = STUDY_FILE.format(log=log, plug_ins=PLUG_INS, seeds=seeds, pause_s=pause_s)
    file.write_text(text)
    return file, log


def _begun(log: Path) -> int:
    return log.read_text().count("run") if log.exists() else 0


def test_a_study_goes_on_after_kill_9_and_redoes_no_run(tmp_path: Path) -> None:
    file, log = _long(tmp_path)
    folder = tmp_path / "out"
    code = (
        "import sys; from placement.study import Study, run\n"
        "run(Study.read(sys.argv[1]), sys.argv[2], workers=2)"
    )
    process = subprocess.Popen([sys.executable, "-c", code, str(file), str(folder)])
    try:
        while len(list(folder.glob("runs/*.json"))) < 3:
            assert process.poll() is None
            time.sleep(0.01)
    finally:
        process.kill()
        process.wait()
    killed_at = len(list(folder.glob("runs/*.json")))
    assert 3 <= killed_at < 12
    time.sleep(0.5)  # its workers, if any were left, would begin more runs now
    begun = _begun(log)
    assert begun <= killed_at + 2  # those that ran when it was killed
    outcome = run(Study.read(file), folder, workers=2)
    assert (outcome.found, outcome.done) == (killed_at, 12 - killed_at)
    assert _begun(log) == begun + 12 - killed_at
    assert len(load(folder)) == 12
    assert run(Study.read(file), folder).done == 0


def test_ctrl_c_ends_it_with_all_it_started(tmp_path: Path) -> None:
    file, log = _long(tmp_path, pause_s=100)
    code = (
        "import sys; from placement.study import Study, run\n"
        "run(Study.read(sys.argv[1]), sys.argv[2], workers=2)"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code, str(file), str(tmp_path / "out")],
        stderr=subprocess.PIPE,
        text=True,
    )
    while _begun(log) < 2:
        assert process.poll() is None
        time.sleep(0.01)
    workers = _children(process.pid)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=60)
    assert said.strip().endswith("KeyboardInterrupt")
    assert len(workers) == 2
    assert all(_gone(pid) for pid in workers)


def _children(pid: int) -> list[int]:
    told = Path(f"/proc/{pid}/task").glob("*/children")
    return [int(child) for each in told for child in each.read_text().split()]


def test_folders_of_two_machines_are_put_together_by_copying(tmp_path: Path) -> None:
    file, log = _long(tmp_path, seeds=6, pause_s=0)
    whole = Study.read(file)
    file.write_text(file.read_text().replace("seeds: 6", "seeds: [0, 1, 2]"))
    run(Study.read(file), tmp_path / "one")
    file.write_text(file.read_text().replace("seeds: [0, 1, 2]", "seeds: [3, 4, 5]"))
    run(Study.read(file), tmp_path / "two")
    assert len(load(tmp_path / "one", tmp_path / "two", tmp_path / "one")) == 6
    for part in (tmp_path / "two" / "runs").iterdir():
        part.rename(tmp_path / "one" / "runs" / part.name)
    assert run(whole, tmp_path / "one").done == 0
    assert len(load(tmp_path / "one")) == 6
    assert _begun(log) == 6


def test_a_part_that_is_broken_is_run_again(study: Any, tmp_path: Path) -> None:
    wanted = study({"first-fit": {}})
    run(wanted, tmp_path)
    before = load(tmp_path)
    part = next((tmp_path / "runs").iterdir())
    part.write_text(part.read_text()[:20])
    assert len(load(tmp_path)) == len(before) - 1
    assert run(wanted, tmp_path).done == 1
    assert load(tmp_path).drop(columns=list(TIMES)).equals(before.drop(columns=list(TIMES)))


def test_what_failed_is_done_again_only_when_asked(study: Any, tmp_path: Path) -> None:
    wanted = study({"bad": {"algorithm": "plug_ins.py:raises"}, "first-fit": {}})
    assert run(wanted, tmp_path).failed == 4
    assert run(wanted, tmp_path).done == 0
    assert run(wanted, tmp_path, retry=True).done == 4


def test_one_folder_is_for_one_process(study: Any, tmp_path: Path) -> None:
    with Store(tmp_path).held(), pytest.raises(FolderInUse, match="another study writes to"):
        run(study({"first-fit": {}}), tmp_path)


def test_a_folder_that_cannot_be_made_is_told(study: Any, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StudyError, match="cannot be written: Not a directory"):
        run(study({"first-fit": {}}), tmp_path / "file")


def test_a_folder_without_a_study_is_told(tmp_path: Path) -> None:
    with pytest.raises(StudyError, match="is not the list of a study's runs"):
        load(tmp_path)


def test_a_missing_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(MissingExtra, match=r"pandas is not installed.*edgewake\[study\]"):
        load(tmp_path)


def test_the_library_and_its_errors_need_no_extra() -> None:
    code = "import sys, placement.study; print(*sys.modules)"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment
    )
    assert not {"pandas", "matplotlib", "scipy", "pulp", "rich"} & set(done.stdout.split())


# --- Dask -----------------------------------------------------------------------------------------


def test_a_dask_cluster_gives_the_same_table(study: Any, tmp_path: Path) -> None:
    """The scheduler and its worker are programs of their own, as on a cluster."""
    python = [sys.executable, "-m"]
    log = (tmp_path / "dask.log").open("w")
    schedule = tmp_path / "scheduler.json"
    scheduler = subprocess.Popen(
        [
            *(*python, "distributed.cli.dask_scheduler", "--host", "127.0.0.1", "--port", "0"),
            *("--no-dashboard", "--scheduler-file", str(schedule)),
        ],
        stderr=log,
    )
    worker = subprocess.Popen(
        [
            *(*python, "distributed.cli.dask_worker", "--scheduler-file", str(schedule)),
            *("--nthreads", "2", "--no-dashboard", "--host", "127.0.0.1"),
        ],
        stderr=log,
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
    )
    try:
        wanted = study({"first-fit": {}, "greedy-latency": {}})
        run(wanted, tmp_path / "here")
        run(wanted, tmp_path / "there", executor_at=f"dask://{_address(schedule)}")
    finally:
        for process in (worker, scheduler):
            process.terminate()
            process.wait()
        log.close()
    here, there = (load(tmp_path / name).drop(columns=list(TIMES)) for name in ("here", "there"))
    assert here.equals(there)


def test_a_dask_cluster_that_is_not_there_is_told(
    study: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("placement.study.executors.CONNECT_S", 0.5)
    with pytest.raises(StudyError, match=r"no Dask scheduler answers at 127\.0\.0\.1:1:"):
        run(study({"first-fit": {}}), tmp_path, executor_at="dask://127.0.0.1:1")


def test_an_executor_that_there_is_not_is_told(study: Any, tmp_path: Path) -> None:
    with pytest.raises(
        StudyError, match=r"^executor: must be local or dask://host:port, not 'dask:"
    ):
        run(study({"first-fit": {}}), tmp_path, executor_at="dask:/scheduler:8786")


def test_without_dask_its_extra_is_named(
    study: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "distributed", None)
    with pytest.raises(MissingExtra, match=r"distributed is not installed.*edgewake\[dask\]"):
        run(study({"first-fit": {}}, executor="dask://127.0.0.1:1"), tmp_path)


def _address(file: Path) -> str:
    for _ in range(600):
        if file.exists() and file.read_text().strip().endswith("}"):
            address = json.loads(file.read_text())["address"]
            return str(address).removeprefix("tcp://")
        time.sleep(0.05)
    raise AssertionError("Dask's scheduler did not start")

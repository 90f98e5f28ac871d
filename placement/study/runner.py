"""Carries a study out: every run that is not finished yet, on as many workers as there are.

What a run gives does not depend on who else runs or ran, so any number of workers, any order and
any number of interruptions give the same table (but for the columns that are times).
"""

from collections.abc import Callable
from concurrent.futures import FIRST_COMPLETED, Executor, Future, wait
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from placement.study.cells import perform
from placement.study.environment import environment
from placement.study.executors import executor
from placement.study.runs import Run, spelled_out
from placement.study.spec import Study
from placement.study.store import Store

AHEAD = 256  # runs handed to the executor and not finished: bounds memory, keeps a cluster busy

Progress = Callable[[int, int, str], None]  # runs done, runs in all, status of the last


@dataclass(frozen=True, slots=True)
class Outcome:
    """How many runs there are, were found finished, were done now, and are without a plan."""

    runs: int
    found: int
    done: int
    failed: int


def run(
    study: Study,
    folder: Path | str,
    *,
    workers: int | None = None,
    executor_at: str = "",
    retry: bool = False,
    progress: Progress | None = None,
) -> Outcome:
    """Carry out what is not finished of a study, with its results in a folder.

    `workers` and `executor_at` replace the study's own. With `retry`, runs that ended without a
    plan are done again. `progress` is called after every run.

    Raises:
        StudyError: nothing can be run: the study makes no sense, the folder is in use or cannot be
            written, the Dask cluster is not there.

    """
    where = executor_at or study.executor
    study.model_copy(update={"executor": where}).check()
    store = Store(Path(folder))
    runs = list(spelled_out(study))
    with store.held():
        store.plan(study.model_dump(), runs, environment())
        wanted = {each.id: each for each in runs}
        finished = {id_ for id_ in wanted if _is_finished(store.result(id_), retry)}
        todo = [each for id_, each in wanted.items() if id_ not in finished]
        if todo:
            with executor(where, workers or study.workers) as pool:
                _carry_out(pool, todo, store, len(finished), progress or _silent)
        failed = sum((store.result(each.id) or {}).get("status") != "ok" for each in runs)
    return Outcome(len(runs), len(runs) - len(todo), len(todo), failed)


def _is_finished(result: dict[str, Any] | None, retry: bool) -> bool:
    return result is not None and (result["status"] == "ok" or not retry)


def _carry_out(
    pool: Executor, todo: list[Run], store: Store, before: int, progress: Progress
) -> None:
    total = before + len(todo)
    waiting = iter(todo)
    flying: dict[Future[Any], Run] = {}
    done = before
    progress(done, total, "")
    while True:
        while len(flying) < AHEAD and (run := next(waiting, None)) is not None:
            flying[pool.submit(perform, dict(run.task))] = run
        if not flying:
            return
        ready, _ = wait(flying, return_when=FIRST_COMPLETED)
        for future in ready:
            result = future.result()
            store.write(flying.pop(future).id, result)
            done += 1
            progress(done, total, result["status"])


def _silent(_done: int, _total: int, _status: str) -> None:
    """Say nothing."""

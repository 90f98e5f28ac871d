"""Worker processes as seen by who uses them: `perform` a task, get its row.

Each thread that calls `perform` has a worker process of its own, started when it is first needed
and replaced when it dies. That fits every executor, on this machine or another. A worker ends when
its standard input does, so none outlives the process that started it, even if that is killed.
"""

import json
import os
import subprocess
import sys
import threading
from contextlib import suppress
from typing import Any

from placement.study.measure import Result, failed

ONE_THREAD = {  # parallel are the runs; a library's own threads would only disturb the times
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "PYTHONHASHSEED": "0",
}
END_S = 10.0

_mine = threading.local()


class Cell:
    """One worker process."""

    def __init__(self) -> None:
        environment = {**os.environ, **ONE_THREAD}
        environment["PYTHONPATH"] = os.pathsep.join(path for path in sys.path if path)
        self.process = subprocess.Popen(
            [sys.executable, "-P", "-m", "placement.study.worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=environment,
            start_new_session=True,  # Ctrl-C is for us, and we tell it
            encoding="utf-8",
        )

    def perform(self, task: dict[str, Any]) -> Result | None:
        """Return the row of a task; None if the worker itself died of it."""
        assert self.process.stdin  # noqa: S101 - as asked for above
        assert self.process.stdout  # noqa: S101
        try:
            self.process.stdin.write(json.dumps(task) + "\n")
            self.process.stdin.flush()
            line = self.process.stdout.readline()
        except (BrokenPipeError, ValueError):  # it died, or was closed, between two tasks
            return None
        row: Result | None = json.loads(line) if line.endswith("\n") else None
        return row

    def close(self) -> None:
        """End the worker, and what it runs."""
        if self.process.stdin:
            with suppress(BrokenPipeError):  # it is gone
                self.process.stdin.close()
        try:
            self.process.wait(END_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        if self.process.stdout:
            self.process.stdout.close()


class Cells:
    """The worker processes of one group of threads, to be ended together."""

    def __init__(self) -> None:
        self._cells: set[Cell] = set()
        self._lock = threading.Lock()
        self._closed = False

    def join(self) -> None:
        """Make the calling thread one of the group."""
        _mine.group = self

    def add(self, cell: Cell) -> None:
        """Take a worker process into the group; it is ended at once if the group is."""
        with self._lock:
            self._cells.add(cell)
            closed = self._closed
        if closed:
            cell.close()

    def close(self) -> None:
        """End all worker processes of the group, now and later."""
        with self._lock:
            self._closed = True
            cells = list(self._cells)
        for cell in cells:
            cell.close()


def perform(task: dict[str, Any]) -> Result:
    """Return the row of a task, run by this thread's worker process."""
    cell = getattr(_mine, "cell", None)
    if cell is None or cell.process.poll() is not None:
        cell = _mine.cell = Cell()
        if group := getattr(_mine, "group", None):
            group.add(cell)
    row = cell.perform(task)
    if row is not None:
        return dict(row)
    cell.close()
    return failed("crashed", f"the worker process ended with {cell.process.returncode}")

"""How far a study is, for people: a bar with the time left on a terminal, plain lines elsewhere."""

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TextIO

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskProgressColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from placement.study.runner import Progress as Called

EVERY_S = 5.0  # between two plain lines


@contextmanager
def shown(name: str, stream: TextIO | None = None) -> Iterator[Called]:
    """Yield what `placement.study.run` is to call after each run; shows it on standard error."""
    stream = stream or sys.stderr
    if stream.isatty():
        with _bar(name, stream) as called:
            yield called
    else:
        yield Lines(name, stream)


class Lines:
    """Prints a line at the start and the end, and now and then in between."""

    def __init__(self, name: str, stream: TextIO) -> None:
        self.name, self.stream = name, stream
        self.found = self.failed = 0
        self.began = self.told = 0.0

    def __call__(self, done: int, total: int, status: str) -> None:
        """Take note of a run, and print if it is time."""
        now = time.monotonic()
        if not status:
            self.found, self.began, self.told = done, now, now - EVERY_S
        self.failed += status not in {"", "ok"}
        if done < total and now - self.told < EVERY_S:
            return
        self.told = now
        fresh = done - self.found
        left = (now - self.began) / fresh * (total - done) if fresh else 0.0
        failed = f", {_without(self.failed, self.found)}" if self.failed else ""
        wait = f", about {duration(left)} left" if left else ""
        print(f"{self.name}: {done} of {total} runs{failed}{wait}", file=self.stream, flush=True)


def duration(seconds: float) -> str:
    """Return a time as ``8 s``, ``3 min`` or ``2.5 h``."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"


def _without(failed: int, found: int) -> str:
    """Return how many are without a plan; of runs found done before, nobody has counted them."""
    return f"{failed} {'of the new ones ' if found else ''}without a plan"


@contextmanager
def _bar(name: str, stream: TextIO) -> Iterator[Called]:
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TaskProgressColumn(),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
        TextColumn("{task.fields[failed]}"),
    )
    found = failed = 0
    with Progress(*columns, console=Console(file=stream)) as progress:
        task = progress.add_task(name, total=None, failed="")

        def called(done: int, total: int, status: str) -> None:
            nonlocal found, failed
            found = found if status else done
            failed += status not in {"", "ok"}
            told = _without(failed, found) if failed else ""
            progress.update(task, completed=done, total=total, failed=told)

        yield called

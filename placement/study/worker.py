"""A process that runs tasks one by one, each in a process of its own.

``python -m placement.study.worker`` reads one task as a line of JSON from standard input and
answers with one line on standard output, until the input ends. The library is imported once; each
task then runs in a fork, which starts in a millisecond, cannot leave anything behind for the next
run, may crash, and is ended when it is late. This process has one thread and never solves anything
itself, so forking it is safe.
"""

import ctypes
import json
import os
import resource
import select
import signal
import sys
import tempfile
import time
from typing import IO

from placement.study import seam
from placement.study.measure import Result, Task, failed, measure

MIB = 1 << 20
SET_PARENT_DEATH_SIGNAL = 1  # PR_SET_PDEATHSIG of <linux/prctl.h>
CHUNK = 1 << 16


def main() -> None:
    """Answer tasks until standard input ends."""
    replies = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # what solvers print is no answer
    tasks = os.fdopen(os.dup(0), "r", encoding="utf-8", newline="\n")
    while line := tasks.readline():
        told = json.loads(line)
        seam.preload(told["algorithm"])
        replies.write(json.dumps(isolated(Task.of(told), tasks.fileno())) + "\n")
        replies.flush()


def isolated(task: Task, boss: int) -> Result:
    """Run a task in a fork, and return its row with what it cost.

    A fork that is not done at its deadline is ended, with all it has started; so is one whose boss
    is gone, which is seen by the end of the file `boss`.
    """
    with tempfile.TemporaryFile() as said:
        started = time.perf_counter()
        ours, theirs = os.pipe()
        child = os.fork()
        if child == 0:
            _run(task, theirs, said)
        os.close(theirs)
        try:
            text, ended = _answer(ours, boss, child, started + task.deadline_s)
        finally:
            os.close(ours)
            _end(child)
        _, status, used = os.wait4(child, 0)
        if ended == "orphaned":
            sys.exit()
        late = failed("timeout", f"not done within {task.deadline_s:g} s")
        row = late if ended == "late" else _parsed(text, status, said)
        return {
            **row,
            "wall_s": time.perf_counter() - started,
            "cpu_s": used.ru_utime + used.ru_stime,
            "max_rss_mib": used.ru_maxrss / 1024,
        }


def _run(task: Task, answer: int, said: IO[bytes]) -> None:
    """Be the fork: measure, answer, and end."""
    try:
        os.setpgid(0, 0)
        ctypes.CDLL(None).prctl(SET_PARENT_DEATH_SIGNAL, signal.SIGKILL)
        os.dup2(said.fileno(), 1)
        os.dup2(said.fileno(), 2)
        limit = _address_space() + task.memory_mib * MIB
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        with os.fdopen(answer, "w", encoding="utf-8") as out:
            json.dump(measure(task), out)
    finally:
        os._exit(0)  # the worker's own clean-up is not the fork's


def _address_space() -> int:
    """Return how much address space this process has, in bytes."""
    with open("/proc/self/statm", encoding="ascii") as file:  # noqa: PTH123 - no path of a user
        return int(file.read().split()[0]) * resource.getpagesize()


def _answer(ours: int, boss: int, child: int, deadline: float) -> tuple[bytes, str]:
    """Return what a fork wrote until it died, and whether it ended as it should, late or orphaned.

    It is the death that counts and not the end of the pipe, which processes that the fork started
    may hold open, and which comes a moment before the exit status.
    """
    text = b""
    os.set_blocking(ours, False)
    death = os.pidfd_open(child)
    try:
        open_ends = [ours]
        while True:
            left = deadline - time.perf_counter()
            ready = select.select([*open_ends, death, boss], [], [], max(0.0, left))[0]
            if ours in ready:
                chunk = os.read(ours, CHUNK)
                text += chunk
                open_ends = [ours] if chunk else []
            elif death in ready:
                return text, "done"
            elif boss in ready:  # nothing is asked before the answer, so this is its end
                return text, "orphaned"
            elif left <= 0:
                return text, "late"
    finally:
        os.close(death)


def _end(child: int) -> None:
    """End a fork and all that it started."""
    for end in (os.killpg, os.kill):  # it may not have its group yet
        try:
            end(child, signal.SIGKILL)
        except ProcessLookupError:
            continue


def _parsed(text: bytes, status: int, said: IO[bytes]) -> Result:
    try:
        row: Result = json.loads(text)
    except ValueError:
        return failed("crashed", _last_words(status, said))
    return row


def _last_words(status: int, said: IO[bytes]) -> str:
    said.seek(0)
    lines = [line for line in said.read().decode(errors="replace").splitlines() if line.strip()]
    code = os.waitstatus_to_exitcode(status)
    how = f"ended by {signal.Signals(-code).name}" if code < 0 else f"ended with code {code}"
    return f"{how}: {lines[-1]}" if lines else how


if __name__ == "__main__":
    main()

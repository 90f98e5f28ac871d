"""Programs in network namespaces that outlive us, each below a supervisor of its own.

For back ends whose nodes are namespaces and run more than one program. Who calls chooses the user
(one for each program, so that all of a program can be found and ended), stores the `Identity` of
the supervisor, and gives the files; `supervisor` is the script that runs. Takes root. Linux.
"""

import json
import os
import subprocess
import sys
import time
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from orchestrator.linux import namespaces
from orchestrator.linux.processes import (
    PROC,
    Identity,
    Process,
    adopted,
    confined,
    open_process,
    tool,
    without_keys,
)

GRACE_S = 2.0  # between SIGTERM and SIGKILL
LOG_BYTES = 2**20  # of what a program prints, before the file is moved; there are two at most

_PATIENCE_S = 10.0  # for what takes milliseconds unless the machine is in trouble
_POLL_S = 0.001
_SCRIPT = Path(__file__).with_name("supervisor.py")
_CANNOT_RUN = (126, 127)  # what nsenter, prlimit and setpriv end with if they cannot go on
_TICKS = os.sysconf("SC_CLK_TCK")
_PAGE = os.sysconf("SC_PAGE_SIZE")


@dataclass(frozen=True, slots=True)
class Program:
    """What is to run, and where.

    `argv` begins with an absolute path; `rights` are capabilities without ``cap_``. `token` is an
    argument of the supervisor that no other process has. What the program prints is appended to
    `log`, how it ended is written to `end`, and it reads `input`, if that is not None.
    """

    argv: Sequence[str]
    environment: Mapping[str, str]
    namespace: str
    user: int
    rights: Sequence[str]
    token: str
    log: Path
    end: Path
    input: Path | None = None


@dataclass(frozen=True, slots=True)
class End:
    """How a program ended: code or signal; processor seconds of it and of what it waited for."""

    code: int | None
    signal: int | None
    cpu_s: float
    at: float


@dataclass(frozen=True, slots=True)
class Usage:
    """What all processes of a user have used of processors (seconds), and hold of memory (MiB)."""

    cpu_s: float = 0.0
    memory_mib: float = 0.0


class CannotRun(OSError):  # noqa: N818 - reads as a sentence where it is raised
    """A program could not be started; its log says why."""


def start(program: Program) -> tuple[Process, int]:
    """Start a program; return its supervisor and its own process id when it runs.

    One that has ended already did run. Raises CannotRun or another OSError, and leaves nothing.
    """
    plan = {
        "argv": _argv(program),
        "environment": dict(program.environment),
        "namespace": str(namespaces.FOLDER / program.namespace),
        "inode": namespaces.inode(program.namespace),
        "user": program.user,
        "log": str(program.log),
        "log_bytes": LOG_BYTES,
        "end": str(program.end),
        "grace_s": GRACE_S,
    }
    with program.log.open("ab") as log, (program.input or Path(os.devnull)).open("rb") as given:
        child = without_keys(
            lambda: subprocess.Popen(
                [sys.executable, "-I", "-S", str(_SCRIPT), program.token, json.dumps(plan)],
                stdin=given,
                stdout=subprocess.PIPE,
                stderr=log,
                cwd="/",
                env={},
                start_new_session=True,
            )
        )
    supervisor = adopted(child)
    try:
        pid = _told_pid(child)
        _await_run(program, supervisor, pid)
    except BaseException:
        end(supervisor)
        supervisor.close()
        raise
    return supervisor, pid


def end(supervisor: Process) -> bool:
    """End a program and whatever it started; False if its supervisor outlives our patience."""
    return supervisor.end(grace_s=GRACE_S + _PATIENCE_S, patience_s=_PATIENCE_S)


def running(identity: Identity) -> Process | None:
    """Return a supervisor that runs, or None; one of ours that has ended is reaped by this."""
    process = open_process(identity)
    if process is not None and process.ended():
        process.exit()
        process.close()
        return None
    return process


def end_of(path: Path) -> End | None:
    """Return how a program ended, if its supervisor has told."""
    try:
        data = json.loads(path.read_text())
        return End(data["code"], data["signal"], data["cpu_s"], data["at"])
    except FileNotFoundError:
        return None


def usage(users: Collection[int]) -> dict[int, Usage]:
    """Return what the processes of each of these users use, in one look at all processes."""
    found = dict.fromkeys(users, Usage())
    for folder in PROC.glob("[0-9]*"):
        with suppress(OSError):
            user = folder.stat().st_uid
            if user in found:
                so_far, more = found[user], _usage(folder)
                found[user] = Usage(so_far.cpu_s + more.cpu_s, so_far.memory_mib + more.memory_mib)
    return found


def _usage(folder: Path) -> Usage:
    """Read proc(5) stat: fields 14 to 17 are its and its dead children's time, 24 its pages."""
    fields = (folder / "stat").read_text().rpartition(")")[2].split()
    ticks = sum(int(fields[number - 3]) for number in (14, 15, 16, 17))
    return Usage(ticks / _TICKS, int(fields[24 - 3]) * _PAGE / 2**20)


def _argv(program: Program) -> list[str]:
    place = namespaces.FOLDER / program.namespace
    limits = confined(program.user, program.rights)
    # A program does not outlive its supervisor, even one that is killed (prctl(2)).
    return [
        *(tool("nsenter"), f"--net={place}", "--"),
        *(*limits[:-1], "--pdeathsig", "KILL", "--"),
        *program.argv,
    ]


def _told_pid(child: "subprocess.Popen[bytes]") -> int:
    if child.stdout is None:
        raise CannotRun("the supervisor has no standard output")
    with child.stdout as told:
        line = told.readline()
    if not line.strip():
        raise CannotRun("its supervisor did not start")
    return int(line)


def _await_run(program: Program, supervisor: Process, pid: int) -> None:
    """Wait until the tools before the program have made way for it."""
    tools = {os.path.realpath(tool(name)) for name in ("nsenter", "prlimit", "setpriv")}
    ours = os.path.realpath(program.argv[0])
    deadline = time.monotonic() + _PATIENCE_S
    while not supervisor.ended(_POLL_S):
        with suppress(OSError):
            now = (PROC / str(pid) / "exe").readlink()
            if str(now) not in tools or str(now) == ours:
                return
        if time.monotonic() > deadline:
            raise CannotRun(f"it does not run after {_PATIENCE_S:.0f} s")
    how = end_of(program.end)
    if how is None or how.code in _CANNOT_RUN:
        raise CannotRun("it could not be run")

"""What this process takes of its machine, as the kernel counts it."""

import os
import resource
import time
from dataclasses import dataclass
from functools import cache
from pathlib import Path

_TICKS_S = os.sysconf("SC_CLK_TCK")
_STARTED_FIELD = 19  # of /proc/PID/stat, counted after the name: ticks from boot to start


@dataclass(frozen=True, slots=True)
class ProcessUsage:
    """Seconds of processor time, resident bytes, open files; when it began, since the epoch."""

    cpu_s: float
    resident_bytes: int
    open_files: int
    most_files: int
    started_at: float


def usage() -> ProcessUsage:
    """Return what this process takes now."""
    spent = resource.getrusage(resource.RUSAGE_SELF)
    here = Path("/proc/self")
    pages = int((here / "statm").read_text().split()[1])
    return ProcessUsage(
        cpu_s=spent.ru_utime + spent.ru_stime,
        resident_bytes=pages * resource.getpagesize(),
        open_files=len([*(here / "fd").iterdir()]),
        most_files=resource.getrlimit(resource.RLIMIT_NOFILE)[0],
        started_at=_started_at(),
    )


@cache
def _started_at() -> float:
    """Return when this process began; always the same, although the clock may be set."""
    ticks = int(Path("/proc/self/stat").read_text().rpartition(")")[2].split()[_STARTED_FIELD])
    booted_at = time.time() - time.clock_gettime(time.CLOCK_BOOTTIME)  # the machine
    return booted_at + ticks / _TICKS_S

"""Processes that outlive us: started apart from us, found again after a restart, never mistaken.

For back ends whose guests are plain processes. A process is known by its `Identity`, which can be
stored; signals go through a pidfd (pidfd_open(2)) that was opened first and compared with the
identity afterwards, so that a process id that came to mean another process is never signalled.
What a process is for, and what to do when it ends, is for others to say. Linux 5.9 or later.
"""

import ctypes
import hashlib
import logging
import os
import platform
import select
import shutil
import signal
import subprocess
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from errno import ENOSYS
from functools import cache
from pathlib import Path
from typing import TypeVar

from orchestrator.linux import libc

PROC = Path("/proc")
_START_TIME = 22 - 3  # proc(5): field 22 of stat; the first after the name is field 3
# uids that systemd's table (docs/UIDS-GIDS.md) gives to nobody, and Debian's policy to local use.
_FIRST_USER, _USERS = 0x7000_0000, 2**27
_TICK_S = 1.0  # how often `Watch` lets its owner look after what ends cannot tell
# keyctl(2): asm/unistd_64.h, asm-generic/unistd.h; linux/keyctl.h
_KEYCTL, _GENERIC_KEYCTL, _JOIN_SESSION_KEYRING = {"x86_64": 250}, 219, 1

Result = TypeVar("Result")

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Identity:
    """Which process: never two alike. `started` is in clock ticks after the boot named `boot`."""

    pid: int
    started: int
    boot: str


@dataclass(frozen=True, slots=True)
class Exit:
    """How a process ended: by itself with a code, or by a signal; neither when nobody can know.

    Only its parent hears how a process ended, so that of an adopted one stays unknown.
    """

    code: int | None = None
    signal: int | None = None


class Process:
    """A process held by a pidfd, until `close`."""

    def __init__(self, identity: Identity, pidfd: int) -> None:
        self.identity = identity
        self._pidfd = pidfd
        self._exit: Exit | None = None

    def fileno(self) -> int:
        """Return the pidfd: it becomes readable when the process ends."""
        return self._pidfd

    def ended(self, within_s: float = 0.0) -> bool:
        """Wait for the end, `within_s` seconds at most, and return whether it has come."""
        poll = select.poll()
        poll.register(self._pidfd, select.POLLIN)
        return bool(poll.poll(within_s * 1000))

    def send(self, number: signal.Signals) -> None:
        """Send a signal; a process that has ended takes none, which is no error."""
        with suppress(ProcessLookupError):
            signal.pidfd_send_signal(self._pidfd, number)

    def stopped(self) -> bool:
        """Return whether it is stopped by a signal (proc_pid_stat(5): state T)."""
        with suppress(OSError):
            stat = (PROC / str(self.identity.pid) / "stat").read_text()
            return stat.rpartition(")")[2].split()[0] == "T"
        return False

    def cpu_s(self) -> float | None:
        """Return the processor time that its first thread has used (seconds); None if it ended.

        In nanoseconds, where `stat` has ticks (Linux, Documentation/scheduler/sched-stats.rst:
        the first field of /proc/PID/schedstat).
        """
        with suppress(OSError):
            told = (PROC / str(self.identity.pid) / "schedstat").read_text()
            return int(told.split()[0]) / 1e9
        return None

    def memory_bytes(self) -> int | None:
        """Return its resident memory; None if it ended (proc_pid_statm(5): the second field)."""
        with suppress(OSError):
            told = (PROC / str(self.identity.pid) / "statm").read_text()
            return int(told.split()[1]) * os.sysconf("SC_PAGE_SIZE")
        return None

    def end(self, *, grace_s: float, patience_s: float) -> bool:
        """Ask it to end (SIGTERM), after `grace_s` kill it; False if it outlives `patience_s`."""
        self.send(signal.SIGTERM)
        self.send(signal.SIGCONT)  # a stopped one hears nothing else but SIGKILL
        if not self.ended(grace_s):
            self.send(signal.SIGKILL)
            if not self.ended(patience_s):
                return False
        self.exit()
        return True

    def exit(self) -> Exit:
        """Return how it ended, after its end; a child of ours is reaped by this."""
        if self._exit is None:
            self._exit = self._reaped()
        return self._exit

    def close(self) -> None:
        """Let go of the pidfd; the process goes on."""
        os.close(self._pidfd)

    def _reaped(self) -> Exit:
        try:
            result = os.waitid(os.P_PIDFD, self._pidfd, os.WEXITED)
        except ChildProcessError:
            return Exit()
        if result is None:
            return Exit()
        if result.si_code == os.CLD_EXITED:
            return Exit(code=result.si_status)
        return Exit(signal=result.si_status)


def open_process(identity: Identity) -> Process | None:
    """Return the process with that identity, or None if it is no more (a zombie still is)."""
    process = _open(identity.pid)
    if process is not None and process.identity != identity:
        process.close()
        return None
    return process


def processes_told(argument: str) -> Iterator[Process]:
    """Yield the processes that have exactly this among their arguments.

    For one that was started just before a crash, so that its identity was never stored: give it an
    argument that nothing else has. Whoever gets a process closes it.
    """
    yield from processes_where(lambda folder: argument in _arguments(folder))


def processes_where(true: Callable[[Path], bool]) -> Iterator[Process]:
    """Yield the processes of whose folder in /proc something is true. Who gets one closes it."""
    for folder in PROC.glob("[0-9]*"):
        if true(folder):
            process = _open(int(folder.name))
            if process is not None and true(folder):
                yield process
            elif process is not None:
                process.close()


def own_user(text: str) -> int | None:
    """Return the uid for a process of ours that is to be a user of its own: each text has its own.

    None when we are not root: then it runs as we do, without our capabilities.
    """
    if os.geteuid() != 0:
        return None
    return _FIRST_USER + int(hashlib.sha256(text.encode()).hexdigest(), 16) % _USERS


def launch(
    argv: Sequence[str], *, output: Path, user: int | None, stdin: int = subprocess.DEVNULL
) -> Process:
    """Start a program that lives on without us, with as few rights as it can have.

    It runs in a session of its own, in the root folder, with an empty environment, nothing to read
    (but `stdin`, a file of ours, if given), no other file of ours open, no core dumps, no keys, no
    capabilities and no way to gain any, and appends what it prints to `output`. As root, `user` is
    the uid and gid it runs as, in no other group; None keeps ours. Raises OSError when that cannot
    be had. util-linux does what Python cannot do safely between fork and exec; the process id stays
    the same.
    """
    with output.open("ab") as log_file:
        child = without_keys(
            lambda: subprocess.Popen(
                [*confined(user), *argv],
                stdin=stdin,
                stdout=log_file,
                stderr=log_file,
                cwd="/",
                env={},
                start_new_session=True,
            )
        )
    return adopted(child)


def without_keys(work: Callable[[], Result]) -> Result:
    """Do something in a thread whose children have none of our session's keys; return its result.

    Whoever inherits a session keyring possesses what is in it, whatever user it is (keyrings(7)).
    """

    def leave_and_work() -> Result:
        leave_session_keyring()
        return work()

    with ThreadPoolExecutor(1) as thread:
        return thread.submit(leave_and_work).result()


def leave_session_keyring() -> None:
    """Give this thread, and what it will start, a new session keyring; not without CONFIG_KEYS."""
    call = _KEYCTL.get(platform.machine(), _GENERIC_KEYCTL)
    if libc.library.syscall(call, _JOIN_SESSION_KEYRING, None) == -1:
        number = ctypes.get_errno()
        if number != ENOSYS:
            raise OSError(number, os.strerror(number), "a session keyring")


def adopted(child: "subprocess.Popen[bytes]") -> Process:
    """Return a process that `Popen` has just started; Popen minds it no more."""
    process = _open(child.pid)
    child.returncode = 0  # so that Popen minds neither its outliving us nor who reaps it
    if process is None:
        raise ProcessLookupError(f"process {child.pid} was reaped by somebody else")
    return process


def seccomp_filters(pid: int | None = None) -> int:
    """Return how many seccomp filters a process (ours: None) has; 0 if it is no more."""
    with suppress(OSError):
        for line in (PROC / str(pid or "self") / "status").read_text().splitlines():
            if line.startswith("Seccomp_filters:"):
                return int(line.partition(":")[2])
    return 0


class Watch:
    """Waits in one thread for the end of any number of processes, and reaps those that are ours.

    `ended` is called with key and exit of each process that ends while it is followed; `tick` about
    once a second while any is followed. Both are called from the thread, and may call back here.
    """

    def __init__(
        self, name: str, ended: Callable[[str, Exit], None], tick: Callable[[], None]
    ) -> None:
        self._name, self._ended, self._tick = name, ended, tick
        self._lock = threading.Lock()
        self._followed: dict[int, tuple[str, Process]] = {}  # by pidfd
        self._epoll = select.epoll()
        self._bell = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._epoll.register(self._bell, select.EPOLLIN)
        self._thread: threading.Thread | None = None
        self._closed = False

    def follow(self, key: str, process: Process) -> None:
        """Take over a process, which may have ended already; one followed already is let go."""
        with self._lock:
            known = (key, process.identity) in (
                (kept, one.identity) for kept, one in self._followed.values()
            )
            if self._closed or known:
                process.close()
                return
            self._followed[process.fileno()] = key, process
            self._epoll.register(process.fileno(), select.EPOLLIN)
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name=self._name, daemon=True)
                self._thread.start()
            os.eventfd_write(self._bell, 1)  # there is something to tick for now

    def follows(self, key: str) -> bool:
        """Return whether a process with this key is followed."""
        with self._lock:
            return any(kept == key for kept, _ in self._followed.values())

    def let_go(self, key: str) -> None:
        """Follow the processes with this key no longer: their ends will not be told."""
        with self._lock:
            for pidfd in [fd for fd, (kept, _) in self._followed.items() if kept == key]:
                self._drop(pidfd)

    def close(self) -> None:
        """Let go of all processes; they go on. May be called twice."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
            for pidfd in list(self._followed):
                self._drop(pidfd)
            os.eventfd_write(self._bell, 1)
            if self._thread is None:
                self._close_files()

    def _drop(self, pidfd: int) -> None:
        _, process = self._followed.pop(pidfd)
        self._epoll.unregister(pidfd)
        process.close()

    def _run(self) -> None:
        while not self._closed:
            for descriptor, _ in self._epoll.poll(_TICK_S if self._followed else None):
                if descriptor == self._bell:
                    with suppress(BlockingIOError):
                        os.eventfd_read(self._bell)
                else:
                    self._tell(descriptor)
            self._call(self._tick)
        with self._lock:  # who closes us rings the bell first
            self._close_files()

    def _tell(self, pidfd: int) -> None:
        with self._lock:
            key, process = self._followed.get(pidfd, ("", None))
            if process is None or not process.ended():
                return  # let go meanwhile; the number may stand for another process by now
            exit_ = process.exit()
            self._drop(pidfd)
        self._call(lambda: self._ended(key, exit_))

    def _call(self, what: Callable[[], None]) -> None:
        try:
            what()
        except Exception:
            log.exception("%s", self._name)

    def _close_files(self) -> None:
        self._epoll.close()
        os.close(self._bell)


def _open(pid: int) -> Process | None:
    try:
        pidfd = os.pidfd_open(pid)
    except ProcessLookupError:
        return None
    try:
        return Process(Identity(pid, _started(pid), _boot()), pidfd)
    except OSError:  # it has ended and was reaped meanwhile
        os.close(pidfd)
        return None


def _started(pid: int) -> int:
    # The name, in brackets, may itself contain blanks and brackets.
    fields = (PROC / str(pid) / "stat").read_text().rpartition(")")[2].split()
    return int(fields[_START_TIME])


@cache
def _boot() -> str:
    return (PROC / "sys/kernel/random/boot_id").read_text().strip()


def _arguments(folder: Path) -> list[str]:
    try:
        return (folder / "cmdline").read_bytes().decode(errors="replace").split("\0")
    except OSError:  # it has ended meanwhile
        return []


def confined(user: int | None, rights: Iterable[str] = ()) -> list[str]:
    """Return what to put before a command so that it has few rights: as `launch` describes.

    Of the capabilities(7), it has `rights` (lower case, without ``cap_``), which take root to give.
    FileNotFoundError names a missing tool.
    """
    kept = ",".join(("-all", *(f"+{right}" for right in rights)))
    as_user = []
    if user is not None:
        as_user = [f"--reuid={user}", f"--regid={user}", "--clear-groups", f"--bounding-set={kept}"]
    return [
        *(tool("prlimit"), "--core=0:0", "--"),
        *(tool("setpriv"), *as_user, "--no-new-privs", f"--inh-caps={kept}"),
        *(f"--ambient-caps={kept}", "--"),
    ]


def tool(name: str) -> str:
    """Return the path of a program of util-linux; FileNotFoundError if it is not installed."""
    path = shutil.which(name)
    if path is None:
        raise FileNotFoundError(2, "not found; it is in the package util-linux", name)
    return path

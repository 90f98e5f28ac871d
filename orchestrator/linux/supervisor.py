"""The parent of one program in a network namespace: a script, started by `supervision.start`.

Only a parent hears how a program ended, and it has to be there then, whether or not edgewake is. So
each program has this one, which keeps what the program prints in a bounded log, ends it when its
namespace loses its name or when asked to (SIGTERM), lets nothing of it live on, and leaves a text
about the end. It imports little: it should start quickly, and stay small.

    supervisor.py TOKEN PLAN    TOKEN tells this process from others; PLAN is `Plan` as JSON
"""

import json
import os
import select
import signal
import sys
import time
from contextlib import suppress

_LOOK_S = 1.0  # how often it looks whether the namespace is still there
_CHUNK = 65536
_NOBODY = 2**27  # from a program's uid to one that no program has: see `processes.own_user`


class Plan:
    """What `supervision.start` wants; paths are absolute."""

    def __init__(self, text: str) -> None:
        data = json.loads(text)
        self.argv: list[str] = data["argv"]
        self.environment: dict[str, str] = data["environment"]
        self.namespace: str = data["namespace"]  # its name's path
        self.inode: int = data["inode"]  # of the namespace that had the name at the start
        self.user: int | None = data["user"]
        self.log: str = data["log"]
        self.log_bytes: int = data["log_bytes"]
        self.end: str = data["end"]
        self.grace_s: float = data["grace_s"]


class Log:
    """A file that is moved to ``.0`` when it is full."""

    def __init__(self, path: str, most: int) -> None:
        self._path, self._most = path, most
        self._open()

    def write(self, data: bytes) -> None:
        """Add to the file."""
        os.write(self._file, data)
        if os.fstat(self._file).st_size > self._most:
            os.close(self._file)
            os.replace(self._path, f"{self._path}.0")  # noqa: PTH105 - pathlib takes long to import
            self._open()

    def _open(self) -> None:
        self._file = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o640)


class Supervisor:
    """Runs a program to its end."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._log = Log(plan.log, plan.log_bytes)
        self._kill_at: float | None = None
        self._bell, ringer = os.pipe()
        for end in (self._bell, ringer):
            os.set_blocking(end, False)
        signal.set_wakeup_fd(ringer, warn_on_full_buffer=False)
        signal.signal(signal.SIGTERM, lambda *_: None)
        self._said, saying = os.pipe()
        os.set_blocking(self._said, False)
        self._program = os.posix_spawn(
            plan.argv[0],
            plan.argv,
            plan.environment,
            file_actions=[(os.POSIX_SPAWN_DUP2, saying, 1), (os.POSIX_SPAWN_DUP2, saying, 2)],
            setpgroup=0,
            setsigdef=[signal.SIGPIPE, signal.SIGXFSZ],  # which Python ignores
        )
        os.close(saying)

    def run(self) -> None:
        """Tell the program's process id, and come back after its end."""
        os.write(1, f"{self._program}\n".encode())
        os.close(1)  # nobody reads on
        pidfd = os.pidfd_open(self._program)
        poll = select.poll()
        for file in (self._bell, self._said, pidfd):
            poll.register(file, select.POLLIN)
        ready: set[int] = set()
        while pidfd not in ready:
            ready = {file for file, _ in poll.poll(self._patience_s() * 1000)}
            if self._said in ready and not self._copy():
                poll.unregister(self._said)
            self._end_if_it_is_time(asked=self._bell in ready)
        self._finish()

    def _patience_s(self) -> float:
        if self._kill_at is None:
            return _LOOK_S
        return max(0.0, min(_LOOK_S, self._kill_at - time.monotonic()))

    def _end_if_it_is_time(self, *, asked: bool) -> None:
        if asked:
            with suppress(BlockingIOError):
                os.read(self._bell, _CHUNK)
        if self._kill_at is None and (asked or not self._namespace_is_there()):
            self._kill_at = time.monotonic() + self._plan.grace_s
            for each in (signal.SIGTERM, signal.SIGCONT):
                with suppress(ProcessLookupError):
                    os.killpg(self._program, each)
        elif self._kill_at is not None and time.monotonic() >= self._kill_at:
            self._kill_all()
            self._kill_at += _LOOK_S

    def _namespace_is_there(self) -> bool:
        with suppress(OSError):
            return os.stat(self._plan.namespace).st_ino == self._plan.inode  # noqa: PTH116 - as above
        return False

    def _kill_all(self) -> None:
        """Kill whatever runs as the program's user, however it left its parents (kill(2), -1)."""
        if self._plan.user is None:
            with suppress(ProcessLookupError):
                os.killpg(self._program, signal.SIGKILL)
            return
        killer = os.fork()
        if killer == 0:
            try:
                # It may signal that user, who may not signal it back (kill(2): the sender's real or
                # effective uid is compared with the real and saved one of whom it signals).
                nobody = self._plan.user + _NOBODY
                os.setresuid(nobody, self._plan.user, nobody)
                os.kill(-1, signal.SIGKILL)
            except OSError:
                pass  # there is nobody
            finally:
                os._exit(0)
        os.waitpid(killer, 0)

    def _copy(self) -> bool:
        """Move what was printed to the log; False when no more can come."""
        with suppress(BlockingIOError):
            data = os.read(self._said, _CHUNK)
            if data:
                self._log.write(data)
            return bool(data)
        return True

    def _finish(self) -> None:
        _, status, usage = os.wait4(self._program, 0)
        self._kill_all()
        with suppress(BlockingIOError):
            while data := os.read(self._said, _CHUNK):
                self._log.write(data)
        code = os.waitstatus_to_exitcode(status)
        text = json.dumps(
            {
                "code": code if code >= 0 else None,
                "signal": -code if code < 0 else None,
                "cpu_s": usage.ru_utime + usage.ru_stime,
                "at": time.time(),
            }
        )
        draft = f"{self._plan.end}.new"
        with open(draft, "w") as file:  # noqa: PTH123 - as above
            file.write(text)
        os.replace(draft, self._plan.end)  # noqa: PTH105 - as above


if __name__ == "__main__":
    Supervisor(Plan(sys.argv[2])).run()

"""Programs inside the namespaces of routers and clients' stubs: the `Apps` seam on Linux.

Each program runs as a user of its own without an account, in a session of its own, with the rights
it asks for and no others, below a supervisor that keeps its console bounded and tells how it ended
(`orchestrator.linux.supervision`). It goes on when edgewake ends, and is found again by a record in
`folder`. A record is written before a program is started, completed once it runs, and removed last,
so whatever a crash leaves has a record. Which namespace belongs to a router is for others to say.
"""

import json
import secrets
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import asdict, dataclass, replace
from errno import EPERM
from pathlib import Path
from typing import Any

from orchestrator.errors import CannotNetwork
from orchestrator.linux import namespaces, supervision
from orchestrator.linux.consoles import ConsoleLogs
from orchestrator.linux.processes import Identity, Process, own_user, processes_told
from orchestrator.linux.records import Records
from orchestrator.linux.supervision import Program, Usage
from orchestrator.network import App, AppState

_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_INPUT_MODE = 0o600  # it is opened before the program is another user
_HINTS: dict[type[OSError], str] = {
    PermissionError: "run edgewake as root",
    supervision.CannotRun: "its console says why",
}


@dataclass(frozen=True, slots=True)
class _Record:
    """All that there is of a program, or may be; `process` is its supervisor once it runs."""

    app: App
    user: int
    token: str
    started_at: float
    inode: int  # of its namespace
    process: Identity | None = None
    pid: int = 0


class NetnsApps:
    """The programs in one network's routers on this machine; see `base.Apps` for the contract.

    `owner` (a text that no other network on this machine has) tells our programs' users from
    others'. Records and consoles are in `folder`. `namespace_of` returns the name of the namespace
    of a router or stub, which need not exist.
    """

    def __init__(self, owner: str, *, folder: Path, namespace_of: Callable[[str], str]) -> None:
        self._owner = owner
        self._namespace_of = namespace_of
        self._records = Records(folder)
        self._consoles = ConsoleLogs(folder / "console")

    def start(self, app: App) -> AppState:
        """Start a program, and return when it runs; one that runs already is an error."""
        key = _key(app.router, app.name)
        with self._translated(key, "started"), self._records.turn(key), ExitStack() as undo:
            inode = self._inode(app)
            self._make_way(key, inode)
            record = self._record(app, inode)
            undo.callback(self._clear, key)
            self._records.write(key, _text(record))
            supervisor, pid = supervision.start(self._program(key, record))
            with closing(supervisor):
                record = replace(record, process=supervisor.identity, pid=pid)
            self._records.write(key, _text(record))
            undo.pop_all()
            return self._state(key, record, Usage())

    def stop(self, router: str, name: str) -> AppState:
        """End a program (SIGTERM, then SIGKILL) and return how it ended."""
        key = _key(router, name)
        with self._translated(key, "stopped"), self._records.turn(key):
            record = self._read(key)
            if record is None:
                raise CannotNetwork(
                    f"{key}: there is no such program", hint="`edgewake net app list` has them all"
                )
            self._end(key, record)
            return self._state(key, record, Usage())

    def remove(self, router: str, name: str) -> None:
        """Stop a program and forget it; one that is not there is no error."""
        key = _key(router, name)
        with self._translated(key, "removed"), self._records.turn(key):
            record = self._read(key)
            if record is not None:
                self._end(key, record)
                self._clear(key)
                self._consoles.forget(key)

    def all(self) -> tuple[AppState, ...]:
        """Return every program that was started and not removed."""
        with self._translated("programs", "listed"):
            records = {
                key: record
                for key in self._records.names()
                if (record := self._read(key)) is not None
            }
            used = supervision.usage({record.user for record in records.values()})
            return tuple(
                self._state(key, record, used[record.user]) for key, record in records.items()
            )

    def console(self, router: str, name: str) -> bytes:
        """Return the last 64 KiB of what a program printed; empty if unknown."""
        key = _key(router, name)
        with self._translated(key, "read"):
            return self._consoles.tail(key)

    # --- inside -----------------------------------------------------------------------------------

    def _inode(self, app: App) -> int:
        inode = namespaces.inode(self._namespace_of(app.router))
        if not inode:
            raise CannotNetwork(
                f"{app.router}: there is no such router or clients' stub on this machine",
                hint="start the network first",
            )
        return inode

    def _make_way(self, key: str, inode: int) -> None:
        """Clear what is left of a program of that name, unless it runs."""
        record = self._read(key)
        if record is None:
            return
        supervisor = _supervisor(record)
        if supervisor is not None:
            supervisor.close()
            ended = supervision.end_of(self._records.path(key, ".end")) is not None
            if record.inode == inode and not ended:
                raise CannotNetwork(f"{key} runs already", hint="stop it first")
            self._end(key, record)  # it has just told the end, or is of an earlier router
        self._clear(key)

    def _record(self, app: App, inode: int) -> _Record:
        user = own_user(f"edgewake app {self._owner} {app.router} {app.name}")
        if user is None:
            raise PermissionError(EPERM, "this takes root")
        return _Record(app, user, secrets.token_hex(16), time.time(), inode)

    def _program(self, key: str, record: _Record) -> Program:
        app = record.app
        path = shutil.which(app.argv[0], path=dict(app.environment).get("PATH", _PATH))
        if path is None:
            raise CannotNetwork(
                f"{key}: there is no program {app.argv[0]!r} on this machine",
                hint="install it, or give its whole path",
            )
        given = None
        if app.input:
            given = self._records.path(key, ".in")
            given.unlink(missing_ok=True)
            given.touch(_INPUT_MODE)
            given.write_text(app.input)
        return Program(
            argv=(path, *app.argv[1:]),
            environment={"PATH": _PATH, **dict(app.environment)},
            namespace=self._namespace_of(app.router),
            user=record.user,
            rights=app.rights,
            token=record.token,
            log=self._consoles.fresh(key).absolute(),
            end=self._records.path(key, ".end"),
            input=given,
        )

    def _state(self, key: str, record: _Record, used: Usage) -> AppState:
        supervisor = _supervisor(record)
        if supervisor is not None:
            supervisor.close()
        ended = supervision.end_of(self._records.path(key, ".end"))
        running = supervisor is not None and ended is None
        cpu_s = ended.cpu_s if ended else used.cpu_s
        return AppState(
            record.app,
            running=running,
            pid=record.pid if running else 0,
            started_at=record.started_at,
            exit_code=ended.code if ended else None,
            signal=ended.signal if ended else None,
            cpu_s=cpu_s,
            memory_mib=used.memory_mib if running else 0.0,
        )

    def _end(self, key: str, record: _Record) -> None:
        supervisor = _supervisor(record)
        if supervisor is None:
            return
        with closing(supervisor):
            if not supervision.end(supervisor):
                raise CannotNetwork(
                    f"{key}: its supervisor (process {supervisor.identity.pid}) does not end",
                    hint="look what that process waits for",
                )

    def _clear(self, key: str) -> None:
        for suffix in (".end", ".end.new", ".in"):
            self._records.path(key, suffix).unlink(missing_ok=True)
        self._records.remove(key)

    def _read(self, key: str) -> _Record | None:
        text = self._records.read(key)
        return None if text is None else _parsed(text)

    @contextmanager
    def _translated(self, what: str, verb: str) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            hint = next((hint for kind, hint in _HINTS.items() if isinstance(error, kind)), "")
            said = self._consoles.tail(what).decode(errors="replace").strip()
            last = (
                said.splitlines()[-1] if isinstance(error, supervision.CannotRun) and said else ""
            )
            words = last or error.strerror or str(error)
            where = f" ({error.filename})" if error.filename else ""
            raise CannotNetwork(f"{what} cannot be {verb}: {words}{where}", hint=hint) from error
        except (ValueError, KeyError, TypeError) as error:
            raise CannotNetwork(
                f"{what}: a record in {self._records.folder} is none of ours: {error}",
                hint="remove that file",
            ) from error


def _key(router: str, name: str) -> str:
    return f"{router}/{name}"


def _supervisor(record: _Record) -> Process | None:
    """Return the supervisor of a program if it runs; one whose identity a crash lost is found."""
    if record.process is not None:
        return supervision.running(record.process)
    found = list(processes_told(record.token))
    for process in found[1:]:
        process.close()
    return found[0] if found else None


def _text(record: _Record) -> str:
    return json.dumps(asdict(record))


def _parsed(text: str) -> _Record:
    data: dict[str, Any] = json.loads(text)
    app = data["app"]
    return _Record(
        **{
            **data,
            "app": App(
                **{
                    **app,
                    "argv": tuple(app["argv"]),
                    "environment": tuple((name, value) for name, value in app["environment"]),
                    "rights": tuple(app["rights"]),
                }
            ),
            "process": Identity(**data["process"]) if data["process"] else None,
        }
    )

"""Routing daemons in routers: one BIRD 2 in each, for networks with `routing: ospf`.

`OspfRouters` stands before a back end whose routers are namespaces, and adds to its `set` that each
router has a daemon with the right configuration, or none. A daemon goes on when edgewake ends. It
is found again by its arguments, which name a file that no other owner's has; what a crash leaves
has its configuration in `folder`. Text is `ospf`'s.
"""

import hashlib
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path

from orchestrator.errors import CannotNetwork
from orchestrator.linux import namespaces
from orchestrator.linux.processes import PROC, Process, processes_told
from orchestrator.network import (
    Found,
    LinkEngine,
    Network,
    PortCounters,
    Routing,
    VirtualRouter,
)
from orchestrator.routers.base import Done, Progress, Routers
from orchestrator.routers.ospf import bird_config, costs_of

FOLDER = Path("/run/edgewake/ospf")  # short: a socket's path has 107 bytes at most (unix(7))

_USER = "bird"  # of Debian's package; it keeps only the rights that routes and packets take
_COMMAND_S = 10.0  # for what takes milliseconds
_GRACE_S, _PATIENCE_S = 3.0, 5.0
_INSTALL = "apt install bird2, or use `routing: static`"
_WHERE = f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"


class OspfRouters:
    """See `base.Routers`; what is said there of errors in the middle holds for daemons, too."""

    def __init__(self, inner: Routers, daemons: "Daemons", machine: str = "") -> None:
        self._inner = inner
        self._daemons = daemons
        self._machine = machine

    def set(self, wanted: Network, progress: Progress | None = None) -> Done:
        """See `base.Routers.set`. Daemons end before their namespaces, which would live on."""
        here = {}
        if wanted.routing is Routing.OSPF:
            here = {each.name: each for each in wanted.routers if each.machine == self._machine}
            check(wanted)
        ended = [name for name in self._daemons.names() if name not in here]
        for name in ended:
            self._daemons.end(name)
        try:
            done = self._inner.set(wanted, progress)
        except BaseException:
            for name in ended:
                self._daemons.start_again(name)
            raise
        for name in ended:
            self._daemons.forget(name)
        try:
            for number, router in enumerate(here.values(), 1):
                self._daemons.run(wanted, router)
                if progress:
                    progress("routing daemons", number, len(here))
        except BaseException:
            if here.keys() <= {*done.made}:  # what was there before this call is kept
                self.set(Network(wanted.name))
            raise
        return done

    def found(self) -> Found:
        """See `base.Routers.found`."""
        return self._inner.found()

    def counters(self) -> tuple[PortCounters, ...]:
        """See `base.Routers.counters`."""
        return self._inner.counters()

    def engines(self) -> dict[LinkEngine, str]:
        """See `base.Routers.engines`."""
        return self._inner.engines()

    def close(self) -> None:
        """See `base.Routers.close`; the daemons go on."""
        self._inner.close()


def check(wanted: Network) -> None:
    """Raise CannotNetwork if daemons cannot be had here, or not for this network."""
    costs_of(wanted)
    find_daemon()
    _tool("birdc", _INSTALL)
    _tool("nsenter", "apt install util-linux")


def find_daemon() -> str:
    """Return where the routing daemon is; CannotNetwork if it is not installed."""
    return _tool("bird", _INSTALL)


class Daemons:
    """The daemons of one owner's routers on this machine. Errors are `CannotNetwork`.

    `namespace_of` returns the name of the namespace of a network's router; files are in `folder`.
    """

    def __init__(
        self,
        owner: str,
        namespace_of: Callable[[str, str], str],
        *,
        folder: Path = FOLDER,
        bfd: bool = True,
    ) -> None:
        self._folder = folder / hashlib.sha256(owner.encode()).hexdigest()[:12]
        self._namespace_of = namespace_of
        self._bfd = bfd

    def names(self) -> list[str]:
        """Return the routers that have a daemon, or had one that nobody ended."""
        return sorted(file.stem for file in self._folder.glob("*.conf"))

    def run(self, network: Network, router: VirtualRouter) -> None:
        """Make a router's daemon run with what the network now says."""
        name = router.name
        text = bird_config(network, router, self._file(name, "log"), bfd=self._bfd)
        namespace = self._namespace_of(network.name, name)
        with _translated(name):
            conf, before = self._file(name, "conf"), self._conf(name)
            text = f"# in {namespace}\n{text}"
            if not self._is_right(name, namespace):
                self.end(name)
                self._write(conf, text)
                self._start(name, namespace)
            elif text != before:
                self._write(conf, text)
                self._reconfigure(name)

    def end(self, name: str) -> None:
        """End a router's daemon, and keep its configuration."""
        with _translated(name):
            for process in self._processes(name):
                with closing(process):
                    if not process.end(grace_s=_GRACE_S, patience_s=_PATIENCE_S):
                        raise CannotNetwork(f"router {name}: its routing daemon does not end")

    def forget(self, name: str) -> None:
        """Remove the files of a daemon that has ended."""
        with _translated(name):
            for suffix in ("conf", "ctl", "pid", "log", "log.1"):
                self._file(name, suffix).unlink(missing_ok=True)
            with suppress(OSError):
                self._folder.rmdir()  # the last one closes the door

    def start_again(self, name: str) -> None:
        """Start a daemon that was ended, as it was."""
        namespace = self._conf(name).partition("\n")[0].removeprefix("# in ")
        if namespace in namespaces.names():
            with _translated(name):
                self._start(name, namespace)

    # --- inside -------------------------------------------------------------------------------

    def _file(self, name: str, suffix: str) -> Path:
        return self._folder / f"{name}.{suffix}"

    def _conf(self, name: str) -> str:
        with suppress(FileNotFoundError):
            return self._file(name, "conf").read_text()
        return ""

    def _processes(self, name: str) -> Iterator[Process]:
        return processes_told(str(self._file(name, "pid")))

    def _is_right(self, name: str, namespace: str) -> bool:
        """Return whether the daemon runs in the namespace that has this name now.

        Its own file says which process it is: to look at all of them for each takes long.
        """
        wanted, file = namespaces.inode(namespace), self._file(name, "pid")
        with suppress(OSError, ValueError):
            process = PROC / str(int(file.read_text()))
            told = (process / "cmdline").read_bytes().split(b"\0")
            return bytes(file) in told and (process / "ns" / "net").stat().st_ino == wanted
        return False

    def _write(self, conf: Path, text: str) -> None:
        conf.parent.mkdir(0o755, parents=True, exist_ok=True)
        shutil.chown(conf.parent, _USER, _USER)
        draft = conf.with_suffix(".new")
        draft.write_text(text)
        draft.replace(conf)

    def _start(self, name: str, namespace: str) -> None:
        """Start a daemon; it goes into the background by itself once its configuration is read."""
        paths = (("-c", "conf"), ("-s", "ctl"), ("-P", "pid"))
        options = [word for flag, suffix in paths for word in (flag, str(self._file(name, suffix)))]
        enter = [
            _tool("nsenter", "apt install util-linux"),
            f"--net={namespaces.FOLDER / namespace}",
        ]
        bird = [find_daemon(), *options, "-u", _USER, "-g", _USER]
        _run(name, [*enter, "--", *bird])

    def _reconfigure(self, name: str) -> None:
        """Let a daemon read its configuration again; what stays the same is not disturbed."""
        birdc = [_tool("birdc", _INSTALL), "-s", str(self._file(name, "ctl")), "configure"]
        said = _run(name, birdc)
        if "Reconfigur" not in said:  # done, or in progress
            raise CannotNetwork(f"router {name}: the routing daemon says: {_one_line(said)}")


def _run(name: str, argv: list[str]) -> str:
    try:
        done = subprocess.run(
            argv,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=_COMMAND_S,
            check=True,
        )
    except subprocess.CalledProcessError as error:
        said = _one_line(error.stderr or error.stdout)
        raise CannotNetwork(
            f"router {name}: {argv[-1]}: the routing daemon says: {said}"
        ) from error
    except subprocess.TimeoutExpired as error:
        raise CannotNetwork(f"router {name}: its routing daemon does not answer") from error
    return done.stdout


def _one_line(said: str) -> str:
    return " ".join(said.split())[-500:]


def _tool(name: str, hint: str) -> str:
    path = shutil.which(name, path=_WHERE)
    if path is None:
        raise CannotNetwork(f"`{name}` is not installed, which `routing: ospf` needs", hint=hint)
    return path


@contextmanager
def _translated(name: str) -> Iterator[None]:
    try:
        yield
    except LookupError as error:  # shutil.chown: no such user
        raise CannotNetwork(f"router {name}: {error}", hint=_INSTALL) from error
    except OSError as error:
        raise CannotNetwork(
            f"router {name}: its routing daemon: {error.strerror}: {error.filename or ''}",
            hint="routing daemons take root: run edgewake as root",
        ) from error

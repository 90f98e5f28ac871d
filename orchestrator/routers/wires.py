"""The user-space link: wires between TAP devices, with latency, jitter, loss and bandwidth.

For back ends whose kernel lacks netem. One process per owner holds the open devices and moves the
frames (`wire_process`); it outlives us, is found again, and needs no rights, since the devices are
opened here. It has a socket in `folder`, which only we may enter. The devices are the caller's: it
makes them, persistent, and removes them. While their wire is down, or nobody runs it, they have no
carrier. Methods may be called from any thread, and raise CannotNetwork.
"""

import json
import os
import socket
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict
from errno import EBUSY, EINVAL, EPERM
from pathlib import Path
from typing import Any, TypeVar

from orchestrator.errors import CannotNetwork
from orchestrator.linux import namespaces, taps
from orchestrator.linux.processes import (
    Identity,
    Process,
    launch,
    open_process,
    own_user,
    processes_told,
)
from orchestrator.linux.records import Records
from orchestrator.routers.wire_messages import (
    MESSAGE_BYTES,
    PROTOCOL,
    WIRES_PER_MESSAGE,
    Add,
    Change,
    End,
    Listing,
    Remove,
    Request,
    Traffic,
    Wire,
    WireState,
    parse_answer,
    parse_states,
    request_text,
)

__all__ = ["End", "Traffic", "Wire", "WireState", "Wires"]

_QUEUE = 4_000  # frames the kernel keeps while the process is late: 200 ms at 20,000 packets/s
_PATIENCE_S = 10.0  # for what takes milliseconds unless the machine is in trouble
_START_S = 60.0  # Python, on a machine in which all is emulated
_BUSY_S = 2.0  # a process that was killed lets go of its devices a little later
_POLL_S = 0.01
_FOLDER_MODE, _SOCKET_MODE = 0o700, 0o600
_LOG_TAIL = 500  # characters
_HINTS = {
    EBUSY: "another process has it open",
    EPERM: "run as root, or give edgewake CAP_NET_ADMIN and CAP_SYS_ADMIN",
    EINVAL: "it is no TAP device with a single queue",
}
_ROOT = Path(__file__).parents[2]  # where `orchestrator` is
# Isolated, and without site: the process imports only this package and the standard library.
_START = (
    "import sys; sys.path.insert(0, sys.argv.pop(1)); "
    "from orchestrator.routers.wire_process import main; main()"
)

Item = TypeVar("Item")


class Wires:
    """The wires of one owner on this machine; `folder` is for this alone."""

    def __init__(self, folder: Path, owner: str) -> None:
        self._owner = owner
        self._records = Records(folder)
        self._mark = f"{self._records.folder}:{owner}"

    def set(self, wanted: tuple[Wire, ...]) -> None:
        """Make these be the wires. What stays the same is not touched; a quality changes live.

        An error in the middle takes back the wires that this call made. The process is started if
        there are wires and it does not run, and ends with the last one.
        """
        with self._told(), self._turn():
            if not wanted:
                self._end()
                return
            with self._connected() as server:
                self._change(server, wanted)

    def all(self) -> tuple[WireState, ...]:
        """Return the wires there are, by name, with what went through them; () if none runs."""
        with self._told():
            server = self._connect()
            if server is None:
                return ()
            with server, suppress(ConnectionError):  # it was just ending
                return _states(server)
            return ()

    def process(self) -> int:
        """Return the process id of what moves the frames, 0 if it does not run."""
        with self._told():
            process = self._process()
            if process is None:
                return 0
            with _closing(process):
                return process.identity.pid

    # --- changing -----------------------------------------------------------------------------

    def _change(self, server: socket.socket, wanted: tuple[Wire, ...]) -> None:
        there = {state.wire.name: state for state in _states(server)}
        inodes = {wire.name: _inodes(wire) for wire in wanted}
        stays = {
            wire.name: there[wire.name].wire
            for wire in wanted
            if wire.name in there and _is_same(wire, inodes[wire.name], there[wire.name])
        }
        for names in _portions(sorted(there.keys() - stays.keys())):
            _ask(server, Remove(names))
        added = [(wire, inodes[wire.name]) for wire in wanted if wire.name not in stays]
        with ExitStack() as undo:
            for portion in _portions(added):
                _add(server, portion)
                undo.callback(_ask, server, Remove(tuple(wire.name for wire, _ in portion)))
            changes = [
                (wire.name, wire.quality, wire.up)
                for wire in wanted
                if wire.name in stays and stays[wire.name] != wire
            ]
            for part in _portions(changes):
                _ask(server, Change(part))
            undo.pop_all()

    # --- the process --------------------------------------------------------------------------

    @contextmanager
    def _connected(self) -> Iterator[socket.socket]:
        """Yield a connection to the process, started if need be; of our protocol."""
        server = self._connect()
        if server is not None:
            with server:
                if _protocol(server) == PROTOCOL:
                    yield server
                    return
        with self._start() as server:
            yield server

    def _connect(self) -> socket.socket | None:
        if not self._records.folder.is_dir():
            return None
        server = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        server.settimeout(_PATIENCE_S)
        try:
            with self._socket_path() as path:
                server.connect(path)
        except (FileNotFoundError, ConnectionRefusedError):
            server.close()
            return None
        except BaseException:
            server.close()
            raise
        return server

    def _start(self) -> socket.socket:
        self._end()
        output = self._records.path(self._owner, ".log")
        output.unlink(missing_ok=True)
        user = own_user(f"edgewake wires {self._mark}")
        become = [] if user is None else ["--user", str(user)]
        argv = [sys.executable, "-I", "-S", "-c", _START, str(_ROOT), "--mark", self._mark, *become]
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listener:
            with self._socket_path() as path:
                listener.bind(path)
                Path(path).chmod(_SOCKET_MODE)
            listener.listen()
            # It becomes that user itself: who is not root may be unable to read the program.
            process = launch(argv, output=output, user=None, stdin=listener.fileno())
        with _closing(process):
            self._records.write(self._owner, json.dumps(asdict(process.identity)))
            with ExitStack() as undo:
                try:
                    server = undo.enter_context(self._reached())
                    server.settimeout(_START_S)
                    _states(server)
                except ConnectionError as error:
                    process.end(grace_s=_BUSY_S, patience_s=_PATIENCE_S)
                    raise CannotNetwork(
                        f"the process for slow links ended at once: {_tail(output)}",
                        hint=f"its messages are in {output}",
                    ) from error
                server.settimeout(_PATIENCE_S)
                undo.pop_all()
        return server

    def _reached(self) -> socket.socket:
        server = self._connect()
        if server is None:
            raise ConnectionRefusedError
        return server

    def _end(self) -> None:
        """End the process if there is one, and what it would be found by."""
        process = self._process()
        if process is not None:
            with _closing(process):
                if not process.end(grace_s=_BUSY_S, patience_s=_PATIENCE_S):
                    raise CannotNetwork(
                        f"process {process.identity.pid}, which makes links slow, does not end",
                        hint="the machine is in trouble: see `dmesg`",
                    )
        self._records.path(self._owner, ".sock").unlink(missing_ok=True)
        self._records.remove(self._owner)

    def _process(self) -> Process | None:
        recorded = self._records.read(self._owner)
        if recorded is not None:
            with suppress(ValueError, TypeError):
                process = open_process(Identity(**json.loads(recorded)))
                if process is not None and not process.ended():
                    return process
                if process is not None:
                    process.exit()
                    process.close()
        # One that was started just before a crash is in no record.
        return next(processes_told(self._mark), None)

    # --- small things -------------------------------------------------------------------------

    @contextmanager
    def _turn(self) -> Iterator[None]:
        self._records.folder.mkdir(_FOLDER_MODE, parents=True, exist_ok=True)
        self._records.folder.chmod(_FOLDER_MODE)
        with self._records.turn(self._owner):
            yield

    @contextmanager
    def _socket_path(self) -> Iterator[str]:
        """Yield a path of the socket that is short enough for one (unix(7): 107 characters)."""
        path = self._records.path(self._owner, ".sock")
        folder = os.open(path.parent, os.O_PATH | os.O_DIRECTORY)
        try:
            yield f"/proc/self/fd/{folder}/{path.name}"
        finally:
            os.close(folder)

    @contextmanager
    def _told(self) -> Iterator[None]:
        """Turn errors of the system, and what a broken process says, into ours."""
        try:
            yield
        except TimeoutError as error:
            raise CannotNetwork(
                "the process for slow links does not answer",
                hint=f"end process {self.process()}; it is started anew with the next change",
            ) from error
        except (OSError, ValueError) as error:
            raise CannotNetwork(f"slow links: {error}") from error


# --- asking ---------------------------------------------------------------------------------------


def _ask(server: socket.socket, request: Request, files: Sequence[int] = ()) -> dict[str, Any]:
    text = request_text(request)
    if files:
        socket.send_fds(server, [text], files)
    else:
        server.sendall(text)
    told = server.recv(MESSAGE_BYTES)
    if not told:
        raise ConnectionResetError(104, "the process for slow links has ended")
    answer = parse_answer(told)
    if "error" in answer:
        raise CannotNetwork(f"the process for slow links refuses: {answer['error']}")
    return answer


def _protocol(server: socket.socket) -> object:
    """Return which one a process speaks; None if it is just ending."""
    with suppress(ConnectionError):
        return _ask(server, Listing()).get("protocol")
    return None


def _states(server: socket.socket) -> tuple[WireState, ...]:
    found: list[WireState] = []
    following: int | None = 0
    while following is not None:
        states, following = parse_states(_ask(server, Listing(following)))
        found.extend(states)
    return tuple(found)


def _add(server: socket.socket, wires: Sequence[tuple[Wire, tuple[int, int]]]) -> None:
    """Open the devices of wires, and hand them over."""
    with ExitStack() as files:
        opened = []
        for wire, _ in wires:
            for end in (wire.a, wire.b):
                tap = _opened(wire, end)
                files.callback(os.close, tap)
                opened.append(tap)
        _ask(server, Add(tuple(wires)), opened)


def _opened(wire: Wire, end: End) -> int:
    deadline = time.monotonic() + _BUSY_S
    while True:
        try:
            return namespaces.inside(end.namespace, lambda: taps.attach(end.device, _QUEUE))
        except OSError as error:
            if error.errno != EBUSY or time.monotonic() > deadline:
                raise CannotNetwork(
                    f"link {wire.name}: device {end.device} in namespace {end.namespace} "
                    f"cannot be opened: {error.strerror}",
                    hint=_HINTS.get(error.errno or 0, ""),
                ) from error
        time.sleep(_POLL_S)


# --- the pure part --------------------------------------------------------------------------------


def _is_same(wanted: Wire, inodes: tuple[int, int], there: WireState) -> bool:
    """Whether a wire that is there needs no more than another quality."""
    ends = (wanted.a, wanted.b) == (there.wire.a, there.wire.b)
    return ends and there.alive and there.namespaces == inodes


def _inodes(wire: Wire) -> tuple[int, int]:
    return namespaces.inode(wire.a.namespace), namespaces.inode(wire.b.namespace)


def _portions(items: Sequence[Item]) -> Iterator[tuple[Item, ...]]:
    for start in range(0, len(items), WIRES_PER_MESSAGE):
        yield tuple(items[start : start + WIRES_PER_MESSAGE])


def _tail(file: Path) -> str:
    with suppress(OSError):
        return file.read_text(errors="replace")[-_LOG_TAIL:].strip() or "it said nothing"
    return "it said nothing"


@contextmanager
def _closing(process: Process) -> Iterator[None]:
    try:
        yield
    finally:
        process.close()

"""Network namespaces of this machine, by name, as ``ip netns`` knows them.

For back ends whose nodes are namespaces. Nothing is entered for longer than a call: what has to be
done inside is done by a thread of its own, which ends with it, so that no other thread of ours
ever finds itself in another namespace. Decides nothing, and removes what it is told to: who calls
knows what is ours. Every OSError raised names the namespace. Needs CAP_SYS_ADMIN. Linux.
"""

import fcntl
import os
import socket
import stat
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from errno import EINVAL, ENOENT
from pathlib import Path
from typing import Any, TypeVar

from orchestrator.linux import libc

FOLDER = Path("/run/netns")  # ip-netns(8)

_MODE = 0o444  # iproute2 makes its files with 0

_NEW_NET = 0x40000000  # linux/sched.h CLONE_NEWNET
_BIND, _DETACH = 0x1000, 2  # linux/mount.h MS_BIND; umount2(2) MNT_DETACH
_SHARED_TREE = 0x4000 | 1 << 20  # MS_REC | MS_SHARED

Result = TypeVar("Result")


def make(name: str, prepare: Callable[[], None] = lambda: None) -> None:
    """Make a namespace, and call `prepare` inside before it can be found by its name.

    Raises FileExistsError if there is one of that name already; after any error nothing is left.
    """
    _ensure_folder()
    path = FOLDER / name

    def enter_new() -> None:
        libc.call("unshare", name, _NEW_NET)
        prepare()
        inside = f"/proc/self/task/{threading.get_native_id()}/ns/net"
        libc.call("mount", name, inside.encode(), bytes(path), b"none", _BIND, None)

    with _turn():
        if _is_left(path):
            path.unlink()
        path.touch(_MODE, exist_ok=False)
        try:
            _in_thread(enter_new)
        except BaseException:
            path.unlink(missing_ok=True)
            raise


def sweep(prefix: str) -> None:
    """Remove names without a namespace, which one of us leaves who is killed while making it."""
    with suppress(FileNotFoundError), _turn():
        for path in FOLDER.glob(f"{prefix}*"):
            if _is_left(path):
                path.unlink()


def remove(name: str) -> None:
    """Take away a namespace's name; it ends with its last process. No such name is no error."""
    path = FOLDER / name
    try:
        libc.call("umount2", name, bytes(path), _DETACH)
    except OSError as error:
        if error.errno not in (ENOENT, EINVAL):  # EINVAL: a name that a crash left without one
            raise
    path.unlink(missing_ok=True)


def names() -> tuple[str, ...]:
    """Return the names of all namespaces that are whole."""
    with suppress(FileNotFoundError):
        return tuple(sorted(path.name for path in FOLDER.iterdir() if os.path.ismount(path)))
    return ()


def inode(name: str) -> int:
    """Return what tells a namespace from all others that there are now; 0 if there is none."""
    with suppress(OSError):
        return (FOLDER / name).stat().st_ino
    return 0


def inside(name: str, work: Callable[[], Result]) -> Result:
    """Do something inside a namespace, in a thread that ends with it; return its result."""

    def enter() -> Result:
        with (FOLDER / name).open("rb") as file:
            libc.call("setns", name, file.fileno(), _NEW_NET)
        return work()

    return _in_thread(enter)


def passing(work: Callable[[], Result]) -> Result:
    """Do something inside a new namespace without a name, which ends with it; return its result."""

    def enter_new() -> Result:
        libc.call("unshare", "a passing namespace", _NEW_NET)
        return work()

    return _in_thread(enter_new)


@contextmanager
def netlink(name: str) -> Iterator[Any]:
    """Yield a pyroute2 `IPRoute` that speaks with the kernel inside a namespace.

    For the thread that asked for it. (An `IPRoute` that opens its own socket does so again in each
    thread, in whichever namespace that is.)
    """
    from pyroute2 import IPRoute  # noqa: PLC0415 - 0.2 s, for those only who need it

    held = inside(name, lambda: socket.socket(socket.AF_NETLINK, socket.SOCK_DGRAM, 0))
    with held:
        held.bind((0, 0))
        speaker = IPRoute(use_socket=held)
        try:
            yield speaker
        finally:
            speaker.close()


def _ensure_folder() -> None:
    """Make the folder of names as ``ip netns`` does: what is mounted in it is seen everywhere."""
    mounts = Path("/proc/self/mountinfo").read_text().splitlines()
    if any(line.split()[4] == str(FOLDER) for line in mounts):  # proc(5): the mount point
        return
    FOLDER.mkdir(0o755, parents=True, exist_ok=True)
    where = bytes(FOLDER)
    libc.call("mount", str(FOLDER), where, where, b"none", _BIND, None)
    libc.call("mount", str(FOLDER), b"", where, b"none", _SHARED_TREE, None)


def _is_left(path: Path) -> bool:
    """Return whether a name was given by `make`, which had no time for more; in our turn."""
    with suppress(FileNotFoundError):
        mode = stat.S_IMODE(path.stat().st_mode)  # less the umask
        return not os.path.ismount(path) and mode != 0 and not mode & ~_MODE
    return False


@contextmanager
def _turn() -> Iterator[None]:
    """Keep others who make or sweep out of this block."""
    folder = os.open(FOLDER, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(folder, fcntl.LOCK_EX)
        yield
    finally:
        os.close(folder)


def _in_thread(work: Callable[[], Result]) -> Result:
    results: list[Result] = []
    errors: list[BaseException] = []

    def run() -> None:
        try:
            results.append(work())
        except BaseException as error:  # noqa: BLE001 - raised again where it was asked for
            errors.append(error)

    thread = threading.Thread(target=run, name="namespace")
    thread.start()
    thread.join()
    if errors:
        raise errors[0]
    return results[0]

"""Starts a program in a world of its own: network, files, processes, and no rights.

For back ends whose guests are programs. There is no launcher, which would cost milliseconds: a
thread of ours enters new namespaces (they belong to the thread alone, unshare(2)), builds the root
folder there, gives up what the program must not have, starts it, and ends. What the program finds:

- the network namespace that is named, and new ones of mounts, IPC, host name and processes;
- the files of `tree`, read-only, without devices and set-user-ID; /tmp, /run and /dev/shm of its
  own in memory, bounded; a /dev with five devices; /proc and /sys of its own namespaces;
- a user and group of its own, no capability in any set, no new privileges, and, unless switched
  off, the filter of `linux.seccomp`; no core dumps, if we have CAP_SYS_RESOURCE.

Process 1 in there is not the program but a keeper that does nothing: it reaps orphans, and whoever
kills it ends all there is. It has no filter, so it is another user, whose memory the program cannot
write to. What is mounted outside later is not seen in there: nobody made it read-only. The thread
sees another root folder for a moment, so nothing must be imported or opened by name there that is
not meant to come from it. Linux 5.12 or later, as root.
"""

import os
import platform
import resource
import shutil
import signal
import socket
import struct
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from errno import EIO
from pathlib import Path
from stat import S_IFREG, S_ISDIR, S_ISLNK, S_ISREG

from orchestrator.linux import capabilities, libc, namespaces, seccomp
from orchestrator.linux.processes import (
    PROC,
    Process,
    adopted,
    leave_session_keyring,
    processes_where,
)

OWN_FOLDERS = ("tmp", "run", "proc", "dev", "sys")  # what of a tree's top is never seen

_ROOT = Path("/tmp")  # noqa: S108 - where the new root is built: no tree's own /tmp is part of it
_NEW = 0x20000 | 0x4000000 | 0x8000000 | 0x20000000  # linux/sched.h: NEWNS, NEWUTS, NEWIPC, NEWPID
# linux/mount.h, umount2(2)
_READ_ONLY, _NO_SETUID, _NO_DEVICES, _NO_EXEC, _REMOUNT, _BIND = 1, 2, 4, 8, 0x20, 0x1000
_RECURSIVE, _PRIVATE, _SLAVE, _DETACH = 0x4000, 1 << 18, 1 << 19, 2
_SAFE = _NO_SETUID | _NO_DEVICES
_SET_ATTRIBUTES = 442  # mount_setattr(2), the same on every architecture
_AT_FDCWD, _AT_RECURSIVE = -100, 0x8000  # linux/fcntl.h
_ATTRIBUTES = struct.Struct("=QQQQ")  # struct mount_attr: set, clear, propagation, userns_fd
_ATTRIBUTES_OF_TREES = 1 | 2 | 4  # MOUNT_ATTR_RDONLY, _NOSUID, _NODEV
_SET_DUMPABLE = 4  # linux/prctl.h
# setgroups(2), setresgid(2), setresuid(2): asm/unistd_64.h, asm-generic/unistd.h
_IDENTITY_CALLS = {"x86_64": (116, 119, 117)}
_GENERIC_IDENTITY_CALLS = (159, 149, 147)
_KEEPERS = 2**27  # from a program's uid to its keeper's: beyond those of `processes.own_user`
_DEVICES = ("full", "null", "random", "urandom", "zero")
_SHORTCUTS = {"fd": "", "stdin": "/0", "stdout": "/1", "stderr": "/2"}
_SMALL = "size=1m"
_PATIENCE_S, _POLL_S = 10.0, 0.0002
_HOST_NAME_MAX = 64  # sethostname(2)


@dataclass(frozen=True, slots=True)
class Sandbox:
    """What surrounds a program.

    `namespace` is the name of a network namespace; `user` the uid and gid; `scratch_bytes` what
    /tmp and /dev/shm may hold each; `processes` how many the user may have, keeper included (with
    CAP_SYS_RESOURCE only); `cpus` the processors it may run on, all if empty. `texts` are paths and
    what is found there in place of the tree's own files, where it has some.
    """

    namespace: str
    tree: Path
    user: int
    host_name: str
    scratch_bytes: int
    processes: int
    filtered: bool = True
    cpus: tuple[int, ...] = ()
    texts: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class Command:
    """A program: its arguments, the path in the sandbox first, and its whole environment."""

    argv: Sequence[str]
    environment: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Started:
    """A program and its keeper, both children of ours. Whoever has them closes them."""

    keeper: Process
    program: Process

    def end(self) -> None:
        """Kill all there is, and let go of it."""
        for process in (self.keeper, self.program):
            process.send(signal.SIGKILL)
        for process in (self.program, self.keeper):  # who ends after all others are reaped
            if process.ended(_PATIENCE_S):
                process.exit()
            process.close()


def start(sandbox: Sandbox, command: Command, output: Path) -> Started:
    """Start a program, appending what it prints to `output`; return when it has begun to run.

    After an error, an OSError that names what is missing, nothing is left.
    """
    children: list[subprocess.Popen[bytes]] = []
    tools = _Tools.found(sandbox.user)
    with output.open("ab") as log, Path(os.devnull).open("rb") as nothing:
        files = _Files(nothing.fileno(), log.fileno())

        def inside() -> None:
            _start(sandbox, command, tools, files, children)

        try:
            namespaces.inside(sandbox.namespace, inside)
            keeper, program = map(adopted, children)
        except BaseException:
            for child in children:  # the keeper first, which ends the others
                child.kill()
                child.wait()
            raise
        finally:
            # as before the thread's change
            libc.call("prctl", "dumpable", _SET_DUMPABLE, 1, 0, 0, 0)
    _limit(program.identity.pid, sandbox.processes)
    return Started(keeper, program)


def strays(namespace: str) -> Iterator[Process]:
    """Yield the processes that `start` left in a network namespace, if it was cut short there.

    They have process numbers of their own there, unlike who looks into a namespace from outside.
    Whoever gets a process closes it.
    """
    with suppress(FileNotFoundError):
        network = _identity(namespaces.FOLDER / namespace)
        ours = _identity(PROC / "self/ns/pid")

        def stray(folder: Path) -> bool:
            try:
                there = _identity(folder / "ns/net") == network
                return there and _identity(folder / "ns/pid") != ours
            except OSError:  # it has ended
                return False

        yield from processes_where(stray)


# --- in the thread --------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Tools:
    keeper: list[str]
    mount: list[str]

    @classmethod
    def found(cls, user: int) -> "_Tools":
        """Look for them here: the sandbox may have none. FileNotFoundError names a missing one."""
        no_rights = ["--clear-groups", "--no-new-privs", "--inh-caps=-all", "--bounding-set=-all"]
        own = user + _KEEPERS
        keeper = [
            *(_tool("setpriv", "util-linux"), f"--reuid={own}", f"--regid={own}", *no_rights),
            # With its signal ignored, the end of a child leaves no zombie (sigaction(2), SIGCHLD).
            *(_tool("env", "coreutils"), "--ignore-signal=CHLD", _tool("sleep", "coreutils")),
        ]
        # Only a process of the sandbox can mount its /proc, and no thread of ours is one.
        options = ["-n", "-t", "proc", "-o", "nosuid,nodev,noexec", "proc", f"{_ROOT}/proc"]
        return cls([*keeper, "infinity"], [_tool("mount", "mount"), *options])


@dataclass(frozen=True, slots=True)
class _Files:
    nothing: int
    log: int


def _start(
    sandbox: Sandbox,
    command: Command,
    tools: _Tools,
    files: _Files,
    children: "list[subprocess.Popen[bytes]]",
) -> None:
    capabilities.gain_none()
    leave_session_keyring()
    libc.call("unshare", "new namespaces", _NEW)
    _mount("", Path("/"), flags=_RECURSIVE | _SLAVE)  # nothing mounted in here is seen outside
    socket.sethostname(sandbox.host_name[:_HOST_NAME_MAX])
    if sandbox.cpus:
        os.sched_setaffinity(0, sandbox.cpus)
    children.append(_child(tools.keeper, {}, _Files(files.nothing, files.nothing)))
    _build_root(sandbox)
    _run(tools.mount)
    _await_keeper(children[0])
    _enter_root()
    _show_texts(sandbox.texts)
    capabilities.bound_none()
    if sandbox.filtered:
        seccomp.confine_thread()
    _become(sandbox.user)
    children.append(_child(command.argv, command.environment, files))


def _await_keeper(keeper: "subprocess.Popen[bytes]") -> None:
    """Wait until the keeper sleeps, and so needs nothing more of the old root: it moves, too."""
    deadline = time.monotonic() + _PATIENCE_S
    stat = PROC / str(keeper.pid) / "stat"
    while not stat.read_text().partition("(sleep) ")[2].startswith("S"):
        if keeper.poll() is not None or time.monotonic() > deadline:
            raise OSError(EIO, "the keeper of its processes does not start", "sleep")
        time.sleep(_POLL_S)


def _build_root(sandbox: Sandbox) -> None:
    tree = os.open(sandbox.tree, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        _mount("tmpfs", _ROOT, "tmpfs", _SAFE, f"mode=755,{_SMALL}")
        with os.scandir(tree) as entries:
            for entry in entries:
                if entry.name not in OWN_FOLDERS:
                    _show(tree, entry.name)
    finally:
        os.close(tree)
    for name in OWN_FOLDERS:
        (_ROOT / name).mkdir()
    _make_safe(_ROOT)
    scratch = f"mode=1777,size={sandbox.scratch_bytes}"
    own = f"mode=755,uid={sandbox.user},gid={sandbox.user},{_SMALL}"
    _mount("tmpfs", _ROOT / "tmp", "tmpfs", _SAFE, scratch)
    _mount("tmpfs", _ROOT / "run", "tmpfs", _SAFE, own)
    _mount("sysfs", _ROOT / "sys", "sysfs", _SAFE | _NO_EXEC | _READ_ONLY)
    _build_devices(_ROOT / "dev", scratch)


def _show(tree: int, name: str) -> None:
    """Have an entry of a tree's top in the new root; devices, sockets and the like are left out."""
    entry = os.open(name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=tree)
    target = _ROOT / name
    try:
        mode = os.fstat(entry).st_mode
        if S_ISLNK(mode):
            target.symlink_to(os.readlink(name, dir_fd=tree))
        elif S_ISDIR(mode):
            target.mkdir()
        elif S_ISREG(mode):
            _make_file(target)
        if S_ISDIR(mode) or S_ISREG(mode):
            _mount(f"{PROC}/self/fd/{entry}", target, flags=_BIND | _RECURSIVE)
    finally:
        os.close(entry)


def _make_file(path: Path) -> None:
    """Make an empty file without opening it.

    A child that another thread is forking would have it open for a moment, and nothing becomes
    read-only where somebody may still write.
    """
    os.mknod(path, S_IFREG | 0o444)


def _make_safe(folder: Path) -> None:
    """Make all that is mounted at and below a folder read-only, without devices and set-user-ID.

    Private, too: what somebody mounts outside later would come in here as it is there.
    """
    wanted = _ATTRIBUTES.pack(_ATTRIBUTES_OF_TREES, 0, _PRIVATE, 0)
    call = (_SET_ATTRIBUTES, _AT_FDCWD, bytes(folder), _AT_RECURSIVE, wanted, len(wanted))
    libc.call("syscall", "mount_setattr", *call)


def _build_devices(folder: Path, scratch: str) -> None:
    _mount("tmpfs", folder, "tmpfs", _NO_SETUID | _NO_EXEC, f"mode=755,{_SMALL}")
    for name in _DEVICES:
        _make_file(folder / name)
        _mount(f"/dev/{name}", folder / name, flags=_BIND)
    for name, end in _SHORTCUTS.items():
        (folder / name).symlink_to(f"/proc/self/fd{end}")
    (folder / "shm").mkdir()
    _mount("", folder, flags=_REMOUNT | _BIND | _READ_ONLY | _NO_SETUID | _NO_EXEC)
    _mount("tmpfs", folder / "shm", "tmpfs", _SAFE | _NO_EXEC, scratch)


def _enter_root() -> None:
    """Change the root of this thread and of the keeper; nothing of the old one stays."""
    os.chdir(_ROOT)
    # pivot_root(2): the old one is on top of it
    libc.call("pivot_root", "the new root", b".", b".")
    libc.call("umount2", "the old root", b".", _DETACH)
    os.chdir("/")


def _show_texts(texts: Sequence[tuple[str, str]]) -> None:
    """Put texts over files; in the new root, where no link of a tree leads out of it."""
    folder = Path("/run/.edgewake")
    folder.mkdir()
    for number, (path, text) in enumerate(texts):
        if Path(path).is_file():
            own = folder / str(number)
            own.write_text(text)
            _mount(str(own), Path(path), flags=_BIND)


def _become(user: int) -> None:
    """Change user and group of this thread alone, which leaves it without any capability.

    The C library would change all threads; and Popen, told to do it, forks instead of vforks, which
    takes 10 ms for a process of 100 MB.
    """
    set_groups, set_gid, set_uid = _IDENTITY_CALLS.get(platform.machine(), _GENERIC_IDENTITY_CALLS)
    libc.call("syscall", "no groups", set_groups, 0, None)
    libc.call("syscall", f"group {user}", set_gid, user, user, user)
    libc.call("syscall", f"user {user}", set_uid, user, user, user)


def _child(
    argv: Sequence[str], environment: Mapping[str, str], files: _Files
) -> "subprocess.Popen[bytes]":
    return subprocess.Popen(
        argv,
        stdin=files.nothing,
        stdout=files.log,
        stderr=files.log,
        cwd="/",
        env=environment,
        start_new_session=True,
        umask=0o022,
    )


def _run(argv: Sequence[str]) -> None:
    done = subprocess.run(argv, capture_output=True, check=False, env={})
    if done.returncode != 0:
        raise OSError(EIO, done.stderr.decode(errors="replace").strip(), argv[0])


# --- small things ---------------------------------------------------------------------------------


def _limit(pid: int, processes: int) -> None:
    """Limit a process of another user; a root without CAP_SYS_RESOURCE may not (in a container)."""
    with suppress(ProcessLookupError, PermissionError):
        resource.prlimit(pid, resource.RLIMIT_CORE, (0, 0))
        resource.prlimit(pid, resource.RLIMIT_NPROC, (processes, processes))


def _mount(source: str, target: Path, kind: str = "", flags: int = 0, options: str = "") -> None:
    texts = (os.fsencode(source), bytes(target), kind.encode() or None)
    libc.call("mount", str(target), *texts, flags, options.encode() or None)


def _tool(name: str, package: str) -> str:
    path = shutil.which(name)
    if path is None:
        raise FileNotFoundError(2, f"not found; it is in the package {package}", name)
    return path


def _identity(path: Path) -> tuple[int, int]:
    stat = path.stat()
    return stat.st_dev, stat.st_ino

"""Control groups of this machine: limits for processes, a way to freeze them, and what they used.

For back ends whose guests are processes. Version 2, version 1, and both side by side are read from
what is mounted and may be written; `Cgroups.found` says what there is. Groups are made directly
below the root of each hierarchy, so that they outlive the service that made them. A group's name
is for who calls to choose and to remember. Every OSError raised names the file.

Files are those of the kernel's Documentation/admin-guide/cgroup-v2.rst and cgroup-v1/.
"""

import os
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from errno import EBUSY, EIO, ESRCH
from pathlib import Path

MOUNTS = Path("/proc/self/mounts")
CONTROLLERS = ("cpu", "memory", "pids")

_V1_USEFUL = (*CONTROLLERS, "cpuacct", "freezer")
_PERIOD_US = 100_000
_PATIENCE_S, _POLL_S = 5.0, 0.0005
# A core's worth of weight, and what the kernel takes: cpu.weight of version 2, shares of version 1.
_WEIGHT, _WEIGHTS = 100, (1, 10_000)
_OF_SWAP = ("memory.swap.max", "memory.memsw.limit_in_bytes")  # versions 2 and 1
_SHARES, _MOST_SHARES = 1024, (2, 262_144)


@dataclass(frozen=True, slots=True)
class Limits:
    """What the processes of a group may have together; as much as of memory also of swap.

    `cpu` is the processor time they were promised, in cores: where processes want more than there
    is, groups get it in this proportion; `cpu_cap` is the most they ever get. None: no limit.
    """

    memory_bytes: int
    processes: int
    cpu: float | None = None
    cpu_cap: float | None = None


@dataclass(frozen=True, slots=True)
class Cgroups:
    """The hierarchies that can be used: of version 2 with its controllers, and of version 1."""

    v2: Path | None = None
    v2_controllers: frozenset[str] = frozenset()
    v1: Mapping[str, Path] = field(default_factory=dict)

    @classmethod
    def found(cls, mounts: Path = MOUNTS, *, ask: bool = True) -> "Cgroups":
        """Return what this machine has mounted and lets us write to.

        Controllers of version 2 that groups do not have yet are asked for; or, without `ask`, all
        that could be are counted, and nothing is changed.
        """
        v2: Path | None = None
        v1: dict[str, Path] = {}
        for path, kind, options in _mounted(mounts):
            if not os.access(path, os.W_OK):
                continue
            if kind == "cgroup2":
                v2 = v2 or path
            elif kind == "cgroup":
                v1 |= {name: path for name in _V1_USEFUL if name in options}
        return cls(v2, _usable(v2, ask=ask) if v2 else frozenset(), v1)

    @property
    def limits(self) -> frozenset[str]:
        """What can be limited, by the kernel's words for its controllers."""
        return (self.v2_controllers | set(self.v1)) & set(CONTROLLERS)

    @property
    def freezes(self) -> bool:
        """Whether all processes of a group can be stopped at once."""
        return self.v2 is not None or "freezer" in self.v1

    def make(self, name: str, limits: Limits) -> None:
        """Make a group with these limits, as far as there are controllers for them."""
        for folder in self._folders(name):
            folder.mkdir(exist_ok=True)
        for file, text in self._settings(name, limits):
            if file.name not in _OF_SWAP or file.exists():  # a kernel without swap has none
                _write(file, text)

    def add(self, name: str, pids: Iterable[int]) -> None:
        """Put processes and all that they have started by now into a group.

        Children that somebody's end has left count as those of the process that inherits them, so
        name that one, too. The kernel takes 10 ms for this, whatever is moved. OSError if there are
        always new ones outside.
        """
        inside: set[int] = set()
        outside = roots = frozenset(pids)
        deadline = time.monotonic() + _PATIENCE_S
        while outside:
            for folder in self._folders(name):
                for pid in outside:
                    _add(folder, pid)
            inside |= outside
            outside = _descendants(roots, inside)
            if outside and time.monotonic() > deadline:
                raise OSError(EIO, "it starts processes faster than they can be limited", name)

    def freeze(self, name: str) -> None:
        """Stop the processes of a group, and return when they stand still."""
        if self.v2 is not None:
            _write(self.v2 / name / "cgroup.freeze", "1")
            _await(self.v2 / name / "cgroup.events", "frozen 1")
        elif "freezer" in self.v1:
            _write(self.v1["freezer"] / name / "freezer.state", "FROZEN")
            _await(self.v1["freezer"] / name / "freezer.state", "FROZEN")

    def thaw(self, name: str) -> None:
        """Let the processes of a group run again; a group that is gone is no error."""
        with suppress(FileNotFoundError):
            if self.v2 is not None:
                _write(self.v2 / name / "cgroup.freeze", "0")
            elif "freezer" in self.v1:
                _write(self.v1["freezer"] / name / "freezer.state", "THAWED")

    def frozen(self, name: str) -> bool:
        """Return whether somebody froze a group."""
        if self.v2 is not None:
            return _read(self.v2 / name / "cgroup.freeze").strip() == "1"
        if "freezer" in self.v1:
            return _read(self.v1["freezer"] / name / "freezer.state").strip() != "THAWED"
        return False

    def cpu_s(self, name: str) -> float | None:
        """Return the processor time that a group has used (seconds); None if nobody counts."""
        with suppress(KeyError, ValueError):
            return int(_read(self.v1["cpuacct"] / name / "cpuacct.usage")) / 1e9
        if self.v2 is None:
            return None
        used_us = _field(self.v2 / name / "cpu.stat", "usage_usec")
        return used_us / 1e6 if used_us is not None else None

    def killed_for_memory(self, name: str) -> int:
        """Return how many processes of a group were killed because its memory was used up."""
        if "memory" in self.v2_controllers and self.v2 is not None:
            return _field(self.v2 / name / "memory.events", "oom_kill") or 0
        if "memory" in self.v1:
            return _field(self.v1["memory"] / name / "memory.oom_control", "oom_kill") or 0
        return 0

    def remove(self, name: str) -> None:
        """Remove a group whose processes have ended; one that is gone already is no error."""
        for folder in self._folders(name):
            deadline = time.monotonic() + _PATIENCE_S
            while not _removed(folder, last=time.monotonic() > deadline):
                time.sleep(_POLL_S)

    def _folders(self, name: str) -> list[Path]:
        roots = [*([self.v2] if self.v2 else []), *self.v1.values()]
        return [root / name for root in dict.fromkeys(roots)]

    def _settings(self, name: str, limits: Limits) -> Iterator[tuple[Path, str]]:
        if self.v2 is not None:
            for file, text in _v2_settings(limits, self.v2_controllers):
                yield self.v2 / name / file, text
        for controller, root in self.v1.items():
            for file, text in _v1_settings(limits, controller):
                yield root / name / file, text


def _v2_settings(limits: Limits, controllers: frozenset[str]) -> Iterator[tuple[str, str]]:
    if "memory" in controllers:
        yield "memory.max", str(limits.memory_bytes)
        yield _OF_SWAP[0], str(limits.memory_bytes)
        yield "memory.oom.group", "1"
    if "pids" in controllers:
        yield "pids.max", str(limits.processes)
    if "cpu" in controllers and limits.cpu is not None:
        yield "cpu.weight", str(_scaled(limits.cpu, _WEIGHT, _WEIGHTS))
    if "cpu" in controllers and limits.cpu_cap is not None:
        yield "cpu.max", f"{round(limits.cpu_cap * _PERIOD_US)} {_PERIOD_US}"


def _v1_settings(limits: Limits, controller: str) -> Iterator[tuple[str, str]]:
    if controller == "memory":
        yield "memory.limit_in_bytes", str(limits.memory_bytes)
        yield _OF_SWAP[1], str(2 * limits.memory_bytes)  # with what is in memory
    elif controller == "pids":
        yield "pids.max", str(limits.processes)
    elif controller == "cpu":
        if limits.cpu is not None:
            yield "cpu.shares", str(_scaled(limits.cpu, _SHARES, _MOST_SHARES))
        if limits.cpu_cap is not None:
            yield "cpu.cfs_period_us", str(_PERIOD_US)
            yield "cpu.cfs_quota_us", str(round(limits.cpu_cap * _PERIOD_US))


def _scaled(cores: float, unit: int, between: tuple[int, int]) -> int:
    least, most = between
    return min(max(round(cores * unit), least), most)


def _mounted(mounts: Path) -> Iterator[tuple[Path, str, list[str]]]:
    r"""Yield path, type and options of what is mounted (fstab(5): a blank is ``\040``)."""
    for line in _read(mounts).splitlines():
        _, path, kind, options, *_ = line.split()
        yield Path(path.replace("\\040", " ")), kind, options.split(",")


def _usable(v2: Path, *, ask: bool) -> frozenset[str]:
    """Return the controllers that groups below the root have, or could have without `ask`."""
    there = set(_read(v2 / "cgroup.controllers").split()) & set(CONTROLLERS)
    if not ask:
        return frozenset(there)
    for name in sorted(there - set(_read(v2 / "cgroup.subtree_control").split())):
        with suppress(OSError):  # in a container, the root has processes: it may not give any away
            _write(v2 / "cgroup.subtree_control", f"+{name}")
    return frozenset(there & set(_read(v2 / "cgroup.subtree_control").split()))


def _children(pid: int) -> set[int]:
    found: set[int] = set()
    for file in Path(f"/proc/{pid}/task").glob("*/children"):
        found |= {int(child) for child in _read(file).split()}
    return found


def _descendants(roots: frozenset[int], inside: set[int]) -> frozenset[int]:
    """Return who of theirs is not inside; looks twice, since parents end while we look."""
    for _ in range(2):
        children = {child for pid in roots | inside for child in _children(pid)}
        if children - inside:
            return frozenset(children - inside)
    return frozenset()


def _add(folder: Path, pid: int) -> None:
    try:
        _write(folder / "cgroup.procs", str(pid))
    except OSError as error:
        if error.errno != ESRCH:  # it has ended meanwhile
            raise


def _removed(folder: Path, *, last: bool) -> bool:
    try:
        folder.rmdir()
    except FileNotFoundError:
        return True
    except OSError as error:
        if error.errno != EBUSY or last:  # who ended a moment ago is still counted
            raise
        return False
    return True


def _await(file: Path, wanted: str) -> None:
    deadline = time.monotonic() + _PATIENCE_S
    while wanted not in _read(file).splitlines():
        if time.monotonic() > deadline:
            raise OSError(EIO, f"not {wanted!r} within {_PATIENCE_S:g} s", str(file))
        time.sleep(_POLL_S)


def _field(file: Path, name: str) -> int | None:
    for line in _read(file).splitlines():
        if line.startswith(f"{name} "):
            return int(line.split()[1])
    return None


def _read(file: Path) -> str:
    try:
        return file.read_text()
    except OSError:  # gone meanwhile, or a kernel without it
        return ""


def _write(file: Path, text: str) -> None:
    try:
        file.write_text(text)
    except OSError as error:
        raise OSError(error.errno, os.strerror(error.errno or EIO), str(file)) from error

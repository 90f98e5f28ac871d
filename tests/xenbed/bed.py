"""Starts, reaches and stops a bed: Xen and its dom0 in a QEMU that emulates the processor.

    bed = Bed.start(default_cache())
    libvirt.open(bed.libvirt_uri)
    bed.stop()

dom0 has two network cards. One is for whoever runs the bed: a network inside QEMU that leads
nowhere but from two ports of this machine's loopback to libvirt and sshd. The other is a port of
the bridge that guests are on, and its other end is a tap on a bridge here, so that this machine
reaches every guest. Without root that end is a network inside QEMU too, and guests are reached by
`forward`.
"""

import os
import re
import shlex
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack, suppress
from dataclasses import replace
from ipaddress import IPv4Address
from pathlib import Path

import libvirt

from tests.xenbed import build, network, personality, plan, qemu, reach
from tests.xenbed import state as states
from tests.xenbed.commands import command_line
from tests.xenbed.errors import BedError
from tests.xenbed.state import DEFAULT_NAME, State

START_S = 180.0
POOL = "images"  # of libvirt in dom0, see dom0/etc/libvirt/storage
_LAUNCH_S = 20.0
_POLL_S = 0.05
_TAIL = 25  # lines of the serial log in an error
_SNAPSHOT_BED = "snapshot"
_REPOSITORY = Path(__file__).parents[2]
_FREE_MEMORY = re.compile(rb"^free_memory *: *(\d+)", re.MULTILINE)

Progress = Callable[[str], None]


class Bed:
    """A bed that runs, or ran; what is written about it is `state`."""

    def __init__(self, cache: Path, state: State) -> None:
        self.state = state
        self.cache = cache
        self._qemu: subprocess.Popen[bytes] | None = None
        self._guard: subprocess.Popen[bytes] | None = None

    @classmethod
    def start(
        cls,
        cache: Path,
        wanted: plan.Wanted | None = None,
        *,
        owned: bool = False,
        timeout_s: float = START_S,
        progress: Progress = lambda _: None,
    ) -> "Bed":
        """Build what is not built yet, boot it, and return when libvirt and `xl` answer.

        With `owned` the bed ends with this process, however that ends. Raises `BedError`, after
        which nothing is left of the bed.
        """
        wanted = wanted or plan.Wanted()
        plan.check(cache, wanted)
        built = build.ensure(cache, progress=progress)
        if wanted.cold:
            progress("booting Xen and its dom0")
            bed = cls._launched(cache, built, wanted, None, owned=owned)
        else:
            bed = cls._go_on(cache, built, wanted, owned=owned, progress=progress)
        try:
            bed.wait_ready(timeout_s)
        except BaseException:
            bed.stop()
            raise
        return bed

    @classmethod
    def open(cls, cache: Path, name: str = DEFAULT_NAME) -> "Bed":
        """Return the bed of that name. Raises `BedError` if none runs."""
        state = states.read(cache, name)
        if state is None or state.pid() is None:
            raise BedError(f"no bed {name} runs; start it: {command_line(cache, 'start', name)}")
        return cls(cache, state)

    @property
    def libvirt_uri(self) -> str:
        """Return the URI of libvirt without a password, for this machine only."""
        return f"xen+tcp://127.0.0.1:{self.state.libvirt_port}/system"

    @property
    def ssh_uri(self) -> str:
        """Return the URI of libvirt over ssh, with the bed's own key and host key."""
        command = self.state.folder / personality.SSH_COMMAND
        return f"xen+ssh://root@127.0.0.1:{self.state.ssh_port}/system?command={command}"

    @property
    def reachable(self) -> bool:
        """Return whether this machine reaches guests at their own addresses."""
        return bool(self.state.lan.bridge)

    def ssh(
        self, *command: str, stdin: bytes = b"", timeout_s: float = 60.0
    ) -> subprocess.CompletedProcess[bytes]:
        """Run a command in dom0 as root; its exit code is the caller's to see.

        Raises `BedError` if it takes longer than `timeout_s`.
        """
        argv = [str(self.state.folder / personality.SSH_COMMAND), "dom0", shlex.join(command)]
        try:
            return subprocess.run(
                argv, input=stdin, capture_output=True, timeout=timeout_s, check=False
            )
        except subprocess.TimeoutExpired as error:
            raise BedError(f"bed {self.state.name}: {command} took {timeout_s:g} s") from error

    def put(self, file: Path, name: str) -> str:
        """Copy a file into dom0's folder of images, and return its path there. Raises `BedError`.

        By libvirt, because ssh's arithmetic takes four times as long under emulation.
        """
        try:
            return reach.upload(self.libvirt_uri, POOL, file.read_bytes(), name)
        except libvirt.libvirtError as error:
            raise BedError(f"{file} cannot be copied to bed {self.state.name}: {error}") from error

    def forward(self, address: IPv4Address, port: int) -> int:
        """Return a port of the loopback that leads to a guest's TCP port until the bed stops.

        Only for a bed without a tap; raises `BedError` with one, where the address itself does.
        """
        if self.reachable:
            raise BedError(f"bed {self.state.name} has a tap: {address} is reached directly")
        (local,) = network.choose_ports(1, f"{self.state.name} {address} {port}")
        rule = f"hostfwd_add {qemu.GUESTS} tcp:127.0.0.1:{local}-{address}:{port}"
        said = qemu.ask(self.state, "human-monitor-command", {"command-line": rule}).strip()
        if said:
            raise BedError(f"{address}:{port} cannot be forwarded: {said}")
        return local

    def set_link(self, card: str, *, up: bool) -> None:
        """Plug or pull a cable of dom0's: `qemu.GUESTS` or `qemu.MANAGEMENT`."""
        qemu.ask(self.state, "set_link", {"name": card, "up": up})

    def wait_ready(self, timeout_s: float) -> None:
        """Wait until libvirt and `xl` answer; raises `BedError` with the end of the serial log."""
        deadline = time.monotonic() + timeout_s
        self._wait_for_log("ready", deadline)
        if why := reach.why_silent(self.libvirt_uri, deadline):
            raise self._failure(f"libvirt does not answer at {self.libvirt_uri}: {why}")
        info = self.ssh("xl", "info", timeout_s=max(1.0, deadline - time.monotonic()))
        free = _FREE_MEMORY.search(info.stdout)
        if info.returncode or not free:
            raise self._failure(f"xl info in dom0: {info.stderr.decode().strip() or info.stdout!r}")
        self.state = replace(self.state, guests_mib=int(free[1]))
        self.state.write()

    def stop(self) -> None:
        """End the bed and remove all it has on this machine. Raises `BedError`."""
        with build.locked(self.cache, "beds"):
            self._remove()
        self._dismiss_guard()

    @classmethod
    def _go_on(
        cls,
        cache: Path,
        built: build.Built,
        wanted: plan.Wanted,
        *,
        owned: bool,
        progress: Progress,
    ) -> "Bed":
        """Start from a snapshot, taken now unless it is there; one that is unusable is removed."""
        path = built.folder / f"snapshot-{wanted.memory_mib}-{wanted.dom0_mib}-{qemu.key()}"
        with build.locked(cache, "snapshot", progress):
            if not path.exists():
                progress("booting Xen and its dom0, for a snapshot that beds start from")
                cls._take_snapshot(cache, built, wanted, path)
            try:
                return cls._launched(cache, built, wanted, path, owned=owned)
            except qemu.NotStarted as error:
                path.unlink()
                raise BedError(f"{error}\nThe snapshot was removed; start again.") from error

    @classmethod
    def _take_snapshot(
        cls, cache: Path, built: build.Built, wanted: plan.Wanted, path: Path
    ) -> None:
        blank = replace(wanted, name=_SNAPSHOT_BED, subnet=None, join="", tap=False, cold=True)
        new = path.with_name(f".{path.name}")
        bed = cls._launched(cache, built, blank, None, owned=True, blank=True)
        try:
            bed._wait_for_log("waiting", time.monotonic() + START_S)
            qemu.save(bed.state, new)
        finally:
            bed.stop()
        new.rename(path)

    @classmethod
    def _launched(
        cls,
        cache: Path,
        built: build.Built,
        wanted: plan.Wanted,
        snapshot: Path | None,
        *,
        owned: bool,
        blank: bool = False,
    ) -> "Bed":
        """Return a bed whose QEMU runs and has its ports; a `blank` one is not told who it is."""
        with build.locked(cache, "beds"):
            bed = cls(cache, plan.plan(cache, wanted))
            try:
                bed._launch(built, snapshot, owned=owned, blank=blank)
            except BaseException:
                bed._remove()
                bed._dismiss_guard()
                raise
        return bed

    def _launch(
        self, built: build.Built, snapshot: Path | None, *, owned: bool, blank: bool
    ) -> None:
        state = self.state
        state.folder.mkdir(mode=0o711, parents=True)
        state.write()
        if owned:
            self._start_guard()
        personality.make_keys(state)
        personality.write_disk(state, b"" if blank else personality.archive(state))
        self._start_qemu(built, snapshot)
        self._wait_launched()
        if snapshot is not None:
            qemu.go_on(state)

    def _start_qemu(self, built: build.Built, snapshot: Path | None) -> None:
        state = self.state
        with ExitStack() as ours:  # QEMU has what we opened for it from its start on
            tap = source = None
            if state.lan.bridge:
                if not plan.is_joining(self.cache, state):
                    network.make_bridge(state.lan, state.mark)
                tap = network.open_tap(network.tap_name(state.name), state.lan.bridge, state.mark)
                ours.callback(os.close, tap)
            if snapshot is not None:
                source = ours.enter_context(snapshot.open("rb")).fileno()
            log = ours.enter_context((state.folder / "qemu.log").open("wb"))
            try:
                self._qemu = subprocess.Popen(
                    qemu.argv(state, built, tap=tap, snapshot=source),
                    stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=state.folder,
                    start_new_session=True,
                    pass_fds=[each for each in (tap, source) if each is not None],
                )  # fmt: skip
            except FileNotFoundError as error:
                raise BedError("QEMU is not here; install qemu-system-x86") from error

    def _wait_launched(self) -> None:
        deadline = time.monotonic() + _LAUNCH_S
        while self._qemu and self._qemu.poll() is None and time.monotonic() < deadline:
            with suppress(OSError):
                qemu.ask(self.state, "query-status")
                return
            time.sleep(_POLL_S)
        said = (self.state.folder / "qemu.log").read_text(errors="replace").strip()
        raise qemu.NotStarted(f"QEMU did not start: {said or f'no answer in {_LAUNCH_S:g} s'}")

    def _start_guard(self) -> None:
        """Start a process that stops the bed when our end of its standard input closes."""
        guard = ("--cache", str(self.cache), "guard", self.state.name, str(self.state.id))
        self._guard = subprocess.Popen(
            [sys.executable, "-m", "tests.xenbed", *guard],
            stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, cwd=_REPOSITORY,
            start_new_session=True,
        )  # fmt: skip

    def _dismiss_guard(self) -> None:
        if self._guard is not None and self._guard.stdin is not None:
            self._guard.stdin.close()
            self._guard.wait()
            self._guard = None

    def _wait_for_log(self, word: str, deadline: float) -> None:
        while True:
            log = self.state.serial.read_bytes() if self.state.serial.exists() else b""
            ours = [line for line in log.splitlines() if line.startswith(b"[xenbed ")]
            if any(line.endswith(f"] {word}".encode()) for line in ours):
                return
            if any(b"] FAILED" in line for line in ours):
                raise self._failure("dom0 says that it failed")
            if self.state.pid() is None:
                raise self._failure("QEMU ended while dom0 booted")
            if time.monotonic() > deadline:
                raise self._failure("dom0 was not ready in time")
            time.sleep(_POLL_S)

    def _failure(self, what: str) -> BedError:
        log = self.state.serial
        lines = log.read_text(errors="replace").splitlines()[-_TAIL:] if log.exists() else []
        tail = "".join(f"\n    {line}" for line in lines)
        return BedError(f"bed {self.state.name}: {what}. Its serial log ends:{tail}")

    def _remove(self) -> None:
        """End QEMU, then remove devices and files; what is not there is no matter."""
        pid = self.state.find_process()
        if pid is not None:
            qemu.end(pid)
        if self._qemu is not None:
            self._qemu.wait()
            self._qemu = None
        plan.forget(self.cache, self.state)


def remove(cache: Path, name: str) -> bool:
    """Stop a bed, or remove what one that was killed left; return whether there was anything."""
    state = states.read(cache, name)
    if state is None:
        return False
    Bed(cache, state).stop()
    return True

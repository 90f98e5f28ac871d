"""A second libvirt on this machine, as that of another host, for tests of live migration.

It runs in namespaces of its own: with its own files, network cards and processes, and another host
UUID, without which libvirt refuses to migrate. A cable (a veth pair) joins a bridge here with one
of the same name there, so guests of both hosts are on one layer-2 network. Its processes end with
ours, however that ends, and with them its network.

    second = SecondLibvirt.start(folder, "ewm1", IPv4Interface("10.1.2.1/24"))
    libvirt.open(second.uri)
    second.stop()

This machine has the address that is named, the other one the next. Needs root.
"""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from ipaddress import IPv4Address, IPv4Interface
from pathlib import Path
from uuid import uuid4

import libvirt

START_S = 60.0
_POLL_S = 0.05
# What libvirt keeps, and what would let it talk to daemons of the first one's.
_OWN = ("/run/libvirt", "/var/lib/libvirt", "/var/cache/libvirt", "/var/log/libvirt")
_HIDDEN = ("/run/dbus", "/sys/fs/cgroup")
_UNSHARE = ("unshare", "--mount", "--net", "--pid", "--fork", "--kill-child", "--mount-proc")


class SecondLibvirt:
    """A libvirt beside the system's, and the network that both share."""

    def __init__(self, folder: Path, bridge: str, address: IPv4Interface) -> None:
        self.folder = folder
        self.bridge = bridge
        self.address = address
        self.cable = f"{bridge}c"  # our end
        self._process: subprocess.Popen[bytes] | None = None

    @classmethod
    def start(cls, folder: Path, bridge: str, address: IPv4Interface) -> "SecondLibvirt":
        """Start it and return when it answers. Raises RuntimeError, after which nothing is left."""
        second = cls(folder, bridge, address)
        try:
            second._start()
        except BaseException:
            second.stop()
            raise
        return second

    @property
    def uri(self) -> str:
        """Return the URI at which it is reached from here."""
        return f"qemu+unix:///system?socket={self._run}/libvirt-sock"

    @property
    def other_address(self) -> IPv4Address:
        """Return the address of the other machine."""
        return self.address.ip + 1

    def stop(self) -> None:
        """End it with all its guests, and remove the network."""
        if self._process is not None:
            self._process.kill()
            with self._process:  # closes our end of its standard input, and waits
                pass
            self._process = None
        if Path("/sys/class/net", self.bridge).exists():
            _run("ip", "link", "delete", self.bridge)

    def kill_daemon(self) -> None:
        """End its libvirtd as a crash would; its guests go on."""
        for pid in _children(self._inside()):
            with suppress(OSError):
                if Path(f"/proc/{pid}/comm").read_text().strip() == "libvirtd":
                    os.kill(pid, signal.SIGKILL)
                    self._await(lambda: not Path(f"/proc/{pid}").exists(), self._soon())  # noqa: B023

    def start_daemon(self) -> None:
        """Start its libvirtd again and return when it listens."""
        assert self._process is not None
        assert self._process.stdin is not None
        self._process.stdin.write(b"libvirtd\n")
        self._process.stdin.flush()
        self._await(self._listens, self._soon())

    def notes(self, domain: str) -> Path:
        """Return where its libvirtd notes what it knows of a domain that runs."""
        return self._run / "qemu" / f"{domain}.xml"

    def has_domains(self) -> bool:
        """Return whether any domain is left there."""
        conn = libvirt.open(self.uri)
        try:
            return bool(conn.listAllDomains())
        finally:
            conn.close()

    def _soon(self) -> float:
        return time.monotonic() + START_S

    def _listens(self) -> bool:
        with socket.socket(socket.AF_UNIX) as client, suppress(OSError):
            client.connect(f"{self._run}/libvirt-sock")
            return True
        return False

    @property
    def _run(self) -> Path:
        return self.folder / "run/libvirt"

    def _start(self) -> None:
        facts = {
            "folder": str(self.folder),
            "bridge": self.bridge,
            "address": f"{self.other_address}/{self.address.network.prefixlen}",
        }
        log = (self.folder / "second.log").open("wb")
        with log:
            self._process = subprocess.Popen(
                [*_UNSHARE, sys.executable, str(Path(__file__)), json.dumps(facts)],
                stdin=subprocess.PIPE, stdout=log, stderr=log,
            )  # fmt: skip
        _run("ip", "link", "add", self.bridge, "type", "bridge", "forward_delay", "0")
        _run("ip", "address", "add", str(self.address), "dev", self.bridge)
        _run("ip", "link", "set", self.bridge, "up")
        deadline = time.monotonic() + START_S
        self._await(lambda: bool(self._inside()), deadline)
        cable = ("type", "veth", "peer", "name", self.cable, "netns", str(self._inside()))
        _run("ip", "link", "add", self.cable, *cable)
        _run("ip", "link", "set", self.cable, "master", self.bridge, "up")
        sockets = [self._run / name for name in ("virtlogd-sock", "libvirt-sock")]
        self._await(lambda: all(each.exists() for each in sockets), deadline)

    def _inside(self) -> int:
        """Return the first process in the namespaces, once it is in all of them; else 0."""
        ready = self.folder / "ready"
        if self._process is None or not ready.exists():
            return 0
        return next(iter(_children(self._process.pid)), 0)

    def _await(self, true: Callable[[], bool], deadline: float) -> None:
        while not true():
            ended = self._process is None or self._process.poll() is not None
            if ended or time.monotonic() > deadline:
                said = (self.folder / "second.log").read_text(errors="replace")
                raise RuntimeError(f"the second libvirt did not start: {said[-2000:]}")
            time.sleep(_POLL_S)


def _run(*argv: str) -> None:
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{' '.join(argv)}: {done.stderr.strip()}")


def _children(pid: int) -> list[int]:
    with suppress(OSError):
        return [int(n) for n in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    return []


# --- inside the namespaces ------------------------------------------------------------------------


def _be_the_other_machine(facts: dict[str, str]) -> None:
    folder, bridge = Path(facts["folder"]), facts["bridge"]
    _run("mount", "--make-rprivate", "/")
    for path in (*_OWN, "/etc/libvirt"):
        own = folder / path.lstrip("/")
        own.mkdir(parents=True, exist_ok=True)
        _run("mount", "--bind", str(own), path)
    for path in _HIDDEN:
        if Path(path).is_dir():
            _run("mount", "-t", "tmpfs", "none", path)
    etc = Path("/etc/libvirt")
    (etc / "libvirtd.conf").write_text(f'host_uuid = "{uuid4()}"\nauth_unix_rw = "none"\n')
    (etc / "qemu.conf").write_text("cgroup_controllers = []\n")
    _run("ip", "link", "set", "lo", "up")
    _run("ip", "link", "add", bridge, "type", "bridge", "forward_delay", "0")
    _run("ip", "address", "add", facts["address"], "dev", bridge)
    _run("ip", "link", "set", bridge, "up")
    (folder / "ready").touch()
    while not Path("/sys/class/net", f"{bridge}c").exists():
        time.sleep(_POLL_S)
    _run("ip", "link", "set", f"{bridge}c", "master", bridge, "up")
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # guests become our children, and end
    for name in ("virtlogd", "libvirtd"):
        _start_daemon(folder, name)
    while name := sys.stdin.buffer.readline().decode().strip():  # until who started us has ended
        _start_daemon(folder, name)


def _start_daemon(folder: Path, name: str) -> None:
    pid_file = str(folder / f"{name}.pid")  # the usual one may be the first libvirt's
    guests_end = signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # or libvirtd would inherit that
    subprocess.Popen([name, "--pid-file", pid_file], stdin=subprocess.DEVNULL)
    signal.signal(signal.SIGCHLD, guests_end)


if __name__ == "__main__":
    _be_the_other_machine(json.loads(sys.argv[1]))

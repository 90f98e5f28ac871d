"""Hello as a guest of QEMU: on a tap, in a network namespace that is made for one test module.

The namespace is the test's own (unshare(2)), so names and addresses cannot collide with anything
and nothing is left behind. QEMU is started directly, by its command line.
"""

import ctypes
import http.client
import json
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from images.build import hello

CLONE_NEWNET = 0x40000000
ADDRESS, ADDRESS6 = "10.0.0.2", "fd00::2"
HOST, HOST6 = "10.0.0.1", "fd00::1"
MAC = "02:00:00:00:00:02"
SETTINGS = f"ip={ADDRESS}/24 gw={HOST} ip6={ADDRESS6}/64"
TIMEOUT_S = 20.0


@dataclass
class Guest:
    """A running hello."""

    process: subprocess.Popen[bytes]
    console_file: Path
    monitor: Path

    @property
    def console(self) -> str:
        return self.console_file.read_text(errors="replace")

    def says(self, text: str, times: int = 1) -> None:
        """Wait until the console has the text so many times."""
        deadline = time.monotonic() + TIMEOUT_S
        while self.console.count(text) < times:
            assert self.process.poll() is None, f"QEMU ended\n{self.console}"
            assert time.monotonic() < deadline, f"no {text!r} on the console:\n{self.console}"
            time.sleep(0.005)

    def ends(self) -> int:
        """Wait for QEMU's end and return its exit code."""
        return self.process.wait(TIMEOUT_S)

    def cpu_ticks(self) -> int:
        """Return the processor time that QEMU has used so far, in clock ticks."""
        stat = Path(f"/proc/{self.process.pid}/stat").read_text()
        user, system = stat.rpartition(")")[2].split()[11:13]
        return int(user) + int(system)

    def press_power_button(self) -> None:
        """Do what `virsh shutdown` does."""
        with socket.socket(socket.AF_UNIX) as monitor:
            monitor.settimeout(TIMEOUT_S)
            monitor.connect(str(self.monitor))
            with monitor.makefile("rb") as replies:
                replies.readline()  # the greeting
                for command in ("qmp_capabilities", "system_powerdown"):
                    monitor.sendall(json.dumps({"execute": command}).encode())
                    while b"return" not in replies.readline():
                        pass  # an event


@dataclass
class Lan:
    """A network namespace with taps, and guests on them."""

    folder: Path
    kernel: Path
    guests: list[Guest] = field(default_factory=list)

    def ip(self, *words: str) -> None:
        done = subprocess.run(["ip", *words], capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"ip {' '.join(words)}: {done.stderr}"

    def tap(self, name: str, *addresses: str) -> None:
        """Make a tap that is up, with these addresses; without any it speaks no IPv6 of its own."""
        self.ip("tuntap", "add", "dev", name, "mode", "tap")
        if not addresses:
            Path(f"/proc/sys/net/ipv6/conf/{name}/disable_ipv6").write_text("1")
        Path(f"/proc/sys/net/ipv6/conf/{name}/accept_dad").write_text("0")
        for address in addresses:
            self.ip("addr", "add", address, "dev", name)
        self.ip("link", "set", name, "up")

    def boot(
        self,
        cmdline: str = SETTINGS,
        *,
        tap: str = "tap0",
        mac: str = MAC,
        memory: str = "8M",
        machine: str = "pc",
        kernel: Path | None = None,
        devices: tuple[str, ...] = (),
        card: str = "virtio-net-pci",
    ) -> Guest:
        """Start a guest; do not wait for it."""
        stem = self.folder / f"guest{len(self.guests)}"
        console, monitor = stem.with_suffix(".console"), stem.with_suffix(".qmp")
        console.write_bytes(b"")
        command = [
            *("qemu-system-x86_64", "-machine", machine, "-accel", "tcg", "-m", memory),
            *("-nodefaults", "-no-user-config", "-display", "none", "-no-reboot"),
            *("-chardev", f"file,id=c,path={console}", "-serial", "chardev:c"),
            *("-qmp", f"unix:{monitor},server=on,wait=off"),
            *("-kernel", str(kernel or self.kernel), "-append", cmdline),
        ]
        for device in devices:
            command += ["-device", device]
        if card:
            command += ["-netdev", f"tap,id=n,ifname={tap},script=no,downscript=no"]
            command += ["-device", f"{card},netdev=n,mac={mac},romfile="]
        guest = Guest(subprocess.Popen(command, stdin=subprocess.DEVNULL), console, monitor)
        self.guests.append(guest)
        return guest

    def end(self) -> None:
        for guest in self.guests:
            if guest.process.poll() is None:
                guest.process.kill()
                guest.process.wait()


@dataclass(frozen=True)
class Reply:
    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


Fetch = Callable[..., Reply]


@contextmanager
def own_namespace() -> Iterator[None]:
    """Put this thread, and what it starts, into a new network namespace for a while."""
    libc = ctypes.CDLL(None, use_errno=True)
    with Path("/proc/thread-self/ns/net").open("rb") as before:
        if libc.unshare(CLONE_NEWNET) != 0:
            raise OSError(ctypes.get_errno(), "unshare: a network namespace needs root")
        try:
            yield
        finally:
            assert libc.setns(before.fileno(), CLONE_NEWNET) == 0


@pytest.fixture(scope="session")
def kernel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build hello."""
    return hello.build(tmp_path_factory.mktemp("hello")).kernel


def make_lan(stack: ExitStack, folder: Path, kernel: Path) -> Lan:
    stack.enter_context(own_namespace())
    lan = Lan(folder, kernel)
    stack.callback(lan.end)
    lan.ip("link", "set", "lo", "up")
    return lan


@pytest.fixture
def lan(tmp_path: Path, kernel: Path) -> Iterator[Lan]:
    """Make a namespace for one test, with nothing in it."""
    with ExitStack() as stack:
        yield make_lan(stack, tmp_path, kernel)


@pytest.fixture(scope="module")
def shared_lan(tmp_path_factory: pytest.TempPathFactory, kernel: Path) -> Iterator[Lan]:
    """Make a namespace for the tests of a module, with a tap that has addresses."""
    with ExitStack() as stack:
        lan = make_lan(stack, tmp_path_factory.mktemp("lan"), kernel)
        lan.tap("tap0", f"{HOST}/24", f"{HOST6}/64")
        yield lan


@pytest.fixture(scope="module")
def guest(shared_lan: Lan) -> Guest:
    """Boot one guest for the tests of a module."""
    cmdline = f"{SETTINGS} name=g1 service=web host=box greeting=Hi%20%3Cb%3E%26%22x%22"
    guest = shared_lan.boot(cmdline)
    guest.says(f"listening on {ADDRESS} port 80")
    return guest


@pytest.fixture(scope="session")
def fetch() -> Fetch:
    """Ask for one page on a connection of its own."""

    def ask(path: str = "/healthz", address: str = ADDRESS, method: str = "GET") -> Reply:
        with closing_connection(address) as connection:
            connection.request(method, path)
            response = connection.getresponse()
            return Reply(response.status, dict(response.getheaders()), response.read())

    return ask


@contextmanager
def closing_connection(address: str) -> Iterator[http.client.HTTPConnection]:
    connection = http.client.HTTPConnection(address, 80, timeout=TIMEOUT_S)
    try:
        yield connection
    finally:
        connection.close()

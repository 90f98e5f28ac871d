"""What a client that asks for no name waits for: to the first byte, from a guest that sleeps.

Part 1 boots nothing: a namespace stands for the guest, and is there a set time after it was asked
for, so that the way of the packet alone is seen, by TCP and UDP, on both ways of guarding. Part 2
(skipped with --no-real) boots the `hello` unikernel through libvirt, by a packet and by a question
in turn; the ratio is to what hypervisor and guest took by themselves in the same run.
"""

import argparse
import socket
import statistics
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from rich.console import Console
from rich.table import Table

from dns_boot.query import ask
from images.build.hello import build
from orchestrator.daemon import Daemon
from orchestrator.guards.base import Asked, Guard
from orchestrator.guards.bridged import BridgedGuard
from orchestrator.guards.routed import RoutedGuard
from orchestrator.model import Rung
from orchestrator.trace import Wake
from tests.orchestrator.guards.wires import Server, Wires, get, ip, wired, within

LAB = """
name: bencht
zone: bench.test
dns: {{listen: 127.0.0.1:{port}}}
hosts:
  box:
    uri: qemu:///system
    capacity: {{cpu: 1000, memory: 500 GiB}}
    network: {{name: edgewake-bencht, subnet: 10.215.0.0/24, gateway: 10.215.0.1,
              pool: 10.215.0.10-10.215.0.250, create: true, bridge: ewbencht0}}
images:
  hello: {{family: hello, kernel: built:hello/kernel}}
traffic: {{wakes_per_host: 1000/s, wakes: 1000/s}}
services:
  web:
    image: hello
    resources: {{cpu: 0.1, memory: 16 MiB}}
    ready: {{http: {{port: 80}}}}
    idle: never
    deadline: 30 s
"""
DNS_PORT = 5386
NUMBER = 218  # of the namespaces' networks
UDP_PORT = 9000
BOOTS_S = (0.03, 0.3, 1.2)


def row(table: Table, name: str, seconds: Sequence[float], base: float) -> None:
    """Add one line of milliseconds, with its ratio to a base of the same run."""
    p50, p95 = statistics.median(seconds), statistics.quantiles(seconds, n=20)[-1]
    table.add_row(name, f"{p50 * 1e3:.1f}", f"{p95 * 1e3:.1f}", f"{p50 / base:.3f}")


# --- a guest that is a namespace --------------------------------------------------------------


class Guest:
    """Stands for a guest: `boot` makes it be there after a while, and lets its packets go."""

    def __init__(self, wires: Wires, boot_s: float) -> None:
        self.wires, self.boot_s = wires, boot_s
        self.guards: list[Guard] = []
        self.there_at = 0.0

    def boot(self, asked: Asked) -> None:
        """Begin to boot; returns at once."""
        threading.Thread(target=self._boot, args=(asked,)).start()

    def _boot(self, asked: Asked) -> None:
        time.sleep(max(0.0, asked.at + self.boot_s - time.monotonic()))
        ip(f"-n {self.wires.guest} link set eth0 up")
        ip(f"-n {self.wires.guest} route replace default via {self.wires.gateway}")
        self.there_at = time.monotonic()
        for guard in self.guards:
            guard.release(asked.guarded.address)

    def sleep(self) -> None:
        """Be gone again, with all that anybody knows of it."""
        ip(f"-n {self.wires.guest} link set eth0 down")
        ip(f"neigh flush dev {self.wires.name}")
        ip(f"-n {self.wires.neighbour} neigh flush dev eth0")


def echo(namespace: str, stop: threading.Event) -> None:
    """Answer datagrams until told to stop."""

    def run() -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as answering:
            answering.bind(("", UDP_PORT))
            answering.settimeout(0.05)
            while not stop.is_set():
                with suppress(TimeoutError):
                    body, client = answering.recvfrom(2048)
                    answering.sendto(body, client)

    within(namespace, run)


def by_tcp(address: str) -> bytes:
    """Connect, and return the first bytes."""
    return get(address)


def by_udp(address: str) -> bytes:
    """Send one datagram, never again, and return the answer."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asking:
        asking.settimeout(10)
        asking.sendto(b"hello", (address, UDP_PORT))
        return asking.recv(100)


def simulated(rounds: int) -> Table:
    """Measure the way of the packet alone."""
    heads = ("guarded, by, boot", "p50 ms", "p95 ms", "p50 beyond the boot, ms")
    table = Table(*heads, title=f"{rounds} wakes each")
    with wired(NUMBER) as wires:
        wires.up()
        server, stop = Server(wires.guest), threading.Event()
        server.wait_open()
        echo(wires.guest, stop)
        for how in ("routed", "bridged"):
            for name, client in (("TCP", by_tcp), ("UDP", by_udp)):
                for boot_s in BOOTS_S:
                    took, beyond = simulated_wakes(wires, how, client, boot_s, rounds)
                    p50, p95 = statistics.median(took), statistics.quantiles(took, n=20)[-1]
                    more = statistics.median(beyond)
                    cells = (f"{seconds * 1e3:.1f}" for seconds in (p50, p95, more))
                    table.add_row(f"{how}, {name}, {boot_s * 1e3:g} ms", *cells)
        stop.set()
        server.stop()
    return table


def simulated_wakes(
    wires: Wires, how: str, client: Callable[[str], bytes], boot_s: float, rounds: int
) -> tuple[list[float], list[float]]:
    """Return what a client waited, in all and once the guest was there, in seconds by round."""
    guest = Guest(wires, boot_s)
    routed, web = how == "routed", wires.guarded()
    guard: Guard = (
        RoutedGuard(wires.host, guest.boot)
        if routed
        else BridgedGuard("box", wires.name, guest.boot)
    )
    guest.guards.append(guard)
    whence = wires.client if routed else wires.neighbour
    took, beyond = [], []
    try:
        for _ in range(rounds):
            guest.sleep()
            guard.set([web])
            began, ended = within(whence, lambda: times(client, str(web.address))).result()
            took.append(ended - began)
            beyond.append(ended - guest.there_at)
    finally:
        guard.close()
    return took, beyond


def times(client: Callable[[str], bytes], address: str) -> tuple[float, float]:
    """Return when a client began, and when it had its first byte."""
    began = time.monotonic()
    said = client(address)
    if said != b"hello":
        raise RuntimeError(f"{address} said {said!r}")
    return began, time.monotonic()


# --- a guest that is one ----------------------------------------------------------------------


@contextmanager
def running(folder: Path) -> Iterator[Daemon]:
    """Run edgewake; everything is taken away afterwards."""
    lab = folder / "lab.yaml"
    lab.write_text(LAB.format(port=DNS_PORT))
    build(folder / "state" / "images" / "hello")
    daemon = Daemon(folder / "state", lab, ephemeral=True)
    daemon.start()
    try:
        yield daemon
    finally:
        daemon.stop()


def first_byte(address: str) -> float:
    """Ask for a page and return the seconds until its first byte."""
    began = time.monotonic()
    with socket.create_connection((address, 80), timeout=30) as connection:
        connection.sendall(b"GET / HTTP/1.1\r\nHost: web\r\nConnection: close\r\n\r\n")
        if connection.recv(1) != b"H":
            raise RuntimeError(f"{address} sent no page")
    return time.monotonic() - began


def with_qemu(folder: Path, rounds: int) -> Table:
    """Measure with libvirt, QEMU and the `hello` unikernel."""
    by_packet: list[float] = []
    by_question: list[float] = []
    packets: list[Wake] = []
    questions: list[Wake] = []
    with running(folder) as daemon:
        for _ in range(rounds):
            began = time.monotonic()
            reply = ask(daemon.dns_address, "web.bench.test", timeout_s=35)
            first_byte(reply.addresses[0])
            by_question.append(time.monotonic() - began)
            questions += daemon.orchestrator.wakes.last(limit=1)
            daemon.orchestrator.release("web", Rung.COLD)
            by_packet.append(first_byte(reply.addresses[0]))
            packets += daemon.orchestrator.wakes.last(limit=1)
            daemon.orchestrator.release("web", Rung.COLD)
    if not all(wake.by for wake in packets):
        raise RuntimeError("a question was asked where none should be")
    theirs = statistics.median(not_ours(wake) for wake in (*packets, *questions))
    table = Table("libvirt, QEMU, hello", "p50 ms", "p95 ms", "x theirs", title=f"{rounds} each")
    row(table, "first byte, no question asked", by_packet, theirs)
    row(table, "question, then first byte", by_question, theirs)
    row(table, "hypervisor and guest: define to first answer", list(map(not_ours, packets)), theirs)
    guests = [span(wake, "start", "answer") for wake in packets]
    row(table, "of that, guest: start to first answer", guests, theirs)
    rest = [took - not_ours(wake) for took, wake in zip(by_packet, packets, strict=True)]
    row(table, "the rest: ours, to connect, the page", rest, theirs)
    return table


def span(wake: Wake, start: str, end: str) -> float:
    """Return seconds between two stages."""
    stamps = dict(wake.stamps)
    return stamps[end] - stamps[start]


def not_ours(wake: Wake) -> float:
    """Return what hypervisor and guest took."""
    return span(wake, "intent", "answer")


def main() -> None:
    """Print both tables."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--rounds", type=int, default=20, help="wakes of each kind (20)")
    options.add_argument("--real", type=int, default=20, help="wakes of real guests (20)")
    options.add_argument("--no-real", action="store_true", help="leave libvirt out")
    chosen = options.parse_args()
    out = Console()
    out.print(simulated(chosen.rounds))
    if not chosen.no_real:
        with tempfile.TemporaryDirectory(dir="/var/lib", prefix="edgewake-bench-") as folder:
            Path(folder).chmod(0o711)
            out.print(with_qemu(Path(folder), chosen.real))


if __name__ == "__main__":
    main()

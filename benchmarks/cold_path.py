"""What a cold wake costs beyond the hypervisor and the guest: our own share, over real UDP.

Part 1 wakes many services on a hypervisor in memory, which builds and answers in no time: all that
is left is ours, from the packet in to the packet out. The ratio is to a warm query of the same run.
Part 2 (skipped with --no-real) boots the sample guest through libvirt and prints our share of the
whole; the ratio there is to the time the hypervisor and the guest took.
"""

import argparse
import statistics
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console
from rich.table import Table

from dns_boot.query import Reply, ask
from images.build.linux_microvm import build
from orchestrator.daemon import Daemon
from orchestrator.model import Rung
from orchestrator.trace import Wake

HEAD = """
name: bench
zone: bench.test
dns:
  listen: 127.0.0.1:{port}
  wake_budget: {{burst: 10000, total_burst: 10000}}
hosts:
  box:
    uri: {uri}
    capacity: {{cpu: 1000, memory: 500 GiB}}
    network: {{name: edgewake-bench, subnet: 10.213.0.0/16, gateway: 10.213.0.1,
              pool: 10.213.1.0-10.213.200.250, create: true, bridge: ewbench0}}
images:
  sample: {{family: linux, kernel: built:linux-microvm/kernel, initrd: built:linux-microvm/initrd}}
defaults:
  image: sample
  resources: {{cpu: 0.1, memory: 96 MiB}}
  ready: {{http: {{port: 80, path: /healthz}}}}
  idle: never
  deadline: 30 s
services:
"""
PORT = 5395


@contextmanager
def running(folder: Path, uri: str, services: int) -> Iterator[Daemon]:
    """Run edgewake with that many services; everything is taken away afterwards."""
    names = "".join(f"  s{number}: {{}}\n" for number in range(services))
    lab = folder / "lab.yaml"
    lab.write_text(HEAD.format(uri=uri, port=PORT) + names)
    build(folder / "state" / "images" / "linux-microvm")
    daemon = Daemon(folder / "state", lab, ephemeral=True)
    daemon.start()
    try:
        yield daemon
    finally:
        daemon.stop()


def wake_all(daemon: Daemon, services: int) -> tuple[list[Reply], list[Wake]]:
    """Wake one service after the other; return the replies and the traces."""
    replies = [
        ask(daemon.dns_address, f"s{number}.bench.test", timeout_s=35) for number in range(services)
    ]
    return replies, list(daemon.orchestrator.wakes.last(limit=services))


def row(table: Table, name: str, seconds: Sequence[float], base: float) -> None:
    """Add one line of milliseconds, with its ratio to a base of the same run."""
    p50, p95 = statistics.median(seconds), statistics.quantiles(seconds, n=20)[-1]
    table.add_row(name, f"{p50 * 1e3:.2f}", f"{p95 * 1e3:.2f}", f"{p50 / base:.3g}")


def in_memory(folder: Path, services: int) -> Table:
    """Measure with nothing but our own code on the path."""
    with running(folder, "memory:///", services) as daemon:
        cold, wakes = wake_all(daemon, services)
        warm = [ask(daemon.dns_address, "s0.bench.test").seconds for _ in range(services)]
    base = statistics.median(warm)
    table = Table("memory hypervisor", "p50 ms", "p95 ms", "x warm", title=f"{services} cold wakes")
    row(table, "query to reply, at the client", [reply.seconds for reply in cold], base)
    row(table, "our own stages, from the trace", [wake.own_s for wake in wakes], base)
    row(table, "query to the hypervisor's start", [until(wake, "asked") for wake in wakes], base)
    row(table, "warm query, at the client", warm, base)
    return table


def with_qemu(folder: Path, services: int) -> Table:
    """Measure with libvirt, QEMU and real guests; each is put to sleep before the next."""
    replies, wakes = [], []
    with running(folder, "qemu:///system", services) as daemon:
        for number in range(services):
            replies.append(ask(daemon.dns_address, f"s{number}.bench.test", timeout_s=35))
            daemon.orchestrator.release(f"s{number}", Rung.COLD)
        wakes = list(daemon.orchestrator.wakes.last(limit=services))
    theirs = statistics.median(wake.total_s - wake.own_s for wake in wakes)
    table = Table("libvirt, QEMU", "p50 ms", "p95 ms", "x theirs", title=f"{services} cold wakes")
    row(table, "query to reply, at the client", [reply.seconds for reply in replies], theirs)
    row(table, "hypervisor: define and start", [span(w, "asked", "start") for w in wakes], theirs)
    row(table, "guest: start to first answer", [span(w, "start", "answer") for w in wakes], theirs)
    row(table, "our own stages", [wake.own_s for wake in wakes], theirs)
    return table


def until(wake: Wake, stage: str) -> float:
    """Return seconds from the query to a stage."""
    return dict(wake.stamps)[stage]


def span(wake: Wake, start: str, end: str) -> float:
    """Return seconds between two stages."""
    return until(wake, end) - until(wake, start)


def main() -> None:
    """Print both tables."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--services", type=int, default=200, help="wakes in memory (200)")
    options.add_argument("--real", type=int, default=5, help="wakes of real guests (5)")
    options.add_argument("--no-real", action="store_true", help="leave libvirt out")
    chosen = options.parse_args()
    out = Console()
    with tempfile.TemporaryDirectory(dir="/var/lib", prefix="edgewake-bench-") as folder:
        Path(folder).chmod(0o711)
        out.print(in_memory(Path(folder), chosen.services))
        if not chosen.no_real:
            out.print(with_qemu(Path(folder), chosen.real))


if __name__ == "__main__":
    main()

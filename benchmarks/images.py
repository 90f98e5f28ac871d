"""What an image costs: size, least memory, first byte, first answer, requests and idle CPU.

Each image is booted in two ways in one run: by the shortest QEMU command a person would write, and
by a DNS query to edgewake (libvirt). The ratio of the two first answers is what edgewake and
libvirt add. The sample unikernel and the Linux guest are measured, and every image that is named:

    python -m benchmarks.images --image mine=/path/to/kernel [--image other=KERNEL,INITRD]
"""

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from ipaddress import IPv4Address
from pathlib import Path

from rich.console import Console
from rich.progress import track
from rich.table import Table

from benchmarks.by_hand import Boot, fetch, plugged, spec_of, started
from dns_boot.query import ask
from images.bootspec import BootSpec
from images.build import hello, linux_microvm
from orchestrator.daemon import Daemon
from orchestrator.model import Rung

PORT = 5397
BRIDGE, TAP = "ewimg0", "ewimgtap0"
HAND_ADDRESS = IPv4Address("10.213.74.9")  # outside the pool, for the guest started by hand
HEAD = """
name: images
zone: images.test
dns:
  listen: 127.0.0.1:{port}
  wake_budget: {{burst: 10000, total_burst: 10000}}
hosts:
  box:
    uri: qemu:///system
    capacity: {{cpu: 100, memory: 100 GiB}}
    network: {{name: edgewake-images, subnet: 10.213.74.0/24, gateway: 10.213.74.1,
              pool: 10.213.74.10-10.213.74.99, create: true, bridge: {bridge}}}
defaults:
  resources: {{cpu: 1, memory: 128 MiB}}
  ready: {{http: {{port: 80, path: /}}}}
  idle: never
  deadline: 30 s
"""
MOST_MIB = 256


@dataclass(frozen=True, slots=True)
class Figures:
    """What one image costs."""

    file_bytes: int
    least_mib: int
    serial_s: float
    hand_s: float
    ours_s: float
    requests_s: float
    idle_share: float


def least_memory(spec: BootSpec) -> int:
    """Return the least memory (MiB) with which the guest answers, by bisection."""
    too_few, enough = 0, MOST_MIB
    while enough - too_few > max(1, enough // 32):
        middle = (too_few + enough) // 2
        try:
            with started(spec, middle, TAP, HAND_ADDRESS):
                enough = middle
        except TimeoutError:
            too_few = middle
    return enough


def requests_s(address: IPv4Address, seconds: float = 2.0) -> float:
    """Return requests per second, each on a connection of its own, one after the other."""
    count, end = 0, time.monotonic() + seconds
    while time.monotonic() < end:
        fetch(address, 2.0)
        count += 1
    return count / seconds


def idle_share(pid: int, seconds: float = 3.0) -> float:
    """Return the share of one processor that an idle guest takes."""
    time.sleep(1.0)  # let it come to rest
    before = cpu_s(pid)
    time.sleep(seconds)
    return (cpu_s(pid) - before) / seconds


def cpu_s(pid: int) -> float:
    """Return the processor time that a process has used, in seconds (proc_pid_stat(5))."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def measure(daemon: Daemon, name: str, rounds: int) -> Figures:
    """Boot an image by hand and by a query, several times each, in turns."""
    spec = spec_of(daemon.orchestrator.lab, name, HAND_ADDRESS)
    hand: list[Boot] = []
    ours: list[float] = []
    for _ in range(rounds):
        with started(spec, spec.memory_mib, TAP, HAND_ADDRESS) as (_, boot):
            hand.append(boot)
        ours.append(ask(daemon.dns_address, f"{name}.images.test", timeout_s=35).seconds)
        daemon.orchestrator.release(name, Rung.COLD)
    with started(spec, spec.memory_mib, TAP, HAND_ADDRESS) as (process, _):
        rate, idle = requests_s(HAND_ADDRESS), idle_share(process.pid)
    return Figures(
        file_bytes=sum(path.stat().st_size for path in spec.files),
        least_mib=least_memory(spec),
        serial_s=statistics.median(boot.serial_s for boot in hand),
        hand_s=statistics.median(boot.answer_s for boot in hand),
        ours_s=statistics.median(ours),
        requests_s=rate,
        idle_share=idle,
    )


def lab_text(images: dict[str, str]) -> str:
    """Return a lab with one service for each image (`KERNEL` or `KERNEL,INITRD`)."""
    lines = [HEAD.format(port=PORT, bridge=BRIDGE), "images:"]
    for name, files in images.items():
        kernel, _, initrd = files.partition(",")
        lines.append(f"  {name}: {{kernel: {kernel}{f', initrd: {initrd}' if initrd else ''}}}")
    lines += ["services:", *(f"  {name}: {{image: {name}}}" for name in images)]
    return "\n".join(lines) + "\n"


def run(images: dict[str, str], rounds: int) -> dict[str, Figures]:
    """Measure every image in one run."""
    recipes: dict[str, Callable[[Path], object]] = {
        "hello": hello.build,
        "linux-microvm": linux_microvm.build,
    }
    with tempfile.TemporaryDirectory(dir="/var/lib", prefix="edgewake-bench-") as name:
        folder = Path(name)
        folder.chmod(0o711)
        for recipe, build in recipes.items():
            build(folder / "state" / "images" / recipe)
        (folder / "lab.yaml").write_text(lab_text(images))
        daemon = Daemon(folder / "state", folder / "lab.yaml", ephemeral=True)
        daemon.start()
        try:
            with plugged(BRIDGE, TAP):
                return {each: measure(daemon, each, rounds) for each in track(images, "booting")}
        finally:
            daemon.stop()


def main() -> None:
    """Print the table."""
    options = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    options.add_argument("--image", action="append", default=[], metavar="NAME=KERNEL[,INITRD]")
    options.add_argument("--rounds", type=int, default=5, help="boots of each kind (5)")
    chosen = options.parse_args()
    images = {
        "hello": "built:hello/kernel",
        "linux": "built:linux-microvm/kernel,built:linux-microvm/initrd",
    }
    images.update(tuple(each.split("=", 1)) for each in chosen.image)
    head = ("image", "file kB", "least MiB", "serial ms", "by hand ms", "by query ms", "x by hand")
    table = Table(*head, "requests/s", "idle CPU", title="one guest, 128 MiB, one processor")
    for name, cost in run(images, chosen.rounds).items():
        table.add_row(
            name,
            f"{cost.file_bytes / 1000:,.0f}",
            f"{cost.least_mib}",
            f"{cost.serial_s * 1000:.0f}",
            f"{cost.hand_s * 1000:.0f}",
            f"{cost.ours_s * 1000:.0f}",
            f"{cost.ours_s / cost.hand_s:.2f}",
            f"{cost.requests_s:,.0f}",
            f"{cost.idle_share:.1%}",
        )
    Console(width=120).print(table)


if __name__ == "__main__":
    main()

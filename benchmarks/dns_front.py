"""The DNS front with all of edgewake behind it, beside knot, nsd and dnslib's server, in one run.

edgewake is a whole daemon here, with a lab of hosts in memory, 20 services awake and some that
sleep. Three figures are taken of each server, in turns: its highest rate, the CPU time that a warm
query costs it (utime and stime of all its processes, over the answers that dnsperf counted), and
latencies at half of that rate. Queries are plain, with EDNS, and with EDNS and a cookie, in turns.
Then warm names are asked of edgewake at half of its own rate, while 20 cold wakes are in flight all
the time, each with a boot of 0.3 s; with one process and with two, which share all processors.

    python -m benchmarks.dns_front --seconds 4 --rounds 3
"""

import argparse
import contextlib
import os
import shutil
import signal
import statistics
import sys
import tempfile
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from benchmarks.cold_path import HEAD
from benchmarks.dns_warm import (
    ADDRESSES,
    ZONE,
    ZONE_FILE,
    ask,
    dnsperf,
    figure,
    free_port,
    knot_command,
    latencies,
    memory_mib,
    running,
)
from dns_boot.query import ask as ask_once
from images.build.linux_microvm import build
from orchestrator import daemon as daemon_module
from orchestrator.daemon import Daemon
from orchestrator.hypervisors.memory import MemoryHypervisor

WAKES = 20
BOOT_S = 0.3
CLIENTS = 16  # sockets of dnsperf: the kernel spreads them over the processes of a port
TICKS = os.sysconf("SC_CLK_TCK")
TOOLS = {"dnsperf": "dnsperf", "knotd": "knot", "nsd": "nsd"}  # program: its Debian package
COOKIE = "10:6162636465666768"  # an EDNS option as dnsperf wants it: code and hexadecimal data
FORMS: dict[str, tuple[str, ...]] = {
    "plain": (),
    "EDNS": ("-e",),
    "cookie": ("-e", "-E", COOKIE),
}


@dataclass
class Result:
    """Of one server: queries per second, CPU seconds per query by form, latencies in seconds."""

    rates: list[float] = field(default_factory=list)
    cpu: dict[str, list[float]] = field(default_factory=lambda: {form: [] for form in FORMS})
    latencies: list[float] = field(default_factory=list)
    lost: int = 0
    memory_mib: float = 0.0

    @property
    def cpu_us(self) -> float:
        """Microseconds of CPU time per query, all forms alike."""
        return statistics.mean(statistics.median(times) for times in self.cpu.values()) * 1e6


# --- the servers ------------------------------------------------------------------------------


def serve_edgewake(folder: Path, port: int, processes: int, cold: int) -> None:
    """Run a whole edgewake until it is ended, with `cold` services that sleep."""
    head = HEAD.format(uri="memory:///", port=port).replace("bench.test", ZONE)
    head = head.replace(f"127.0.0.1:{port}", f"127.0.0.1:{port}, processes: {processes}")
    names = [*ADDRESSES, *(f"cold{number}" for number in range(cold))]
    lab = folder / "lab.yaml"
    lab.write_text(head + "".join(f"  {name}: {{}}\n" for name in names))
    build(folder / "state" / "images" / "linux-microvm")
    # The one thing that is not as in `edgewake up`: a host in memory that takes its time to boot.
    daemon_module.__dict__["MemoryHypervisor"] = partial(MemoryHypervisor, boot_s=BOOT_S)
    sys.setswitchinterval(daemon_module.SWITCH_INTERVAL_S)
    daemon = Daemon(folder / "state", lab, ephemeral=True)
    daemon.start()
    with ThreadPoolExecutor(len(ADDRESSES)) as pool:
        list(pool.map(partial(wake, port), ADDRESSES))
    signal.pause()


def wake(port: int, name: str) -> float:
    """Ask for a name and wait for its address; return how long it took, in seconds."""
    return ask_once(("127.0.0.1", port), f"{name}.{ZONE}", timeout_s=30).seconds


def edgewake_command(
    folder: Path, port: int, *, processes: int = 1, cold: int = WAKES
) -> list[str]:
    """Return how to run edgewake in a folder of its own."""
    folder.mkdir()
    here = [sys.executable, "-m", "benchmarks.dns_front", "--serve", str(folder)]
    return [*here, "--port", str(port), "--processes", str(processes), "--cold", str(cold)]


def nsd_command(folder: Path, port: int) -> list[str]:
    """Write a configuration for NSD with one serving process and no rate limit."""
    (folder / "nsd.zone").write_text(ZONE_FILE)
    (folder / "nsd.conf").write_text(
        f"""server:
    ip-address: 127.0.0.1@{port}
    server-count: 1
    username: ""
    chroot: ""
    zonesdir: "{folder}"
    database: ""
    pidfile: ""
    xfrdfile: "{folder}/xfrd.state"
    xfrdir: "{folder}"
    zonelistfile: "{folder}/zone.list"
    rrl-ratelimit: 0
remote-control:
    control-enable: no
zone:
    name: {ZONE}
    zonefile: nsd.zone
"""
    )
    return ["nsd", "-d", "-c", str(folder / "nsd.conf")]


# --- measuring --------------------------------------------------------------------------------


def family(pid: int) -> Iterator[int]:
    """Yield a process and all that descend from it."""
    yield pid
    for children in Path(f"/proc/{pid}/task").glob("*/children"):
        for child in children.read_text().split():
            yield from family(int(child))


def cpu_s(pid: int) -> float:
    """Return the CPU time that a process and its descendants have had, in seconds."""
    total = 0
    for each in family(pid):
        fields = Path(f"/proc/{each}/stat").read_text().rpartition(")")[2].split()
        total += int(fields[11]) + int(fields[12])  # utime and stime, proc(5)
    return total / TICKS


class Bench:
    """Where the names are, how long to measure, and on which processor the client runs."""

    def __init__(self, folder: Path, seconds: float) -> None:
        self.names = folder / "names"
        self.names.write_text("".join(f"{name}.{ZONE} A\n" for name in ADDRESSES))
        self.seconds = seconds
        cpus = sorted(os.sched_getaffinity(0))
        self.server_cpu, self.client_cpu = cpus[0], cpus[-1]

    def flat_out(self, result: Result, port: int, pid: int, form: str) -> None:
        """Ask as fast as both can; note rate and CPU time per answer."""
        before = cpu_s(pid)
        output = ask(dnsperf(port, self.names, self.seconds, *FORMS[form]), self.client_cpu)
        used_s = cpu_s(pid) - before
        result.rates.append(figure(output, "Queries per second"))
        result.cpu[form].append(used_s / figure(output, "Queries completed"))

    def steady(self, result: Result, port: int, rate: float, form: str, *more: str) -> None:
        """Ask at a rate; note latencies and losses."""
        options = ["-v", "-Q", f"{rate:.0f}", *FORMS[form], *more]
        output = ask(dnsperf(port, self.names, self.seconds, *options), self.client_cpu)
        result.latencies += latencies(output)
        result.lost += int(figure(output, "Queries lost"))


@contextlib.contextmanager
def waking(port: int, cold: int) -> Iterator[list[float]]:
    """Keep `WAKES` cold wakes in flight while the block runs; give how long each took."""
    names = iter([f"cold{number}" for number in range(cold)])
    took: list[float] = []
    stop = threading.Event()

    def work() -> None:
        while not stop.is_set() and (name := next(names, None)) is not None:
            took.append(wake(port, name))

    with ThreadPoolExecutor(WAKES) as pool:
        ended = [pool.submit(work) for _ in range(WAKES)]
        yield took
        stop.set()
    for each in ended:
        each.result()


# --- the two parts ----------------------------------------------------------------------------


def beside_others(bench: Bench, folder: Path, rounds: int) -> dict[str, Result]:
    """Measure all servers in turns."""
    results: dict[str, Result] = {}
    with contextlib.ExitStack() as stack:
        ports = {name: free_port() for name in ("edgewake", "knot", "nsd", "dnslib")}
        warm = [sys.executable, "-m", "benchmarks.dns_warm", "--serve", "dnslib"]
        commands: dict[str, Sequence[str]] = {
            "edgewake": edgewake_command(folder / "edgewake", ports["edgewake"]),
            "knot": knot_command(ports["knot"], folder),
            "nsd": nsd_command(folder, ports["nsd"]),
            "dnslib": [*warm, "--port", str(ports["dnslib"])],
        }
        pids = {
            name: stack.enter_context(running(list(command), ports[name], bench.server_cpu))
            for name, command in commands.items()
        }
        for number in range(rounds):
            for form in FORMS:
                for name, port in ports.items():
                    say(f"round {number + 1}/{rounds}: {name}, {form}")
                    result = results.setdefault(name, Result())
                    bench.flat_out(result, port, pids[name], form)
        for form in FORMS:
            for name, port in ports.items():
                say(f"half load: {name}, {form}")
                half = statistics.median(results[name].rates) / 2
                bench.steady(results[name], port, half, form)
        for name, pid in pids.items():
            results[name].memory_mib = sum(memory_mib(each) for each in family(pid))
    return results


def beside_wakes(
    bench: Bench, folder: Path, rate: float, processes: int
) -> tuple[Result, list[float]]:
    """Measure warm answers at a rate beside cold wakes; return also how long the wakes took."""
    say(f"20 cold wakes beside, processes: {processes}")
    cold = WAKES * (int(bench.seconds / BOOT_S) + 4)
    port = free_port()
    command = edgewake_command(folder / f"wakes-{processes}", port, processes=processes, cold=cold)
    result = Result()
    with running(command, port, bench.server_cpu if processes == 1 else None) as pid:
        with waking(port, cold) as took:
            bench.steady(result, port, rate, "plain", "-c", str(CLIENTS))
        result.memory_mib = sum(memory_mib(each) for each in family(pid))
    return result, took


def say(words: str) -> None:
    """Tell who waits what is being done."""
    print(words, file=sys.stderr, flush=True)


# --- the tables -------------------------------------------------------------------------------


def points(times: Sequence[float]) -> tuple[float, float]:
    """Return p50 and p99 in microseconds."""
    cuts = statistics.quantiles(times, n=100)
    return cuts[49] * 1e6, cuts[98] * 1e6


def table(results: dict[str, Result]) -> str:
    """Return what was measured of all servers as a Markdown table."""
    others = ("knot", "nsd", "dnslib")
    lines = [
        "| server | queries/s | CPU µs plain | EDNS | cookie | all | "
        + " | ".join(f"CPU / {name}" for name in others)
        + " | p50 µs at half load | p99 µs | lost | MiB |",
        "|---" * (10 + len(others)) + "|",
    ]
    for name, result in results.items():
        p50, p99 = points(result.latencies)
        cells = [
            name,
            f"{statistics.median(result.rates):,.0f}",
            *(f"{statistics.median(times) * 1e6:.2f}" for times in result.cpu.values()),
            f"{result.cpu_us:.2f}",
            *(f"{result.cpu_us / results[other].cpu_us:.2f}" for other in others),
            f"{p50:,.0f}",
            f"{p99:,.0f}",
            str(result.lost),
            f"{result.memory_mib:.0f}",
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def benchmark(seconds: float, rounds: int) -> None:
    """Run everything and print the tables."""
    for program, package in TOOLS.items():
        if shutil.which(program) is None:
            sys.exit(f"{program} is missing: apt-get install {package}")
    with tempfile.TemporaryDirectory(prefix="edgewake-bench-") as name:
        folder = Path(name)
        bench = Bench(folder, seconds)
        results = beside_others(bench, folder, rounds)
        print(table(results), end="\n\n")
        half = statistics.median(results["edgewake"].rates) / 2
        print(
            "| 20 cold wakes in flight beside | queries/s | p50 µs | p99 µs | lost | wakes |"
            " wake p50 ms | p99 ms | MiB |\n" + "|---" * 9 + "|"
        )
        for processes in (1, 2):
            result, took = beside_wakes(bench, folder, half, processes)
            p50, p99 = points(result.latencies)
            cold50, cold99 = (cut / 1000 for cut in points(took))
            print(
                f"| processes: {processes} | {half:,.0f} | {p50:,.0f} | {p99:,.0f} | {result.lost}"
                f" | {len(took)} | {cold50:,.0f} | {cold99:,.0f} | {result.memory_mib:.0f} |"
            )
    print(f"\n{os.cpu_count()} processors; {rounds} rounds of {seconds:g} s")


def main() -> None:
    """Run the benchmark, or be one of its servers."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--seconds", type=float, default=4.0, help="length of each measurement")
    parser.add_argument("--rounds", type=int, default=3)
    for name, kind in (("--serve", Path), ("--port", int), ("--processes", int), ("--cold", int)):
        parser.add_argument(name, type=kind, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.serve:
        serve_edgewake(args.serve, args.port, args.processes, args.cold)
    benchmark(args.seconds, args.rounds)


if __name__ == "__main__":
    main()

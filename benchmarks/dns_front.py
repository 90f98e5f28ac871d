"""The DNS front with all of edgewake behind it, beside knot, nsd and dnslib's server, in one run.

edgewake is a whole daemon here, with a lab of hosts in memory, 40 services awake and some that
sleep. Three figures are taken of each server, in turns: its highest rate, the CPU time that a warm
query costs it (utime and stime of all its processes, over the answers that dnsperf counted), and
latencies at half of that rate. Queries are plain, with EDNS, and with EDNS and a cookie, in turns.
The same edgewake is also asked for services with three copies each, named in turn, and for others
that name the copy nearest to the client's population first.
Then warm names are asked of edgewake at half of its own rate, while 20 cold wakes are in flight all
the time, each with a boot of 0.3 s; with one process and with two, which share all processors. Knot
is asked beside such wakes as well: its latencies then are those of the machine.

    python -m benchmarks.dns_front --seconds 4 --rounds 3
"""

import argparse
import contextlib
import gc
import os
import shutil
import signal
import statistics
import sys
import tempfile
import threading
import time
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

COPIES = 3
SEVERAL = tuple(f"many{number}" for number in range(len(ADDRESSES)))  # each with COPIES, in turn
NEAREST = tuple(f"near{number}" for number in range(len(ADDRESSES)))  # the same, by population
SITES = (
    "routers: {r0: {}}\nlinks:\n"
    + "".join(
        f"  - {{between: [r0, box{number or ''}], latency: {3 - number} ms, bandwidth: 1 Gbit/s}}\n"
        for number in range(COPIES)
    )
    + "clients:\n  here: {subnets: [127.0.0.0/8], router: r0}\n"
)
HOSTS = "".join(
    f"""  box{number}:
    uri: memory:///
    capacity: {{cpu: 1000, memory: 500 GiB}}
    network: {{name: edgewake-bench{number}, subnet: 10.{213 + number}.0.0/16,
              gateway: 10.{213 + number}.0.1, pool: 10.{213 + number}.1.0-10.{213 + number}.9.250,
              create: true, bridge: ewbench{number}}}
"""
    for number in range(1, COPIES)
)
KNOT = "knot, beside the wakes of processes: 1"
WAKES = 20
BOOT_S = 0.3
CLIENTS = 16  # sockets of dnsperf: the kernel spreads them over the processes of a port
MANY = f"edgewake, {COPIES} copies"
NEAR = f"{MANY}, by population"
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
    head = head.replace("dns:\n", f"dns:\n  processes: {processes}\n")
    head = head.replace("images:\n", f"{HOSTS}{SITES}images:\n")
    several = "".join(
        f"  {name}: {{replicas: {COPIES}, answer: {answer}}}\n"
        for names, answer in ((SEVERAL, "rotated"), (NEAREST, "ordered"))
        for name in names
    )
    names = [*ADDRESSES, *(f"cold{number}" for number in range(cold))]
    lab = folder / "lab.yaml"
    lab.write_text(head + several + "".join(f"  {name}: {{}}\n" for name in names))
    build(folder / "state" / "images" / "linux-microvm")
    # The one thing that is not as in `edgewake up`: hosts in memory that take their time to boot.
    daemon_module.__dict__["MemoryHypervisor"] = partial(MemoryHypervisor, boot_s=BOOT_S)
    sys.setswitchinterval(daemon_module.SWITCH_INTERVAL_S)
    daemon = Daemon(folder / "state", lab, ephemeral=True)
    daemon.start()
    with ThreadPoolExecutor(len(ADDRESSES)) as pool:
        list(pool.map(partial(wake, port), (*ADDRESSES, *SEVERAL, *NEAREST)))
    serving = daemon.orchestrator.fleet.serving
    while not all(len(serving(name)) == COPIES for name in (*SEVERAL, *NEAREST)):
        time.sleep(0.1)
    gc.collect()
    gc.freeze()
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
        self.names, self.several, self.nearest = (
            folder / name for name in ("names", "several", "nearest")
        )
        files = {self.names: ADDRESSES, self.several: SEVERAL, self.nearest: NEAREST}
        for path, names in files.items():
            path.write_text("".join(f"{name}.{ZONE} A\n" for name in names))
        self.seconds = seconds
        cpus = sorted(os.sched_getaffinity(0))
        self.server_cpu, self.client_cpu = cpus[0], cpus[-1]

    def flat_out(self, result: Result, port: int, pid: int, form: str, names: Path) -> None:
        """Ask as fast as both can; note rate and CPU time per answer."""
        before = cpu_s(pid)
        output = ask(dnsperf(port, names, self.seconds, *FORMS[form]), self.client_cpu)
        used_s = cpu_s(pid) - before
        result.rates.append(figure(output, "Queries per second"))
        result.cpu[form].append(used_s / figure(output, "Queries completed"))

    def steady(
        self, result: Result, port: int, rate: float, form: str, names: Path, *more: str
    ) -> None:
        """Ask at a rate; note latencies and losses."""
        options = ["-v", "-Q", f"{rate:.0f}", *FORMS[form], *more]
        output = ask(dnsperf(port, names, self.seconds, *options), self.client_cpu)
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
        rows = {"edgewake": ("edgewake", bench.names), MANY: ("edgewake", bench.several)}
        rows[NEAR] = "edgewake", bench.nearest
        rows |= {name: (name, bench.names) for name in ports}
        for number in range(rounds):
            for form in FORMS:
                for row, (name, names) in rows.items():
                    say(f"round {number + 1}/{rounds}: {row}, {form}")
                    result = results.setdefault(row, Result())
                    bench.flat_out(result, ports[name], pids[name], form, names)
        for form in FORMS:
            for row, (name, names) in rows.items():
                say(f"half load: {row}, {form}")
                half = statistics.median(results[row].rates) / 2
                bench.steady(results[row], ports[name], half, form, names)
        for row, (name, _) in rows.items():
            results[row].memory_mib = sum(memory_mib(each) for each in family(pids[name]))
    return results


@dataclass
class Beside(Result):
    """What was measured beside wakes, and how long those took, in seconds."""

    wakes: list[float] = field(default_factory=list)


def beside_wakes(bench: Bench, folder: Path, rate: float, rounds: int) -> dict[str, Beside]:
    """Measure warm answers at a rate beside cold wakes, in turns.

    Those of knot, with the wakes of an edgewake beside it, tell what the machine itself does.
    """
    rows = {"processes: 1": 1, "processes: 2": 2, KNOT: 1}
    results = {row: Beside() for row in rows}
    for number in range(rounds):
        for row, processes in rows.items():
            say(f"20 cold wakes beside, {number + 1}/{rounds}: {row}")
            here = folder / f"wakes-{number}-{processes}-{row == KNOT}"
            measure_beside(bench, results[row], here, rate, processes, knot=row == KNOT)
    return results


def measure_beside(
    bench: Bench, result: Beside, folder: Path, rate: float, processes: int, *, knot: bool
) -> None:
    """Measure one round of edgewake, or of knot beside an edgewake, with 20 wakes in flight."""
    cold = WAKES * (int(bench.seconds / BOOT_S) + 4)
    port = asked = free_port()
    cpu = bench.server_cpu if processes == 1 else None
    command = edgewake_command(folder, port, processes=processes, cold=cold)
    with contextlib.ExitStack() as stack:
        pid = stack.enter_context(running(command, port, cpu))
        if knot:
            asked = free_port()
            pid = stack.enter_context(running(knot_command(asked, folder), asked, None))
        with waking(port, cold) as took:
            bench.steady(result, asked, rate, "plain", bench.names, "-c", str(CLIENTS))
        result.wakes += took
        result.memory_mib = sum(memory_mib(each) for each in family(pid))


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
    others = ("edgewake", "knot", "nsd", "dnslib")
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
        for row, result in beside_wakes(bench, folder, half, rounds).items():
            p50, p99 = points(result.latencies)
            cold = " | ".join(f"{cut / 1000:,.0f}" for cut in points(result.wakes))
            print(
                f"| {row} | {half:,.0f} | {p50:,.0f} | {p99:,.0f} | {result.lost}"
                f" | {len(result.wakes)} | {cold} | {result.memory_mib:.0f} |"
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

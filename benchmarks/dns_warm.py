"""Warm DNS answers: edgewake beside dnslib's own server and Knot DNS, in one run.

Every server serves the same names from one core, dnsperf asks from another. Throughput is taken
flat out, p50 and p99 at a steady rate that all of them can keep up with. The rounds are interleaved
(server by server, with and without EDNS), so that a busy machine is unfair to all alike. A last row
asks edgewake for warm names while somebody floods it with names that do not exist.

    python benchmarks/dns_warm.py --seconds 5
"""
# mypy: disable-error-code="no-untyped-call"
# dnslib, which is measured here, has no annotations.

import argparse
import contextlib
import os
import re
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import Future
from dataclasses import dataclass, field
from ipaddress import IPv4Address
from pathlib import Path

from dnslib import DNSRecord
from dnslib.server import DNSServer
from dnslib.zoneresolver import ZoneResolver

from dns_boot.resolver import Resolver
from dns_boot.server import DnsServer
from orchestrator.model import (
    Capacity,
    Client,
    DnsSettings,
    Endpoint,
    Probe,
    ProbeKind,
    Service,
)
from orchestrator.steering.base import Route
from orchestrator.summons import Summons

ZONE = "edge.test"
ADDRESSES = {f"web{number}": IPv4Address(f"10.9.0.{number + 1}") for number in range(20)}
LATENCY_RATE = 1500  # queries per second; dnslib's server keeps up with three times that
FLOOD_RATE = 20_000  # several times what the slow path can do
START_S = 60.0
ZONE_FILE = f"""$ORIGIN {ZONE}.
$TTL 10
@ IN SOA ns hostmaster 1 86400 7200 3600000 5
@ IN NS ns
ns IN A 127.0.0.1
""" + "".join(f"{name} IN A {address}\n" for name, address in ADDRESSES.items())
TOOLS = {"dnsperf": "dnsperf", "knotd": "knot"}  # program: its Debian package


@dataclass
class Result:
    """What was measured of one server: queries per second, and latencies in seconds."""

    rates: list[float] = field(default_factory=list)
    latencies: list[float] = field(default_factory=list)
    lost: int = 0
    memory_mib: float = 0.0


# --- the servers ------------------------------------------------------------------------------


class Awake:
    """A summoner whose services are all awake."""

    def __init__(self) -> None:
        self.asked: dict[str, float] = {}

    def summon(self, service: str, client: Client, asked_at: float = 0.0) -> Summons:
        """Return the service's endpoint at once."""
        del client, asked_at
        ended: Future[tuple[Endpoint, ...]] = Future()
        ended.set_result((endpoint(service),))
        return Summons(ended)


def endpoint(service: str) -> Endpoint:
    """Return where a service of this benchmark is."""
    return Endpoint(service, f"ew-bench-{service}-0", "host", ADDRESSES[service], ttl_s=10)


def serve_edgewake(port: int) -> None:
    """Serve the names with edgewake until the process ends."""
    resolver = Resolver(DnsSettings(ZONE), tuple, Awake())
    resolver.set(
        [
            Route(
                Service(
                    name, (f"{name}.{ZONE}",), ("image",), Capacity(1, 64), Probe(ProbeKind.TCP)
                ),
                (endpoint(name),),
            )
            for name in ADDRESSES
        ]
    )
    DnsServer(resolver, "127.0.0.1", port).start()


def serve_dnslib(port: int) -> None:
    """Serve the names with dnslib's server, as its documentation shows it."""
    DNSServer(
        ZoneResolver(ZONE_FILE), address="127.0.0.1", port=port, logger=Silent()
    ).start_thread()


class Silent:
    """A logger for dnslib's server that logs nothing."""

    def __getattr__(self, name: str) -> object:
        return lambda *_: None


def knot_command(port: int, folder: Path) -> list[str]:
    """Write a configuration for Knot DNS; return how to run it."""
    (folder / "edge.zone").write_text(ZONE_FILE)
    (folder / "knot.conf").write_text(
        f"""server:
    rundir: "{folder}"
    listen: 127.0.0.1@{port}
    udp-workers: 1
    tcp-workers: 1
    background-workers: 1
log:
  - target: stderr
    any: error
database:
    storage: "{folder}"
zone:
  - domain: {ZONE}
    storage: "{folder}"
    file: edge.zone
    zonefile-sync: -1
    journal-content: none
"""
    )
    return ["knotd", "-c", str(folder / "knot.conf")]


@contextlib.contextmanager
def running(command: list[str], port: int, cpu: int | None) -> Iterator[int]:
    """Run a server on one processor, None for any, until the block ends; give its process id."""
    with contextlib.nullcontext() if cpu is None else on_cpu(cpu):
        server = subprocess.Popen(command)
    try:
        wait_for_answer(port, server)
        yield server.pid
    finally:
        server.send_signal(signal.SIGTERM)
        try:
            server.wait(timeout=START_S)
        except subprocess.TimeoutExpired:
            server.kill()
            server.wait()


@contextlib.contextmanager
def on_cpu(cpu: int) -> Iterator[None]:
    """Have the processes started in this block run on one processor."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {cpu})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def wait_for_answer(port: int, server: subprocess.Popen[bytes]) -> None:
    """Wait until a server answers for one of the names."""
    deadline = time.monotonic() + START_S
    query = DNSRecord.question(f"web0.{ZONE}")
    while time.monotonic() < deadline and server.poll() is None:
        with contextlib.suppress(OSError):
            reply = DNSRecord.parse(query.send("127.0.0.1", port, timeout=0.5))
            if reply.rr:
                return
        time.sleep(0.05)
    sys.exit(f"{server.args!r} did not answer on port {port} within {START_S:g} s")


def free_port() -> int:
    """Return a port of the loopback that nobody uses over UDP."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


# --- dnsperf ----------------------------------------------------------------------------------


def dnsperf(port: int, names: Path, seconds: float, *options: str) -> list[str]:
    """Return the command line of dnsperf for these names."""
    base = ["dnsperf", "-s", "127.0.0.1", "-p", str(port), "-d", str(names), "-l", f"{seconds:g}"]
    return [*base, "-t", "1", *options]


def ask(command: list[str], cpu: int) -> str:
    """Run dnsperf on one processor and return what it printed."""
    with on_cpu(cpu):
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def figure(output: str, what: str) -> float:
    """Return a number from dnsperf's statistics."""
    found = re.search(rf"{what}:\s+([\d.]+)", output)
    if found is None:
        sys.exit(f"dnsperf printed no {what!r}:\n{output}")
    return float(found.group(1))


def latencies(output: str) -> list[float]:
    """Return the latency of each answered query, in seconds."""
    return [float(found) for found in re.findall(r"^> NOERROR \S+ \S+ ([\d.]+)$", output, re.M)]


def measure(
    result: Result, port: int, names: Path, seconds: float, *, edns: bool, cpu: int
) -> None:
    """Measure one server for one round."""
    options = ["-e"] if edns else []
    output = ask(dnsperf(port, names, seconds, *options), cpu)
    result.rates.append(figure(output, "Queries per second"))
    steady(result, port, names, seconds, *options, cpu=cpu)


def steady(result: Result, port: int, names: Path, seconds: float, *options: str, cpu: int) -> None:
    """Measure latencies and losses at the steady rate."""
    output = ask(dnsperf(port, names, seconds, "-v", "-Q", str(LATENCY_RATE), *options), cpu)
    result.latencies += latencies(output)
    result.lost += int(figure(output, "Queries lost"))


def measure_flooded(port: int, folder: Path, seconds: float, cpu: int) -> Result:
    """Measure warm answers while names that do not exist are asked for as well."""
    (folder / "flood").write_text("".join(f"r{n}.{ZONE} A\n" for n in range(50_000)))
    result = Result()
    command = dnsperf(port, folder / "flood", seconds + 2, "-q", "10000", "-Q", str(FLOOD_RATE))
    with on_cpu(cpu):
        flood = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    time.sleep(1)
    steady(result, port, folder / "names", seconds, cpu=cpu)
    flood.wait()
    return result


def memory_mib(pid: int) -> float:
    """Return the resident memory of a process."""
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.partition("VmRSS:")[2].split()[0]) / 1024


# --- the table --------------------------------------------------------------------------------


def table(results: dict[str, Result]) -> str:
    """Return all results as a Markdown table, with the ratios to the other two."""
    rates = {name: statistics.median(r.rates) for name, r in results.items() if r.rates}
    lines = [
        "| server | queries/s | p50 µs | p99 µs | lost | MiB | rate / dnslib | rate / knot |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for name, result in results.items():
        points = statistics.quantiles(result.latencies, n=100)
        rate = rates.get(name)
        cells = [
            f"{rate:,.0f}" if rate else "",
            f"{points[49] * 1e6:,.0f}",
            f"{points[98] * 1e6:,.0f}",
            str(result.lost),
            f"{result.memory_mib:.0f}" if result.memory_mib else "",
            *(f"{rate / rates[other]:.2f}" if rate else "" for other in ("dnslib", "knot")),
        ]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines)


def benchmark(seconds: float, rounds: int) -> None:
    """Run everything and print the table."""
    for program, package in TOOLS.items():
        if shutil.which(program) is None:
            sys.exit(f"{program} is missing: apt-get install {package}")
    cpus = sorted(os.sched_getaffinity(0))
    server_cpu, client_cpu = cpus[0], cpus[-1]
    results: dict[str, Result] = {}
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        (folder / "names").write_text("".join(f"{name}.{ZONE} A\n" for name in ADDRESSES))
        ports = {name: free_port() for name in ("edgewake", "dnslib", "knot")}
        commands = {
            name: [sys.executable, __file__, "--serve", name, "--port", str(ports[name])]
            for name in ("edgewake", "dnslib")
        }
        commands["knot"] = knot_command(ports["knot"], folder)
        pids = {
            name: stack.enter_context(running(command, ports[name], server_cpu))
            for name, command in commands.items()
        }
        for number in range(rounds):
            for name, port in ports.items():
                for edns in (False, True):
                    words = "EDNS" if edns else "plain"
                    print(f"round {number + 1}/{rounds}: {name}, {words}", file=sys.stderr)
                    result = results.setdefault(name, Result())
                    measure(result, port, folder / "names", seconds, edns=edns, cpu=client_cpu)
        for name, pid in pids.items():
            results[name].memory_mib = memory_mib(pid)
        print("edgewake under a flood of random names", file=sys.stderr)
        flooded = measure_flooded(ports["edgewake"], folder, seconds, client_cpu)
        results["edgewake, flooded"] = flooded
    print(table(results))
    print(f"\n{len(cpus)} processors; p50 and p99 at {LATENCY_RATE} queries/s; {rounds} rounds")
    print(f"flooded: {FLOOD_RATE} queries/s for random names beside the warm ones")


def main() -> None:
    """Run the benchmark, or be one of its servers."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--seconds", type=float, default=5.0, help="length of each measurement")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--serve", choices=("edgewake", "dnslib"), help=argparse.SUPPRESS)
    parser.add_argument("--port", type=int, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.serve:
        {"edgewake": serve_edgewake, "dnslib": serve_dnslib}[args.serve](args.port)
        signal.pause()
    benchmark(args.seconds, args.rounds)


if __name__ == "__main__":
    main()

"""What people who look on cost those who ask for names: DNS latencies beside a busy dashboard.

A whole edgewake with hosts in memory answers warm names at a steady rate, while 50 clients hold
live event streams open and others send 200 requests a second to the API and the pages, and while
nobody does, in turns. Knot is asked beside the same edgewake and the same load: what its latencies
rise by is the machine's share: few processors, and many processes on them.

    python -m benchmarks.web_load --seconds 5 --rounds 5
"""

import argparse
import contextlib
import http.client
import itertools
import json
import os
import selectors
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.cold_path import HEAD
from benchmarks.dns_front import TOOLS, points, say, wake
from benchmarks.dns_warm import (
    ADDRESSES,
    ZONE,
    ask,
    dnsperf,
    figure,
    free_port,
    knot_command,
    latencies,
    running,
)
from images.build.linux_microvm import build
from web.door.tokens import Tokens
from web.roles import Role

STREAMS = 50
REQUESTS_S = 200
WORKERS = 8  # connections that are kept open, each with its share of the requests
DNS_RATES = (2_000, 10_000)  # queries per second
WAKING_S = 1.0  # between two services that are woken, so that the streams have something to tell
PATHS = (
    *("/api/v1/status", "/api/v1/services", "/api/v1/hosts", "/api/v1/wakes?limit=20"),
    *("/api/v1/graph", "/api/v1/events", "/api/v1/wakes/summary", "/"),
)
CLIENTS = 16  # sockets of dnsperf


@dataclass
class Latencies:
    """Of one server at one rate: seconds per answer, and answers that never came."""

    quiet: list[float] = field(default_factory=list)
    loaded: list[float] = field(default_factory=list)
    lost: int = 0


# --- the load -------------------------------------------------------------------------------------


class Load:
    """Streams and requests of one process of their own, until its standard input ends."""

    def __init__(self, port: int, token: str) -> None:
        self.headers = {"Authorization": f"Bearer {token}", "Accept": "*/*"}
        self.port = port
        self.stop = threading.Event()
        self.times: list[float] = []
        self.failed = 0
        self.streamed = 0

    def run(self) -> None:
        """Do it, and print what came of it as JSON.

        Real callers are on other machines: here they get what the servers leave of this one.
        """
        os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
        streams = [self._stream() for _ in range(STREAMS)]
        threads = [threading.Thread(target=self._ask, args=(number,)) for number in range(WORKERS)]
        threads.append(threading.Thread(target=self._read, args=(streams,)))
        for each in threads:
            each.start()
        print("ready", flush=True)
        sys.stdin.read()
        self.stop.set()
        for each in threads:
            each.join()
        for stream in streams:
            stream.close()
        told = {"requests": len(self.times), "failed": self.failed, "streamed": self.streamed}
        print(json.dumps({**told, "times": self.times}))

    def _stream(self) -> socket.socket:
        stream = socket.create_connection(("127.0.0.1", self.port), 10)
        head = "".join(f"{name}: {value}\r\n" for name, value in self.headers.items())
        line = "GET /api/v1/events/stream HTTP/1.1"
        stream.sendall(f"{line}\r\nHost: 127.0.0.1:{self.port}\r\n{head}\r\n".encode())
        answer = stream.recv(4096)
        if b" 200 " not in answer.partition(b"\r\n")[0]:
            sys.exit(f"no event stream: {answer!r}")
        return stream

    def _read(self, streams: list[socket.socket]) -> None:
        with selectors.DefaultSelector() as selector:
            for stream in streams:
                selector.register(stream, selectors.EVENT_READ)
            while not self.stop.is_set():
                for key, _ in selector.select(0.1):
                    self.streamed += len(key.fileobj.recv(1 << 16))  # type: ignore[union-attr]

    def _ask(self, number: int) -> None:
        every_s = WORKERS / REQUESTS_S
        paths = itertools.islice(itertools.cycle(PATHS), number, None)
        due = time.monotonic() + every_s * number / WORKERS
        with contextlib.closing(http.client.HTTPConnection("127.0.0.1", self.port)) as connection:
            while not self.stop.wait(max(0.0, due - time.monotonic())):
                began = time.monotonic()
                connection.request("GET", next(paths), headers=self.headers)
                answer = connection.getresponse()
                answer.read()
                self.times.append(time.monotonic() - began)
                self.failed += answer.status != 200
                due = max(due + every_s, began)


@contextlib.contextmanager
def load(port: int, token: str, told: list[dict[str, float]]) -> Iterator[None]:
    """Have a process make the load while the block runs; append what it tells at its end."""
    command = [sys.executable, "-m", "benchmarks.web_load", "--load", str(port)]
    with subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "TOKEN": token},
    ) as process:
        assert process.stdin is not None  # noqa: S101 - we asked for pipes
        assert process.stdout is not None  # noqa: S101
        if process.stdout.readline() != "ready\n":
            sys.exit("the load did not start; see above")
        began = time.monotonic()
        yield
        took_s = time.monotonic() - began
        answer = json.loads(process.communicate("")[0])
        told.append({**answer, "took_s": took_s})


# --- measuring ------------------------------------------------------------------------------------


def edgewake_command(folder: Path, dns: int, web: int, processes: int) -> list[str]:
    """Write a lab; return how to run edgewake with it."""
    head = HEAD.format(uri="memory:///", port=dns).replace("bench.test", ZONE)
    head = head.replace(
        "dns:\n", f"web: {{listen: 127.0.0.1:{web}}}\ndns:\n  processes: {processes}\n"
    )
    lab = folder / "lab.yaml"
    names = (*ADDRESSES, *(f"cold{number}" for number in range(150)))
    lab.write_text(head + "".join(f"  {name}: {{}}\n" for name in names))
    build(folder / "state" / "images" / "linux-microvm")
    state = str(folder / "state")
    return [sys.executable, "-m", "orchestrator", "--state", state, "up", str(lab), "--ephemeral"]


def waking(port: int, stop: threading.Event) -> None:
    """Wake a service every now and then."""
    for number in itertools.count():
        if stop.wait(WAKING_S):
            return
        wake(port, f"cold{number}")


def measure(result: Latencies, times: list[float], port: int, rate: int, seconds: float) -> None:
    """Ask one server at a rate; note what came of it."""
    with tempfile.NamedTemporaryFile("w", suffix=".names") as names:
        names.write("".join(f"{name}.{ZONE} A\n" for name in ADDRESSES))
        names.flush()
        command = dnsperf(
            port, Path(names.name), seconds, "-v", "-Q", str(rate), "-c", str(CLIENTS)
        )
        output = ask(command, max(os.sched_getaffinity(0)))
    times += latencies(output)
    result.lost += int(figure(output, "Queries lost"))


def benchmark(seconds: float, rounds: int, processes: int) -> None:
    """Run everything and print the tables."""
    for program, package in TOOLS.items():
        if shutil.which(program) is None:
            sys.exit(f"{program} is missing: apt-get install {package}")
    with (
        tempfile.TemporaryDirectory(prefix="edgewake-bench-") as name,
        contextlib.ExitStack() as on,
    ):
        folder = Path(name)
        dns, web, other = free_port(), free_port(), free_port()
        on.enter_context(running(edgewake_command(folder, dns, web, processes), dns, None))
        on.enter_context(running(knot_command(other, folder), other, None))
        token = Tokens(folder / "state" / "tokens.json").create("bench", Role.VIEWER)[1]
        for each in ADDRESSES:
            wake(dns, each)
        stop = threading.Event()
        on.callback(stop.set)
        threading.Thread(target=waking, args=(dns, stop), daemon=True).start()
        servers = {"edgewake": dns, "knot": other}
        results = {(server, rate): Latencies() for rate in DNS_RATES for server in servers}
        told: list[dict[str, float]] = []
        for number in range(rounds):
            say(f"round {number + 1}/{rounds}")
            for (server, rate), result in results.items():
                measure(result, result.quiet, servers[server], rate, seconds)
            with load(web, token, told):
                for (server, rate), result in results.items():
                    measure(result, result.loaded, servers[server], rate, seconds)
        print(table(results), end="\n\n")
        print(load_table(told))
    print(
        f"\n{os.cpu_count()} processors; {rounds} rounds of {seconds:g} s; processes: {processes}"
    )


def table(results: dict[tuple[str, int], Latencies]) -> str:
    """Return the latencies as a Markdown table."""
    head = "DNS server | queries/s | p50 µs | p99 µs | p50 beside | p99 beside | p99 ratio | lost"
    lines = [f"| {head} |", "|---" * 8 + "|"]
    for (server, rate), result in results.items():
        quiet, loaded = points(result.quiet), points(result.loaded)
        cells = (*(f"{each:,.0f}" for each in (*quiet, *loaded)), f"{loaded[1] / quiet[1]:.2f}")
        lines.append(f"| {server} | {rate:,} | {' | '.join(cells)} | {result.lost} |")
    return "\n".join(lines)


def load_table(told: list[dict[str, float]]) -> str:
    """Return what the load itself saw as a Markdown table."""
    times = [each for one in told for each in one["times"]]  # type: ignore[attr-defined]
    rate = len(times) / sum(one["took_s"] for one in told)
    failed, streamed = (int(sum(one[key] for one in told)) for key in ("failed", "streamed"))
    p50, p99 = points(times)
    return (
        "| streams | requests/s | failed | p50 ms | p99 ms | kB streamed |\n" + "|---" * 6 + "|\n"
        f"| {STREAMS} | {rate:.0f} | {failed} | {p50 / 1000:.1f} | {p99 / 1000:.1f}"
        f" | {streamed / 1000:,.0f} |"
    )


def main() -> None:
    """Run the benchmark, or be its load."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--seconds", type=float, default=5.0, help="length of each measurement")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--processes", type=int, default=1, help="that answer DNS")
    parser.add_argument("--load", type=int, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.load:
        Load(args.load, os.environ["TOKEN"]).run()
    else:
        benchmark(args.seconds, args.rounds, args.processes)


if __name__ == "__main__":
    main()

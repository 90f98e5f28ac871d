"""What links do to packets, for each engine that this machine has: wanted against measured.

Two namespaces with a link between them. Packets with the time in them are sent from one to the
other, at a pace that takes nothing, and at one that does; then TCP, by iperf3. All engines are
measured in turn in each round, a plain pair of veth devices among them; medians of the rounds are
shown. Needs root and iperf3.
"""

import argparse
import json
import multiprocessing
import os
import socket
import statistics
import struct
import subprocess
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from orchestrator.linux import namespaces
from orchestrator.network import LinkEngine, Quality
from orchestrator.routers.shaping import probe, shape
from orchestrator.routers.wires import End, Wire, Wires

NEAR, FAR, DEVICE = "ewbench-near", "ewbench-far", "link0"
NEAR_ADDRESS, FAR_ADDRESS = "10.197.61.1", "10.197.61.2"
PORT = 9
EASY_PER_S, HARD_PER_S = 500, 20_000
SECONDS = 2.0
SILENCE_S = 0.6

_STAMP = struct.Struct("d")
_RECEIVE_BYTES = 2**25


@dataclass(frozen=True, slots=True)
class Case:
    """A link to be measured, and who can be it."""

    text: str
    quality: Quality
    engines: tuple[LinkEngine, ...]


_EMULATORS = (LinkEngine.NETEM, LinkEngine.USER)
_ALL = (LinkEngine.NONE, *_EMULATORS)
_NARROW = (LinkEngine.SHAPER, *_EMULATORS)
CASES = (
    Case("perfect", Quality(), _ALL),
    Case("1 ms", Quality(latency_ms=1), _EMULATORS),
    Case("6 ms", Quality(latency_ms=6), _EMULATORS),
    Case("6 ± 2 ms", Quality(latency_ms=6, jitter_ms=2), _EMULATORS),
    Case("6 ms, loss 2 %", Quality(latency_ms=6, loss=0.02), _EMULATORS),
    Case("10 Mbit/s", Quality(bandwidth_mbps=10), _NARROW),
    Case("100 Mbit/s", Quality(bandwidth_mbps=100), _NARROW),
    Case("6 ms, 1000 Mbit/s", Quality(latency_ms=6, bandwidth_mbps=1000), _EMULATORS),
)


@dataclass
class Seen:
    """Packets sent one way; `late_s` has those that came, in seconds.

    `cpu_s` is of sender, receiver and the process between them, `process_cpu_s` of that alone.
    """

    sent: int
    late_s: list[float] = field(default_factory=list)
    cpu_s: float = 0.0
    process_cpu_s: float = 0.0

    def share_lost(self) -> float:
        """Return the share of packets that did not come."""
        return 1 - len(self.late_s) / self.sent

    def percentile_ms(self, percent: int) -> float:
        """Return a percentile of the latency."""
        return statistics.quantiles(self.late_s, n=100)[percent - 1] * 1000


# --- the link -------------------------------------------------------------------------------------


@contextmanager
def link(quality: Quality, engine: LinkEngine, folder: Path) -> Iterator[Wires]:
    """Make two namespaces and a link between them; yield who knows of our process, if it runs."""
    wires = Wires(folder, "benchmark")
    with ExitStack() as undo:
        for name in (NEAR, FAR):
            namespaces.make(name)
            undo.callback(namespaces.remove, name)
        if engine is LinkEngine.USER:
            for name in (NEAR, FAR):
                ip("-n", name, "tuntap", "add", "dev", DEVICE, "mode", "tap")
            undo.callback(wires.set, ())
        else:
            ends = ["type", "veth", "peer", "name", DEVICE, "netns", FAR]
            ip("-n", NEAR, "link", "add", DEVICE, *ends)
        for name, address in ((NEAR, NEAR_ADDRESS), (FAR, FAR_ADDRESS)):
            ip("-n", name, "addr", "add", f"{address}/24", "dev", DEVICE)
            ip("-n", name, "link", "set", DEVICE, "up")
            if engine not in {LinkEngine.USER, LinkEngine.NONE}:
                with namespaces.netlink(name) as netlink:
                    (index,) = netlink.link_lookup(ifname=DEVICE)
                    shape(netlink, index, quality, engine)
        if engine is LinkEngine.USER:
            wires.set((Wire("near--far", End(NEAR, DEVICE), End(FAR, DEVICE), quality),))
        yield wires


def ip(*words: str) -> None:
    """Run one `ip` command."""
    subprocess.run(["ip", *words], check=True, capture_output=True)


# --- packets --------------------------------------------------------------------------------------


def packets(wires: Wires, per_s: int, seconds: float) -> Seen:
    """Send packets with the time in them at a steady pace, and return what came of them."""
    context = multiprocessing.get_context("fork")
    ours, theirs = context.Pipe()
    receiver = context.Process(target=_receive, args=(theirs,))
    receiver.start()
    ours.recv()
    before = _cpu_s(wires)
    seen = Seen(int(per_s * seconds))
    began = time.process_time()
    namespaces.inside(NEAR, lambda: _send(per_s, seen.sent))
    seen.cpu_s = time.process_time() - began
    seen.late_s, receiver_cpu_s = ours.recv()
    seen.process_cpu_s = _cpu_s(wires) - before
    seen.cpu_s += receiver_cpu_s + seen.process_cpu_s
    receiver.join()
    return seen


def _send(per_s: int, count: int) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        sender.connect((FAR_ADDRESS, PORT))
        sender.send(b"")  # so that ARP is done with
        time.sleep(SILENCE_S)
        began = time.monotonic()
        sent = 0
        while sent < count:
            wanted = min(count, 1 + int((time.monotonic() - began) * per_s))
            for _ in range(wanted - sent):
                sender.send(_STAMP.pack(time.monotonic()))
            sent = wanted
            time.sleep(max(0.0, began + sent / per_s - time.monotonic()))


def _receive(theirs: Connection) -> None:
    def work() -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as receiver:
            receiver.setsockopt(socket.SOL_SOCKET, 33, _RECEIVE_BYTES)  # SO_RCVBUFFORCE
            receiver.bind((FAR_ADDRESS, PORT))
            theirs.send("ready")
            receiver.recv(64)
            began = time.process_time()
            receiver.settimeout(2 * SILENCE_S)
            late = []
            try:
                while True:
                    stamp = receiver.recv(64)
                    late.append(time.monotonic() - _STAMP.unpack(stamp)[0])
            except TimeoutError:
                theirs.send((late, time.process_time() - began))

    namespaces.inside(FAR, work)


def _cpu_s(wires: Wires) -> float:
    """Return the processor time of the user-space links' process, 0 if there is none."""
    process = wires.process()
    if not process:
        return 0.0
    fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def tcp_mbps(seconds: float) -> float:
    """Return what one TCP connection carries."""
    return float(iperf3(seconds)["sum_received"]["bits_per_second"]) / 1e6


def most_per_s(seconds: float) -> float:
    """Return how many small packets arrive when they are sent as fast as can be."""
    told = iperf3(seconds, "-u", "-b", "0", "-l", "64")["sum"]
    return float(told["packets"]) * (1 - float(told["lost_percent"]) / 100) / seconds


def iperf3(seconds: float, *words: str) -> Any:
    """Return the end of what iperf3 says."""
    inside = ["ip", "netns", "exec"]
    with subprocess.Popen([*inside, FAR, "iperf3", "-s", "-1"], stdout=subprocess.DEVNULL) as far:
        time.sleep(0.5)
        argv = [*inside, NEAR, "iperf3", "-c", FAR_ADDRESS, *words, "-J", "-t", f"{seconds:g}"]
        told = subprocess.run(argv, capture_output=True, text=True, check=True).stdout
        far.wait()
    return json.loads(told)["end"]


# --- the tables -----------------------------------------------------------------------------------

Row = dict[str, float]


def measured(case: Case, engine: LinkEngine) -> Row:
    """Measure a link once."""
    with tempfile.TemporaryDirectory() as folder, link(case.quality, engine, Path(folder)) as wires:
        easy = packets(wires, EASY_PER_S, SECONDS)
        row = {
            "p50": easy.percentile_ms(50),
            "p99": easy.percentile_ms(99),
            "least": min(easy.late_s) * 1000,
            "spread": (easy.percentile_ms(98) - easy.percentile_ms(2)) / 2,
            "lost": easy.share_lost() * 100,
            "tcp": tcp_mbps(SECONDS),
        }
        mbps = case.quality.bandwidth_mbps
        if mbps is None or mbps >= 100:
            hard = packets(wires, HARD_PER_S, SECONDS)
            row |= {
                "hard lost": hard.share_lost() * 100,
                "hard p50": hard.percentile_ms(50),
                "hard p99": hard.percentile_ms(99),
                "cpu": hard.cpu_s / hard.sent * 1e6,
                "process": hard.process_cpu_s / hard.sent * 1e6,
                "most": most_per_s(SECONDS) / 1000,
            }
        return row


COLUMNS = {
    "least": "least ms",
    "p50": "p50",
    "p99": "p99",
    "spread": "± ms",
    "lost": "lost %",
    "tcp": "TCP Mbit/s",
    "hard lost": f"lost % at {HARD_PER_S // 1000}k/s",
    "hard p50": "p50 ms",
    "hard p99": "p99",
    "most": "most k/s",
    "process": "process µs/packet",
    "cpu": "CPU µs/packet",
}


def show(rows: dict[tuple[str, LinkEngine], list[Row]]) -> None:
    """Print medians; CPU also as a ratio to the plain pair of devices."""
    table = Table("link", "engine", *COLUMNS.values(), "x veth", title="links")
    plain = rows["perfect", LinkEngine.NONE]
    veth = statistics.median(row["cpu"] for row in plain)
    for (text, engine), found in rows.items():
        middle = {
            name: statistics.median(row[name] for row in found) if name in found[0] else None
            for name in COLUMNS
        }
        cpu = middle["cpu"]
        table.add_row(
            text,
            engine,
            *("" if value is None else f"{value:.3g}" for value in middle.values()),
            "" if cpu is None else f"{cpu / veth:.1f}",
        )
    Console(width=160).print(table)


def main() -> None:
    """Measure, and print the table."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--rounds", type=int, default=3)
    options.add_argument("--only", help="measure only links whose text contains this, and perfect")
    asked = options.parse_args()
    usable = [engine for engine, reason in probe().items() if not reason]
    rows: dict[tuple[str, LinkEngine], list[Row]] = defaultdict(list)
    for _ in range(asked.rounds):
        for case in CASES:
            if asked.only and asked.only not in case.text and case.text != "perfect":
                continue
            for engine in case.engines:
                if engine in usable:
                    rows[case.text, engine].append(measured(case, engine))
    show(rows)


if __name__ == "__main__":
    main()

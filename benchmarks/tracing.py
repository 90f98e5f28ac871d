"""What tracing costs a wake: the same cold wakes with stamps and without, in turn, in one run.

Wakes run on a hypervisor in memory, which builds and answers in no time: what is left is our own
time, so the ratio is to that; a real wake takes about a thousand times as long. Without stamps
means: no trace is kept, no stamp set, no arrival asked of the kernel, no guest watched. The second
table has the parts by themselves, and what they come to per wake.
"""

import argparse
import logging
import random
import socket
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path
from unittest.mock import patch

from rich.console import Console
from rich.table import Table

from benchmarks.cold_path import running
from dns_boot import server
from dns_boot.arrivals import arrived_at, note_arrivals
from dns_boot.query import ask
from orchestrator.daemon import Daemon
from orchestrator.frames import Frames
from orchestrator.metrics import WakeMetrics
from orchestrator.model import GuestNetwork, Instance, InstanceState, mac_of
from orchestrator.trace import STAGES, Wakes, WakeTrace
from orchestrator.wake_context import working_for

log = logging.getLogger("orchestrator.benchmark")
log.setLevel(logging.INFO)

STAMPS = 10  # of a cold wake by DNS, beside the two it begins with
BLOCKS = 4  # in which a thread works for it: asked, carried, journaled, replied
LINES = 7  # of the log, from debug on
RUNS = 20_000
RESAMPLES = 400
SETTLE_S = 0.002  # what is done after the reply, such as a line of the journal
SUBNET = IPv4Network("192.0.2.0/24")  # RFC 5737: nobody has it, as with hosts elsewhere


class Silent(WakeTrace):
    """A trace that notes nothing."""

    def stamp(self, stage: str, at: float = 0.0) -> None:
        """Do nothing."""


class Switch:
    """Turns the tracing of a running edgewake off and on."""

    def __init__(self, daemon: Daemon) -> None:
        self.on = True
        waker = daemon.orchestrator._waker  # a measurement, not a program
        begin, watch, arrived = daemon.orchestrator.wakes.begin, waker._watch, arrived_at
        self.patches = (
            patch.object(
                daemon.orchestrator.wakes,
                "begin",
                lambda *about: begin(*about) if self.on else Silent(*about),
            ),
            patch.object(waker, "_watch", lambda *about: watch(*about) if self.on else None),
            patch.object(server, "arrived_at", lambda sock: arrived(sock) if self.on else 0.0),
        )


@dataclass(frozen=True, slots=True)
class Took:
    """Seconds at the client of one wake, and of processor time in all threads of the process."""

    wall: float
    cpu: float


def wakes_in_turn(folder: Path, services: int) -> tuple[list[Took], list[Took]]:
    """Return what wakes took with tracing and without, every other one."""
    took: dict[bool, list[Took]] = {True: [], False: []}
    with running(folder, "memory:///", services) as daemon:
        switch = Switch(daemon)
        for each in switch.patches:
            each.start()
        try:
            for number in range(services):
                switch.on = number % 4 in {0, 3}  # each goes first as often as second
                before = time.process_time()
                reply = ask(daemon.dns_address, f"s{number}.bench.test", timeout_s=35)
                time.sleep(SETTLE_S)
                took[switch.on].append(Took(reply.seconds, time.process_time() - before))
        finally:
            for each in switch.patches:
                each.stop()
    return took[True], took[False]


def interval(traced: list[float], untraced: list[float]) -> tuple[float, float]:
    """Return the 95 % bootstrap interval of the ratio of the medians."""
    chance = random.Random(1)  # noqa: S311 - no secret
    ratios = sorted(
        statistics.median(chance.choices(traced, k=len(traced)))
        / statistics.median(chance.choices(untraced, k=len(untraced)))
        for _ in range(RESAMPLES)
    )
    return ratios[RESAMPLES // 40], ratios[-RESAMPLES // 40 - 1]


def compare(table: Table, what: str, traced: list[float], untraced: list[float]) -> None:
    """Add a line for wakes with tracing and one for those without."""
    base = statistics.median(untraced)
    low, high = interval(traced, untraced)
    for name, seconds in ((f"{what}, traced", traced), (f"{what}, not", untraced)):
        p50, p95 = statistics.median(seconds), statistics.quantiles(seconds, n=20)[-1]
        shown = f"{low:.3f} to {high:.3f}" if seconds is traced else ""
        table.add_row(name, f"{p50 * 1e6:.0f}", f"{p95 * 1e6:.0f}", f"{p50 / base:.3f}", shown)


def each_ns(work: Callable[[], object]) -> float:
    """Return nanoseconds that a call takes: the least of five means, the loop taken off."""
    return min(_mean_ns(work) for _ in range(5)) - min(_mean_ns(_nothing) for _ in range(5))


def _nothing() -> None:
    """Cost what calling costs."""


def _mean_ns(work: Callable[[], object]) -> float:
    began = time.perf_counter_ns()
    for _ in range(RUNS):
        work()
    return (time.perf_counter_ns() - began) / RUNS


def parts() -> dict[str, float]:
    """Return what each part costs, in nanoseconds."""
    wakes, silent, watcher = Wakes(), WakeTrace("web"), Frames()
    address = IPv4Address("192.0.2.2")
    network = GuestNetwork("net", SUBNET, SUBNET[1], SUBNET[2], SUBNET[9])
    instance = Instance(
        name="ew",
        service="web",
        host="a",
        address=address,
        address6=None,
        mac=mac_of(address),
        state=InstanceState.BOOTING,
        created_at=0.0,
    )
    watcher._places[SUBNET] = "", time.monotonic() + 3600  # a host elsewhere
    with (
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as ours,
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as theirs,
    ):
        ours.bind(("127.0.0.1", 0))
        note_arrivals(ours)
        theirs.sendto(b"query", ours.getsockname())
        ours.recv(9)
        found = {
            "the kernel's time of a query": each_ns(lambda: arrived_at(ours)),
            "a trace begun": each_ns(lambda: wakes.begin("web", 1.0)),
            "one stamp": each_ns(lambda: _stamped(silent)),
            "a block that works for a wake": each_ns(lambda: _working_for(silent)),
            "a log line that is not written": each_ns(lambda: log.debug("%s %s", "a", "b")),
            "counted for Prometheus, on another thread": each_ns(_counting(wakes)),
            "a guest of a host elsewhere": each_ns(
                lambda: watcher.watch(network, instance, silent)
            ),
        }
        watcher._places.clear()  # and now one that is to be watched
        found["a guest to be watched, handed over"] = each_ns(
            lambda: _handed_over(watcher, network, instance, silent)
        )
    watcher.close()
    return found


def _counting(wakes: Wakes) -> Callable[[], object]:
    """Return what is done with a wake that is over."""
    trace, metrics = wakes.begin("web", 1.0), WakeMetrics()
    for stage in tuple(STAGES)[2 : 2 + STAMPS]:
        trace.stamp(stage)
    return lambda: metrics(trace.wake(1))


def _handed_over(
    watcher: Frames, network: GuestNetwork, instance: Instance, trace: WakeTrace
) -> None:
    watcher.watch(network, instance, trace)
    watcher._new.clear()


def _working_for(trace: WakeTrace) -> None:
    with working_for(trace):
        pass


def _stamped(trace: WakeTrace) -> None:
    trace.stamp("taken")
    trace._stamps.clear()  # or a million of them would be kept


def whole(costs: dict[str, float]) -> float:
    """Return what tracing costs a wake in all, in seconds."""
    dearest = max(cost for name, cost in costs.items() if name.startswith("a guest"))
    return 1e-9 * (
        costs["the kernel's time of a query"]
        + costs["a trace begun"]
        + STAMPS * costs["one stamp"]
        + BLOCKS * costs["a block that works for a wake"]
        + LINES * costs["a log line that is not written"]
        + dearest
    )


def main() -> None:
    """Print both tables."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--services", type=int, default=200, help="wakes of a round (200)")
    options.add_argument("--rounds", type=int, default=10, help="rounds (10)")
    chosen = options.parse_args()
    out = Console()
    with tempfile.TemporaryDirectory(prefix="edgewake-bench-") as folder:
        rounds = [wakes_in_turn(Path(folder), chosen.services) for _ in range(chosen.rounds)]
    traced, untraced = (
        [took for each in some for took in each] for some in zip(*rounds, strict=True)
    )
    table = Table("cold wakes in memory", "p50 µs", "p95 µs", "x without", "95 % interval of that")
    walls = [each.wall for each in traced], [each.wall for each in untraced]
    compare(table, "at the client", *walls)
    compare(table, "processor time", [t.cpu for t in traced], [t.cpu for t in untraced])
    out.print(table)
    base = statistics.median(walls[1])
    costs = parts()
    by_part = Table("part", "ns")
    for name, cost in costs.items():
        by_part.add_row(name, f"{cost:.0f}")
    total_s = whole(costs)
    by_part.add_row(f"a wake: {STAMPS} stamps and one of each", f"{total_s * 1e9:.0f}")
    out.print(by_part, f"that is {total_s / base:.2%} of our own time", sep="\n")


if __name__ == "__main__":
    main()

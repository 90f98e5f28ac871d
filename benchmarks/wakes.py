"""Wakes from every rung of the ladder, alone and many at once, and first requests that fail.

1. Each family in turn is woken cold, saved and paused, asked while warm, and started by hand with
   the shortest QEMU command. The ratios are to that, and to the guest's own boot in the same wakes.
2. Crowds: 1, 10 and 50 services are asked for in the same moment, cold and paused.
3. First requests: 100 clients at once fetch the page of a service that sleeps, by its name or at
   the address that they remember, over a wire with 0 and with 100 ms of latency. A request that
   fails is counted. A wake that is not theirs ends the measurement.
4. A flood: warm names are asked for steadily while cold ones are woken beside them.

edgewake is a process of its own, as in use. Needs root; KVM is used only where it boots.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks.by_hand import fetch, plugged, spec_of, started
from benchmarks.slow_wire import Wire, slow_wire
from dns_boot.query import Reply, ask
from images.build import hello, linux_microvm
from orchestrator.errors import EdgewakeError
from orchestrator.labfile import load_lab
from orchestrator.state_dir import StateDir
from tests.orchestrator.guards.wires import within
from web.client import Client

PORT, NUMBER, BRIDGE = 5385, 219, "ewwakes0"
RUNGS = ("cold", "saved", "paused", "warm")
FAMILIES = ("hello", "linux")
CROWDS = (1, 10, 50)
CLIENTS = 100
TIME_WAIT, LISTEN = "06", "0A"  # in /proc/net/tcp; linux/net/tcp_states.h
LAB = """
name: wakes
zone: wakes.test
dns:
  listen: 0.0.0.0:{port}
  wake_budget: {{per_client: 10000/s, burst: 10000, total: 10000/s, total_burst: 10000}}
  rate_limit: {{per_second: 0}}
hosts:
  box:
    uri: qemu:///system
    capacity: {{cpu: 1000, memory: 16 GiB}}
    network: {{name: ewwakes, subnet: 10.{number}.0.0/24, gateway: 10.{number}.0.1,
              pool: 10.{number}.0.20-10.{number}.0.250, create: true, bridge: {bridge}}}
images:
  hello: {{kernel: built:hello/kernel}}
  linux: {{kernel: built:linux-microvm/kernel, initrd: built:linux-microvm/initrd}}
defaults:
  image: hello
  resources: {{cpu: 0.1, memory: 8 MiB}}
  ready: {{http: {{port: 80}}}}
  idle: {{after: never, paused: never, saved: never}}
  deadline: 120 s
services:
  hello: {{}}
  linux: {{image: linux, resources: {{cpu: 0.5, memory: 96 MiB}}}}
{crowd}
"""


@dataclass(slots=True)
class Seen:
    """Seconds of the wakes of one kind: for the client, of our own code, of the guest's boot."""

    client_s: list[float] = field(default_factory=list)
    own_s: list[float] = field(default_factory=list)
    guest_s: list[float] = field(default_factory=list)


class Box:
    """A running edgewake, whose DNS server is at a port of loopback."""

    def __init__(self, folder: Path, port: int) -> None:
        self.folder = folder
        self.port = port
        self.client = Client(StateDir(folder).socket)

    def reply(self, name: str) -> Reply:
        """Ask for a name; EdgewakeError if the answer is no address."""
        reply = ask(("127.0.0.1", self.port), f"{name}.wakes.test", timeout_s=130)
        if not reply.addresses:
            raise EdgewakeError(f"{name}: {reply.rcode} {reply.text}")
        return reply

    def ask(self, name: str) -> float:
        """Ask for a name and return the seconds until the answer."""
        return self.reply(name).seconds

    def sleep(self, name: str, rung: str) -> None:
        """Have a service sleep at a rung; EdgewakeError if it does not."""
        answer = self.client.post(f"/services/{name}/sleep", {"to": rung})
        if answer["rung"] != rung:
            raise EdgewakeError(f"{name} is {answer['rung']}, not {rung}")

    def last_wake(self, name: str) -> dict[str, Any]:
        """Return the last wake of a service."""
        wakes: list[dict[str, Any]] = self.client.get(f"/wakes?service={name}&limit=1")["wakes"]
        return wakes[-1]


def lab_text() -> str:
    """Return the lab of this benchmark: a service for each family, and a crowd."""
    crowd = "\n".join(f"  c{number}: {{}}" for number in range(max(CROWDS)))
    return LAB.format(port=PORT, number=NUMBER, bridge=BRIDGE, crowd=crowd)


@contextmanager
def running(text: str, port: int) -> Iterator[Box]:
    """Run edgewake with a lab whose DNS port is `port`; everything is taken away afterwards."""
    with tempfile.TemporaryDirectory(dir="/var/lib", prefix="edgewake-bench-") as name:
        folder = Path(name)
        folder.chmod(0o711)
        hello.build(folder / "state" / "images" / "hello")
        linux_microvm.build(folder / "state" / "images" / "linux-microvm")
        lab = folder / "lab.yaml"
        lab.write_text(text)
        command = [sys.executable, "-m", "orchestrator", "--state", str(folder / "state"), "up"]
        with (
            (folder / "up.log").open("wb") as log,
            subprocess.Popen(
                [*command, "--ephemeral", "--while-stdin", "--json", str(lab)],
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log,
            ) as process,
        ):  # fmt: skip
            assert process.stdout is not None  # noqa: S101 - we asked for a pipe
            try:
                json.loads(process.stdout.readline())
                yield Box(folder / "state", port)
            finally:
                assert process.stdin is not None  # noqa: S101
                process.stdin.close()
                process.wait(120)


# --- the table of rungs ---------------------------------------------------------------------------


def by_rung(box: Box, family: str, rounds: int) -> dict[str, Seen]:
    """Wake a service from each rung in turn, so many times."""
    seen = {rung: Seen() for rung in RUNGS}
    for _ in range(rounds + 1):  # the first one finds out what the guest survives
        for rung in RUNGS:
            if rung != "warm":
                box.sleep(family, rung)
                time.sleep(0.1)
            seen[rung].client_s.append(box.ask(family))
            if rung != "warm":
                wake = box.last_wake(family)
                seen[rung].own_s.append(wake["own_s"])
                seen[rung].guest_s.append(guest_s(wake["stamps"]))
    for each in seen.values():
        for figures in (each.client_s, each.own_s, each.guest_s):
            del figures[:1]
    return seen


def guest_s(stamps: Sequence[tuple[str, float]]) -> float:
    """Return what a guest took from its processor's start to its answer."""
    at = dict(stamps)
    began = at.get("start", at.get("roused", 0.0))
    return float(at["answer"] - began)


def by_hand(box: Box, family: str, rounds: int) -> list[float]:
    """Start a guest of a family by hand, so many times; return the seconds to its first answer."""
    lab = load_lab(box.folder.parent / "lab.yaml", images_dir=StateDir(box.folder).images)
    address = IPv4Address(f"10.{NUMBER}.0.9")  # outside of the pool
    spec = spec_of(lab, family, address)
    took = []
    with plugged(BRIDGE, "ewwakest0") as card:
        for _ in range(rounds):
            with started(spec, spec.memory_mib, card, address) as (_, boot):
                took.append(boot.answer_s)
    return took


def rungs_table(title: str) -> Table:
    """Return an empty table of wakes from each rung."""
    table = Table(title=title, title_justify="left")
    for head in ("family", "rung", "p50 ms", "p95 ms", "x by hand", "x guest's boot", "ours ms"):
        table.add_column(head, justify="left" if head in {"family", "rung"} else "right")
    return table


def add_rungs(
    table: Table, family: str, seen: Mapping[str, Seen], hands: Mapping[str, Sequence[float]]
) -> None:
    """Add what wakes of a family took, and its boots by hand (seconds), the shortest way first."""
    boot_s = statistics.median(seen["cold"].guest_s)
    hand_s = statistics.median(next(iter(hands.values())))
    took = {rung: each.client_s for rung, each in seen.items()} | dict(hands)
    for way, seconds in took.items():
        p50, p95 = points(seconds)
        own_s = seen[way].own_s if way in seen else []
        own = f"{statistics.median(own_s) * 1e3:.2f}" if own_s else ""
        ratios = (f"{p50 / hand_s:.3g}", f"{p50 / boot_s:.3g}")
        table.add_row(family, way, f"{p50 * 1e3:.2f}", f"{p95 * 1e3:.2f}", *ratios, own)


def families_table(box: Box, rounds: int) -> Table:
    """Return the table of wakes of each family, from each rung."""
    table = rungs_table("Wakes, from the question to the answer")
    for family in FAMILIES:
        seen = by_rung(box, family, rounds)
        add_rungs(table, family, seen, {"by hand": by_hand(box, family, rounds)})
    return table


def points(seconds: Sequence[float]) -> tuple[float, float]:
    """Return p50 and p95."""
    if len(seconds) < 2:
        return seconds[0], seconds[0]
    return statistics.median(seconds), statistics.quantiles(seconds, n=20)[-1]


# --- many at once ---------------------------------------------------------------------------------


def crowds_table(box: Box) -> Table:
    """Return the table of services that are woken in the same moment."""
    table = Table(title="Many at once (hello)", title_justify="left")
    for head in ("rung", "services", "p50 ms", "p95 ms", "all ms", "x one"):
        table.add_column(head, justify="left" if head == "rung" else "right")
    for rung in ("cold", "paused"):
        alone_s = 0.0
        for size in CROWDS:
            names = [f"c{number}" for number in range(size)]
            for name in names:
                if rung == "paused":
                    box.ask(name)
                box.sleep(name, rung)
            began = time.monotonic()
            with ThreadPoolExecutor(size) as pool:
                took = list(pool.map(box.ask, names))
            all_s = time.monotonic() - began
            alone_s = alone_s or all_s
            p50, p95 = points(took)
            figures = (f"{p50 * 1e3:.1f}", f"{p95 * 1e3:.1f}", f"{all_s * 1e3:.1f}")
            table.add_row(rung, str(size), *figures, f"{all_s / alone_s:.3g}")
            for name in names:
                box.sleep(name, "cold")
    return table


# --- first requests -------------------------------------------------------------------------------


def first_requests_table(box: Box) -> Table:
    """Return the table of clients that come at once to a service that sleeps."""
    table = Table(title=f"{CLIENTS} clients at once, their first request", title_justify="left")
    for head in ("latency", "rung", "asked", "failed", "p50 ms", "p95 ms", "worst ms", "wake ms"):
        table.add_column(head, justify="left" if head in {"rung", "asked"} else "right")
    for rung in ("saved", "paused"):  # finds out what the guest survives
        box.reply("hello")
        box.sleep("hello", rung)
    for one_way_s in (0.0, 0.05):
        with slow_wire("ewslow", NUMBER, one_way_s=one_way_s) as wire:
            for rung in ("cold", "saved", "paused"):
                for by_name in (True, False):
                    took, wake_s = first_requests(box, wire, rung, by_name=by_name)
                    good = [each for each in took if each is not None]
                    figures = (*points(good or [0.0]), max(good or [0.0]), wake_s)
                    table.add_row(
                        f"{one_way_s * 2000:.0f} ms", rung, "by name" if by_name else "no name",
                        str(CLIENTS - len(good)), *(f"{each * 1e3:.0f}" for each in figures),
                    )  # fmt: skip
    return table


def first_requests(
    box: Box, wire: Wire, rung: str, *, by_name: bool
) -> tuple[list[float | None], float]:
    """Have all clients come while a service sleeps; return what each took, and the wake, in s.

    EdgewakeError if the wake was not theirs: something else woke it, or from another rung.
    """
    (address,) = box.reply("hello").addresses
    quiet(wire)
    box.sleep("hello", rung)
    time.sleep(0.1)
    began = time.time()
    took = clients(wire, "" if by_name else address)
    wake = box.last_wake("hello")
    asker = "query" if by_name else "traffic"
    if wake["started_at"] < began or wake["rung"] != rung or not wake["by"].startswith(asker):
        raise EdgewakeError(f"hello woke from {wake['rung']} by {wake['by']}, not by its clients")
    return took, wake["total_s"]


def quiet(wire: Wire) -> None:
    """Wait until no client has a connection, and no packet of one is under way."""
    end = time.monotonic() + 30.0
    while within(wire.namespace, open_connections).result(5):
        if time.monotonic() > end:
            raise EdgewakeError("clients of the last measurement do not come to an end")
        time.sleep(0.05)
    time.sleep(2 * wire.one_way_s)


def open_connections() -> int:
    """Return how many TCP connections the caller's namespace has that are not over."""
    lines = Path("/proc/thread-self/net/tcp").read_text().splitlines()[1:]
    return sum(line.split()[3] not in {LISTEN, TIME_WAIT} for line in lines)


def clients(wire: Wire, address: str) -> list[float | None]:
    """Have all clients fetch the page at once, by its name or at an address that they remember.

    Returns the seconds that each took; None for one that failed.
    """
    gate = time.monotonic() + 0.5

    def resolved() -> str:
        return ask((wire.address, PORT), "hello.wakes.test", timeout_s=60).addresses[0]

    def one() -> float | None:
        time.sleep(max(0.0, gate - time.monotonic()))
        began = time.monotonic()
        try:
            page = fetch(IPv4Address(address or resolved()), 30.0)
        except (OSError, EdgewakeError, IndexError):
            return None
        return time.monotonic() - began if b"200" in page else None

    return [each.result(120) for each in [within(wire.namespace, one) for _ in range(CLIENTS)]]


# --- a flood --------------------------------------------------------------------------------------


def flood_table(box: Box, seconds: float = 5.0) -> Table:
    """Return the table of warm answers while cold names are woken beside them."""
    table = Table(title="Warm names, beside 20 cold ones", title_justify="left")
    for head in ("", "answers", "failed", "p50 ms", "p99 ms"):
        table.add_column(head, justify="left" if not head else "right")
    box.ask("hello")
    for beside in (0, 20):
        names = [f"c{number}" for number in range(beside)]
        with ThreadPoolExecutor(max(1, beside)) as pool:
            waking = [pool.submit(box.ask, name) for name in names]
            took, failed = steadily(lambda: box.ask("hello"), seconds)
            for each in waking:
                each.result()
        p99 = statistics.quantiles(took, n=100)[98]
        figures = (f"{statistics.median(took) * 1e3:.2f}", f"{p99 * 1e3:.2f}")
        table.add_row(f"{beside} wakes", str(len(took)), str(failed), *figures)
        for name in names:
            box.sleep(name, "cold")
    return table


def steadily(work: Callable[[], float], seconds: float) -> tuple[list[float], int]:
    """Do something 200 times a second; return what each took, and how many failed."""
    took, failed, end = [], 0, time.monotonic() + seconds
    while time.monotonic() < end:
        try:
            took.append(work())
        except EdgewakeError:
            failed += 1
        time.sleep(0.005)
    return took, failed


def main() -> None:
    """Print the tables."""
    options = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    options.add_argument("--rounds", type=int, default=10, help="wakes from each rung (10)")
    options.add_argument("--part", type=int, choices=(1, 2, 3, 4), help="only this table")
    chosen = options.parse_args()
    parts: dict[int, Callable[[Box], Table]] = {
        1: lambda box: families_table(box, chosen.rounds),
        2: crowds_table,
        3: first_requests_table,
        4: flood_table,
    }
    out = Console()
    with running(lab_text(), PORT) as box:
        for number, part in parts.items():
            if chosen.part in {None, number}:
                out.print(part(box), "")


if __name__ == "__main__":
    main()

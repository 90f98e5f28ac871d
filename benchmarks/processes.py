"""A process service, cold and paused, against the same program started by hand with `ip netns`.

All in one run, in turns: the DNS answer of edgewake, which waits until the program accepts a
connection; and by hand the same steps without any confinement: a namespace, a pair of cards, the
address, `ip netns exec`, until it accepts one. edgewake is a process of its own. Needs root.
"""

import argparse
import json
import socket
import statistics
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.table import Table

from benchmarks.wakes import Box, running

PORT, NUMBER, BRIDGE = 5386, 218, "ewprocb0"
# Listens as soon as a program in Python can.
SCRIPT = """import _socket
listening = _socket.socket()
listening.bind(("", 80))
listening.listen(9)
while True:
    _socket.close(listening._accept()[0])
"""
PROGRAM = ("/usr/bin/python3", "-I", "-S", "-c", SCRIPT)
LAB = """
name: wakes
zone: wakes.test
dns: {{listen: 127.0.0.1:{port}, wake_budget: {{burst: 10000, total_burst: 10000}}}}
hosts:
  box:
    uri: netns:///
    capacity: {{cpu: 1000, memory: 16 GiB}}
    network: {{name: ewprocb, subnet: 10.{number}.0.0/24, gateway: 10.{number}.0.1,
              pool: 10.{number}.0.20-10.{number}.0.250, create: true, bridge: {bridge}}}
images: {{program: {{exec: {argv}}}}}
services:
  program:
    image: program
    resources: {{cpu: 0.1, memory: 32 MiB}}
    ready: {{tcp: 80}}
    idle: {{after: never, paused: never}}
"""


@contextmanager
def by_hand(number: int) -> Iterator[float]:
    """Start the program by hand; yield the seconds until it accepts a connection."""
    world, card, address = (
        f"ewprocb-{number}",
        f"ewprocb-{number}",
        f"10.{NUMBER}.0.{number % 9 + 2}",
    )
    began = time.monotonic()
    ip("netns", "add", world)
    ip("link", "add", card, "type", "veth", "peer", "name", "eth0", "netns", world)
    ip("link", "set", card, "master", BRIDGE, "up")
    ip("-n", world, "addr", "add", f"{address}/24", "dev", "eth0")
    ip("-n", world, "link", "set", "lo", "up")
    ip("-n", world, "link", "set", "eth0", "up")
    ip("-n", world, "route", "add", "default", "via", f"10.{NUMBER}.0.1")
    with subprocess.Popen(["ip", "netns", "exec", world, *PROGRAM]) as process:
        try:
            connect(address, began + 10)
            yield time.monotonic() - began
        finally:
            process.kill()
            ip("netns", "del", world)


def ip(*arguments: str) -> None:
    """Run `ip`; CalledProcessError if it fails."""
    subprocess.run(["ip", *arguments], check=True)


def connect(address: str, deadline: float) -> None:
    """Wait until a connection to port 80 is accepted; OSError at the deadline (monotonic)."""
    while True:
        try:
            socket.create_connection((address, 80), timeout=1).close()
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.001)
        else:
            return


def measured(box: Box, rounds: int) -> dict[str, list[float]]:
    """Return the seconds of each round of each way, taken in turns."""
    seen: dict[str, list[float]] = {"by hand": [], "cold": [], "paused": [], "hypervisor": []}
    for number in range(rounds):
        with by_hand(number) as took_s:
            seen["by hand"].append(took_s)
        seen["cold"].append(box.ask("program"))
        stamps = dict(box.last_wake("program")["stamps"])
        seen["hypervisor"].append(stamps["start"] - stamps["asked"])
        box.sleep("program", "paused")
        seen["paused"].append(box.ask("program"))
        box.sleep("program", "cold")
    return seen


def main() -> None:
    """Measure, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=20)
    rounds = parser.parse_args().rounds
    argv = json.dumps(PROGRAM)  # which is YAML, too
    with running(LAB.format(port=PORT, number=NUMBER, bridge=BRIDGE, argv=argv), PORT) as box:
        seen = measured(box, rounds)
    table = Table(title=f"{rounds} rounds, ms")
    for column in ("way", "p50", "least", "most"):
        table.add_column(column, justify="left" if column == "way" else "right")
    for way, each_s in seen.items():
        each = [1000 * one for one in each_s]
        table.add_row(
            way, *(f"{one:.1f}" for one in (statistics.median(each), min(each), max(each)))
        )
    Console().print(table)


if __name__ == "__main__":
    main()

"""What a link that goes costs live traffic where routing daemons find the ways.

Five routers in a ring, links of 2 ms made by our own process. Packets go between two neighbours,
100 a second, while their link is taken down (both notice at once), or goes silent (all packets are
lost, and both ends stay up), with BFD and without it. Between two changes it is quiet, because OSPF
tells nothing twice within 5 s (RFC 2328, MinLSInterval). Needs root, and bird2.
"""

import argparse
import statistics
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from ipaddress import IPv4Address
from pathlib import Path

from rich.console import Console
from rich.table import Table

from orchestrator.linux.probing import INTERVAL_S, Loss, Probe
from orchestrator.network import (
    LinkEngine,
    Network,
    Quality,
    Routing,
    VirtualLink,
    VirtualRouter,
)
from orchestrator.routers.base import Routers
from orchestrator.routers.daemons import Daemons, OspfRouters
from orchestrator.routers.names import namespace_of
from orchestrator.routers.netns import NetnsRouters

NAME = "bench-ospf"
QUIET_S, PATIENCE_S = 12.0, 60.0
QUALITY = Quality(latency_ms=2)


def ring(count: int = 5) -> Network:
    """Return routers in a circle; the first two are who packets go between."""
    names = [f"r{number}" for number in range(count)]
    routers = tuple(
        VirtualRouter(name, IPv4Address("10.253.0.1") + number) for number, name in enumerate(names)
    )
    pairs = [sorted(pair) for pair in zip(names, [*names[1:], names[0]], strict=True)]
    links = tuple(VirtualLink(a, b, QUALITY) for a, b in sorted(pairs))
    return Network(NAME, routers, links, routing=Routing.OSPF, engine=LinkEngine.USER)


def first_link(network: Network, link: VirtualLink) -> Network:
    """Return a network with another first link."""
    return replace(network, links=(link, *network.links[1:]))


@contextmanager
def back_end(*, bfd: bool) -> Iterator[Routers]:
    """Yield what makes networks; it leaves none."""
    with tempfile.TemporaryDirectory() as folder:
        daemons = Daemons(NAME, namespace_of, bfd=bfd)
        made = OspfRouters(NetnsRouters(NAME, Path(folder)), daemons)
        try:
            yield made
        finally:
            made.set(Network(NAME))


def converged_s(routers: Routers, network: Network) -> float:
    """Make the network anew, and return how long it takes until all routers know all ways."""
    routers.set(Network(NAME))
    routers.set(network)
    began = time.monotonic()
    while any(_ways(router.name) < len(network.routers) - 1 for router in network.routers):
        if time.monotonic() > began + PATIENCE_S:
            raise TimeoutError("routers do not find their ways")
        time.sleep(0.05)
    return time.monotonic() - began


def _ways(router: str) -> int:
    argv = ["ip", "-n", namespace_of(NAME, router), "route", "show", "proto", "bird"]
    return len(subprocess.check_output(argv, text=True).splitlines())


def loss(routers: Routers, before: Network, after: Network) -> Loss:
    """Return what became of packets while the network changed; then it is as before."""
    a, b = before.routers[:2]
    start, end = namespace_of(NAME, a.name), namespace_of(NAME, b.name)
    with Probe(start, end, a.address, b.address) as probe:
        probe.await_steady(PATIENCE_S)
        routers.set(after)
        probe.await_steady(PATIENCE_S)
    time.sleep(QUIET_S)
    routers.set(before)
    time.sleep(QUIET_S)
    return probe.loss()


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    rounds = parser.parse_args().rounds
    network = ring()
    link = network.links[0]
    down = first_link(network, replace(link, up=False))
    silent = first_link(network, replace(link, quality=replace(QUALITY, loss=1.0)))
    found: dict[str, list[float]] = {}
    for _ in range(rounds):
        for bfd in (True, False):
            how = "with BFD" if bfd else "without BFD"
            with back_end(bfd=bfd) as routers:
                found.setdefault(f"made, {how}", []).append(converged_s(routers, network))
                time.sleep(QUIET_S)
                for what, after in (("taken down", down), ("silent", silent)):
                    lost = loss(routers, network, after).lost * INTERVAL_S
                    found.setdefault(f"a link {what}, {how}", []).append(lost)
    shown = Table(title="Seconds without packets", title_justify="left")
    for head in ("change", "least", "p50", "most"):
        shown.add_column(head, justify="left" if head == "change" else "right")
    for name, times in sorted(found.items()):
        numbers = (min(times), statistics.median(times), max(times))
        shown.add_row(name, *(f"{number:.2f}" for number in numbers))
    Console().print(shown)


if __name__ == "__main__":
    main()

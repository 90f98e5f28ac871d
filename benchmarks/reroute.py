"""What rerouting costs live traffic: packets lost at 1,000 a second while a network changes.

A ring of routers: between two opposite ones there are two ways, and when the last link of the
shorter one changes, half of the routers turn round. Packets would go in circles between those that
have and those that have not, if they changed in a bad order; that is measured, too, for comparison:
the same rounds of routes, last to first. Needs root.
"""

import argparse
import socket
import statistics
import struct
import tempfile
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from functools import partial
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path
from unittest import mock

from rich.console import Console
from rich.table import Table

from orchestrator.linux import namespaces
from orchestrator.linux.rtnetlink import Socket, Target, set_device
from orchestrator.network import LinkEngine, Network, Quality, VirtualLink, VirtualRouter
from orchestrator.routers.names import namespace_of
from orchestrator.routers.netns import NetnsRouters
from orchestrator.routers.tables import depths
from orchestrator.routing import Route

RATE = 1000  # packets a second
BEFORE_S, AFTER_S = 0.1, 0.2
SO_RCVBUFFORCE = 33  # asm-generic/socket.h
_NUMBER = struct.Struct("=I")

Change = Callable[[], object]


@dataclass(frozen=True, slots=True)
class Loss:
    """Packets sent and lost, and how long the change took, in seconds."""

    sent: int
    lost: int
    took_s: float


def ring(name: str, count: int, quality: Quality = Quality()) -> Network:  # noqa: B008 - frozen
    """Return routers in a circle, with the shorter way from r00 to the other side by r01."""
    names = [f"r{number:02}" for number in range(count)]
    routers = tuple(
        VirtualRouter(each, IPv4Address("10.253.0.1") + number, IPv6Address("fd00:4e::1") + number)
        for number, each in enumerate(names)
    )
    pairs = [tuple(sorted(pair)) for pair in zip(names, [*names[1:], names[0]], strict=True)]
    longer = tuple(sorted((names[0], names[-1])))
    links = tuple(
        VirtualLink(a, b, quality, weight=1.5 if (a, b) == longer else 1.0) for a, b in pairs
    )
    return Network(name, routers, links)


def changed(network: Network, **what: object) -> Network:
    """Return a network with another link at the end of the shorter way."""
    links = list(network.links)
    links[_last(network)] = replace(links[_last(network)], **what)  # type: ignore[arg-type]
    return replace(network, links=tuple(links))


def _last(network: Network) -> int:
    return len(network.routers) // 2 - 1


def loss(network: Network, change: Change, transit_s: float = 0.0, version: int = 4) -> Loss:
    """Send from the first router to the opposite one, let the change happen, and count."""
    first, last = network.routers[0], network.routers[len(network.routers) // 2]
    with (
        _socket(network, first, version) as sender,
        _socket(network, last, version) as receiver,
    ):
        got: set[int] = set()
        stop = threading.Event()
        sent = [0]
        target = receiver.getsockname()
        receiver.settimeout(AFTER_S + transit_s)
        threads = [
            threading.Thread(target=_receive, args=(receiver, got, stop)),
            threading.Thread(target=_send, args=(sender, target, stop, sent)),
        ]
        for thread in threads:
            thread.start()
        time.sleep(BEFORE_S)
        began = time.monotonic()
        change()
        took_s = time.monotonic() - began
        time.sleep(AFTER_S)
        stop.set()
        for thread in threads:
            thread.join()
    return Loss(sent[0], sent[0] - len(got), took_s)


def _socket(network: Network, router: VirtualRouter, version: int) -> socket.socket:
    where = namespace_of(network.name, router.name)
    family = socket.AF_INET if version == 4 else socket.AF_INET6
    made = namespaces.inside(where, partial(socket.socket, family, socket.SOCK_DGRAM))
    made.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, 1 << 22)  # we may be late to read
    made.bind((str(router.address if version == 4 else router.address6), 0))
    return made


def _send(
    sender: socket.socket, target: tuple[str, int], stop: threading.Event, sent: list[int]
) -> None:
    due = time.monotonic()
    while not stop.is_set():
        with suppress(OSError):  # no route at all: it counts as lost
            sender.sendto(_NUMBER.pack(sent[0]), target)
        sent[0] += 1
        due += 1 / RATE
        time.sleep(max(0.0, due - time.monotonic()))


def _receive(receiver: socket.socket, got: set[int], stop: threading.Event) -> None:
    while True:
        last = stop.is_set()
        try:
            got.add(_NUMBER.unpack(receiver.recv(64))[0])
        except TimeoutError:
            if last:
                return


# --- as a table -----------------------------------------------------------------------------------


@contextmanager
def bad_order() -> Iterator[None]:
    """Let routes change in the order that is the worst for traffic."""

    def bad(
        routes: dict[str, tuple[Route, ...]], prefixes: frozenset[Target]
    ) -> dict[tuple[str, Target], int]:
        return {key: -depth for key, depth in depths(routes, prefixes).items()}

    with mock.patch("orchestrator.routers.rerouting.depths", bad):
        yield


def cut_and_set(back_end: NetnsRouters, network: Network, wanted: Network) -> None:
    """Let a link fail by itself, and say afterwards that it is down."""
    link = network.links[_last(network)]
    with Socket(namespace_of(network.name, link.a)) as kernel:
        (device,) = (each for each in kernel.devices() if each.name == link.b)
        kernel.do([set_device(device.index, link.name, up=False)])
    back_end.set(wanted)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--routers", type=int, default=12)
    arguments = parser.parse_args()
    late = ring("reroute", arguments.routers, Quality(latency_ms=5))
    kinds = {
        "veth pairs": ring("reroute", arguments.routers),
        "links of 5 ms, by our process": replace(late, engine=LinkEngine.USER),
    }
    found: dict[str, dict[str, list[Loss]]] = {kind: defaultdict(list) for kind in kinds}
    with tempfile.TemporaryDirectory() as folder:
        back_end = NetnsRouters("reroute", Path(folder))
        try:
            for _ in range(arguments.rounds):
                for kind, network in kinds.items():
                    for change, each in measured(back_end, network).items():
                        found[kind][change].append(each)
        finally:
            back_end.set(Network(""))
    for kind, losses in found.items():
        Console().print(table(losses, f"{kind}, {arguments.routers} in a ring"))


def measured(back_end: NetnsRouters, network: Network) -> dict[str, Loss]:
    """Measure every kind of change once, starting from and ending with the network."""
    heavy, down = changed(network, weight=9.0), changed(network, up=False)
    late_s = sum(link.quality.latency_ms for link in network.links) / 1000
    back_end.set(network)
    found = {
        "a weight changes": loss(network, lambda: back_end.set(heavy), late_s),
        "it changes back": loss(network, lambda: back_end.set(network), late_s),
        "a link is taken down": loss(network, lambda: back_end.set(down), late_s),
        "it comes up again": loss(network, lambda: back_end.set(network), late_s),
        "a link fails by itself": loss(
            network, lambda: cut_and_set(back_end, network, down), late_s
        ),
    }
    back_end.set(network)
    with bad_order():
        found["a weight changes, in a bad order"] = loss(
            network, lambda: back_end.set(heavy), late_s
        )
        found["it changes back, in a bad order"] = loss(
            network, lambda: back_end.set(network), late_s
        )
    return found


def table(found: dict[str, list[Loss]], what: str) -> Table:
    """Return what was measured, a line for each kind of change."""
    shown = Table(title=f"Packets lost at {RATE}/s: {what}", title_justify="left")
    for head in ("change", "sent", "lost, p50", "most", "took ms, p50"):
        shown.add_column(head, justify="left" if head == "change" else "right")
    for name, losses in found.items():
        lost = [each.lost for each in losses]
        shown.add_row(
            name,
            str(sum(each.sent for each in losses)),
            f"{statistics.median(lost):g}",
            str(max(lost)),
            f"{statistics.median(each.took_s for each in losses) * 1000:.0f}",
        )
    return shown


if __name__ == "__main__":
    main()

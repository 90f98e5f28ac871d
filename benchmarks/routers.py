"""How long it takes to make a network of routers, to change it and to remove it; by us and by hand.

By hand is what one would do with iproute2: the same namespaces, veth pairs, addresses, neighbours
and routes from files that were written before the clock runs, one ``ip -batch`` per namespace. Both
in turn, again and again, so that whatever else the machine does hits both alike. A network is
removed when the kernel has no device of it any more, which is later than when `ip` and we return.

The second table is about a large network in memory: how long a question for a way takes, beside
networkx's `shortest_path` on the same graph. Needs root.
"""

import argparse
import random
import statistics
import subprocess
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from functools import partial
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path

import networkx as nx
from rich.console import Console
from rich.table import Table

from orchestrator.linux import namespaces
from orchestrator.linux.rtnetlink import Socket, add_veth
from orchestrator.network import Network, VirtualLink, VirtualRouter
from orchestrator.routers.layout import Layout, lay_out
from orchestrator.routers.memory import MemoryRouters
from orchestrator.routers.names import link_local, mark_of
from orchestrator.routers.netns import NetnsRouters
from orchestrator.routers.tables import tables_for

NAME = "benchmark"
MAKE_S, REMOVE_S, QUERY_MS = 20.0, 10.0, 1.0  # what is asked of 100 routers, and of 1,000
SYSCTLS = (
    "net.ipv4.ip_forward=1",
    "net.ipv6.conf.all.forwarding=1",
    "net.ipv6.conf.default.accept_dad=0",
    "net.ipv4.conf.all.rp_filter=0",
    "net.ipv4.fib_multipath_hash_policy=1",
)
_NO_DAD = {4: "", 6: " nodad"}

Timed = dict[str, list[float]]


def random_network(routers: int, links: int, seed: int = 1) -> Network:
    """Return a connected network: a random tree, and random links beside it."""
    chance = random.Random(seed)  # noqa: S311 - not for secrets
    names = [f"r{number:04}" for number in range(routers)]
    pairs = {(names[chance.randrange(number)], names[number]) for number in range(1, len(names))}
    while len(pairs) < links:
        a, b = sorted(chance.sample(names, 2))
        pairs.add((a, b))
    return Network(
        NAME,
        tuple(
            VirtualRouter(name, IPv4Address("10.252.0.1") + n, IPv6Address("fd00:be::1") + n)
            for n, name in enumerate(names)
        ),
        tuple(VirtualLink(a, b, weight=chance.randint(1, 9)) for a, b in sorted(pairs)),
    )


def clock(work: Callable[[], object], now: Callable[[], float] = time.perf_counter) -> float:
    """Return how many seconds something takes."""
    began = now()
    work()
    return now() - began


# --- by us ----------------------------------------------------------------------------------------


def ours(network: Network, folder: Path, timed: Timed) -> None:
    """Make, look at, change and remove a network."""
    back_end = NetnsRouters(NAME, folder)
    back_end.engines()
    heavier = replace(network.links[0], weight=99.0)
    try:
        timed["make"].append(clock(lambda: back_end.set(network)))
        timed["make again: nothing to do"].append(clock(lambda: back_end.set(network)))
        other = replace(network, links=(heavier, *network.links[1:]))
        timed["change a weight"].append(clock(lambda: back_end.set(other)))
        timed["read all counters"].append(clock(back_end.counters))
    finally:
        began = time.perf_counter()
        back_end.set(Network(NAME))
        await_removed()
        timed["remove"].append(time.perf_counter() - began)


def await_removed() -> None:
    """Wait until the kernel has ended all namespaces that were given up: it ends them in order."""
    namespaces.make("ewbench-last")
    with Socket() as kernel:
        with (namespaces.FOLDER / "ewbench-last").open("rb") as other:
            macs = b"\2\0\0\0\0\1", b"\2\0\0\0\0\2"
            kernel.do([add_veth("ewbench", macs[0], "ewbench", macs[1], other.fileno())])
        namespaces.remove("ewbench-last")
        while any(device.name == "ewbench" for device in kernel.devices()):
            time.sleep(0.002)


# --- by hand --------------------------------------------------------------------------------------


def by_hand(network: Network, folder: Path, timed: Timed) -> None:
    """Make and remove the same with ``ip -batch``."""
    layout = lay_out(network, mark_of("by hand", ""), "", NetnsRouters("", folder).engines())
    spaces = [node.namespace for node in layout.nodes]
    wholes = batch(folder / "whole", whole_lines(layout))
    parts = {
        space: batch(folder / space, lines) for space, lines in lines_by_space(network, layout)
    }
    removal = batch(folder / "remove", [f"netns del {space}" for space in spaces])

    def make() -> None:
        run("ip", "-batch", str(wholes))
        for space, file in parts.items():
            run("ip", "netns", "exec", space, "sysctl", "-qw", *SYSCTLS)
            run("ip", "-n", space, "-batch", str(file))

    def remove() -> None:
        with suppress(subprocess.CalledProcessError):
            run("ip", "-force", "-batch", str(removal))
        await_removed()

    try:
        timed["make"].append(clock(make))
    finally:
        timed["remove"].append(clock(remove))


def whole_lines(layout: Layout) -> Iterator[str]:
    """Yield what makes all namespaces and links."""
    yield from (f"netns add {node.namespace}" for node in layout.nodes)
    for cable in layout.cables:
        a, b = cable.ends
        yield (
            f"link add {a.device} address {a.mac.hex(':')} netns {a.namespace} type veth "
            f"peer name {b.device} address {b.mac.hex(':')} netns {b.namespace}"
        )


def lines_by_space(network: Network, layout: Layout) -> Iterator[tuple[str, list[str]]]:
    """Yield each namespace, and what makes addresses, neighbours and routes inside."""
    tables = tables_for(network, layout).tables
    for node in layout.nodes:
        lines = ["link set lo up"]
        lines += [f"addr add {each} dev lo{_NO_DAD[each.version]}" for each in node.addresses]
        for end in (end for cable in layout.cables for end in cable.ends):
            if end.namespace == node.namespace:
                lines.append(f"link set {end.device} up")
                there = f"{link_local(end.peer_mac)} lladdr {end.peer_mac.hex(':')}"
                lines.append(f"neigh add {there} dev {end.device} nud permanent")
        for target, road in tables[node.namespace].items():
            family = IPv4Address if len(target.address) == 4 else IPv6Address
            inet6 = "inet6 " if len(target.address) == 4 else ""
            hops = " ".join(
                f"nexthop via {inet6}{IPv6Address(gateway)} dev {device}"
                for device, gateway in road.hops
            )
            lines.append(
                f"route add {family(target.address)}/{target.length} "
                f"src {family(road.source)} {hops}"
            )
        yield node.namespace, lines


def batch(file: Path, lines: Iterator[str] | list[str]) -> Path:
    """Write a file for ``ip -batch``."""
    file.write_text("".join(f"{line}\n" for line in lines))
    return file


def run(*command: str) -> None:
    """Run a command that must succeed."""
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)


# --- in memory ------------------------------------------------------------------------------------


def queries(routers: int, links: int, count: int) -> Table:
    """Ask for the way between random routers of a network in memory; return a table of it."""
    network = random_network(routers, links)
    back_end = MemoryRouters(NAME)
    set_s = clock(lambda: back_end.set(network))
    graph = nx.Graph()
    graph.add_weighted_edges_from((link.a, link.b, link.weight) for link in network.links)
    chance = random.Random(2)  # noqa: S311 - not for secrets
    names = [router.name for router in network.routers]
    pairs = [tuple(chance.sample(names, 2)) for _ in range(count)]
    paths = back_end.paths()
    timed: Timed = defaultdict(list)
    for a, b in pairs:  # in seconds of the processor's, since others use it, too
        ask = partial(paths.path, a, b)
        timed["first question about a target"].append(clock(ask, time.thread_time))
        timed["further ones"].append(clock(ask, time.thread_time))
        timed["networkx.shortest_path"].append(
            clock(partial(nx.shortest_path, graph, a, b, weight="weight"), time.thread_time)
        )
        if paths.cost(a, b) != nx.shortest_path_length(graph, a, b, weight="weight"):
            raise SystemExit(f"networkx knows a better way from {a} to {b}")
    shown = Table(
        title=f"{routers} routers, {links} links in memory, set in {set_s * 1000:.0f} ms: ways",
        title_justify="left",
    )
    for head in ("", "p50 ms", "p99 ms", f"p99 / {QUERY_MS:g} ms", "x networkx"):
        shown.add_column(head, justify="right" if head else "left")
    theirs = statistics.median(timed["networkx.shortest_path"])
    for name, seconds in timed.items():
        p50, p99 = statistics.median(seconds) * 1e3, statistics.quantiles(seconds, n=100)[98] * 1e3
        ratio = statistics.median(seconds) / theirs
        shown.add_row(name, f"{p50:.3f}", f"{p99:.3f}", f"{p99 / QUERY_MS:.2f}", f"{ratio:.3f}")
    return shown


def table(routers: int, links: int, us: Timed, hand: Timed) -> Table:
    """Return how long both took."""
    shown = Table(title=f"{routers} routers, {links} links: seconds, p50", title_justify="left")
    for head in ("", "edgewake", "most", "by hand", "x by hand", "asked for"):
        shown.add_column(head, justify="right" if head else "left")
    limits = {"make": MAKE_S, "remove": REMOVE_S}
    for name, seconds in us.items():
        ours_s, hand_s = statistics.median(seconds), statistics.median(hand.get(name, [0.0]))
        shown.add_row(
            name,
            f"{ours_s:.2f}",
            f"{max(seconds):.2f}",
            f"{hand_s:.2f}" if hand_s else "",
            f"{ours_s / hand_s:.2f}" if hand_s else "",
            f"< {limits[name]:g}" if name in limits else "",
        )
    return shown


def main() -> None:
    """Print both tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--routers", type=int, default=100)
    parser.add_argument("--links", type=int, default=200)
    parser.add_argument("--queries", type=int, default=300)
    arguments = parser.parse_args()
    network = random_network(arguments.routers, arguments.links)
    us: Timed = defaultdict(list)
    hand: Timed = defaultdict(list)
    with tempfile.TemporaryDirectory() as folder:
        for _ in range(arguments.rounds):
            ours(network, Path(folder), us)
            by_hand(network, Path(folder), hand)
    console = Console()
    console.print(table(arguments.routers, arguments.links, us, hand))
    console.print(queries(1000, 2000, arguments.queries))


if __name__ == "__main__":
    main()

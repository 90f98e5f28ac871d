"""Problems on networks: an edge hierarchy, a Clos fabric, and Waxman's random graphs.

Each generator draws a graph and says where hosts and clients are on it; `on_graph` makes the
problem: latencies are shortest paths, demands come from the populations. Node and link numbers are
drawn here and not by networkx, whose random graphs may change with its versions.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import cos, exp, pi, sin
from random import Random

import networkx as nx

from placement.generate import _make
from placement.generate.demands import asked, check, named, sized
from placement.generate.instance import Instance, Layout, Node
from placement.problem import Host, Malformed

LATENCY = "latency_ms"
FABRIC = "fabric"  # the one site of a Clos fabric


@dataclass(frozen=True, slots=True)
class Machine:
    """A kind of host: cores, MiB, W when idle, W more per busy core, money per hour."""

    cpu: float
    memory_mib: float
    idle_w: float
    core_w: float
    host_hour: float

    def at(self, name: str, site: str, rack: str = "") -> Host:
        """Return a host of this kind."""
        return _make.host(
            name,
            cpu=self.cpu,
            memory_mib=self.memory_mib,
            site=site,
            rack=rack,
            idle_w=self.idle_w,
            busy_w=self.idle_w + self.core_w * self.cpu,
            host_hour=self.host_hour,
        )


FOG = Machine(cpu=4, memory_mib=4096, idle_w=4, core_w=2, host_hour=0.02)  # a single-board computer
EDGE = Machine(cpu=16, memory_mib=65536, idle_w=45, core_w=5, host_hour=0.12)  # a small server
CLOUD = Machine(cpu=64, memory_mib=262144, idle_w=110, core_w=5, host_hour=0.3)  # a rack server


@dataclass(frozen=True, slots=True)
class Substrate:
    """A network: nodes of the map, latency of each link, and who is at which node."""

    nodes: Mapping[str, Node]
    links: Mapping[tuple[str, str], float]
    hosts: Sequence[tuple[Host, str]]
    populations: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Asked:
    """How much is demanded; see `placement.generate.demands` for each field."""

    services: int
    utilisation: float
    replicas: int
    bound_ms: float
    total_rate: float
    reach: int


def hierarchical(
    rng: Random,
    *,
    edges: int = 3,
    fogs: int = 3,
    things: int = 2,
    edge_hosts: int = 2,
    cloud_hosts: int = 4,
    services: int = 30,
    utilisation: float = 0.3,
    replicas: int = 1,
    bound_ms: float = 0.0,
    total_rate: float = 1000.0,
    reach: int = 2,
) -> Instance:
    """Return a tree of thing, fog, edge and cloud.

    The cloud has `edges` edge sites below it, each edge site `fogs` fog nodes with one small host
    each, and each fog node `things` populations. A thing is 1 to 3 ms from its fog node, that is 2
    to 6 ms from its edge site, and that 15 to 40 ms from the cloud.
    """
    for name, value in (("edges", edges), ("fogs", fogs), ("things", things)):
        check(name, value, least=1)
    check("edge_hosts", edge_hosts, least=0)
    check("cloud_hosts", cloud_hosts, least=0)
    nodes = {"cloud": Node(0.0, 0.0, "cloud")}
    links: dict[tuple[str, str], float] = {}
    hosts = [(CLOUD.at(f"cloud-{i}", "cloud"), "cloud") for i in range(cloud_hosts)]
    populations: dict[str, str] = {}
    leaves = edges * fogs * things
    for e in range(edges):
        edge = f"edge{e}"
        nodes[edge] = _on_circle(1.0, (e + 0.5) / edges, "edge")
        links[edge, "cloud"] = rng.uniform(15, 40)
        hosts += [(EDGE.at(f"{edge}-{i}", edge), edge) for i in range(edge_hosts)]
        for f in range(fogs):
            fog = f"fog{e}-{f}"
            nodes[fog] = _on_circle(2.0, (e * fogs + f + 0.5) / (edges * fogs), "fog")
            links[fog, edge] = rng.uniform(2, 6)
            hosts.append((FOG.at(f"{fog}-0", edge), fog))
            for t in range(things):
                thing = f"thing{e}-{f}-{t}"
                turn = ((e * fogs + f) * things + t + 0.5) / leaves
                nodes[thing] = _on_circle(3.0, turn, "clients")
                links[thing, fog] = rng.uniform(1, 3)
                populations[thing] = thing
    wanted = Asked(services, utilisation, replicas, bound_ms, total_rate, reach)
    return on_graph(rng, Substrate(nodes, links, hosts, populations), wanted)


def clos(
    rng: Random,
    *,
    spines: int = 2,
    leaves: int = 4,
    hosts_per_leaf: int = 4,
    hop_ms: float = 0.05,
    services: int = 40,
    utilisation: float = 0.5,
    replicas: int = 1,
    bound_ms: float = 0.0,
    total_rate: float = 1000.0,
    reach: int = 2,
) -> Instance:
    """Return a two-stage folded Clos fabric: every leaf switch is linked to every spine.

    The fabric is one site. A leaf switch is a rack, the hosts' domain of that type, and has one
    population of clients beside its hosts.
    `hop_ms` is the latency of one link.
    """
    for name, value in (("spines", spines), ("leaves", leaves), ("hosts_per_leaf", hosts_per_leaf)):
        check(name, value, least=1)
    check("hop_ms", hop_ms, above=0.0)
    tops, racks = named("spine", spines), named("leaf", leaves)
    nodes = {name: Node((i + 0.5) / spines, 2.0, "spine") for i, name in enumerate(tops)}
    nodes |= {name: Node((i + 0.5) / leaves, 1.0, "leaf") for i, name in enumerate(racks)}
    links = {(rack, top): hop_ms for rack in racks for top in tops}
    hosts: list[tuple[Host, str]] = []
    populations: dict[str, str] = {}
    for i, rack in enumerate(racks):
        below = [*named(f"{rack}-h", hosts_per_leaf), f"{rack}-clients"]
        for j, name in enumerate(below):
            last = j == hosts_per_leaf
            x = (i + (j + 0.5) / len(below)) / leaves
            nodes[name] = Node(x, 0.0, "clients" if last else "host")
            links[name, rack] = hop_ms
        hosts += [(EDGE.at(name, FABRIC, rack), name) for name in below[:-1]]
        populations[below[-1]] = below[-1]
    wanted = Asked(services, utilisation, replicas, bound_ms, total_rate, reach)
    return on_graph(rng, Substrate(nodes, links, hosts, populations), wanted)


def waxman(
    rng: Random,
    *,
    nodes: int = 20,
    alpha: float = 0.2,
    beta: float = 0.6,
    side_ms: float = 20.0,
    hosted: float = 0.5,
    services: int = 40,
    utilisation: float = 0.5,
    replicas: int = 1,
    bound_ms: float = 0.0,
    total_rate: float = 1000.0,
    reach: int = 2,
) -> Instance:
    """Return a random graph after Waxman (1988) in a square whose side is `side_ms` long.

    Two nodes at distance d are linked with probability beta * exp(-d / (alpha * longest d)); parts
    that stay apart are joined where they are nearest. Every node has clients, a share `hosted` of
    them hosts.
    """
    check("nodes", nodes, least=2)
    for name, value in (("alpha", alpha), ("beta", beta), ("hosted", hosted)):
        check(name, value, above=0.0, most=1.0)
    check("side_ms", side_ms, above=0.0)
    points = {name: Node(rng.random(), rng.random(), "edge") for name in named("n", nodes)}
    longest = max(one.distance(other) for one in points.values() for other in points.values())
    graph = nx.Graph()
    graph.add_nodes_from(points)
    for i, one in enumerate(points):
        for other in list(points)[i + 1 :]:
            far = points[one].distance(points[other])
            if rng.random() < beta * exp(-far / (alpha * longest)):
                graph.add_edge(one, other)
    _connect(graph, points)
    links = {(a, b): side_ms * points[a].distance(points[b]) for a, b in graph.edges}
    count = max(1, round(hosted * nodes))
    chosen = sorted(rng.sample(list(points), count))
    hosts = [(EDGE.at(f"{name}-0", name), name) for name in chosen]
    populations = {f"{name}-clients": name for name in points}
    wanted = Asked(services, utilisation, replicas, bound_ms, total_rate, reach)
    return on_graph(rng, Substrate(points, links, hosts, populations), wanted)


def on_graph(rng: Random, net: Substrate, wanted: Asked) -> Instance:
    """Return the problem of placing what populations ask for on the hosts of a network.

    Cores of a service are proportional to the requests it gets. A pair without a path has no entry
    in the latency table.
    """
    if not net.hosts:
        raise Malformed("hosts", "the network has no hosts")
    graph = nx.Graph()
    graph.add_nodes_from(net.nodes)
    graph.add_weighted_edges_from(((a, b, ms) for (a, b), ms in net.links.items()), weight=LATENCY)
    machines = [host for host, _ in net.hosts]
    names = asked(
        rng,
        list(net.populations),
        services=wanted.services,
        total_rate=wanted.total_rate,
        reach=wanted.reach,
    )
    demands = sized(
        rng,
        machines,
        names,
        utilisation=wanted.utilisation,
        replicas=wanted.replicas,
        bound_ms=wanted.bound_ms,
        by_rate=True,
    )
    latency_ms = {}
    for population, node in net.populations.items():
        far = nx.single_source_dijkstra_path_length(graph, node, weight=LATENCY)
        latency_ms[population] = {host.name: far[at] for host, at in net.hosts if at in far}
    layout = Layout(
        net.nodes, tuple(net.links), {host.name: at for host, at in net.hosts}, net.populations
    )
    return Instance(_make.problem(machines, demands, latency_ms), layout)


def _on_circle(radius: float, turn: float, kind: str) -> Node:
    return Node(radius * cos(2 * pi * turn), radius * sin(2 * pi * turn), kind)


def _connect(graph: nx.Graph, points: Mapping[str, Node]) -> None:
    """Join the parts of a graph by the shortest link between each and the one before it."""
    parts = sorted(sorted(part) for part in nx.connected_components(graph))
    for first, second in pairwise(parts):
        pairs = [(points[a].distance(points[b]), a, b) for a in first for b in second]
        graph.add_edge(*min(pairs)[1:])

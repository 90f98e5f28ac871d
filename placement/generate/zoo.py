"""Problems on the graphs of the Internet Topology Zoo, from GraphML files.

The graphs were drawn by hand from operators' maps, so nothing is taken for granted: links are
doubled, coordinates missing, names repeated, parts apart. What the reader does about each is in
`read_graph`.
"""

from collections.abc import Mapping
from math import asin, cos, isfinite, radians, sin, sqrt
from pathlib import Path
from random import Random
from xml.etree.ElementTree import ParseError

import networkx as nx

from placement.generate.demands import check
from placement.generate.instance import Instance, Node
from placement.generate.networks import CLOUD, EDGE, Asked, Substrate, on_graph
from placement.problem import Malformed

EARTH_KM = 6371.0
KM_PER_MS = 200.0  # light in fibre covers about two thirds of 300,000 km/s
LEAST_MS = 0.1  # equipment at the ends of even the shortest link
UNKNOWN_MS = 5.0  # a link one of whose ends has no coordinates
LARGEST_FILE = 16 << 20  # bytes; the largest of the Zoo has 0.7 MB


def topology_zoo(
    rng: Random,
    *,
    graph: Path,
    hosted: float = 0.3,
    hosts_per_node: int = 2,
    clouds: int = 1,
    services: int = 40,
    utilisation: float = 0.5,
    replicas: int = 1,
    bound_ms: float = 0.0,
    total_rate: float = 1000.0,
    reach: int = 3,
) -> Instance:
    """Return a problem on a Topology Zoo graph.

    A share `hosted` of the nodes, those with most links, have `hosts_per_node` small servers; the
    first `clouds` of them have large ones. Every node has a population of clients. Link latency is
    the distance along the Earth by the speed of light in fibre.
    """
    check("hosted", hosted, above=0.0, most=1.0)
    check("hosts_per_node", hosts_per_node, least=1)
    check("clouds", clouds, least=0)
    nodes, links = read_graph(graph)
    degree = dict.fromkeys(nodes, 0)
    for pair in links:
        for name in pair:
            degree[name] += 1
    ranked = sorted(nodes, key=lambda name: (-degree[name], name))
    chosen = ranked[: max(1, round(hosted * len(nodes)))]
    hosts = [
        ((CLOUD if rank < clouds else EDGE).at(f"{name}/{number}", name), name)
        for rank, name in enumerate(chosen)
        for number in range(hosts_per_node)
    ]
    populations = {f"{name}/clients": name for name in nodes}
    wanted = Asked(services, utilisation, replicas, bound_ms, total_rate, reach)
    return on_graph(rng, Substrate(nodes, links, hosts, populations), wanted)


def read_graph(path: Path) -> tuple[dict[str, Node], dict[tuple[str, str], float]]:
    """Return the nodes and the links with their latency in ms of a GraphML file.

    Parallel links count once, directions and loops are left out, and of several parts the largest
    is taken. Nodes are called by their label, a repeated or missing one gets the node's id. A node
    without coordinates lies where its neighbours do on average.

    Raises:
        Malformed: the file cannot be read, is no GraphML, or has no links.

    """
    graph = _graph(path)
    if not graph.number_of_edges():
        raise Malformed("graph", f"{path.name} has no links")
    parts = [sorted(part, key=str) for part in nx.connected_components(graph)]
    largest = max(parts, key=lambda part: (len(part), str(part[0])))
    names = _names(graph, largest)
    known = {n: at for n in largest if (at := _coordinates(graph.nodes[n])) is not None}
    nodes = {}
    for n in largest:
        latitude, longitude = known.get(n) or _middle([known[m] for m in graph[n] if m in known])
        nodes[names[n]] = Node(longitude, latitude, "edge")
    links = {}
    for a, b in graph.subgraph(largest).edges:
        one, other = sorted((names[a], names[b]))
        far = _km(known[a], known[b]) / KM_PER_MS if a in known and b in known else UNKNOWN_MS
        links[one, other] = max(LEAST_MS, far)
    return nodes, dict(sorted(links.items()))


def _graph(path: Path) -> nx.Graph:
    try:
        if path.stat().st_size > LARGEST_FILE:
            raise Malformed("graph", f"{path.name} is larger than {LARGEST_FILE >> 20} MiB")
        read = nx.read_graphml(path)
    except OSError as error:
        raise Malformed("graph", f"{path} cannot be read: {error.strerror}") from error
    except (ParseError, nx.NetworkXError, ValueError, KeyError, TypeError) as error:
        raise Malformed("graph", f"{path.name} is no GraphML: {error}") from error
    graph = nx.Graph(read)
    graph.remove_edges_from([(one, other) for one, other in graph.edges if one == other])
    return graph


def _names(graph: nx.Graph, nodes: list[str]) -> dict[str, str]:
    labels = {n: str(graph.nodes[n].get("label", "")).strip() for n in nodes}
    seen = list(labels.values())
    return {
        n: label if label and seen.count(label) == 1 else f"{label}#{n}".lstrip("#")
        for n, label in labels.items()
    }


def _coordinates(attributes: Mapping[str, object]) -> tuple[float, float] | None:
    """Return latitude and longitude in degrees; None where one is missing or makes no sense."""
    values = [attributes.get(key) for key in ("Latitude", "Longitude")]
    try:
        latitude, longitude = (float(str(value)) for value in values)
    except ValueError:
        return None
    sane = isfinite(latitude) and isfinite(longitude) and abs(latitude) <= 90
    return (latitude, longitude) if sane and abs(longitude) <= 180 else None


def _middle(points: list[tuple[float, float]]) -> tuple[float, float]:
    if not points:
        return 0.0, 0.0
    return sum(p[0] for p in points) / len(points), sum(p[1] for p in points) / len(points)


def _km(one: tuple[float, float], other: tuple[float, float]) -> float:
    """Return the great-circle distance (haversine)."""
    (lat1, lon1), (lat2, lon2) = (tuple(map(radians, point)) for point in (one, other))
    root = sin((lat2 - lat1) / 2) ** 2 + cos(lat1) * cos(lat2) * sin((lon2 - lon1) / 2) ** 2
    return 2 * EARTH_KM * asin(sqrt(min(1.0, root)))

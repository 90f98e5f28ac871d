"""The lab as one graph: hosts, routers, links and client populations.

It answers what placement and steering ask: how far, how wide, which way. A topology never changes;
`with_link` and `without_link` return another one, so what was computed for a graph can be kept for
as long as that graph lives and is never stale, whichever thread asks. Graphs in GraphML and GML
(as in the Internet Topology Zoo) are read from files, and a topology is written as GraphML, DOT or
JSON text. This is the only module here that imports networkx.
"""

import json
import math
import re
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict
from itertools import pairwise
from pathlib import Path
from typing import Any

import networkx as nx

from orchestrator.errors import TopologyError
from orchestrator.model import Host, Lab, Link, Population, Router
from orchestrator.network import LinkLoad, Load

ROUTER, HOST, POPULATION = "router", "host", "population"
UNKNOWN = Load()

MAX_GRAPH_BYTES = 16 * 2**20  # the largest graph of the Topology Zoo is under 1 MiB
EARTH_RADIUS_KM = 6371.0  # mean radius, IUGG
FIBRE_KM_PER_MS = 200.0  # light in glass, refractive index about 1.5
LONGEST_NAME = 24  # leaves room for a number within the 30 characters of a name in a lab file
UNKNOWN_LATENCY_MS = 1.0
UNKNOWN_BANDWIDTH_MBPS = 1000.0
BROKEN_GRAPH = (  # what networkx's parsers raise on files that are not what they claim to be
    nx.NetworkXException,
    SyntaxError,  # includes xml.etree's ParseError
    ValueError,
    LookupError,
    TypeError,
    AttributeError,
    RecursionError,
)


class Topology:
    """A graph of routers, hosts and populations.

    Nodes are named as in the lab. Where a host, a router or a population share a name, ask for
    ``host:edge1``, ``router:edge1`` or ``population:edge1``. A host or population hangs on its
    router at no latency and unlimited bandwidth; without a router it is isolated unless a link
    names it (hosts only). Routers forward; hosts and populations are only ends of a path. There
    may be several links between the same two nodes. One that is down is drawn, but is no path.

    Raises:
        TopologyError: something names a router or host that does not exist.

    """

    def __init__(
        self,
        routers: Iterable[Router],
        links: Iterable[Link],
        hosts: Iterable[Host] = (),
        populations: Iterable[Population] = (),
    ) -> None:
        self.routers, self.links = tuple(routers), tuple(links)
        self.hosts, self.populations = tuple(hosts), tuple(populations)
        self._paths: dict[str, tuple[dict[str, float], dict[str, list[str]]]] = {}
        self._graph = nx.MultiGraph()
        self._nodes: dict[str, list[str]] = {}
        self._add_nodes(ROUTER, self.routers)
        self._add_nodes(HOST, self.hosts)
        self._add_nodes(POPULATION, self.populations)
        self._attach(HOST, self.hosts)
        self._attach(POPULATION, self.populations)
        for link in self.links:
            self._graph.add_edge(*self._ends(link.a, link.b), link=link)

    @classmethod
    def of(cls, lab: Lab) -> "Topology":
        """Return the topology of a lab."""
        return cls(lab.routers, lab.links, lab.hosts, lab.populations)

    # --- changes ----------------------------------------------------------------------------

    def with_link(self, link: Link) -> "Topology":
        """Return a topology in which this is the only link between its two ends."""
        return self._with_links((*self._links_but(link.a, link.b), link))

    def without_link(self, a: str, b: str) -> "Topology":
        """Return a topology without any link between two nodes; `TopologyError` if none is."""
        kept = self._links_but(a, b)
        if len(kept) == len(self.links):
            raise TopologyError(f"there is no link between {a} and {b}")
        return self._with_links(kept)

    def _with_links(self, links: tuple[Link, ...]) -> "Topology":
        return Topology(self.routers, links, self.hosts, self.populations)

    def _links_but(self, a: str, b: str) -> tuple[Link, ...]:
        ends = set(self._ends(a, b))
        return tuple(link for link in self.links if set(self._ends(link.a, link.b)) != ends)

    # --- questions --------------------------------------------------------------------------

    def latency_ms(self, a: str, b: str) -> float:
        """Return the one-way latency of the fastest path; `TopologyError` if there is none."""
        start, end = self._node(a), self._node(b)
        latencies, _ = self._from(start)
        if end not in latencies:
            raise TopologyError(
                f"there is no path from {a} to {b}", hint="add a link, or attach it to a router"
            )
        return latencies[end]

    def path(self, a: str, b: str) -> tuple[str, ...]:
        """Return the names along the fastest path, both ends included; see `latency_ms`."""
        return tuple(_name(node) for node in self._route(a, b))

    def bottleneck_mbps(self, a: str, b: str) -> float:
        """Return the bandwidth of the narrowest link on the *fastest* path (`path`).

        Of parallel links the fastest counts, then the widest. Infinite where no link is crossed.
        """
        route = self._route(a, b)
        edges = filter(None, (_fastest(self._graph[u][v]) for u, v in pairwise(route)))
        return min((edge.bandwidth for edge in edges), default=math.inf)

    def widest_mbps(self, a: str, b: str) -> float:
        """Return the largest bandwidth that any *one* path can carry, however long it is.

        The widest path runs along a maximum spanning tree (Hu 1961, "The maximum capacity route
        problem").
        """
        self.latency_ms(a, b)
        start, end = self._node(a), self._node(b)
        inner = [node for node in self._graph if _kind(node) == ROUTER]
        graph = nx.Graph()
        for u, v, data in self._graph.subgraph({*inner, start, end}).edges(data=True):
            if not _Edge(data).up:
                continue
            width = max(_Edge(data).bandwidth, graph.get_edge_data(u, v, {}).get("width", 0.0))
            graph.add_edge(u, v, width=width)
        graph.add_nodes_from((start, end))
        route = nx.shortest_path(nx.maximum_spanning_tree(graph, weight="width"), start, end)
        hops = pairwise(route)
        return min((graph[u][v]["width"] for u, v in hops), default=math.inf)

    def latency_table(
        self, populations: Iterable[str], hosts: Iterable[str]
    ) -> dict[str, dict[str, float]]:
        """Return one-way latencies in ms by population and host; a pair without path is left out.

        The names are names of populations and of hosts, whatever else bears them.
        """
        nodes = {host: self._node(host, HOST) for host in hosts}
        table: dict[str, dict[str, float]] = {}
        for population in populations:
            latencies, _ = self._from(self._node(population, POPULATION))
            table[population] = {
                host: latencies[node] for host, node in nodes.items() if node in latencies
            }
        return table

    def router_latencies(self) -> dict[str, dict[str, float]]:
        """Return one-way latencies in ms between routers; a pair without path is left out."""
        nodes = {router.name: f"{ROUTER}:{router.name}" for router in self.routers}
        table: dict[str, dict[str, float]] = {}
        for name, node in nodes.items():
            latencies, _ = self._from(node)
            table[name] = {
                other: latencies[there] for other, there in nodes.items() if there in latencies
            }
        return table

    # --- as text ----------------------------------------------------------------------------

    def graphml(self) -> str:
        """Return the graph as GraphML; `read_graph` reads its routers and links again."""
        graph = nx.MultiGraph()
        graph.add_nodes_from(self._graph.nodes(data=True))
        for u, v, data in self._graph.edges(data=True):
            graph.add_edge(u, v, **_Edge(data).attributes())
        lines: Iterator[str] = nx.generate_graphml(graph)  # type: ignore[no-untyped-call]
        return "\n".join(lines) + "\n"

    def dot(self, load: Load = UNKNOWN) -> str:
        """Return the graph as DOT, for Graphviz; with `load`, also how busy links and routers are.

        A link is drawn the thicker, the larger the share of its bandwidth is that is used.
        """
        shapes = {ROUTER: "circle", HOST: "box", POPULATION: "ellipse"}
        lines = [
            f"  {_quoted(node)} [label={_quoted(_busy_name(node, load))}, "
            f"shape={shapes[_kind(node)]}];"
            for node in self._graph
        ]
        for u, v, data in self._graph.edges(data=True):
            edge = _Edge(data)
            label = f"{edge.latency:g} ms, {edge.bandwidth:g} Mbit/s" if edge.link else ""
            style = "" if edge.up else ", style=dotted"
            busy = edge.load(load)
            if busy is not None and busy.share is not None:
                label += f", {busy.share:.0%}"
                style += f", penwidth={1 + 4 * min(busy.share, 1):.1f}"
            lines.append(f"  {_quoted(u)} -- {_quoted(v)} [label={_quoted(label)}{style}];")
        return "\n".join(("graph topology {", *lines, "}")) + "\n"

    def node_link_json(self, load: Load = UNKNOWN) -> str:
        """Return the graph as JSON in networkx's node-link form, edges under ``edges``.

        With `load`, links and routers have what is known of theirs (`network.Load`) under ``load``.
        """
        nodes = [
            {"id": node, **data, **_busy(node, load)} for node, data in self._graph.nodes(data=True)
        ]
        edges = [
            {"source": u, "target": v, "key": key, **_Edge(data).attributes(load)}
            for u, v, key, data in self._graph.edges(keys=True, data=True)
        ]
        data = {"directed": False, "multigraph": True, "graph": {}, "nodes": nodes, "edges": edges}
        return json.dumps(data, indent=2, ensure_ascii=False, allow_nan=False)

    # --- inside -----------------------------------------------------------------------------

    def _add_nodes(self, kind: str, nouns: Sequence[Router | Host | Population]) -> None:
        for noun in nouns:
            node = f"{kind}:{noun.name}"
            if node in self._graph:
                raise TopologyError(f"there are two {kind}s named {noun.name}", hint="rename one")
            site = "" if isinstance(noun, Population) else noun.site
            self._graph.add_node(node, kind=kind, label=noun.name, site=site)
            self._nodes.setdefault(noun.name, []).append(node)

    def _attach(self, kind: str, nouns: Sequence[Host | Population]) -> None:
        for noun in nouns:
            if noun.router:
                self._graph.add_edge(f"{kind}:{noun.name}", self._node(noun.router, ROUTER))

    def _ends(self, a: str, b: str) -> tuple[str, str]:
        return self._node(a, ROUTER, HOST), self._node(b, ROUTER, HOST)

    def _node(self, name: str, *kinds: str) -> str:
        """Return the node of a name, which may be qualified; of these kinds, if any are given."""
        wanted = kinds or (ROUTER, HOST, POPULATION)
        if name in self._graph and name not in self._nodes and _kind(name) in wanted:
            return name
        found = [node for node in self._nodes.get(name, ()) if _kind(node) in wanted]
        if len(found) == 1:
            return found[0]
        if found:
            raise TopologyError(
                f"the name {name!r} is ambiguous", hint=f"say {' or '.join(sorted(found))}"
            )
        known = sorted(_name(node) for node in self._graph if _kind(node) in wanted)
        raise TopologyError(
            f"there is no {' or '.join(wanted)} named {name!r}",
            hint=f"known: {', '.join(known) or 'none'}",
        )

    def _from(self, start: str) -> tuple[dict[str, float], dict[str, list[str]]]:
        """Return latency and path from a node to every node it reaches, computed once."""
        if start not in self._paths:
            self._paths[start] = nx.single_source_dijkstra(
                self._graph, start, weight=_latency_leaving(start)
            )
        return self._paths[start]

    def _route(self, a: str, b: str) -> list[str]:
        self.latency_ms(a, b)
        return self._from(self._node(a))[1][self._node(b)]


class _Edge:
    """What an edge of the graph carries: a link, or nothing where it attaches a host."""

    def __init__(self, data: Mapping[str, Any]) -> None:
        self.link: Link | None = data.get("link")
        self.latency = self.link.latency_ms if self.link else 0.0
        self.bandwidth = self.link.bandwidth_mbps if self.link else math.inf
        self.up = self.link.up if self.link else True

    def load(self, load: Load) -> LinkLoad | None:
        """Return what goes over it, as far as that is known."""
        return load.links.get("--".join(sorted((self.link.a, self.link.b)))) if self.link else None

    def attributes(self, load: Load = UNKNOWN) -> dict[str, Any]:
        """Return what is written of it; of what is seldom said, only what is not as usual."""
        busy = self.load(load)
        if not self.link:
            return {"latency_ms": 0.0}
        return {
            "latency_ms": self.latency,
            "bandwidth_mbps": self.bandwidth,
            "weight": self.link.weight,
            **({"jitter_ms": self.link.jitter_ms} if self.link.jitter_ms else {}),
            **({"loss": self.link.loss} if self.link.loss else {}),
            **({} if self.up else {"up": False}),
            **({"load": asdict(busy)} if busy else {}),
        }


def _kind(node: str) -> str:
    return node.partition(":")[0]


def _name(node: str) -> str:
    return node.partition(":")[2]


def _busy(node: str, load: Load) -> dict[str, Any]:
    busy = load.routers.get(_name(node)) if _kind(node) == ROUTER else None
    return {"load": asdict(busy)} if busy else {}


def _busy_name(node: str, load: Load) -> str:
    busy = load.routers.get(_name(node)) if _kind(node) == ROUTER else None
    return f"{_name(node)}, {busy.cores:.2f} cores" if busy else _name(node)


def _fastest(parallel: Mapping[Any, Mapping[str, Any]]) -> _Edge | None:
    """Return the fastest edge that carries anything, None if none does."""
    edges = [edge for edge in map(_Edge, parallel.values()) if edge.up]
    return min(edges, key=lambda edge: (edge.latency, -edge.bandwidth), default=None)


def _latency_leaving(start: str) -> Callable[[str, str, Any], float | None]:
    """Return a weight for networkx: latency, with no way on from nodes that do not forward."""

    def weight(u: str, _v: str, parallel: Any) -> float | None:
        edge = _fastest(parallel) if u == start or _kind(u) == ROUTER else None
        return edge.latency if edge else None

    return weight


def _quoted(text: str) -> str:
    """Return a DOT string; the backslash would start an escape in a label."""
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


# --- graphs from files --------------------------------------------------------------------------


def read_graph(path: Path) -> tuple[tuple[Router, ...], tuple[Link, ...]]:
    """Return the routers and links of a GraphML (``.graphml``, ``.xml``) or GML (``.gml``) file.

    A node becomes a router named after its label in lower case, digits and hyphens (numbered where
    that is taken), its site the label as written. Of an edge, `latency_ms` or `latency` (ms) is
    used; else the great-circle distance between the ends' `Latitude` and `Longitude` at 200 km per
    ms; else `UNKNOWN_LATENCY_MS`. Bandwidth is `bandwidth_mbps`, else `LinkSpeedRaw` (bit/s), else
    `UNKNOWN_BANDWIDTH_MBPS`. Parallel edges stay, edges to the node itself go. Files may be
    foreign: they are bounded in size, and XML with a document type or entities is refused.

    Raises:
        TopologyError: the file cannot be read, or is not such a graph.

    """
    text = _graph_text(path)
    try:
        if path.suffix.lower() == ".gml":
            graph = nx.parse_gml(text.splitlines(), label="id")
        else:
            graph = nx.parse_graphml(text)
        nodes = {
            node: data
            for node, data in graph.nodes(data=True)
            if data.get("kind", ROUTER) == ROUTER
        }
        routers = dict(zip(nodes, _routers(nodes), strict=True))
        links = tuple(
            _link(routers[u].name, routers[v].name, data, nodes[u], nodes[v])
            for u, v, data in graph.edges(data=True)
            if u != v and u in nodes and v in nodes
        )
    except BROKEN_GRAPH as error:
        raise TopologyError(f"{path}: not a graph we can read: {error}") from error
    return tuple(routers.values()), links


def _graph_text(path: Path) -> str:
    if path.suffix.lower() not in (".graphml", ".xml", ".gml"):
        raise TopologyError(f"{path}: unknown kind of file", hint="known: .graphml, .xml, .gml")
    try:
        with path.open("rb") as file:
            data = file.read(MAX_GRAPH_BYTES + 1)
        text = data.decode("utf-8-sig")
    except OSError as error:
        raise TopologyError(f"{path}: cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise TopologyError(f"{path}: not UTF-8", hint="convert it to UTF-8 first") from error
    if len(data) > MAX_GRAPH_BYTES:
        raise TopologyError(f"{path}: larger than {MAX_GRAPH_BYTES} bytes")
    if "\0" in text or re.search(r"<!(DOCTYPE|ENTITY)", text, re.IGNORECASE):
        raise TopologyError(
            f"{path}: holds NUL bytes, a document type or entities, which are refused",
            hint="remove them; GraphML needs none",
        )
    return text


def _routers(nodes: Mapping[Any, Mapping[str, Any]]) -> Iterator[Router]:
    taken: set[str] = set()
    for node, data in nodes.items():
        label = str(data.get("label") or "").strip()
        plain = unicodedata.normalize("NFKD", label or f"n{node}").encode("ascii", "ignore")
        slug = re.sub(r"[^a-z0-9]+", "-", plain.decode().lower())[:LONGEST_NAME].strip("-")
        slug = slug or "router"
        name, number = slug, 1
        while name in taken:
            number += 1
            name = f"{slug}-{number}"
        taken.add(name)
        yield Router(name, site=str(data.get("site", label)))


def _link(
    a: str, b: str, data: Mapping[str, Any], start: Mapping[str, Any], end: Mapping[str, Any]
) -> Link:
    latency = _number(data, "latency_ms", "latency")
    bandwidth = _number(data, "bandwidth_mbps")
    raw = _number(data, "LinkSpeedRaw")
    if latency is None:
        latency = _distance_latency_ms(start, end)
    if bandwidth is None:
        bandwidth = UNKNOWN_BANDWIDTH_MBPS if raw is None else raw / 1e6
    weight = _number(data, "weight")
    return Link(
        a,
        b,
        latency,
        bandwidth,
        1.0 if weight is None else weight,
        jitter_ms=_number(data, "jitter_ms") or 0.0,
        loss=_number(data, "loss") or 0.0,
        up=data.get("up") is not False,
    )


def _number(data: Mapping[str, Any], *names: str) -> float | None:
    """Return the first of these attributes that is set; ValueError if it is no amount."""
    for name in names:
        if data.get(name) not in (None, ""):
            number = float(data[name])
            if not 0 <= number < math.inf:
                raise ValueError(f"{name} must be finite and at least 0, not {data[name]}")
            return number
    return None


def _distance_latency_ms(start: Mapping[str, Any], end: Mapping[str, Any]) -> float:
    """Return the latency of a fibre along the great circle (haversine formula)."""
    places = [data.get(key) for data in (start, end) for key in ("Latitude", "Longitude")]
    if any(place in (None, "") for place in places):
        return UNKNOWN_LATENCY_MS
    lat1, lon1, lat2, lon2 = (math.radians(float(place)) for place in places if place is not None)
    half = (
        math.sin((lat2 - lat1) / 2) ** 2
        + math.cos(lat1) * math.cos(lat2) * math.sin((lon2 - lon1) / 2) ** 2
    )
    return 2 * EARTH_RADIUS_KM * math.asin(min(1.0, math.sqrt(half))) / FIBRE_KM_PER_MS

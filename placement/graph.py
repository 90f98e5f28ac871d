"""A networkx graph as a placement problem: the border to who studies networks.

Nodes with ``kind`` ``host`` become hosts: their other attributes are the fields of
`placement.problem.Host`. Nodes with ``kind`` ``population`` are where requests come from; all
others only carry traffic. Edges have ``latency_ms`` (default 0), and may have ``capacity_mbps`` and
``cost``. Latencies are those of shortest paths. Edges between different sites become links.
"""

from collections.abc import Mapping
from dataclasses import fields, replace
from typing import Any

import networkx as nx

from placement.problem import SITE, Demand, Host, Link, Malformed, Problem

KIND, HOST_KIND, POPULATION_KIND = "kind", "host", "population"

_HOST_FIELDS = frozenset(each.name for each in fields(Host)) - {"name"}


def problem_of(graph: "nx.Graph[Any]", demands: tuple[Demand, ...]) -> Problem:
    """Return the problem of placing demands on the hosts of a graph.

    Hosts and populations are named by their nodes, as text. An edge is used both ways; of parallel
    edges the fastest counts for latency. Raises `Malformed` at an attribute that a host cannot
    have, or a latency that is not a number of at least 0.
    """
    hosts = tuple(
        _host(str(node), data)
        for node, data in graph.nodes(data=True)
        if data.get(KIND) == HOST_KIND
    )
    names = {host.name for host in hosts}
    for u, v, data in graph.edges(data=True):
        latency = data.get("latency_ms", 0.0)
        if not isinstance(latency, int | float) or not latency >= 0:
            raise Malformed(f"edges.{u}-{v}.latency_ms", f"must be at least 0, not {latency!r}")
    latency_ms: dict[str, dict[str, float]] = {}
    for node, data in graph.nodes(data=True):
        if data.get(KIND) == POPULATION_KIND:
            far = nx.single_source_dijkstra_path_length(graph, node, weight=_weight)
            latency_ms[str(node)] = {str(n): float(ms) for n, ms in far.items() if str(n) in names}
    return Problem(hosts, demands, latency_ms, links=tuple(_links(graph, hosts)))


def _host(name: str, data: Mapping[str, Any]) -> Host:
    given = {key: value for key, value in data.items() if key != KIND}
    if unknown := sorted(set(given) - _HOST_FIELDS):
        known = ", ".join(sorted(_HOST_FIELDS))
        raise Malformed(f"nodes.{name}.{unknown[0]}", f"unknown attribute; known: {known}")
    if "capacity" not in given:
        raise Malformed(f"nodes.{name}.capacity", "missing")
    return Host(name, **given)


def _weight(_u: object, _v: object, data: Mapping[Any, Any]) -> float:
    """Return the latency of an edge, the least of parallel ones."""
    edges = data.values() if data and all(isinstance(e, Mapping) for e in data.values()) else [data]
    return min(float(edge.get("latency_ms", 0.0)) for edge in edges)


def _links(graph: "nx.Graph[Any]", hosts: tuple[Host, ...]) -> list[Link]:
    node_of = {host.name: host.domain(SITE) for host in hosts}
    links: dict[frozenset[str], Link] = {}
    for u, v, data in graph.edges(data=True):
        a, b = (node_of.get(str(each), str(each)) for each in (u, v))
        if a != b:
            capacity = data.get("capacity_mbps")
            link = Link(
                a,
                b,
                None if capacity is None else float(capacity),
                float(data.get("latency_ms", 0.0)),
                float(data.get("cost", 1.0)),
            )
            ends = frozenset((a, b))
            links[ends] = _joined(links[ends], link) if ends in links else link
    return list(links.values())


def _joined(one: Link, other: Link) -> Link:
    """Return parallel links as one: capacities add up, the least latency and cost count."""
    both = (one.capacity_mbps, other.capacity_mbps)
    return replace(
        one,
        capacity_mbps=None if None in both else sum(each or 0.0 for each in both),
        latency_ms=min(one.latency_ms, other.latency_ms),
        cost=min(one.cost, other.cost),
    )

"""The start page: everything as a graph, the same as tables, and the figures that matter."""

import time
from collections import Counter
from collections.abc import Mapping
from typing import Any

from flask import Blueprint, render_template

from web.pages.area import Link, Upstream
from web.pages.topology_figures import figures_of

LINKS = (Link("/", "Topology"),)
WAKES = 200  # at most that the figures of the last hour are made of

Document = Mapping[str, Any]


def add(pages: Blueprint, upstream: Upstream) -> None:
    """Add the start page."""

    @pages.get("/")
    def topology() -> str:
        """Show what there is, and how it is."""
        status, graph = upstream.get("/status"), upstream.get("/graph")
        wakes = upstream.get(f"/wakes?limit={WAKES}")["wakes"]
        return render_template(
            "topology.html",
            status=status,
            figures=figures_of(status, upstream.get("/hosts")["hosts"], wakes, time.time(), WAKES),
            hosts=hosts_of(graph, status),
            network=network_of(graph),
            services=services_of(status),
        )


def hosts_of(graph: Document, status: Document) -> list[dict[str, Any]]:
    """Return the hosts of a graph by site, each with its instances."""
    instances: dict[str, list[Document]] = {}
    for node in graph["nodes"]:
        if node["kind"] == "instance":
            instances.setdefault(node["parent"], []).append(node)
    known = {host["name"]: host for host in status["hosts"]}
    hosts = [
        {
            **node,
            "site": _site(node["parent"]),
            "instances": instances.get(node["id"], []),
            "drain": known.get(node["label"], {}).get("drain"),
        }
        for node in graph["nodes"]
        if node["kind"] == "host"
    ]
    return sorted(hosts, key=lambda host: (host["site"], host["label"]))


def network_of(graph: Document) -> dict[str, list[dict[str, Any]]]:
    """Return the routers, populations and links of a graph, with names for their ends."""
    labels = {node["id"]: node["label"] for node in graph["nodes"]}
    at = {
        edge["source"]: labels[edge["target"]]
        for edge in graph["edges"]
        if edge["kind"] == "attachment"
    }
    nodes = [
        {**node, "site": _site(node["parent"]), "router": at.get(node["id"], "")}
        for node in graph["nodes"]
        if node["kind"] in {"router", "population"}
    ]
    return {
        "routers": [node for node in nodes if node["kind"] == "router"],
        "populations": [node for node in nodes if node["kind"] == "population"],
        "links": [
            {**edge, "ends": (labels[edge["source"]], labels[edge["target"]])}
            for edge in graph["edges"]
            if edge["kind"] == "link"
        ],
    }


def services_of(status: Document) -> list[dict[str, Any]]:
    """Return services with the hosts where they are, those in trouble and those awake first."""
    order = Counter({"waking": 3, "awake": 2, "stopping": 1})
    services = [
        {**service, "hosts": sorted({each["host"] for each in service["instances"]})}
        for service in status["services"]
    ]
    return sorted(
        services, key=lambda each: (not each["trouble"], -order[each["state"]], each["name"])
    )


def _site(parent: str | None) -> str:
    return (parent or "").removeprefix("site:")

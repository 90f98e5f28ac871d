"""The lab as a graph to be drawn: sites, hosts, instances, routers, populations, links."""

from typing import Annotated, Literal, Self

from pydantic import Field

from orchestrator.model import Instance, Lab, Population
from orchestrator.network_view import LinkView, NetworkView, RouterView
from orchestrator.views import HostStatus, Status
from web.models.base import Document, Parameters, Switch
from web.models.network import LinkLoadDocument, RouterLoadDocument
from web.models.nouns import CapacityDocument


class SiteNode(Document):
    """A site, which groups what names it as its `parent`."""

    kind: Literal["site"] = "site"
    id: str
    label: str


class HostNode(Document):
    """A host; `state` is up, draining, drained, refused or lost, and `why` says why not up."""

    kind: Literal["host"] = "host"
    id: str
    label: str
    parent: str | None
    state: str
    why: str
    used: CapacityDocument
    usable: CapacityDocument


class InstanceNode(Document):
    """An instance, in its host; `state` and `rung` are as in the API's instances."""

    kind: Literal["instance"] = "instance"
    id: str
    label: str
    parent: str
    service: str
    state: str
    rung: str


class RouterNode(Document):
    """A virtual router; `state` and `why` as in `/routers`, `apps` counts programs that run."""

    kind: Literal["router"] = "router"
    id: str
    label: str
    parent: str | None
    state: str
    why: str
    apps: int
    load: RouterLoadDocument | None
    differs_from_lab: bool


class PopulationNode(Document):
    """A population of clients, and the requests that they usually send."""

    kind: Literal["population"] = "population"
    id: str
    label: str
    parent: str | None
    state: str
    requests_s: float


class LinkEdge(Document):
    """A link; everything as in `/links`."""

    kind: Literal["link"] = "link"
    id: str
    label: str
    source: str
    target: str
    latency_ms: float
    loss: float
    bandwidth_mbps: float | None
    weight: float
    up: bool
    state: str
    load: LinkLoadDocument | None
    differs_from_lab: bool


class AttachmentEdge(Document):
    """A host or population at its router: no latency, no limit."""

    kind: Literal["attachment"] = "attachment"
    id: str
    source: str
    target: str


Node = Annotated[
    SiteNode | HostNode | InstanceNode | RouterNode | PopulationNode, Field(discriminator="kind")
]
Edge = Annotated[LinkEdge | AttachmentEdge, Field(discriminator="kind")]


class GraphOptions(Parameters):
    """What a graph has."""

    load: Switch = Field(True, description="whether links and routers say how busy they are")


class GraphDocument(Document):
    """Nodes, with `parent` where they are inside another, and edges between nodes by `id`.

    An `id` is a kind and a name, as in ``router:r1``, and stays as long as what it names. Positions
    are not given: no lab knows any.
    """

    lab: str
    runs: bool
    differs_from_lab: bool
    interval_s: float
    nodes: list[Node]
    edges: list[Edge]

    @classmethod
    def of(cls, lab: Lab, status: Status, network: NetworkView, *, load: bool) -> Self:
        """Return the graph of a lab, its hosts and instances, and its network."""
        sites = _Sites(lab)
        nodes: list[Node] = list(sites.nodes())
        nodes += [_host(each, sites) for each in status.hosts]
        hosts = {each.host.name for each in status.hosts}
        nodes += [
            _instance(each)
            for service in status.services
            for each in service.instances
            if each.host in hosts
        ]
        nodes += [_router(each, sites, load=load) for each in network.routers]
        nodes += [_population(each, sites) for each in lab.populations]
        known = {node.id for node in nodes}
        edges: list[Edge] = [
            edge
            for each in network.links
            if {(edge := _link(each, known, load=load)).source, edge.target} <= known
        ]
        edges += [edge for edge in _attachments(lab) if {edge.source, edge.target} <= known]
        return cls(
            lab=lab.name,
            runs=network.runs,
            differs_from_lab=network.differs,
            interval_s=network.interval_s if load else 0.0,
            nodes=nodes,
            edges=edges,
        )


class _Sites:
    """Where things stand: of a host or population that says nothing, where its router does."""

    def __init__(self, lab: Lab) -> None:
        self._routers = {router.name: router.site for router in lab.routers}
        self._hosts = {
            host.name: host.site or self._routers.get(host.router, "") for host in lab.hosts
        }

    def nodes(self) -> list[SiteNode]:
        """Return the sites, by name."""
        names = {*self._routers.values(), *self._hosts.values()} - {""}
        return [SiteNode(id=f"site:{name}", label=name) for name in sorted(names)]

    def of_host(self, name: str) -> str | None:
        """Return the site of a host."""
        return _site(self._hosts.get(name, ""))

    def of_router(self, name: str) -> str | None:
        """Return the site of a router."""
        return _site(self._routers.get(name, ""))


def _site(name: str) -> str | None:
    return f"site:{name}" if name else None


def _host(value: HostStatus, sites: _Sites) -> HostNode:
    state, why = _standing(value)
    return HostNode(
        id=f"host:{value.host.name}",
        label=value.host.name,
        parent=sites.of_host(value.host.name),
        state=state,
        why=why,
        used=CapacityDocument.of(value.used),
        usable=CapacityDocument.of(value.host.usable),
    )


def _standing(value: HostStatus) -> tuple[str, str]:
    if value.lost:
        return "lost", value.lost
    if value.refused:
        return "refused", value.refused
    if value.drain is not None:
        return value.drain.state, f"{value.drain.moved} of {value.drain.total} moved"
    return "up", ""


def _instance(value: Instance) -> InstanceNode:
    return InstanceNode(
        id=f"instance:{value.name}",
        label=value.service or value.name,
        parent=f"host:{value.host}",
        service=value.service,
        state=value.state.value,
        rung=value.rung.value,
    )


def _router(value: RouterView, sites: _Sites, *, load: bool) -> RouterNode:
    return RouterNode(
        id=f"router:{value.name}",
        label=value.name,
        parent=sites.of_router(value.name),
        state=value.state,
        why=value.why,
        apps=sum(each.running for each in value.apps),
        load=RouterLoadDocument.of(value.load) if load and value.load else None,
        differs_from_lab=value.differs,
    )


def _population(value: Population, sites: _Sites) -> PopulationNode:
    return PopulationNode(
        id=f"population:{value.name}",
        label=value.name,
        parent=sites.of_router(value.router),
        state="attached",
        requests_s=value.requests_s,
    )


def _link(value: LinkView, known: set[str], *, load: bool) -> LinkEdge:
    source, target = (
        f"router:{end}" if f"router:{end}" in known else f"host:{end}" for end in (value.a, value.b)
    )
    return LinkEdge(
        id=f"link:{value.name}",
        label=value.name,
        source=source,
        target=target,
        latency_ms=value.quality.latency_ms,
        loss=value.quality.loss,
        bandwidth_mbps=value.quality.bandwidth_mbps,
        weight=value.weight,
        up=value.up,
        state=value.state,
        load=LinkLoadDocument.of(value.load) if load and value.load else None,
        differs_from_lab=value.differs,
    )


def _attachments(lab: Lab) -> list[AttachmentEdge]:
    ends = [(f"host:{host.name}", host.router) for host in lab.hosts if host.router]
    ends += [(f"population:{each.name}", each.router) for each in lab.populations]
    return [
        AttachmentEdge(id=f"attachment:{node}", source=node, target=f"router:{router}")
        for node, router in ends
    ]

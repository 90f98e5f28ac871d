"""The virtual network as it is: routers, links, programs on routers; and what a change came to."""

from typing import Any, Self

from pydantic import Field

from orchestrator.network import AppState, LinkLoad, PortCounters, RouterLoad, Stub
from orchestrator.network_view import LinkView, NetworkView, RouterView, Standing
from orchestrator.network_ways import Way, Ways
from orchestrator.routers.base import Done
from web.models.base import Document

RATES_UNKNOWN = "null until the network was looked at twice"


# --- what there is ------------------------------------------------------------------------------


class PortDocument(Document):
    """What went through one end of a link, or of what hangs there, since it was made.

    `peer` is the router, population or host at the other end; `drops` were to leave, and could not.
    """

    peer: str
    rx_bytes: int
    rx_packets: int
    tx_bytes: int
    tx_packets: int
    drops: int

    @classmethod
    def of(cls, value: PortCounters) -> Self:
        """Return an end of a link."""
        return cls(
            peer=value.peer,
            rx_bytes=value.rx_bytes,
            rx_packets=value.rx_packets,
            tx_bytes=value.tx_bytes,
            tx_packets=value.tx_packets,
            drops=value.drops,
        )


class RouterLoadDocument(Document):
    """What a router has to do; `cores` are what its programs use."""

    rx_mbps: float
    tx_mbps: float
    cores: float

    @classmethod
    def of(cls, value: RouterLoad) -> Self:
        """Return the load of a router."""
        return cls(rx_mbps=value.rx_mbps, tx_mbps=value.tx_mbps, cores=value.cores)


class LinkLoadDocument(Document):
    """What goes over a link from `a` to `b`, and back.

    `share` is that of its bandwidth in the busier direction, 0 to 1 and briefly more; null where
    bandwidth is not limited.
    """

    there_mbps: float
    back_mbps: float
    share: float | None
    drops_per_s: float

    @classmethod
    def of(cls, value: LinkLoad) -> Self:
        """Return the load of a link."""
        return cls(
            there_mbps=value.there_mbps,
            back_mbps=value.back_mbps,
            share=value.share,
            drops_per_s=value.drops_per_s,
        )


class AppDocument(Document):
    """A program on a router, or among clients, also after its end until it is removed.

    `started_at` is seconds since the epoch, `cpu_s` seconds of one core. `exit_code` and `signal`
    say how it ended, as far as that is known.
    """

    router: str
    name: str
    argv: list[str]
    rights: list[str]
    running: bool
    pid: int
    started_at: float
    exit_code: int | None
    signal: int | None
    cpu_s: float
    memory_mib: float

    @classmethod
    def of(cls, value: AppState) -> Self:
        """Return a program; what it reads on standard input is left out."""
        return cls(
            router=value.app.router,
            name=value.app.name,
            argv=list(value.app.argv),
            rights=list(value.app.rights),
            running=value.running,
            pid=value.pid,
            started_at=value.started_at,
            exit_code=value.exit_code,
            signal=value.signal,
            cpu_s=value.cpu_s,
            memory_mib=value.memory_mib,
        )


class RouterDocument(Document):
    """A router; `state` is up, missing, elsewhere, unknown or planned, and `why` says why not up.

    `machine` runs it; empty: the one that edgewake is on. `differs_from_lab`: somebody has changed
    it, which lasts until the lab is applied again.
    """

    name: str
    site: str
    machine: str
    address: str | None
    address6: str | None
    state: Standing
    why: str
    hosts: list[str]
    populations: list[str]
    ports: list[PortDocument]
    load: RouterLoadDocument | None = Field(description=RATES_UNKNOWN)
    apps: list[AppDocument]
    differs_from_lab: bool

    @classmethod
    def of(cls, value: RouterView) -> Self:
        """Return a router."""
        return cls(
            name=value.name,
            site=value.site,
            machine=value.machine,
            address=_text(value.address),
            address6=_text(value.address6),
            state=value.state,
            why=value.why,
            hosts=list(value.hosts),
            populations=list(value.populations),
            ports=[PortDocument.of(each) for each in value.ports],
            load=None if value.load is None else RouterLoadDocument.of(value.load),
            apps=[AppDocument.of(each) for each in value.apps],
            differs_from_lab=value.differs,
        )


class LinkDocument(Document):
    """A link between two routers; `state` is up, down, missing, elsewhere, unknown or planned.

    Latency is one way, `loss` a share from 0 to 1, `bandwidth_mbps` null without a limit. `up` is
    what is wanted, `engine` what makes it slow. In a lab that does not run its network, ends may be
    hosts.
    """

    name: str
    a: str
    b: str
    latency_ms: float
    jitter_ms: float
    loss: float
    bandwidth_mbps: float | None
    weight: float
    up: bool
    state: Standing
    why: str
    engine: str | None
    load: LinkLoadDocument | None = Field(description=RATES_UNKNOWN)
    differs_from_lab: bool

    @classmethod
    def of(cls, value: LinkView) -> Self:
        """Return a link."""
        return cls(
            name=value.name,
            a=value.a,
            b=value.b,
            latency_ms=value.quality.latency_ms,
            jitter_ms=value.quality.jitter_ms,
            loss=value.quality.loss,
            bandwidth_mbps=value.quality.bandwidth_mbps,
            weight=value.weight,
            up=value.up,
            state=value.state,
            why=value.why,
            engine=value.engine,
            load=None if value.load is None else LinkLoadDocument.of(value.load),
            differs_from_lab=value.differs,
        )


class StubDocument(Document):
    """What hangs on a router: a namespace for `clients`, or the `bridge` of a host's guests."""

    name: str
    router: str
    kind: str
    subnet: str
    gateway: str
    subnet6: str | None
    gateway6: str | None
    bridge: str
    state: Standing

    @classmethod
    def of(cls, value: Stub, state: Standing) -> Self:
        """Return a stub."""
        return cls(
            name=value.name,
            router=value.router,
            kind=value.kind,
            subnet=str(value.subnet),
            gateway=str(value.gateway),
            subnet6=_text(value.subnet6),
            gateway6=_text(value.gateway6),
            bridge=value.bridge,
            state=state,
        )


class NetworkSummary(Document):
    """A network but for what it is made of.

    Unless it `runs`, it is only counted with in placement. `why` says why it is not yet as the lab
    wants, `gone` lists what of the lab file somebody has removed, and loads are means over
    `interval_s` seconds.
    """

    network: str
    runs: bool
    machine: str
    routing: str
    why: str
    differs_from_lab: bool
    gone: list[str]
    interval_s: float

    @classmethod
    def facts(cls, value: NetworkView) -> dict[str, Any]:
        """Return the values of these keys."""
        return {
            "network": value.name,
            "runs": value.runs,
            "machine": value.machine,
            "routing": str(value.routing),
            "why": value.why,
            "differs_from_lab": value.differs,
            "gone": list(value.gone),
            "interval_s": value.interval_s,
        }


class NetworkDocument(NetworkSummary):
    """A network whole."""

    name: str
    routers: list[RouterDocument]
    links: list[LinkDocument]
    stubs: list[StubDocument]

    @classmethod
    def of(cls, value: NetworkView) -> Self:
        """Return a network."""
        return cls.model_validate(
            {
                **cls.facts(value),
                "name": value.name,
                "routers": [RouterDocument.of(each) for each in value.routers],
                "links": [LinkDocument.of(each) for each in value.links],
                "stubs": [StubDocument.of(*each) for each in value.stubs],
            }
        )


class RoutersDocument(NetworkSummary):
    """Routers, in the order of their names; `next` is for the page after, null at the end."""

    routers: list[RouterDocument]
    next: str | None


class LinksDocument(NetworkSummary):
    """Links, in the order of their names; `next` is for the page after, null at the end."""

    links: list[LinkDocument]
    next: str | None


class AppsDocument(Document):
    """The programs on a router, or among clients."""

    apps: list[AppDocument]


class WayDocument(Document):
    """A way: the names along it, and its latency in one direction."""

    hops: list[str]
    latency_ms: float

    @classmethod
    def of(cls, value: Way) -> Self:
        """Return a way."""
        return cls(hops=list(value.hops), latency_ms=value.latency_ms)


class WaysDocument(Document):
    """The best ways between two places; there may be `more` that are as good.

    `by` is weight, as packets go, or latency where the network does not run; `cost` is the sum of
    that, null if there is no way.
    """

    by: str
    cost: float | None
    paths: list[WayDocument]
    more: bool

    @classmethod
    def of(cls, value: Ways) -> Self:
        """Return ways."""
        return cls(
            by=value.by,
            cost=value.cost,
            paths=[WayDocument.of(each) for each in value.ways],
            more=value.more,
        )


# --- what was done ------------------------------------------------------------------------------


class NetworkChangesDocument(Document):
    """What a change came to: routers, links and programs by name, and routes in number."""

    made: list[str]
    changed: list[str]
    removed: list[str]
    routes: int

    @classmethod
    def of(cls, value: Done) -> Self:
        """Return what was done."""
        return cls(
            made=list(value.made),
            changed=list(value.changed),
            removed=list(value.removed),
            routes=value.routes,
        )


class RouterChanged(Document):
    """A router after a change, which lasts `until` then; null if it is gone."""

    router: RouterDocument | None
    changes: NetworkChangesDocument
    differs_from_lab: bool
    until: str


class LinkChanged(Document):
    """A link after a change, which lasts `until` then; null if it is gone."""

    link: LinkDocument | None
    changes: NetworkChangesDocument
    differs_from_lab: bool
    until: str


class AppRemoved(Document):
    """The program that is gone, as ``router/name``."""

    removed: str


def _text(value: object | None) -> str | None:
    return None if value is None else str(value)

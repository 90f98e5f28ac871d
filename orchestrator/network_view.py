"""The virtual network of a lab as people look at it: wanted, there, how busy, unlike the lab file.

Values, and what makes them: `looked_at` of a network that runs, `planned` of one that is only
counted with. `orchestrator.live_network` asks for them; `web` writes them down.
"""

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from ipaddress import IPv4Address, IPv6Address

from orchestrator.model import Lab, Link, Router
from orchestrator.network import (
    App,
    AppState,
    LinkEngine,
    LinkLoad,
    LinkState,
    Load,
    Network,
    PortCounters,
    Quality,
    RouterLoad,
    Routing,
    Stub,
)
from orchestrator.network_edits import named
from orchestrator.network_monitor import Sample
from orchestrator.networks import Kept
from orchestrator.topology import Topology

UNKNOWN = Load()
UNLIMITED_MBPS = 1e6  # as text has to say something


class Standing(StrEnum):
    """How a router or link stands."""

    UP = "up"
    DOWN = "down"  # a link that is there and carries nothing, as wanted
    MISSING = "missing"  # wanted here, and not there
    ELSEWHERE = "elsewhere"  # on another machine, which is not asked
    UNKNOWN = "unknown"  # this machine cannot be asked
    PLANNED = "planned"  # the lab does not run its network


@dataclass(frozen=True, slots=True)
class RouterView:
    """A router. `why` says why it is not up; `hosts` and `populations` are attached to it.

    Addresses are None where none is given and the network does not run. `differs`: the lab file
    has it otherwise, or not at all.
    """

    name: str
    site: str
    machine: str
    address: IPv4Address | None
    address6: IPv6Address | None
    state: Standing
    why: str = ""
    hosts: tuple[str, ...] = ()
    populations: tuple[str, ...] = ()
    ports: tuple[PortCounters, ...] = ()
    load: RouterLoad | None = None
    apps: tuple[AppState, ...] = ()
    differs: bool = False


@dataclass(frozen=True, slots=True)
class LinkView:
    """A link between `a` and `b`, and what makes it slow; the rest as in `RouterView`.

    Names are unique: of several links between the same two, which a network that runs has not, the
    second is called ``a--b~2``.
    """

    name: str
    a: str
    b: str
    quality: Quality
    weight: float
    up: bool
    state: Standing
    why: str = ""
    engine: LinkEngine | None = None
    load: LinkLoad | None = None
    differs: bool = False


@dataclass(frozen=True, slots=True)
class NetworkView:
    """All of a network. `gone` are routers and links of the lab file that people have removed.

    Unless it `runs`, it is the graph that placement and steering count with. `interval_s` is the
    time over which loads are told, 0 if nothing is known yet. `why` says why it is not yet as the
    lab wants.
    """

    name: str
    runs: bool
    machine: str = ""
    routing: Routing = Routing.STATIC
    routers: tuple[RouterView, ...] = ()
    links: tuple[LinkView, ...] = ()
    stubs: tuple[tuple[Stub, Standing], ...] = ()
    gone: tuple[str, ...] = ()
    apps_differ: frozenset[tuple[str, str]] = frozenset()
    interval_s: float = 0.0
    why: str = ""

    def at_rest(self) -> "NetworkView":
        """Return it without what goes through it: that changes all the time."""
        return replace(
            self,
            routers=tuple(replace(each, ports=(), load=None) for each in self.routers),
            links=tuple(replace(each, load=None) for each in self.links),
            interval_s=0.0,
        )

    @property
    def differs(self) -> bool:
        """Whether it is otherwise than the lab file says."""
        if self.gone or self.apps_differ:
            return True
        differ = (each.differs for each in self.routers)
        return any(differ) or any(each.differs for each in self.links)

    def router(self, name: str) -> RouterView:
        """Return the router of a name; NotInNetwork lists those there are."""
        return named(self.name, "router", name, {each.name: each for each in self.routers})

    def link(self, name: str) -> LinkView:
        """Return the link of a name, whichever end comes first."""
        return named(self.name, "link", name, {each.name: each for each in self.links})


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a lab file says of its network."""

    lab: Lab
    network: Network
    apps: tuple[App, ...] = ()


@dataclass(frozen=True, slots=True)
class Look:
    """A look at this machine. Without a sample, `why` says why it could not be asked."""

    sample: Sample | None
    load: Load = UNKNOWN
    why: str = ""


def planned(lab: Lab) -> NetworkView:
    """Return the network of a lab that does not run it."""
    hosts, populations = _hanging(lab)
    routers = tuple(
        RouterView(
            each.name,
            each.site,
            each.host,
            each.address,
            each.address6,
            Standing.PLANNED,
            hosts=hosts[each.name],
            populations=populations[each.name],
        )
        for each in lab.routers
    )
    seen: dict[str, int] = defaultdict(int)
    links = []
    for link in lab.links:
        a, b = sorted((link.a, link.b))
        name = f"{a}--{b}"
        seen[name] += 1
        links.append(
            LinkView(
                name if seen[name] == 1 else f"{name}~{seen[name]}",
                a,
                b,
                Quality(link.latency_ms, link.jitter_ms, link.loss, link.bandwidth_mbps),
                link.weight,
                link.up,
                Standing.PLANNED,
            )
        )
    return NetworkView(
        lab.name, runs=False, routing=lab.network.routing, routers=routers, links=tuple(links)
    )


def looked_at(kept: Kept, wanted: Wanted, look: Look) -> NetworkView:
    """Return a network that runs: as it was set, as the lab wants it, and as it was seen."""
    maker = _Maker(kept, wanted, look)
    routers, links = tuple(maker.routers()), tuple(maker.links())
    names = {each.name for each in routers} | {each.name for each in links}
    in_file = [each.name for each in wanted.network.routers]
    in_file += [each.name for each in wanted.network.links]
    return NetworkView(
        kept.network.name,
        runs=True,
        machine=kept.machine,
        routing=kept.network.routing,
        routers=routers,
        links=links,
        stubs=tuple(maker.stubs()),
        gone=tuple(name for name in in_file if name not in names),
        apps_differ=_apps_differ(wanted.apps, look.sample),
        interval_s=look.load.interval_s,
        why=look.why,
    )


def topology_of(lab: Lab, view: NetworkView) -> Topology:
    """Return a lab's graph with its routers and links as they are, to be written as text."""
    known = {"", *(each.name for each in view.routers)}
    return Topology(
        [Router(each.name, each.site) for each in view.routers],
        [
            Link(
                each.a,
                each.b,
                each.quality.latency_ms,
                each.quality.bandwidth_mbps or UNLIMITED_MBPS,
                each.weight,
                each.quality.jitter_ms,
                each.quality.loss,
                each.state is not Standing.DOWN and each.up,
            )
            for each in view.links
        ],
        [host for host in lab.hosts if host.router in known],
        [each for each in lab.populations if each.router in known],
    )


def router_version(network: Network | NetworkView, name: str) -> str:
    """Return as text what people change of a router, and which links it has; empty: it is not."""
    for each in network.routers:
        if each.name == name:
            links = sorted(link.name for link in network.links if name in {link.a, link.b})
            return repr((each.address, each.address6, each.machine, links))
    return ""


def link_version(network: Network | NetworkView, name: str) -> str:
    """Return as text what people change of a link (``a--b``, in this order); empty: it is not."""
    for each in network.links:
        if each.name == name:
            return repr((each.quality, each.weight, each.up))
    return ""


class _Maker:
    """What is known of a network, by name, and the views that come of it."""

    def __init__(self, kept: Kept, wanted: Wanted, look: Look) -> None:
        self._kept, self._look, sample = kept, look, look.sample
        self._machines = {each.name: each.machine for each in kept.network.routers}
        self._sites = {router.name: router.site for router in wanted.lab.routers}
        self._hosts, self._populations = _hanging(wanted.lab)
        self._routers = {each.name: each for each in wanted.network.routers}
        self._links = {each.name: each for each in wanted.network.links}
        self._found: Mapping[str, LinkState] = {}
        self._there: frozenset[str] = frozenset()
        self._ports: dict[str, list[PortCounters]] = defaultdict(list)
        self._apps: dict[str, list[AppState]] = defaultdict(list)
        if sample is not None:
            self._found = {state.link.name: state for state in sample.found.links}
            self._there = frozenset((*sample.found.routers, *sample.found.stubs, *self._found))
            for port in sample.counters:
                self._ports[port.router].append(port)
            for state in sample.apps:
                self._apps[state.app.router].append(state)

    def routers(self) -> list[RouterView]:
        """Return the routers."""
        return [
            RouterView(
                each.name,
                self._sites.get(each.name, ""),
                each.machine,
                each.address,
                each.address6,
                *self._standing(each.name, each.machine),
                hosts=self._hosts[each.name],
                populations=self._populations[each.name],
                ports=tuple(self._ports[each.name]),
                load=self._look.load.routers.get(each.name),
                apps=tuple(self._apps[each.name]),
                differs=self._routers.get(each.name) != each,
            )
            for each in self._kept.network.routers
        ]

    def links(self) -> list[LinkView]:
        """Return the links."""
        views = []
        for link in self._kept.network.links:
            ends = [self._machines[link.a], self._machines[link.b]]
            here = self._kept.machine
            state, why = self._standing(link.name, here if here in ends else ends[0])
            found = self._found.get(link.name)
            if found is not None and not found.link.up:
                state = Standing.DOWN
            views.append(
                LinkView(
                    link.name,
                    link.a,
                    link.b,
                    link.quality,
                    link.weight,
                    link.up,
                    state,
                    why,
                    found.engine if found else None,
                    self._look.load.links.get(link.name),
                    differs=self._links.get(link.name) != link,
                )
            )
        return views

    def stubs(self) -> list[tuple[Stub, Standing]]:
        """Return what hangs on routers."""
        stubs = self._kept.network.stubs
        return [(each, self._standing(each.name, self._machines[each.router])[0]) for each in stubs]

    def _standing(self, name: str, machine: str) -> tuple[Standing, str]:
        if machine != self._kept.machine:
            return Standing.ELSEWHERE, f"it is {machine}'s, which is not asked"
        if self._look.sample is None:
            return Standing.UNKNOWN, self._look.why
        if name in self._there:
            return Standing.UP, ""
        return Standing.MISSING, self._look.why or "somebody has removed it: apply the lab again"


def _hanging(lab: Lab) -> tuple[dict[str, tuple[str, ...]], dict[str, tuple[str, ...]]]:
    """Return the hosts and the populations at each router."""
    hosts: dict[str, tuple[str, ...]] = defaultdict(tuple)
    populations: dict[str, tuple[str, ...]] = defaultdict(tuple)
    for host in lab.hosts:
        hosts[host.router] += (host.name,)
    for population in lab.populations:
        populations[population.router] += (population.name,)
    return hosts, populations


def _apps_differ(wanted: tuple[App, ...], sample: Sample | None) -> frozenset[tuple[str, str]]:
    """Return the programs, by router and name, that are otherwise than the lab file says."""
    if sample is None:
        return frozenset()
    there = {(state.app.router, state.app.name): state.app for state in sample.apps}
    in_file = {(app.router, app.name): app for app in wanted}
    return frozenset(
        place for place in there.keys() | in_file if there.get(place) != in_file.get(place)
    )

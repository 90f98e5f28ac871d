"""The virtual network as values: what is wanted of routers, links and the ends that hang on them.

A `Network` is the whole of it, for all machines. Back ends of `orchestrator.routers` are given one
and make it so; `orchestrator.routing` says which way packets go in it; `network_of` makes one from
a lab. Names are those of the lab. Nothing here knows namespaces, devices or kernels.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network


@dataclass(frozen=True, slots=True)
class Quality:
    """What a link does to packets, in each direction.

    Delay is `latency_ms` (one way) and, evenly spread, up to `jitter_ms` more or less; packets keep
    their order. `loss` is the share of packets that get lost, 0 to 1. `bandwidth_mbps` is in
    megabits per second; None does not limit it.
    """

    latency_ms: float = 0.0
    jitter_ms: float = 0.0
    loss: float = 0.0
    bandwidth_mbps: float | None = None


@dataclass(frozen=True, slots=True)
class VirtualRouter:
    """A router: its own addresses (one per family), and the machine that runs it ("": this one)."""

    name: str
    address: IPv4Address
    address6: IPv6Address | None = None
    machine: str = ""


@dataclass(frozen=True, slots=True)
class SliceShare:
    """A tenant's part of a link: `mbps` (megabits per second) for traffic of its subnets."""

    name: str
    subnets: tuple[IPv4Network | IPv6Network, ...]
    mbps: float


@dataclass(frozen=True, slots=True)
class VirtualLink:
    """A link between two routers, `a` before `b` by name; there is one at most between any two.

    `weight` is what crossing it costs a path (> 0), the same in both directions. One that is not
    `up` exists but carries nothing. In each direction, of its bandwidth each of `slices` always has
    its part.
    """

    a: str
    b: str
    quality: Quality = Quality()
    weight: float = 1.0
    up: bool = True
    slices: tuple[SliceShare, ...] = ()

    @property
    def name(self) -> str:
        """``a--b``: what it is called in commands, metrics and messages."""
        return f"{self.a}--{self.b}"


class StubKind(StrEnum):
    """What hangs on a router beside other routers."""

    CLIENTS = "clients"  # a namespace of its own, in which people run clients
    BRIDGE = "bridge"  # a bridge of the machine, such as that of a host's guests


@dataclass(frozen=True, slots=True)
class Stub:
    """A subnet at the edge of the network, reached through one router.

    The router has `gateway` in it (and `gateway6`). Clients get the next address, and a default
    route through the router. To a bridge, which is named `bridge`, the router is one more station:
    the machine gets a route to the network's routers and other stubs through it.
    """

    name: str
    router: str
    kind: StubKind
    subnet: IPv4Network
    gateway: IPv4Address
    subnet6: IPv6Network | None = None
    gateway6: IPv6Address | None = None
    bridge: str = ""


class Routing(StrEnum):
    """Who says which way packets go."""

    STATIC = "static"  # we do: shortest paths, computed and installed
    OSPF = "ospf"  # a routing daemon in each router


class LinkEngine(StrEnum):
    """What makes a link slow, lossy or narrow."""

    NONE = "none"  # nothing: as fast as the kernel
    SHAPER = "shaper"  # the kernel's token bucket: bandwidth only
    NETEM = "netem"  # the kernel's network emulator
    USER = "user"  # our own process, which holds each packet for as long as the link is


@dataclass(frozen=True, slots=True)
class Machine:
    """A machine that runs routers: the address at which others reach it, for their tunnels."""

    name: str
    underlay: IPv4Address | IPv6Address


@dataclass(frozen=True, slots=True)
class Network:
    """The whole wanted network; names are unique among routers and stubs, references resolve.

    `engine` forces what makes links slow; None takes the best there is for each. `machines` are
    needed only where routers are on more than one.
    """

    name: str
    routers: tuple[VirtualRouter, ...] = ()
    links: tuple[VirtualLink, ...] = ()
    stubs: tuple[Stub, ...] = ()
    routing: Routing = Routing.STATIC
    engine: LinkEngine | None = None
    machines: tuple[Machine, ...] = ()

    def router(self, name: str) -> VirtualRouter:
        """Return the router of that name; KeyError if there is none."""
        return {router.name: router for router in self.routers}[name]


# --- what there is ----------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class PortCounters:
    """What went through one end of a link or stub since it was made, as its router sees it.

    `peer` is the router or stub at the other end. `drops` counts packets that were to leave and
    could not, whether lost on purpose or for want of room.
    """

    router: str
    peer: str
    rx_bytes: int = 0
    rx_packets: int = 0
    tx_bytes: int = 0
    tx_packets: int = 0
    drops: int = 0


@dataclass(frozen=True, slots=True)
class LinkState:
    """A link as it is now, and what makes it so."""

    link: VirtualLink
    engine: LinkEngine


@dataclass(frozen=True, slots=True)
class Found:
    """What exists of ours on a machine: whole routers, links and stubs, by what they say."""

    routers: tuple[str, ...] = ()
    links: tuple[LinkState, ...] = ()
    stubs: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class LinkLoad:
    """What goes over a link, in megabits per second: from the first end by name, and back.

    `share` is that of its bandwidth in the busier direction, 0 to 1 and briefly more, since a
    bucket can be full; None where bandwidth is not limited.
    """

    there_mbps: float
    back_mbps: float
    share: float | None = None
    drops_per_s: float = 0.0


@dataclass(frozen=True, slots=True)
class RouterLoad:
    """What a router has to do: megabits per second in and out, and the cores its programs use."""

    rx_mbps: float
    tx_mbps: float
    cores: float = 0.0


@dataclass(frozen=True, slots=True)
class Load:
    """What a network has to do, over an interval that has passed: links and routers by name."""

    interval_s: float = 0.0
    links: Mapping[str, LinkLoad] = field(default_factory=dict)
    routers: Mapping[str, RouterLoad] = field(default_factory=dict)


# --- applications on routers --------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class App:
    """A small program to be run inside a router or a clients' stub, found again by its name.

    `argv` is the program and its arguments, never a shell's line. `environment` is all of it.
    `rights` are the capabilities(7) it needs, in lower case and without ``cap_``, such as
    ``net_raw``; it has no others. `input` is what it reads on standard input.
    """

    name: str
    router: str
    argv: tuple[str, ...]
    environment: tuple[tuple[str, str], ...] = ()
    rights: tuple[str, ...] = ()
    input: str = ""


@dataclass(frozen=True, slots=True)
class AppState:
    """An application as it is now, also after its end, until it is removed.

    `exit_code` and `signal` say how it ended, as far as anybody knows; both None while it runs.
    `started_at` is wall-clock seconds; `cpu_s` seconds of one core, `memory_mib` resident.
    """

    app: App
    running: bool
    pid: int = 0
    started_at: float = 0.0
    exit_code: int | None = None
    signal: int | None = None
    cpu_s: float = 0.0
    memory_mib: float = 0.0

"""Our nouns: what the lab wants (hosts, routers, links, populations, services) and what runs.

All are frozen and carry their units in their names: `_mib` is MiB (2**20 bytes), `_s` seconds,
`_ms` milliseconds, `_mbps` megabits per second, `cpu` a number of processor cores. Wall-clock
times are seconds since the epoch; everything that measures a duration uses the monotonic clock and
never meets these types.
"""

import hashlib
import math
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from enum import StrEnum
from ipaddress import (
    IPv4Address,
    IPv4Interface,
    IPv4Network,
    IPv6Address,
    IPv6Interface,
    IPv6Network,
)
from pathlib import Path
from urllib.parse import urlsplit
from uuid import UUID

from images.bootspec import BootSpec, GuestAddress, Image
from images.facts import Architecture
from orchestrator.hours import Hours
from orchestrator.network import LinkEngine, Machine, Routing
from orchestrator.rules.tree import ANY, Rule
from orchestrator.webhook import Webhook

IPNetwork = IPv4Network | IPv6Network

# What Xen takes of a host's memory beside a guest's own: 1 MiB for each virtual processor and 8 KiB
# for each MiB (xen tools/libs/light/libxl_dom.c, libxl__get_required_paging_memory), and some
# tables. Measured on Xen 4.17, in MiB: 1.25 for a PVH guest of 8, 2.2 for 128, 5.2 for 512, 9.2 for
# 1024; 2.3 for one of 8 with two processors, 8.3 for one of 512 with four. PV guests take less.
XEN_GUEST_MIB, XEN_PROCESSOR_MIB, XEN_MEMORY_SHARE = 0.5, 1, 1 / 128

ROUTERS, ROUTERS6 = IPv4Network("10.255.0.0/16"), IPv6Network("fded:ed::/64")

BRIDGE = "bridge:"  # before the name of a bridge that is there, where a network is named
MAC_PREFIX = (0x02, 0xED)  # locally administered, unicast; then the four octets of the IPv4 address


# --- what the lab wants -----------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Capacity:
    """An amount of processor cores (may be a fraction) and memory."""

    cpu: float
    memory_mib: int

    @property
    def processors(self) -> int:
        """Virtual processors of a guest that is promised this: whole ones, at least one."""
        return max(1, round(self.cpu))


@dataclass(frozen=True, slots=True)
class Energy:
    """Electrical power of a host: idle, and with every core busy (watts)."""

    idle_w: float = 0.0
    busy_w: float = 0.0


@dataclass(frozen=True, slots=True)
class Price:
    """Money per hour, in the lab's own currency: for the host being on, per core, per GiB."""

    host_hour: float = 0.0
    cpu_hour: float = 0.0
    gib_hour: float = 0.0


@dataclass(frozen=True, slots=True)
class GuestNetwork:
    """The network a host's guests are plugged into.

    `name` is a libvirt network; with `create` it is ours to make and remove, on bridge `bridge`,
    with `gateway` as the host's own address on it. `first`..`last` is the pool that instances get
    their addresses from. With `dhcp`, the network gives a guest by DHCP the address that goes with
    its MAC (see `mac_of`): ours does it then, and one that is not ours is trusted to do it. With
    `subnet6`, each instance also has an IPv6 address, derived by rule.
    """

    name: str
    subnet: IPv4Network
    gateway: IPv4Address
    first: IPv4Address
    last: IPv4Address
    create: bool = False
    bridge: str = ""
    subnet6: IPv6Network | None = None
    dhcp: bool = False

    def guest_address(self, address: IPv4Address) -> GuestAddress:
        """Return what a guest with this IPv4 address is to configure on its card."""
        ipv6 = self.address6(address)
        return GuestAddress(
            ipv4=IPv4Interface((address, self.subnet.prefixlen)),
            gateway=self.gateway,
            ipv6=IPv6Interface((ipv6, self.subnet6.prefixlen)) if ipv6 and self.subnet6 else None,
        )

    def address6(self, address: IPv4Address) -> IPv6Address | None:
        """Return the IPv6 address that goes with an IPv4 address: same host part, other prefix."""
        if self.subnet6 is None:
            return None
        return self.subnet6[int(address) - int(self.subnet.network_address)]


@dataclass(frozen=True, slots=True)
class Host:
    """An edge host that can run guests. `router` is where it is attached to the virtual network.

    `architecture` is that of its processors. `guest_cpus` are the numbers of those that guests may
    run on, in order; empty means all. `migration_address` is where other hosts reach it to send it
    a guest that runs; empty: where its URI says, or else where its hypervisor does.
    """

    name: str
    uri: str
    capacity: Capacity
    network: GuestNetwork
    reserve: Capacity = Capacity(cpu=0.0, memory_mib=0)
    site: str = ""
    router: str = ""
    labels: tuple[tuple[str, str], ...] = ()
    energy: Energy = Energy()
    price: Price = Price()
    architecture: Architecture = Architecture.X86_64
    guest_cpus: tuple[int, ...] = ()
    migration_address: str = ""

    @property
    def usable(self) -> Capacity:
        """What guests may use in all: capacity without the reserve."""
        return Capacity(
            cpu=self.capacity.cpu - self.reserve.cpu,
            memory_mib=self.capacity.memory_mib - self.reserve.memory_mib,
        )

    @property
    def driver(self) -> str:
        """The hypervisor that its URI names, such as ``qemu``, ``xen`` or ``memory``."""
        return self.uri.partition(":")[0].partition("+")[0]

    @property
    def is_elsewhere(self) -> bool:
        """Whether it is another machine, so that packets to its guests do not come by here."""
        return bool(urlsplit(self.uri).hostname)

    def taken_by(self, guest: Capacity) -> Capacity:
        """Return what a guest of that size takes of this host, with what its hypervisor adds.

        Only Xen is known to add anything; it is counted as for a PVH guest, in whole MiB.
        """
        if self.driver != "xen":
            return guest
        more = XEN_GUEST_MIB + XEN_PROCESSOR_MIB * guest.processors
        memory = guest.memory_mib * (1 + XEN_MEMORY_SHARE) + more
        return Capacity(cpu=guest.cpu, memory_mib=math.ceil(memory))


@dataclass(frozen=True, slots=True)
class RouterProgram:
    """A ready-made program on a router (`orchestrator.programs`), with its parameters as texts."""

    name: str
    run: str
    parameters: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class Router:
    """A virtual router. `host` is the one that runs it, of several machines; empty: this machine.

    Without an address of its own it gets one by rule, of the lab's `NetworkSettings`.
    """

    name: str
    site: str = ""
    host: str = ""
    address: IPv4Address | None = None
    address6: IPv6Address | None = None
    apps: tuple[RouterProgram, ...] = ()


@dataclass(frozen=True, slots=True)
class Link:
    """An undirected virtual link between two routers or hosts; `latency_ms` is one way.

    `jitter_ms` is how much more or less that may be, `loss` the share of packets that get lost, 0
    to 1. One that is not `up` is there, but no way for anything.
    """

    a: str
    b: str
    latency_ms: float
    bandwidth_mbps: float
    weight: float = 1.0
    jitter_ms: float = 0.0
    loss: float = 0.0
    up: bool = True


@dataclass(frozen=True, slots=True)
class Population:
    """Clients that share subnets and a point of attachment; `requests_s` is their usual rate."""

    name: str
    subnets: tuple[IPNetwork, ...]
    router: str
    requests_s: float = 0.0


class ProbeKind(StrEnum):
    """How readiness is asked for."""

    TCP = "tcp"
    HTTP = "http"
    ICMP = "icmp"
    ARP = "arp"
    CONSOLE = "console"
    XENSTORE = "xenstore"


@dataclass(frozen=True, slots=True)
class Probe:
    """A readiness probe: it says when a guest has truly answered.

    `port` is for TCP and HTTP; `path` and `status` for HTTP; `pattern` (a regular expression
    searched in the guest's console output) for CONSOLE. For XENSTORE, `key` is below the guest's
    own path, and has to be there; `pattern`, unless empty, is searched in what it holds.
    """

    kind: ProbeKind
    port: int = 0
    path: str = "/"
    status: int = 200
    pattern: str = ""
    key: str = ""


class Rung(StrEnum):
    """Where an instance stands on the ladder between serving and not being there at all."""

    READY = "ready"
    PAUSED = "paused"  # no processor time; keeps its memory; a crash of the host ends it
    SAVED = "saved"  # its memory is a file on the host's disk, and free for others
    COLD = "cold"  # no guest at all

    @property
    def depth(self) -> int:
        """How far down it is: 0 for ready."""
        return LADDER.index(self)


LADDER = (Rung.READY, Rung.PAUSED, Rung.SAVED, Rung.COLD)


@dataclass(frozen=True, slots=True)
class Ability:
    """Whether guests of an image survive a rung on a host, as a probe found out.

    `image` is the digest of what is booted. `why` says why they do not; `sleep_s` and `rouse_s` are
    what either took (seconds), `rouse_s` until the guest answered. `clock` says whether its clock
    was right afterwards: None where nobody could tell. `probed_at` is wall-clock seconds.
    """

    image: str
    host: str
    rung: Rung
    works: bool
    why: str = ""
    sleep_s: float = 0.0
    rouse_s: float = 0.0
    clock: bool | None = None
    probed_at: float = 0.0


@dataclass(frozen=True, slots=True)
class IdlePolicy:
    """When an awake service may be put to sleep, and how it sinks from rung to rung.

    After `after_s` without any use (no traffic, no answer handed out) and with no answer left in
    any cache, but never before `min_up_s` have passed since it was ready. A service that has to be
    woken again within `cool_down_s` of going to sleep was put to sleep too early: this time it
    stays up at least `cool_down_s`. `after_s` of None keeps it awake for ever once woken.

    It then rests `paused_s` in memory and `saved_s` on disk before it is cold; 0 leaves a rung out,
    None rests there for ever. It never sinks below `deepest`. With `needs_clock`, a rung is left
    out from which its guests come back with a wrong clock.

    In its `keep_warm` hours it is woken, and does not sleep; they are in `timezone`, an IANA name,
    or empty for the machine's own. With `pin` that is always so.
    """

    after_s: float | None = 60.0
    min_up_s: float = 10.0
    cool_down_s: float = 0.0
    paused_s: float | None = 300.0
    saved_s: float | None = 3600.0
    deepest: Rung = Rung.COLD
    needs_clock: bool = False
    keep_warm: tuple[Hours, ...] = ()
    timezone: str = ""
    pin: bool = False

    def rests_s(self, rung: Rung) -> float | None:
        """Return how long an instance rests at a rung of sleep; None for ever."""
        return {Rung.PAUSED: self.paused_s, Rung.SAVED: self.saved_s}.get(rung)


@dataclass(frozen=True, slots=True)
class Constraints:
    """Where a service may run. Empty means anywhere."""

    hosts: frozenset[str] = frozenset()
    avoid_hosts: frozenset[str] = frozenset()
    labels: tuple[tuple[str, str], ...] = ()
    apart_from: frozenset[str] = frozenset()
    together_with: frozenset[str] = frozenset()

    def allow(self, host: Host) -> bool:
        """Return whether a host is one where the service may run, whatever else runs there."""
        return (
            (not self.hosts or host.name in self.hosts)
            and host.name not in self.avoid_hosts
            and set(self.labels) <= set(host.labels)
        )


@dataclass(frozen=True, slots=True)
class Port:
    """A port the service listens on; `protocol` is ``tcp`` or ``udp``."""

    number: int
    protocol: str = "tcp"


@dataclass(frozen=True, slots=True)
class Public:
    """An address of a service that belongs elsewhere, and is served here while an instance runs.

    Packets to `address` that arrive at `interface` of the machine that edgewake runs on, and that
    `rule` is true of, are led into an instance there; it has the address on its loopback.
    """

    address: IPv4Address | IPv6Address
    interface: str
    rule: Rule = ANY


@dataclass(frozen=True, slots=True)
class Scale:
    """How many copies of an awake service there are by their load: `most` of them at most.

    `cpu` is the processor time that a copy is meant to use, as a share of the cores it is promised;
    `packets_s` the packets per second that it is meant to receive. None leaves a measure out. A
    copy more is booted when one was wanted for `out_after_s`, one taken away when it was not for
    `in_after_s`.
    """

    most: int
    cpu: float | None = None
    packets_s: float | None = None
    out_after_s: float = 15.0
    in_after_s: float = 300.0


class Restart(StrEnum):
    """When an instance that was lost while its service was in use is replaced."""

    ON_QUERY = "on-query"  # the next query wakes the service
    ALWAYS = "always"  # at once, with back-off, for as long as the service is in use


class OnCrash(StrEnum):
    """What becomes of the memory of an instance that crashes."""

    DESTROY = "destroy"
    COREDUMP = "coredump"  # written to a file on its host first, where the hypervisor can


class OnHostLoss(StrEnum):
    """Whether an instance that is as silent as its lost host counts as lost."""

    WAKE_ELSEWHERE = "wake-elsewhere"
    KEEP = "keep"  # wait for the host: there are never two copies


def apart(a: Host, b: Host) -> str:
    """Return why a guest cannot keep its address between two hosts; empty if it can.

    It can where both give their guests the same layer-2 network. That cannot be seen from here; a
    lab file says so by the same subnets and the same gateway.
    """
    ours, theirs = a.network, b.network
    if (ours.subnet, ours.subnet6) != (theirs.subnet, theirs.subnet6):
        return f"{a.name} and {b.name} have different subnets"
    if ours.gateway != theirs.gateway:
        return f"{a.name} and {b.name} have different gateways"
    if ours.dhcp != theirs.dhcp:
        return f"only one of {a.name} and {b.name} has DHCP"
    if ours.create and theirs.create:
        return f"{a.name} and {b.name} both make a network of their own (`create`)"
    return ""


class AnswerOrder(StrEnum):
    """In which order an answer names the copies of a service."""

    ORDERED = "ordered"  # nearest to the client first
    WEIGHTED = "weighted"  # first each as often as its host has processors free
    ROTATED = "rotated"  # each in turn


class Migrate(StrEnum):
    """How an instance leaves a host that is being drained."""

    BOOT = "boot"  # a copy is booted elsewhere, then it is ended
    LIVE = "live"  # as it runs, with all its memory; else as BOOT
    LIVE_ONLY = "live-only"  # as it runs, or not at all: what it has in memory is nowhere else


@dataclass(frozen=True, slots=True)
class ChainFunction:
    """What a service does to packets as a function of a chain.

    It lets pass what matches `admits` (None: everything). What matches the rule of one of
    `intercepts` is for its own program, at that port.
    """

    admits: Rule | None = None
    intercepts: tuple[tuple[Rule, int], ...] = ()


class Reply(StrEnum):
    """When a question for a service that sleeps is answered."""

    HELD = "held"  # when the guest answers
    EARLY = "early"  # at once, with the address it will have; the first connection waits instead


@dataclass(frozen=True, slots=True)
class Service:
    """A service that exists only while somebody needs it.

    `names` are absolute DNS names, lower case, without the final dot. `images` are flavours of one
    program, in order of preference: a host boots the first that it can. `config` is handed to the
    image family. `replicas` instances are booted by a wake; the reply leaves when the first one
    answers; `scale` may add more. `ttl_s` is the TTL of an answer; `deadline_s` bounds the time a
    query is held.
    `alpn` non-empty means that HTTPS/SVCB queries are answered (and wake) with these protocols.
    `cpu_cap` is the most processor time an instance ever gets, in cores; None does not limit it.
    `ttl_waking_s` is the TTL of an answer that waited for a wake, if that is less than `ttl_s`.
    With `wake_on_traffic`, a packet to the address it had last wakes it like a question does.
    """

    name: str
    names: tuple[str, ...]
    images: tuple[str, ...]
    resources: Capacity
    probe: Probe
    config: tuple[tuple[str, str], ...] = ()
    ports: tuple[Port, ...] = ()
    ttl_s: int = 10
    idle: IdlePolicy = IdlePolicy()
    deadline_s: float = 10.0
    replicas: int = 1
    latency_bound_ms: float | None = None
    alpn: tuple[str, ...] = ()
    constraints: Constraints = Constraints()
    cpu_cap: float | None = None
    restart: Restart = Restart.ON_QUERY
    on_host_loss: OnHostLoss = OnHostLoss.WAKE_ELSEWHERE
    on_crash: OnCrash = OnCrash.DESTROY
    migrate: Migrate = Migrate.BOOT
    ttl_waking_s: int = 2
    answer: AnswerOrder = AnswerOrder.ORDERED
    wake_on_traffic: bool = True
    reply: Reply = Reply.HELD
    scale: Scale | None = None
    function: ChainFunction | None = None
    public: Public | None = None

    @property
    def most(self) -> int:
        """How many instances it has at most."""
        return max(self.replicas, self.scale.most if self.scale else 0)


@dataclass(frozen=True, slots=True)
class WakeBudget:
    """How many wakes DNS clients may begin: each of them, and all together.

    Rates are wakes per second, bursts wakes at once. Clients in `exempt` (our own resolvers, which
    many people stand behind) count in the total only.
    """

    client_rate_s: float = 1.0
    client_burst: int = 20
    total_rate_s: float = 5.0
    total_burst: int = 100
    exempt: tuple[IPNetwork, ...] = ()


@dataclass(frozen=True, slots=True)
class StaticRecord:
    """A record of the zone that no service decides: absolute name, type, value as it is written.

    Only `A`, `AAAA`, `CNAME`, `MX`, `NS` and `TXT` occur; names in values are absolute.
    """

    name: str
    type: str
    value: str
    ttl_s: int = 3600


@dataclass(frozen=True, slots=True)
class TsigKey:
    """A secret shared with another name server (RFC 8945); `file` has it in base64."""

    name: str
    algorithm: str
    file: Path


@dataclass(frozen=True, slots=True)
class Secondary:
    """A name server to tell that the zone has changed; `key` signs that, unless empty."""

    address: str
    port: int
    key: str = ""


@dataclass(frozen=True, slots=True)
class Transfer:
    """Who may have a copy of the zone's static part: with these keys, or without from `allow`."""

    keys: tuple[str, ...] = ()
    allow: tuple[IPNetwork, ...] = ()
    notify: tuple[Secondary, ...] = ()


@dataclass(frozen=True, slots=True)
class RateLimit:
    """How many DNS replies a network of clients gets over UDP per second and kind of answer.

    `per_second` 0 means no limit. Of the replies beyond it every `slip`-th is sent truncated, the
    others not at all. Loopback and `exempt` are not limited.
    """

    per_second: int = 200
    slip: int = 2
    exempt: tuple[IPv4Network | IPv6Network, ...] = ()


@dataclass(frozen=True, slots=True)
class DnsSettings:
    """What we answer for. `zone` is lower case without the final dot; `forward_to` may be empty.

    `cookies` is ``off``, ``on`` or ``required`` (RFC 7873); of several `processes`, all but one
    answer over UDP. With `client_subnet`, resolvers in `client_subnet_from` (none: all) are
    believed whom they ask for. `nameserver_addresses` empty means the address of `listen`. `mdns`
    names an interface. `log` of queries is ``on``, ``off`` or ``anonymous``.
    """

    zone: str
    listen: str = "127.0.0.1"
    port: int = 5353
    nameserver: str = ""
    hostmaster: str = ""
    negative_ttl_s: int = 5
    forward_to: tuple[tuple[str, int], ...] = ()
    cookies: str = "on"
    rate_limit: RateLimit = RateLimit()
    processes: int = 1
    wake_budget: WakeBudget = WakeBudget()
    client_subnet: bool = False
    client_subnet_from: tuple[IPNetwork, ...] = ()
    nameserver_addresses: tuple[IPv4Address | IPv6Address, ...] = ()
    records: tuple[StaticRecord, ...] = ()
    keys: tuple[TsigKey, ...] = ()
    transfer: Transfer = Transfer()
    mdns: str = ""
    log: str = "on"


@dataclass(frozen=True, slots=True)
class TrafficSettings:
    """How many wakes by traffic alone may begin each second: on one host, and in all."""

    wakes_per_host_s: float = 5.0
    wakes_s: float = 20.0


@dataclass(frozen=True, slots=True)
class Chain:
    """Services that packets to the last one pass in order, such as firewall, cache, server.

    `population` are the clients whose way there is bounded ("": from the first function on).
    `latency_bound_ms` bounds the whole path, one way; `mbps` (megabits per second) flow over it.
    """

    name: str
    functions: tuple[str, ...]
    population: str = ""
    latency_bound_ms: float | None = None
    mbps: float = 0.0


@dataclass(frozen=True, slots=True)
class Slice:
    """A tenant's guaranteed part of the lab: services on hosts, clients' traffic on links.

    On every host, the share `cpu` and `memory` (0 to 1) is kept for its services, whether used or
    not; an `isolated` slice shares no host with others. On every link, traffic from and to its
    `populations` has `mbps` (megabits per second) of its own; what it leaves, others may use.
    """

    name: str
    services: frozenset[str] = frozenset()
    populations: frozenset[str] = frozenset()
    cpu: float = 0.0
    memory: float = 0.0
    mbps: float = 0.0
    isolated: bool = False


class WarmPlanning(StrEnum):
    """Whether the plan of what to keep warm is carried out."""

    OFF = "off"
    AUTO = "auto"


@dataclass(frozen=True, slots=True)
class WebSettings:
    """Where the dashboard and the API are reached over TCP; `listen` with port 0 is nowhere.

    `is_default` says that nobody wrote the address, so that it may be taken by somebody else.
    `names` are host names of ours, in lower case. `certificate` and `key` are there both or
    neither. `behind_proxy`: a proxy in front of us speaks TLS, and is believed who asks. `streams`
    is how many may watch events at once.
    """

    listen: tuple[str, int] = ("127.0.0.1", 8480)
    is_default: bool = True
    names: tuple[str, ...] = ()
    certificate: Path | None = None
    key: Path | None = None
    behind_proxy: bool = False
    streams: int = 64

    @property
    def address(self) -> str:
        """The IP address."""
        return self.listen[0]

    @property
    def port(self) -> int:
        """The port; 0 if it is off."""
        return self.listen[1]


class RedirectBy(StrEnum):
    """What steers traffic for public addresses; `AUTO` is the first of the others that can."""

    AUTO = "auto"
    FLOWER = "flower"
    U32 = "u32"
    BPF = "bpf"
    NFT = "nft"


@dataclass(frozen=True, slots=True)
class NetworkSettings:
    """Whether routers and links are run, or only counted with in placement, and how.

    `engine` forces what makes links slow. Routers without an address get one of `subnet` and
    `subnet6`. `machines` are the hosts that run routers, and where others reach them.
    """

    run: bool = False
    routing: Routing = Routing.STATIC
    engine: LinkEngine | None = None
    subnet: IPv4Network = ROUTERS
    subnet6: IPv6Network = ROUTERS6
    machines: tuple[Machine, ...] = ()


@dataclass(frozen=True, slots=True)
class Lab:
    """Everything a lab file says; names within each tuple are unique and references resolve."""

    name: str
    dns: DnsSettings
    hosts: tuple[Host, ...] = ()
    routers: tuple[Router, ...] = ()
    links: tuple[Link, ...] = ()
    populations: tuple[Population, ...] = ()
    images: tuple[Image, ...] = ()
    services: tuple[Service, ...] = ()
    traffic: TrafficSettings = TrafficSettings()
    warm: WarmPlanning = WarmPlanning.OFF
    chains: tuple[Chain, ...] = ()
    slices: tuple[Slice, ...] = ()
    network: NetworkSettings = NetworkSettings()
    redirect: RedirectBy = RedirectBy.AUTO
    web: WebSettings = WebSettings()
    webhooks: tuple[Webhook, ...] = ()

    def host(self, name: str) -> Host:
        """Return the host of that name; KeyError if there is none."""
        return {host.name: host for host in self.hosts}[name]

    def service(self, name: str) -> Service:
        """Return the service of that name; KeyError if there is none."""
        return {service.name: service for service in self.services}[name]

    def image(self, name: str) -> Image:
        """Return the image of that name; KeyError if there is none."""
        return {image.name: image for image in self.images}[name]


# --- what runs --------------------------------------------------------------------------------


class InstanceState(StrEnum):
    """Where an instance is in its life; an instance that is gone has no state, it is removed.

    BOOTING is stored *before* the hypervisor is asked for anything, MIGRATING before a guest is
    sent to another host, STOPPING before a guest is destroyed: after a crash at any instant, what
    is stored covers everything that may exist. PAUSED and SAVED are stored afterwards, and ROUSING
    never: of what sleeps, its host tells where it is.
    """

    BOOTING = "booting"
    READY = "ready"
    MIGRATING = "migrating"  # it answers, on the host where it was or already on the other
    PAUSED = "paused"  # see `Rung`
    SAVED = "saved"
    ROUSING = "rousing"  # it slept, and is being brought back
    STOPPING = "stopping"


AWAKE = frozenset({InstanceState.READY, InstanceState.MIGRATING})  # it answers
ASLEEP = frozenset({InstanceState.PAUSED, InstanceState.SAVED})
COMING = frozenset({InstanceState.BOOTING, InstanceState.ROUSING})  # it will answer soon

_SLEEPS = frozenset({InstanceState.READY, InstanceState.ROUSING, InstanceState.STOPPING, *ASLEEP})
ALLOWED_STEPS: dict[InstanceState, frozenset[InstanceState]] = {
    InstanceState.BOOTING: frozenset({InstanceState.READY, InstanceState.STOPPING}),
    InstanceState.READY: frozenset({InstanceState.MIGRATING, InstanceState.STOPPING, *ASLEEP}),
    InstanceState.MIGRATING: frozenset({InstanceState.READY, InstanceState.STOPPING}),
    InstanceState.PAUSED: _SLEEPS,
    InstanceState.SAVED: _SLEEPS,
    InstanceState.ROUSING: _SLEEPS,
    InstanceState.STOPPING: frozenset(),
}


@dataclass(frozen=True, slots=True)
class Instance:
    """One guest of a service, from the moment we intend it until it is gone.

    `name` is also the domain's name on its hypervisor: see `instance_name`. `ready_at` is None
    until the readiness probe was answered. `to` is the host that it is being migrated to, empty
    unless it is: until that is settled, its guest may be on either.
    """

    name: str
    service: str
    host: str
    address: IPv4Address
    mac: str
    state: InstanceState
    created_at: float
    address6: IPv6Address | None = None
    ready_at: float | None = None
    to: str = ""

    @property
    def rung(self) -> Rung:
        """Where it stands on the ladder; what is not ready to answer yet is as good as cold."""
        if self.state in AWAKE:
            return Rung.READY
        return Rung(self.state.value) if self.state in ASLEEP else Rung.COLD

    @property
    def hosts(self) -> tuple[str, ...]:
        """The hosts where its guest may be."""
        return (self.host, self.to) if self.to else (self.host,)

    def step(self, state: InstanceState, *, ready_at: float | None = None) -> "Instance":
        """Return this instance in another state; ValueError if the step is not allowed."""
        if state not in ALLOWED_STEPS[self.state]:
            raise ValueError(f"{self.name}: no step from {self.state} to {state}")
        to = "" if state is InstanceState.READY else self.to
        return replace(self, state=state, ready_at=ready_at or self.ready_at, to=to)

    def migrating(self, to: str) -> "Instance":
        """Return this instance on its way to another host; ValueError if it may not go."""
        return replace(self.step(InstanceState.MIGRATING), to=to)

    def arrived(self) -> "Instance":
        """Return this instance where it was being migrated to; it keeps its addresses."""
        return replace(self.step(InstanceState.READY), host=self.to)


@dataclass(frozen=True, slots=True)
class Mark:
    """Our mark on a guest: it says whose it is, and lets a restart adopt it.

    `owner` names the edgewake installation and lab; a guest with another owner is foreign.
    `obeys_shutdown` says that the guest is to be asked to end before it is destroyed, because it
    obeys that (on Xen: and because it has something to lose). `dumps_core` says that its memory is
    kept when it crashes.
    """

    owner: str
    instance: str
    service: str
    host: str
    address: IPv4Address
    address6: IPv6Address | None = None
    obeys_shutdown: bool = False
    dumps_core: bool = False


@dataclass(frozen=True, slots=True)
class Guest:
    """What a hypervisor is asked to start: a name, our mark, and how to boot it.

    `cpu` is the processor time it was promised, in cores: where guests want more than there is,
    they get it in this proportion. `cpu_cap` is what it never gets more of, however idle its host
    is, in cores. None leaves either to the hypervisor.
    """

    name: str
    mark: Mark
    boot: BootSpec
    cpu: float | None = None
    cpu_cap: float | None = None


class GuestState(StrEnum):
    """What a guest that is in a host's memory does."""

    RUNNING = "running"
    PAUSED = "paused"  # by our own `sleep`
    HELD = "held"  # somebody else paused it


@dataclass(frozen=True, slots=True)
class RunningGuest:
    """A guest of ours that a hypervisor reports, with its network counters in bytes.

    Counters are the guest's own view: `rx_bytes` is what it received, in `rx_packets`. `cpu_s` is
    the processor time it has used (seconds of one core), with what its hypervisor does for it where
    that is a process; None where nobody could tell.
    """

    mark: Mark
    rx_bytes: int = 0
    tx_bytes: int = 0
    state: GuestState = GuestState.RUNNING
    rx_packets: int = 0
    cpu_s: float | None = None


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where a service can be reached now. `ttl_s` is how long a client may believe it."""

    service: str
    instance: str
    host: str
    address: IPv4Address
    ttl_s: int
    address6: IPv6Address | None = None


@dataclass(frozen=True, slots=True)
class Client:
    """Who asks: the source address and, if the lab knows it, the population it belongs to.

    `proven` says that the address is not forged: what was sent there has been heard.
    """

    address: IPv4Address | IPv6Address | None = None
    population: str = ""
    proven: bool = False


@dataclass(frozen=True, slots=True)
class Event:
    """One line of the append-only journal. `at` is wall-clock; `data` small and printable.

    `number` is its place in the journal, from 1; 0 until it is there.
    """

    at: float
    kind: str
    subject: str
    text: str
    data: tuple[tuple[str, str], ...] = field(default=())
    number: int = field(default=0, compare=False)


def instance_name(lab: str, service: str, index: int) -> str:
    """Return the name of an instance, which is also its domain's name: ``ew-lab-service-0``."""
    return f"ew-{lab}-{service}-{index}"


def mac_of(address: IPv4Address) -> str:
    """Return the MAC address that goes with an IPv4 address on our networks.

    The rule is ``02:ed`` followed by the four octets, so that neighbour caches stay right even
    when an address is, much later, given to another service.
    """
    return ":".join(f"{octet:02x}" for octet in (*MAC_PREFIX, *address.packed))


def cpu_ranges(cpus: Iterable[int]) -> str:
    """Return numbers of processors as the kernel, libvirt and Xen write them, such as ``1-3,5``."""
    ranges: list[list[int]] = []
    for cpu in sorted(cpus):
        if ranges and cpu == ranges[-1][-1] + 1:
            ranges[-1][1:] = [cpu]
        else:
            ranges.append([cpu])
    return ",".join("-".join(map(str, each)) for each in ranges)


def guest_uuid(owner: str, instance: str) -> str:
    """Return the UUID of an instance's domain, the same every time it is booted."""
    digest = hashlib.sha256(f"edgewake guest {owner} {instance}".encode()).digest()
    return str(UUID(bytes=digest[:16], version=5))

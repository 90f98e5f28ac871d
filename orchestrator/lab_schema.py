"""What may be written in a lab file, key by key, and how it becomes our nouns.

One pydantic model per mapping of the file; `LabEntry` is the whole. What one value may look like is
in `orchestrator.lab_values`; whatever needs two values (references, sizes against capacities, names
that must be unique) is for `orchestrator.lab_checks`, and `noun` may be called only on what has
passed.
"""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import BeforeValidator, ConfigDict, Field, model_validator
from pydantic.json_schema import GenerateJsonSchema, JsonSchemaValue
from pydantic_core import core_schema

from images.bootspec import Disk, Image
from images.facts import Architecture
from orchestrator.lab_dns import (
    KeyEntry,
    RateLimitEntry,
    RecordEntry,
    TransferEntry,
    WakeBudgetEntry,
)
from orchestrator.lab_entry import Entry
from orchestrator.lab_network import NetworkSettingsEntry
from orchestrator.lab_values import (
    BUILT,
    NEVER,
    Address,
    Address4,
    Address6,
    After,
    Alpn,
    AnswerRule,
    Arch,
    Argument,
    Bandwidth,
    BridgeName,
    CatalogName,
    ConfigText,
    ConsolePattern,
    CookieMode,
    CoreCap,
    Cores,
    Cpus,
    CrashRule,
    CronHours,
    DeviceName,
    DiskFormat,
    DnsName,
    Family,
    Flag,
    HostLossRule,
    HttpPath,
    HttpStatus,
    ImageFile,
    Key,
    Label,
    Latency,
    Line,
    MachineAddress,
    MailAddress,
    Memory,
    MigrateRule,
    Money,
    NetworkName,
    Pool,
    PortNumber,
    PortText,
    Power,
    ProcessCount,
    QueryLogMode,
    Rate,
    RedirectWay,
    Replicas,
    ReplyWhen,
    RestartWhen,
    RuleText,
    Seconds,
    ServiceName,
    Share,
    SleepRung,
    Socket,
    SomeCores,
    SomeLatency,
    SomeMemory,
    SomePercent,
    SomeRate,
    SomeSeconds,
    Subnet,
    Subnet4,
    Subnet6,
    Template,
    TimeZone,
    Ttl,
    Uri,
    WarmWhen,
    Weight,
    XenstoreKey,
)
from orchestrator.lab_web import WebEntry
from orchestrator.lab_webhooks import WebhookEntry
from orchestrator.model import (
    AnswerOrder,
    Capacity,
    Chain,
    ChainFunction,
    Constraints,
    DnsSettings,
    Energy,
    GuestNetwork,
    Host,
    IdlePolicy,
    Link,
    Migrate,
    OnCrash,
    OnHostLoss,
    Population,
    Price,
    Probe,
    ProbeKind,
    Public,
    RedirectBy,
    Reply,
    Restart,
    Router,
    RouterProgram,
    Rung,
    Scale,
    Service,
    Slice,
    TrafficSettings,
    WarmPlanning,
)
from orchestrator.rules.tree import ANY


class DnsEntry(Entry):
    """What the DNS server listens on and says about its zone."""

    listen: Socket = Field(
        default=("127.0.0.1", 5353), description="IP address and port, UDP and TCP."
    )
    forward: list[Socket] = Field(
        default=[], description="Resolvers asked about names outside the zone; none: REFUSED."
    )
    negative_ttl: Ttl = Field(
        default=5, description="How long caches may believe that a name is absent."
    )
    nameserver: DnsName | None = Field(
        default=None, description="Name of this server in NS and SOA records, absolute."
    )
    hostmaster: MailAddress | None = Field(
        default=None, description="Mail address for the SOA record."
    )
    cookies: CookieMode = Field(
        default="on", description="DNS Cookies: off, on, or required of who sends one."
    )
    rate_limit: RateLimitEntry = Field(
        default=RateLimitEntry(), description="Limit of replies over UDP."
    )
    processes: ProcessCount = Field(
        default=1, description="Processes; of several, all but the first answer over UDP."
    )
    wake_budget: WakeBudgetEntry = Field(
        default=WakeBudgetEntry(), description="Wakes that clients may begin: each, and in all."
    )
    client_subnet: Flag = Field(
        default=False, description="Believe resolvers that say whom they ask for (RFC 7871)."
    )
    client_subnet_from: list[Subnet] = Field(
        default=[], description="Subnets of resolvers that are believed; none: all."
    )
    nameserver_address: list[Address] = Field(
        default=[], max_length=8, description="Addresses of `nameserver`; default: `listen`."
    )
    records: list[RecordEntry] = Field(
        default=[], max_length=500, description="Records that have nothing to do with services."
    )
    keys: dict[Key, KeyEntry] = Field(
        default={}, description="Secrets shared with other name servers (TSIG), by name."
    )
    transfer: TransferEntry = Field(
        default=TransferEntry(), description="Name servers that may copy the static part."
    )
    mdns: BridgeName | None = Field(
        default=None, description="Interface on which NAME.local is answered; default: none."
    )
    log: QueryLogMode = Field(
        default="on", description="Last queries, in memory: on, off, or anonymous (/24 and /56)."
    )

    def noun(self, zone: str, folder: Path) -> DnsSettings:
        """Return the settings for a zone, of a file in a folder."""
        zone = zone.removesuffix(".")
        return DnsSettings(
            zone=zone,
            listen=self.listen[0],
            port=self.listen[1],
            nameserver=(self.nameserver or "").removesuffix("."),
            hostmaster=self.hostmaster or "",
            negative_ttl_s=self.negative_ttl,
            forward_to=tuple(self.forward),
            cookies=self.cookies,
            rate_limit=self.rate_limit.noun(),
            processes=self.processes,
            wake_budget=self.wake_budget.noun(),
            client_subnet=self.client_subnet,
            client_subnet_from=tuple(self.client_subnet_from),
            nameserver_addresses=tuple(self.nameserver_address),
            records=tuple(record.noun(zone) for record in self.records),
            keys=tuple(key.noun(name, folder) for name, key in self.keys.items()),
            transfer=self.transfer.noun(),
            mdns=self.mdns or "",
            log=self.log,
        )


class CapacityEntry(Entry):
    """What a host has in all."""

    cpu: SomeCores = Field(description="Processor cores.")
    memory: SomeMemory = Field(description="Memory.")


class ReserveEntry(Entry):
    """What a host keeps for itself."""

    cpu: Cores = Field(default=0.0, description="Processor cores.")
    memory: Memory = Field(default=0, description="Memory.")


class EnergyEntry(Entry):
    """Electrical power of a host."""

    idle: Power = Field(default=0.0, description="Power with nothing running.")
    busy: Power = Field(default=0.0, description="Power with every core busy; at least `idle`.")


class PriceEntry(Entry):
    """What running guests on a host costs, in any one currency."""

    host_hour: Money = Field(default=0.0, description="Per hour in which the host is on.")
    cpu_hour: Money = Field(default=0.0, description="Per core and hour.")
    gib_hour: Money = Field(default=0.0, description="Per GiB of memory and hour.")


class NetworkEntry(Entry):
    """The libvirt network that a host's guests are plugged into."""

    name: NetworkName = Field(description="Its name in libvirt.")
    subnet: Subnet4 = Field(description="IPv4 subnet of the guests.")
    gateway: Address4 = Field(description="Router of that subnet, as the guests see it.")
    pool: Pool = Field(description="First and last address that instances may get.")
    create: Flag = Field(
        default=False, description="Make (and remove) the network; else it must exist."
    )
    bridge: BridgeName | None = Field(
        default=None, description="Bridge to make; only with `create`."
    )
    subnet6: Subnet6 | None = Field(
        default=None, description="IPv6 subnet; guests get the same host part as in IPv4."
    )
    dhcp: Flag = Field(
        default=False, description="Guests get their addresses by DHCP, for images that need it."
    )

    def noun(self) -> GuestNetwork:
        """Return the network."""
        return GuestNetwork(
            name=self.name,
            subnet=self.subnet,
            gateway=self.gateway,
            first=self.pool[0],
            last=self.pool[1],
            create=self.create,
            bridge=self.bridge or "",
            subnet6=self.subnet6,
            dhcp=self.dhcp,
        )


class HostEntry(Entry):
    """An edge host that can run guests."""

    uri: Uri = Field(description="Connection URI of its libvirt.")
    arch: Arch = Field(default=Architecture.X86_64, description="What its processors are.")
    site: Line = Field(default="", description="Where it stands, for people.")
    router: Key | None = Field(default=None, description="Router it is attached to.")
    capacity: CapacityEntry = Field(description="What it has in all.")
    reserve: ReserveEntry = Field(default=ReserveEntry(), description="What guests may not use.")
    guest_cpus: Cpus | None = Field(
        default=None, description="Numbers of the processors that guests may run on; default: all."
    )
    labels: dict[Label, Label] = Field(
        default={}, description="Free labels for `constraints.labels`."
    )
    energy: EnergyEntry = Field(default=EnergyEntry(), description="Power it draws.")
    price: PriceEntry = Field(default=PriceEntry(), description="What it costs.")
    network: NetworkEntry = Field(description="Network of its guests.")
    migration_address: MachineAddress | None = Field(
        default=None,
        description="Name or address at which other hosts reach it to migrate guests to it; "
        "default: as in `uri`, or else, on QEMU, what its hypervisor says.",
    )

    def noun(self, name: str) -> Host:
        """Return the host of that name."""
        return Host(
            name=name,
            uri=self.uri,
            capacity=Capacity(self.capacity.cpu, self.capacity.memory),
            network=self.network.noun(),
            reserve=Capacity(self.reserve.cpu, self.reserve.memory),
            site=self.site,
            router=self.router or "",
            labels=tuple(self.labels.items()),
            energy=Energy(self.energy.idle, self.energy.busy),
            price=Price(self.price.host_hour, self.price.cpu_hour, self.price.gib_hour),
            architecture=Architecture(self.arch),
            guest_cpus=self.guest_cpus or (),
            migration_address=self.migration_address or "",
        )


class AppEntry(Entry):
    """A program that runs on a router."""

    run: Key = Field(description="Which of the ready-made programs.")
    parameters: dict[str, Line] = Field(default={}, description="Its parameters, by name.")

    def noun(self, name: str) -> RouterProgram:
        """Return the program of that name."""
        return RouterProgram(name, self.run, tuple(self.parameters.items()))


class RouterEntry(Entry):
    """A virtual router."""

    site: Line = Field(default="", description="Where it stands, for people.")
    host: Key | None = Field(
        default=None, description="Host that runs it, of `network.machines`; default: this machine."
    )
    address: Address4 | None = Field(
        default=None, description="Its own IPv4 address; default: one of `network.subnet`."
    )
    address6: Address6 | None = Field(
        default=None, description="Its own IPv6 address; default: one of `network.subnet6`."
    )
    apps: dict[Key, AppEntry] = Field(
        default={}, description="Programs that run on it while the network does, by name."
    )

    def noun(self, name: str) -> Router:
        """Return the router of that name."""
        apps = tuple(app.noun(each) for each, app in self.apps.items())
        return Router(name, self.site, self.host or "", self.address, self.address6, apps)


class LinkEntry(Entry):
    """A link between two routers or hosts, the same in both directions."""

    between: list[Key] = Field(
        min_length=2, max_length=2, description="The two routers or hosts it joins."
    )
    latency: Latency = Field(description="Latency in one direction.")
    bandwidth: Bandwidth = Field(description="Bandwidth in each direction.")
    weight: Weight = Field(default=1.0, description="Routing weight; smaller is preferred.")
    jitter: Latency = Field(default=0.0, description="How much more or less the latency may be.")
    loss: Share = Field(default=0.0, description="Share of packets that get lost.")
    up: Flag = Field(default=True, description="Whether it carries anything.")

    @model_validator(mode="after")
    def _no_time_travel(self) -> Self:
        if self.jitter > self.latency:
            raise ValueError("has more 'jitter' than 'latency': no packet arrives before it left")
        return self

    def noun(self) -> Link:
        """Return the link."""
        a, b = self.between
        return Link(
            a,
            b,
            latency_ms=self.latency,
            bandwidth_mbps=self.bandwidth,
            weight=self.weight,
            jitter_ms=self.jitter,
            loss=self.loss / 100,
            up=self.up,
        )


class ClientEntry(Entry):
    """A population of clients that share subnets and a point of attachment."""

    subnets: list[Subnet] = Field(min_length=1, description="Where their queries come from.")
    router: Key = Field(description="Router they are attached to.")
    rate: Rate = Field(default=0.0, description="Requests they usually send, in all.")

    def noun(self, name: str) -> Population:
        """Return the population of that name."""
        return Population(name, tuple(self.subnets), self.router, self.rate)


@dataclass(frozen=True, slots=True)
class ImagePlaces:
    """Where image files are looked for: beside the lab file, or among the built images."""

    folder: Path
    built: Path

    def path(self, written: str) -> Path:
        """Return the absolute path of a file as the lab file names it."""
        if written.startswith(BUILT):
            return self.built / written.removeprefix(BUILT)
        return Path(os.path.normpath(self.folder.absolute() / written))


class DiskEntry(Entry):
    """A disk of an image."""

    path: ImageFile = Field(description="The file.")
    format: DiskFormat = Field(default="raw", description="Format of the file.")
    read_only: Flag = Field(default=True, description="Whether guests may only read it.")


class ImageEntry(Entry):
    """A bootable image: files, or one of the catalogue. What is not said, its family knows."""

    family: Family | None = Field(
        default=None, description="What kind of guest it is; default: what its bytes say."
    )
    catalog: CatalogName | None = Field(
        default=None, description="NAME, NAME:TAG or digest in the catalogue, instead of files."
    )
    kernel: ImageFile | None = Field(
        default=None, description="Kernel or unikernel file; none if it boots from its disk."
    )
    initrd: ImageFile | None = Field(default=None, description="Initial RAM disk.")
    disks: list[DiskEntry] = Field(default=[], max_length=16, description="Disks, in order.")
    cmdline: Line = Field(default="", description="What its program is told on the command line.")
    template: Template = Field(
        default="", description="The whole command line, instead of the family's own."
    )
    machine: Label | None = Field(
        default=None, description="QEMU machine type, instead of the family's own."
    )
    end: ConsolePattern | None = Field(
        default=None, description="Console text (a regular expression) that means it has ended."
    )
    obeys_shutdown: Flag | None = Field(
        default=None, description="Whether it ends by itself when asked to shut down."
    )
    least_memory: SomeMemory | None = Field(
        default=None, description="Least memory, instead of the family's own."
    )
    anonymous: Flag = Field(
        default=False, description="Whether its guests need not be told which service they are."
    )
    exec: list[Argument] = Field(
        default=[],
        max_length=1000,
        description="A program by its path, and its arguments: a process instead of a machine.",
    )
    tree: ImageFile | None = Field(
        default=None, description="Folder that the program sees as its root; default: /, read-only."
    )
    seccomp: Flag = Field(
        default=True, description="Whether the program is kept from system calls it has no use for."
    )

    @property
    def family_said(self) -> str:
        """The family, as far as the file says; empty if the image's bytes are to tell."""
        return self.family or ("command" if self.exec else "")

    @model_validator(mode="after")
    def _is_one_thing(self) -> "ImageEntry":
        if not self.exec:
            if self.tree or not self.seccomp:
                raise ValueError("'tree' and 'seccomp' are for commands: it needs 'exec', too")
            return self
        program = self.exec[0]
        if not program.startswith("/") or program.endswith("/"):
            raise ValueError("'exec' must begin with the path of a program, such as /usr/bin/env")
        others = ("catalog", "kernel", "initrd", "disks", "cmdline", "template", "machine")
        wrong = [name for name in others if getattr(self, name)]
        if wrong:
            raise ValueError(f"has 'exec' and {wrong[0]!r}; a command is its 'exec' alone")
        if self.family_said != "command":
            raise ValueError(f"is a command by its 'exec', and not of family {self.family!r}")
        return self

    @model_validator(mode="after")
    def _has_one_source(self) -> "ImageEntry":
        if self.catalog and (self.kernel or self.initrd or self.disks):
            raise ValueError(
                "has both files and 'catalog'; the catalogue's image has its own files"
            )
        if not (self.catalog or self.kernel or self.disks or self.exec):
            raise ValueError(
                "needs 'kernel', 'disks', 'exec' or 'catalog': there is nothing to boot"
            )
        return self

    def noun(self, name: str, places: ImagePlaces) -> Image:
        """Return the image of that name; whether its files exist is seen when it is booted."""
        return Image(
            name=name,
            family=self.family_said,
            kernel=places.path(self.kernel) if self.kernel else None,
            initrd=places.path(self.initrd) if self.initrd else None,
            disks=tuple(
                Disk(places.path(disk.path), disk.format, disk.read_only) for disk in self.disks
            ),
            catalog=self.catalog or "",
            cmdline=self.cmdline,
            template=self.template,
            machine=self.machine or "",
            end_pattern=self.end or "",
            obeys_shutdown=self.obeys_shutdown,
            least_memory_mib=self.least_memory,
            anonymous=self.anonymous,
            exec=tuple(self.exec),
            tree=places.path(self.tree) if self.tree else None,
            filtered=self.seccomp,
        )


class ResourcesEntry(Entry):
    """What one instance of a service needs."""

    cpu: SomeCores = Field(description="Processor cores.")
    memory: SomeMemory | None = Field(
        default=None,
        description="Memory; default: what the family is comfortable with, if the image names it.",
    )
    cpu_cap: CoreCap | None = Field(
        default=None, description="Most processor cores it ever gets; no limit if absent."
    )


class HttpEntry(Entry):
    """A readiness probe by HTTP GET."""

    port: PortNumber = Field(default=80, description="TCP port.")
    path: HttpPath = Field(default="/", description="Path to ask for.")
    status: HttpStatus = Field(default=200, description="Status that means ready.")


def _key_or(schema: dict[str, Any]) -> None:
    """Say in JSON Schema that the key alone may stand for the whole mapping."""
    mapping = dict(schema)
    schema.clear()
    schema["anyOf"] = [mapping["properties"]["key"], mapping]


class XenstoreEntry(Entry):
    """A readiness probe by a key in the guest's Xenstore; the key alone for short."""

    model_config = ConfigDict(json_schema_extra=_key_or)

    key: XenstoreKey = Field(default="data/ready", description="Key that has to be there.")
    value: ConsolePattern = Field(
        default="", description="Regular expression that is found in what it holds."
    )

    @model_validator(mode="before")
    @classmethod
    def _key_alone(cls, written: object) -> object:
        return {"key": written} if isinstance(written, str) else written


class EmptyEntry(Entry):
    """A mapping without keys, written ``{}``."""


class ReadyEntry(Entry):
    """How it is seen that a guest truly answers: exactly one of these keys."""

    http: HttpEntry | None = Field(default=None, description="It answers an HTTP GET.")
    tcp: PortNumber | None = Field(
        default=None, description="It accepts connections on this TCP port."
    )
    icmp: EmptyEntry | None = Field(default=None, description="It answers a ping; write `{}`.")
    arp: EmptyEntry | None = Field(
        default=None, description="It answers an ARP request; write `{}`."
    )
    console: ConsolePattern | None = Field(
        default=None, description="Its console shows text that matches this regular expression."
    )
    xenstore: XenstoreEntry | None = Field(
        default=None, description="It wrote this key into its Xenstore; on Xen only."
    )

    @model_validator(mode="after")
    def _exactly_one(self) -> "ReadyEntry":
        if len(self.model_fields_set) != 1:
            raise ValueError(f"must have exactly one of: {', '.join(ReadyEntry.model_fields)}")
        return self

    def noun(self) -> Probe:
        """Return the probe."""
        if self.http:
            return Probe(ProbeKind.HTTP, self.http.port, self.http.path, self.http.status)
        if self.xenstore:
            return Probe(ProbeKind.XENSTORE, pattern=self.xenstore.value, key=self.xenstore.key)
        (kind,) = self.model_fields_set
        return Probe(ProbeKind(kind), port=self.tcp or 0, pattern=self.console or "")


def _one_or_more(schema: dict[str, Any]) -> None:
    """Say in JSON Schema that a list of one may be written as what is in it."""
    many = {key: schema.pop(key) for key in ("type", "items", "minItems") if key in schema}
    schema["anyOf"] = [many["items"], many]


def _listed(written: object) -> object:
    return [written] if isinstance(written, str) else written


SomeImages = Annotated[
    list[Key],
    BeforeValidator(_listed),
    Field(min_length=1, json_schema_extra=_one_or_more),
]


def _never_or(schema: dict[str, Any]) -> None:
    """Say in JSON Schema that one word may stand for the whole mapping."""
    mapping = dict(schema)
    schema.clear()
    schema["anyOf"] = [{"const": NEVER}, mapping]


class IdleEntry(Entry):
    """When an awake service may go to sleep; ``never`` for short if it may not."""

    model_config = ConfigDict(json_schema_extra=_never_or)

    after: After = Field(default=60.0, description="Time without use, or `never`.")
    min_up: Seconds = Field(default=10.0, description="Time it stays awake at least.")
    cool_down: Seconds = Field(
        default=0.0,
        description="Woken again within this time after a sleep, it stays up at least as long.",
    )
    paused: After = Field(
        default=300.0,
        description="How long it then rests in memory, or `never` to sink from there; 0 s: not.",
    )
    saved: After = Field(
        default=3600.0,
        description="How long it then rests on disk, or `never` to sink from there; 0 s: not.",
    )
    deepest: SleepRung = Field(
        default=Rung.COLD, description="How deeply it may sleep: `paused`, `saved` or `cold`."
    )
    needs_clock: Flag = Field(
        default=False, description="Leave out rungs from which it comes back with a wrong clock."
    )
    keep_warm: Annotated[
        list[CronHours],
        BeforeValidator(_listed),
        Field(min_length=1, json_schema_extra=_one_or_more),
    ] = Field(
        default=[],
        description="Times at which it is awake also if nobody asks, as for cron: minute, hour, "
        "day of the month, month, day of the week, such as '* 8-17 * * mon-fri'.",
    )
    timezone: TimeZone | None = Field(
        default=None, description="Time zone of these times; the machine's own if absent."
    )
    pin: Flag = Field(default=False, description="It is always awake, also if nobody asks.")

    @model_validator(mode="before")
    @classmethod
    def _one_word(cls, written: object) -> object:
        if isinstance(written, str):
            if written != NEVER:
                raise ValueError(f"must be {NEVER!r} or a mapping such as {{after: 60 s}}")
            return {"after": NEVER}
        return written

    def noun(self) -> IdlePolicy:
        """Return the policy."""
        return IdlePolicy(
            after_s=self.after,
            min_up_s=self.min_up,
            cool_down_s=self.cool_down,
            paused_s=self.paused,
            saved_s=self.saved,
            deepest=Rung(self.deepest),
            needs_clock=self.needs_clock,
            keep_warm=tuple(self.keep_warm),
            timezone=self.timezone or "",
            pin=self.pin,
        )


class ScaleEntry(Entry):
    """How many instances there are by their load; at least one measure is given."""

    most: Replicas = Field(description="Instances at most, each on another host.")
    cpu: SomePercent | None = Field(
        default=None,
        description="Processor time that an instance is meant to use, of the `cpu` it is promised.",
    )
    packets: SomeRate | None = Field(
        default=None, description="Packets that an instance is meant to receive."
    )
    out_after: Seconds = Field(
        default=15.0, description="How long one more was wanted before it is booted."
    )
    in_after: Seconds = Field(
        default=300.0, description="How long one was not wanted before it is taken away."
    )

    @model_validator(mode="after")
    def _some_measure(self) -> Self:
        if self.cpu is None and self.packets is None:
            raise ValueError("must say by what: `cpu`, `packets` or both")
        return self

    def noun(self) -> Scale:
        """Return what the entry says."""
        return Scale(
            most=self.most,
            cpu=None if self.cpu is None else self.cpu / 100,
            packets_s=self.packets,
            out_after_s=self.out_after,
            in_after_s=self.in_after,
        )


class InterceptEntry(Entry):
    """Packets that a function of a chain answers itself."""

    rule: RuleText = Field(description="Which packets.")
    port: PortNumber = Field(description="Port at which its program takes them.")


class FunctionEntry(Entry):
    """What a service does to packets as a function of a chain."""

    admits: RuleText | None = Field(
        default=None, description="The packets that it lets pass; all, if it does not say."
    )
    intercepts: list[InterceptEntry] = Field(
        default=[], description="The packets that its own program gets instead."
    )

    def noun(self) -> ChainFunction:
        """Return what the entry says."""
        caught = tuple((each.rule, each.port) for each in self.intercepts)
        return ChainFunction(self.admits, caught)


class PublicEntry(Entry):
    """An address that belongs elsewhere, served here while an instance runs."""

    address: Address = Field(description="The address, which clients ask for.")
    interface: DeviceName = Field(
        description="Network interface of this machine at which packets to it arrive."
    )
    rule: RuleText = Field(default=ANY, description="Which of these packets are meant.")

    def noun(self) -> Public:
        """Return what the entry says."""
        return Public(self.address, self.interface, self.rule)


class ConstraintsEntry(Entry):
    """Where a service may run; an empty key allows everything."""

    hosts: list[Key] = Field(default=[], description="Only on these hosts.")
    avoid_hosts: list[Key] = Field(default=[], description="Never on these hosts.")
    labels: dict[Label, Label] = Field(
        default={}, description="Only on hosts with all of these labels."
    )
    apart_from: list[Key] = Field(default=[], description="Never beside these services.")
    together_with: list[Key] = Field(default=[], description="On the same host as these services.")

    def noun(self) -> Constraints:
        """Return the constraints."""
        return Constraints(
            hosts=frozenset(self.hosts),
            avoid_hosts=frozenset(self.avoid_hosts),
            labels=tuple(self.labels.items()),
            apart_from=frozenset(self.apart_from),
            together_with=frozenset(self.together_with),
        )


_IMAGE = "Image it boots, or several: a host boots the first that it can."
_RESOURCES = "What one instance needs."
_READY = "How it is seen that it answers."


class ServiceDefaults(Entry):
    """The keys of a service that may be given once for all services."""

    image: SomeImages | None = Field(default=None, description=_IMAGE)
    config: dict[Label, ConfigText] = Field(default={}, description="Settings handed to the guest.")
    resources: ResourcesEntry | None = Field(default=None, description=_RESOURCES)
    ports: list[PortText] = Field(default=[], description="Ports it listens on, such as 80/tcp.")
    ready: ReadyEntry | None = Field(default=None, description=_READY)
    ttl: Ttl = Field(default=10, description="How long clients may keep an answer.")
    idle: IdleEntry = Field(default=IdleEntry(), description="When it goes to sleep.")
    deadline: SomeSeconds = Field(
        default=10.0, description="Longest time a query waits for it to wake."
    )
    replicas: Replicas = Field(
        default=1, description="Instances a wake boots, each on another host."
    )
    latency_bound: SomeLatency | None = Field(
        default=None, description="Largest one-way latency from its clients; no bound if absent."
    )
    alpn: list[Alpn] = Field(
        default=[], description="Protocols for HTTPS/SVCB answers; none: no such answers."
    )
    constraints: ConstraintsEntry = Field(
        default=ConstraintsEntry(), description="Where it may run."
    )
    restart: RestartWhen = Field(
        default=Restart.ON_QUERY,
        description="When an instance that was lost is replaced: `on-query`, or `always` at once.",
    )
    on_host_loss: HostLossRule = Field(
        default=OnHostLoss.WAKE_ELSEWHERE,
        description="Whether it may wake elsewhere when its host is lost, or waits (`keep`).",
    )
    on_crash: CrashRule = Field(
        default=OnCrash.DESTROY,
        description="Whether its memory is kept on the host when it crashes: `coredump` (Xen PV).",
    )
    migrate: MigrateRule = Field(
        default=Migrate.BOOT,
        description="How it leaves a host that is drained: `boot` a copy elsewhere; `live`, as it "
        "runs, where that is possible; `live-only`, or not at all.",
    )
    ttl_waking: Ttl = Field(
        default=2,
        description="How long clients may keep an answer that waited for it to wake, if less.",
    )
    answer: AnswerRule = Field(
        default=AnswerOrder.ORDERED,
        description="Which copy is named first: the nearest (`ordered`), by free processors "
        "(`weighted`), or each in turn (`rotated`).",
    )
    wake_on_traffic: Flag = Field(
        default=True, description="Whether a packet to its last address wakes it, too."
    )
    reply: ReplyWhen = Field(
        default=Reply.HELD,
        description="When a question for it is answered while it sleeps: `held` until it answers, "
        "or `early` with its address; the first connection waits then.",
    )
    scale: ScaleEntry | None = Field(
        default=None, description="More instances by load; only `replicas` if absent."
    )
    function: FunctionEntry | None = Field(
        default=None, description="What it does to packets as a function of a chain."
    )
    public: PublicEntry | None = Field(
        default=None, description="An address from elsewhere that is steered into an instance."
    )


def _nothing_required(schema: dict[str, Any]) -> None:
    """Require nothing: what a service lacks may be in `defaults`, which JSON Schema cannot say."""
    schema.pop("required", None)


class ServiceEntry(ServiceDefaults):
    """A service that runs only while somebody needs it; defaults are filled in before."""

    model_config = ConfigDict(json_schema_extra=_nothing_required)

    image: SomeImages = Field(description=_IMAGE)
    resources: ResourcesEntry = Field(description=_RESOURCES)
    ready: ReadyEntry = Field(description=_READY)
    names: list[ServiceName] | None = Field(
        default=None,
        min_length=1,
        description="DNS names, relative to the zone; `@` is the zone itself; default: the key.",
    )

    def noun(self, name: str, zone: str, memory_mib: int) -> Service:
        """Return the service of that name in a zone; `memory_mib` is what its images need."""
        return Service(
            name=name,
            names=tuple(absolute(written, zone) for written in self.names or [name]),
            images=tuple(self.image),
            resources=Capacity(self.resources.cpu, self.resources.memory or memory_mib),
            probe=self.ready.noun(),
            config=tuple(self.config.items()),
            ports=tuple(self.ports),
            ttl_s=self.ttl,
            idle=self.idle.noun(),
            deadline_s=self.deadline,
            replicas=self.replicas,
            latency_bound_ms=self.latency_bound,
            alpn=tuple(self.alpn),
            constraints=self.constraints.noun(),
            cpu_cap=self.resources.cpu_cap,
            restart=Restart(self.restart),
            on_host_loss=OnHostLoss(self.on_host_loss),
            on_crash=OnCrash(self.on_crash),
            migrate=Migrate(self.migrate),
            ttl_waking_s=self.ttl_waking,
            answer=AnswerOrder(self.answer),
            wake_on_traffic=self.wake_on_traffic,
            reply=Reply(self.reply),
            scale=self.scale.noun() if self.scale else None,
            function=self.function.noun() if self.function else None,
            public=self.public.noun() if self.public else None,
        )


def absolute(written: str, zone: str) -> str:
    """Return a service's DNS name in full: no final dot, relative names completed by the zone."""
    zone = zone.removesuffix(".")
    if written == "@":
        return zone
    return written.removesuffix(".") if written.endswith(".") else f"{written}.{zone}"


class TrafficEntry(Entry):
    """How many wakes by traffic alone may begin; more are dropped, and told."""

    wakes_per_host: Rate = Field(default=5.0, description="Rate of wakes on one host.")
    wakes: Rate = Field(default=20.0, description="Rate of wakes on all hosts together.")

    def noun(self) -> TrafficSettings:
        """Return the settings."""
        return TrafficSettings(self.wakes_per_host, self.wakes)


class ChainEntry(Entry):
    """Services that packets pass in order."""

    functions: list[Key] = Field(
        min_length=2, description="Services, in order; clients ask for the last one."
    )
    clients: Key | None = Field(default=None, description="Clients whose way there is bounded.")
    latency_bound: SomeLatency | None = Field(
        default=None, description="The most that the whole path may take, one way."
    )
    bandwidth: Bandwidth | None = Field(default=None, description="What flows over it.")

    def noun(self, name: str) -> Chain:
        """Return the chain of that name."""
        return Chain(
            name,
            tuple(self.functions),
            population=self.clients or "",
            latency_bound_ms=self.latency_bound,
            mbps=self.bandwidth or 0.0,
        )


class SliceEntry(Entry):
    """What is kept for a tenant, on hosts and on links."""

    services: list[Key] = Field(default=[], description="Services that it consists of.")
    clients: list[Key] = Field(default=[], description="Clients whose traffic it carries.")
    cpu: SomePercent | None = Field(default=None, description="Share of every host's processors.")
    memory: SomePercent | None = Field(default=None, description="Share of every host's memory.")
    bandwidth: Bandwidth | None = Field(
        default=None, description="What its clients' traffic always gets on every link."
    )
    isolated: Flag = Field(default=False, description="Whether it shares no host with others.")

    @model_validator(mode="after")
    def _somebody(self) -> Self:
        if not self.services and not self.clients:
            raise ValueError("must say whose it is: `services`, `clients` or both")
        return self

    def noun(self, name: str) -> Slice:
        """Return the slice of that name."""
        return Slice(
            name,
            frozenset(self.services),
            frozenset(self.clients),
            cpu=(self.cpu or 0.0) / 100,
            memory=(self.memory or 0.0) / 100,
            mbps=self.bandwidth or 0.0,
            isolated=self.isolated,
        )


class LabEntry(Entry):
    """A whole lab file."""

    name: Key | None = Field(default=None, description="Name of the lab; default: the file's name.")
    zone: DnsName = Field(description="DNS zone of the services.")
    dns: DnsEntry = Field(default=DnsEntry(), description="The DNS server.")
    hosts: dict[Key, HostEntry] = Field(default={}, description="Edge hosts, by name.")
    routers: dict[Key, RouterEntry] = Field(default={}, description="Virtual routers, by name.")
    links: list[LinkEntry] = Field(default=[], description="Links between routers and hosts.")
    clients: dict[Key, ClientEntry] = Field(
        default={}, description="Populations of clients, by name."
    )
    images: dict[Key, ImageEntry] = Field(default={}, description="Images, by name.")
    services: dict[Key, ServiceEntry] = Field(default={}, description="Services, by name.")
    defaults: ServiceDefaults = Field(
        default=ServiceDefaults(), description="Keys for every service that does not have its own."
    )
    traffic: TrafficEntry = Field(
        default=TrafficEntry(), description="Wakes by traffic, without a question."
    )
    warm: WarmWhen = Field(
        default=WarmPlanning.OFF,
        description="Whether services are booted ahead, and rest, as the warm plan says: `auto`.",
    )
    chains: dict[Key, ChainEntry] = Field(default={}, description="Service chains, by name.")
    slices: dict[Key, SliceEntry] = Field(default={}, description="Tenants' slices, by name.")
    network: NetworkSettingsEntry = Field(
        default=NetworkSettingsEntry(), description="Whether and how routers and links are run."
    )
    redirect: RedirectWay = Field(
        default=RedirectBy.AUTO,
        description="What steers traffic for public addresses: the best there is, or this one.",
    )
    web: WebEntry = Field(default=WebEntry(), description="The dashboard, and the API over TCP.")
    webhooks: dict[Key, WebhookEntry] = Field(
        default={}, description="Who is sent events, by name."
    )


class LabJsonSchema(GenerateJsonSchema):
    """JSON Schema of what is written: defaults as text, no null, no titles made from the keys."""

    def nullable_schema(self, schema: core_schema.NullableSchema) -> JsonSchemaValue:
        """Describe the value alone: in a lab file, a key without a value is left out."""
        return self.generate_inner(schema["schema"])

    def default_schema(self, schema: core_schema.WithDefaultSchema) -> JsonSchemaValue:
        """Show a default as it would be written; one of None only means "absent"."""
        inner: Any = schema["schema"]
        described = self.generate_inner(inner)
        default = schema.get("default")
        if default is None:
            return described
        write = inner.get("serialization", {}).get("function")
        return {**described, "default": write(default) if write else self.encode_default(default)}

    def field_title_should_be_set(self, schema: Any) -> bool:  # noqa: ARG002 - pydantic's hook
        """Return False: the key says it already."""
        return False

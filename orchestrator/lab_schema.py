"""What may be written in a lab file, key by key, and how it becomes our nouns.

One pydantic model per mapping of the file; `LabEntry` is the whole. Every scalar arrives as the
text that was written (see `orchestrator.labfile`), so each kind of value has one `Written` that
reads it and describes it to editors. A model checks what can be seen in one value; whatever needs
two (references, sizes against capacities, names that must be unique) is `labfile`'s to check, and
`noun` may be called only on what it has passed.
"""

import os
import re
import warnings
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from ipaddress import (
    IPv4Address,
    IPv4Network,
    IPv6Network,
    ip_address,
    ip_network,
)
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, GetJsonSchemaHandler, model_validator
from pydantic.json_schema import GenerateJsonSchema, JsonSchemaValue
from pydantic_core import CoreSchema, core_schema

from images.bootspec import Disk, Image
from images.families import FAMILIES
from orchestrator.model import (
    Capacity,
    Constraints,
    DnsSettings,
    Energy,
    GuestNetwork,
    Host,
    IdlePolicy,
    Link,
    Population,
    Port,
    Price,
    Probe,
    ProbeKind,
    Service,
)
from orchestrator.units import BANDWIDTH, MEMORY, MILLISECONDS, POWER, RATE, SECONDS, Dimension

LONGEST_KEY = 30
LONGEST_DNS_NAME = 253  # RFC 1035, 2.3.4: 255 octets on the wire
LONGEST_TTL_S = 86400  # an address stays reserved for this long after its service is gone
BUILT = "built:"
NEVER = "never"


# --- how values are written -------------------------------------------------------------------


@dataclass(frozen=True, slots=True, eq=False)
class Written:
    """How a scalar is written: pydantic metadata for use in `Annotated`.

    `read` turns what the file has into a value, or raises ValueError with a message for the user;
    `schema` says the same in JSON Schema; `write` is the inverse of `read`, for defaults.
    """

    read: Callable[[str], object]
    schema: Mapping[str, object]
    write: Callable[[Any], object] = str

    def __get_pydantic_core_schema__(self, source: object, handler: object) -> CoreSchema:
        return core_schema.no_info_plain_validator_function(
            self._read_scalar,
            serialization=core_schema.plain_serializer_function_ser_schema(self.write),
        )

    def __get_pydantic_json_schema__(
        self, schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> JsonSchemaValue:
        return dict(self.schema)

    def _read_scalar(self, value: object) -> object:
        if not isinstance(value, str):
            kind = "list" if isinstance(value, list) else "mapping"
            raise ValueError(f"must be a single value, not a {kind}")  # noqa: TRY004 - pydantic's
        return self.read(value)


def suggestion(word: str, known: Iterable[str]) -> str:
    """Return the end of a message about an unknown word: what was perhaps meant, what there is."""
    names = list(known)
    if not names:
        return "there is none in this file"
    close = get_close_matches(word.casefold(), names, n=1)
    meant = f"did you mean {close[0]!r}? " if close else ""
    more = f", and {len(names) - 20} more" if len(names) > 20 else ""
    return f"{meant}known: {', '.join(names[:20])}{more}"


def shown(text: str) -> str:
    """Return text from the file as it may be printed in a message: quoted, escaped and short."""
    return repr(text if len(text) <= 60 else f"{text[:57]}...")


def _matching(pattern: str, rule: str, longest: int, *, lower: bool = False) -> Written:
    compiled = re.compile(pattern)

    def read(text: str) -> str:
        text = text.lower() if lower else text
        if len(text) > longest or not compiled.fullmatch(text):
            raise ValueError(f"{shown(text)} is not right: {rule}")
        return text

    schema = {"type": "string", "pattern": f"^{pattern}$", "maxLength": longest}
    return Written(read, schema)


def _one_of(choices: Iterable[str], noun: str) -> Written:
    def read(text: str) -> str:
        if text not in choices:
            raise ValueError(f"unknown {noun} {shown(text)}; {suggestion(text, choices)}")
        return text

    return Written(read, {"enum": sorted(choices)})


def _flag(text: str) -> bool:
    if text not in {"true", "false"}:
        raise ValueError(f"must be true or false, not {shown(text)}")
    return text == "true"


def _whole(least: int, most: int) -> Written:
    def read(text: str) -> int:
        if not re.fullmatch(r"[0-9]{1,9}", text) or not least <= int(text) <= most:
            raise ValueError(f"must be a whole number from {least} to {most}, not {shown(text)}")
        return int(text)

    return Written(read, {"type": "integer", "minimum": least, "maximum": most}, int)


def _number(rule: str, *, above_zero: bool) -> Written:
    def read(text: str) -> float:
        if not re.fullmatch(r"[0-9]{1,9}(\.[0-9]{1,12})?", text):
            raise ValueError(f"must be {rule}, not {shown(text)}")
        if above_zero and not float(text):
            raise ValueError("must be greater than 0")
        return float(text)

    least = {"exclusiveMinimum": 0} if above_zero else {"minimum": 0}
    return Written(read, {"type": "number", **least}, float)


def _quantity(dimension: Dimension, *, above_zero: bool = False) -> Written:
    def read(text: str) -> float:
        value = dimension.parse(text)
        if above_zero and not value:
            raise ValueError("must be greater than 0")
        return float(value)

    return Written(read, _quantity_schema(dimension), dimension.write)


def _quantity_schema(dimension: Dimension) -> dict[str, object]:
    return {"type": "string", "pattern": dimension.pattern, "examples": [dimension.example]}


def _memory(*, above_zero: bool) -> Written:
    def read(text: str) -> int:
        value = MEMORY.parse(text)
        if value.denominator != 1:
            raise ValueError(f"{shown(text)} is not a whole number of MiB")
        if above_zero and not value:
            raise ValueError("must be greater than 0")
        return int(value)

    return Written(read, _quantity_schema(MEMORY), MEMORY.write)


def _ttl(text: str) -> int:
    value = SECONDS.parse(text)
    if value.denominator != 1 or value > LONGEST_TTL_S:
        raise ValueError(f"must be whole seconds from 0 s to {LONGEST_TTL_S} s, not {shown(text)}")
    return int(value)


def _after(text: str) -> float | None:
    return None if text == NEVER else float(SECONDS.parse(text))


def _written_after(value: float | None) -> str:
    return NEVER if value is None else SECONDS.write(value)


def _subnet(text: str) -> IPv4Network | IPv6Network:
    try:
        return ip_network(text)
    except ValueError as error:
        raise ValueError(f"{error}: write a subnet such as 10.0.0.0/24 or fd00::/64") from None


def _subnet4(text: str) -> IPv4Network:
    network = _subnet(text)
    if not isinstance(network, IPv4Network) or network.prefixlen > 30:
        raise ValueError(f"{text} is not an IPv4 subnet of /30 or larger")
    return network


def _subnet6(text: str) -> IPv6Network:
    network = _subnet(text)
    if not isinstance(network, IPv6Network):
        raise ValueError(f"{text} is not an IPv6 subnet")  # noqa: TRY004 - for pydantic
    return network


def _address4(text: str) -> IPv4Address:
    try:
        return IPv4Address(text)
    except ValueError:
        raise ValueError(f"{shown(text)} is not an IPv4 address") from None


def _pool(text: str) -> tuple[IPv4Address, IPv4Address]:
    first, dash, last = text.partition("-")
    if not dash:
        raise ValueError("must be two addresses, such as 10.0.0.10-10.0.0.99")
    pool = _address4(first.strip()), _address4(last.strip())
    if pool[0] > pool[1]:
        raise ValueError(f"the pool's first address {pool[0]} comes after its last {pool[1]}")
    return pool


def _socket(text: str) -> tuple[str, int]:
    matched = re.fullmatch(r"(?:\[([^\]]*)\]|([^:]*)):([0-9]{1,5})", text)
    rule = "write an IP address and a port, such as 127.0.0.1:53 or '[::1]:53'"
    if not matched or not 1 <= int(matched[3]) <= 65535:
        raise ValueError(f"{shown(text)} is not right: {rule}")
    try:
        return str(ip_address(matched[1] or matched[2])), int(matched[3])
    except ValueError:
        raise ValueError(f"{shown(text)} is not right: {rule}") from None


def _written_socket(value: tuple[str, int]) -> str:
    address, port = value
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"


def _port(text: str) -> Port:
    number, _, protocol = text.partition("/")
    right = re.fullmatch(r"[0-9]{1,5}", number) and 1 <= int(number) <= 65535
    if not right or protocol not in {"tcp", "udp"}:
        raise ValueError(f"{shown(text)} is not right: write a port such as 80/tcp or 53/udp")
    return Port(int(number), protocol)


def _console_pattern(text: str) -> str:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # "may change its meaning" is no pattern to rely on
            re.compile(text)
    except (re.error, Warning, OverflowError, RecursionError) as error:
        raise ValueError(f"{shown(text)} is not a regular expression: {error}") from None
    return text


def _image_file(text: str) -> str:
    if not text or not text.isprintable():
        raise ValueError(f"{shown(text)} is not a file name")
    if text.startswith(BUILT):
        parts = text.removeprefix(BUILT).split("/")
        if len(parts) != 2 or any(part in {"", ".", ".."} for part in parts):
            raise ValueError(f"{shown(text)} is not right: write built:NAME/FILE")
    return text


def _dns_name(text: str) -> str:
    name = text.lower()
    for label in name.removesuffix(".").split("."):
        if not re.fullmatch(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?", label):
            raise ValueError(
                f"{shown(text)} is not a DNS name: {shown(label)} must be 1 to 63 letters, digits "
                "and inner hyphens (write other letters in xn-- form)"
            )
    if len(name.removesuffix(".")) > LONGEST_DNS_NAME:
        raise ValueError(f"{shown(text)} is longer than {LONGEST_DNS_NAME} characters")
    return name


def _mail_address(text: str) -> str:
    local, at, domain = text.rpartition("@")
    if not at or not re.fullmatch(r"[A-Za-z0-9._+-]{1,63}", local):  # it becomes one DNS label
        raise ValueError(f"{shown(text)} is not right: write a mail address, admin@example.org")
    return f"{local}@{_dns_name(domain).removesuffix('.')}"


_TEXT = {"type": "string"}
_DNS_NAME = {"type": "string", "pattern": r"^[A-Za-z0-9.-]+$", "maxLength": LONGEST_DNS_NAME + 1}
_SERVICE_NAME = {"type": "string", "pattern": r"^(@|[A-Za-z0-9.-]+)$", "maxLength": 254}
_ANY_SCALAR = {"type": ["string", "number", "boolean"]}  # an editor sees 5 where we see "5"

Key = Annotated[
    str,
    _matching(
        r"[a-z0-9]([a-z0-9-]*[a-z0-9])?",
        f"a name here is 1 to {LONGEST_KEY} of a-z, 0-9 and inner hyphens",
        LONGEST_KEY,
    ),
]
Line = Annotated[str, _matching(r"[^\x00-\x1f\x7f]*", "it must be one line of text", 4000)]
Label = Annotated[
    str,
    Written(
        _matching(r"[^\x00-\x1f\x7f]+", "it must be 1 to 100 characters in one line", 100).read,
        _ANY_SCALAR,
    ),
]
ConfigText = Annotated[str, Written(str, _ANY_SCALAR)]
Uri = Annotated[
    str,
    _matching(
        r"[a-z][a-z0-9+.-]*:[!-~]+",
        "write a libvirt URI such as qemu:///system or xen+ssh://root@pc1/system",
        1000,
    ),
]
NetworkName = Annotated[
    str, _matching(r"[A-Za-z0-9_.-]+", "write 1 to 50 letters, digits, _, . and -", 50)
]
BridgeName = Annotated[  # Linux: IFNAMSIZ is 16 with the closing zero
    str,
    _matching(r"[A-Za-z0-9_.-]+", "a bridge's name has 1 to 15 letters, digits, _, . and -", 15),
]
HttpPath = Annotated[
    str, _matching(r"/[!-~]*", "write a path such as /health, without spaces", 1000)
]
Alpn = Annotated[  # RFC 7301 allows any 255 octets; the ones in use are plain words
    str, _matching(r"[A-Za-z0-9._/+-]+", "write a protocol such as h2, h3 or http/1.1", 255)
]
Family = Annotated[str, _one_of(FAMILIES, "family")]
DiskFormat = Annotated[str, _one_of(("raw", "qcow2"), "format")]
Flag = Annotated[bool, Written(_flag, {"type": "boolean"}, bool)]
PortNumber = Annotated[int, _whole(1, 65535)]
HttpStatus = Annotated[int, _whole(100, 599)]
Replicas = Annotated[int, _whole(1, 1000)]
Cores = Annotated[float, _number("a number of cores such as 2 or 0.5", above_zero=False)]
SomeCores = Annotated[float, _number("a number of cores such as 2 or 0.5", above_zero=True)]
Money = Annotated[float, _number("an amount such as 0.05", above_zero=False)]
Weight = Annotated[float, _number("a number such as 1 or 2.5", above_zero=True)]
Memory = Annotated[int, _memory(above_zero=False)]
SomeMemory = Annotated[int, _memory(above_zero=True)]
Seconds = Annotated[float, _quantity(SECONDS)]
SomeSeconds = Annotated[float, _quantity(SECONDS, above_zero=True)]
Ttl = Annotated[int, Written(_ttl, _quantity_schema(SECONDS), SECONDS.write)]
After = Annotated[
    float | None,
    Written(_after, {"anyOf": [{"const": NEVER}, _quantity_schema(SECONDS)]}, _written_after),
]
Latency = Annotated[float, _quantity(MILLISECONDS)]
SomeLatency = Annotated[float, _quantity(MILLISECONDS, above_zero=True)]
Bandwidth = Annotated[float, _quantity(BANDWIDTH, above_zero=True)]
Rate = Annotated[float, _quantity(RATE)]
Power = Annotated[float, _quantity(POWER)]
Subnet = Annotated[IPv4Network | IPv6Network, Written(_subnet, _TEXT)]
Subnet4 = Annotated[IPv4Network, Written(_subnet4, _TEXT)]
Subnet6 = Annotated[IPv6Network, Written(_subnet6, _TEXT)]
Address4 = Annotated[IPv4Address, Written(_address4, {"type": "string", "format": "ipv4"})]
Pool = Annotated[tuple[IPv4Address, IPv4Address], Written(_pool, _TEXT)]
Socket = Annotated[tuple[str, int], Written(_socket, _TEXT, _written_socket)]
PortText = Annotated[Port, Written(_port, {"type": "string", "pattern": r"^[0-9]+/(tcp|udp)$"})]
ConsolePattern = Annotated[str, Written(_console_pattern, {"type": "string", "format": "regex"})]
ImageFile = Annotated[str, Written(_image_file, _TEXT)]
MailAddress = Annotated[str, Written(_mail_address, {"type": "string", "format": "email"})]
DnsName = Annotated[str, Written(_dns_name, _DNS_NAME)]
ServiceName = Annotated[
    str, Written(lambda text: text if text == "@" else _dns_name(text), _SERVICE_NAME)
]


# --- the mappings of the file -----------------------------------------------------------------


class Entry(BaseModel):
    """A mapping of the lab file; unknown keys are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True)


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

    def noun(self, zone: str) -> DnsSettings:
        """Return the settings for a zone."""
        return DnsSettings(
            zone=zone.removesuffix("."),
            listen=self.listen[0],
            port=self.listen[1],
            nameserver=(self.nameserver or "").removesuffix("."),
            hostmaster=self.hostmaster or "",
            negative_ttl_s=self.negative_ttl,
            forward_to=tuple(self.forward),
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
        )


class HostEntry(Entry):
    """An edge host that can run guests."""

    uri: Uri = Field(description="Connection URI of its libvirt.")
    site: Line = Field(default="", description="Where it stands, for people.")
    router: Key | None = Field(default=None, description="Router it is attached to.")
    capacity: CapacityEntry = Field(description="What it has in all.")
    reserve: ReserveEntry = Field(default=ReserveEntry(), description="What guests may not use.")
    labels: dict[Label, Label] = Field(
        default={}, description="Free labels for `constraints.labels`."
    )
    energy: EnergyEntry = Field(default=EnergyEntry(), description="Power it draws.")
    price: PriceEntry = Field(default=PriceEntry(), description="What it costs.")
    network: NetworkEntry = Field(description="Network of its guests.")

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
        )


class RouterEntry(Entry):
    """A virtual router."""

    site: Line = Field(default="", description="Where it stands, for people.")


class LinkEntry(Entry):
    """A link between two routers or hosts, the same in both directions."""

    between: list[Key] = Field(
        min_length=2, max_length=2, description="The two routers or hosts it joins."
    )
    latency: Latency = Field(description="Latency in one direction.")
    bandwidth: Bandwidth = Field(description="Bandwidth in each direction.")
    weight: Weight = Field(default=1.0, description="Routing weight; smaller is preferred.")

    def noun(self) -> Link:
        """Return the link."""
        a, b = self.between
        return Link(a, b, self.latency, self.bandwidth, self.weight)


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
    """A bootable image."""

    family: Family = Field(description="What kind of guest it is.")
    kernel: ImageFile = Field(description="Kernel or unikernel file.")
    initrd: ImageFile | None = Field(default=None, description="Initial RAM disk.")
    disks: list[DiskEntry] = Field(default=[], description="Disks, in order.")
    cmdline: Line = Field(default="", description="Added to the family's own command line.")

    def noun(self, name: str, places: ImagePlaces) -> Image:
        """Return the image of that name; whether its files exist is seen when it is booted."""
        return Image(
            name=name,
            family=self.family,
            kernel=places.path(self.kernel),
            initrd=places.path(self.initrd) if self.initrd else None,
            disks=tuple(
                Disk(places.path(disk.path), disk.format, disk.read_only) for disk in self.disks
            ),
            cmdline=self.cmdline,
        )


class ResourcesEntry(Entry):
    """What one instance of a service needs."""

    cpu: SomeCores = Field(description="Processor cores.")
    memory: SomeMemory = Field(description="Memory.")


class HttpEntry(Entry):
    """A readiness probe by HTTP GET."""

    port: PortNumber = Field(default=80, description="TCP port.")
    path: HttpPath = Field(default="/", description="Path to ask for.")
    status: HttpStatus = Field(default=200, description="Status that means ready.")


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

    @model_validator(mode="after")
    def _exactly_one(self) -> "ReadyEntry":
        if len(self.model_fields_set) != 1:
            raise ValueError(f"must have exactly one of: {', '.join(ReadyEntry.model_fields)}")
        return self

    def noun(self) -> Probe:
        """Return the probe."""
        if self.http:
            return Probe(ProbeKind.HTTP, self.http.port, self.http.path, self.http.status)
        (kind,) = self.model_fields_set
        return Probe(ProbeKind(kind), port=self.tcp or 0, pattern=self.console or "")


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

    @model_validator(mode="before")
    @classmethod
    def _one_word(cls, written: object) -> object:
        if isinstance(written, str):
            if written != NEVER:
                raise ValueError(f"must be {NEVER!r} or a mapping such as {{after: 60 s}}")
            return {"after": NEVER}
        return written


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


_IMAGE = "Image it boots."
_RESOURCES = "What one instance needs."
_READY = "How it is seen that it answers."


class ServiceDefaults(Entry):
    """The keys of a service that may be given once for all services."""

    image: Key | None = Field(default=None, description=_IMAGE)
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


def _nothing_required(schema: dict[str, Any]) -> None:
    """Require nothing: what a service lacks may be in `defaults`, which JSON Schema cannot say."""
    schema.pop("required", None)


class ServiceEntry(ServiceDefaults):
    """A service that runs only while somebody needs it; defaults are filled in before."""

    model_config = ConfigDict(json_schema_extra=_nothing_required)

    image: Key = Field(description=_IMAGE)
    resources: ResourcesEntry = Field(description=_RESOURCES)
    ready: ReadyEntry = Field(description=_READY)
    names: list[ServiceName] | None = Field(
        default=None,
        min_length=1,
        description="DNS names, relative to the zone; `@` is the zone itself; default: the key.",
    )

    def noun(self, name: str, zone: str) -> Service:
        """Return the service of that name in a zone."""
        return Service(
            name=name,
            names=tuple(absolute(written, zone) for written in self.names or [name]),
            image=self.image,
            resources=Capacity(self.resources.cpu, self.resources.memory),
            probe=self.ready.noun(),
            config=tuple(self.config.items()),
            ports=tuple(self.ports),
            ttl_s=self.ttl,
            idle=IdlePolicy(self.idle.after, self.idle.min_up, self.idle.cool_down),
            deadline_s=self.deadline,
            replicas=self.replicas,
            latency_bound_ms=self.latency_bound,
            alpn=tuple(self.alpn),
            constraints=self.constraints.noun(),
        )


def absolute(written: str, zone: str) -> str:
    """Return a service's DNS name in full: no final dot, relative names completed by the zone."""
    zone = zone.removesuffix(".")
    if written == "@":
        return zone
    return written.removesuffix(".") if written.endswith(".") else f"{written}.{zone}"


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

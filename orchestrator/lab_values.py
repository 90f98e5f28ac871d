"""How each kind of value in a lab file is written: keys, amounts, addresses, names.

Every scalar arrives as the text that was written (see `orchestrator.labfile`), so each kind has one
`Written` that reads it, describes it to editors, and writes it back for defaults. The mappings that
hold these values are in `orchestrator.lab_schema`.
"""

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from ipaddress import (
    IPv4Address,
    IPv4Network,
    IPv6Address,
    IPv6Network,
    ip_address,
    ip_network,
)
from typing import Annotated, Any
from zoneinfo import ZoneInfo

from pydantic import GetJsonSchemaHandler
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, core_schema

from images.errors import ImageRefused
from images.facts import Architecture
from images.families import known_families
from images.families.template import parse
from orchestrator import console_pattern
from orchestrator.errors import RuleError
from orchestrator.hours import Hours
from orchestrator.model import (
    LADDER,
    AnswerOrder,
    Migrate,
    OnCrash,
    OnHostLoss,
    Port,
    RedirectBy,
    Reply,
    Restart,
    WarmPlanning,
    cpu_ranges,
)
from orchestrator.network import LinkEngine, Routing
from orchestrator.rules.parse import MOST_CHARACTERS
from orchestrator.rules.parse import parse as parse_rule
from orchestrator.rules.spell import text as spelt
from orchestrator.rules.tree import Rule
from orchestrator.units import (
    BANDWIDTH,
    MEMORY,
    MILLISECONDS,
    PERCENT,
    POWER,
    RATE,
    SECONDS,
    Dimension,
)

LEAST_CAP = 0.01  # cores: Xen counts in these, and 1 ms of 100 ms is the least for the kernel
LONGEST_KEY = 30
LONGEST_DNS_NAME = 253  # RFC 1035, 2.3.4: 255 octets on the wire
_DEVICE = r"[A-Za-z0-9_.:@-]{1,15}"  # Linux: IFNAMSIZ is 16 with the closing zero
_CPU_RANGES = r"[0-9]{1,3}(-[0-9]{1,3})?(,[0-9]{1,3}(-[0-9]{1,3})?)*"
LONGEST_TTL_S = 86400  # an address stays reserved for this long after its service is gone
ARCHITECTURES = (  # of hosts
    Architecture.X86_64,
    Architecture.X86,
    Architecture.AARCH64,
    Architecture.RISCV64,
)
BUILT = "built:"
NEVER = "never"
AUTO = "auto"
OFF = "off"
_ZONE_RULE = "write a name such as Europe/London or UTC"


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
    meant = f"did you mean {str(close[0])!r}? " if close else ""  # it may be an enum's member
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


def one_of(choices: Iterable[str], noun: str) -> Written:
    """Return how one of these words is written; `noun` says what they are."""

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


def _share(text: str) -> float:
    value = PERCENT.parse(text)
    if value > 100:
        raise ValueError(f"must be at most 100 %, not {shown(text)}")
    return float(value)


def _ttl(text: str) -> int:
    value = SECONDS.parse(text)
    if value.denominator != 1 or value > LONGEST_TTL_S:
        raise ValueError(f"must be whole seconds from 0 s to {LONGEST_TTL_S} s, not {shown(text)}")
    return int(value)


def _core_cap(text: str) -> float:
    cap = _number("a number of cores such as 2 or 0.5", above_zero=True).read(text)
    if not isinstance(cap, float) or cap < LEAST_CAP:
        raise ValueError(f"must be at least {LEAST_CAP:g} cores, which is the finest there is")
    return cap


def _cpus(text: str) -> tuple[int, ...]:
    if not re.fullmatch(_CPU_RANGES, text):
        raise ValueError(f"must be numbers of processors such as 1-3,5, not {shown(text)}")
    cpus: set[int] = set()
    for each in text.split(","):
        first, _, last = each.partition("-")
        if int(last or first) < int(first):
            raise ValueError(f"{shown(each)} ends before it begins")
        cpus.update(range(int(first), int(last or first) + 1))
    return tuple(sorted(cpus))


def _after(text: str) -> float | None:
    return None if text == NEVER else float(SECONDS.parse(text))


def _written_after(value: float | None) -> str:
    return NEVER if value is None else SECONDS.write(value)


def _time_zone(text: str) -> str:
    try:
        ZoneInfo(text)
    except (ValueError, OSError):  # OSError: a folder of zones, such as Europe
        raise ValueError(f"{shown(text)} is not a time zone: {_ZONE_RULE}") from None
    except KeyError:
        lacks = "this machine knows no such time zone (Debian package tzdata)"
        raise ValueError(f"{shown(text)}: {lacks}; {_ZONE_RULE}") from None
    return text


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


def _address6(text: str) -> IPv6Address:
    try:
        return IPv6Address(text)
    except ValueError:
        raise ValueError(f"{shown(text)} is not an IPv6 address") from None


def _address(text: str) -> IPv4Address | IPv6Address:
    try:
        return ip_address(text)
    except ValueError:
        raise ValueError(f"{shown(text)} is not an IP address") from None


def _rule(text: str) -> Rule:
    try:
        return parse_rule(text)
    except RuleError as error:
        raise ValueError(f"is no traffic rule: {error}") from None


def _device(text: str) -> str:
    if not re.fullmatch(_DEVICE, text):
        raise ValueError(f"{shown(text)} cannot be the name of a network interface")
    return text


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


def _web_address(text: str) -> tuple[str, int]:
    if text == OFF:
        return "127.0.0.1", 0
    try:
        return _socket(text)
    except ValueError as error:
        raise ValueError(f"{error}, or '{OFF}'") from None


def _written_web_address(value: tuple[str, int]) -> str:
    return _written_socket(value) if value[1] else OFF


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
        console_pattern.check(text)
    except console_pattern.NotAPattern as error:
        raise ValueError(str(error)) from None
    return text


def _image_file(text: str) -> str:
    if not text or not text.isprintable():
        raise ValueError(f"{shown(text)} is not a file name")
    if text.startswith(BUILT):
        parts = text.removeprefix(BUILT).split("/")
        if len(parts) != 2 or any(part in {"", ".", ".."} for part in parts):
            raise ValueError(f"{shown(text)} is not right: write built:NAME/FILE")
    return text


def _record_name(text: str) -> str:
    """Return the owner of a record: `@`, or a DNS name that may have underscores in it."""
    if text == "@":
        return text
    dns_name(text.replace("_", "x"))
    return text.lower()


def dns_name(text: str) -> str:
    """Return a DNS name in lower case; ValueError if it is none."""
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
    return f"{local}@{dns_name(domain).removesuffix('.')}"


_MACHINE_RULE = "write a machine's name or address without a port, such as 10.0.0.2 or fd00::2"
_MACHINE = _matching(r"[A-Za-z0-9:][A-Za-z0-9:._-]*", _MACHINE_RULE, 255)


def _machine(text: str) -> str:
    if ":" in text:  # no name has one, and a port is libvirt's to choose
        try:
            return str(IPv6Address(text))
        except ValueError:
            raise ValueError(f"{shown(text)} is not right: {_MACHINE_RULE}") from None
    return str(_MACHINE.read(text))


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
_ONE_LINE = _matching(r"[^\x00-\x1f\x7f]*", "it must be one line of text", 4000)


def _template(text: str) -> str:
    try:
        parse(text)
    except ImageRefused as error:
        raise ValueError(str(error)) from None
    return str(_ONE_LINE.read(text))


Line = Annotated[str, _ONE_LINE]
Template = Annotated[str, Written(_template, _ONE_LINE.schema)]
Label = Annotated[
    str,
    Written(
        _matching(r"[^\x00-\x1f\x7f]+", "it must be 1 to 100 characters in one line", 100).read,
        _ANY_SCALAR,
    ),
]
ConfigText = Annotated[str, Written(str, _ANY_SCALAR)]
Argument = ConfigText
Uri = Annotated[
    str,
    _matching(
        r"[a-z][a-z0-9+.-]*:[!-~]+",
        "write a libvirt URI such as qemu:///system or xen+ssh://root@pc1/system",
        1000,
    ),
]
MachineAddress = Annotated[str, Written(_machine, _MACHINE.schema)]
NetworkName = Annotated[
    str,
    _matching(
        r"(?:[A-Za-z0-9_.-]+|bridge:[A-Za-z0-9_.-]{1,15})",
        "write a libvirt network's name (1 to 50 letters, digits, _, . and -), or bridge:NAME",
        50,
    ),
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
Family = Annotated[str, one_of(known_families(), "family")]
CatalogName = Annotated[
    str,
    _matching(
        r"[a-z0-9]+([._/-][a-z0-9]+)*(:[A-Za-z0-9_][A-Za-z0-9._-]*)?",
        "write NAME or NAME:TAG as `edgewake image list` shows it, or a digest",
        300,
    ),
]
DiskFormat = Annotated[str, one_of(("raw", "qcow2"), "format")]
Arch = Annotated[str, one_of(ARCHITECTURES, "architecture")]
RestartWhen = Annotated[str, one_of(tuple(Restart), "time to restart")]
CrashRule = Annotated[str, one_of(tuple(OnCrash), "rule")]
MigrateRule = Annotated[str, one_of(tuple(Migrate), "way to move")]
SleepRung = Annotated[str, one_of(LADDER[1:], "rung")]
HostLossRule = Annotated[str, one_of(tuple(OnHostLoss), "rule")]
AnswerRule = Annotated[str, one_of(tuple(AnswerOrder), "order")]
TsigAlgorithm = Annotated[str, one_of(("hmac-sha256", "hmac-sha512"), "algorithm")]
RecordType = Annotated[str, one_of(("A", "AAAA", "CNAME", "MX", "NS", "TXT"), "type")]
ReplyWhen = Annotated[str, one_of(tuple(Reply), "time to reply")]
RedirectWay = Annotated[str, one_of(tuple(RedirectBy), "way to redirect")]
WarmWhen = Annotated[str, one_of(tuple(WarmPlanning), "setting")]
RoutingWay = Annotated[str, one_of(tuple(Routing), "routing")]
LinkWay = Annotated[str, one_of((AUTO, *LinkEngine), "engine")]
Flag = Annotated[bool, Written(_flag, {"type": "boolean"}, bool)]
PortNumber = Annotated[int, _whole(1, 65535)]
HttpStatus = Annotated[int, _whole(100, 599)]
Burst = Annotated[int, _whole(1, 1_000_000)]
Replicas = Annotated[int, _whole(1, 1000)]
Cores = Annotated[float, _number("a number of cores such as 2 or 0.5", above_zero=False)]
SomeCores = Annotated[float, _number("a number of cores such as 2 or 0.5", above_zero=True)]
CoreCap = Annotated[float, Written(_core_cap, {"type": "number", "minimum": LEAST_CAP}, float)]
Cpus = Annotated[
    tuple[int, ...],
    Written(_cpus, {"type": ["string", "integer"], "pattern": f"^{_CPU_RANGES}$"}, cpu_ranges),
]
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
CronHours = Annotated[Hours, Written(Hours.parse, _TEXT, lambda hours: hours.text)]
TimeZone = Annotated[str, Written(_time_zone, _TEXT)]
SomePercent = Annotated[float, _quantity(PERCENT, above_zero=True)]
SomeRate = Annotated[float, _quantity(RATE, above_zero=True)]
Share = Annotated[float, Written(_share, _quantity_schema(PERCENT), PERCENT.write)]
Latency = Annotated[float, _quantity(MILLISECONDS)]
SomeLatency = Annotated[float, _quantity(MILLISECONDS, above_zero=True)]
Bandwidth = Annotated[float, _quantity(BANDWIDTH, above_zero=True)]
Rate = Annotated[float, _quantity(RATE)]
Power = Annotated[float, _quantity(POWER)]
Subnet = Annotated[IPv4Network | IPv6Network, Written(_subnet, _TEXT)]
Subnet4 = Annotated[IPv4Network, Written(_subnet4, _TEXT)]
Subnet6 = Annotated[IPv6Network, Written(_subnet6, _TEXT)]
Address = Annotated[IPv4Address | IPv6Address, Written(_address, _TEXT)]
Address6 = Annotated[IPv6Address, Written(_address6, {"type": "string", "format": "ipv6"})]
RuleText = Annotated[
    Rule, Written(_rule, {"type": "string", "maxLength": MOST_CHARACTERS}, write=spelt)
]
DeviceName = Annotated[str, Written(_device, {"type": "string", "pattern": f"^{_DEVICE}$"})]
Address4 = Annotated[IPv4Address, Written(_address4, {"type": "string", "format": "ipv4"})]
Pool = Annotated[tuple[IPv4Address, IPv4Address], Written(_pool, _TEXT)]
Socket = Annotated[tuple[str, int], Written(_socket, _TEXT, _written_socket)]
WebAddress = Annotated[tuple[str, int], Written(_web_address, _TEXT, _written_web_address)]
Streams = Annotated[int, _whole(1, 1000)]
PortText = Annotated[Port, Written(_port, {"type": "string", "pattern": r"^[0-9]+/(tcp|udp)$"})]
ConsolePattern = Annotated[str, Written(_console_pattern, {"type": "string", "format": "regex"})]
XenstoreKey = Annotated[
    str,
    _matching(
        r"[A-Za-z0-9_@:-]+(/[A-Za-z0-9_@:-]+)*",
        "write a key below the guest's own path, such as data/ready",
        255,
    ),
]
ImageFile = Annotated[str, Written(_image_file, _TEXT)]
MailAddress = Annotated[str, Written(_mail_address, {"type": "string", "format": "email"})]
DnsName = Annotated[str, Written(dns_name, _DNS_NAME)]
CookieMode = Annotated[str, one_of(("off", "on", "required"), "way with cookies")]
QueryLogMode = Annotated[str, one_of(("off", "on", "anonymous"), "way to keep queries")]
ProcessCount = Annotated[int, _whole(1, 64)]
ReplyRate = Annotated[int, _whole(0, 1_000_000)]
Slip = Annotated[int, _whole(0, 10)]
ServiceName = Annotated[
    str, Written(lambda text: text if text == "@" else dns_name(text), _SERVICE_NAME)
]
RecordName = Annotated[
    str,
    Written(
        _record_name, {"type": "string", "pattern": r"^(@|[A-Za-z0-9_.-]+)$", "maxLength": 254}
    ),
]

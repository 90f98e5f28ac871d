"""What families share: a template filled in by the rules of a syntax, and a `BootSpec` around it.

A `Syntax` says how a family quotes. Nothing a user writes in one place (a config value, a name, the
program's arguments) may reach into another: a value is quoted, or refused with a sentence when the
family's syntax has no room for it.
"""

import re
import shlex
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from images.bootspec import BootRequest, BootSpec, Disk, Image
from images.errors import ImageRefused
from images.facts import Entry
from images.families import Traits
from images.families.template import parse

Write = Callable[[str, str], str]  # a value, and what to call it in an error -> as it is written

_PRINTABLE = re.compile(r"[ -~]*")
_WORD = re.compile(r"[!-~]*")
_KEY = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,63}")


@dataclass(frozen=True, slots=True)
class Limit:
    """The most characters of a command line that its reader takes."""

    most: int
    reader: str


# MAX_GUEST_CMDLINE is 1024 with the final NUL (xen/include/public/xen.h); longer ones are cut off.
XEN_PV = Limit(1023, "a Xen PV guest")
# The buffer of Solo5's virtio and xen bindings and of its tenders is 8192 with the final NUL.
SOLO5 = Limit(8191, "Solo5")


def printable(value: str, what: str) -> str:
    """Return the value as it is, if it is printable ASCII: what every loader can carry."""
    if not _PRINTABLE.fullmatch(value):
        raise ImageRefused(f"{what} may have printable ASCII only, and it is {value!r}")
    return value


def plain_word(value: str, what: str) -> str:
    """Return the value as it is, if it is one word under any rule: no blank, quote or backslash."""
    if not _WORD.fullmatch(value) or set(value) & set("\"'\\"):
        raise ImageRefused(
            f"{what} must be one word of printable ASCII without quotes or backslashes here, and "
            f"it is {value!r}"
        )
    return value


def escaped(value: str, what: str) -> str:
    r"""Return the value with a backslash before each blank and backslash."""
    return re.sub(r"([ \\])", r"\\\1", printable(value, what))


def double_quoted(value: str, what: str) -> str:
    """Return the value in double quotes, where it needs them, with backslashes inside."""
    if not set(printable(value, what)) & set(" \"'\\"):
        return value
    return '"' + re.sub(r'(["\\])', r"\\\1", value) + '"'


def shell_word(value: str, what: str) -> str:
    """Return the value as a POSIX shell would have to be given it."""
    return shlex.quote(printable(value, what))


def key(name: str, request: BootRequest, reserved: frozenset[str] = frozenset()) -> str:
    """Return the name of a config entry, if it is a plain one and not `reserved`."""
    if name in reserved or not _KEY.fullmatch(name):
        besides = f", and none of {', '.join(sorted(reserved))}" if reserved else ""
        raise ImageRefused(
            f"config key {name!r} of service {request.service} cannot be used; take letters, "
            f"digits, '_', '.' and '-'{besides}"
        )
    return name


def variable(name: str, request: BootRequest) -> str:
    """Return the name of a config entry, if it can be that of an environment variable."""
    if not _VARIABLE.fullmatch(name):
        raise ImageRefused(
            f"config key {name!r} of service {request.service} cannot be used; it becomes an "
            "environment variable: take letters, digits and '_'"
        )
    return name


def _plain_setting(name: str, value: str, request: BootRequest) -> str:
    return f"{key(name, request)}={plain_word(value, what_of(name, request))}"


@dataclass(frozen=True, slots=True)
class Syntax:
    """How a family writes values.

    `text` writes one of our own texts (the names of instance, service and host), `args` the user's
    cmdline, `setting` one entry of the service's config (key, value) as a piece that `between`
    joins to the next; it may return an empty piece, which is left out. `no_config` completes the
    sentence "service web has config, and ..." for a family that has no place for it.
    """

    text: Write = plain_word
    args: Write = printable
    setting: Callable[[str, str, BootRequest], str] = _plain_setting
    between: str = " "
    no_config: str = "its template has no {config}"


def what_of(name: str, request: BootRequest) -> str:
    """Return what to call a config entry in an error."""
    return f"config {name!r} of service {request.service}"


def command_line(
    image: Image, request: BootRequest, own: str, syntax: Syntax, limits: Sequence[Limit] = ()
) -> str:
    """Return the command line: the image's template, else the family's `own`, filled in.

    Guests of an anonymous image are told no service, unless the template cannot do without.
    Raises `ImageRefused` when a value has no room in the syntax, when something the user said
    would be lost, or when the line is longer than one of its readers takes.
    """
    template = parse(printable(image.template or own, "a template"))
    if request.config and "config" not in template.words:
        why = "its template has no {config}" if image.template else syntax.no_config
        raise ImageRefused(
            f"service {request.service} has config, and {why}; take the config away, or give the "
            "image a template with {config}"
        )
    if image.cmdline and "args" not in template.words:
        raise ImageRefused("it has a cmdline, and its template has no {args}; add {args} to it")
    values = _values(image, request, syntax)
    if image.anonymous and "service" not in template.required:
        values["service"] = ""
    line = template.fill(values)
    for limit in limits:
        _fits(line, limit, request)
    return line


def nothing_to_tell(image: Image, request: BootRequest) -> str:
    """Return the empty command line of a guest that boots from its disk; refuse what is lost."""
    said = {
        "template": bool(image.template),
        "cmdline": bool(image.cmdline),
        "config": bool(request.config),
    }
    lost = [name for name, there in said.items() if there]
    if lost:
        raise ImageRefused(
            f"it boots from its disk, where nothing can be told to it, and there is a {lost[0]}: "
            "put that into the disk when it is built"
        )
    return ""


def pv_limit(request: BootRequest) -> tuple[Limit, ...]:
    """Return the limit that Xen sets if the guest is a PV guest."""
    return (XEN_PV,) if request.entry is Entry.XEN_PV else ()


def q35(machine: str) -> bool:
    """Return whether a QEMU machine type is a q35, where cards sit behind PCI Express ports."""
    return machine == "q35" or machine.startswith("pc-q35")


def spec(
    image: Image,
    request: BootRequest,
    traits: Traits,
    line: str,
    *,
    card: str = "",
    xenstore_ip: str = "",
    disks: tuple[Disk, ...] | None = None,
    xenstore: tuple[tuple[str, str], ...] = (),
) -> BootSpec:
    """Return the `BootSpec` around a command line; the image's overrides win over the traits.

    `card` is what the image calls its network card; `disks` replaces the image's own.
    """
    machine = image.machine or traits.machines[0]
    nic = replace(
        request.nic,
        name=card,
        transitional=traits.legacy_virtio and q35(machine),
        xenstore_ip=xenstore_ip,
    )
    obeys = image.obeys_shutdown
    return BootSpec(
        kernel=image.kernel,
        initrd=image.initrd,
        memory_mib=request.memory_mib,
        vcpus=request.vcpus,
        cmdline=line,
        nics=(nic,),
        disks=image.disks if disks is None else disks,
        entry=request.entry,
        machine=machine,
        xenstore=xenstore,
        end_pattern=image.end_pattern or traits.end_pattern,
        obeys_shutdown=traits.obeys_shutdown if obeys is None else obeys,
    )


def refuse_initrd(image: Image, title: str, why: str = "it would never be read") -> None:
    """Raise `ImageRefused` if the image has an initrd that its family has no use for."""
    if image.initrd is not None:
        raise ImageRefused(f"{title} takes no initrd: {why}; take 'initrd:' away")


def _values(image: Image, request: BootRequest, syntax: Syntax) -> dict[str, str]:
    address = request.address
    ipv4, ipv6 = address.ipv4, address.ipv6
    settings = (syntax.setting(name, value, request) for name, value in request.config)

    def ours(text: str, what: str) -> str:
        return syntax.text(text, what) if text else ""

    return {
        "ip": str(ipv4.ip),
        "prefix": str(ipv4.network.prefixlen),
        "cidr": str(ipv4),
        "mask": str(ipv4.netmask),
        "gw": str(address.gateway or ""),
        "ip6": str(ipv6.ip) if ipv6 else "",
        "prefix6": str(ipv6.network.prefixlen) if ipv6 else "",
        "own": str(address.own[0]) if address.own else "",
        "name": ours(request.name, "the instance's name"),
        "service": ours(request.service, "the service's name"),
        "host": ours(request.host, "the host's name"),
        "mac": plain_word(request.nic.mac, "the card's MAC address"),
        "args": syntax.args(image.cmdline, "its cmdline"),
        "config": syntax.between.join(piece for piece in settings if piece),
    }


def _fits(line: str, limit: Limit, request: BootRequest) -> None:
    if len(line) > limit.most:
        raise ImageRefused(
            f"the command line of {request.name} has {len(line)} characters and {limit.reader} "
            f"reads {limit.most}; shorten the service's config or the image's cmdline"
        )

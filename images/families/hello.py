"""Family `hello`: our own sample unikernel, made by `images.build.hello`.

Its settings are plain words on the command line, the values percent-encoded: ``ip=10.0.0.2/24``,
``gw``, ``ip6``, ``name``, ``service``, ``host``, and one ``KEY=VALUE`` for each entry of the
service's configuration, all of which its page shows. Without ``ip=`` it asks by DHCP. It powers off
when the power button is pressed (QEMU) or Xenstore's ``control/shutdown`` says so (Xen).
"""

from dataclasses import dataclass
from urllib.parse import quote

from images.bootspec import BootRequest, BootSpec, Image, Platform
from images.facts import Entry, ImageFacts
from images.families import AddressBy, Inspect, Traits
from images.families.cmdline import Limit, Syntax, command_line, key, refuse_initrd, spec

RESERVED_KEYS = frozenset({"ip", "ip6", "gw", "name", "service", "host"})
LIMIT = Limit(2047, "hello")  # CMDLINE_MOST in images/hello/settings.h
TEMPLATE = (
    "ip={cidr}[ gw={gw}][ ip6={ip6}/{prefix6}][ name={name}][ service={service}][ host={host}]"
    "[ {config}][ {args}]"
)


def _percent(value: str, what: str) -> str:  # noqa: ARG001 - every text can be written like this
    return quote(value, safe="/:")


def _setting(name: str, value: str, request: BootRequest) -> str:
    return f"{key(name, request, RESERVED_KEYS)}={quote(value, safe='/:')}"


SYNTAX = Syntax(text=_percent, setting=_setting)
TRAITS = Traits(
    name="hello",
    title="hello",
    entries={Platform.QEMU: (Entry.MULTIBOOT, Entry.PVH), Platform.XEN: (Entry.PVH,)},
    default_memory_mib=8,
    least_memory_mib={Platform.QEMU: 3, Platform.XEN: 3},  # measured: docs/hello.md
    address={Platform.QEMU: AddressBy.CMDLINE, Platform.XEN: AddressBy.CMDLINE},
    elsewhere={Platform.SPT: "a tender starts Solo5 images only"},
    ipv6=True,
    machines=("pc", "q35"),
    legacy_virtio=True,
    obeys_shutdown=True,
)


@dataclass(frozen=True, slots=True)
class Hello:
    """The `images.families.Family` of our sample unikernel."""

    traits: Traits = TRAITS

    def check(self, image: Image, inspect: Inspect) -> None:  # noqa: ARG002 - one file is all
        """Raise `ImageError` if there is an initrd, which it has no use for."""
        refuse_initrd(image, "hello")

    def boot_spec(self, image: Image, facts: ImageFacts, request: BootRequest) -> BootSpec:  # noqa: ARG002 - all its images are told the same
        """Return how to boot the image as requested; ImageRefused if it cannot be said to it."""
        line = command_line(image, request, TEMPLATE, SYNTAX, (LIMIT,))
        return spec(image, request, TRAITS, line)


HELLO = Hello()

"""Family `unikraft`: Unikraft 0.16 and later, for QEMU (multiboot) or Xen PV.

The address is a kernel parameter, ``netdev.ip=10.0.0.2/24:10.0.0.1``, for kernels built with
CONFIG_LIBUKNETDEV_EINFO_LIBPARAM (lib/uknetdev/netdev.c); the ``--`` that ends the parameters is
required, without it none is read (lib/ukboot/early_init.c). The first word is the program's name:
QEMU makes it of the kernel's path, on Xen it is said here. On Xen a kernel without that parameter
finds address, netmask and gateway in the ``ip`` key of its card's Xenstore backend, separated by
blanks (drivers/xen/net/netfront_xs.c); with an address alone there, the card fails.

An entry of the service's config becomes an environment variable, ``env.vars=KEY=VALUE``, for
kernels built with CONFIG_LIBPOSIX_ENVIRON_LIBPARAM; kraft passes its ``--env`` the same way. There
is room for 8 unless the kernel was built for more.
"""

import re
from dataclasses import dataclass

from images.bootspec import BootRequest, BootSpec, Image, Platform
from images.facts import Entry, ImageFacts
from images.families import AddressBy, Inspect, Traits
from images.families.cmdline import (
    Limit,
    Syntax,
    command_line,
    plain_word,
    printable,
    pv_limit,
    spec,
    variable,
    what_of,
)

NETDEV_IP = "netdev.ip"  # in ImageFacts.options of a kernel that understands it
NO_GATEWAY = "0.0.0.0"  # noqa: S104 - not an address to bind to
MOST_CMDLINE = 4096  # CONFIG_LIBUKBOOT_CMDLINE_MAX_LEN unless changed; with path and blank

_PARAMETERS = "netdev.ip={cidr}[:{gw}][ {config}] --[ {args}]"
TEMPLATES = {Platform.QEMU: _PARAMETERS, Platform.XEN: "{service} " + _PARAMETERS}
TRAITS = Traits(
    name="unikraft",
    title="Unikraft",
    entries={Platform.QEMU: (Entry.MULTIBOOT,), Platform.XEN: (Entry.XEN_PV,)},
    default_memory_mib=32,
    least_memory_mib={Platform.QEMU: 4, Platform.XEN: 8},
    address={Platform.QEMU: AddressBy.CMDLINE, Platform.XEN: AddressBy.XENSTORE},
    elsewhere={Platform.SPT: "a tender starts Solo5 images only"},
    legacy_virtio=True,
)


def _quoted(value: str, what: str) -> str:
    """Write one word for lib/ukargparse: nothing is special in single quotes but their end."""
    if not set(printable(value, what)) & set(" \"'\\"):
        return value
    if "'" not in value:
        return f"'{value}'"
    return '"' + re.sub(r'(["\\])', r"\\\1", value) + '"'


def _setting(name: str, value: str, request: BootRequest) -> str:
    return f"env.vars={variable(name, request)}={_quoted(value, what_of(name, request))}"


SYNTAX = Syntax(text=plain_word, setting=_setting)


@dataclass(frozen=True, slots=True)
class Unikraft:
    """The `images.families.Family` of Unikraft unikernels."""

    traits: Traits = TRAITS

    def check(self, image: Image, inspect: Inspect) -> None:
        """Raise nothing: one file is all it needs; an initrd may hold its root file system."""

    def boot_spec(self, image: Image, facts: ImageFacts, request: BootRequest) -> BootSpec:
        """Return how to boot the image as requested; ImageRefused if it cannot be said to it."""
        before = len(str(image.kernel)) + 1 if request.platform is Platform.QEMU else 0
        limits = (Limit(MOST_CMDLINE - 1 - before, "Unikraft"), *pv_limit(request))
        line = command_line(image, request, TEMPLATES[request.platform], SYNTAX, limits)
        return spec(image, request, TRAITS, line, xenstore_ip=_xenstore_ip(facts, request))


def _xenstore_ip(facts: ImageFacts, request: BootRequest) -> str:
    if request.platform is not Platform.XEN or NETDEV_IP in facts.options:
        return ""
    ipv4 = request.address.ipv4
    return f"{ipv4.ip} {ipv4.netmask} {request.address.gateway or NO_GATEWAY}"


UNIKRAFT = Unikraft()

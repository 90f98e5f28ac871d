"""Family `linux`: a Linux kernel and an initramfs that takes its settings from the command line.

Debian's cloud kernel has no CONFIG_IP_PNP, so the kernel's own ``ip=`` does nothing. The settings
are words of ours instead, percent-encoded, which the initramfs of `images.build.linux_microvm`
reads (any other may as well): ``edgewake.ip=10.0.0.2/24``, ``edgewake.gw``, ``edgewake.ip6``,
``edgewake.own`` (for its
loopback), ``edgewake.name`` (the instance), ``edgewake.service``, ``edgewake.host``, and one
``edgewake.KEY=VALUE`` for each entry of the service's configuration.

On Xen the same kernel is a PVH or a PV guest, with its console on hvc0; its initramfs must bring
xen-netfront. libxl unpacks a bzImage itself (xen/tools/libs/guest/xg_dom_bzimageloader.c), which
was not run here: an unpacked kernel was.
"""

from dataclasses import dataclass
from urllib.parse import quote

from images.bootspec import BootRequest, BootSpec, Image, Platform
from images.errors import ImageRefused
from images.facts import Container, Entry, Format, ImageFacts
from images.families import AddressBy, Inspect, Traits
from images.families.cmdline import Limit, Syntax, command_line, key, pv_limit, spec

LEAST_MEMORY_MIB = 80  # measured: see docs/sample-guest.md
# What a kernel may unpack besides gzip, if it was built to; inside is not looked.
PACKED = frozenset({Container.XZ, Container.BZIP2, Container.LZMA, Container.LZ4, Container.ZSTD})
MOST_CMDLINE = 2047  # COMMAND_LINE_SIZE of x86 is 2048 with the final NUL (asm/setup.h)
RESERVED_KEYS = frozenset({"ip", "ip6", "gw", "own", "name", "service", "host"})

# What makes a guest that runs one program answer sooner; each was measured (docs/sample-guest.md).
FAST_BOOT = (
    "quiet",
    "panic=-1",  # a crash resets at once, which ends the domain and is noticed
    "mitigations=off",  # one program, one user: nobody to protect from one another in there
    "random.trust_cpu=on",
    "cryptomgr.notests",
    "rcupdate.rcu_expedited=1",
)
FAST_PC = (
    "tsc=reliable",
    "noreplace-smp",
    "pci=noacpi",  # with ACPI otherwise: no ACPI at all boots 0.1 s sooner, but never idles well
    "pnpacpi=off",
)
SETTINGS = (
    "edgewake.ip={cidr}[ edgewake.gw={gw}][ edgewake.ip6={ip6}/{prefix6}][ edgewake.own={own}]"
    "[ edgewake.name={name}][ edgewake.service={service}][ edgewake.host={host}]"
    "[ {config}][ {args}]"
)
TEMPLATES = {
    Platform.QEMU: " ".join(("console=ttyS0", *FAST_BOOT, *FAST_PC, SETTINGS)),
    Platform.XEN: " ".join(("console=hvc0", *FAST_BOOT, SETTINGS)),
}


def _percent(value: str, what: str) -> str:  # noqa: ARG001 - every text can be written like this
    return quote(value, safe="/:")


def _setting(name: str, value: str, request: BootRequest) -> str:
    word = f"edgewake.{key(name, request, RESERVED_KEYS)}"
    return f"{word}={quote(value, safe='/:')}" if value else ""


SYNTAX = Syntax(text=_percent, setting=_setting)
TRAITS = Traits(
    name="linux",
    title="Linux",
    entries={
        Platform.QEMU: (Entry.LINUX, Entry.PVH),
        Platform.XEN: (Entry.PVH, Entry.XEN_PV, Entry.LINUX),
    },
    default_memory_mib=128,
    least_memory_mib={Platform.QEMU: LEAST_MEMORY_MIB},
    address={Platform.QEMU: AddressBy.CMDLINE, Platform.XEN: AddressBy.CMDLINE},
    elsewhere={Platform.SPT: "a tender starts Solo5 images only"},
    ipv6=True,
    machines=("pc", "q35"),
    own_address=True,
)


@dataclass(frozen=True, slots=True)
class Linux:
    """The `images.families.Family` of Linux guests."""

    traits: Traits = TRAITS

    def check(self, image: Image, inspect: Inspect) -> None:
        """Raise `ImageError` unless there is an initramfs to go with the kernel."""
        if image.initrd is None:
            raise ImageRefused("family linux needs an initrd; add 'initrd:' to the image")
        facts = inspect(image.initrd)
        if facts.format is not Format.CPIO and facts.container not in PACKED:
            raise ImageRefused(
                f"{image.initrd} is no such initrd as family linux boots: a cpio archive, plain or "
                f"compressed (it is {facts.format})"
            )

    def boot_spec(self, image: Image, facts: ImageFacts, request: BootRequest) -> BootSpec:  # noqa: ARG002 - one kernel is as good as another
        """Return how to boot the image as requested; ImageRefused if it cannot be said to it."""
        limits = (Limit(MOST_CMDLINE, "a Linux kernel"), *pv_limit(request))
        line = command_line(image, request, TEMPLATES[request.platform], SYNTAX, limits)
        return spec(image, request, TRAITS, line)


LINUX = Linux()

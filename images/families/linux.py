"""Family `linux`: a Linux kernel and an initramfs that takes its settings from the command line.

Debian's cloud kernel has no CONFIG_IP_PNP, so the kernel's own ``ip=`` does nothing. The settings
are words of ours instead, percent-encoded, which the initramfs of `images.build.linux_microvm`
reads (any other may as well): ``edgewake.ip=10.0.0.2/24``, ``edgewake.gw``, ``edgewake.ip6``,
``edgewake.name`` (the instance), ``edgewake.service``, ``edgewake.host``, and one
``edgewake.KEY=VALUE`` for each entry of the service's configuration.
"""

import re
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from images.bootspec import BootRequest, BootSpec, Image
from images.errors import ImageRefused
from images.inspect import FileKind, kind_of

LEAST_MEMORY_MIB = 80  # measured: see docs/sample-guest.md
MOST_CMDLINE = 2047  # COMMAND_LINE_SIZE of x86 is 2048 with the final NUL (asm/setup.h)
RESERVED_KEYS = frozenset({"ip", "ip6", "gw", "name", "service", "host"})

KERNELS = frozenset({FileKind.BZIMAGE, FileKind.PVH})
INITRDS = frozenset({FileKind.GZIP, FileKind.CPIO})

# What makes a guest that runs one program answer sooner; each was measured (docs/sample-guest.md).
FAST_BOOT = (
    "console=ttyS0",
    "quiet",
    "panic=-1",  # a crash resets at once, which ends the domain and is noticed
    "mitigations=off",  # one program, one user: nobody to protect from one another in there
    "tsc=reliable",
    "random.trust_cpu=on",
    "cryptomgr.notests",
    "noreplace-smp",
    "rcupdate.rcu_expedited=1",
    "pci=noacpi",  # with ACPI otherwise: no ACPI at all boots 0.1 s sooner, but never idles well
    "pnpacpi=off",
)
_KEY = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")
_PRINTABLE = re.compile(r"[ -~]*")


@dataclass(frozen=True, slots=True)
class Linux:
    """The `images.families.Family` of Linux guests."""

    name: str = "linux"
    least_memory_mib: int = LEAST_MEMORY_MIB

    def check(self, image: Image) -> None:
        """Raise `ImageError` unless there are a bootable kernel and an initramfs to go with it."""
        _must_be(image.kernel, KERNELS, "a bzImage, or an ELF kernel with a PVH entry")
        if image.initrd is None:
            raise ImageRefused(
                f"image {image.name}: family linux needs an initrd; add 'initrd:' to the image"
            )
        _must_be(image.initrd, INITRDS, "a cpio archive, plain or compressed by gzip")

    def boot_spec(self, image: Image, request: BootRequest) -> BootSpec:
        """Return how to boot the image as requested; ImageRefused if it cannot be said to it."""
        if request.memory_mib < self.least_memory_mib:
            raise ImageRefused(
                f"image {image.name}: {request.memory_mib} MiB of memory are too few for family "
                f"linux; give the service at least {self.least_memory_mib} MiB"
            )
        return BootSpec(
            kernel=image.kernel,
            initrd=image.initrd,
            memory_mib=request.memory_mib,
            vcpus=request.vcpus,
            cmdline=_cmdline(image, request),
            nics=(request.nic,),
            disks=image.disks,
            machine="pc",
            obeys_shutdown=False,
        )


LINUX = Linux()


def _must_be(path: Path, wanted: frozenset[FileKind], what: str) -> None:
    kind = kind_of(path)
    if kind not in wanted:
        raise ImageRefused(f"{path} is no such file as family linux boots: {what} ({kind})")


def _cmdline(image: Image, request: BootRequest) -> str:
    words = [*FAST_BOOT, *_settings(image, request)]
    if not _PRINTABLE.fullmatch(image.cmdline):
        raise ImageRefused(f"image {image.name}: its cmdline may have printable ASCII only")
    line = " ".join((*words, image.cmdline)).rstrip()
    if len(line) > MOST_CMDLINE:
        raise ImageRefused(
            f"image {image.name}: the command line of {request.name} has {len(line)} characters "
            f"and a Linux kernel reads {MOST_CMDLINE}; shorten the service's config"
        )
    return line


def _settings(image: Image, request: BootRequest) -> list[str]:
    address = request.address
    settings = {
        "ip": str(address.ipv4),
        "gw": str(address.gateway) if address.gateway else "",
        "ip6": str(address.ipv6) if address.ipv6 else "",
        "name": request.name,
        "service": request.service,
        "host": request.host,
    }
    for key, value in request.config:
        if key in RESERVED_KEYS or not _KEY.fullmatch(key):
            raise ImageRefused(
                f"image {image.name}: config key {key!r} of service {request.service} cannot be "
                "used; take letters, digits, '_', '.' and '-', and none of "
                + ", ".join(sorted(RESERVED_KEYS))
            )
        settings[key] = value
    return [f"edgewake.{key}={quote(value, safe='/:')}" for key, value in settings.items() if value]

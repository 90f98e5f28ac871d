"""What a file says about itself: `ImageFacts`, in the words loaders and hypervisors use.

`images.inspect` fills these in from bytes; `images.match` holds them against a host. Nothing here
reads anything.
"""

from dataclasses import dataclass
from enum import StrEnum


class Architecture(StrEnum):
    """The processor an image was built for, by the names `uname -m` uses where it has one."""

    X86_64 = "x86_64"
    X86 = "i686"
    AARCH64 = "aarch64"
    ARM = "arm"
    RISCV64 = "riscv64"
    OTHER = "another architecture"


class Container(StrEnum):
    """What the image is wrapped in; all but the first three are not looked into."""

    PLAIN = "plain"
    GZIP = "gzip"
    QCOW2 = "qcow2"
    XZ = "xz"
    BZIP2 = "bzip2"
    LZMA = "lzma"
    LZ4 = "lz4"
    ZSTD = "zstd"


class Format(StrEnum):
    """What kind of file the image is, once unwrapped."""

    ELF = "ELF"
    BZIMAGE = "Linux bzImage"
    CPIO = "cpio archive"
    DISK = "disk"
    UNKNOWN = "unknown"


class Entry(StrEnum):
    """A way into an image: what a loader must know in order to start it.

    PVH is by a PT_NOTE segment, which QEMU and Xen read; PVH_SECTION by a note that only the
    section headers show, which only Xen reads. SPT, HVT and the other Solo5 targets need the tender
    of that name. COMMAND is no way into a file: it is run as a program.
    """

    LINUX = "Linux boot protocol"
    MULTIBOOT = "multiboot"
    MULTIBOOT2 = "multiboot2"
    PVH = "PVH"
    PVH_SECTION = "PVH (Xen only)"
    XEN_PV = "Xen PV"
    BIOS = "BIOS boot disk"
    SPT = "Solo5 spt"
    HVT = "Solo5 hvt"
    MUEN = "Solo5 muen"
    GENODE = "Solo5 genode"
    COMMAND = "command"


class DeviceKind(StrEnum):
    """What kind of device an image declares."""

    NET = "net"
    BLOCK = "block"


@dataclass(frozen=True, slots=True)
class Device:
    """A device that an image declares by name and will not start without (a Solo5 manifest)."""

    kind: DeviceKind
    name: str


@dataclass(frozen=True, slots=True)
class ImageFacts:
    """What one file is.

    `family` is a name in `images.families.FAMILIES`, empty when the bytes do not tell; `evidence`
    says in a few words how it was recognised. `entries` are the ways in. `file_bytes` is the size
    of the file as it is stored; `least_file_bytes` what a loader will read at least (multiboot
    address fields), so a smaller file is truncated or was stripped; `loaded_bytes` the memory that
    its segments span, in bytes (0: unknown). `options` are command-line parameters the image is
    known to understand. `warnings` are sentences for the user; `unusable` is one sentence why it
    can be started nowhere, or empty.
    """

    file_bytes: int
    container: Container = Container.PLAIN
    format: Format = Format.UNKNOWN
    architecture: Architecture | None = None
    bits: int = 0
    entries: frozenset[Entry] = frozenset()
    family: str = ""
    evidence: str = ""
    guest_os: str = ""
    solo5_target: str = ""
    devices: tuple[Device, ...] = ()
    least_file_bytes: int = 0
    loaded_bytes: int = 0
    options: frozenset[str] = frozenset()
    warnings: tuple[str, ...] = ()
    unusable: str = ""

"""Recognises Linux kernels that are not ELF: x86 bzImage, and those of other architectures.

The bzImage header is that of Linux Documentation/arch/x86/boot.rst. Other programs borrow it to be
started like a kernel (iPXE, memtest86+); the version string tells them apart.
"""

import re

from images.facts import Architecture, Entry, Format, ImageFacts
from images.source import Source
from images.xen_notes import text

_SETUP_SECTS, _SYSSIZE, _MAGIC_AT, _PROTOCOL = 0x1F1, 0x1F4, 0x202, 0x206
_VERSION, _XLOADFLAGS, _INIT_SIZE = 0x20E, 0x236, 0x260
_SECTOR = 512
_PARAGRAPH = 16
MOST_VERSION_BYTES = 256
KERNEL_64 = 1  # XLF_KERNEL_64
# The protocols from which on a field is there.
_SYSSIZE_IS_32_BITS, _HAS_INIT_SIZE, _HAS_XLOADFLAGS = 0x204, 0x20A, 0x20C

_LINUX_VERSION = re.compile(r"\d+\.\d+\S* \(.*\) #\d+ ")  # scripts/mkcompile_h

_FOREIGN = (
    (0x38, b"ARM\x64", Architecture.AARCH64, "Linux Image"),  # arch/arm64/booting.rst
    (0x24, b"\x18\x28\x6f\x01", Architecture.ARM, "Linux zImage"),  # arch/arm/booting.rst
    (0x38, b"RSC\x05", Architecture.RISCV64, "Linux Image"),  # arch/riscv/boot-image-header.rst
)


def bzimage_facts(source: Source) -> ImageFacts | None:
    """Return what a bzImage is, None if there is no such header."""
    if source.read(_MAGIC_AT, 4) != b"HdrS":
        return None
    protocol = source.number(_PROTOCOL, 2)
    version = _version(source)
    linux = bool(_LINUX_VERSION.match(version))
    name = f", version {version.partition(' (')[0] if linux else version}" if version else ""
    least = _least_bytes(source) if protocol >= _SYSSIZE_IS_32_BITS else 0
    wide = protocol >= _HAS_XLOADFLAGS and source.number(_XLOADFLAGS, 2) & KERNEL_64
    return ImageFacts(
        file_bytes=source.size,
        format=Format.BZIMAGE,
        architecture=Architecture.X86_64 if wide else Architecture.X86,
        bits=64 if wide else 32,
        entries=frozenset({Entry.LINUX}),
        family="linux" if linux else "",
        evidence=f"boot protocol {protocol >> 8}.{protocol & 0xFF:02}{name}",
        guest_os="linux" if linux else version,
        least_file_bytes=least,
        loaded_bytes=source.number(_INIT_SIZE, 4) if protocol >= _HAS_INIT_SIZE else 0,
        unusable=""
        if least <= source.size
        else f"cut off: its header speaks of {least} bytes and it has {source.size}; copy it again",
    )


def _version(source: Source) -> str:
    """Return the kernel's own version string; empty unless it is where it may be and legible."""
    at = source.number(_VERSION, 2)
    setup_bytes = _SECTOR * (source.number(_SETUP_SECTS, 1) or 4)
    if not 0 < at < setup_bytes:
        return ""
    raw, end, _ = source.read(_SECTOR + at, MOST_VERSION_BYTES).partition(b"\0")
    version = text(raw).strip()
    return version if end and version.isascii() else ""


def _least_bytes(source: Source) -> int:
    """Return the least size of the file; the protected-mode part is given in paragraphs, up."""
    setup_bytes = _SECTOR * ((source.number(_SETUP_SECTS, 1) or 4) + 1)
    return setup_bytes + max(source.number(_SYSSIZE, 4) * _PARAGRAPH - _PARAGRAPH + 1, 0)


def foreign_kernel_facts(source: Source) -> ImageFacts | None:
    """Return what a kernel of another architecture is, None if it is none."""
    for at, magic, architecture, title in _FOREIGN:
        if source.read(at, 4) == magic:
            return ImageFacts(
                file_bytes=source.size,
                architecture=architecture,
                bits=32 if architecture is Architecture.ARM else 64,
                evidence=f"{title} for {architecture}",
                guest_os="linux",
                unusable=f"a Linux kernel for {architecture}; edgewake starts x86 guests",
            )
    return None

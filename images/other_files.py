"""Recognises files that are no images, so that the refusal can say what they are and what to do.

A table of magic numbers, in the order in which they are tried, and a few that need a closer look.
"""

from images.facts import Container, Format, ImageFacts
from images.source import Source

INITRAMFS = "an initramfs starts nothing by itself; give it as the initrd of a Linux kernel"
_NEWC_MAGICS = (b"070701", b"070702")  # buffer-format.rst of Linux: the only ones it unpacks
_RESET_VECTOR = b"\xea\x5b\xe0\x00\xf0"  # jmp f000:e05b, 16 bytes before the end of every PC BIOS
_TAR_AT, _TAR_MAGIC = 257, b"ustar"

_COMPRESSED = (
    (b"\xfd7zXZ\0", Container.XZ),
    (b"BZh", Container.BZIP2),
    (b"\x5d\0\0", Container.LZMA),
    (b"\x02\x21\x4c\x18", Container.LZ4),
    (b"\x04\x22\x4d\x18", Container.LZ4),
    (b"\x28\xb5\x2f\xfd", Container.ZSTD),
)
_UNPACK = "take the image out of it first"
_CONVERT = "convert it first (qemu-img convert -O qcow2)"
_OTHERS = (
    (0, b"#!", "script", "a script, not an image; run it, or put it into an initramfs"),
    (0, b"PK\x03\x04", "zip archive", f"a zip archive; {_UNPACK}"),
    (0, b"\0asm", "WebAssembly module", "a WebAssembly module, which needs a runtime, not a guest"),
    (0, b"KDMV", "VMDK disk", f"a VMDK disk; {_CONVERT}"),
    (0, b"vhdxfile", "VHDX disk", f"a VHDX disk; {_CONVERT}"),
    (0x40, b"\x7f\x10\xda\xbe", "VDI disk", f"a VDI disk; {_CONVERT}"),
    (0, b"hsqs", "squashfs", "a squashfs file system; it can only be a guest's data disk"),
    (0, b"\x27\x05\x19\x56", "U-Boot image", "an image for U-Boot, which edgewake does not run"),
    (0, b"\xd0\x0d\xfe\xed", "device tree", "a device tree or FIT image, not for x86 guests"),
    (0, b"070707", "cpio archive", "a cpio archive that Linux does not unpack; write newc instead"),
    (0, b"\x55\xaa", "option ROM", "an option ROM of a PC card, not an image"),
)


def archive_facts(source: Source) -> ImageFacts | None:
    """Return what an initramfs or a compressed file other than gzip is, None if it is neither."""
    if source.read(0, 6) in _NEWC_MAGICS:
        return ImageFacts(
            source.size, format=Format.CPIO, evidence="cpio newc magic number", unusable=INITRAMFS
        )
    for magic, container in _COMPRESSED:
        if source.read(0, len(magic)) == magic:
            return ImageFacts(
                source.size,
                container=container,
                evidence=f"{container} magic number",
                unusable=f"packed by {container} and not looked into; unpack it, or if it is an "
                "initramfs give it as the initrd of a Linux kernel that unpacks it",
            )
    return None


def other_facts(source: Source) -> ImageFacts | None:
    """Return what a file is that is certainly no image, None if it may be one."""
    if source.size == 0:
        return _no_image(source, "no bytes", "an empty file; copy or build it again")
    if source.read(_TAR_AT, len(_TAR_MAGIC)) == _TAR_MAGIC:
        return _tar(source)
    if source.read(0, 2) == b"MZ":
        return _program_of_efi(source)
    for at, magic, title, why in _OTHERS:
        if source.read(at, len(magic)) == magic:
            return _no_image(source, title, why)
    if source.read(source.size - 16, len(_RESET_VECTOR)) == _RESET_VECTOR:
        return _no_image(source, "reset vector of a PC BIOS", "firmware of a PC, not a guest")
    return None


def _tar(source: Source) -> ImageFacts:
    first = source.read(0, 100).partition(b"\0")[0]
    if first.endswith(b".ovf"):
        return _no_image(source, "OVA archive", f"an OVA appliance; {_UNPACK}")
    if first.startswith((b"oci-layout", b"blobs/", b"index.json", b"manifest.json")):
        what = "a container image; its program can go into an initramfs for the linux family"
        return _no_image(source, "OCI archive", what)
    return _no_image(source, "tar archive", f"a tar archive; {_UNPACK}")


def _program_of_efi(source: Source) -> ImageFacts | None:
    """Tell a unified kernel image from other PE programs by its sections (UAPI.5)."""
    header_at = source.number(0x3C, 4)
    if source.read(header_at, 4) != b"PE\0\0":
        return None
    table_at = header_at + 24 + source.number(header_at + 20, 2)
    count = min(source.number(header_at + 6, 2), 96)  # no more are allowed to be loaded
    names = {source.read(table_at + 40 * index, 8).rstrip(b"\0") for index in range(count)}
    if b".linux" in names:
        why = "a unified kernel image for EFI; give its kernel and initrd as files of their own"
        return _no_image(source, "PE with a .linux section", why)
    return _no_image(source, "PE program", "a program for EFI or Windows, which edgewake lacks")


def _no_image(source: Source, evidence: str, why: str) -> ImageFacts:
    return ImageFacts(source.size, evidence=evidence, unusable=why)

"""Recognises qcow2 disks and looks inside the simple ones, one cluster at a time.

After QEMU docs/interop/qcow2.txt. An inside that needs more than the two tables of an ordinary file
(a backing file, encryption, compressed clusters, extended entries) is not looked at; that is said.
"""

from collections.abc import Callable
from dataclasses import replace

from images.disk import NO_BOOT_LOADER, disk_facts
from images.facts import Architecture, Container, Entry, Format, ImageFacts
from images.qcow2_header import HEADER_BYTES, MAGIC, MOST_NAME_BYTES, Qcow2Header, qcow2_header
from images.source import Source
from images.xen_notes import text

_HARMLESS = 0b11  # dirty, corrupt: what is read here is read all the same
_OFFSET = 0x00FF_FFFF_FFFF_FE00
_COMPRESSED, _ZERO = 1 << 62, 1

_UNSEEN = ImageFacts(
    file_bytes=0,
    architecture=Architecture.X86,
    entries=frozenset({Entry.BIOS}),
    warnings=("its inside was not looked at: whether it starts is not known",),
)


class _NotSimple(Exception):  # noqa: N818 - reads as a sentence where it is raised
    """A cluster cannot be read without more of the format than is done here."""


def qcow2_facts(source: Source) -> ImageFacts | None:
    """Return what a qcow2 file is, None if it is none."""
    head = source.read(0, HEADER_BYTES)
    if not head.startswith(MAGIC):
        return None
    header = qcow2_header(head)
    if header.objection:
        return ImageFacts(
            source.size,
            container=Container.QCOW2,
            format=Format.DISK,
            evidence="qcow2 magic number",
            unusable=header.objection,
        )
    inside = _inside(source, header)
    return replace(
        inside,
        file_bytes=source.size,
        container=Container.QCOW2,
        format=Format.DISK,
        evidence=f"qcow2 version {header.version}, {header.virtual_size} bytes inside"
        + (f": {inside.evidence}" if inside.evidence else ""),
        warnings=(*_warnings(source, header), *inside.warnings),
    )


def _warnings(source: Source, header: Qcow2Header) -> list[str]:
    warnings = []
    if header.backing_at:
        length = min(header.backing_length, MOST_NAME_BYTES)
        name = text(source.read(header.backing_at, length))
        warnings.append(f"it is only what changed in another file, which it needs: {name!r}")
    if header.has_external_data:
        warnings.append("its data are in another file, which it needs")
    return warnings


def _inside(source: Source, header: Qcow2Header) -> ImageFacts:
    """Return what the disk inside is."""
    if header.backing_at or header.encryption or header.features & ~_HARMLESS:
        return _UNSEEN
    try:
        facts = disk_facts(Source(header.virtual_size, _reader(source, header)))
    except _NotSimple:
        return _UNSEEN
    return facts or ImageFacts(0, unusable=NO_BOOT_LOADER)


def _reader(source: Source, header: Qcow2Header) -> Callable[[int, int], bytes]:
    """Return a function that reads the disk inside; it raises `_NotSimple`."""
    cluster_bytes = 1 << header.cluster_bits
    l2_bits = header.cluster_bits - 3

    def cluster(index: int) -> int:
        """Return the offset of a cluster in the file, 0 if it is not stored."""
        l2_at = source.number(header.l1_at + 8 * (index >> l2_bits), 8, "big") & _OFFSET
        if not l2_at:
            return 0
        entry = source.number(l2_at + 8 * (index & ((1 << l2_bits) - 1)), 8, "big")
        if entry & _COMPRESSED:
            raise _NotSimple
        return 0 if entry & _ZERO else entry & _OFFSET

    def pread(length: int, offset: int) -> bytes:
        parts, end = [], offset + length
        while offset < end:
            index, within = divmod(offset, cluster_bytes)
            count = min(cluster_bytes - within, end - offset)
            at = cluster(index)
            part = source.read(at + within, count) if at else b""
            parts.append(part.ljust(count, b"\0"))
            offset += count
        return b"".join(parts)

    return pread

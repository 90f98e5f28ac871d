"""Recognises whole disks: does a BIOS find something to start on it, and whose disk is it.

Looks at the master boot record, at the partition table behind it and at the first bytes of each
partition, nothing more. `images.qcow2` gives the inside of a qcow2 file as a source for this.
"""

from dataclasses import dataclass

from images.facts import Architecture, Entry, Format, ImageFacts
from images.source import Source

SECTOR = 512
NO_BOOT_LOADER = "a disk without a boot loader; it can only be a guest's data disk"
_SIGNATURE_AT, _SIGNATURE = 510, b"\x55\xaa"
_BOOT_CODE_BYTES = 440
_TABLE_AT = 446
_GPT_MAGIC, _GPT_PROTECTION = b"EFI PART", 0xEE
_ISO_AT, _ISO_MAGIC = 0x8001, b"CD001"  # ECMA-119, 8.4.2
_NANOS_TYPE, _NANOS_MAGIC = 0x83, b"NVMTFS"  # nanovms/nanos src/fs/tlog.c
_OSV_AT, _OSV_SIGNATURE = 0x1B8, b"VSO\0"  # cloudius-systems/osv arch/x64/boot16.S
_EXT_AT, _EXT_MAGIC = 0x438, b"\x53\xef"  # Linux Documentation/filesystems/ext4/super.rst


@dataclass(frozen=True, slots=True)
class Partition:
    """An entry of the master boot record; start and end in bytes."""

    active: int
    kind: int
    start: int
    end: int


def disk_facts(source: Source) -> ImageFacts | None:
    """Return what a disk is, None if nothing shows that it is one."""
    if source.read(_ISO_AT, len(_ISO_MAGIC)) == _ISO_MAGIC:
        return ImageFacts(
            source.size,
            format=Format.DISK,
            evidence="ISO 9660 descriptor",
            unusable="a CD image, which no family starts; take the kernel and initrd out of it",
        )
    if source.read(_SIGNATURE_AT, 2) == _SIGNATURE:
        return _boot_disk(source)
    if source.read(_EXT_AT, 2) == _EXT_MAGIC:
        return ImageFacts(
            source.size,
            format=Format.DISK,
            evidence="ext2, ext3 or ext4 file system",
            unusable="a file system without a boot loader; it can only be a guest's data disk",
        )
    return None


def _boot_disk(source: Source) -> ImageFacts:
    partitions = _partitions(source)
    gpt = source.read(SECTOR, len(_GPT_MAGIC)) == _GPT_MAGIC or any(
        each.kind == _GPT_PROTECTION for each in partitions
    )
    bootable = any(source.read(0, _BOOT_CODE_BYTES))
    family, evidence = _owner(source, partitions)
    return ImageFacts(
        file_bytes=source.size,
        format=Format.DISK,
        architecture=Architecture.X86_64 if family else Architecture.X86,
        entries=frozenset({Entry.BIOS} if bootable else ()),
        family=family,
        evidence=evidence + (", GPT" if gpt else ""),
        warnings=tuple(_warnings(source, partitions, gpt=gpt)) if bootable else (),
        unusable="" if bootable else _why_not(gpt=gpt),
    )


def _partitions(source: Source) -> list[Partition]:
    return [
        Partition(
            active=source.number(at, 1),
            kind=source.number(at + 4, 1),
            start=source.number(at + 8, 4) * SECTOR,
            end=(source.number(at + 8, 4) + source.number(at + 12, 4)) * SECTOR,
        )
        for at in range(_TABLE_AT, _SIGNATURE_AT, 16)
        if any(source.read(at, 16))
    ]


def _owner(source: Source, partitions: list[Partition]) -> tuple[str, str]:
    """Return the family whose disk it is, if one of them marks its disks, and the evidence."""
    for each in partitions:
        if each.kind == _NANOS_TYPE and source.read(each.start, 6) == _NANOS_MAGIC:
            return "nanos", f"Nanos file system at byte {each.start:#x}"
    if source.read(_OSV_AT, len(_OSV_SIGNATURE)) == _OSV_SIGNATURE:
        return "osv", "boot sector of OSv"
    return "", "boot sector signature"


def _warnings(source: Source, partitions: list[Partition], *, gpt: bool) -> list[str]:
    if gpt:
        return ["a GPT disk: it starts only if it has a boot loader for BIOS beside that for EFI"]
    if any(each.active not in (0, 0x80) for each in partitions):
        return ["its partition table makes no sense; it may not be a whole disk"]
    end = max((each.end for each in partitions), default=0)
    if end > source.size:
        return [
            f"its partitions end at byte {end} and it has {source.size} bytes: it may be cut off"
        ]
    return []


def _why_not(*, gpt: bool) -> str:
    if gpt:
        return "a disk that only EFI firmware starts; install a boot loader for BIOS on it"
    return NO_BOOT_LOADER

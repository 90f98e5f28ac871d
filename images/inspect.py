"""What is this file? Just enough for the families there are: Linux kernels, PVH, initramfs.

Reads headers only, so it is cheap enough for the wake path, and believes nothing they say: every
offset is checked against what was really read. It knows nothing of families or hypervisors.
"""

import os
import struct
from enum import StrEnum
from pathlib import Path

from images.errors import ImageNotFound

HEAD_BYTES = 4096
MOST_NOTE_BYTES = 64 * 1024
MOST_PROGRAM_HEADERS = 128

_SETUP_MAGIC_AT = 0x202  # Linux Documentation/arch/x86/boot.rst, "The Real-Mode Kernel Header"
_PT_NOTE = 4
_PHYS32_ENTRY = 18  # XEN_ELFNOTE_PHYS32_ENTRY, xen/include/public/elfnote.h
_NEWC_MAGICS = (b"070701", b"070702")


class FileKind(StrEnum):
    """What a file's first bytes say that it is."""

    BZIMAGE = "Linux bzImage"
    PVH = "ELF with a PVH entry point"
    ELF = "ELF without a PVH entry point"
    GZIP = "gzip"
    CPIO = "cpio archive"
    UNKNOWN = "unknown"


def kind_of(path: Path) -> FileKind:
    """Return what kind of file this is; raises `ImageNotFound` if it cannot be read."""
    try:
        with path.open("rb") as file:
            head = os.pread(file.fileno(), HEAD_BYTES, 0)
            if head[:4] != b"\x7fELF":
                return kind_of_head(head)
            return FileKind.PVH if _has_pvh_note(file.fileno(), head) else FileKind.ELF
    except FileNotFoundError:
        raise ImageNotFound(f"{path}: no such file; build or copy the image there") from None
    except OSError as error:
        raise ImageNotFound(f"{path}: cannot be read: {error.strerror}") from error


def kind_of_head(head: bytes) -> FileKind:
    """Return what a file that is not ELF is, from its first 4096 bytes (or all, if shorter)."""
    if head[_SETUP_MAGIC_AT : _SETUP_MAGIC_AT + 4] == b"HdrS":
        return FileKind.BZIMAGE
    if head[:2] == b"\x1f\x8b":
        return FileKind.GZIP
    if head[:6] in _NEWC_MAGICS:
        return FileKind.CPIO
    return FileKind.UNKNOWN


def note_types(notes: bytes, owner: bytes) -> set[int]:
    """Return the types of an owner's notes in the contents of an ELF note segment."""
    types, at = set(), 0
    while at + 12 <= len(notes):
        name_size, data_size, kind = struct.unpack_from("<III", notes, at)
        name = notes[at + 12 : at + 12 + name_size]
        if name.rstrip(b"\0") == owner:
            types.add(kind)
        at += 12 + (name_size + 3) // 4 * 4 + (data_size + 3) // 4 * 4
    return types


def _has_pvh_note(fd: int, head: bytes) -> bool:
    """Return whether QEMU will boot this ELF: it looks in PT_NOTE segments only, not sections."""
    for offset, size in _note_segments(head):
        notes = os.pread(fd, min(size, MOST_NOTE_BYTES), offset)
        if _PHYS32_ENTRY in note_types(notes, b"Xen"):
            return True
    return False


def _note_segments(head: bytes) -> list[tuple[int, int]]:
    """Return (offset, size) of the note segments whose headers lie within `head`."""
    if len(head) < 64 or head[4] not in (1, 2) or head[5] != 1:
        return []
    wide = head[4] == 2
    table = struct.unpack_from("<Q", head, 32)[0] if wide else struct.unpack_from("<I", head, 28)[0]
    entry_size, count = struct.unpack_from("<HH", head, 54 if wide else 42)
    layout, size_at = ("<IIQQQQ", 5) if wide else ("<IIIII", 4)
    segments = []
    for index in range(min(count, MOST_PROGRAM_HEADERS)):
        at = table + index * entry_size
        if at + struct.calcsize(layout) > len(head):
            break
        fields = struct.unpack_from(layout, head, at)
        offset = fields[2] if wide else fields[1]
        if fields[0] == _PT_NOTE and offset < 1 << 62:
            segments.append((offset, fields[size_at]))
    return segments

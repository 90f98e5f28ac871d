"""What the notes of a Solo5 image say: the tender it was built for, the devices it insists on.

Solo5 include/elf_abi.h (`ABI1`) and include/mft_abi.h (`MFT1`). MirageOS images are Solo5 images.
"""

import struct
from collections.abc import Sequence
from dataclasses import dataclass

from images.elf import Note
from images.facts import Device, DeviceKind, Entry
from images.xen_notes import text

OWNER = b"Solo5"
ABI, MANIFEST = 0x31494241, 0x3154464D  # "ABI1", "MFT1"
MANIFEST_VERSION = 1
MOST_DEVICES = 64  # MFT_MAX_ENTRIES
TARGETS = {1: "hvt", 2: "spt", 3: "virtio", 4: "muen", 5: "genode", 6: "xen"}
TENDERS = {
    "hvt": Entry.HVT,
    "spt": Entry.SPT,
    "muen": Entry.MUEN,
    "genode": Entry.GENODE,
}

_DEVICES = {1: DeviceKind.BLOCK, 2: DeviceKind.NET}
_ENTRY = struct.Struct("<68sI32x")  # name, type, and 32 bytes that the tender fills in
_MANIFEST_HEADER = struct.Struct("<4xII")  # alignment, version, number of entries


@dataclass(frozen=True, slots=True)
class Solo5:
    """`target` is a tender's name, ``xen``, or a number in words if it is a new one."""

    target: str
    devices: tuple[Device, ...]
    warnings: tuple[str, ...]


def read(notes: Sequence[Note]) -> Solo5 | None:
    """Return what the notes say; None if this is no Solo5 image."""
    own = {note.kind: note.contents for note in reversed(notes) if note.owner == OWNER}
    if ABI not in own:
        return None
    number = int.from_bytes(own[ABI][:4], "little")
    devices, warnings = _manifest(own.get(MANIFEST, b""))
    return Solo5(TARGETS.get(number, f"number {number}"), devices, warnings)


def _manifest(raw: bytes) -> tuple[tuple[Device, ...], tuple[str, ...]]:
    damaged = ("its Solo5 manifest is damaged: the devices it insists on are not known",)
    if len(raw) < _MANIFEST_HEADER.size:
        return (), ("it has no Solo5 manifest: the devices it insists on are not known",)
    version, count = _MANIFEST_HEADER.unpack_from(raw)
    if version != MANIFEST_VERSION or count > MOST_DEVICES:
        return (), damaged
    table = raw[_MANIFEST_HEADER.size : _MANIFEST_HEADER.size + count * _ENTRY.size]
    if len(table) < count * _ENTRY.size:
        return (), damaged
    rows = _ENTRY.iter_unpack(table)
    return tuple(Device(_DEVICES[kind], text(name)) for name, kind in rows if kind in _DEVICES), ()

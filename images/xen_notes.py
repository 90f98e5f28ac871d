"""What an ELF file tells Xen's domain builder: whether it boots as PV or PVH, and its name.

Reads as Xen does (xen/common/libelf/libelf-dominfo.c, `elf_xen_parse`): notes of the segments; if
none of them is Xen's, notes of the sections; else, for PV only, the string in `__xen_guest`. QEMU
reads the notes of the segments only, so a PVH entry that only the sections show is Xen's alone.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from images.elf import Elf, Note
from images.source import Source

OWNER = b"Xen"
SECTION = b"__xen_guest"
MOST_STRING_BYTES = 4096

# xen/include/public/elfnote.h
ENTRY, HYPERCALL_PAGE, VIRT_BASE, XEN_VERSION, GUEST_OS, LOADER = 1, 2, 3, 5, 6, 8
PHYS32_ENTRY = 18
_ONE_OF_PV = {XEN_VERSION, LOADER, HYPERCALL_PAGE}
_PV_BESIDE_PVH = {ENTRY, VIRT_BASE}  # a kernel made for PVH only still names its Xen version


@dataclass(frozen=True, slots=True)
class XenNotes:
    """What Xen reads. `found_in` says where it was, empty if nowhere.

    `pvh_for_qemu` is whether the PVH entry is where QEMU looks, too; `kinds` are the note types.
    """

    found_in: str = ""
    pv: bool = False
    pvh: bool = False
    pvh_for_qemu: bool = False
    guest_os: str = ""
    kinds: tuple[int, ...] = ()


def read(
    source: Source, elf: Elf, segment_notes: Sequence[Note], section_notes: Sequence[Note]
) -> XenNotes:
    """Return what Xen makes of the file."""
    for notes, where in ((segment_notes, "PT_NOTE"), (section_notes, "SHT_NOTE")):
        own = [note for note in notes if note.owner == OWNER]
        if own:
            return _by_notes(own, where)
    return _by_string(source, elf)


def _by_notes(notes: list[Note], where: str) -> XenNotes:
    kinds = {note.kind for note in notes}
    pvh = any(note.kind == PHYS32_ENTRY and len(note.contents) in (4, 8) for note in notes)
    names = [text(note.contents) for note in notes if note.kind == GUEST_OS]
    return XenNotes(
        found_in=where,
        pv=bool(kinds & _ONE_OF_PV) and (not pvh or bool(kinds & _PV_BESIDE_PVH)),
        pvh=pvh,
        pvh_for_qemu=pvh and where == "PT_NOTE",
        guest_os=names[0] if names else "",
        kinds=tuple(sorted(note.kind for note in notes)),
    )


def _by_string(source: Source, elf: Elf) -> XenNotes:
    section = elf.section(SECTION)
    if section is None:
        return XenNotes()
    words = text(source.read(section.offset, min(section.size, MOST_STRING_BYTES))).split(",")
    values = {key: value for key, _, value in (word.partition("=") for word in words)}
    generic = values.get("LOADER", "").startswith("generic")
    version = values.get("XEN_VER", "").startswith("xen-3.0")
    return XenNotes(SECTION.decode(), pv=generic and version, guest_os=values.get("GUEST_OS", ""))


def text(raw: bytes, most: int = MOST_STRING_BYTES) -> str:
    """Return a NUL-terminated string as printable text, whatever its bytes."""
    line = raw[:most].partition(b"\0")[0].decode("ascii", errors="replace")
    return "".join(char if char.isprintable() else "\N{REPLACEMENT CHARACTER}" for char in line)

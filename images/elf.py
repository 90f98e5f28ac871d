"""Reads ELF files that nobody vouches for: header, segments, sections and notes, all bounded.

Both word sizes and both byte orders, after the System V ABI (gABI, "Object Files"). Tables and
areas that are larger than any kernel's are read in part; an offset outside the file gives nothing.
What the contents mean is for others (`images.xen_notes`, `images.solo5`, `images.marks`).
"""

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice

from images.source import ByteOrder, Source

MAGIC = b"\x7fELF"
MACHINE_386, MACHINE_X86_64 = 3, 62
RELOCATABLE, EXECUTABLE, SHARED, CORE = 1, 2, 3, 4  # e_type
LOAD, INTERPRETER, NOTE = 1, 3, 4  # p_type
SECTION_STRINGS, SECTION_NOTE = 3, 7  # sh_type

# More than any image seen has: Linux 5 segments, 39 sections, 0.5 kB of notes.
MOST_SEGMENTS = 256
MOST_SECTIONS = 4096
MOST_NAMES_BYTES = 256 * 1024
MOST_NAME_BYTES = 128
MOST_NOTE_BYTES = 256 * 1024
MOST_NOTES = 256
_NOTE_HEADER = 12


@dataclass(frozen=True, slots=True)
class Segment:
    """A program header: `kind` is p_type; sizes and offsets in bytes."""

    kind: int
    offset: int
    address: int
    physical: int
    file_size: int
    memory_size: int

    @property
    def file_end(self) -> int:
        """The offset behind its last byte in the file."""
        return self.offset + self.file_size


@dataclass(frozen=True, slots=True)
class Section:
    """A section header: `kind` is sh_type."""

    name: bytes
    kind: int
    offset: int
    size: int


@dataclass(frozen=True, slots=True)
class Note:
    """A note: who defined its meaning, which of theirs it is, and its contents."""

    owner: bytes
    kind: int
    contents: bytes


@dataclass(frozen=True, slots=True)
class Elf:
    """What the headers of an ELF file say. `sections_end` is where its section headers end."""

    bits: int
    order: ByteOrder
    machine: int
    kind: int
    segments: tuple[Segment, ...]
    sections: tuple[Section, ...]
    sections_end: int

    @property
    def loads(self) -> tuple[Segment, ...]:
        """The segments that are put into memory."""
        return tuple(each for each in self.segments if each.kind == LOAD)

    @property
    def file_end(self) -> int:
        """The least size of a file that holds all that is put into memory, in bytes."""
        return max((each.file_end for each in self.loads if each.file_size), default=0)

    @property
    def loaded_bytes(self) -> int:
        """The memory that the segments span, from the first byte to the last."""
        loads = [each for each in self.loads if each.memory_size]
        if not loads:
            return 0
        ends = [each.physical + each.memory_size for each in loads]
        return max(ends) - min(each.physical for each in loads)

    @property
    def section_names(self) -> frozenset[bytes]:
        """The names of the sections."""
        return frozenset(each.name for each in self.sections)

    def section(self, name: bytes) -> Section | None:
        """Return the first section of that name."""
        return next((each for each in self.sections if each.name == name), None)


@dataclass(frozen=True, slots=True)
class _Layout:
    """Where the fields of one word size are, with `struct` formats lacking the byte order."""

    header: str  # e_type e_machine . . e_phoff e_shoff . . e_phentsize e_phnum ...
    segment: str
    segment_fields: tuple[int, ...]  # p_type p_offset p_vaddr p_paddr p_filesz p_memsz
    section: str  # sh_name sh_type . . sh_offset sh_size


@dataclass(frozen=True, slots=True)
class _Table:
    """Where the header says that a table is: offset, size of a row in bytes, number of rows."""

    at: int
    size: int
    count: int


_LAYOUTS = {
    1: _Layout("HHIIIIIHHHHHH", "IIIIIIII", (0, 1, 2, 3, 4, 5), "IIIIII16x"),
    2: _Layout("HHIQQQIHHHHHH", "IIQQQQQQ", (0, 2, 3, 4, 5, 6), "IIQQQQ24x"),
}


def parse(source: Source) -> Elf | None:
    """Return what the headers say, or None if there is no whole ELF header."""
    ident = source.read(0, 16)
    if ident[:4] != MAGIC or len(ident) < 16 or ident[4] not in _LAYOUTS or ident[5] not in (1, 2):
        return None
    layout, sign = _LAYOUTS[ident[4]], "<" if ident[5] == 1 else ">"
    raw = source.read(16, struct.calcsize("<" + layout.header))
    if len(raw) < struct.calcsize("<" + layout.header):
        return None
    kind, machine, _, _, segments_at, sections_at, _, _, *sizes = struct.unpack(
        sign + layout.header, raw
    )
    segments = _Table(segments_at, size=sizes[0], count=sizes[1])
    sections = _Table(sections_at, size=sizes[2], count=sizes[3])
    return Elf(
        bits=32 * ident[4],
        order="little" if ident[5] == 1 else "big",
        machine=machine,
        kind=kind,
        segments=_segments(source, segments, sign + layout.segment, layout.segment_fields),
        sections=_sections(source, sections, sign + layout.section, names_index=sizes[4]),
        sections_end=sections.at + sections.size * sections.count,
    )


def _rows(source: Source, table: _Table, layout: str, most: int) -> list[tuple[int, ...]]:
    """Return the rows of a table that are all there; none if their size is not the ABI's."""
    if table.size != struct.calcsize(layout):
        return []
    raw = source.read(table.at, table.size * min(table.count, most))
    return list(struct.iter_unpack(layout, raw[: len(raw) // table.size * table.size]))


def _segments(
    source: Source, table: _Table, layout: str, fields: tuple[int, ...]
) -> tuple[Segment, ...]:
    rows = _rows(source, table, layout, MOST_SEGMENTS)
    return tuple(Segment(*(row[field] for field in fields)) for row in rows)


def _sections(source: Source, table: _Table, layout: str, names_index: int) -> tuple[Section, ...]:
    rows = _rows(source, table, layout, MOST_SECTIONS)
    names = b""
    if names_index < len(rows):
        *_, names_at, names_size = rows[names_index]
        names = source.read(names_at, min(names_size, MOST_NAMES_BYTES))
    return tuple(
        Section(_name(names, row[0]), kind=row[1], offset=row[4], size=row[5]) for row in rows
    )


def _name(names: bytes, at: int) -> bytes:
    return names[at : at + MOST_NAME_BYTES].partition(b"\0")[0]


def segment_notes(source: Source, elf: Elf) -> tuple[Note, ...]:
    """Return the notes that the program headers show."""
    areas = [(each.offset, each.file_size) for each in elf.segments if each.kind == NOTE]
    return _notes(source, elf, areas)


def section_notes(source: Source, elf: Elf) -> tuple[Note, ...]:
    """Return the notes that the section headers show."""
    areas = [(each.offset, each.size) for each in elf.sections if each.kind == SECTION_NOTE]
    return _notes(source, elf, areas)


def _notes(source: Source, elf: Elf, areas: list[tuple[int, int]]) -> tuple[Note, ...]:
    found: list[Note] = []
    left = min(MOST_NOTE_BYTES, source.size)  # areas may lie on one another
    for offset, size in areas:
        area = source.read(offset, min(size, left))
        left -= len(area)
        found += islice(notes_in(area, elf.order), MOST_NOTES - len(found))
    return tuple(found)


def notes_in(area: bytes, order: ByteOrder = "little") -> Iterator[Note]:
    """Yield the notes of an area, up to the first one that is not all there.

    Names and contents are padded to 4 bytes, as Xen and Solo5 read them whatever the alignment of
    the segment says.
    """
    layout, at = "<III" if order == "little" else ">III", 0
    while at + _NOTE_HEADER <= len(area):
        name_size, size, kind = struct.unpack_from(layout, area, at)
        contents_at = at + _NOTE_HEADER + (name_size + 3) // 4 * 4
        if contents_at + size > len(area):
            return
        name = area[at + _NOTE_HEADER : at + _NOTE_HEADER + name_size]
        yield Note(name.rstrip(b"\0"), kind, area[contents_at : contents_at + size])
        at = contents_at + (size + 3) // 4 * 4

"""Finds multiboot headers, also in files without an ELF header, and says what QEMU makes of them.

Multiboot 1 after the GNU Multiboot Specification 0.6.96, with the limits of QEMU's loader
(hw/i386/multiboot.c), which is the one that counts here; of multiboot 2 only that it is there.
"""

import struct
from dataclasses import dataclass

from images.facts import Architecture, Entry, ImageFacts
from images.source import Source

MAGIC, MAGIC_2 = 0x1BADB002, 0xE85250D6
SEARCHED_BYTES = 8192 - 48  # QEMU looks no further for the first byte of the header
SEARCHED_BYTES_2 = 32768
HAS_ADDRESSES = 0x10000
_MODULO = 1 << 32


@dataclass(frozen=True, slots=True)
class Multiboot:
    """A multiboot 1 header: where it is in the file, its flags and its address fields (or 0)."""

    offset: int
    flags: int
    header_address: int = 0
    load_address: int = 0
    load_end: int = 0
    bss_end: int = 0

    @property
    def has_addresses(self) -> bool:
        """Whether the loader is to use the address fields rather than the ELF headers."""
        return bool(self.flags & HAS_ADDRESSES)

    @property
    def file_start(self) -> int:
        """The offset of the first byte that is loaded, by the address fields."""
        return self.offset - (self.header_address - self.load_address)

    @property
    def file_end(self) -> int:
        """How many bytes the file must have for the address fields; 0 if they do not say."""
        if not self.has_addresses or not self.load_end or self.mistake:
            return 0
        return self.file_start + self.load_end - self.load_address

    @property
    def loaded_bytes(self) -> int:
        """The memory that the address fields claim, in bytes; 0 if they do not say."""
        end = self.bss_end or self.load_end
        return max(end - self.load_address, 0) if self.has_addresses and end else 0

    @property
    def mistake(self) -> str:
        """Why QEMU will refuse the address fields, as a clause, or nothing."""
        if not self.has_addresses:
            return ""
        if self.header_address < self.load_address or self.file_start < 0:
            return "its multiboot header_addr and load_addr contradict where the header is"
        if self.load_end and self.load_end < self.load_address:
            return "its multiboot load_end_addr is below its load_addr"
        if self.bss_end and self.bss_end < self.load_end:
            return "its multiboot bss_end_addr is below its load_end_addr"
        return ""


def find(source: Source) -> Multiboot | None:
    """Return the first multiboot 1 header where QEMU looks for it."""
    head = source.read(0, SEARCHED_BYTES + 48).ljust(SEARCHED_BYTES + 48, b"\0")
    for at in _aligned(head[: SEARCHED_BYTES + 3], MAGIC, 4):
        magic, flags, checksum, *addresses = struct.unpack_from("<IIIIIII", head, at)
        if (magic + flags + checksum) % _MODULO == 0:
            return Multiboot(at, flags, *(addresses if flags & HAS_ADDRESSES else ()))
    return None


def has_multiboot2(source: Source) -> bool:
    """Return whether there is a multiboot 2 header."""
    head = source.read(0, SEARCHED_BYTES_2)
    return any(
        at + 16 <= len(head) and sum(struct.unpack_from("<IIII", head, at)) % _MODULO == 0
        for at in _aligned(head, MAGIC_2, 8)
    )


def flat_facts(source: Source) -> ImageFacts | None:
    """Return what a file is that only a multiboot header with address fields explains."""
    header = find(source)
    if header is None or not header.has_addresses or header.mistake:
        return None
    end, size = header.file_end, source.size
    return ImageFacts(
        file_bytes=size,
        architecture=Architecture.X86,
        bits=32,
        entries=frozenset({Entry.MULTIBOOT}),
        evidence="multiboot header in a file that is not ELF",
        least_file_bytes=end,
        loaded_bytes=header.loaded_bytes,
        warnings=(too_short(header, size),) if end > size else (),
    )


def too_short(header: Multiboot, size: int) -> str:
    """Return a warning that a file of so many bytes is shorter than its address fields say."""
    return (
        f"QEMU will read {header.file_end} bytes of it and it has {size}: it was stripped or cut "
        f"off; pad a copy with zeros (truncate --size={header.file_end} COPY)"
    )


def _aligned(head: bytes, magic: int, alignment: int) -> list[int]:
    """Return the aligned offsets at which a magic number stands."""
    mark, found, at = magic.to_bytes(4, "little"), [], -1
    while (at := head.find(mark, at + 1)) >= 0:
        if at % alignment == 0:
            found.append(at)
    return found

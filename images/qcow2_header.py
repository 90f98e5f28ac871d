"""The header of a qcow2 disk, read without trust: shared by all who must know what a file leans on.

After QEMU docs/interop/qcow2.txt, "Header". Only the fields that matter here are named.
"""

from dataclasses import dataclass

MAGIC = b"QFI\xfb"
HEADER_BYTES = 104  # of version 3; version 2 has the first `LEAST_BYTES`
LEAST_BYTES = 72
MOST_NAME_BYTES = 1023  # of a backing file's name
EXTERNAL_DATA = 1 << 2  # incompatible feature: the data are in another file
EXTENDED_L2 = 1 << 4  # incompatible feature: an entry of an L2 table has 16 bytes, not 8
MOST_L1_BYTES = 32 * 2**20  # QEMU opens no disk with more (block/qcow2.h, QCOW_MAX_L1_SIZE)
CLUSTER_BITS = range(9, 22)


class NotQcow2(ValueError):  # noqa: N818 - reads as a sentence where it is raised
    """The file does not begin as a qcow2 file does."""


@dataclass(frozen=True, slots=True)
class Qcow2Header:
    """Offsets and lengths are in bytes; `features` are the incompatible ones, 0 in version 2."""

    version: int
    backing_at: int
    backing_length: int
    cluster_bits: int
    virtual_size: int
    encryption: int
    l1_entries: int
    l1_at: int
    features: int

    @property
    def has_external_data(self) -> bool:
        """Whether the disk's data are in another file."""
        return bool(self.features & EXTERNAL_DATA)

    @property
    def objection(self) -> str:
        """Why QEMU would not open it, or would need too much memory for it; empty if it would."""
        if self.version not in (2, 3) or self.cluster_bits not in CLUSTER_BITS:
            return f"a damaged qcow2 header, or version {self.version}, which is not known"
        l2_entry = 16 if self.features & EXTENDED_L2 else 8
        mapped = 2 ** (2 * self.cluster_bits) // l2_entry  # bytes of disk, by one entry of L1
        if 8 * max(self.l1_entries, -(-self.virtual_size // mapped)) > MOST_L1_BYTES:
            return f"a qcow2 header of a disk too large for QEMU: {self.virtual_size} bytes"
        if self.l1_entries * mapped < self.virtual_size:
            return "a damaged qcow2 header: its L1 table is too small for its disk"
        return ""


def qcow2_header(head: bytes) -> Qcow2Header:
    """Return the header at the beginning of a file; `NotQcow2` if the magic number is not there.

    A header that is cut off reads as if zeros followed.
    """
    if not head.startswith(MAGIC):
        raise NotQcow2("it does not begin as a qcow2 file does")
    head = head[:HEADER_BYTES].ljust(HEADER_BYTES, b"\0")

    def number(at: int, size: int) -> int:
        return int.from_bytes(head[at : at + size], "big")

    version = number(4, 4)
    return Qcow2Header(
        version=version,
        backing_at=number(8, 8),
        backing_length=number(16, 4),
        cluster_bits=number(20, 4),
        virtual_size=number(24, 8),
        encryption=number(32, 4),
        l1_entries=number(36, 4),
        l1_at=number(40, 8),
        features=number(72, 8) if version >= 3 else 0,
    )

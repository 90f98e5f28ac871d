"""The header of a qcow2 disk, read without trust: shared by all who must know what a file leans on.

After QEMU docs/interop/qcow2.txt, "Header". Only the fields that matter here are named.
"""

from dataclasses import dataclass

MAGIC = b"QFI\xfb"
HEADER_BYTES = 104  # of version 3; version 2 has the first `LEAST_BYTES`
LEAST_BYTES = 72
MOST_NAME_BYTES = 1023  # of a backing file's name
EXTERNAL_DATA = 1 << 2  # incompatible feature: the data are in another file


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
    l1_at: int
    features: int

    @property
    def has_external_data(self) -> bool:
        """Whether the disk's data are in another file."""
        return bool(self.features & EXTERNAL_DATA)


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
        l1_at=number(40, 8),
        features=number(72, 8) if version >= 3 else 0,
    )

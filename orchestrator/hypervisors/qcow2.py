"""As much of the qcow2 disk format as overlays need: write an empty one, read what a disk leans on.

The format is QEMU's docs/interop/qcow2.txt. An overlay is written here and not by ``qemu-img``, so
that a host needs no such tool, and a boot need not wait for it.
"""

import struct
from pathlib import Path

from images.qcow2_header import (
    HEADER_BYTES,
    LEAST_BYTES,
    MAGIC,
    MOST_L1_BYTES,
    MOST_NAME_BYTES,
    NotQcow2,
    Qcow2Header,
    qcow2_header,
)
from orchestrator.hypervisors.sparse import file_size

FORMATS = ("raw", "qcow2")
SECTOR = 512  # bytes; the size of a disk is a multiple of it

_CLUSTER_BITS = 16
_CLUSTER = 1 << _CLUSTER_BITS
_DATA_PER_ENTRY = _CLUSTER * (_CLUSTER // 8)  # bytes of disk that one entry of the L1 table maps
_MOST_BYTES = MOST_L1_BYTES // 8 * _DATA_PER_ENTRY
_BACKING_FORMAT = 0xE2792ACA  # type of the header extension that names the backing file's format
_REFCOUNT_ORDER = 4  # reference counts of 2^4 bits

# Magic, version, backing file's offset and length, cluster bits, size of the disk, encryption, L1
# entries and offset, refcount table's offset and clusters, snapshots and their offset.
_V2 = struct.Struct(">4sIQIIQIIQQIIQ")
# Incompatible, compatible and autoclear features, refcount order, length of the header.
_V3 = struct.Struct(">QQQII")
_EXTENSION = struct.Struct(">II")  # type, length; the data follow, padded to 8 bytes


def empty_overlay(backing: str, backing_format: str, size: int) -> tuple[bytes, ...]:
    """Return a qcow2 file of `size` bytes of disk that shows `backing` wherever it was not written.

    It comes in pieces of a cluster, those of the empty L1 table one and the same. `backing` is an
    absolute path on the host that will use it. Its format is stated, so that nothing has to guess
    it from what a guest may have written. ValueError, a sentence, if path or disk are too long.
    """
    name = backing.encode()
    if len(name) > MOST_NAME_BYTES:
        raise ValueError(
            f"{backing} is longer than the {MOST_NAME_BYTES} bytes that an overlay has for it; "
            "move the image to a shorter path"
        )
    if size > _MOST_BYTES:
        raise ValueError(
            f"{backing} is a disk of {size} bytes, and an overlay has {_MOST_BYTES} at most; "
            "make it smaller, or read-only"
        )
    entries = -(-size // _DATA_PER_ENTRY)
    l1_clusters = max(1, -(-entries * 8 // _CLUSTER))
    header_length = _V2.size + _V3.size
    extensions = _extension(_BACKING_FORMAT, backing_format.encode()) + _extension(0, b"")
    header = _V2.pack(
        MAGIC,
        3,
        header_length + len(extensions),
        len(name),
        _CLUSTER_BITS,
        -(-size // SECTOR) * SECTOR,
        0,
        entries,
        3 * _CLUSTER,
        _CLUSTER,
        1,
        0,
        0,
    )
    header += _V3.pack(0, 0, 0, _REFCOUNT_ORDER, header_length) + extensions + name
    refcounts = struct.pack(">H", 1) * (3 + l1_clusters)
    parts = (header, struct.pack(">Q", 2 * _CLUSTER), refcounts)
    return (*(part.ljust(_CLUSTER, b"\0") for part in parts), *(bytes(_CLUSTER),) * l1_clusters)


def disk_size(path: Path, disk_format: str) -> int:
    """Return the size in bytes of the disk in a file. OSError; `NotQcow2`."""
    if disk_format == "raw":
        return file_size(path)
    return _header(path).virtual_size


def leans_on(path: Path) -> str:
    """Return what other file a qcow2 file needs, in words; empty if none. OSError; `NotQcow2`."""
    header = _header(path)
    if header.backing_at:
        with path.open("rb") as file:
            file.seek(header.backing_at)
            name = file.read(min(header.backing_length, MOST_NAME_BYTES))
            return f"backing file {name.decode(errors='replace')}"
    return "an external data file" if header.has_external_data else ""


def _header(path: Path) -> Qcow2Header:
    with path.open("rb") as file:
        head = file.read(HEADER_BYTES)
    if len(head) < LEAST_BYTES:
        raise NotQcow2(f"{path} is not a qcow2 file")
    try:
        header = qcow2_header(head)
    except NotQcow2:
        raise NotQcow2(f"{path} is not a qcow2 file") from None
    if header.objection:
        raise NotQcow2(f"{path} has {header.objection}")
    return header


def _extension(kind: int, data: bytes) -> bytes:
    return _EXTENSION.pack(kind, len(data)) + data.ljust(-(-len(data) // 8) * 8, b"\0")

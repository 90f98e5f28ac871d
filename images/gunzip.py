"""Unpacks gzip as far as there is reason to, so that a small file cannot fill the memory."""

import zlib
from dataclasses import dataclass

from images.source import Source

MAGIC = b"\x1f\x8b"
_CHUNK_BYTES = 64 * 1024
_GZIP_ONLY = 31  # zlib's window bits for a gzip header and the largest window


@dataclass(frozen=True, slots=True)
class Unpacked:
    """The beginning of what was packed; `complete` if that is all of it and its checksum holds.

    `damage` says in a clause what is wrong with the packed data as far as they were read.
    """

    data: bytearray
    complete: bool = False
    damage: str = ""


def gunzip(source: Source, most: int) -> Unpacked:
    """Return at most `most` bytes of what a gzip file holds (its first member)."""
    engine = zlib.decompressobj(_GZIP_ONLY)
    data, packed, at = bytearray(), b"", 0
    try:
        while not engine.eof and len(data) < most:
            if not packed:
                packed = source.read(at, _CHUNK_BYTES)
                at += len(packed)
            room = min(most - len(data), _CHUNK_BYTES)
            piece = engine.decompress(packed, room)
            if not packed and not piece:
                return Unpacked(data, damage="its gzip data end too early; copy it again")
            data += piece
            packed = engine.unconsumed_tail
    except zlib.error as error:
        return Unpacked(data, damage=f"its gzip data are damaged ({error}); copy it again")
    return Unpacked(data, complete=engine.eof)

"""Random access to the bytes of an image, for parsers that must believe nothing they read.

A `Source` gives what lies within the image and nothing else: a read beyond the end is short or
empty, a number that is not all there is 0, and nothing raises for any offset or length. It reads by
`pread` rather than `mmap`, because a file that another program cuts short meanwhile would end this
process with SIGBUS. It counts what it was asked for, so that tests can hold the work against the
size of the file.
"""

import os
from collections.abc import Callable
from typing import Literal, Self

HEAD_BYTES = 64 * 1024  # read once: most of what is looked at lies in there
_CHUNK_BYTES = 256 * 1024

ByteOrder = Literal["little", "big"]


class Source:
    """`size` bytes, read through `pread(length, offset)`, which may return less than asked."""

    def __init__(self, size: int, pread: Callable[[int, int], bytes]) -> None:
        self.size = size
        self.reads = 0
        self.bytes_read = 0
        self._pread = pread
        self._head = b""
        self._head = self.read(0, HEAD_BYTES)

    @classmethod
    def of_bytes(cls, data: bytes | bytearray | memoryview) -> Self:
        """Return a source over bytes in memory, which are not copied."""
        view = memoryview(data).cast("B")
        return cls(len(view), lambda length, offset: bytes(view[offset : offset + length]))

    @classmethod
    def of_file(cls, descriptor: int, size: int) -> Self:
        """Return a source over an open file; reading raises OSError as `os.pread` does."""
        return cls(size, lambda length, offset: os.pread(descriptor, length, offset))

    def read(self, offset: int, length: int) -> bytes:
        """Return the bytes from `offset` on: `length` of them, or those that exist."""
        length = min(length, self.size - offset)
        if offset < 0 or length <= 0:
            return b""
        self.reads += 1
        self.bytes_read += length
        if offset + length <= len(self._head):
            return self._head[offset : offset + length]
        return self._pread(length, offset)

    def number(self, offset: int, size: int, order: ByteOrder = "little") -> int:
        """Return the unsigned number of `size` bytes at `offset`, or 0 if it is not all there."""
        data = self.read(offset, size)
        return int.from_bytes(data, order) if len(data) == size else 0

    def find(self, marks: tuple[bytes, ...], offset: int, length: int) -> bytes | None:
        """Return the first of `marks` found in a stretch of the image, None if there is none.

        It is searched piece by piece; the marks are tried in their order within each piece.
        """
        overlap = max(map(len, marks)) - 1
        end = min(offset + length, self.size)
        while offset < end:
            piece = self.read(offset, min(_CHUNK_BYTES + overlap, end - offset))
            for mark in marks:
                if mark in piece:
                    return mark
            offset += _CHUNK_BYTES
        return None

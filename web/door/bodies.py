"""Bodies of requests, read whole, and in one way only (RFC 9112, 7.1 and 8).

A body that breaks off is no shorter body: half a lab file would be another lab. Sizes of chunks are
read as strictly as headers, so that nobody in front of us sees other requests than we do.
"""

import re
from typing import BinaryIO

LARGEST = 4 << 20  # bytes
LONGEST_LINE = 4096  # bytes: a chunk's size with its extensions, or a trailer
MOST_TRAILERS = 100
SIZE = re.compile(rb"([0-9A-Fa-f]{1,8})[ \t]*(?:;[^\r\n]*)?\r\n")


class Refused(Exception):  # noqa: N818 - reads as a sentence where it is raised
    """A body that cannot be taken for what it says it is; `status` is what to answer."""

    def __init__(self, why: str, status: str = "400 Bad Request") -> None:
        super().__init__(why)
        self.status = status


def read_counted(file: BinaryIO, length: int) -> bytes:
    """Return a body of so many bytes. Raises `Refused` if there are fewer."""
    body = file.read(length)
    if len(body) < length:
        raise Refused("The body is shorter than its Content-Length.")
    return body


def read_chunked(file: BinaryIO) -> bytes:
    """Return a body that comes in chunks; trailers are read and let go. Raises `Refused`."""
    body = bytearray()
    while size := _size(file):
        if len(body) + size > LARGEST:
            raise Refused("The body is too large.", "413 Request Entity Too Large")
        chunk = file.read(size + 2)
        if len(chunk) < size + 2 or not chunk.endswith(b"\r\n"):
            raise Refused("A chunk that is not as long as it says.")
        body += chunk[:-2]
    for _ in range(MOST_TRAILERS):
        line = file.readline(LONGEST_LINE)
        if line == b"\r\n":
            return bytes(body)
        if not line.endswith(b"\r\n"):
            break
    raise Refused("The chunks have no end.")


def _size(file: BinaryIO) -> int:
    line = SIZE.fullmatch(file.readline(LONGEST_LINE))
    if line is None:
        raise Refused("A chunk without a size.")
    return int(line[1], 16)

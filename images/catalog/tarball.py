"""Reads tar archives without trust: where each file's bytes are, and nothing more.

Nothing is unpacked by name and nothing is read into memory that a header claims. Links, devices,
sparse files, absolute names, names with ``..``, a name that comes twice and anything after the
stated limits refuse the whole archive. (The ``data`` filter of `tarfile` guards what is written,
not how much is read: an extended header of 10 GB would still be read as one piece.) POSIX
pax and GNU headers are understood as far as the OCI tools write them (POSIX.1-2017, pax).
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO

from images.errors import ImageRefused

BLOCK = 512
MOST_MEMBERS = 10_000
MOST_EXTENDED = 64 * 1024  # bytes of an extended header
LONGEST_NAME = 1024

_REGULAR = (b"0", b"\0")
_FOLDER = b"5"
_PAX, _PAX_GLOBAL, _GNU_NAME = b"x", b"g", b"L"


@dataclass(frozen=True, slots=True)
class Member:
    """A regular file in an archive: its name, and where its bytes are in the archive."""

    name: str
    offset: int
    size: int


class Slice:
    """The bytes of one member, to be read in order."""

    def __init__(self, file: BinaryIO, member: Member) -> None:
        self._file = file
        self._at = member.offset
        self._left = member.size

    def read(self, size: int, /) -> bytes:
        """Return the next bytes, at most so many."""
        self._file.seek(self._at)
        data = self._file.read(min(size, self._left))
        self._at += len(data)
        self._left -= len(data)
        return data


def is_tar(file: BinaryIO) -> bool:
    """Return whether a file begins with a tar header; its position is then 0 again."""
    file.seek(0)
    head = file.read(BLOCK)
    file.seek(0)
    return len(head) == BLOCK and head[257:262] == b"ustar" and _sum_is_right(head)


def members(file: BinaryIO, where: str) -> dict[str, Member]:
    """Return the regular files of an archive by name; ImageRefused if it has anything odd."""
    found: dict[str, Member] = {}
    for member in _members(file, where):
        if member.name in found:
            raise ImageRefused(f"{where}: {member.name!r} is in there twice")
        found[member.name] = member
    return found


def _members(file: BinaryIO, where: str) -> Iterator[Member]:
    end = file.seek(0, 2)
    at = count = 0
    said: dict[str, str] = {}
    while head := _header(file, at, where):
        count += 1
        if count > MOST_MEMBERS:
            raise ImageRefused(f"{where}: more than {MOST_MEMBERS} members")
        kind = head[156:157]
        extended = kind in {_PAX, _PAX_GLOBAL, _GNU_NAME}
        size = _number(head[124:136], where)
        if not extended:
            size = _pax_size(said, size, where)
        data = at + BLOCK
        if data + size > end:
            raise ImageRefused(f"{where}: truncated")
        at = data + -(-size // BLOCK) * BLOCK
        if extended:
            said |= _extended(file, kind, data, size, where)
            continue
        name = _checked_name(said.get("path") or _name(head, where), where)
        said = {}
        if kind in _REGULAR:
            yield Member(name, data, size)
        elif kind != _FOLDER or size:
            raise ImageRefused(f"{where}: {name!r} is neither a file nor a folder")


def _header(file: BinaryIO, at: int, where: str) -> bytes:
    """Return the header at a place, or nothing at the end of the archive."""
    file.seek(at)
    head = file.read(BLOCK)
    if not head.strip(b"\0"):
        return b""
    if len(head) < BLOCK or head[257:262] != b"ustar" or not _sum_is_right(head):
        raise ImageRefused(f"{where}: not a tar archive from byte {at} on")
    return head


def _sum_is_right(head: bytes) -> bool:
    digits = head[148:156].strip(b" \0")
    right = sum(head[:148]) + sum(head[156:]) + 8 * ord(" ")
    return bool(digits) and not digits.strip(b"01234567") and int(digits, 8) == right


def _number(raw: bytes, where: str) -> int:
    """Return a number: octal digits, or base 256 when the first byte says so (GNU)."""
    if raw[0] == 0x80:
        return int.from_bytes(raw[1:], "big")
    digits = raw.strip(b" \0") or b"0"
    if digits.strip(b"01234567"):
        raise ImageRefused(f"{where}: a header has the size {raw!r}")
    return int(digits, 8)


def _name(head: bytes, where: str) -> str:
    name = head[:100].partition(b"\0")[0]
    if head[257:263] == b"ustar\0" and (prefix := head[345:500].partition(b"\0")[0]):
        name = prefix + b"/" + name
    return _decoded(name, where)


def _checked_name(name: str, where: str) -> str:
    parts = [part for part in name.split("/") if part not in {"", "."}]
    if name.startswith("/") or ".." in parts or len(name) > LONGEST_NAME:
        raise ImageRefused(f"{where}: {name[:100]!r} is no name that a file may have in there")
    return "/".join(parts)


def _extended(file: BinaryIO, kind: bytes, at: int, size: int, where: str) -> dict[str, str]:
    if size > MOST_EXTENDED:
        raise ImageRefused(f"{where}: an extended header of {size} bytes")
    file.seek(at)
    data = file.read(size)
    if kind == _GNU_NAME:
        return {"path": _decoded(data.partition(b"\0")[0], where)}
    said = _records(data, where)
    if any(key.startswith("GNU.sparse") for key in said):
        raise ImageRefused(f"{where}: has sparse files")
    if kind == _PAX_GLOBAL and {"path", "size"} & set(said):
        raise ImageRefused(f"{where}: one name or size for all files")
    return {} if kind == _PAX_GLOBAL else said


def _records(data: bytes, where: str) -> dict[str, str]:
    """Return the records of a pax header, each ``LENGTH KEY=VALUE`` and a line feed."""
    said: dict[str, str] = {}
    while data:
        digits, blank, _ = data[:24].partition(b" ")
        length = int(digits) if blank and digits.isdigit() else 0
        record, data = data[len(digits) + 1 : length], data[length:]
        key, equals, value = record.partition(b"=")
        if not equals or not value.endswith(b"\n"):
            raise ImageRefused(f"{where}: a pax header that cannot be read")
        if key in {b"path", b"size"} or key.startswith(b"GNU.sparse"):
            said[_decoded(key, where)] = _decoded(value[:-1], where)
    return said


def _pax_size(said: dict[str, str], size: int, where: str) -> int:
    if "size" not in said:
        return size
    if not (said["size"].isascii() and said["size"].isdigit() and len(said["size"]) < 20):
        raise ImageRefused(f"{where}: a pax header with the size {said['size'][:40]!r}")
    return int(said["size"])


def _decoded(raw: bytes, where: str) -> str:
    try:
        text = raw.decode()
    except UnicodeDecodeError:
        text = ""
    if not text or "\0" in text:
        raise ImageRefused(f"{where}: {raw[:100]!r} is no name that a file may have in there")
    return text

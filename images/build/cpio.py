"""Writes initramfs archives: cpio in the "newc" format, byte for byte the same for the same input.

The format is that of the Linux kernel's Documentation/driver-api/early-userspace/buffer-format.rst.
No owner, time or inode number of this machine gets in, and device nodes need no root.
"""

import stat
from collections.abc import Iterable
from dataclasses import dataclass

_TRAILER = "TRAILER!!!"
_LARGEST = 0xFFFFFFFF


@dataclass(frozen=True, slots=True)
class Entry:
    """One file of an archive.

    `path` is relative, without a leading slash; `mode` includes the file type, as in `stat`; `data`
    is a file's contents or a symbolic link's target; `device` is (major, minor) of a device node.
    """

    path: str
    mode: int
    data: bytes = b""
    device: tuple[int, int] = (0, 0)


def directory(path: str) -> Entry:
    """Return a directory that everybody may read."""
    return Entry(path, stat.S_IFDIR | 0o755)


def file(path: str, data: bytes, *, executable: bool = False) -> Entry:
    """Return a regular file that everybody may read (and run)."""
    return Entry(path, stat.S_IFREG | (0o755 if executable else 0o644), data)


def character_device(path: str, major: int, minor: int, mode: int = 0o666) -> Entry:
    """Return a character device node."""
    return Entry(path, stat.S_IFCHR | mode, device=(major, minor))


def archive(entries: Iterable[Entry]) -> bytes:
    """Return an archive of these entries, in this order; directories must precede their contents.

    Raises ValueError for a path that is absolute, empty or repeated.
    """
    parts, seen = [], set()
    for inode, entry in enumerate(entries, start=1):
        if not entry.path or entry.path.startswith("/") or entry.path in seen:
            raise ValueError(f"cpio entry {entry.path!r}: absolute, empty or repeated")
        seen.add(entry.path)
        parts.append(_record(entry, inode))
    parts.append(_record(Entry(_TRAILER, 0), 0))
    return b"".join(parts)


def _record(entry: Entry, inode: int) -> bytes:
    name = entry.path.encode() + b"\0"
    if len(entry.data) > _LARGEST:
        raise ValueError(f"cpio entry {entry.path!r}: larger than 4 GiB")
    links = 2 if stat.S_ISDIR(entry.mode) else 1
    fields = (inode, entry.mode, 0, 0, links, 0, len(entry.data), 0, 0, *entry.device, len(name), 0)
    header = b"070701" + b"".join(b"%08X" % field for field in fields)
    return _padded(header + name) + _padded(entry.data)


def _padded(data: bytes) -> bytes:
    return data + b"\0" * (-len(data) % 4)

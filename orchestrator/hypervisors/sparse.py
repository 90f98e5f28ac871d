"""Files with holes, and block devices: how large they are, where their data are, and copies.

A disk image is mostly a hole. Whoever copies or sends it should move its data alone, and leave the
copy as small on disk as the original is.
"""

import errno
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path

_FICLONE = 0x40049409  # ioctl_ficlone(2): share the blocks, on Btrfs, XFS and bcachefs
_MODE = 0o600
_SEND = 2**30  # bytes for one call of sendfile(2), which takes less than 2 GiB


def file_size(path: Path) -> int:
    """Return how many bytes can be read from a file or a block device. OSError."""
    with path.open("rb") as file:
        return file.seek(0, os.SEEK_END)


def extents(path: Path, begin: int = 0, *, least_hole: int = 1) -> Iterator[tuple[int, int]]:
    """Yield where the data of a file are, from `begin` on, as (offset, end) in bytes, in order.

    Holes smaller than `least_hole` count as data. Where holes are not known of, all is data.
    """
    with path.open("rb") as file:
        number, size = file.fileno(), file.seek(0, os.SEEK_END)
        at = _seek(number, begin, os.SEEK_DATA, size)
        while at < size:
            end = _seek(number, at, os.SEEK_HOLE, size)
            following = _seek(number, end, os.SEEK_DATA, size)
            while end < following < min(size, end + least_hole):
                end = _seek(number, following, os.SEEK_HOLE, size)
                following = _seek(number, end, os.SEEK_DATA, size)
            yield at, end
            at = following


def copy(source: Path, target: Path) -> None:
    """Make `target` anew, for its owner alone, with the same contents and the same holes.

    It shares the blocks of the source where the file system can. OSError; what was made stays.
    """
    target.unlink(missing_ok=True)
    target.touch(_MODE, exist_ok=False)
    with source.open("rb") as original, target.open("r+b") as made:
        try:
            if not _cloned(original.fileno(), made.fileno()):
                for begin, end in extents(source):
                    _send(original.fileno(), made.fileno(), begin, end)
                made.truncate(file_size(source))
        except OSError as error:
            raise OSError(error.errno, error.strerror, str(target)) from error


def _cloned(source: int, target: int) -> bool:
    try:
        fcntl.ioctl(target, _FICLONE, source)
    except OSError:  # of many kinds: another file system, or one that cannot
        return False
    return True


def _send(source: int, target: int, begin: int, end: int) -> None:
    os.lseek(target, begin, os.SEEK_SET)
    while begin < end and (sent := os.sendfile(target, source, begin, min(_SEND, end - begin))):
        begin += sent


def _seek(file: int, offset: int, whence: int, size: int) -> int:
    """Return where the next data or the next hole begin, `size` if there are none."""
    if offset >= size:
        return size
    try:
        return os.lseek(file, offset, whence)
    except OSError as error:
        if error.errno == errno.ENXIO:  # nothing but a hole from here on
            return size
        if error.errno == errno.EINVAL:  # a block device, which knows of no holes
            return offset if whence == os.SEEK_DATA else size
        raise

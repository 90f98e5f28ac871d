"""SHA-256 of files of this machine, for whoever has to know whether two files are the same.

Depots name what they send by it (`orchestrator.hypervisors.depot`), and what guests of an image
survive is remembered under it (`orchestrator.library`).
"""

import hashlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from stat import S_ISREG

from orchestrator.once import Once, together

PIECE = 256 * 1024  # bytes; libvirt sends no more in one message


class Digests:
    """SHA-256 of files, each computed once as long as it does not change; for many threads.

    A block device does not tell that it was written to, so its digest is computed each time.
    """

    def __init__(self) -> None:
        self._known: dict[tuple[int, int], tuple[tuple[int, int, int], str]] = {}
        self._flights: Once[None, str] = Once()

    def of(self, path: Path) -> str:
        """Return the digest in hexadecimal. OSError if the file cannot be read."""
        stat = path.stat()
        file, version = (
            (stat.st_dev, stat.st_ino),
            (stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns),
        )
        known = self._known.get(file)
        if known is not None and known[0] == version:
            return known[1]
        digest = together(self._flights, f"{file} {version}", lambda: hash_of(pieces_of(path)))
        if S_ISREG(stat.st_mode):
            self._known[file] = version, digest
        return digest


def pieces_of(path: Path, begin: int = 0, end: int | None = None) -> Iterator[bytes]:
    """Yield what is in a file, up to its own end or to `end`, in bytes."""
    with path.open("rb") as file:
        file.seek(begin)
        while piece := file.read(PIECE if end is None else min(PIECE, end - file.tell())):
            yield piece


def hash_of(pieces: Iterable[bytes]) -> str:
    """Return the digest of all pieces, in hexadecimal."""
    digest = hashlib.sha256()
    for piece in pieces:
        digest.update(piece)
    return digest.hexdigest()

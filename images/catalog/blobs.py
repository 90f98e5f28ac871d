"""The blobs of the catalogue: files named by the SHA-256 of their bytes, never changed in place.

`Staging` writes new ones beside their final names; nothing of them can be seen before `keep`, which
every check comes before. `Blobs.verified` is what stands between a damaged file and a guest: small
blobs are hashed every time, larger ones whenever their device, inode, size or times are not those
they had when they were last hashed.
"""

import hashlib
import os
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from typing import BinaryIO, Protocol

from images.catalog.files import new_path, open_regular, reading, sync_folder
from images.catalog.names import Digest, digest_in, hex_of
from images.errors import ImageDamaged, ImageNotFound, ImageRefused

BLOBS = Path("blobs/sha256")
BLOB_MODE = 0o444
SMALL = 1 << 20  # bytes; hashing them takes about a millisecond
CHUNK = 1 << 20
HOLE = 64 * 1024  # bytes of zeros that are not written
MOST_FILE = 1 << 44  # bytes; a local file is as large as it is
SETTLED_NS = (
    100_000_000  # a file changed less than 0.1 s ago may change again within one time stamp
)

_ZEROS = bytes(HOLE)

Progress = Callable[[str, int, int], None]
"""Told what is being worked on, how many bytes are done, and how many there are (0: unknown)."""


def quiet(what: str, done: int, total: int) -> None:
    """Tell nobody: the default `Progress`."""


class Readable(Protocol):
    """What bytes can be read from."""

    def read(self, size: int, /) -> bytes:
        """Return at most so many bytes, none at the end."""
        ...


@dataclass(frozen=True, slots=True)
class Blob:
    """A blob by its digest and size in bytes."""

    digest: Digest
    size: int


@dataclass(frozen=True, slots=True)
class _Stamp:
    device: int
    inode: int
    size: int
    mtime_ns: int
    ctime_ns: int


class Blobs:
    """The folder of blobs below the root of an OCI image layout. Safe to use from threads."""

    def __init__(self, root: Path) -> None:
        self.folder = root / BLOBS
        self._hashed: dict[Digest, tuple[_Stamp, Digest]] = {}
        self._hashing: dict[Digest, Lock] = {}  # who asks for the same waits for the first

    def path(self, digest: Digest) -> Path:
        """Return where a blob is, or would be."""
        return self.folder / hex_of(digest)

    def verified(self, digest: Digest, *, again: bool = False, progress: Progress = quiet) -> Path:
        """Return the path of a blob whose bytes are those its digest names.

        With `again`, the bytes are read even if they were already seen to be right. Raises
        `ImageNotFound` or `ImageDamaged`.
        """
        path = self.path(digest)
        with reading(path) as file, self._hashing.setdefault(digest, Lock()):
            before = _stamp(file.fileno())
            stamp, found = self._hashed.get(digest, (None, digest))
            if again or before.size <= SMALL or stamp != before:
                found = _hash(file, digest[:19], before.size, progress)
                after = _stamp(file.fileno())
                if after == before and time.time_ns() - after.ctime_ns > SETTLED_NS:
                    self._hashed[digest] = after, found
        if found != digest:
            raise ImageDamaged(path, digest, found, "add the image again, with --replace")
        return path

    def digest_at(self, path: Path) -> Digest | None:
        """Return the digest of the blob that is at a path; None if that is no blob of ours."""
        if not digest_in(path.name) and not path.is_symlink():
            return None  # every wake asks, and to resolve a path takes a call per folder
        path = path.resolve()
        return digest_in(path.name) if path.parent == self.folder.resolve() else None

    def has_size(self, size: int) -> bool:
        """Return whether there is a blob of that size, in bytes."""
        return any(
            digest_in(path.name) and path.stat().st_size == size for path in self.folder.iterdir()
        )

    def read(self, digest: Digest, most: int) -> bytes:
        """Return the verified bytes of a small blob; ImageRefused if it is larger than `most`."""
        path = self.path(digest)
        with reading(path) as file:
            data = file.read(most + 1)
        if len(data) > most:
            raise ImageRefused(f"{path}: larger than {most} bytes, which no such file is")
        found = sha256(data)
        if found != digest:
            raise ImageDamaged(path, digest, found, "add the image again, with --replace")
        return data

    @contextmanager
    def staging(self) -> Iterator["Staging"]:
        """Return where new blobs are put; those that were not kept are gone at the end."""
        staging = Staging(self)
        try:
            yield staging
        finally:
            staging.discard()


class Staging:
    """New blobs that nobody can see yet."""

    def __init__(self, blobs: Blobs) -> None:
        self._blobs = blobs
        self._drafts: dict[Digest, Path] = {}

    def put(self, data: bytes) -> Blob:
        """Stage a blob of these bytes."""
        return self.copy(_Bytes(data), "", expected=None, most=len(data))

    def copy(
        self,
        source: Readable,
        what: str,
        *,
        expected: Digest | None,
        most: int,
        total: int = 0,
        progress: Progress = quiet,
    ) -> Blob:
        """Stage a blob of all that can be read from a source.

        Raises `ImageDamaged` if its digest is not `expected`, `ImageRefused` if there are more than
        `most` bytes.
        """
        draft = new_path(self._blobs.folder)
        descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            with os.fdopen(descriptor, "wb") as file:
                digest, size = self._pour(
                    source, file, what, most=most, total=total, progress=progress
                )
                _must_be(digest, expected, what)
                file.truncate(size)  # it may end in a hole
                file.flush()
                _make_durable(file.fileno())
        except BaseException:
            draft.unlink(missing_ok=True)
            raise
        return self._staged(draft, digest, size)

    def copy_file(self, path: Path, *, expected: Digest | None, progress: Progress) -> Blob:
        """Stage a blob of a file of this machine; what is here already takes no room again.

        Raises `ImageError` as `copy` does, and if the file cannot be read.
        """
        with open_regular(path) as file:
            size = os.fstat(file.fileno()).st_size
            source = _Told(file, path)
            if self._blobs.has_size(size):
                digest = _hash(source, str(path), size, progress)
                _must_be(digest, expected, str(path))
                if there := self.there(digest):
                    return there
                file.seek(0)
            return self.copy(
                source,
                str(path),
                expected=expected,
                most=MOST_FILE,
                total=size,
                progress=progress,
            )

    def there(self, digest: Digest) -> Blob | None:
        """Return a blob that need not be staged, as it is here already and undamaged."""
        if not self._is_there(digest):
            return None
        return Blob(digest, self._blobs.path(digest).stat().st_size)

    def adopt(self, path: Path, digest: Digest) -> Blob:
        """Stage a file of ours whose digest was just checked, by moving it."""
        draft = new_path(self._blobs.folder)
        path.rename(draft)
        with draft.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            _make_durable(file.fileno())
        return self._staged(draft, digest, size)

    def path(self, digest: Digest) -> Path:
        """Return where the bytes of a blob are now, staged or kept."""
        return self._drafts.get(digest, self._blobs.path(digest))

    def keep(self, digests: Iterable[Digest]) -> None:
        """Give staged blobs their names, durably; a damaged blob of that name is replaced.

        Raises `ImageNotFound` or `ImageDamaged` for one that is neither staged nor there.
        """
        for digest in sorted(set(digests)):
            draft = self._drafts.get(digest)
            if draft is None:
                self._blobs.verified(digest)
            elif not self._is_there(digest):
                os.replace(draft, self._blobs.path(digest))  # noqa: PTH105 - see files.write_whole
                del self._drafts[digest]
        sync_folder(self._blobs.folder)

    def discard(self) -> None:
        """Remove what was staged and not kept."""
        for draft in self._drafts.values():
            draft.unlink(missing_ok=True)
        self._drafts.clear()

    @staticmethod
    def _pour(
        source: Readable,
        file: BinaryIO,
        what: str,
        *,
        most: int,
        total: int,
        progress: Progress,
    ) -> tuple[Digest, int]:
        digest, done = hashlib.sha256(), 0
        while chunk := source.read(CHUNK):
            done += len(chunk)
            if done > most:
                raise ImageRefused(f"{what}: more than {most} bytes, which is the limit")
            digest.update(chunk)
            _write_sparse(file, chunk)
            if what:
                progress(what, done, total)
        return Digest(f"sha256:{digest.hexdigest()}"), done

    def _staged(self, draft: Path, digest: Digest, size: int) -> Blob:
        if digest in self._drafts:
            draft.unlink()
        else:
            self._drafts[digest] = draft
        return Blob(digest, size)

    def _is_there(self, digest: Digest) -> bool:
        try:
            self._blobs.verified(digest)
        except (ImageNotFound, ImageRefused, ImageDamaged):
            return False
        return True


class _Told:
    """A file whose errors name it, not what is being written meanwhile."""

    def __init__(self, file: Readable, path: Path) -> None:
        self._file, self._path = file, path

    def read(self, size: int, /) -> bytes:
        try:
            return self._file.read(size)
        except OSError as error:
            raise ImageNotFound(f"{self._path}: cannot be read: {error.strerror}") from error


class _Bytes:
    def __init__(self, data: bytes) -> None:
        self._data = data

    def read(self, size: int, /) -> bytes:  # noqa: ARG002 - documents are small: all at once
        data, self._data = self._data, b""
        return data


def sha256(data: bytes) -> Digest:
    """Return the digest of some bytes."""
    return Digest(f"sha256:{hashlib.sha256(data).hexdigest()}")


def _must_be(digest: Digest, expected: Digest | None, what: str) -> None:
    if expected is not None and digest != expected:
        raise ImageDamaged(what, expected, digest)


def _hash(file: Readable, what: str, total: int, progress: Progress) -> Digest:
    digest, done = hashlib.sha256(), 0
    while chunk := file.read(CHUNK):
        digest.update(chunk)
        done += len(chunk)
        progress(what, done, total)
    return Digest(f"sha256:{digest.hexdigest()}")


def _write_sparse(file: BinaryIO, data: bytes) -> None:
    """Write data with holes where it is zero: a disk image is mostly that."""
    for at in range(0, len(data), HOLE):
        part = data[at : at + HOLE]
        if part == _ZEROS[: len(part)]:
            file.seek(len(part), os.SEEK_CUR)
        else:
            file.write(part)


def _stamp(descriptor: int) -> _Stamp:
    stat = os.fstat(descriptor)
    return _Stamp(stat.st_dev, stat.st_ino, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns)


def _make_durable(descriptor: int) -> None:
    os.fchmod(descriptor, BLOB_MODE)
    os.fsync(descriptor)

"""Writing that survives a crash, and locks between processes: the few lines all else relies on."""

import errno
import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from io import BufferedReader
from pathlib import Path
from stat import S_ISREG
from uuid import uuid4

from images.errors import CatalogError, ImageNotFound, ImageRefused

FOLDER_MODE = 0o755  # a hypervisor's own user has to get through to the files
FILE_MODE = 0o644
LOCK_S = 60.0  # a lock is held while an image is added: seconds, as downloads come before it
POLL_S = 0.05
NEW = ".new-"  # a file that begins so is being written, or was when its writer died

DISK_IS_FULL = (errno.ENOSPC, errno.EDQUOT)

_NOT_FOR_US = (
    errno.ENOENT,
    errno.ENOTDIR,
    errno.EACCES,
    errno.EPERM,
    errno.ELOOP,
    errno.ENXIO,
    errno.ENAMETOOLONG,
)


def new_path(folder: Path) -> Path:
    """Return a path for a file that is to be written, in the folder it will be in."""
    return folder / f"{NEW}{uuid4().hex}"


def make_folder(path: Path) -> None:
    """Make a folder that others may read, whatever the umask; an existing one stays as it is."""
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        path.mkdir()
    except FileExistsError:
        if not path.is_dir():
            raise
    else:
        path.chmod(FOLDER_MODE)


def sync_folder(path: Path) -> None:
    """Make the names in a folder durable."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_whole(path: Path, data: bytes) -> None:
    """Write a file so that at any instant it has its old contents or its new ones."""
    draft = new_path(path.parent)
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fchmod(file.fileno(), FILE_MODE)
            os.fsync(file.fileno())
        os.replace(draft, path)  # noqa: PTH105 - with fsync the steps that tests make fail
    except BaseException:
        draft.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def open_regular(path: Path) -> BufferedReader:
    """Open a file to read it.

    Raises `ImageNotFound` if it is not there for us, `ImageRefused` if it is no regular file, and
    `CatalogError` for what may pass: it says nothing about the file.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as error:
        kind = ImageNotFound if error.errno in _NOT_FOR_US else CatalogError
        raise kind(f"{path}: cannot be read: {error.strerror}") from error
    if not S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise ImageRefused(f"{path}: not a regular file")
    return os.fdopen(descriptor, "rb")


@contextmanager
def reading(path: Path) -> Iterator[BufferedReader]:
    """Open a file as `open_regular` does; also reading it may raise `CatalogError`."""
    with open_regular(path) as file:
        try:
            yield file
        except OSError as error:
            raise CatalogError(f"{path}: cannot be read: {error.strerror}") from error


def read_small(path: Path, most: int) -> bytes:
    """Return what is in a file of at most so many bytes; ImageRefused if it has more."""
    with reading(path) as file:
        data = file.read(most + 1)
    if len(data) > most:
        raise ImageRefused(f"{path}: larger than {most} bytes, which no such file is")
    return data


@contextmanager
def locked(path: Path, *, shared: bool = False, wait_s: float = LOCK_S) -> Iterator[None]:
    """Hold a lock file; the kernel lets go of it however this process ends.

    Raises `CatalogError` if others still hold it after `wait_s` seconds, or it cannot be made.
    """
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, FILE_MODE)
    except OSError as error:
        raise CatalogError(
            f"{path}: cannot be opened: {error.strerror}; run as the owner of the catalogue"
        ) from error
    try:
        _wait_for(descriptor, path, fcntl.LOCK_SH if shared else fcntl.LOCK_EX, wait_s)
        yield
    finally:
        os.close(descriptor)


def _wait_for(descriptor: int, path: Path, kind: int, wait_s: float) -> None:
    deadline = time.monotonic() + wait_s
    while True:
        try:
            fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() >= deadline:
                raise CatalogError(
                    f"{path.parent}: another process has changed it for {wait_s:g} s; try again"
                ) from None
            time.sleep(POLL_S)
        else:
            return

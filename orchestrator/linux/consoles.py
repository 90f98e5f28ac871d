"""Console logs of guests: one file per instance, kept after the guest's end, bounded in size.

On this machine's QEMU the hypervisor's log daemon appends to a file that we make, so that it stays
readable for the user edgewake runs as; the daemon's own files are root's. Elsewhere we append what
we read ourselves (`libvirt_consoles`). Either bounds a file (libvirt's virtlogd: by default 2 MiB)
by moving it to ``.0`` and going on in a new one. Each boot begins afresh.
"""

from os import SEEK_END
from pathlib import Path

CONSOLE_BYTES = 64 * 1024  # what `Hypervisor.console` promises
MOST_BYTES = 2**20  # of a file that we write ourselves, before it is moved
_MODE = 0o640


class ConsoleLogs:
    """The console logs in one directory. Methods raise OSError when the directory is not usable."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory.absolute()

    def fresh(self, instance: str) -> Path:
        """Return an empty log for an instance that is about to boot."""
        path, moved = self._files(instance)
        self._directory.mkdir(parents=True, exist_ok=True)
        moved.unlink(missing_ok=True)
        path.unlink(missing_ok=True)
        path.touch(_MODE)
        return path

    def kept(self, instance: str) -> Path:
        """Return the log of an instance that goes on, with what it has printed before."""
        path, _moved = self._files(instance)
        self._directory.mkdir(parents=True, exist_ok=True)
        path.touch(_MODE)
        return path

    def append(self, instance: str, data: bytes) -> None:
        """Add what an instance printed."""
        path, moved = self._files(instance)
        if not path.exists():
            self._directory.mkdir(parents=True, exist_ok=True)
            path.touch(_MODE)
        with path.open("ab") as log:
            log.write(data)
            full = log.tell() > MOST_BYTES
        if full:
            path.replace(moved)

    def tail(self, instance: str) -> bytes:
        """Return the last `CONSOLE_BYTES` of what an instance printed; empty if it never ran."""
        path, moved = self._files(instance)
        return (_tail(moved) + _tail(path))[-CONSOLE_BYTES:]

    def forget(self, instance: str) -> None:
        """Remove the log of an instance; one that is not there is no error."""
        for file in self._files(instance):
            file.unlink(missing_ok=True)

    def _files(self, instance: str) -> tuple[Path, Path]:
        name = instance.replace("/", "_")
        return self._directory / f"{name}.log", self._directory / f"{name}.log.0"


def _tail(file: Path) -> bytes:
    try:
        with file.open("rb") as stream:
            stream.seek(max(0, stream.seek(0, SEEK_END) - CONSOLE_BYTES))
            return stream.read(CONSOLE_BYTES)
    except FileNotFoundError:
        return b""

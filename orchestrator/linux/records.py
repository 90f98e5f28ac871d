"""What must be found again after a crash: one small text per name, in files, and turns by name.

For back ends that have no daemon to remember their guests. A text is there whole or not at all,
however this process ends. A turn is a lock on a file, so it also keeps out other drivers and other
processes with the same folder, and the kernel takes it back from whoever dies holding it. What the
texts say is for others to know. Methods raise OSError when the folder is not usable.
"""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import quote, unquote

_FOLDER_MODE = 0o711  # those who run as other users pass through, and list nothing
_FILE_MODE = 0o600


class Records:
    """The texts in one folder, by name."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder.absolute()

    def names(self) -> list[str]:
        """Return the names of all texts."""
        return sorted(unquote(file.stem) for file in self.folder.glob("*.json"))

    def read(self, name: str) -> str | None:
        """Return the text of that name, or None."""
        try:
            return self.path(name, ".json").read_text()
        except FileNotFoundError:
            return None

    def write(self, name: str, text: str) -> None:
        """Put a text in place of what was there.

        It is not forced onto the disk: what it speaks of does not outlive the power either.
        """
        self._ensure_folder()
        draft = self.path(name, ".new")
        draft.unlink(missing_ok=True)
        draft.touch(_FILE_MODE)
        try:
            draft.write_text(text)
            draft.replace(self.path(name, ".json"))
        except OSError as error:  # that of a full disk names no file
            draft.unlink(missing_ok=True)
            raise OSError(error.errno, error.strerror, str(draft)) from error

    def remove(self, name: str) -> None:
        """Remove a text; one that is not there is no error."""
        self.path(name, ".json").unlink(missing_ok=True)

    def path(self, name: str, suffix: str) -> Path:
        """Return the path of a file that goes with a name; any text can be a name."""
        return self.folder / f"{quote(name, safe='')}{suffix}"

    @contextmanager
    def turn(self, name: str, *, wait: bool = True) -> Iterator[bool]:
        """Keep everyone else with the same name out of this block. Not reentrant.

        Without `wait`, yields False, and keeps nobody out, when it is somebody else's turn.
        """
        self._ensure_folder()
        path = self.path(name, ".lock")
        descriptor = _locked(path, wait=wait)
        if descriptor is None:
            yield False
            return
        try:
            yield True
        finally:
            path.unlink()
            fcntl.flock(descriptor, fcntl.LOCK_UN)  # a child being born may hold a copy of the file
            os.close(descriptor)

    def _ensure_folder(self) -> None:
        self.folder.mkdir(_FOLDER_MODE, parents=True, exist_ok=True)


def _locked(path: Path, *, wait: bool) -> int | None:
    """Lock the file that has this path once the lock is ours: its last holder removed another."""
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, _FILE_MODE)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
            if path.stat().st_ino == os.fstat(descriptor).st_ino:
                return descriptor
        except BlockingIOError:
            os.close(descriptor)
            return None
        except FileNotFoundError:
            pass
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)

"""The folder that holds everything one edgewake installation keeps, and its lock.

One folder is one installation: its `owner` is the mark by which we know our guests again, and only
one process may have it open. Other programs (`edgewake status`) may look up paths with
`StateDir(path)` without opening it.

    database   edgewake.db    what must survive a restart (0600)
    images     images/        kernels, initrds, disks; hypervisors read them (0755)
    catalog    images/catalog the catalogue of images
    consoles   console/       what guests wrote; hypervisors write there (0711)
    kvm        kvm.json       whether KVM boots guests on this machine
    socket     control.sock   where the running edgewake is asked things
    tokens     tokens.json    who may come in through the door (0600)
    door       door.json      where the door is, while there is one
    owner      owner          a UUID, made once; part of the mark on every guest
    lock       lock           held by the process that has the folder open; says its process id

The folder itself is 0711: the hypervisor's own user (``libvirt-qemu``) must get through to the
images, but has no business listing what else is here. Folders that exist keep the mode they have.
"""

import fcntl
import os
from pathlib import Path
from types import TracebackType
from typing import Self
from uuid import UUID, uuid4

from orchestrator.errors import StoreError

TOP_MODE = 0o711
IMAGES_MODE = 0o755
CONSOLES_MODE = 0o711
PRIVATE_MODE = 0o600
SOCKET_PATH_MAX = 107  # bytes; unix(7): sun_path is 108 with its final NUL


class StateDir:
    """The paths of a state folder; after `open` also its lock, until `close`."""

    def __init__(self, path: Path) -> None:
        self.path = path.absolute()
        self._lock_fd: int | None = None

    @classmethod
    def open(cls, path: Path) -> Self:
        """Create what is missing, take the lock, and return the folder.

        Raises `StoreError` if another process has it open (and says which), if it cannot be
        written, or if its path is too long for a UNIX socket to be put there.
        """
        state = cls(path)
        state._refuse_long_path()
        try:
            state._create()
            state._take_lock()
            try:
                state._ensure_owner()
            except BaseException:
                state.close()
                raise
        except OSError as error:
            raise StoreError(
                f"state folder {state.path}: {error.strerror}: {error.filename or ''}",
                hint="run as its owner, or name another folder",
            ) from error
        return state

    @property
    def database(self) -> Path:
        """The database file."""
        return self.path / "edgewake.db"

    @property
    def images(self) -> Path:
        """The folder of images built or fetched here."""
        return self.path / "images"

    @property
    def catalog(self) -> Path:
        """The catalogue of images, an OCI image layout."""
        return self.images / "catalog"

    @property
    def kvm(self) -> Path:
        """The file that keeps whether KVM boots guests on this machine."""
        return self.path / "kvm.json"

    @property
    def consoles(self) -> Path:
        """The folder of the guests' console output."""
        return self.path / "console"

    @property
    def socket(self) -> Path:
        """The UNIX socket of the running edgewake."""
        return self.path / "control.sock"

    @property
    def tokens(self) -> Path:
        """The file of tokens (`web.door.tokens`)."""
        return self.path / "tokens.json"

    @property
    def door(self) -> Path:
        """The file that says where the door is, while there is one (`web.door.process`)."""
        return self.path / "door.json"

    @property
    def login(self) -> Path:
        """The page that leads a browser to a login, for `edgewake dashboard --open`."""
        return self.path / "login.html"

    @property
    def owner(self) -> str:
        """The installation's UUID; StoreError if the folder was never opened, or it is damaged."""
        file = self.path / "owner"
        try:
            return str(UUID(file.read_text().strip()))
        except (OSError, ValueError) as error:
            raise StoreError(
                f"{file}: no owner's UUID can be read there: {error}",
                hint="restore it: without it the guests of this installation cannot be recognised",
            ) from error

    def close(self) -> None:
        """Let go of the lock. May be called twice."""
        if self._lock_fd is not None:
            os.close(self._lock_fd)
            self._lock_fd = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _refuse_long_path(self) -> None:
        length = len(os.fsencode(self.socket))
        if length > SOCKET_PATH_MAX:
            raise StoreError(
                f"state folder {self.path}: {self.socket.name} in it would have a path of "
                f"{length} bytes; a UNIX socket may have {SOCKET_PATH_MAX}",
                hint="name a folder with a shorter path",
            )

    def _create(self) -> None:
        _make_folder(self.path, TOP_MODE)
        _make_folder(self.images, IMAGES_MODE)
        _make_folder(self.consoles, CONSOLES_MODE)

    def _take_lock(self) -> None:
        """Take the lock, which the kernel takes back however this process ends."""
        file = self.path / "lock"
        descriptor = os.open(file, os.O_RDWR | os.O_CREAT, PRIVATE_MODE)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            os.ftruncate(descriptor, 0)
            os.write(descriptor, f"{os.getpid()}\n".encode())
        except BlockingIOError as error:
            holder = os.read(descriptor, 32).decode(errors="replace").strip()
            os.close(descriptor)
            who = f"process {holder}" if holder else "which has only just started"
            raise StoreError(
                f"state folder {self.path} is in use by another edgewake, {who}",
                hint="end that one, or name another folder",
            ) from error
        except OSError:
            os.close(descriptor)
            raise
        self._lock_fd = descriptor

    def _ensure_owner(self) -> None:
        """Make the owner's UUID unless it is there; a crash leaves it whole or absent."""
        file = self.path / "owner"
        if not file.exists():
            draft = self.path / "owner.new"
            descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, PRIVATE_MODE)
            with os.fdopen(descriptor, "w") as f:
                f.write(f"{uuid4()}\n")
                f.flush()
                os.fsync(f.fileno())
            draft.replace(file)
        _ = self.owner  # a damaged one must stop us before anything is marked with a new one


def _make_folder(path: Path, mode: int) -> None:
    """Make a folder with exactly this mode, whatever the umask; leave an existing one alone."""
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        path.mkdir()
    except FileExistsError:
        if not path.is_dir():
            raise
    else:
        path.chmod(mode)

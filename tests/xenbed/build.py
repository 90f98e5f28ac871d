"""Builds what a bed boots, once for the same packages and sources, into a cache.

The cache is a folder: `apt/` holds package lists and packages, `built/KEY/` what was made of them,
`beds/NAME/` the beds that run. KEY stands for the versions of all packages and for our own sources,
so a build is never changed: it is made in a folder of its own and renamed when it is whole.
"""

import fcntl
import gzip
import hashlib
import json
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from images.build import cpio
from images.build.vmlinux import NotUnpacked, unpack
from tests.xenbed import packages, rootfs
from tests.xenbed.errors import BedError

DISK_BYTES = 4 << 30  # a sparse file: takes what is used
KEEP_BUILDS = 2

_HERE = Path(__file__).parent
_IMAGES = Path(cpio.__file__).parent
_RECIPE = (
    *(_HERE / name for name in ("packages.py", "elf.py", "rootfs.py", "build.py")),
    *(_IMAGES / name for name in ("cpio.py", "vmlinux.py", "linux_microvm.py")),
)
_SIZES = "sizes.json"  # of the other files of a build

Progress = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Built:
    """A whole build: the hypervisor, dom0's kernel and root, and an empty disk in `folder`.

    `fetched` and `seconds` say what it cost to make now: bytes and seconds; 0 if it was there.
    """

    folder: Path
    fetched: int = 0
    seconds: float = 0.0

    @property
    def xen(self) -> Path:
        return self.folder / "xen"

    @property
    def kernel(self) -> Path:
        return self.folder / "vmlinux"

    @property
    def root(self) -> Path:
        return self.folder / "dom0.cpio"

    @property
    def disk(self) -> Path:
        return self.folder / "disk.raw"


def default_cache() -> Path:
    """Return the cache's folder: $EDGEWAKE_XENBED, or one beside edgewake's own state."""
    if named := os.environ.get("EDGEWAKE_XENBED"):
        return Path(named).absolute()
    if os.geteuid() == 0:
        return Path("/var/lib/edgewake/xenbed")
    state = os.environ.get("XDG_STATE_HOME") or Path.home() / ".local/state"
    return Path(state) / "edgewake/xenbed"


@contextmanager
def locked(cache: Path, name: str, progress: Progress = lambda _: None) -> Iterator[None]:
    """Hold the cache's lock of that name, waiting for it; it falls with the process."""
    try:
        cache.mkdir(mode=0o711, parents=True, exist_ok=True)
        lock = (cache / f"{name}.lock").open("w")
    except OSError as error:
        raise BedError(
            f"{cache}: {error.strerror}; name another folder: EDGEWAKE_XENBED"
        ) from error
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            progress(f"waiting for another process that holds {lock.name}")
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def ensure(
    cache: Path, *, update: bool = False, clean: bool = False, progress: Progress = lambda _: None
) -> Built:
    """Return the build of the cache, made now unless it is there.

    `update` looks for newer packages first, `clean` builds anew. Raises `BedError`; what was built
    before is then as it was.
    """
    with locked(cache, "build", progress):
        started = time.monotonic()
        archive = packages.Archive(cache / "apt")
        wanted = _resolve(archive, update=update)
        home = cache / "built" / key(wanted)
        if clean:
            shutil.rmtree(home, ignore_errors=True)
        if is_whole(home):
            os.utime(home)
            return Built(home)
        progress(f"fetching {len(wanted)} Debian packages, {_mb(wanted)} MB in all")
        fetched = _fetch(archive, wanted, progress)
        _sweep(home.parent)
        _make(archive, wanted, home, progress)
        return Built(home, fetched, time.monotonic() - started)


def key(wanted: tuple[packages.Package, ...]) -> str:
    """Return the name of the build that these packages and our sources, as they are now, make."""
    digest = hashlib.sha256(packages.digest(wanted).encode())
    ours = sorted(path for path in rootfs.OURS.rglob("*") if path.is_file())
    for file in (*_RECIPE, *ours):
        data = file.read_bytes()
        digest.update(f"{file.name} {file.stat().st_mode} {len(data)}\n".encode())
        digest.update(data)
    return digest.hexdigest()[:16]


def is_whole(home: Path) -> bool:
    """Return whether a build is there with all its files, each as long as it was made.

    They appear together, by a rename; a full disk or a crash may have cut them short since.
    """
    try:
        sizes = json.loads((home / _SIZES).read_text())
        return bool(sizes) and all((home / f).stat().st_size == n for f, n in sizes.items())
    except (OSError, ValueError):
        return False


def _resolve(archive: packages.Archive, *, update: bool) -> tuple[packages.Package, ...]:
    if update:
        archive.update()
    return archive.resolve()


def _fetch(
    archive: packages.Archive, wanted: tuple[packages.Package, ...], progress: Progress
) -> int:
    try:
        return archive.fetch(wanted)
    except BedError as error:
        raise BedError(
            f"{error}\nIf a version is no longer there, look for newer ones: "
            "python -m tests.xenbed build --update"
        ) from error


def _mb(wanted: tuple[packages.Package, ...]) -> int:
    return sum(each.size for each in wanted) // 1_000_000


def _sweep(builds: Path) -> None:
    """Remove what a killed build left, and builds that were not used lately.

    A bed that runs from a removed build goes on: QEMU has its files open.
    """
    builds.mkdir(parents=True, exist_ok=True)
    for half in builds.glob(".new-*"):
        shutil.rmtree(half, ignore_errors=True)
    used = sorted(builds.iterdir(), key=lambda each: each.stat().st_mtime, reverse=True)
    for old in used[KEEP_BUILDS - 1 :]:
        shutil.rmtree(old, ignore_errors=True)


def _make(
    archive: packages.Archive,
    wanted: tuple[packages.Package, ...],
    home: Path,
    progress: Progress,
) -> None:
    with tempfile.TemporaryDirectory(dir=home.parent, prefix=".new-") as temporary:
        new, tree = Path(temporary) / "build", Path(temporary) / "tree"
        new.mkdir()
        progress("unpacking them")
        archive.unpack(wanted, tree)
        progress("cutting out a small dom0")
        (new / "xen").write_bytes(gzip.decompress(_one(tree, "boot/xen-*.gz").read_bytes()))
        try:
            (new / "vmlinux").write_bytes(unpack(_one(tree, "boot/vmlinuz-*").read_bytes()))
        except NotUnpacked as error:
            raise BedError(f"the kernel of dom0: {error}") from error
        (new / "dom0.cpio").write_bytes(cpio.archive(rootfs.entries(tree)))
        make_disk(new / "disk.raw")
        sizes = {part.name: part.stat().st_size for part in new.iterdir()}
        (new / _SIZES).write_text(json.dumps(sizes))
        for part in (new, *new.iterdir()):
            part.chmod(0o755 if part.is_dir() else 0o644)
        shutil.rmtree(home, ignore_errors=True)
        new.rename(home)


def _one(tree: Path, pattern: str) -> Path:
    found = list(tree.glob(pattern))
    if len(found) != 1:
        raise BedError(f"one {pattern} was expected among the packages, not {len(found)}")
    return found[0]


def make_disk(path: Path) -> None:
    """Make an empty ext4 file system of `DISK_BYTES` in a sparse file. Raises `BedError`."""
    with path.open("wb") as disk:
        disk.truncate(DISK_BYTES)
    command = ["mke2fs", "-q", "-F", "-t", "ext4", "-O", "^has_journal",
               "-E", "root_owner=0:0,lazy_itable_init=1", str(path)]  # fmt: skip
    search = os.environ.get("PATH", "") + ":/usr/sbin:/sbin"
    try:
        subprocess.run(command, check=True, capture_output=True, env={"PATH": search})
    except FileNotFoundError as error:
        raise BedError("mke2fs is not here; install the Debian package e2fsprogs") from error
    except subprocess.CalledProcessError as error:
        raise BedError(f"mke2fs failed: {error.stderr.decode(errors='replace')}") from error

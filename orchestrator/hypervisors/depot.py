"""Image files to hosts, and writable disks for instances: all that a guest finds on its host.

A libvirt on another machine cannot open our files. A `Depot` stands for one host and sends what is
missing there, once, named by its SHA-256; a writable disk becomes an overlay that lives as long as
its instance, so that the image itself is never written. It keeps the rules; a `Pool` does the work
on the host, through whatever the hypervisor offers (`libvirt_pool`).

A pool can neither rename nor hash, so what has arrived is read back and hashed here before a
guest may use it: that is the one way that works over every transport and needs no tool on the host.
A file beside it, the seal, then says of which size and age it was when it was checked. A file that
has no seal is a transfer that was cut off: the next one goes on at its end. One that does not fit
its seal was written to. The whole file is hashed either way, so damage in it is found and the file
sent anew.
"""

import logging
import re
import threading
import time
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

from images.bootspec import BootSpec, Disk
from images.qcow2_header import NotQcow2
from orchestrator.digests import Digests, hash_of, pieces_of
from orchestrator.errors import StartFailed
from orchestrator.hypervisors import qcow2
from orchestrator.hypervisors.sparse import extents, file_size
from orchestrator.model import guest_uuid
from orchestrator.once import Once, together

GRACE_S = 3600.0  # an image that nothing names any more is kept this long
LEAST_HOLE = 2**20  # bytes; to step over less costs more calls than to send it is worth
SEAL = ".checked"
_OVERLAY = "overlay-"
_MIB = 2**20
_OURS = re.compile(r"(sha256-[0-9a-f]{64})(\.checked)?|overlay-[0-9a-f-]{36}-[0-9]+")

# Overlays that this process has made. Drivers of hosts on one machine share its pool, so what one
# depot made is not left over for another one to collect.
_made_here: set[str] = set()

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Stored:
    """A file in a pool: its size in bytes, and when it was last written to.

    `changed_at` is by its host's clock, in seconds since 1970.
    """

    name: str
    size: int
    changed_at: float

    @property
    def seal(self) -> bytes:
        """What the seal of this file says when it was checked as it is now."""
        return f"{self.size} {self.changed_at!r}\n".encode()


class Pool(Protocol):
    """A folder of ours on a host, which need not exist until something is written.

    Every method may block, and raises the back end's own errors, which the driver translates.
    """

    @property
    def folder(self) -> Path:
        """Return where it is on the host."""
        ...

    def stored(self) -> tuple[Stored, ...]:
        """Return all files in it."""
        ...

    def find(self, name: str) -> Stored | None:
        """Return a file, None if it is not there."""
        ...

    def write(
        self, name: str, pieces: Iterable[bytes], *, offset: int = 0, writable: bool = False
    ) -> None:
        """Write from `offset` on; make the file if it is not there, for guests to read, or write.

        What is between the end of the file and `offset` reads as zeros and should take no room.
        When it breaks off, what has arrived stays, and nothing follows it.
        """
        ...

    def read(self, name: str) -> Iterator[bytes]:
        """Return what the host has stored, in pieces."""
        ...

    def remove(self, name: str) -> None:
        """Remove a file. Removing one that is not there does nothing."""
        ...

    def free(self) -> int:
        """Return how many bytes there is room for; makes the folder if it is not there."""
        ...


class Depot:
    """What guests of one owner find on one host. Safe to use from many threads.

    `far` says that the host cannot open files of this machine. Methods raise `StartFailed`, and
    whatever the pool raises.
    """

    def __init__(
        self,
        host: str,
        owner: str,
        pool: Callable[[], Pool],
        *,
        far: bool,
        digests: Digests | None = None,
    ) -> None:
        self._host = host
        self._owner = owner
        self._pool = pool
        self._far = far
        self._digests = digests or Digests()
        self._sending: Once[None, Path] = Once()
        self._lock = threading.Lock()  # for the fields below
        self._there: dict[str, Path] = {}  # by name: images known to be whole, and where they are
        self._used_at: dict[str, float] = {}  # by name, on the monotonic clock
        self._plain: set[str] = set()  # instances that were started here without an overlay

    def placed(self, instance: str, boot: BootSpec) -> BootSpec:
        """Return `boot` with all its files as the host has them, and fresh overlays.

        Does nothing for a host on this machine, unless there is a disk that needs an overlay.
        """
        for disk in boot.disks:
            self._check(disk)
        overlaid = [self._needs_overlay(disk) for disk in boot.disks]
        with self._lock:
            (self._plain.discard if any(overlaid) else self._plain.add)(instance)
        if not self._far and not any(overlaid):
            return boot
        there = [replace(disk, path=self.bring(disk.path)) for disk in boot.disks]
        return replace(
            boot,
            kernel=boot.kernel and self.bring(boot.kernel),
            initrd=boot.initrd and self.bring(boot.initrd),
            disks=tuple(
                self._overlay(instance, number, disk, there[number]) if own else there[number]
                for number, (disk, own) in enumerate(zip(boot.disks, overlaid, strict=True))
            ),
        )

    def bring(self, path: Path) -> Path:
        """Return where the host has a file of this machine, and send it there unless it has.

        Several callers that want the same content wait for one transfer.
        """
        if not self._far:
            return path
        digest = self._digest(path)
        self._use(image_name(digest))
        with self._lock:
            there = self._there.get(image_name(digest))
        return there or together(self._sending, digest, lambda: self._checked(path, digest))

    def written_to(self, boot: BootSpec) -> Path | None:
        """Return the first disk of a guest that has an overlay on its host; None if none has."""
        return next((disk.path for disk in boot.disks if self._needs_overlay(disk)), None)

    def drop(self, instance: str) -> None:
        """Remove the overlays of an instance that has ended."""
        if not self.may_hold(instance):
            return
        pool, prefix = self._pool(), self._overlay_name(instance, "")
        for file in pool.stored():
            if file.name.startswith(prefix):
                pool.remove(file.name)
                _made_here.discard(file.name)

    def may_hold(self, instance: str) -> bool:
        """Return whether the host may have overlays of an instance, without asking it."""
        with self._lock:
            return instance not in self._plain

    def forget(self) -> None:
        """Take nothing for granted any more about what the host has, and ask again."""
        with self._lock:
            self._there.clear()

    def collect(
        self,
        wanted: Collection[Path],
        held: Callable[[], Collection[Path]],
        grace_s: float = GRACE_S,
    ) -> tuple[str, ...]:
        """Remove images that nobody needs and overlays whose guest is gone; return their names.

        `wanted` are files of this machine that may be booted soon; `held` returns the files of the
        host that its guests use, and is asked after looking at what there is. Whatever was written
        or brought less than `grace_s` seconds ago stays, save an overlay that an earlier run of
        edgewake left; and so does what is not named by us.
        """
        pool = self._pool()
        now, names = time.time(), {file.name: file.changed_at for file in pool.stored()}
        kept = {path.name for path in held() if path.parent == pool.folder} | self._needed(wanted)
        images = {match[1] or name for name in names if (match := _OURS.fullmatch(name))}
        doomed = tuple(
            name
            for name in sorted(images - kept)
            if _left_over(name)
            or (
                now - max(names.get(name, 0), names.get(name + SEAL, 0)) > grace_s
                and not self._just_used(name, grace_s)
            )
        )
        for name in doomed:
            self._remove(pool, name)
        return doomed

    # --- images -----------------------------------------------------------------------------------

    def _checked(self, path: Path, digest: str) -> Path:
        """Return where the host has what `path` contains, known to be right."""
        pool, name, size = self._pool(), image_name(digest), file_size(path)
        stored, seal = pool.find(name), self._sealed(pool, name)
        if stored is None or stored.size != size or stored.seal != seal:
            if stored is not None and seal:
                log.warning("host %s: %s is not as it was when checked", self._host, name)
            self._arrive(pool, path, digest, size)
        there = pool.folder / name
        with self._lock:
            self._there[name] = there
        return there

    def _sealed(self, pool: Pool, name: str) -> bytes | None:
        """Return what the seal of an image says, None if it has none."""
        return None if pool.find(name + SEAL) is None else b"".join(pool.read(name + SEAL))

    def _arrive(self, pool: Pool, path: Path, digest: str, size: int) -> None:
        """Send what is missing of a file, read all of it back and seal it.

        Twice, if it came out wrong.
        """
        name = image_name(digest)
        for _attempt in range(2):
            self._send(pool, path, name, size)
            stored = pool.find(name)  # before it is read: who writes to it from now on is noticed
            arrived = hash_of(pool.read(name))
            if arrived == digest and stored is not None:
                pool.remove(name + SEAL)  # a longer one would show at the end of this one
                pool.write(name + SEAL, (stored.seal,))
                return
            log.warning("host %s: %s is damaged there and is removed", self._host, name)
            self._remove(pool, name)
        raise self._refused(
            f"{path} arrived there with SHA-256 {arrived} instead of {digest}",
            "was the file written to meanwhile? if not, that host or the way to it damages data",
        )

    def _send(self, pool: Pool, path: Path, name: str, size: int) -> None:
        """Make the file as long as it should be; what is there already is believed for now."""
        stored = pool.find(name)
        arrived = 0 if stored is None else stored.size
        if stored is not None and arrived == size:
            return
        if arrived > size or pool.find(name + SEAL) is not None:
            self._remove(pool, name)  # it was whole once, so its length says nothing now
            arrived = 0
        began, end = time.monotonic(), arrived
        parts = list(extents(path, arrived, least_hole=LEAST_HOLE))
        data = sum(end - begin for begin, end in parts)
        self._check_room(pool, path, data)
        for begin, end in parts:
            pool.write(name, pieces_of(path, begin, end), offset=begin)
        if end < size or not size:  # a hole at the end, which its last byte makes; or no bytes
            pool.write(name, (bytes(1),) if size else (), offset=max(0, size - 1))
        took = time.monotonic() - began
        some = f"{size - arrived} of {size}" if arrived else f"all {size}"
        log.info(
            "host %s: sent %s bytes of %s, %s of them data, in %.1f s",
            self._host, some, path, data, took,
        )  # fmt: skip

    def _check_room(self, pool: Pool, path: Path, needed: int) -> None:
        free = pool.free()
        if needed > free:
            raise self._refused(
                f"no space left for {path}: {_mib(needed)} needed, {_mib(free)} free in "
                f"{pool.folder} there",
                "free some there, or remove images that nothing uses",
            )

    def _remove(self, pool: Pool, name: str) -> None:
        """Remove a file of ours. An image loses its seal first, so that none is left alone."""
        with self._lock:
            self._there.pop(name, None)
        pool.remove(name + SEAL)
        pool.remove(name)
        pool.remove(name + SEAL)  # another edgewake may have checked the file in between

    def _digest(self, path: Path) -> str:
        try:
            return self._digests.of(path)
        except OSError as error:
            raise self._unreadable(path, error) from error

    # --- disks ------------------------------------------------------------------------------------

    def _needs_overlay(self, disk: Disk) -> bool:
        """Return whether a disk is written to, or a block device that its guest is to use itself.

        QEMU does not open one as the plain file that domains name, but does so below an overlay.
        """
        return not disk.read_only or (not self._far and disk.path.is_block_device())

    def _overlay(self, instance: str, number: int, disk: Disk, backing: Disk) -> Disk:
        """Return a disk that shows `backing`, on the host, and takes all that is written to it."""
        try:
            size = qcow2.disk_size(disk.path, disk.format)
            pieces = qcow2.empty_overlay(str(backing.path), disk.format, size)
        except OSError as error:
            raise self._unreadable(disk.path, error) from error
        except ValueError as error:
            raise self._refused(str(error), "") from error
        pool, name = self._pool(), self._overlay_name(instance, str(number))
        _made_here.add(name)
        self._use(name)
        pool.remove(name)
        pool.write(name, pieces, writable=True)
        return replace(disk, path=pool.folder / name, format="qcow2")

    def _overlay_name(self, instance: str, number: str) -> str:
        return f"{_OVERLAY}{guest_uuid(self._owner, instance)}-{number}"

    def _check(self, disk: Disk) -> None:
        """Refuse a disk that would let its image choose which files of the host a guest reads."""
        if disk.format not in qcow2.FORMATS:
            raise self._refused(
                f"{disk.path}: format {disk.format} is not known", "make it raw or qcow2"
            )
        if disk.format == "raw":
            return
        try:
            more = qcow2.leans_on(disk.path)
        except OSError as error:
            raise self._unreadable(disk.path, error) from error
        except NotQcow2 as error:
            raise self._refused(str(error), "write `format: raw` if that is what it is") from error
        if more:
            raise self._refused(
                f"{disk.path} needs {more}", "make it whole, with `qemu-img convert -O qcow2`"
            )

    # --- what may go ------------------------------------------------------------------------------

    def _needed(self, wanted: Collection[Path]) -> set[str]:
        names = set()
        for path in wanted if self._far else ():
            with suppress(OSError):  # what is no longer here cannot be booted from here
                names.add(image_name(self._digests.of(path)))
        return names

    def _use(self, name: str) -> None:
        with self._lock:
            self._used_at[name] = time.monotonic()

    def _just_used(self, name: str, grace_s: float) -> bool:
        with self._lock:
            used_at = self._used_at.get(name)
        return used_at is not None and time.monotonic() - used_at < grace_s

    # --- errors -----------------------------------------------------------------------------------

    def _unreadable(self, path: Path, error: OSError) -> StartFailed:
        return self._refused(
            f"{path} cannot be read on this machine: {error.strerror}",
            "is it there, and may edgewake read it?",
        )

    def _refused(self, message: str, hint: str) -> StartFailed:
        return StartFailed(self._host, message, hint=hint)


def image_name(digest: str) -> str:
    """Return the name of an image in a pool."""
    return f"sha256-{digest}"


def _left_over(name: str) -> bool:
    """Return whether a file is an overlay that another process, now dead, has made."""
    return name.startswith(_OVERLAY) and name not in _made_here


def _mib(size: int) -> str:
    return f"{size / _MIB:.1f} MiB"

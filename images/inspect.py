"""What is this file? Bytes in, `ImageFacts` out, for the wake path and for people who ask.

The recognisers are asked in an order in which none hides another: a bzImage also carries the
signature of a boot disk, a Solo5 image for Xen also a multiboot header. They read headers, notes
and names, not whole files, and believe nothing they read: whatever the bytes, there is an answer.
What a host or a family makes of the answer is for `images.match`.
"""

import os
import stat
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from images import gunzip
from images.disk import disk_facts
from images.elf import MAGIC as ELF_MAGIC
from images.elf_image import elf_facts
from images.errors import ImageNotFound
from images.facts import Container, Entry, Format, ImageFacts
from images.linux_kernel import bzimage_facts, foreign_kernel_facts
from images.multiboot import flat_facts
from images.other_files import archive_facts, other_facts
from images.qcow2 import qcow2_facts
from images.source import Source

# How much is unpacked of a gzip file: enough to see what it is, or an ELF file to its end. Kernels
# shrink to a third or a tenth; what shrinks more than the ratio is seen in part.
FIRST_UNPACKED_BYTES = 256 * 1024
MOST_UNPACKED_BYTES = 64 * 1024 * 1024
LEAST_UNPACKED_BYTES = 1024 * 1024
MOST_UNPACKED_RATIO = 32

MOST_REMEMBERED = 1024
# A file that changed so recently can change again without a new time stamp (the kernel's clock for
# files ticks every 10 ms at worst), so what is seen in it is not remembered yet.
RACY_NS = 20_000_000

# What Xen's domain builder starts of a file packed by gzip, which QEMU does not unpack.
_THROUGH_GZIP = {
    Entry.XEN_PV: Entry.XEN_PV,
    Entry.PVH: Entry.PVH_SECTION,
    Entry.PVH_SECTION: Entry.PVH_SECTION,
}
_FOR_QEMU = {Entry.MULTIBOOT, Entry.PVH}

_FileKey = tuple[int, int, int, int, int]
Recogniser = Callable[[Source], ImageFacts | None]


def inspect(path: Path) -> ImageFacts:
    """Return what a file is; raises `ImageNotFound` if it cannot be read, and nothing else."""
    return _read(path)[0]


def inspect_bytes(data: bytes | bytearray | memoryview) -> ImageFacts:
    """Return what a file of these bytes is; the same as `inspect` of such a file."""
    return inspect_source(Source.of_bytes(data))


def inspect_source(source: Source) -> ImageFacts:
    """Return what is in a source; raises what its reader raises."""
    return _gzip_facts(source) or _unpacked_facts(source)


class Inspector:
    """Calls `inspect`, once per file as long as the file is the same: later calls are one `stat`.

    A file is the same while its device, inode, size and times are. Any number of threads may call;
    the `most` files asked for last are remembered.
    """

    def __init__(self, most: int = MOST_REMEMBERED) -> None:
        self._most = most
        self._lock = threading.Lock()
        self._known: OrderedDict[_FileKey, ImageFacts] = OrderedDict()

    def __call__(self, path: Path) -> ImageFacts:
        """Return what a file is; raises `ImageNotFound` if it cannot be read."""
        try:
            key = _key(path.stat())
        except (OSError, ValueError) as error:
            raise _not_found(path, error) from error
        with self._lock:
            facts = self._known.get(key)
            if facts is not None:
                self._known.move_to_end(key)
                return facts
        facts, seen = _read(path)
        if seen is not None:
            self._remember(seen, facts)
        return facts

    def _remember(self, key: _FileKey, facts: ImageFacts) -> None:
        with self._lock:
            self._known[key] = facts
            while len(self._known) > self._most:
                self._known.popitem(last=False)


# --- reading files --------------------------------------------------------------------------------


def _read(path: Path) -> tuple[ImageFacts, _FileKey | None]:
    """Return what a file is, and the key to remember it by if it held still while being read."""
    try:
        # A FIFO would otherwise wait for its writer.
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        try:
            before = os.fstat(descriptor)
            source = Source.of_file(descriptor, _size(descriptor, before))
            facts = inspect_source(source)
            after = os.fstat(descriptor)
        finally:
            os.close(descriptor)
    except (OSError, ValueError) as error:
        raise _not_found(path, error) from error
    steady = _key(before) == _key(after) and stat.S_ISREG(after.st_mode)
    changed_ns = max(after.st_mtime_ns, after.st_ctime_ns)
    settled = not 0 <= time.time_ns() - changed_ns < RACY_NS
    return facts, _key(after) if steady and settled else None


def _size(descriptor: int, status: os.stat_result) -> int:
    """Return how many bytes can be read; raises OSError unless it is a file or a block device."""
    if stat.S_ISREG(status.st_mode):
        return status.st_size
    if stat.S_ISBLK(status.st_mode):
        return os.lseek(descriptor, 0, os.SEEK_END)
    raise OSError("it is neither a regular file nor a block device")


def _key(status: os.stat_result) -> _FileKey:
    return (
        status.st_dev,
        status.st_ino,
        status.st_size,
        status.st_mtime_ns,
        status.st_ctime_ns,
    )


def _not_found(path: Path, error: OSError | ValueError) -> ImageNotFound:
    if isinstance(error, FileNotFoundError):
        return ImageNotFound(
            f"{path}: no such file; copy the image there, or build a "
            "sample one: edgewake image build"
        )
    reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return ImageNotFound(f"{str(path)!r}: cannot be read: {reason}")


# --- what the bytes are ---------------------------------------------------------------------------


def _unpacked_facts(source: Source, *, whole: bool = True) -> ImageFacts:
    """Return what is in a source that is not packed; not `whole`, if it is only the beginning."""
    for recognise in _recognisers(whole=whole):
        facts = recognise(source)
        if facts is not None:
            return facts
    return ImageFacts(
        source.size, unusable="not a kind of file that edgewake knows; no loader will start it"
    )


def _recognisers(*, whole: bool) -> tuple[Recogniser, ...]:
    return (
        qcow2_facts,
        bzimage_facts,
        lambda source: elf_facts(source, whole=whole),
        foreign_kernel_facts,
        archive_facts,
        other_facts,
        disk_facts,
        flat_facts,
    )


def _gzip_facts(source: Source) -> ImageFacts | None:
    """Return what a gzip file holds, None if it is no gzip file."""
    if source.read(0, 2) != gunzip.MAGIC:
        return None
    unpacked = gunzip.gunzip(source, FIRST_UNPACKED_BYTES)
    is_elf = unpacked.data[:4] == ELF_MAGIC
    if is_elf and not unpacked.complete and not unpacked.damage:
        most = max(LEAST_UNPACKED_BYTES, MOST_UNPACKED_RATIO * source.size)
        unpacked = gunzip.gunzip(source, min(MOST_UNPACKED_BYTES, most))
    if unpacked.damage:
        return ImageFacts(
            source.size,
            container=Container.GZIP,
            evidence="gzip magic number",
            unusable=unpacked.damage,
        )
    if unpacked.data[:2] == gunzip.MAGIC:
        inside = ImageFacts(0, evidence="gzip within gzip")
    else:
        inside = _unpacked_facts(Source.of_bytes(unpacked.data), whole=unpacked.complete)
    cut = is_elf and not unpacked.complete
    return _packed(source.size, inside, seen_bytes=len(unpacked.data) if cut else 0)


def _packed(file_bytes: int, inside: ImageFacts, *, seen_bytes: int) -> ImageFacts:
    """Return the facts of a gzip file from those of what is inside.

    `seen_bytes` is how much was unpacked, if that was not all there is to see.
    """
    elf = inside.format is Format.ELF
    entries = {_THROUGH_GZIP[way] for way in inside.entries if elf and way in _THROUGH_GZIP}
    warnings = list(inside.warnings)
    if seen_bytes:
        warnings.append(f"only the first {seen_bytes} bytes of what gzip packed were looked at")
    if entries and not inside.unusable and inside.entries & _FOR_QEMU:
        warnings.append("QEMU does not unpack gzip and would hang in silence; gunzip it for QEMU")
    unusable = inside.unusable
    if not entries and not unusable:
        unusable = "packed by gzip, which no loader here unpacks; gunzip it"
    return replace(
        inside,
        file_bytes=file_bytes,
        container=Container.GZIP,
        entries=frozenset(entries),
        least_file_bytes=0,
        warnings=tuple(warnings),
        unusable=unusable,
    )

"""Reading everything to see that it is right, and removing what nothing needs any more."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from images.catalog import leases, oci
from images.catalog.blobs import Progress
from images.catalog.download import PART, is_held
from images.catalog.entry import Entry
from images.catalog.files import NEW
from images.catalog.layout import INDEXES
from images.catalog.names import Digest, digest_in, hex_of
from images.catalog.store import Store
from images.catalog.trust import Trust
from images.errors import CatalogError, ImageDamaged, ImageError, ImageNotFound, ImageRefused

GRACE_S = 24 * 3600.0
"""Blobs younger than this many seconds stay: another OCI tool may be about to name them."""

MOST_LINKED = 1_000_000

_DOCUMENTS = (*INDEXES, oci.MANIFEST, "application/vnd.docker.distribution.manifest.v2+json")


@dataclass(frozen=True, slots=True)
class Damage:
    """Something wrong: with which file or name, and what. `refs` are the names that need it."""

    what: str
    message: str
    refs: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Removed:
    """A file that was removed (or would be), and its size in bytes."""

    path: Path
    size: int


def verify(
    store: Store, trust: Trust, entries: Sequence[Entry], *, everything: bool, progress: Progress
) -> tuple[Damage, ...]:
    """Return what is wrong with entries, or with all that a store has; reads every byte of it."""
    damages = [Damage(each.ref, each.problem, (each.ref,)) for each in entries if each.problem]
    damages += [
        Damage(f"{entry.ref} ({flavour.name})", flavour.problem, (entry.ref,))
        for entry in entries
        for flavour in entry.flavours
        if flavour.problem
    ]
    needed: dict[Digest, set[str]] = {}
    sizes: dict[Digest, int] = {}
    for entry in entries:
        for flavour in entry.flavours:
            for layer in flavour.layers:
                needed.setdefault(layer.blob.digest, set()).add(entry.ref)
                sizes[layer.blob.digest] = layer.blob.size
    if everything:
        for digest in _present(store):
            needed.setdefault(digest, set())
    bad: set[Digest] = set()
    for digest, refs in sorted(needed.items()):
        if message := _told(partial(_check_blob, store, digest, sizes.get(digest), progress)):
            bad.add(digest)
            damages.append(Damage(str(store.blobs.path(digest)), message, tuple(sorted(refs))))
    return (*damages, *_distrusted(store, trust, entries, bad))


def collect(store: Store, grace_s: float, now: float, *, dry_run: bool) -> tuple[Removed, ...]:
    """Remove what nothing needs; see `Catalog.collect`.

    In two phases under the locks: first all that might go is found, then it is asked again, for
    each, whether a name leads to it by now. Another OCI tool knows nothing of our locks.
    """
    if not store.exists():
        return ()
    with store.collecting():
        doomed = [
            *_unneeded(store, now - grace_s),
            *_leftovers(store, now - grace_s),
        ]
        kept = _linked(store)
        removed = [each for each in doomed if each.path.name not in kept]
        if not dry_run:
            for each in removed:
                each.path.unlink(missing_ok=True)
    return tuple(removed)


def _check_blob(store: Store, digest: Digest, size: int | None, progress: Progress) -> None:
    path = store.blobs.verified(digest, again=True, progress=progress)
    found = path.stat().st_size
    if size is not None and found != size:
        raise ImageRefused(f"{path}: has {found} bytes, and its manifest says {size}")


def _distrusted(
    store: Store, trust: Trust, entries: Sequence[Entry], bad: set[Digest]
) -> list[Damage]:
    return [
        Damage(f"{entry.ref} ({flavour.name})", message, (entry.ref,))
        for entry in entries
        for flavour in entry.flavours
        if not bad.intersection(layer.blob.digest for layer in flavour.layers)
        if (message := _told(partial(trust.check, flavour.layers, store.blobs.path)))
    ]


def _told(check: Callable[[], object]) -> str:
    try:
        check()
    except ImageError as error:
        return str(error)
    return ""


def _present(store: Store) -> Iterator[Digest]:
    if store.blobs.folder.is_dir():
        for path in sorted(store.blobs.folder.iterdir()):
            if digest := digest_in(path.name):
                yield digest


def _unneeded(store: Store, before: float) -> list[Removed]:
    kept = _linked(store) | set(map(hex_of, leases.held(store)))
    found: list[Removed] = []
    for path in map(store.blobs.path, _present(store)):
        stat = path.stat()
        if path.name not in kept and max(stat.st_mtime, stat.st_ctime) <= before:
            found.append(Removed(path, stat.st_size))
    return found


def _leftovers(store: Store, before: float) -> list[Removed]:
    """Return what writers of ours left that died: none can be alive, as we hold the locks.

    A download that broke may be wanted again, so it is kept as long as a blob would be.
    """
    folders = (store.root, store.blobs.folder, store.leases)
    dead = [path for folder in folders for path in sorted(folder.glob(f"{NEW}*"))]
    if store.downloads.is_dir():
        dead += [
            path
            for path in sorted(store.downloads.glob(f"*{PART}"))
            if path.stat().st_mtime <= before and not is_held(path)
        ]
    return [Removed(path, path.stat().st_size) for path in dead]


def _linked(store: Store) -> set[str]:
    """Return the file names of all blobs that an entry of the index leads to, of any kind."""
    todo = [(each, True) for each in store.entries(store.index())]
    seen: set[tuple[Digest, bool]] = set()
    while todo:
        descriptor, is_document = todo.pop()
        link = descriptor.digest, is_document
        if link in seen:
            continue
        seen.add(link)
        if len(seen) > MOST_LINKED:
            raise CatalogError(f"{store.root}: more than {MOST_LINKED} blobs are named in it")
        if is_document:
            todo += _links(store, descriptor)
    return {hex_of(digest) for digest, _ in seen}


def _links(store: Store, descriptor: oci.Descriptor) -> list[tuple[oci.Descriptor, bool]]:
    """Return what a document refers to.

    One that is damaged could refer to anything, so then nothing must be removed. One of a kind that
    no OCI document is refers to nothing: an index may name any file.
    """
    where = str(store.blobs.path(descriptor.digest))
    try:
        data = store.blobs.read(descriptor.digest, oci.MOST_DOCUMENT)
        return list(oci.linked(oci.read(data, where), where))
    except ImageNotFound:
        return []  # what is not there needs nothing
    except ImageDamaged as error:
        hint = "remove the name that leads to it, or add it again, first"
        raise ImageDamaged(where, error.expected, error.found, hint) from error
    except ImageRefused:
        if descriptor.media_type in _DOCUMENTS:
            raise
        return []

"""Who uses which blobs: a small file per guest, so that what runs is kept whoever collects.

A lease lasts until it is released, also while no edgewake runs. It is named after its holder and
has one digest per line.
"""

import re
from collections.abc import Iterable, Iterator
from pathlib import Path

from images.catalog.files import NEW, make_folder, read_small, write_whole
from images.catalog.names import Digest, digest_of
from images.catalog.oci import MOST_DOCUMENT
from images.catalog.store import Store
from images.errors import CatalogError, ImageNotFound, ImageRefused

_WHO = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,199}")


def hold(store: Store, who: str, files: Iterable[Path]) -> None:
    """Write the lease of a holder; see `Catalog.hold`."""
    digests = {digest for file in files if (digest := store.blobs.digest_at(file))}
    if not digests:
        release(store, who)
        return
    with store.adding():  # nobody collects meanwhile
        for path in map(store.blobs.path, sorted(digests)):
            if not path.exists():
                raise ImageNotFound(f"{path}: is gone from the catalogue; add the image again")
        make_folder(store.leases)
        write_whole(_path(store, who), "".join(f"{each}\n" for each in sorted(digests)).encode())


def release(store: Store, who: str) -> None:
    """Remove the lease of a holder, if there is one."""
    path = _path(store, who)
    if path.exists():
        with store.errors():
            path.unlink(missing_ok=True)


def holders(store: Store) -> tuple[str, ...]:
    """Return who holds a lease."""
    return tuple(path.name for path in _files(store))


def held(store: Store) -> set[Digest]:
    """Return the blobs that leases name; raises `CatalogError` if one cannot be read."""
    return {digest for path in _files(store) for digest in _digests(path)}


def _path(store: Store, who: str) -> Path:
    if not _WHO.fullmatch(who):
        raise CatalogError(f"{who[:100]!r} is no name for a lease; write one word")
    return store.leases / who


def _files(store: Store) -> Iterator[Path]:
    if not store.leases.is_dir():
        return iter(())
    with store.errors():
        paths = sorted(store.leases.iterdir())
    return (path for path in paths if not path.name.startswith(NEW))


def _digests(path: Path) -> list[Digest]:
    try:
        lines = read_small(path, MOST_DOCUMENT).decode(errors="replace").splitlines()
        digests = [digest_of(line, "a line") for line in lines]
    except ImageNotFound as error:
        if isinstance(error.__cause__, FileNotFoundError):
            return []  # released meanwhile
        raise CatalogError(_unknown(path, str(error))) from error
    except ImageRefused as error:
        raise CatalogError(_unknown(path, str(error))) from error
    if not digests:
        raise CatalogError(_unknown(path, "it is empty"))
    return digests


def _unknown(path: Path, why: str) -> str:
    return (
        f"{path}: damaged: {why}; which files {path.name} uses cannot be known, so nothing is "
        f"removed; delete this lease once there is no guest {path.name} any more"
    )

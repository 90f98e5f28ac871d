"""Writes an entry of the catalogue as an OCI image layout of its own: a folder or a tar archive.

It appears under its name only when it is whole and every byte was seen to be right.
"""

import hashlib
import io
import os
import shutil
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, Protocol

from images.catalog import oci
from images.catalog.blobs import BLOB_MODE, BLOBS, CHUNK, Progress
from images.catalog.entry import Entry
from images.catalog.files import FILE_MODE, make_folder, new_path, open_regular, sync_folder
from images.catalog.layout import INDEXES, FolderLayout, document, leaves
from images.catalog.names import Digest, hex_of
from images.catalog.store import Store
from images.errors import CatalogError, ImageDamaged, ImageExists

TAR = ".tar"


class Writer(Protocol):
    """Where a layout is written to."""

    def add(self, name: str, file: BinaryIO, size: int) -> None:
        """Write a file of so many bytes."""
        ...


def export(
    store: Store, entry: Entry, top: oci.Descriptor, target: Path, progress: Progress
) -> None:
    """Write what a descriptor leads to; see `Catalog.export`."""
    named = oci.Descriptor(
        top.media_type, top.digest, top.size, {oci.REF_NAME: entry.ref}, top.os, top.architecture
    )
    index = {"schemaVersion": 2, "mediaType": oci.INDEX, "manifests": [named.document()]}
    try:
        with _writer(target) as writer:
            _put(writer, oci.LAYOUT_FILE, oci.write({"imageLayoutVersion": oci.LAYOUT_VERSION}))
            _put(writer, oci.INDEX_FILE, oci.write(index))
            for digest in _digests(store, top):
                with open_regular(store.blobs.path(digest)) as file:
                    size = os.fstat(file.fileno()).st_size
                    hashing = _Hashing(file, digest[:19], size, progress)
                    writer.add(f"{BLOBS}/{hex_of(digest)}", hashing, size)  # type: ignore[arg-type]
                    if hashing.digest != digest:
                        raise ImageDamaged(store.blobs.path(digest), digest, hashing.digest)
    except OSError as error:
        raise CatalogError(f"{target}: cannot be written: {error.strerror}") from error


def _digests(store: Store, top: oci.Descriptor) -> list[Digest]:
    """Return all blobs below a descriptor, each once: documents, then files."""
    found = [top.digest] if top.media_type in INDEXES else []
    layout = FolderLayout(store.root)
    for descriptor in leaves(layout, top):
        data = document(layout, descriptor)
        links = oci.linked(oci.read(data, descriptor.digest), descriptor.digest)
        found += [descriptor.digest, *(each.digest for each, _ in links)]
    return list(dict.fromkeys(found))


def _put(writer: Writer, name: str, data: bytes) -> None:
    writer.add(name, io.BytesIO(data), len(data))


@contextmanager
def _writer(target: Path) -> Iterator[Writer]:
    if target.exists() or target.is_symlink():
        raise ImageExists(f"{target} is there already; name a new folder, or a new file")
    if not target.absolute().parent.is_dir():
        raise CatalogError(f"{target}: cannot be written: its folder is not there; make it first")
    draft = new_path(target.absolute().parent)
    try:
        if target.suffix == TAR:
            with tarfile.open(draft, "x", format=tarfile.PAX_FORMAT) as archive:
                yield _TarWriter(archive)
            with draft.open("rb") as file:
                os.fsync(file.fileno())
        else:
            make_folder(draft)
            yield _FolderWriter(draft)
        draft.rename(target)
        sync_folder(draft.parent)
    except BaseException:
        if draft.is_dir():
            shutil.rmtree(draft)
        draft.unlink(missing_ok=True)
        raise


class _FolderWriter:
    def __init__(self, root: Path) -> None:
        self._root = root

    def add(self, name: str, file: BinaryIO, size: int) -> None:  # noqa: ARG002 - for tar
        path = self._root / name
        for folder in reversed(path.relative_to(self._root).parents[:-1]):
            make_folder(self._root / folder)
        with path.open("xb") as out:
            shutil.copyfileobj(file, out, CHUNK)
            os.fchmod(out.fileno(), _mode(name))
            out.flush()
            os.fsync(out.fileno())


class _TarWriter:
    def __init__(self, archive: tarfile.TarFile) -> None:
        self._archive = archive

    def add(self, name: str, file: BinaryIO, size: int) -> None:
        header = tarfile.TarInfo(name)
        header.size, header.mode = size, _mode(name)
        self._archive.addfile(header, file)


class _Hashing:
    """A file that is hashed as it is read."""

    def __init__(self, file: BinaryIO, what: str, size: int, progress: Progress) -> None:
        self._file, self._what, self._size, self._progress = file, what, size, progress
        self._hash = hashlib.sha256()
        self._done = 0

    @property
    def digest(self) -> Digest:
        return Digest(f"sha256:{self._hash.hexdigest()}")

    def read(self, size: int = -1, /) -> bytes:
        data = self._file.read(size)
        self._hash.update(data)
        self._done += len(data)
        self._progress(self._what, self._done, self._size)
        return data


def _mode(name: str) -> int:
    return BLOB_MODE if name.startswith(str(BLOBS)) else FILE_MODE

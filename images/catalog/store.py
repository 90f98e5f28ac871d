"""The catalogue on disk: an OCI image layout, and the locks around it.

    oci-layout, index.json    as the OCI image layout specification has them
    blobs/sha256/             one file per blob (0444), named by its digest
    downloads/                what is arriving over HTTP
    leases/                   who uses which blobs: one file per guest, named after it
    trusted-keys              minisign public keys; if it is there, nothing unsigned is taken
    .reserve                  room for index.json to shrink in when the disk is full
    .lock, .adding            held while index.json changes; while an image is added, or collected

``index.json`` is the only file that changes, and only as a whole. Other OCI tools may read all of
this, and may write it while nothing else does; what they wrote and we do not know is left as it is.
"""

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

from images.catalog import oci
from images.catalog.blobs import BLOBS, Blobs
from images.catalog.files import (
    DISK_IS_FULL,
    locked,
    make_folder,
    read_small,
    sync_folder,
    write_whole,
)
from images.errors import CatalogError, ImageNotFound, ImageRefused

DOWNLOADS = "downloads"
LEASES = "leases"
TRUSTED_KEYS = "trusted-keys"

_LAYOUT = {"imageLayoutVersion": oci.LAYOUT_VERSION}
_FULL = "; make room: `edgewake image remove` what is not needed, then `edgewake image gc --all`"
_EMPTY = {"schemaVersion": 2, "mediaType": oci.INDEX, "manifests": []}
_UNSAFE = " ,\t\n"
RESERVE = ".reserve"
RESERVE_BYTES = 256 * 1024  # an index of some 700 names


class Store:
    """The files of a catalogue. Nothing is made before it is written to the first time."""

    def __init__(self, root: Path) -> None:
        self.root = root.absolute()
        self.blobs = Blobs(self.root)
        self.downloads = self.root / DOWNLOADS
        self.leases = self.root / LEASES
        self.where = str(self.root)

    @contextmanager
    def made(self) -> Iterator[None]:
        """Make what is missing; errors of the file system become `CatalogError` until the end."""
        with self.errors():
            self._create()
            yield

    @contextmanager
    def adding(self) -> Iterator[None]:
        """Keep blobs from being collected until the end. Not for as long as a download takes."""
        with self.errors(), locked(self.root / ".adding", shared=True):
            yield

    @contextmanager
    def changing(self) -> Iterator[dict[str, object]]:
        """Yield the index as a document that may be changed; it is written at the end.

        Who fails before has changed nothing.
        """
        with self.errors(), locked(self.root / ".lock"):
            before = self.index()
            document = dict(before)
            yield document
            if document != before:
                self._write_index(oci.write(document))

    @contextmanager
    def collecting(self) -> Iterator[None]:
        """Hold off everybody who adds or changes anything."""
        with (
            self.errors(),
            locked(self.root / ".adding"),
            locked(self.root / ".lock"),
        ):
            yield

    def exists(self) -> bool:
        """Return whether there is a catalogue."""
        return (self.root / oci.INDEX_FILE).exists()

    def index(self) -> dict[str, object]:
        """Return the index as it is; an empty one if there is none yet."""
        self._must_be_tellable()
        try:
            data = read_small(self.root / oci.INDEX_FILE, oci.MOST_DOCUMENT)
        except ImageNotFound as error:
            if isinstance(error.__cause__, FileNotFoundError):
                return dict(_EMPTY)
            raise CatalogError(str(error)) from error
        return oci.read(data, f"{self.root / oci.INDEX_FILE}")

    def entries(self, document: Mapping[str, object]) -> tuple[oci.Descriptor, ...]:
        """Return what an index has, with names and without."""
        return oci.index_entries(document, f"{self.root / oci.INDEX_FILE}")

    def refs(self, document: Mapping[str, object]) -> dict[str, oci.Descriptor]:
        """Return what the names in an index point to; the first counts if one is there twice.

        A name that cannot be printed is none: nobody could say it, and a terminal might obey it.
        """
        named: dict[str, oci.Descriptor] = {}
        for each in self.entries(document):
            ref = each.annotations.get(oci.REF_NAME, "")
            if ref and ref.isprintable():
                named.setdefault(ref, each)
        return named

    def _create(self) -> None:
        for folder in (self.root, (self.root / BLOBS).parent, self.root / BLOBS):
            make_folder(folder)
        if not (self.root / RESERVE).exists():
            self._reserve()
        for name, contents in ((oci.LAYOUT_FILE, _LAYOUT), (oci.INDEX_FILE, _EMPTY)):
            if not (self.root / name).exists():
                self._create_file(name, contents)

    def _create_file(self, name: str, contents: Mapping[str, object]) -> None:
        with locked(self.root / ".lock"):
            if not (self.root / name).exists():
                write_whole(self.root / name, oci.write(contents))
        sync_folder(self.root)

    def _write_index(self, data: bytes) -> None:
        """Write the index; on a full disk a smaller one has the place of the reserve."""
        path = self.root / oci.INDEX_FILE
        try:
            write_whole(path, data)
        except OSError as error:
            if error.errno not in DISK_IS_FULL or len(data) >= path.stat().st_size:
                raise
            (self.root / RESERVE).unlink(missing_ok=True)
            write_whole(path, data)
            with suppress(OSError):  # somebody else took the room: the next image is to bring it
                self._reserve()

    def _reserve(self) -> None:
        """Take room; random bytes need it also where a file system compresses."""
        write_whole(self.root / RESERVE, os.urandom(RESERVE_BYTES))

    @contextmanager
    def errors(self) -> Iterator[None]:
        """Turn errors of the file system into `CatalogError`."""
        self._must_be_tellable()
        try:
            yield
        except OSError as error:
            where = os.fsdecode(error.filename) if error.filename else self.where
            hint = _FULL if error.errno in DISK_IS_FULL else ""
            raise CatalogError(f"{where}: {error.strerror}{hint}") from error

    def _must_be_tellable(self) -> None:
        if any(each in str(self.root) for each in _UNSAFE):
            raise CatalogError(
                f"{self.root}: hypervisors cannot be told paths with blanks or commas; "
                "use a folder without"
            )


def set_ref(document: dict[str, object], ref: str, target: oci.Descriptor | None) -> None:
    """Make a name in an index point to something, or to nothing; what else it has stays."""
    manifests = document.get("manifests", [])
    if not isinstance(manifests, list):
        raise ImageRefused(f"{oci.INDEX_FILE}: manifests: not a list")
    others = [each for each in manifests if _ref_of(each) != ref]
    document["manifests"] = [*others, *([target.document()] if target else [])]


def _ref_of(entry: object) -> object:
    annotations = entry.get("annotations") if isinstance(entry, dict) else None
    return annotations.get(oci.REF_NAME) if isinstance(annotations, dict) else None

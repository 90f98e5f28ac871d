"""OCI image layouts of others, in a folder or in a tar archive: what `add` imports from.

A layout is only read, and nothing in it is believed: documents are bounded (`oci`), archives are
read by `tarball`, and every blob is hashed on its way into the catalogue.
"""

import zlib
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import BinaryIO, Protocol

from images.catalog import oci, tarball
from images.catalog.blobs import BLOBS, Readable, sha256
from images.catalog.files import open_regular, read_small, reading
from images.catalog.names import Digest, hex_of
from images.errors import ImageDamaged, ImageNotFound, ImageRefused

MOST_FLAVOURS = 64
MOST_NESTED = 3  # an index in an index in an index
MOST_DOCUMENTS = 4 * MOST_FLAVOURS
INDEXES = (oci.INDEX, "application/vnd.docker.distribution.manifest.list.v2+json")


class Layout(Protocol):
    """An OCI image layout; `where` names it in messages."""

    @property
    def where(self) -> str:
        """What it is called in messages."""
        ...

    def small(self, name: str) -> bytes:
        """Return what is in a file at most as large as a document; `ImageError` if it cannot."""
        ...

    def blob(self, digest: Digest, stack: ExitStack) -> Readable:
        """Open a blob until the stack closes; its bytes are not checked yet."""
        ...


class FolderLayout:
    """A layout in a folder."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.where = str(path)

    def small(self, name: str) -> bytes:
        """See `Layout`."""
        return read_small(self._path / name, oci.MOST_DOCUMENT)

    def blob(self, digest: Digest, stack: ExitStack) -> Readable:
        """See `Layout`."""
        return stack.enter_context(open_regular(self._path / BLOBS / hex_of(digest)))


class TarLayout:
    """A layout in a tar archive, which must not be compressed."""

    def __init__(self, file: BinaryIO, where: str) -> None:
        self._file = file
        self._members = tarball.members(file, where)
        self.where = where

    def small(self, name: str) -> bytes:
        """See `Layout`."""
        member = self._member(name)
        if member.size > oci.MOST_DOCUMENT:
            raise ImageRefused(f"{self.where}: {name}: larger than {oci.MOST_DOCUMENT} bytes")
        return tarball.Slice(self._file, member).read(member.size)

    def blob(self, digest: Digest, stack: ExitStack) -> Readable:  # noqa: ARG002 - is open
        """See `Layout`."""
        return tarball.Slice(self._file, self._member(f"{BLOBS}/{hex_of(digest)}"))

    def _member(self, name: str) -> tarball.Member:
        try:
            return self._members[name]
        except KeyError:
            raise ImageNotFound(f"{self.where}: has no {name}") from None


@contextmanager
def open_layout(path: Path, where: str) -> Iterator[Layout | None]:
    """Open the layout that a path is, or yield None if it is none."""
    with ExitStack() as stack:
        if path.is_dir():
            yield FolderLayout(path) if (path / oci.LAYOUT_FILE).exists() else None
            return
        with reading(path) as file:
            is_tar = tarball.is_tar(file)
        yield TarLayout(stack.enter_context(open_regular(path)), where) if is_tar else None


def manifests(layout: Layout, ref: str) -> list[tuple[oci.Descriptor, bytes]]:
    """Return the image manifests that a ref of a layout leads to, verified.

    Without a ref, the layout must have one image only. Raises `ImageError`.
    """
    version = oci.read(layout.small(oci.LAYOUT_FILE), f"{layout.where}: {oci.LAYOUT_FILE}")
    if version.get("imageLayoutVersion") != oci.LAYOUT_VERSION:
        raise ImageRefused(f"{layout.where}: not an OCI image layout {oci.LAYOUT_VERSION}")
    where = f"{layout.where}: {oci.INDEX_FILE}"
    entries = oci.index_entries(oci.read(layout.small(oci.INDEX_FILE), where), where)
    found = leaves(layout, _chosen(entries, ref, layout.where))
    return [(each, document(layout, each)) for each in found]


def leaves(layout: Layout, top: oci.Descriptor) -> list[oci.Descriptor]:
    """Return the image manifests below a descriptor, in order, not read; raises `ImageError`."""
    found: list[oci.Descriptor] = []
    todo, count = [(top, 0)], 0
    while todo:
        descriptor, depth = todo.pop()
        count += 1
        if count > MOST_DOCUMENTS or depth > MOST_NESTED or len(found) > MOST_FLAVOURS:
            raise ImageRefused(
                f"{layout.where}: more than {MOST_FLAVOURS} flavours of one image, or indexes "
                f"nested more than {MOST_NESTED} deep"
            )
        if descriptor.media_type in INDEXES:
            data = document(layout, descriptor)
            where = f"{layout.where}: {descriptor.digest[:19]}"
            entries = oci.index_entries(oci.read(data, where), where)
            todo += [(entry, depth + 1) for entry in reversed(entries)]
        else:
            found.append(descriptor)
    return found


def _chosen(entries: tuple[oci.Descriptor, ...], ref: str, where: str) -> oci.Descriptor:
    refs = sorted({each.annotations.get(oci.REF_NAME, "") for each in entries} - {""})
    fitting = [each for each in entries if each.annotations.get(oci.REF_NAME) == ref or not ref]
    if len({each.digest for each in fitting}) != 1:
        problem = f"has no image {ref!r}" if ref else "has several images, or none"
        known = ", ".join(each[:100] for each in refs[:20]) or "none with a name"
        raise ImageNotFound(f"{where}: {problem}; name one as oci:PATH:REF, of: {known}")
    return fitting[0]


def document(layout: Layout, descriptor: oci.Descriptor) -> bytes:
    """Return the verified bytes of a document in a layout."""
    where = f"{layout.where}: {descriptor.digest}"
    if descriptor.size > oci.MOST_DOCUMENT:
        raise ImageRefused(f"{where}: larger than {oci.MOST_DOCUMENT} bytes")
    data = layout.small(f"{BLOBS}/{hex_of(descriptor.digest)}")
    if (found := sha256(data)) != descriptor.digest:
        raise ImageDamaged(where, descriptor.digest, found)
    return data


class Gunzip:
    """Reads what is in a gzip stream; at no time more of it is in memory than was asked for."""

    def __init__(self, source: Readable, where: str) -> None:
        self._source = source
        self._where = where
        self._inflate = zlib.decompressobj(wbits=31)  # 15 bits of window, and a gzip header

    def read(self, size: int, /) -> bytes:
        """Return the next bytes, at most so many."""
        while not self._inflate.eof:
            packed = self._inflate.unconsumed_tail or self._source.read(64 * 1024)
            try:
                data = self._inflate.decompress(packed, size)
            except zlib.error as error:
                raise ImageRefused(f"{self._where}: damaged: {error}") from None
            if data:
                return data
            if not packed:
                raise ImageRefused(f"{self._where}: truncated")
        return b""

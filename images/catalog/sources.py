"""What `add` takes images from: files, folders, URLs and OCI image layouts, all into one shape.

Each source becomes `Gathered` images whose files are staged: hashed, on our disk, not yet visible.
"""

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import yaml

from images.catalog import download, minisign, oci
from images.catalog.blobs import Blob, Progress, Staging
from images.catalog.config import ImageConfig, config_of
from images.catalog.entry import FORMATS, Layer, Role, title_of
from images.catalog.files import read_small
from images.catalog.layout import open_layout
from images.catalog.names import Digest
from images.catalog.packages import Gathered, Importer
from images.catalog.recognise import Inspect, disk_format, role_of
from images.errors import ImageNotFound, ImageRefused

OCI_PREFIXES = ("oci:", "oci-archive:")  # as skopeo writes them; either may be a folder or a tar
MOST_CONFIG_FILE = 64 * 1024

_CONFIG_FILES = ("image.yaml", "image.json")


@dataclass(frozen=True, slots=True)
class Part:
    """A file on this machine that is to belong to an image; the rest is as in `Layer`.

    `role` None means that its bytes tell. `title` is what a file of ours came from; empty: itself.
    """

    path: Path
    role: Role | None = None
    format: str = ""
    name: str = ""
    read_only: bool = True
    title: str = ""

    @property
    def what(self) -> str:
        """What it is called in messages."""
        return self.title or str(self.path)


def told(part: Part, inspect: Inspect) -> Part:
    """Return a part with its role and its format, by its bytes where they were not said."""
    role = part.role or role_of(inspect(part.path)) or Role.KERNEL
    file_format = disk_format(part.path, part.what, part.format) if role is Role.DISK else ""
    return replace(part, role=role, format=file_format)


@dataclass(frozen=True, slots=True)
class Source:
    """What somebody named as a source; `fetched` is where its file is if it was a URL."""

    text: str
    digest: Digest | None = None
    fetched: Path | None = None


@contextmanager
def fetched(
    sources: Iterable[Source], folder: Path, *, most: int, progress: Progress
) -> Iterator[list[Source]]:
    """Download what the URLs among sources lead to, each at most so many bytes."""
    with ExitStack() as stack:
        yield [
            replace(
                each,
                fetched=stack.enter_context(
                    download.downloaded(
                        each.text, _needed(each), folder, most=most, progress=progress
                    )
                ),
            )
            if download.is_url(each.text)
            else each
            for each in sources
        ]


def _needed(source: Source) -> Digest:
    if source.digest is None:
        raise ImageRefused(
            f"{download.shown(source.text)}: what is fetched needs its digest, from a source that "
            "you trust; add --digest sha256:..."
        )
    return source.digest


Check = Callable[[Sequence[Part], ImageConfig], None]
"""Raises `ImageRefused` unless files, as `told`, make an image that some host can boot."""


@dataclass(frozen=True, slots=True)
class Gatherer:
    """Stages what sources have; with `signed`, also the signature files beside local files.

    Files of this machine are checked before they are copied.
    """

    staging: Staging
    inspect: Inspect
    check: Check
    progress: Progress
    signed: bool = False

    def gather(self, source: Source) -> list[Gathered]:
        """Return the images of a source; raises `ImageError`."""
        if source.fetched is not None:
            return self._from_url(source.text, _needed(source), source.fetched)
        text, digest = source.text, source.digest
        for prefix in OCI_PREFIXES:
            if text.startswith(prefix):
                path, _, ref = text.removeprefix(prefix).partition(":")
                return self._from_layout(Path(path), ref, digest)
        local = Path(text)
        if not local.is_dir():
            return self._from_file(local, digest)
        if (local / oci.LAYOUT_FILE).exists():
            return self._from_layout(local, "", digest)
        if digest:
            raise ImageRefused(f"{local}: a folder has no digest; give one for a file or a URL")
        return [self._from_folder(local)]

    def local(
        self,
        parts: Sequence[Part],
        config: ImageConfig = ImageConfig(),  # noqa: B008 - immutable
        digest: Digest | None = None,
    ) -> Gathered:
        """Stage files of this machine that make an image, if they do."""
        parts = [told(part, self.inspect) for part in parts]
        self.check(parts, config)
        return Gathered(tuple(self.file(part, digest) for part in parts), config)

    def file(self, part: Part, digest: Digest | None = None) -> Layer:
        """Stage a file of this machine, as `told`."""
        blob = self.staging.copy_file(part.path, expected=digest, progress=self.progress)
        layer = _layer(part, blob, title_of(part.path.name))
        beside = part.path.with_name(part.path.name + minisign.SUFFIX)
        if not (self.signed and beside.exists()):
            return layer
        return replace(layer, minisig=signature_in(beside).text)

    def _from_url(self, url: str, digest: Digest, path: Path) -> list[Gathered]:
        what = download.shown(url)
        with open_layout(path, what) as layout:
            if layout is not None:
                return Importer(self.staging, self.inspect, self.progress).images(layout, "")
        blob = self.staging.adopt(path, digest)
        part = told(Part(self.staging.path(digest), title=what), self.inspect)
        return [Gathered((_layer(part, blob, title_of(what)),))]

    def _from_layout(self, path: Path, ref: str, digest: Digest | None) -> list[Gathered]:
        if digest:
            raise ImageRefused(f"{path}: a layout has no digest; give one for a file or a URL")
        with open_layout(path, str(path)) as layout:
            if layout is None:
                raise ImageRefused(f"{path}: neither an OCI image layout nor a tar archive of one")
            return Importer(self.staging, self.inspect, self.progress).images(layout, ref)

    def _from_file(self, path: Path, digest: Digest | None) -> list[Gathered]:
        with open_layout(path, str(path)) as layout:
            if layout is not None and not digest:
                return Importer(self.staging, self.inspect, self.progress).images(layout, "")
        return [self.local([Part(path)], digest=digest)]

    def _from_folder(self, path: Path) -> Gathered:
        """Gather a folder with a `kernel`, an `initrd`, disks and an `image.yaml`, as there are."""
        parts = [
            Part(path / role, role) for role in (Role.KERNEL, Role.INITRD) if (path / role).exists()
        ]
        parts += [
            Part(file, Role.DISK, file.suffix.removeprefix("."))
            for file in sorted(path.glob("disk*"))
            if file.suffix.removeprefix(".") in FORMATS
        ]
        if not parts:
            raise ImageNotFound(f"{path}: has no file kernel, disk*.raw or disk*.qcow2")
        return self.local(parts, config_in(path))


def _layer(part: Part, blob: Blob, title: str) -> Layer:
    role = part.role or Role.KERNEL
    return Layer(role, blob, part.format, part.name, part.read_only, title)


def signature_in(path: Path) -> minisign.Signature:
    """Return the signature in a file; raises `ImageError`."""
    data = read_small(path, minisign.MOST_BYTES)
    return minisign.signature_of(data.decode(errors="replace"), str(path))


def config_in(folder: Path) -> ImageConfig:
    """Return what the ``image.yaml`` or ``image.json`` in a folder says, if there is one."""
    for path in (folder / name for name in _CONFIG_FILES):
        if path.exists():
            data = read_small(path, MOST_CONFIG_FILE)
            try:
                written = json.loads(data) if path.suffix == ".json" else yaml.safe_load(data)
            except (ValueError, yaml.YAMLError, RecursionError) as error:
                raise ImageRefused(f"{path}: cannot be read: {error}") from None
            if not isinstance(written, dict):
                raise ImageRefused(f"{path}: write one 'field: value' per line")
            return config_of(written, str(path), strict=True)
    return ImageConfig()

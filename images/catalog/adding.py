"""From sources to an image that may be kept: every check, then its two documents.

Nothing here is visible yet; `Catalog` gives it a name.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from images.catalog import download, oci, recognise
from images.catalog.blobs import Blob, Progress, Staging, quiet
from images.catalog.bootable import checked
from images.catalog.config import ImageConfig
from images.catalog.entry import (
    Entry,
    Layer,
    Role,
    manifest_descriptor,
    manifest_document,
    usual_flavour,
)
from images.catalog.minisign import PublicKey
from images.catalog.names import Digest
from images.catalog.packages import Gathered
from images.catalog.sources import Gatherer, Part, Source, signature_in, told
from images.catalog.trust import PathOf, Trust, signed
from images.errors import ImageRefused, ImageUntrusted

Guard = Callable[[Entry], None]
"""Raises an error if an entry must stay as it is, because something depends on it."""

_FLAVOUR = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


def unguarded(entry: Entry) -> None:
    """Let every entry be changed: the default `Guard`."""


@dataclass(frozen=True, slots=True)
class Adding:
    """How images are added.

    `config` is what is said of them beyond what their source says; `parts` are files that belong to
    them besides it. `flavour` is what they are called among several for one name: by default, their
    platforms. `signatures` are files of minisign, each for one file, by one of `keys` or of the
    catalogue's own trusted keys; with either, every file has to be signed. With `replace`, flavours
    of the same name are replaced, unless the guard objects. `most` limits a download, in bytes.
    """

    config: ImageConfig = field(default_factory=ImageConfig)
    parts: tuple[Part, ...] = ()
    flavour: str = ""
    signatures: tuple[Path, ...] = ()
    keys: tuple[PublicKey, ...] = ()
    replace: bool = False
    guard: Guard = unguarded
    most: int = download.MOST_BYTES
    progress: Progress = quiet

    @property
    def changes_nothing(self) -> bool:
        """Whether an image of another catalogue stays as it is, to the digest."""
        return not (self.config.said() or self.parts or self.flavour or self.signatures)


@dataclass(frozen=True, slots=True)
class Made:
    """An image that may be kept: `digests` are those of all its blobs."""

    flavour: str
    descriptor: oci.Descriptor
    digests: tuple[Digest, ...]


class Maker:
    """Makes images of what was gathered, under a catalogue's rules."""

    def __init__(
        self, staging: Staging, trust: Trust, inspect: recognise.Inspect, how: Adding
    ) -> None:
        self._staging = staging
        self._trust = trust
        self._inspect = inspect
        self._how = how

    def make(self, sources: Sequence[Source]) -> list[Made]:
        """Return the images of sources, or the one that the parts make; raises `ImageError`."""
        how = self._how
        extra = [told(part, self._inspect) for part in how.parts]

        def check(parts: Sequence[Part], config: ImageConfig) -> None:
            checked([*parts, *extra], config.overridden(how.config), self._inspect)

        signed_beside = bool(self._trust.keys or how.keys) and not how.signatures
        gatherer = Gatherer(self._staging, self._inspect, check, how.progress, signed=signed_beside)
        gathered = [each for source in sources for each in gatherer.gather(source)]
        gathered = gathered or [gatherer.local(())]
        files = [gatherer.file(part) for part in extra]
        made = [self._made(each, (*each.layers, *files)) for each in gathered]
        _must_differ([each.flavour for each in made])
        return made

    def _made(self, gathered: Gathered, layers: tuple[Layer, ...]) -> Made:
        how = self._how
        layers = checked_disks(layers, self._staging.path)
        layers = self._signed(layers)
        config = checked(self._parts(layers), gathered.config.overridden(how.config), self._inspect)
        if gathered.manifest and how.changes_nothing:
            return self._as_it_is(gathered)
        flavour = how.flavour or gathered.flavour or usual_flavour(config)
        config_blob = self._staging.put(oci.write(config.document()))
        manifest = self._staging.put(oci.write(manifest_document(flavour, config_blob, layers)))
        digests = (manifest, config_blob, *(layer.blob for layer in layers))
        return Made(flavour, manifest_descriptor(manifest, config), _digests(*digests))

    def _parts(self, layers: Sequence[Layer]) -> list[Part]:
        path_of = self._staging.path
        return [
            Part(
                path_of(each.blob.digest),
                each.role,
                each.format,
                each.name,
                each.read_only,
                each.title or str(each.role),
            )
            for each in layers
        ]

    def _as_it_is(self, gathered: Gathered) -> Made:
        manifest = oci.manifest_of(oci.read(gathered.manifest, gathered.flavour), gathered.flavour)
        blob = self._staging.put(gathered.manifest)
        parts = (manifest.config, *manifest.layers)
        digests = (blob.digest, *(each.digest for each in parts))
        return Made(gathered.flavour, manifest_descriptor(blob, gathered.config), digests)

    def _signed(self, layers: tuple[Layer, ...]) -> tuple[Layer, ...]:
        how, path_of = self._how, self._staging.path
        keys = how.keys or self._trust.keys
        if how.signatures and not keys:
            raise ImageUntrusted("a signature says nothing without a key: add --key")
        signatures = [signature_in(path) for path in how.signatures]
        layers = signed(layers, signatures, keys, path_of)
        Trust(keys).check(layers, path_of)
        self._trust.check(layers, path_of)
        return layers


def _must_differ(flavours: Sequence[str]) -> None:
    for name in flavours:
        if not _FLAVOUR.fullmatch(name):
            raise ImageRefused(f"{name[:100]!r} is no name for a flavour; write one word")
        if flavours.count(name) > 1:
            raise ImageRefused(
                f"several of these images are for {name}; add them one by one, each with a "
                "--flavour of its own"
            )


def checked_disks(layers: Sequence[Layer], path_of: PathOf) -> tuple[Layer, ...]:
    """Return the files with the format of each disk; ImageRefused if it is not what was said."""
    return tuple(
        replace(
            each, format=recognise.disk_format(path_of(each.blob.digest), each.title, each.format)
        )
        if each.role is Role.DISK
        else each
        for each in layers
    )


def _digests(*blobs: Blob) -> tuple[Digest, ...]:
    return tuple(blob.digest for blob in blobs)

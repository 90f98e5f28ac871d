"""The catalogue of images: add, list, find, fetch, tag, remove, verify, collect, export.

A `Catalog` is a folder on this machine, an OCI image layout (`store`), in which images have names
and are kept by digest. It can be used from threads and from several processes at once. Every error
is an `images.errors.ImageError`.
"""

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from itertools import zip_longest
from pathlib import Path

from images.bootspec import Image
from images.catalog import export, leases, oci, recognise, upkeep
from images.catalog.adding import Adding, Guard, Made, Maker, checked_disks, unguarded
from images.catalog.blobs import Progress, quiet
from images.catalog.config import config_of
from images.catalog.entry import (
    Entry,
    Fetched,
    Flavour,
    flavour_of,
    image_of,
    is_ours,
    layers_of,
    title_of,
)
from images.catalog.layout import FolderLayout, document, leaves
from images.catalog.minisign import PublicKey
from images.catalog.names import Digest, digest_of, is_name, name_of, prefix_of
from images.catalog.sources import Part, Source, fetched
from images.catalog.store import TRUSTED_KEYS, Store, set_ref
from images.catalog.trust import Trust, TrustFile
from images.catalog.upkeep import GRACE_S, Damage, Removed
from images.errors import ImageDamaged, ImageError, ImageExists, ImageNotFound, ImageRefused

PLAINLY = Adding()


class Catalog:
    """Named, content-addressed images in a folder; made when something is first added.

    `keys` are trusted: with any, nothing is taken or used that is not signed by them. None means
    those in the catalogue's file ``trusted-keys``, if it has one. `inspect` tells what a file is.
    `clock` is the wall clock, in seconds.
    """

    def __init__(
        self,
        root: Path,
        *,
        keys: Sequence[PublicKey] | None = None,
        inspect: recognise.Inspect = recognise.look_at,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._store = Store(root)
        self._blobs = self._store.blobs
        self._layout = FolderLayout(self._store.root)
        given = None if keys is None else Trust(keys)
        file = TrustFile(self._store.root / TRUSTED_KEYS)
        self._trust = file.now if given is None else lambda: given
        self._inspect = inspect
        self._clock = clock

    @property
    def keys(self) -> tuple[PublicKey, ...]:
        """The trusted keys."""
        return self._trust().keys

    # --- adding -----------------------------------------------------------------------------------

    def add(self, ref: str, parts: Sequence[Part], how: Adding = PLAINLY) -> Entry:
        """Add an image made of files of this machine as NAME or NAME:TAG."""
        return self._add(ref, (), replace(how, parts=(*parts, *how.parts)))

    def add_from(
        self, ref: str, *sources: str, digests: Sequence[str] = (), how: Adding = PLAINLY
    ) -> Entry:
        """Add images from sources: each a file, a folder, a URL or an OCI image layout.

        Together they are the flavours of one NAME or NAME:TAG, beside those it has. `digests` are
        those of the files of the sources, in their order; a URL needs one. Nothing of them can be
        seen before all is there and right.
        """
        if digests and len(digests) != len(sources):
            raise ImageRefused(f"{ref}: {len(digests)} digests for {len(sources)} sources")
        checked = [digest_of(each, "digest") for each in digests]
        wanted = zip_longest(sources, checked)
        return self._add(ref, [Source(text, digest) for text, digest in wanted], how)

    def tag(
        self, ref: str, new: str, *, replace_it: bool = False, guard: Guard = unguarded
    ) -> Entry:
        """Give an entry, or one flavour by its digest, another name.

        Raises `ImageExists` if that is taken by something else, unless `replace_it`, to which the
        guard may object.
        """
        name = str(name_of(new).tagged())
        self._must_exist(ref)
        with self._store.changing() as index:
            refs = self._store.refs(index)
            _, target = self._resolved(ref, refs)
            old = refs.get(name)
            if old and old.digest != target.digest:
                if not replace_it:
                    raise ImageExists(
                        f"{name} is the name of another image; --replace takes it away"
                    )
                guard(self._entry_or_problem(name, old))
            if not old or old.digest != target.digest:
                set_ref(index, name, self._named(target, name))
        return self.find(name)

    def remove(self, ref: str, *, guard: Guard = unguarded) -> Entry:
        """Take away a name; its files go when they are collected. Returns what it stood for."""
        self._must_exist(ref)
        with self._store.changing() as index:
            refs = self._store.refs(index)
            name = self._name_in(ref, refs)
            entry = self._entry_or_problem(name, refs[name])
            guard(entry)
            set_ref(index, name, None)
        return entry

    # --- finding ----------------------------------------------------------------------------------

    def list(self) -> tuple[Entry, ...]:
        """Return what every name stands for; one that cannot be read says so in `problem`."""
        refs = self._store.refs(self._store.index())
        return tuple(self._entry_or_problem(ref, refs[ref]) for ref in sorted(refs))

    def find(self, ref: str) -> Entry:
        """Return what NAME, NAME:TAG or a digest (or its first digits) stands for.

        A NAME without a tag is the one with the tag `latest`, or the only one there is. Raises
        `ImageNotFound`, and says what there is.
        """
        return self._resolved(ref, self._store.refs(self._store.index()))[0]

    def depends(self, ref: str, entry: Entry) -> bool:
        """Return whether a name or digest would lead elsewhere, or nowhere, without an entry."""
        refs = self._store.refs(self._store.index())
        try:
            digest = self._resolved(ref, refs)[1].digest
        except ImageError:
            return False  # it leads nowhere as it is
        refs.pop(entry.ref, None)
        try:
            return self._resolved(ref, refs)[1].digest != digest
        except ImageError:
            return True

    def fetch(self, asked: Image) -> tuple[Fetched, ...]:
        """Return the flavours of an image of the catalogue; each is verified when it is used.

        What `asked` says itself stays. An image that is not of the catalogue is returned as it is.
        """
        if not asked.catalog:
            return (Fetched("", (), lambda: asked),)
        return tuple(
            Fetched(each.name, each.config.platforms, partial(self._image, each, asked))
            for each in self.find(asked.catalog).flavours
        )

    # --- keeping ----------------------------------------------------------------------------------

    def verify(self, ref: str = "", progress: Progress = quiet) -> tuple[Damage, ...]:
        """Read every byte of an image, or of all there is, and return what is wrong."""
        entries = [self.find(ref)] if ref and not is_name(ref) else self._chosen(ref)
        return upkeep.verify(
            self._store, self._trust(), entries, everything=not ref, progress=progress
        )

    def hold(self, who: str, files: Iterable[Path]) -> None:
        """Keep those of the files that are blobs of ours from being collected, for a guest.

        That lasts until `release`, whoever runs; a second hold replaces the first. Files that are
        none of ours need nothing. Raises `ImageNotFound` if one was removed already.
        """
        leases.hold(self._store, who, files)

    def release(self, who: str) -> None:
        """Let go of what a guest used; nothing happens if that is nothing."""
        leases.release(self._store, who)

    def holders(self) -> tuple[str, ...]:
        """Return the guests that hold files."""
        return leases.holders(self._store)

    def collect(self, *, grace_s: float = GRACE_S, dry_run: bool = False) -> tuple[Removed, ...]:
        """Remove blobs that no name leads to, nobody holds, and are older than `grace_s` seconds.

        Waits until nobody is adding. With `dry_run`, nothing is removed. Raises `ImageDamaged` if
        it cannot be told what a name leads to, `CatalogError` if not what somebody holds.
        """
        return upkeep.collect(self._store, grace_s, self._clock(), dry_run=dry_run)

    def export(self, ref: str, target: Path, progress: Progress = quiet) -> Entry:
        """Write an entry as an OCI image layout: a new folder, or a file if the name ends in .tar.

        Every byte is verified on its way. Raises `CatalogError` if it cannot be written.
        """
        entry, descriptor = self._resolved(ref, self._store.refs(self._store.index()))
        export.export(self._store, entry, descriptor, target, progress)
        return entry

    # --- inside -----------------------------------------------------------------------------------

    def _add(self, ref: str, sources: Sequence[Source], how: Adding) -> Entry:
        name = str(name_of(ref).tagged())
        with (
            self._store.made(),
            fetched(sources, self._store.downloads, most=how.most, progress=how.progress) as ready,
            self._store.adding(),
            self._blobs.staging() as staging,
        ):
            made = Maker(staging, self._trust(), self._inspect, how).make(ready)
            staging.keep(digest for each in made for digest in each.digests)
            with self._store.changing() as index:
                old = self._store.refs(index).get(name)
                target, blob = _target(self._merged(name, old, made, how))
                if blob:
                    staging.put(blob)
                    staging.keep([target.digest])
                if old is None or old.digest != target.digest:
                    set_ref(index, name, self._named(target, name))
        return self.find(name)

    def _merged(
        self, name: str, old: oci.Descriptor | None, made: Sequence[Made], how: Adding
    ) -> dict[str, oci.Descriptor]:
        """Return the flavours a name will have, of those it has and the new ones."""
        new = {each.flavour: each.descriptor for each in made}
        if old is None:
            return new
        try:
            entry = self._entry(name, old)
        except (ImageNotFound, ImageRefused, ImageDamaged) as error:
            if not how.replace:
                raise ImageExists(f"{name} is taken: {error}; --replace takes it away") from error
            entry = Entry(name, old.digest, (), problem=str(error))
        has = {each.name: each.digest for each in entry.flavours}
        lost = [each for each in new if each in has and has[each] != new[each].digest]
        if lost and not how.replace:
            raise ImageExists(
                f"{name} has another image for {', '.join(lost)}; add this one with another tag, "
                "with another --flavour, or with --replace"
            )
        if lost or entry.problem:
            how.guard(entry)
        return self._descriptors(old, entry) | new

    def _descriptors(self, top: oci.Descriptor, entry: Entry) -> dict[str, oci.Descriptor]:
        if entry.problem:
            return {}
        by_digest = {each.digest: each for each in leaves(self._layout, top)}
        return {
            each.name: replace(by_digest[each.digest], annotations={}) for each in entry.flavours
        }

    def _named(self, target: oci.Descriptor, name: str) -> oci.Descriptor:
        now = datetime.fromtimestamp(self._clock(), UTC).isoformat(timespec="seconds")
        return replace(target, annotations={oci.REF_NAME: name, oci.CREATED: now})

    def _must_exist(self, ref: str) -> None:
        if not self._store.exists():
            raise _not_found(ref, ())

    def _resolved(self, ref: str, refs: dict[str, oci.Descriptor]) -> tuple[Entry, oci.Descriptor]:
        try:
            name = self._name_in(ref, refs)
        except ImageNotFound:
            if not (prefix := prefix_of(ref)):
                raise
            return self._by_digest(ref, prefix, refs)
        return self._entry(name, refs[name]), refs[name]

    @staticmethod
    def _name_in(ref: str, refs: dict[str, oci.Descriptor]) -> str:
        if ref in refs:
            return ref
        name = name_of(ref) if is_name(ref) else None
        if name is None or name.tag:
            raise _not_found(ref, refs)
        if str(name.tagged()) in refs:
            return str(name.tagged())
        tags = sorted(each for each in refs if each.startswith(f"{name.name}:"))
        if len(tags) == 1:
            return tags[0]
        if tags:
            raise ImageNotFound(f"image {ref}: which one? There are {', '.join(tags)}")
        raise _not_found(ref, refs)

    def _by_digest(
        self, ref: str, prefix: str, refs: dict[str, oci.Descriptor]
    ) -> tuple[Entry, oci.Descriptor]:
        start = f"sha256:{prefix}"
        found: dict[Digest, tuple[Entry, oci.Descriptor]] = {}
        for name, descriptor in sorted(refs.items()):
            entry = self._entry_or_problem(name, descriptor)
            if entry.digest.startswith(start):
                found.setdefault(entry.digest, (entry, descriptor))
            for each in entry.flavours:
                if each.digest.startswith(start) and each.digest not in found:
                    one = Entry(each.digest, each.digest, (each,), entry.added, each.problem)
                    leaf = self._descriptors(descriptor, entry)[each.name]
                    found[each.digest] = one, leaf
        if len(found) > 1:
            raise ImageNotFound(f"image {ref}: which one? There are {', '.join(sorted(found))}")
        if not found:
            raise _not_found(ref, refs)
        (entry, descriptor) = next(iter(found.values()))
        if entry.problem:
            raise ImageRefused(f"image {entry.ref}: {entry.problem}")
        return entry, descriptor

    def _chosen(self, ref: str) -> Sequence[Entry]:
        """Return the entries to verify, also those that cannot be read."""
        refs = self._store.refs(self._store.index())
        names = [self._name_in(ref, refs)] if ref else sorted(refs)
        return [self._entry_or_problem(name, refs[name]) for name in names]

    def _entry_or_problem(self, ref: str, descriptor: oci.Descriptor) -> Entry:
        try:
            return self._entry(ref, descriptor)
        except ImageError as error:
            added = descriptor.annotations.get(oci.CREATED, "")
            return Entry(ref, descriptor.digest, (), added, problem=str(error))

    def _entry(self, ref: str, top: oci.Descriptor) -> Entry:
        """Return what a name points to; raises `ImageError` if no flavour of it can be read."""
        flavours: list[Flavour] = []
        errors: list[ImageError] = []
        for each in leaves(self._layout, top):
            try:
                flavours.append(self._flavour(ref, each))
            except ImageError as error:
                errors.append(error)
                name = title_of(each.annotations.get(oci.FLAVOUR, "")) or each.digest[:19]
                flavours.append(Flavour(name, each.digest, problem=str(error)))
        if errors and len(errors) == len(flavours):
            raise errors[0]
        added = top.annotations.get(oci.CREATED, "")
        return Entry(ref, top.digest, tuple(flavours), added)

    def _flavour(self, ref: str, descriptor: oci.Descriptor) -> Flavour:
        where = f"image {ref}"
        manifest = oci.manifest_of(oci.read(document(self._layout, descriptor), where), where)
        if not is_ours(manifest):
            raise ImageRefused(
                f"{where} was put here by another tool and is not in our form; import it: "
                f"edgewake image add NAME oci:{self._store.root}:{ref}"
            )
        config = config_of(oci.read(document(self._layout, manifest.config), where), where)
        layers = layers_of(manifest, where)
        return Flavour(flavour_of(manifest, config), descriptor.digest, config, layers)

    def _image(self, flavour: Flavour, asked: Image) -> Image:
        if flavour.problem:
            raise ImageError(flavour.problem)
        digests = [layer.blob.digest for layer in flavour.layers]
        paths = {digest: self._blobs.verified(digest) for digest in digests}
        self._trust().check(flavour.layers, self._blobs.path)
        checked_disks(flavour.layers, self._blobs.path)
        return image_of(flavour, paths, asked)


def _target(flavours: dict[str, oci.Descriptor]) -> tuple[oci.Descriptor, bytes]:
    """Return what a name is to point to: the one flavour, or an index of them and its bytes."""
    if len(flavours) == 1:
        return next(iter(flavours.values())), b""
    entries = [
        replace(each, annotations={oci.FLAVOUR: name}).document()
        for name, each in sorted(flavours.items())
    ]
    return oci.index_of(entries)


def _not_found(ref: str, known: Iterable[str]) -> ImageNotFound:
    names = ", ".join(sorted(known)) or "it has none yet"
    return ImageNotFound(f"no image {ref[:300]!r} in the catalogue; there are: {names}")

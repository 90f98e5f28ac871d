"""Images out of OCI image layouts: ours as they are, and those of others as far as we know them.

Of others, a layer counts if its bytes are a kernel, an initrd or a disk (what `oras push` makes of
plain files), or if it is a tar archive with Unikraft's ``unikraft/bin/kernel`` and
``unikraft/bin/initrd`` (what `kraft pkg` makes; its platform and command are taken over). Container
images are no images in our sense, and refused.
"""

import shlex
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field

from images.bootspec import Platform
from images.catalog import oci, tarball
from images.catalog.blobs import Blob, Progress, Readable, Staging
from images.catalog.config import LONGEST_LINE, ImageConfig, config_of
from images.catalog.entry import Layer, Role, check_roles, flavour_of, is_ours, layers_of, title_of
from images.catalog.files import open_regular
from images.catalog.layout import Gunzip, Layout, document, manifests
from images.catalog.names import Digest
from images.catalog.recognise import Inspect, role_of
from images.errors import ImageRefused

MOST_UNPACKED = 16 << 30  # bytes that come out of a compressed layer

_TARS = (
    "application/vnd.oci.image.layer.v1.tar",
    "application/vnd.oci.image.layer.v1.tar+gzip",
    "application/vnd.docker.image.rootfs.diff.tar.gzip",
)
_CONFIGS = (
    "application/vnd.oci.image.config.v1+json",
    "application/vnd.docker.container.image.v1+json",
)
# Where Unikraft's packages have their files, and what they call platforms (kraftkit,
# oci/wellknown.go and unikraft/plat).
_UNIKRAFT = {"unikraft/bin/kernel": Role.KERNEL, "unikraft/bin/initrd": Role.INITRD}
_PLATFORMS = {"qemu": Platform.QEMU, "kvm": Platform.QEMU, "xen": Platform.XEN}


@dataclass(frozen=True, slots=True)
class Gathered:
    """An image whose files are staged; `manifest` is its own, if it came with one of ours."""

    layers: tuple[Layer, ...]
    config: ImageConfig = field(default_factory=ImageConfig)
    flavour: str = ""
    manifest: bytes = b""


@dataclass(frozen=True, slots=True)
class Importer:
    """Stages the files of images in a layout."""

    staging: Staging
    inspect: Inspect
    progress: Progress

    def images(self, layout: Layout, ref: str) -> list[Gathered]:
        """Return the images that a ref leads to; those of others that we cannot use are left out.

        Raises `ImageRefused`, saying why for each, if none is left.
        """
        gathered: list[Gathered] = []
        refused: list[str] = []
        for descriptor, data in manifests(layout, ref):
            where = f"{layout.where}: {descriptor.digest[:19]}"
            manifest = oci.manifest_of(oci.read(data, where), where)
            if is_ours(manifest):
                gathered.append(self._ours(layout, manifest, data, where))
                continue
            try:
                gathered.append(self._foreign(layout, manifest, where))
            except ImageRefused as error:
                refused.append(str(error))
        if not gathered:
            raise ImageRefused("; ".join(refused) or f"{layout.where}: has no image")
        return gathered

    def _ours(self, layout: Layout, manifest: oci.Manifest, data: bytes, where: str) -> Gathered:
        layers = layers_of(manifest, where)
        written = document(layout, manifest.config)
        config = config_of(oci.read(written, where), where)
        self.staging.put(written)
        for descriptor in manifest.layers:
            self._blob(layout, descriptor, where)
        return Gathered(layers, config, flavour_of(manifest, config), data)

    def _foreign(self, layout: Layout, manifest: oci.Manifest, where: str) -> Gathered:
        config = ImageConfig()
        if manifest.config.media_type in _CONFIGS:
            config = _unikraft_config(oci.read(document(layout, manifest.config), where), where)
        layers: list[Layer] = []
        for descriptor in manifest.layers:
            if descriptor.media_type in _TARS:
                layers += self._unpacked(layout, descriptor, where)
            else:
                layers += self._recognised(layout, descriptor, where)
        if not layers:
            raise ImageRefused(
                f"{where}: no layer has an image that we know: neither a kernel, an initrd or a "
                "disk as it is, nor Unikraft's unikraft/bin/kernel in a tar archive"
            )
        check_roles([each.role for each in layers], where)
        return Gathered(tuple(layers), config)

    def _unpacked(self, layout: Layout, descriptor: oci.Descriptor, where: str) -> Iterator[Layer]:
        """Yield the files that Unikraft's packages have in a tar layer."""
        packed = self._blob(layout, descriptor, where)
        with ExitStack() as stack:
            file = stack.enter_context(open_regular(self.staging.path(packed.digest)))
            if descriptor.media_type.endswith("gzip"):
                plain = self._copy(Gunzip(file, where), where, None, MOST_UNPACKED)
                file = stack.enter_context(open_regular(self.staging.path(plain.digest)))
            found = tarball.members(file, where)
            for name, role in _UNIKRAFT.items():
                if member := found.get(name):
                    blob = self._copy(tarball.Slice(file, member), name, None, member.size)
                    yield Layer(role, blob, title=title_of(name))

    def _recognised(
        self, layout: Layout, descriptor: oci.Descriptor, where: str
    ) -> Iterator[Layer]:
        blob = self._blob(layout, descriptor, where)
        role = role_of(self.inspect(self.staging.path(blob.digest)))
        if role is not None:
            yield Layer(role, blob, title=title_of(descriptor.annotations.get(oci.TITLE, "")))

    def _blob(self, layout: Layout, descriptor: oci.Descriptor, where: str) -> Blob:
        with ExitStack() as stack:
            what = f"{where}: layer {descriptor.digest[:19]}"
            if there := self.staging.there(descriptor.digest):
                return self._sized(there, descriptor.size, what)
            source = layout.blob(descriptor.digest, stack)
            return self._copy(source, what, descriptor.digest, descriptor.size)

    def _copy(self, source: Readable, what: str, digest: Digest | None, size: int) -> Blob:
        blob = self.staging.copy(
            source, what, expected=digest, most=size, total=size, progress=self.progress
        )
        return blob if digest is None else self._sized(blob, size, what)

    @staticmethod
    def _sized(blob: Blob, size: int, what: str) -> Blob:
        if blob.size != size:
            raise ImageRefused(f"{what}: has {blob.size} bytes, and is said to have {size}")
        return blob


def _unikraft_config(document: dict[str, object], where: str) -> ImageConfig:
    """Return what the image configuration of a Unikraft package says that we can use."""
    running = document.get("config")
    command = running.get("Cmd") if isinstance(running, dict) else None
    words = command if isinstance(command, list) else []
    cmdline = shlex.join(str(word) for word in words)[: LONGEST_LINE + 1]
    platform = _PLATFORMS.get(str(document.get("os")))
    return config_of({"cmdline": cmdline, "platforms": [platform.value] if platform else []}, where)

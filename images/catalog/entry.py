"""The nouns of the catalogue: an `Entry` is a name, `Flavour`s its images, `Layer`s their files.

Here they also turn into OCI documents and back.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from pathlib import Path

from images.bootspec import Disk, Image, Platform
from images.catalog import minisign, oci
from images.catalog.blobs import Blob
from images.catalog.config import ImageConfig
from images.catalog.names import SHORT_DIGEST, Digest, hex_of
from images.errors import ImageRefused

MOST_DISKS = 16
LONGEST_TITLE = 128
RAW, QCOW2 = "raw", "qcow2"
FORMATS = (RAW, QCOW2)
ANY = "any"  # the flavour of an image that says no platform

OCI_ARCHITECTURES = {"x86_64": "amd64", "i686": "386", "aarch64": "arm64"}  # GOARCH, as OCI has it


class Role(StrEnum):
    """What a file is for."""

    KERNEL = "kernel"
    INITRD = "initrd"
    DISK = "disk"


@dataclass(frozen=True, slots=True)
class Layer:
    """One file of an image.

    `format` is raw or qcow2 and `name` what the image calls the device, for a disk; `title` the
    file's name where it came from; `minisig` the text of its minisign signature, or empty.
    """

    role: Role
    blob: Blob
    format: str = ""
    name: str = ""
    read_only: bool = True
    title: str = ""
    minisig: str = ""

    @property
    def signature(self) -> minisign.Signature | None:
        """The signature that is recorded, checked or not."""
        return (
            minisign.signature_of(self.minisig, self.title or self.role) if self.minisig else None
        )


@dataclass(frozen=True, slots=True)
class Flavour:
    """One image of an entry: the one for some platforms. `digest` is its manifest's.

    `problem` says why it cannot even be read, and is empty if nothing is known against it.
    """

    name: str
    digest: Digest
    config: ImageConfig = field(default_factory=ImageConfig)
    layers: tuple[Layer, ...] = ()
    problem: str = ""

    @property
    def size(self) -> int:
        """The size of its files, in bytes."""
        return sum(layer.blob.size for layer in self.layers)


@dataclass(frozen=True, slots=True)
class Entry:
    """What a name in the catalogue stands for.

    `ref` is NAME:TAG, or a digest when it was found by one; `digest` is what it points to and
    changes whenever anything in it does; `added` is when, in RFC 3339, or empty. `problem` says why
    it cannot be used, and is empty if nothing is known against it; each flavour has its own.
    """

    ref: str
    digest: Digest
    flavours: tuple[Flavour, ...]
    added: str = ""
    problem: str = ""

    @property
    def short(self) -> str:
        """The first digits of its digest, for people."""
        return hex_of(self.digest)[:SHORT_DIGEST]

    @property
    def size(self) -> int:
        """The size of its files in bytes, each counted once."""
        blobs = {layer.blob for flavour in self.flavours for layer in flavour.layers}
        return sum(blob.size for blob in blobs)


@dataclass(frozen=True, slots=True)
class Fetched:
    """One flavour of an image that was asked for, not yet verified.

    `platforms` are those it was made for; empty means any. `ready` verifies its files and returns
    it with them in place; it raises `ImageError` if this flavour, and no other, cannot be used.
    """

    flavour: str
    platforms: tuple[Platform, ...]
    ready: Callable[[], Image]


def usual_flavour(config: ImageConfig) -> str:
    """Return the name of a flavour that was given none: its platforms."""
    return "-".join(sorted(config.platforms)) or ANY


def image_of(flavour: Flavour, paths: Mapping[Digest, Path], asked: Image) -> Image:
    """Return an image with a flavour's files and configuration, where `asked` does not say more."""
    config = replace(flavour.config, platforms=(), architecture="")
    said = {name: value for name, value in config.said().items() if not getattr(asked, name)}
    if asked.obeys_shutdown is False:
        said.pop("obeys_shutdown", None)
    files = {layer.role: paths[layer.blob.digest] for layer in flavour.layers}
    disks = tuple(
        Disk(paths[each.blob.digest], each.format, each.read_only, each.name)
        for each in flavour.layers
        if each.role is Role.DISK
    )
    return replace(
        asked,
        kernel=files.get(Role.KERNEL),
        initrd=files.get(Role.INITRD),
        disks=disks,
        **said,
    )


def manifest_document(flavour: str, config: Blob, layers: tuple[Layer, ...]) -> dict[str, object]:
    """Return the manifest of an image."""
    return {
        "schemaVersion": 2,
        "mediaType": oci.MANIFEST,
        "artifactType": oci.ARTIFACT,
        "config": oci.Descriptor(oci.CONFIG, config.digest, config.size).document(),
        "layers": [_descriptor(layer).document() for layer in layers],
        "annotations": {oci.FLAVOUR: flavour},
    }


def manifest_descriptor(manifest: Blob, config: ImageConfig) -> oci.Descriptor:
    """Return what an index says of a manifest.

    As `kraft` does, the platform's `os` is the hypervisor: OCI tools pick a flavour by it.
    """
    return oci.Descriptor(
        oci.MANIFEST,
        manifest.digest,
        manifest.size,
        os=config.platforms[0] if config.platforms else "",
        architecture=OCI_ARCHITECTURES.get(config.architecture, config.architecture),
    )


def is_ours(manifest: oci.Manifest) -> bool:
    """Return whether an image was made by a catalogue such as this one."""
    return manifest.config.media_type == oci.CONFIG


def layers_of(manifest: oci.Manifest, where: str) -> tuple[Layer, ...]:
    """Return the files of an image of ours; ImageRefused if they make no image."""
    layers = tuple(_layer(each, where) for each in manifest.layers)
    check_roles([each.role for each in layers], where)
    return layers


def flavour_of(manifest: oci.Manifest, config: ImageConfig) -> str:
    """Return the name of the flavour that a manifest of ours is."""
    return title_of(manifest.annotations.get(oci.FLAVOUR, "")) or usual_flavour(config)


def check_roles(roles: Sequence[Role | None], where: str) -> None:
    """Raise `ImageRefused` unless files with these roles make an image."""
    if roles.count(Role.KERNEL) > 1 or roles.count(Role.INITRD) > 1:
        raise ImageRefused(f"{where}: an image has at most one kernel and one initrd")
    if roles.count(Role.DISK) > MOST_DISKS:
        raise ImageRefused(f"{where}: an image has at most {MOST_DISKS} disks")
    if Role.KERNEL not in roles and Role.DISK not in roles:
        raise ImageRefused(f"{where}: neither a kernel nor a disk: there is nothing to boot")


def title_of(name: str) -> str:
    """Return the last part of a file's name as it may be kept and shown."""
    last = name.replace("\\", "/").rstrip("/").rpartition("/")[2]
    return "".join(each for each in last if each.isprintable())[:LONGEST_TITLE]


def _descriptor(layer: Layer) -> oci.Descriptor:
    said = {
        oci.TITLE: layer.title,
        oci.DISK_NAME: layer.name,
        oci.WRITABLE: "" if layer.read_only else "true",
        oci.MINISIG: layer.minisig,
    }
    media_type = {Role.KERNEL: oci.KERNEL, Role.INITRD: oci.INITRD}.get(
        layer.role, oci.DISK.format(format=layer.format)
    )
    annotations = {key: value for key, value in said.items() if value}
    return oci.Descriptor(media_type, layer.blob.digest, layer.blob.size, annotations)


_ROLES = {
    oci.KERNEL: (Role.KERNEL, ""),
    oci.INITRD: (Role.INITRD, ""),
    **{oci.DISK.format(format=each): (Role.DISK, each) for each in FORMATS},
}


def _layer(descriptor: oci.Descriptor, where: str) -> Layer:
    try:
        role, disk_format = _ROLES[descriptor.media_type]
    except KeyError:
        raise ImageRefused(f"{where}: a layer of type {descriptor.media_type[:100]!r}") from None
    said = descriptor.annotations
    layer = Layer(
        role,
        Blob(descriptor.digest, descriptor.size),
        disk_format,
        name=title_of(said.get(oci.DISK_NAME, "")),
        read_only=said.get(oci.WRITABLE) != "true",
        title=title_of(said.get(oci.TITLE, "")),
        minisig=said.get(oci.MINISIG, ""),
    )
    _ = layer.signature  # what is recorded has to be a signature, right or wrong
    return layer

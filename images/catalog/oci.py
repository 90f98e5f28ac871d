"""OCI documents (image-spec 1.1): index, manifest and descriptor, read without trust and written.

Only what the catalogue needs is read. Every size is bounded, every digest is checked before it
names a file, URLs are never followed and inline data is never used. `ImageRefused` says what is
wrong in which document.
"""

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from images.catalog.names import Digest, digest_of
from images.errors import ImageRefused

LAYOUT_FILE = "oci-layout"
INDEX_FILE = "index.json"
LAYOUT_VERSION = "1.0.0"

INDEX = "application/vnd.oci.image.index.v1+json"
MANIFEST = "application/vnd.oci.image.manifest.v1+json"
ARTIFACT = "application/vnd.edgewake.image.v1"
CONFIG = "application/vnd.edgewake.image.config.v1+json"
KERNEL = "application/vnd.edgewake.image.kernel.v1"
INITRD = "application/vnd.edgewake.image.initrd.v1"
DISK = "application/vnd.edgewake.image.disk.{format}.v1"

REF_NAME = "org.opencontainers.image.ref.name"
CREATED = "org.opencontainers.image.created"
TITLE = "org.opencontainers.image.title"
FLAVOUR = "vnd.edgewake.image.flavour"
DISK_NAME = "vnd.edgewake.image.disk.name"
WRITABLE = "vnd.edgewake.image.disk.writable"
MINISIG = "vnd.edgewake.image.minisig"

MOST_DOCUMENT = 4 << 20  # bytes; registries take manifests of up to 4 MiB
MOST_SIZE = 1 << 50  # bytes; no blob is larger, and no sum of them overflows anything
MOST_DESCRIPTORS = 10_000
MOST_LAYERS = 64
LONGEST_TEXT = 32 * 1024  # characters of one annotation

# Where documents refer to blobs, and whether those are documents themselves.
_LINKS = {"config": False, "layers": False, "blobs": False, "manifests": True, "subject": True}


@dataclass(frozen=True, slots=True)
class Descriptor:
    """A reference to a blob; `os` and `architecture` are its platform as it was written."""

    media_type: str
    digest: Digest
    size: int
    annotations: Mapping[str, str] = field(default_factory=dict)
    os: str = ""
    architecture: str = ""

    def document(self) -> dict[str, object]:
        """Return the descriptor as it is written."""
        written: dict[str, object] = {
            "mediaType": self.media_type,
            "digest": self.digest,
            "size": self.size,
        }
        if self.os or self.architecture:
            written["platform"] = {"architecture": self.architecture, "os": self.os}
        if self.annotations:
            written["annotations"] = dict(self.annotations)
        return written


@dataclass(frozen=True, slots=True)
class Manifest:
    """One image: its configuration and its files."""

    config: Descriptor
    layers: tuple[Descriptor, ...]
    annotations: Mapping[str, str]


def read(data: bytes, where: str) -> dict[str, object]:
    """Return the JSON object in untrusted bytes; its members are checked by who uses them."""
    if len(data) > MOST_DOCUMENT:
        raise ImageRefused(f"{where}: larger than {MOST_DOCUMENT} bytes, which no such document is")
    try:
        document = json.loads(data, parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        raise ImageRefused(f"{where}: not JSON that we read: {error}") from None
    return _object(document, where)


def write(document: Mapping[str, object]) -> bytes:
    """Return a document as bytes, the same ones whenever its contents are the same."""
    return json.dumps(document, sort_keys=True, separators=(",", ":"), allow_nan=False).encode()


def index_of(entries: list[dict[str, object]]) -> tuple[Descriptor, bytes]:
    """Return an image index of these descriptors: its own descriptor, and its bytes."""
    data = write({"schemaVersion": 2, "mediaType": INDEX, "manifests": entries})
    digest = Digest(f"sha256:{hashlib.sha256(data).hexdigest()}")
    return Descriptor(INDEX, digest, len(data)), data


def index_entries(document: Mapping[str, object], where: str) -> tuple[Descriptor, ...]:
    """Return the descriptors in an image index."""
    entries = _list(document.get("manifests", []), f"{where}: manifests", MOST_DESCRIPTORS)
    return tuple(descriptor_of(entry, f"{where}: manifests") for entry in entries)


def manifest_of(document: Mapping[str, object], where: str) -> Manifest:
    """Return an image manifest."""
    layers = _list(document.get("layers", []), f"{where}: layers", MOST_LAYERS)
    return Manifest(
        config=descriptor_of(document.get("config"), f"{where}: config"),
        layers=tuple(descriptor_of(layer, f"{where}: layers") for layer in layers),
        annotations=_annotations(document.get("annotations", {}), where),
    )


def descriptor_of(value: object, where: str) -> Descriptor:
    """Return a descriptor from JSON."""
    written = _object(value, where)
    size = written.get("size")
    if not isinstance(size, int) or isinstance(size, bool) or not 0 <= size <= MOST_SIZE:
        raise ImageRefused(f"{where}: {str(size)[:100]!r} is no size")
    platform = _object(written.get("platform", {}), f"{where}: platform")
    return Descriptor(
        media_type=_text(written.get("mediaType", ""), f"{where}: mediaType"),
        digest=digest_of(written.get("digest"), where),
        size=size,
        annotations=_annotations(written.get("annotations", {}), where),
        os=_text(platform.get("os", ""), f"{where}: os"),
        architecture=_text(platform.get("architecture", ""), f"{where}: architecture"),
    )


def linked(document: Mapping[str, object], where: str) -> Iterator[tuple[Descriptor, bool]]:
    """Yield all that a document of any kind refers to, and whether that is a document itself."""
    for member, is_document in _LINKS.items():
        value = document.get(member, [])
        values = value if isinstance(value, list) else [value]
        for each in _list(values, f"{where}: {member}", MOST_DESCRIPTORS):
            yield descriptor_of(each, f"{where}: {member}"), is_document


def _no_constant(text: str) -> object:
    raise ValueError(f"{text} is no JSON number")


def _object(value: object, where: str) -> dict[str, object]:
    if not isinstance(value, dict):
        raise ImageRefused(f"{where}: not a JSON object")
    return value


def _list(value: object, where: str, most: int) -> list[object]:
    if not isinstance(value, list) or len(value) > most:
        raise ImageRefused(f"{where}: not a list of at most {most}")
    return value


def _text(value: object, where: str) -> str:
    if not isinstance(value, str) or len(value) > LONGEST_TEXT:
        raise ImageRefused(f"{where}: not a text of at most {LONGEST_TEXT} characters")
    try:
        value.encode()
    except UnicodeEncodeError:  # JSON can say half of a surrogate pair, files and terminals cannot
        raise ImageRefused(f"{where}: not a text that UTF-8 can write") from None
    return value


def _annotations(value: object, where: str) -> dict[str, str]:
    where = f"{where}: annotations"
    return {_text(key, where): _text(text, where) for key, text in _object(value, where).items()}

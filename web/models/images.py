"""Images: what there is to boot."""

from typing import Self

from orchestrator.image_insight import FlavourInsight, ImageInsight
from web.models.base import Document


class FlavourDocument(Document):
    """One form of an image; `digest` is the SHA-256 of its main file, empty if it cannot be read.

    `entries` are the ways in, `least_memory_mib` what its family was seen to need at least.
    """

    title: str
    family: str
    entries: list[str]
    file_bytes: int
    digest: str
    least_memory_mib: int

    @classmethod
    def of(cls, value: FlavourInsight) -> Self:
        """Return a flavour."""
        return cls(
            title=value.title,
            family=value.family,
            entries=list(value.entries),
            file_bytes=value.file_bytes,
            digest=value.digest,
            least_memory_mib=value.least_memory_mib,
        )


class ImageDocument(Document):
    """An image; `unusable` says why it cannot be booted anywhere, empty if it can.

    It comes from the catalogue by that name, or is made of `files`. `services` use it and ask for
    one of `memory_mib`; `hosts` would boot it for one of them now.
    """

    name: str
    catalog: str
    files: list[str]
    command: list[str]
    flavours: list[FlavourDocument]
    services: list[str]
    memory_mib: list[int]
    hosts: list[str]
    usable: bool
    unusable: str

    @classmethod
    def of(cls, value: ImageInsight) -> Self:
        """Return an image."""
        return cls(
            name=value.image.name,
            catalog=value.image.catalog,
            files=[str(path) for path in value.image.files],
            command=list(value.image.exec),
            flavours=[FlavourDocument.of(each) for each in value.flavours],
            services=list(value.services),
            memory_mib=list(value.memory_mib),
            hosts=list(value.hosts),
            usable=not value.unusable,
            unusable=value.unusable,
        )


class ImagesDocument(Document):
    """All images of the lab; `catalog` has the names of those that come from the catalogue."""

    catalog: list[str]
    images: list[ImageDocument]

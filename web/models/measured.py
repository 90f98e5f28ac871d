"""What guests are measured to be beside what is claimed of unikernels."""

from typing import Self

from orchestrator.measured import Claim, MeasuredImage
from web.models.base import Document


class ClaimDocument(Document):
    """A claim of the literature; `key` is the field of an image to compare, `most` in its unit."""

    key: str
    text: str
    most: float
    source: str

    @classmethod
    def of(cls, value: Claim) -> Self:
        """Return a claim."""
        return cls(key=value.key, text=value.text, most=value.most, source=value.source)


class MeasuredImageDocument(Document):
    """An image as measured in this run of edgewake; null where nothing was.

    `file_bytes` is the size of its files, `asked_mib` the least memory that a service gives its
    guests, `memory_bytes` what `guests` take on average as their hypervisor tells (with QEMU
    itself, where that runs them), `idle_cpu` the cores that they use at `idle_looks` when hardly a
    packet came, `boot_p50_s` the median of `boots` from nothing.
    """

    name: str
    family: str
    file_bytes: int | None
    asked_mib: int | None
    memory_bytes: float | None
    guests: int
    idle_cpu: float | None
    idle_looks: int
    boot_p50_s: float | None
    boots: int

    @classmethod
    def of(cls, value: MeasuredImage) -> Self:
        """Return an image."""
        return cls(
            name=value.name,
            family=value.family,
            file_bytes=value.file_bytes,
            asked_mib=value.asked_mib,
            memory_bytes=value.memory_bytes,
            guests=value.guests,
            idle_cpu=value.idle_cpu,
            idle_looks=value.idle_looks,
            boot_p50_s=value.boot_p50_s,
            boots=value.boots,
        )


class MeasuredDocument(Document):
    """All images of the lab, and the claims."""

    claims: list[ClaimDocument]
    images: list[MeasuredImageDocument]

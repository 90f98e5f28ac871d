"""Instances, and what each was booted from."""

from typing import Self

from pydantic import Field

from orchestrator.insight import InstanceInsight
from web.models.base import LONGEST_NAME, MOST_LISTED, Document, Page
from web.models.nouns import CapacityDocument, InstanceDocument


class InstanceDetails(InstanceDocument):
    """An instance; `rung` is where it stands, `takes` what it holds of its host.

    `image` and `entry` are what it was booted from, by which way in; empty if an earlier run booted
    it. `spare`: it is anonymous, and waits for a service.
    """

    rung: str
    image: str
    entry: str
    takes: CapacityDocument
    spare: bool

    @classmethod
    def with_origin(cls, value: InstanceInsight) -> Self:
        """Return an instance with what it was booted from."""
        fit = value.fit
        return cls(
            **dict(InstanceDocument.of(value.instance)),
            rung=value.instance.rung,
            image=fit.image.name if fit else "",
            entry=str(fit.entry) if fit else "",
            takes=CapacityDocument.of(value.takes),
            spare=value.spare,
        )


class InstancesWanted(Page):
    """Which instances are asked for: of a service, on a host, or all."""

    service: str = Field("", max_length=LONGEST_NAME)
    host: str = Field("", max_length=LONGEST_NAME)
    limit: int = Field(MOST_LISTED, ge=1, le=MOST_LISTED)


class InstancesDocument(Document):
    """Instances by name."""

    instances: list[InstanceDetails]
    next: str | None

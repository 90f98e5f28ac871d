"""Everything at a glance."""

from typing import Self

from orchestrator.views import Status
from web.models.base import Document
from web.models.hosts import HostDocument
from web.models.services import ServiceDocument


class Health(Document):
    """The process answers."""

    status: str
    lab: str


class StatusDocument(Document):
    """All hosts and services of a lab; `dns` is the address and port that answers for it."""

    lab: str
    dns: str
    hosts: list[HostDocument]
    services: list[ServiceDocument]

    @classmethod
    def of(cls, value: Status) -> Self:
        """Return all there is."""
        return cls(
            lab=value.lab,
            dns=value.dns,
            hosts=[HostDocument.of(each) for each in value.hosts],
            services=[ServiceDocument.of(each) for each in value.services],
        )

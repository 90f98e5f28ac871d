"""Services: how they are, waking them, and putting them to sleep."""

from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Annotated, Literal, Self

from pydantic import Field, PlainValidator, WithJsonSchema

from orchestrator.views import ServiceStatus
from web.models.base import LONGEST_NAME, Body, Document, Parameters
from web.models.nouns import ChoiceDocument, EndpointDocument, InstanceDocument
from web.models.plans import ChangeDocument
from web.models.wakes import WakeDocument


def _address(written: object) -> IPv4Address | IPv6Address:
    if not isinstance(written, str):
        raise ValueError(f"{written!r} is not an IP address")  # noqa: TRY004 - as pydantic wants
    return ip_address(written)


Address = Annotated[
    IPv4Address | IPv6Address,
    PlainValidator(_address),
    WithJsonSchema(
        {"anyOf": [{"type": "string", "format": "ipv4"}, {"type": "string", "format": "ipv6"}]}
    ),
]


class CopiesDocument(Document):
    """How many copies a service should have now, how many answer, and why so many."""

    wanted: int
    has: int
    why: str


class ServiceDocument(Document):
    """A service; asleep is a healthy state, `trouble` is how its last wake failed.

    `kept`: it sleeps where the warm plan keeps it.
    """

    name: str
    names: list[str]
    images: list[str]
    state: str
    rung: str
    idle: str
    trouble: str
    copies: CopiesDocument
    kept: bool
    instances: list[InstanceDocument]

    @classmethod
    def of(cls, value: ServiceStatus) -> Self:
        """Return a service."""
        return cls(
            name=value.service.name,
            names=list(value.service.names),
            images=list(value.service.images),
            state=value.state,
            rung=value.rung,
            idle=value.idle,
            trouble=value.trouble,
            copies=CopiesDocument(wanted=value.wanted, has=value.has, why=value.scale),
            kept=value.kept,
            instances=[InstanceDocument.of(each) for each in value.instances],
        )


class ServicesDocument(Document):
    """All services of the lab, in its order."""

    services: list[ServiceDocument]


class WakeWish(Body):
    """For whom a service is woken: the population of their address decides where."""

    client: Address | None = None


class Woken(Document):
    """Where the service answers; `wake` is null if it was awake."""

    endpoints: list[EndpointDocument]
    wake: WakeDocument | None


class SleepWish(Body):
    """How deep a service is to sleep; one rung down if it is not said."""

    to: Literal["paused", "saved", "cold"] | None = None


class Slept(Document):
    """The instances that went to sleep, and where the service stands now."""

    service: str
    slept: list[str]
    rung: str


class MoveWish(Body):
    """Where a service is to go."""

    host: str = Field(min_length=1, max_length=LONGEST_NAME)


class Moved(Document):
    """What was done to move a service."""

    service: str
    host: str
    changes: list[ChangeDocument]


class ForPopulation(Parameters):
    """For whom hosts are ranked; nobody in particular if it is not said."""

    population: str = Field("", max_length=LONGEST_NAME)


class Choices(Document):
    """All hosts as places for a service, the best first."""

    hosts: list[ChoiceDocument]

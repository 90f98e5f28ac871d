"""Small documents that others hold: amounts, instances, endpoints, abilities."""

from typing import Self

from orchestrator.model import Ability, Capacity, Endpoint, Instance
from orchestrator.views import Choice
from web.models.base import Document


class CapacityDocument(Document):
    """An amount of cores and memory (MiB)."""

    cpu: float
    memory_mib: int

    @classmethod
    def of(cls, value: Capacity) -> Self:
        """Return an amount."""
        return cls(cpu=value.cpu, memory_mib=value.memory_mib)


class InstanceDocument(Document):
    """An instance; times are seconds since the epoch, `to` is null unless it migrates."""

    name: str
    service: str
    host: str
    address: str
    address6: str | None
    mac: str
    state: str
    created_at: float
    ready_at: float | None
    to: str | None

    @classmethod
    def of(cls, value: Instance) -> Self:
        """Return an instance."""
        return cls(
            name=value.name,
            service=value.service,
            host=value.host,
            address=str(value.address),
            address6=str(value.address6) if value.address6 else None,
            mac=value.mac,
            state=value.state.value,
            created_at=value.created_at,
            ready_at=value.ready_at,
            to=value.to or None,
        )


class EndpointDocument(Document):
    """Where a service can be reached; `ttl_s` is how long a client may believe it."""

    service: str
    instance: str
    host: str
    address: str
    address6: str | None
    ttl_s: int

    @classmethod
    def of(cls, value: Endpoint) -> Self:
        """Return an endpoint."""
        return cls(
            service=value.service,
            instance=value.instance,
            host=value.host,
            address=str(value.address),
            address6=str(value.address6) if value.address6 else None,
            ttl_s=value.ttl_s,
        )


class ChoiceDocument(Document):
    """A host as a place for a service; `rank` is null where `why_not` says why."""

    host: str
    rank: int | None
    image: str
    entry: str
    distance_ms: float | None
    why_not: str

    @classmethod
    def of(cls, value: Choice) -> Self:
        """Return a choice."""
        return cls(
            host=value.host,
            rank=value.rank,
            image=value.image,
            entry=value.entry,
            distance_ms=value.distance_ms,
            why_not=value.why_not,
        )


class AbilityDocument(Document):
    """Whether guests of an image survive a rung on a host; `clock` is null where nobody could tell.

    `sleep_s` and `rouse_s` are what either took.
    """

    image: str
    host: str
    rung: str
    works: bool
    why: str
    sleep_s: float
    rouse_s: float
    clock: bool | None
    probed_at: float

    @classmethod
    def of(cls, value: Ability) -> Self:
        """Return what a probe found."""
        return cls(
            image=value.image,
            host=value.host,
            rung=value.rung,
            works=value.works,
            why=value.why,
            sleep_s=value.sleep_s,
            rouse_s=value.rouse_s,
            clock=value.clock,
            probed_at=value.probed_at,
        )


class Abilities(Document):
    """All that was found."""

    abilities: list[AbilityDocument]

"""Hosts, and how far they are drained."""

from collections.abc import Iterable
from typing import Self

from pydantic import Field

from orchestrator.drain import DrainReport, Migration
from orchestrator.insight import Power
from orchestrator.model import Instance
from orchestrator.views import HostStatus
from web.models.base import Body, Document
from web.models.nouns import CapacityDocument, InstanceDocument


class StuckDocument(Document):
    """What stays, and why; `ending`: it is to be ended, not moved, and cannot be."""

    instance: str
    why: str
    ending: bool


class MigrationDocument(Document):
    """How far a migration is; `percent`, and what is left in bytes, null while unknown."""

    instance: str
    to: str
    percent: int | None
    left_bytes: int | None

    @classmethod
    def of(cls, value: Migration) -> Self:
        """Return a migration."""
        known = value.percent is not None
        return cls(
            instance=value.instance,
            to=value.to,
            percent=value.percent,
            left_bytes=value.sent.left if known else None,
        )


class BootedDocument(Document):
    """An instance that could not be migrated, and why: a copy is booted elsewhere instead."""

    instance: str
    why: str


class DrainDocument(Document):
    """How far a drain is: `moved` of `total` instances; `since` is seconds since the epoch."""

    state: str
    since: float
    force: bool
    moved: int
    total: int
    stuck: list[StuckDocument]
    migrating: list[MigrationDocument]
    booted: list[BootedDocument]

    @classmethod
    def of(cls, value: DrainReport) -> Self:
        """Return a drain."""
        return cls(
            state=value.state,
            since=value.since,
            force=value.force,
            moved=value.moved,
            total=value.total,
            stuck=[
                StuckDocument(instance=each.instance, why=each.why, ending=each.ending)
                for each in value.stuck
            ],
            migrating=[MigrationDocument.of(each) for each in value.migrating],
            booted=[BootedDocument(instance=each.instance, why=each.why) for each in value.booted],
        )


class HostDocument(Document):
    """A host; `free` is null and `lost` says why while it cannot be reached.

    `refused` says why nothing is placed there although it can be reached; `guard` is how traffic to
    its sleeping guests is noticed, or why it is not; `spares` counts its anonymous instances.
    """

    name: str
    uri: str
    site: str
    usable: CapacityDocument
    used: CapacityDocument
    free: CapacityDocument | None
    reachable: bool
    lost: str
    refused: str
    drain: DrainDocument | None
    guard: str
    spares: int

    @classmethod
    def of(cls, value: HostStatus) -> Self:
        """Return a host."""
        return cls(
            name=value.host.name,
            uri=value.host.uri,
            site=value.host.site,
            usable=CapacityDocument.of(value.host.usable),
            used=CapacityDocument.of(value.used),
            free=None if value.lost or value.free is None else CapacityDocument.of(value.free),
            reachable=not value.lost,
            lost=value.lost,
            refused=value.refused,
            drain=None if value.drain is None else DrainDocument.of(value.drain),
            guard=value.guard,
            spares=value.spares,
        )


class PowerDocument(Document):
    """What a host draws, in watts; `now_w` is an estimate, null while it cannot be reached.

    It grows with the cores that are promised to guests that are awake.
    """

    now_w: float | None
    idle_w: float
    busy_w: float

    @classmethod
    def of(cls, value: Power, lost: str) -> Self:
        """Return what a host draws that is lost, unless that is empty."""
        now_w = None if lost else value.now_w
        return cls(now_w=now_w, idle_w=value.idle_w, busy_w=value.busy_w)


class HostDetails(HostDocument):
    """A host with what it is, what it draws (null if the lab file does not say), and its guests."""

    driver: str
    architecture: str
    router: str
    labels: dict[str, str]
    capacity: CapacityDocument
    reserve: CapacityDocument
    power: PowerDocument | None
    instances: list[InstanceDocument]

    @classmethod
    def with_guests(
        cls, value: HostStatus, power: Power | None, instances: Iterable[Instance]
    ) -> Self:
        """Return a host with its guests."""
        host = value.host
        return cls(
            **dict(HostDocument.of(value)),
            driver=host.driver,
            architecture=host.architecture.value,
            router=host.router,
            labels=dict(host.labels),
            capacity=CapacityDocument.of(host.capacity),
            reserve=CapacityDocument.of(host.reserve),
            power=PowerDocument.of(power, value.lost) if power else None,
            instances=[InstanceDocument.of(each) for each in instances],
        )


class HostsDocument(Document):
    """All hosts of the lab, in its order."""

    hosts: list[HostDetails]


class DrainWish(Body):
    """How to drain a host."""

    force: bool = Field(False, description="end what can run nowhere else")


class Drained(Document):
    """A host and its drain; null once it is used again."""

    host: str
    drain: DrainDocument | None

"""One service with all that is known: what was asked for, where it is and why, what it costs."""

from collections.abc import Sequence
from typing import Self

from orchestrator.image_insight import ImageInsight
from orchestrator.insight import Cost
from orchestrator.model import IdlePolicy, Scale, Service
from orchestrator.trace import Wake
from orchestrator.views import Choice, ServiceStatus
from web.models.base import Document
from web.models.images import ImageDocument
from web.models.nouns import CapacityDocument, ChoiceDocument
from web.models.services import ServiceDocument
from web.models.wakes import WakeDocument


class IdleDocument(Document):
    """When it may sleep, and how deep; null seconds mean for ever. See `docs/sleep.md`."""

    after_s: float | None
    min_up_s: float
    cool_down_s: float
    paused_s: float | None
    saved_s: float | None
    deepest: str
    needs_clock: bool
    pin: bool
    keep_warm: list[str]
    timezone: str

    @classmethod
    def of(cls, value: IdlePolicy) -> Self:
        """Return a policy."""
        return cls(
            after_s=value.after_s,
            min_up_s=value.min_up_s,
            cool_down_s=value.cool_down_s,
            paused_s=value.paused_s,
            saved_s=value.saved_s,
            deepest=value.deepest,
            needs_clock=value.needs_clock,
            pin=value.pin,
            keep_warm=[hours.text for hours in value.keep_warm],
            timezone=value.timezone,
        )


class ScaleDocument(Document):
    """By what load there are more copies; see `docs/lab-file.md`."""

    most: int
    cpu: float | None
    packets_s: float | None
    out_after_s: float
    in_after_s: float

    @classmethod
    def of(cls, value: Scale) -> Self:
        """Return a scale."""
        return cls(
            most=value.most,
            cpu=value.cpu,
            packets_s=value.packets_s,
            out_after_s=value.out_after_s,
            in_after_s=value.in_after_s,
        )


class PolicyDocument(Document):
    """What the lab file asks for, or what holds where it says nothing."""

    ttl_s: int
    deadline_s: float
    replicas: int
    most: int
    answer: str
    reply: str
    wake_on_traffic: bool
    restart: str
    on_crash: str
    on_host_loss: str
    migrate: str
    cpu_cap: float | None
    latency_bound_ms: float | None
    probe: str
    ports: list[str]
    idle: IdleDocument
    scale: ScaleDocument | None

    @classmethod
    def of(cls, value: Service) -> Self:
        """Return the policies of a service."""
        port = f" {value.probe.port}" if value.probe.port else ""
        return cls(
            ttl_s=value.ttl_s,
            deadline_s=value.deadline_s,
            replicas=value.replicas,
            most=value.most,
            answer=value.answer,
            reply=value.reply,
            wake_on_traffic=value.wake_on_traffic,
            restart=value.restart,
            on_crash=value.on_crash,
            on_host_loss=value.on_host_loss,
            migrate=value.migrate,
            cpu_cap=value.cpu_cap,
            latency_bound_ms=value.latency_bound_ms,
            probe=f"{value.probe.kind}{port}",
            ports=[f"{port.number}/{port.protocol}" for port in value.ports],
            idle=IdleDocument.of(value.idle),
            scale=ScaleDocument.of(value.scale) if value.scale else None,
        )


class WakeCostDocument(Document):
    """What a wake from a rung costs: `wait_ms`, measured or else guessed.

    `waiting` is the mean number of clients that would wait, if it always slept there.
    """

    rung: str
    wait_ms: float
    measured: bool
    waiting: float


class CostDocument(Document):
    """What one copy takes of a host while it is awake; `rate_s` is how often it is used (1/s)."""

    host: str
    cpu: float
    memory_mib: int
    rate_s: float
    wakes: list[WakeCostDocument]

    @classmethod
    def of(cls, value: Cost) -> Self:
        """Return a cost."""
        return cls(
            host=value.host,
            cpu=value.takes.cpu,
            memory_mib=value.takes.memory_mib,
            rate_s=value.rate_s,
            wakes=[
                WakeCostDocument(
                    rung=each.rung,
                    wait_ms=1000 * each.wait_s,
                    measured=each.measured,
                    waiting=each.waiting,
                )
                for each in value.wakes
            ],
        )


class WhereDocument(Document):
    """Where a service is and who chose that; where its next copy would go, best first.

    `decided_by` is of the last wake that came to be ready; empty if there was none.
    """

    hosts: list[str]
    decided_by: str
    choices: list[ChoiceDocument]


class ServiceDetails(ServiceDocument):
    """A service with what it asks for, its images, where it is and why, and what it costs.

    `cost` is null if no host can run it; `last_wakes` are oldest first.
    """

    resources: CapacityDocument
    policy: PolicyDocument
    image_details: list[ImageDocument]
    where: WhereDocument
    cost: CostDocument | None
    last_wakes: list[WakeDocument]

    @classmethod
    def with_reasons(
        cls,
        value: ServiceStatus,
        *,
        images: Sequence[ImageInsight],
        choices: Sequence[Choice],
        cost: Cost | None,
        wakes: Sequence[Wake],
    ) -> Self:
        """Return a service with all that is known of it."""
        ready = [wake for wake in wakes if wake.outcome == "ready"]
        hosts = sorted({each.host for each in value.instances})
        return cls(
            **dict(ServiceDocument.of(value)),
            resources=CapacityDocument.of(value.service.resources),
            policy=PolicyDocument.of(value.service),
            image_details=[ImageDocument.of(each) for each in images],
            where=WhereDocument(
                hosts=hosts,
                decided_by=ready[-1].decided_by if ready else "",
                choices=[ChoiceDocument.of(each) for each in choices],
            ),
            cost=CostDocument.of(cost) if cost else None,
            last_wakes=[WakeDocument.of(each) for each in wakes],
        )

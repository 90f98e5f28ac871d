"""Wakes: where their time went."""

from typing import Annotated, Self

from pydantic import Field, WithJsonSchema

from orchestrator.trace import Wake
from orchestrator.wake_summary import WakeSummary, Went
from web.models.base import LONGEST_NAME, Document, NumberedPage, Parameters

# A pair, said in words that readers of JSON Schema before 2020-12 know, too.
Stamp = Annotated[
    tuple[str, float],
    WithJsonSchema(
        {
            "type": "array",
            "minItems": 2,
            "maxItems": 2,
            "items": {"anyOf": [{"type": "string"}, {"type": "number"}]},
        }
    ),
]


class WakeDocument(Document):
    """A wake; `stamps` are pairs of a stage and the seconds from the query to it.

    `rung` is where the instance slept, `by` who asked first (query, pin, keep-warm or restart);
    `own_s` is what our own code took of `total_s`.
    """

    id: int
    service: str
    started_at: float
    outcome: str
    instance: str
    host: str
    queries: int
    text: str
    rung: str
    by: str
    decided_by: str
    total_s: float
    own_s: float
    stamps: list[Stamp]

    @classmethod
    def of(cls, value: Wake) -> Self:
        """Return a wake."""
        return cls(
            id=value.id,
            service=value.service,
            started_at=value.started_at,
            outcome=value.outcome,
            instance=value.instance,
            host=value.host,
            queries=value.queries,
            text=value.text,
            rung=value.rung,
            by=value.by,
            decided_by=value.decided_by,
            total_s=value.total_s,
            own_s=value.own_s,
            stamps=list(value.stamps),
        )


class LastWakes(NumberedPage):
    """Which wakes are asked for; of all services if none is named."""

    service: str = Field("", max_length=LONGEST_NAME)


class WakesDocument(Document):
    """The last wakes, oldest first; `next` leads to older ones, null if there are none."""

    wakes: list[WakeDocument]
    next: str | None


class Numbered(Parameters):
    """A path that names one wake."""

    number: int = Field(ge=1, lt=10**18)


class CountsDocument(Document):
    """How many wakes came to be ready, by the rung that they began at, and how many did not.

    `warm`: nothing had to be started; `pooled`: an anonymous instance was claimed.
    """

    cold: int = 0
    saved: int = 0
    paused: int = 0
    pooled: int = 0
    warm: int = 0
    failed: int = 0
    under_way: int = 0


class WentDocument(Document):
    """How wakes went; percentiles are of those that came to be ready, in seconds to the reply."""

    name: str
    wakes: int
    counts: CountsDocument
    p50_s: float | None
    p95_s: float | None
    p99_s: float | None

    @classmethod
    def of(cls, value: Went) -> Self:
        """Return how wakes went."""
        return cls(
            name=value.name,
            wakes=value.wakes,
            counts=CountsDocument(
                **dict(value.counts), failed=value.failed, under_way=value.under_way
            ),
            p50_s=value.p50_s,
            p95_s=value.p95_s,
            p99_s=value.p99_s,
        )


class FailureDocument(Document):
    """Why wakes failed, how many, and the last of them in words."""

    reason: str
    count: int
    text: str
    service: str
    wake: int


class WakeSummaryDocument(Document):
    """The wakes that are kept, in all, by service and by host; why some failed."""

    all: WentDocument
    services: list[WentDocument]
    hosts: list[WentDocument]
    failures: list[FailureDocument]

    @classmethod
    def of(cls, value: WakeSummary) -> Self:
        """Return a summary."""
        return cls(
            all=WentDocument.of(value.all),
            services=[WentDocument.of(each) for each in value.services],
            hosts=[WentDocument.of(each) for each in value.hosts],
            failures=[
                FailureDocument(
                    reason=each.reason,
                    count=each.count,
                    text=each.text,
                    service=each.service,
                    wake=each.wake,
                )
                for each in value.failures
            ],
        )

"""Wakes: where their time went."""

from typing import Self

from pydantic import Field

from orchestrator.trace import Wake
from web.models.base import DEFAULT_LISTED, LONGEST_NAME, MOST_LISTED, Document, Parameters


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
    stamps: list[tuple[str, float]]

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


class LastWakes(Parameters):
    """Which wakes are asked for; of all services if none is named."""

    service: str = Field("", max_length=LONGEST_NAME)
    limit: int = Field(DEFAULT_LISTED, ge=1, le=MOST_LISTED)


class WakesDocument(Document):
    """The last wakes, oldest first."""

    wakes: list[WakeDocument]

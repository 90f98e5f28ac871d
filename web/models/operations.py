"""Operations that take long: how far they are, and how they ended."""

import re
from typing import Any, Self

from pydantic import Field

from orchestrator.operations import Operation
from web.models.base import LONGEST_NAME, Document, Parameters
from web.models.problems import ProblemDocument
from web.problems import problem

MOST_WAIT_S = 300
_WAIT = re.compile(r"(?:^|[,;])\s*wait\s*=\s*\"?([0-9]{1,9})\"?\s*(?=[,;]|$)", re.IGNORECASE)


class Preferred(Parameters):
    """Whether to wait for the end of what is asked for (RFC 7240)."""

    prefer: str = Field(
        "",
        alias="Prefer",
        description="`wait=N`: answer when it has ended, or after N seconds at most",
    )

    @property
    def wait_s(self) -> int | None:
        """How long to wait at most; None: answer at once. What makes no sense is not there."""
        found = _WAIT.search(self.prefer)
        return min(int(found[1]), MOST_WAIT_S) if found else None


class Conditions(Preferred):
    """Of which version the change is meant (RFC 9110, 13.1), and whether to wait for its end."""

    if_match: str = Field(
        "", alias="If-Match", description="the ETag of `GET`: only if nobody has changed it since"
    )
    if_none_match: str = Field(
        "", alias="If-None-Match", description="`*`: only if there is none yet"
    )


class OperationNamed(Parameters):
    """A path that names an operation."""

    id: str = Field(min_length=1, max_length=LONGEST_NAME)


class ProgressDocument(Document):
    """`done` of `total` steps, 0 if nobody knows how many, and in words what is done now."""

    done: int
    total: int
    text: str


class OperationDocument(Document):
    """Work that goes on after the answer: queued, running, done with a result, or failed.

    Times are seconds since the epoch. `result` is the document that the request would have been
    answered with, `problem` the problem document.
    """

    id: str
    kind: str
    subject: str
    actor: str
    state: str
    asked_at: float
    started_at: float | None
    ended_at: float | None
    progress: ProgressDocument
    result: dict[str, Any] | None
    problem: ProblemDocument | None

    @classmethod
    def of(cls, value: Operation) -> Self:
        """Return an operation."""
        progress = value.progress
        error = value.error
        return cls(
            id=value.id,
            kind=value.kind,
            subject=value.subject,
            actor=value.actor,
            state=value.state,
            asked_at=value.asked_at,
            started_at=value.started_at,
            ended_at=value.ended_at,
            progress=ProgressDocument(done=progress.done, total=progress.total, text=progress.text),
            result=None if value.result is None else dict(value.result),
            problem=None if error is None else ProblemDocument(**problem(error)),
        )


class OperationsDocument(Document):
    """The last operations, oldest first; `next` leads to older ones."""

    operations: list[OperationDocument]
    next: str | None

"""Wakes as the dashboard draws them: bars by whose time it was, kinds, and failures in words.

Pure: API documents in, values for templates out. Lengths are in thousandths of a drawing's width,
so that templates and scripts need no arithmetic and no inline style.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from orchestrator.errors import WakeReason
from orchestrator.trace import STAGES, Owner, Wake, owner_of, wake_of, words_of

Document = Mapping[str, Any]

WIDTH = 1000.0  # of a drawing, in its own units
KINDS = ("cold", "saved", "paused", "pooled", "warm", "failed", "waking")
# The symbol (of templates/_icons.html) of each kind.
SYMBOLS = {
    "cold": "cold",
    "saved": "saved",
    "paused": "paused",
    "pooled": "warm",
    "warm": "ready",
    "failed": "failed",
    "waking": "waking",
}
# What a script copies and fills in when a wake begins.
BLANK: Document = {
    "id": 0,
    "service": "",
    "started_at": 0.0,
    "outcome": "waking",
    "instance": "",
    "host": "",
    "queries": 1,
    "text": "",
    "rung": "",
    "by": "query",
    "decided_by": "",
    "total_s": 0.0,
    "own_s": 0.0,
    "stamps": [],
}
OWNERS = tuple(str(owner) for owner in Owner)

# Why a wake failed, and what somebody can do about it.
REASONS: Mapping[str, str] = {
    WakeReason.UNKNOWN_SERVICE: "The lab has no such service. Was it removed meanwhile?",
    WakeReason.NO_CAPACITY: (
        "No host has the memory, processors or address it needs. Put something to sleep, add a "
        "host, or ask for less."
    ),
    WakeReason.IMAGE_UNUSABLE: (
        "Its image is missing or cannot be booted on any host. The service's page says which, and "
        "'edgewake image inspect' what is wrong with it."
    ),
    WakeReason.NOT_READY: (
        "The guest started but did not answer its readiness probe in time. Its console often says "
        "why; else the probe's port or the deadline is wrong."
    ),
    WakeReason.GUEST_DIED: (
        "The guest ended by itself before it answered. Its console has its last words."
    ),
    WakeReason.NO_HOST_REACHABLE: (
        "Every host that was tried failed to start it. The page of hosts says which cannot be "
        "reached, and why."
    ),
    WakeReason.OVERLOADED: "Too many wakes at once; it was refused, and may be asked for again.",
    WakeReason.BACKING_OFF: (
        "It failed several times in a row and is left alone for a while. Waking it by hand tries "
        "at once."
    ),
    WakeReason.INTERNAL: "Something in edgewake itself failed; its log says what. Report it.",
}


@dataclass(frozen=True, slots=True)
class Piece:
    """A part of a bar: from `x`, so wide, both in thousandths of its width; `seconds` long."""

    owner: str
    x: float
    width: float
    seconds: float


@dataclass(frozen=True, slots=True)
class Step:
    """A line of a waterfall: what ended then, at `at_s` since the query, and its piece."""

    stage: str
    words: str
    at_s: float
    piece: Piece


def kind_of(wake: Document) -> str:
    """Return where a wake began, one of `KINDS`: ``warm`` if nothing had to be started."""
    if wake["outcome"] == "waking":
        return "waking"
    if wake["outcome"] != "ready":
        return "failed"
    return wake["rung"] or "warm"


def reason(outcome: str) -> str:
    """Return a failed wake's outcome as sentences; empty if it did not fail."""
    if outcome in {"ready", "waking"}:
        return ""
    return REASONS.get(outcome, outcome)


def asker(by: str) -> str:
    """Return who asked first, in words."""
    return {
        "query": "a query",
        "pin": "nobody: the service is pinned",
        "keep-warm": "nobody: it is kept warm at this hour",
        "restart": "nobody: an instance was lost",
    }.get(by, by)


def pieces(wake: Document) -> tuple[Piece, ...]:
    """Return a bar of whose time a wake was: one piece for each owner that had any of it."""
    read = wake_of(wake)
    spent = [(owner, read.spent_s(owner)) for owner in Owner if owner is not Owner.CLIENT]
    return _row([(str(owner), seconds) for owner, seconds in spent if seconds > 0])


def _row(spent: Sequence[tuple[str, float]]) -> tuple[Piece, ...]:
    total = sum(seconds for _, seconds in spent) or 1.0
    row, before = [], 0.0
    for owner, seconds in spent:
        row.append(Piece(owner, _rounded(before / total), _rounded(seconds / total), seconds))
        before += seconds
    return tuple(row)


def steps(wake: Document) -> tuple[Step, ...]:
    """Return the waterfall of a wake, from the query on."""
    read = wake_of(wake)
    last = max((at for _, at in read.stamps), default=0.0) or 1.0
    return tuple(
        Step(
            stage=span.stage,
            words=words_of(span.stage),
            at_s=span.at_s,
            piece=Piece(
                owner=str(span.owner),
                x=_rounded((span.at_s - span.took_s) / last),
                width=_rounded(span.took_s / last),
                seconds=span.took_s,
            ),
        )
        for span in read.spans
    )


def _rounded(share: float) -> float:
    return round(share * WIDTH, 2)


def shares(wake: Document) -> dict[str, float]:
    """Return the seconds that were each owner's, by owner."""
    read: Wake = wake_of(wake)
    return {str(owner): read.spent_s(owner) for owner in Owner}


def stage_table() -> dict[str, dict[str, str]]:
    """Return the stages as scripts need them: owner and words, by name."""
    return {name: {"owner": str(owner_of(name)), "words": words_of(name)} for name in STAGES}

"""Placements as people read them: pure functions of API documents."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from typing import Any, NamedTuple

from web.pages.placement_words import Term, term

Document = Mapping[str, Any]

PROVEN = 1e-9  # a gap up to here is none
FEW = 5e-4


@dataclass(frozen=True, slots=True)
class Move:
    """A service that arrives `to` a host, leaves `source`, or both; one may be empty.

    `live`: it is migrated as it runs.
    """

    service: str
    source: str
    to: str
    why: str = ""
    live: bool = False


@dataclass(frozen=True, slots=True)
class Row:
    """Where the copies of a service are and will be, and why there."""

    service: str
    now: tuple[str, ...]
    then: tuple[str, ...]
    asleep: bool
    why: str

    @property
    def differs(self) -> bool:
        """Whether anything of it moves; what sleeps only wakes elsewhere."""
        return bool(self.now) and sorted(self.now) != sorted(self.then)


class Compared(NamedTuple):
    """A term of the objective, under the placement that runs now (None: not known) and a plan."""

    term: Term
    now: float | None
    then: float


def moves_of(changes: Iterable[Document]) -> list[Move]:
    """Return what changes come to: each arrival with a departure of the same service."""
    arrive: dict[str, list[Document]] = {}
    leave: dict[str, list[Document]] = {}
    moves: list[Move] = []
    for each in changes:
        if each["do"] == "boot":
            arrive.setdefault(each["service"], []).append(each)
        elif each["do"] == "stop":
            leave.setdefault(each["service"], []).append(each)
        elif each["do"] == "migrate":
            move = Move(each["service"], each["host"], each["to"], each["why"], live=True)
            moves.append(move)
    for service in sorted({*arrive, *leave}):
        for to, source in zip_longest(arrive.get(service, []), leave.get(service, [])):
            moves.append(
                Move(
                    service,
                    source["host"] if source else "",
                    to["host"] if to else "",
                    (to or source)["why"],
                )
            )
    return sorted(moves, key=lambda move: (move.service, move.source, move.to))


def moves_between(rows: Iterable[Row]) -> list[Move]:
    """Return what would have to move, of what is awake, for a plan that nobody has asked for."""
    moves = []
    for row in rows:
        if row.asleep or not row.differs:
            continue
        gone = _without(row.now, row.then)
        new = _without(row.then, row.now)
        for source, to in zip_longest(gone, new, fillvalue=""):
            moves.append(Move(row.service, source, to))
    return moves


def rows_of(plan: Document, status: Document) -> list[Row]:
    """Return where everything is and goes, what changes first."""
    services = {each["name"]: each for each in status["services"]}
    rows = []
    for name in sorted({*plan["hosts"], *services}):
        known = services.get(name)
        now = tuple(sorted(each["host"] for each in known["instances"])) if known else ()
        then = tuple(sorted(plan["hosts"].get(name, ())))
        asleep = known is None or known["state"] == "asleep"
        rows.append(Row(name, now, then, asleep, plan["why"].get(name, "")))
    return sorted(rows, key=lambda row: (row.asleep, not row.differs, row.service))


def terms_of(plan: Document, now: Document | None = None) -> list[Compared]:
    """Return each term under a plan and now, 0 for what is a rounding error of a solver.

    `now` is what the placement that runs is worth; nothing is told of it without its terms.
    """
    before = now["terms"] if now else {}
    return [
        Compared(term(name), _rounded(before.get(name)), _rounded(value) or 0.0)
        for name, value in plan["terms"].items()
    ]


def _rounded(value: float | None) -> float | None:
    return 0.0 if value is not None and abs(value) <= PROVEN else value


def verdict(plan: Document) -> str:
    """Return in words how good a plan is known to be."""
    bound, gap = plan["bound"], plan["gap"]
    if gap is None or bound is None:
        return "Nothing is proven: a better placement may exist. The exact algorithm would tell."
    if gap <= PROVEN:
        return "Proven best: none has a smaller value."
    share = "less than 0.1" if gap < FEW * 2 else f"{gap * 100:.2g}"
    return (
        f"No placement has a value below {bound:.6g}: at most {share} % less than this one. "
        "A longer deadline, or the exact algorithm, may come closer."
    )


def _without(some: Sequence[str], others: Sequence[str]) -> list[str]:
    left = list(others)
    kept = []
    for each in some:
        if each in left:
            left.remove(each)
        else:
            kept.append(each)
    return kept

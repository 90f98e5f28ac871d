"""In which order an answer names the copies of a service: nearest first, freest, or in turn.

For `orchestrator.fleet`, which knows where the copies are. Most clients use the first address of an
answer. No I/O and no clock; the only state is whose turn it is.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

from orchestrator.model import AnswerOrder, Endpoint
from orchestrator.steering.base import Order

LEAST_WEIGHT = 0.01  # cores: a host with nothing free is still named first, now and then
ROUND = 64  # turns: a longer round of weights is rounded to about as many
REMEMBERED = 1024  # rounds


@dataclass(frozen=True, slots=True)
class Copy:
    """A copy that answers. `distance_ms` is from the client, None if it is not known who asks.

    `free_cpu` is what its host has left, in cores; `shut` says that the host is lost, or is to have
    nothing any more.
    """

    endpoint: Endpoint
    distance_ms: float | None = None
    free_cpu: float = 0.0
    shut: bool = False


class Turns:
    """Whose turn it is, for each service. Not safe to use from several threads."""

    def __init__(self) -> None:
        self._count: dict[str, int] = {}
        self._credit: dict[str, dict[str, float]] = {}

    def order(self, service: str, rule: AnswerOrder, copies: Sequence[Copy]) -> Order:
        """Return the endpoints as the next answer is to name them; those of shut hosts come last.

        `ORDERED` puts the nearest first, or each in turn if nobody knows who asks. `WEIGHTED` has
        each first as often as its share of all free processors, and the nearest where two are due.
        `ROTATED` does not look at who asks.
        """
        fit = [copy for copy in copies if not copy.shut]
        shut = [copy for copy in copies if copy.shut]
        if rule is AnswerOrder.WEIGHTED:
            fit = self._weighted(service, fit)
        elif rule is AnswerOrder.ROTATED or any(copy.distance_ms is None for copy in fit):
            fit = self._rotated(service, fit)
        else:
            fit.sort(key=_distance_ms)
        if rule is not AnswerOrder.ROTATED:
            shut.sort(key=_distance_ms)
        return tuple(copy.endpoint for copy in (*fit, *shut))

    def _rotated(self, service: str, copies: list[Copy]) -> list[Copy]:
        if not copies:
            return copies
        turn = self._count.get(service, 0) % len(copies)
        self._count[service] = turn + 1
        return [*copies[turn:], *copies[:turn]]

    def _weighted(self, service: str, copies: list[Copy]) -> list[Copy]:
        """Put first who has most credit; each earns its weight, the first one pays what all earned.

        This is smooth weighted round robin: in any stretch of answers each is first in proportion
        to its weight, and never many times in a row (nginx, ngx_http_upstream_round_robin.c).
        """
        if not copies:
            return copies
        before = self._credit.get(service, {})
        weight = {copy.endpoint.instance: max(copy.free_cpu, LEAST_WEIGHT) for copy in copies}
        credit = {name: before.get(name, 0.0) + share for name, share in weight.items()}
        ordered = sorted(
            copies, key=lambda copy: (-round(credit[copy.endpoint.instance], 6), _distance_ms(copy))
        )
        credit[ordered[0].endpoint.instance] -= sum(weight.values())
        self._credit[service] = credit
        return ordered


@lru_cache(maxsize=REMEMBERED)
def whole_round(rule: AnswerOrder, copies: tuple[Copy, ...]) -> tuple[Order, ...]:
    """Return the orders of all answers of a round, after which `Turns` would begin anew. Pure.

    `copies` is one or more, as one client sees them. Weights count in hundredths of a core; where
    that makes a round longer than `ROUND`, they are rounded to shares of it, none to nothing.
    """
    turns = max(1, sum(not copy.shut for copy in copies))
    if rule is AnswerOrder.WEIGHTED:
        parts = _parts([0.0 if copy.shut else max(copy.free_cpu, LEAST_WEIGHT) for copy in copies])
        copies = tuple(
            replace(copy, free_cpu=float(part)) for copy, part in zip(copies, parts, strict=True)
        )
        turns = max(1, sum(parts))
    taken = Turns()
    orders = tuple(taken.order("", rule, copies) for _ in range(turns))
    return orders[:1] if len(set(orders)) == 1 else orders


def rounds_by_population(
    rule: AnswerOrder, copies: tuple[Copy, ...], distances_ms: Mapping[str, tuple[float, ...]]
) -> tuple[tuple[str, tuple[Order, ...]], ...]:
    """Return the rounds of populations, each `distances_ms` from the copies. Pure.

    `copies` are as a client of no population sees them. Nothing if all rounds are as for that one.
    """
    made: dict[tuple[int, ...], tuple[Order, ...]] = {}  # most populations see them alike
    rounds = []
    for population, distances in distances_ms.items():
        nearest = sorted(set(distances))
        ranks = tuple(nearest.index(distance) for distance in distances)
        if ranks not in made:
            seen = (replace(c, distance_ms=r) for c, r in zip(copies, ranks, strict=True))
            made[ranks] = whole_round(rule, tuple(seen))
        rounds.append((population, made[ranks]))
    return () if set(made.values()) <= {whole_round(rule, copies)} else tuple(rounds)


def _parts(weights: Sequence[float]) -> list[int]:
    """Return weights as whole numbers with the same shares, as far as a round has room; 0 is 0."""
    parts = [round(weight / LEAST_WEIGHT) for weight in weights]
    divisor = math.gcd(*parts) or 1
    total = sum(parts)
    if total <= ROUND * divisor:
        return [part // divisor for part in parts]
    return [max(1, round(part * ROUND / total)) if part else 0 for part in parts]


def _distance_ms(copy: Copy) -> float:
    return 0.0 if copy.distance_ms is None else copy.distance_ms

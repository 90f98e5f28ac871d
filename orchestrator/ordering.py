"""In which order an answer names the copies of a service: nearest first, freest, or in turn.

For `orchestrator.fleet`, which knows where the copies are. Most clients use the first address of an
answer. No I/O and no clock; the only state is whose turn it is.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from orchestrator.model import AnswerOrder, Endpoint

LEAST_WEIGHT = 0.01  # cores: a host with nothing free is still named first, now and then


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

    def order(
        self, service: str, rule: AnswerOrder, copies: Sequence[Copy]
    ) -> tuple[Endpoint, ...]:
        """Return the endpoints as the next answer is to name them; those of shut hosts come last.

        `ORDERED` puts the nearest first, or each in turn if nobody knows who asks. `WEIGHTED` has
        each first as often as its share of all free processors, and the nearest where two are due.
        """
        fit = [copy for copy in copies if not copy.shut]
        shut = [copy for copy in copies if copy.shut]
        if rule is AnswerOrder.WEIGHTED:
            fit = self._weighted(service, fit)
        elif rule is AnswerOrder.ROTATED or any(copy.distance_ms is None for copy in fit):
            fit = self._rotated(service, fit)
        else:
            fit.sort(key=_distance_ms)
        return tuple(copy.endpoint for copy in (*fit, *sorted(shut, key=_distance_ms)))

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


def _distance_ms(copy: Copy) -> float:
    return 0.0 if copy.distance_ms is None else copy.distance_ms

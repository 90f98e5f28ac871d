"""What one wake has tried, and what it tries next: every host once, then their other flavours.

Pure bookkeeping for `orchestrator.waking`, and the rule by which the attempts share the time that
is left until the deadline.
"""

from collections.abc import Callable, Collection

from orchestrator.errors import EdgewakeError, HostUnreachable
from orchestrator.library import Fit

USUAL_FACTOR = 3  # times its usual boot, so long a guest is waited for though others could be tried


def share_s(left_s: float, usual_s: float) -> float:
    """Return how many of the seconds that are left an attempt may take that is not the last one.

    It is half of them, unless guests usually take long to boot (`usual_s`; 0 if not known).
    """
    return min(left_s, max(left_s / 2, USUAL_FACTOR * usual_s))


class Attempts:
    """The attempts of one wake, and their `failures` in order.

    `flavours` returns what a host can boot, best first; `avoided` are hosts that come last.
    """

    def __init__(
        self, flavours: Callable[[str], tuple[Fit, ...]], avoided: frozenset[str] = frozenset()
    ) -> None:
        self.failures: list[EdgewakeError] = []
        self._flavours = flavours
        self._known: dict[str, tuple[Fit, ...]] = {}
        self._avoided = avoided
        self._tried: dict[str, list[Fit | None]] = {}
        self._out: frozenset[str] = frozenset()  # until all others were tried
        self._given_up: set[str] = set()

    @property
    def without(self) -> frozenset[str]:
        """The hosts that are not tried next."""
        return self._avoided | self._out | self._given_up

    def flavour(self, host: str) -> Fit | None:
        """Return what to boot on a host next; None if nothing there can be booted."""
        return next(iter(self._left(host)), None)

    def failed(self, host: str, fit: Fit | None, error: EdgewakeError) -> None:
        """Note that a flavour failed on a host, or the host itself."""
        self.failures.append(error)
        self._tried.setdefault(host, []).append(fit)
        self._out |= {host}
        if isinstance(error, HostUnreachable):
            self._given_up.add(host)

    def widen(self) -> bool:
        """Look further, since no host was left: at those avoided, then at hosts' other flavours.

        Returns whether there is anything new to try.
        """
        if self._avoided:
            self._avoided = frozenset()
            return True
        spent = frozenset(host for host in self._out if not self._left(host))
        news = bool(self._out - spent - self._given_up)
        self._out = spent
        return news

    def is_last(self, host: str, others: Collection[str]) -> bool:
        """Return whether nothing could be tried after what is tried on a host now.

        `others` are hosts that have room.
        """
        elsewhere = set(others) - self._out - self._given_up - {host}
        again = [each for each in {host, *self._out - self._given_up} if self._left(each)]
        more = sum(len(self._left(each)) for each in again) > 1
        return not elsewhere and not more

    def _left(self, host: str) -> tuple[Fit, ...]:
        if host not in self._known:
            self._known[host] = self._flavours(host)
        tried = self._tried.get(host, [])
        return tuple(fit for fit in self._known[host] if fit not in tried)

"""What a front door asks of control when somebody wants a service, and what it is given.

The DNS server depends on this page only, so that it can be tested without any control at all.
"""

from concurrent.futures import Future
from dataclasses import dataclass
from typing import Protocol

from orchestrator.model import Client, Endpoint
from orchestrator.trace import WakeTrace


@dataclass(frozen=True, slots=True)
class Summons:
    """A service that was asked for.

    `endpoints` completes with at least one endpoint, nearest to the client first, or fails with a
    `WakeError`; it never stays open beyond the service's deadline by more than a moment. It is
    already complete when the service is awake. `trace` is the wake being waited for (None when the
    service was awake): whoever sends the reply calls `trace.replied()` after it.
    """

    endpoints: Future[tuple[Endpoint, ...]]
    trace: WakeTrace | None = None


class Summoner(Protocol):
    """Wakes services. `orchestrator.control.Orchestrator` is one.

    `asked[service]` is the monotonic time of the last answer handed out for a service. Front doors
    write it for every answer, also for those they give from a cache; a dict write is atomic.
    """

    asked: dict[str, float]

    def summon(self, service: str, client: Client, asked_at: float = 0.0) -> Summons:
        """Ask for a service; returns at once and never raises a `WakeError` itself.

        `asked_at` is the monotonic time at which the question arrived, 0 for now.
        """
        ...

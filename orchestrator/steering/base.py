"""The seam to steering: how clients find the instances that answer.

A steering back end is told the whole wanted list of routes, every time, and finds the difference
itself. DNS (`dns_boot.resolver`) is one; anycast, redirects and rate limits are others.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from orchestrator.model import Endpoint, Service

Order = tuple[Endpoint, ...]
"""The endpoints of a service, as one answer names them."""


@dataclass(frozen=True, slots=True)
class Route:
    """A service and the endpoints that answer for it now.

    No endpoints means that it sleeps: a healthy state, so the route stays in the list. `ipv6` says
    whether instances of the service can have an IPv6 address at all (its hosts' networks do).

    `turns` are the orders in which one answer after the other names several endpoints, after which
    they come again. Where that depends on who asks, `theirs` has those of each population, and
    `turns` are for clients of none.
    """

    service: Service
    endpoints: tuple[Endpoint, ...] = ()
    ipv6: bool = False
    turns: tuple[Order, ...] = ()
    theirs: tuple[tuple[str, tuple[Order, ...]], ...] = ()

    def turns_of(self, population: str) -> tuple[Order, ...]:
        """Return the turns of a population's clients; nothing if they are not known."""
        return dict(self.theirs).get(population, ()) if self.theirs and population else self.turns


class Steering(Protocol):
    """Steers clients to instances."""

    def set(self, routes: Sequence[Route]) -> None:
        """Steer by exactly these routes from now on. Never blocks on a network; never raises."""
        ...

    def close(self) -> None:
        """Stop steering and take back what was announced."""
        ...

"""Which guard a host gets: the best of those that this machine can run, found out once."""

from orchestrator.guards.base import Guard, Listener
from orchestrator.guards.routed import RoutedGuard
from orchestrator.model import Host


def open_guard(host: Host, listener: Listener) -> Guard:
    """Open the guard of a host that is this machine; raises `CannotGuard` that says why not."""
    return RoutedGuard(host, listener)

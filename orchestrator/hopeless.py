"""Services whose wakes fail in a row: left alone for ever longer, told of, and tried again.

Without this, every retry of every client boots a guest that dies or never answers, until its
deadline. The first failed wake is tried again at once; after that queries are refused for 1 s, 2 s,
4 s and so on. What could not have failed yet (another host, another flavour, new files) is tried
without waiting. `orchestrator.waking` says which wakes failed.
"""

import math
import time

from orchestrator.errors import BackingOff
from orchestrator.failures import STEADY_S, Failures, delay_s
from orchestrator.flavours import Flavours, Key
from orchestrator.fleet import Fleet
from orchestrator.journal import Journal
from orchestrator.model import Service


class Hopeless:
    """The services whose last wakes failed. Safe to use from many threads."""

    def __init__(self, fleet: Fleet, flavours: Flavours, journal: Journal) -> None:
        self._fleet = fleet
        self._flavours = flavours
        self._journal = journal
        self._wakes: Failures[str] = Failures()
        self._known: dict[str, frozenset[Key]] = {}  # what there was to try, by service

    def failed(self, service: Service, why: str) -> None:
        """Note that a wake failed although guests were tried."""
        row = self._wakes.failed(service.name, why, time.monotonic())
        self._known[service.name] = self._flavours.all(service)
        if row.count > 1:
            wait = f"queries are refused for {delay_s(row.count):g} s"
            text = f"{row.count} wakes in a row failed: {wait}; the last: {why}"
            self._journal.record("backing-off", service.name, text)

    def worked(self, service: str) -> None:
        """Note that a wake succeeded."""
        self._wakes.forget(service)

    def count(self, service: str) -> int:
        """Return how many wakes failed in a row."""
        return self._wakes.row(service).count

    def refusal(self, service: str) -> BackingOff | None:
        """Return why no wake of a service is tried now, and when one is; None if one may be."""
        row = self._wakes.row(service)
        left_s = row.retry_at - time.monotonic()
        if left_s <= 0:
            return None
        again = f"the next try is in {math.ceil(left_s)} s"
        return BackingOff(
            service,
            f"{row.count} wakes in a row failed, {again}; the last: {row.why}",
            hint=f"'edgewake wake {service}' tries at once",
        )

    def trouble(self, service: str) -> str:
        """Return how wakes of a service fail in a row, for people; empty if they do not."""
        row, now = self._wakes.row(service), time.monotonic()
        if row.count < 2 or now > row.retry_at + STEADY_S:
            return ""
        left_s = math.ceil(row.retry_at - now)
        again = f"in {left_s} s" if left_s > 0 else "with the next query"
        return f"{row.count} wakes in a row failed, the next try is {again}; the last: {row.why}"

    def forget(self) -> None:
        """Try every service and every flavour again: somebody has mended something."""
        self._wakes.clear()
        self._flavours.forget()

    def look_for_news(self) -> None:
        """Refuse no longer what can be tried on a host, or from files, that never failed."""
        for name, known in tuple(self._known.items()):
            service = self._fleet.service(name)
            if service is None or self.refusal(name) is None:
                self._known.pop(name, None)
            elif self._flavours.all(service) - known:
                self.worked(name)
                self._known.pop(name, None)

"""Counts journal events by kind, and what failed on a host by host; for Prometheus.

A listener of the journal. Kinds are words of our source, hosts those of the lab.
"""

import threading
from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass

from orchestrator.journal import TROUBLE
from orchestrator.metrics import Labels, keep_only
from orchestrator.model import Event

OF_HOSTS = frozenset({"host-lost", "network-refused", "not-guarded"})  # whose subject is a host


@dataclass(frozen=True, slots=True)
class EventCounts:
    """How many events there were by kind; and of those that are trouble, by host and kind."""

    events: Mapping[Labels, int]
    failures: Mapping[Labels, int]


class EventMetrics:
    """Counts events. Safe to use from several threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._events: Counter[Labels] = Counter()
        self._failures: Counter[Labels] = Counter()

    def __call__(self, event: Event) -> None:
        """Count an event."""
        kind = ("kind", event.kind)
        with self._lock:
            self._events[(kind,)] += 1
            if event.kind in TROUBLE and (host := _host(event)):
                self._failures[("host", host), kind] += 1

    def counts(self, hosts: Collection[str]) -> EventCounts:
        """Return what was counted; hosts that are not among these are forgotten for good."""
        with self._lock:
            keep_only(self._failures, hosts)
            return EventCounts(dict(self._events), dict(self._failures))


def _host(event: Event) -> str:
    return event.subject if event.kind in OF_HOSTS else dict(event.data).get("host", "")

"""Keeps our state in this process only: for tests, and for labs that may forget everything.

It fulfils the same contract as `orchestrator.store.sql`, save that nothing survives the process.
"""

import threading
from collections import deque
from collections.abc import Collection, Sequence
from dataclasses import replace
from ipaddress import IPv4Address

from orchestrator.errors import StoreError
from orchestrator.model import Ability, Event, Instance, Rung
from orchestrator.store.base import (
    IMAGES_KEPT,
    JOURNAL_KEPT,
    VERSIONS_KEPT,
    Drain,
    LabVersion,
    Quarantine,
    Stored,
)


class MemoryStore:
    """A `Store` that remembers until it is closed."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._closed = False
        self._instances: dict[str, Instance] = {}
        self._quarantines: dict[tuple[str, IPv4Address], Quarantine] = {}
        self._labs: deque[LabVersion] = deque(maxlen=VERSIONS_KEPT)
        self._lab_on_disk = 0
        self._drains: dict[str, Drain] = {}
        self._abilities: dict[tuple[str, str, Rung], Ability] = {}
        self._journal: deque[Event] = deque(maxlen=JOURNAL_KEPT)
        self._recorded = 0

    def load(self) -> Stored:
        """Return all that is kept."""
        with self._lock:
            self._refuse_closed()
            last = self._labs[-1] if self._labs else None
            return Stored(
                instances=tuple(self._instances.values()),
                quarantines=tuple(self._quarantines.values()),
                lab_text=last.text if last else "",
                lab_path=last.path if last else "",
                lab_on_disk=self._lab_on_disk,
                drains=tuple(self._drains.values()),
                abilities=tuple(self._abilities.values()),
            )

    def save(self, instance: Instance) -> None:
        """Keep an instance, replacing what was kept under its name."""
        with self._lock:
            self._refuse_closed()
            self._instances[instance.name] = instance

    def remove(self, instance: Instance, *, rest_until: float) -> None:
        """Forget an instance and put its address in quarantine until then, in one step."""
        key = (instance.host, instance.address)
        with self._lock:
            self._refuse_closed()
            self._instances.pop(instance.name, None)
            before = self._quarantines.get(key)
            until = max(rest_until, before.until) if before else rest_until
            self._quarantines[key] = Quarantine(*key, instance.service, until)

    def save_lab(
        self, text: str, path: str, *, actor: str = "", at: float = 0.0, on_disk: bool = False
    ) -> None:
        """Keep the lab file last applied as a new version, unless it is the last one."""
        with self._lock:
            self._refuse_closed()
            last = self._labs[-1] if self._labs else None
            if last is None or (last.text, last.path) != (text, path):
                number = last.number + 1 if last else 1
                self._labs.append(LabVersion(number, at, actor, path, text))
            if on_disk:
                self._lab_on_disk = self._labs[-1].number

    def lab_versions(self, limit: int = VERSIONS_KEPT) -> Sequence[LabVersion]:
        """Return the last `limit` versions of the lab, oldest first."""
        with self._lock:
            self._refuse_closed()
            return list(self._labs)[-limit:] if limit else []

    def save_drain(self, drain: Drain) -> None:
        """Keep the wish that a host be drained."""
        with self._lock:
            self._refuse_closed()
            self._drains[drain.host] = drain

    def remove_drain(self, host: str) -> None:
        """Forget that wish."""
        with self._lock:
            self._refuse_closed()
            self._drains.pop(host, None)

    def save_ability(self, ability: Ability) -> None:
        """Keep what a probe found."""
        with self._lock:
            self._refuse_closed()
            self._abilities[ability.image, ability.host, ability.rung] = ability
            alike = [key for key in self._abilities if key[1:] == (ability.host, ability.rung)]
            alike.sort(key=lambda key: self._abilities[key].probed_at)
            for key in alike[:-IMAGES_KEPT]:
                del self._abilities[key]

    def forget_abilities(self) -> None:
        """Forget all of that."""
        with self._lock:
            self._refuse_closed()
            self._abilities.clear()

    def record(self, event: Event) -> None:
        """Append to the journal."""
        with self._lock:
            self._refuse_closed()
            self._recorded += 1
            self._journal.append(replace(event, number=self._recorded))

    def events(
        self, limit: int = 100, *, kinds: Collection[str] = (), before: int = 0
    ) -> Sequence[Event]:
        """Return the last `limit` events, oldest first."""
        with self._lock:
            self._refuse_closed()
            known = list(self._journal)
        chosen = [
            each
            for each in known
            if (not kinds or each.kind in kinds) and (not before or each.number < before)
        ]
        return chosen[-limit:] if limit else []

    def close(self) -> None:
        """Forget everything. May be called twice."""
        self._closed = True

    def _refuse_closed(self) -> None:
        if self._closed:
            raise StoreError("the store was closed", hint="make another one")

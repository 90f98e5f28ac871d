"""The seam to the state store: whole nouns in and out, and an append-only journal.

What is saved when a method returns survives `kill -9` at any later instant (save in
`store.memory`, which lives and dies with its process). A method that raises has changed nothing.
A store is used from several threads at once. `tests/contracts/store.py` holds every back end to
this page.
"""

import hashlib
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address
from typing import Protocol

from orchestrator.model import Ability, Event, Instance


@dataclass(frozen=True, slots=True)
class Quarantine:
    """An address that may not be given to *another* service before `until` (wall-clock seconds).

    It is kept after that time as well: it tells which service had the address last.
    """

    host: str
    address: IPv4Address
    service: str
    until: float


@dataclass(frozen=True, slots=True)
class Drain:
    """The wish that a host be drained, kept until it is undone. `since` is wall-clock seconds.

    With `force`, services that can run nowhere else are ended, too.
    """

    host: str
    since: float
    force: bool = False


VERSIONS_KEPT = 100  # of the lab
IMAGES_KEPT = 500  # whose abilities are known, of each host and rung
JOURNAL_KEPT = 100_000  # events that are always there to be read


@dataclass(frozen=True, slots=True)
class LabVersion:
    """A lab file as it was applied: word for word, when (wall-clock seconds), and by whom.

    Numbers count from 1 and are never used twice; `path` is where it was read from.
    """

    number: int
    at: float
    actor: str
    path: str
    text: str

    @property
    def sha256(self) -> str:
        """The hash of the text, in hexadecimal."""
        return hashlib.sha256(self.text.encode(errors="surrogatepass")).hexdigest()


@dataclass(frozen=True, slots=True)
class Stored:
    """Everything a restart needs: instances that may exist, addresses that must rest, the lab.

    `abilities` are what guests were found to survive. `lab_text` is the lab file that was last
    applied, word for word, and `lab_path` where it was read from; both are empty before the first
    `save_lab`. `lab_on_disk` is the number of the last version that was as its file when it was
    applied; 0 if none was known to be.
    """

    instances: tuple[Instance, ...] = ()
    quarantines: tuple[Quarantine, ...] = ()
    lab_text: str = ""
    lab_path: str = ""
    lab_on_disk: int = 0
    drains: tuple[Drain, ...] = ()
    abilities: tuple[Ability, ...] = ()


class Store(Protocol):
    """Keeps our state. All methods raise `StoreError` when they cannot do what they say."""

    def load(self) -> Stored:
        """Return all that is kept."""
        ...

    def save(self, instance: Instance) -> None:
        """Keep an instance, replacing what was kept under its name."""
        ...

    def remove(self, instance: Instance, *, rest_until: float) -> None:
        """Forget an instance and put its address in quarantine until then, in one step.

        A quarantine of the same address that lasts longer is not shortened. Removing an instance
        that is not kept still puts its address in quarantine.
        """
        ...

    def save_lab(
        self, text: str, path: str, *, actor: str = "", at: float = 0.0, on_disk: bool = False
    ) -> None:
        """Keep the lab file last applied as a new version; `on_disk`: its file has this text.

        No version is added if the last one has its text and path, but it may now be `on_disk`. Of
        all versions the last `VERSIONS_KEPT` are kept.
        """
        ...

    def lab_versions(self, limit: int = VERSIONS_KEPT) -> Sequence[LabVersion]:
        """Return the last `limit` versions of the lab, oldest first."""
        ...

    def save_drain(self, drain: Drain) -> None:
        """Keep the wish that a host be drained, replacing what was kept for that host."""
        ...

    def remove_drain(self, host: str) -> None:
        """Forget that wish; forgetting one that is not kept does nothing."""
        ...

    def save_ability(self, ability: Ability) -> None:
        """Keep what a probe found, replacing what was kept for that image, host and rung.

        Of that host and rung the last `IMAGES_KEPT` that were probed are kept.
        """
        ...

    def forget_abilities(self) -> None:
        """Forget all of that, so that everything is probed anew."""
        ...

    def record(self, event: Event) -> None:
        """Append to the journal, which keeps at least its last 100,000 events."""
        ...

    def events(
        self, limit: int = 100, *, kinds: Collection[str] = (), before: int = 0
    ) -> Sequence[Event]:
        """Return the last `limit` events, oldest first; each has its number in the journal.

        With `kinds`, those of these kinds only; with `before`, those with a lower number only.
        """
        ...

    def close(self) -> None:
        """Let go of the database. May be called twice; every other method then raises."""
        ...

"""Carries out lists of changes, one after the other, and says how far that is.

The order is the list's: whoever made it has seen to it that it is safe. What happened meanwhile is
looked at again before each change (`still`), under its service's lock.
"""

import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial

from orchestrator.change_log import ChangeLog
from orchestrator.changes import Announce, Boot, Change, Changes, Migrate, Stop, Withdraw
from orchestrator.errors import EdgewakeError, Unforeseen
from orchestrator.fleet import Fleet
from orchestrator.journal import Journal
from orchestrator.migrating import Migrator
from orchestrator.model import Instance
from orchestrator.operations import Job
from orchestrator.trace import WakeTrace
from orchestrator.waking import Waker

Still = Callable[[Change, Instance | None], bool]  # of a change, and the instance it is about
Tell = Callable[[str], None]


class Carrier:
    """Carries out one list at a time: whoever calls holds the lock of `apply`.

    `asked` is `Orchestrator.asked`; `steer` tells all steering; `stopping` ends all waits. `log` is
    where the lists are noted.
    """

    def __init__(
        self,
        fleet: Fleet,
        waker: Waker,
        migrator: Migrator,
        journal: Journal,
        *,
        log: ChangeLog,
        asked: Mapping[str, float],
        steer: Callable[[], None],
        stopping: threading.Event,
    ) -> None:
        self._fleet = fleet
        self._waker = waker
        self._migrator = migrator
        self._journal = journal
        self._log = log
        self._asked = asked
        self._steer = steer
        self._stopping = stopping
        self._in_hand: frozenset[str] = frozenset()

    def in_hand(self, service: str) -> bool:
        """Return whether a list is being carried out that changes a service."""
        return service in self._in_hand

    @contextmanager
    def noting(self, by: str, subject: str, changes: Changes, job: Job) -> Iterator[None]:
        """Note a list that is carried out inside, and how that failed if so."""
        failed = ""
        try:
            yield
        except EdgewakeError as error:
            failed = error.message
            raise
        except Exception:
            failed = Unforeseen().message
            raise
        finally:
            self._log.note(by, subject, changes, job, applied=True, failed=failed)

    def carry_out(self, changes: Changes, still: Still, job: Job) -> None:
        """Do a checked list of changes in its order.

        A change of which `still` says no, when its turn has come, is left out.
        """
        self._in_hand = frozenset(change.service for change in changes)
        total = len(changes)
        try:
            for done, change in enumerate(changes):
                tell = partial(job.tell, done=done, total=total)
                tell(" ".join(str(change).split()))
                if isinstance(change, Stop):
                    self._await_caches(change.service)
                with self._waker.locks[change.service]:
                    present = self._present(change)
                    if not still(change, present):
                        self._leave(change, present)
                        continue
                    self.do(change, present, tell)
                self._journal.record("changed", change.service, str(change))
            if total:
                job.tell("done", total, total)
        finally:
            self._in_hand = frozenset()

    def do(self, change: Change, present: Instance | None, tell: Tell) -> None:
        """Do one change; `present` is the instance that it is about, if there is one."""
        match change:
            case Boot(service=name, host=host):
                service = self._fleet.lab.service(name)
                trace = WakeTrace(name)
                self._waker.boot(service, "", trace.zero + service.deadline_s, trace, only=host)
            case Announce():
                self._steer()
            case Withdraw():
                if present:
                    self._fleet.withdraw(present)
                self._steer()
            case Stop():
                if present:
                    self._waker.end(present)
            case Migrate():
                if present:
                    self._send(change, present, tell)

    def _send(self, change: Migrate, present: Instance, tell: Tell) -> None:
        def wanted() -> bool:
            sent = self._migrator.sent(present.name)
            left = f": {sent.left / 2**20:.0f} MiB left" if sent.total else ""
            tell(f"migrate {present.name} to {change.to}{left}")
            return True

        service = self._fleet.lab.service(change.service)
        migrated = self._migrator.migrate(present, service, wanted, only=change.to)
        if migrated.why:
            raise EdgewakeError(f"{present.name} was not migrated to {change.to}: {migrated.why}")

    def _leave(self, change: Change, present: Instance | None) -> None:
        """Lead clients again to an instance that was to be stopped, if it is their last one."""
        last = not self._fleet.serving(change.service)
        if isinstance(change, Stop) and present is not None and last:
            self._fleet.restore(present)
            self._steer()

    def _present(self, change: Change) -> Instance | None:
        """Return the instance that a change is about, also one that an earlier change booted."""
        if not isinstance(change, Withdraw | Stop | Migrate):
            return None
        if change.instance:
            return self._fleet.get(change.instance)
        there = [each for each in self._fleet.of(change.service) if each.host == change.host]
        return there[0] if there else None

    def _await_caches(self, service: str) -> None:
        """If others answer, wait until no cache can still name the withdrawn instance."""
        known = self._fleet.service(service)
        asked_at = self._asked.get(service)
        if known and asked_at and self._fleet.endpoints(service):
            self._stopping.wait(max(0.0, asked_at + known.ttl_s - time.monotonic()))

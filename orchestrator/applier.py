"""Goes over to another lab while edgewake runs: ends what it does not have, and keeps its text.

What has to end is decided by `reconcile` and carried out by `carrying`; what stays goes on running.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from threading import Lock

from orchestrator.background import Background
from orchestrator.boot import Boots
from orchestrator.carrying import Carrier
from orchestrator.change_log import ChangeLog
from orchestrator.changes import Change, Changes
from orchestrator.drain import Drainer
from orchestrator.errors import Outdated
from orchestrator.fleet import Fleet
from orchestrator.hopeless import Hopeless
from orchestrator.hosts import Hosts
from orchestrator.journal import Journal
from orchestrator.lab_on_disk import is_on_disk
from orchestrator.model import Instance, Lab
from orchestrator.operations import Job
from orchestrator.reconcile import changed_hosts, ends, lab_changes
from orchestrator.store.base import Store
from orchestrator.traffic import Traffic
from orchestrator.upkeep import Keeper


@dataclass(frozen=True, slots=True)
class LabSource:
    """The file that a lab was read from: its text (empty: it is not kept), and where it is."""

    text: str
    path: str


class Applier:
    """Applies one lab at a time.

    `lock` is held by whoever changes the lab or carries out changes; `log` is where those that were
    only shown are noted. `applied` is told of each lab that is in use; `steer` tells all steering.
    """

    def __init__(
        self,
        fleet: Fleet,
        store: Store,
        boots: Boots,
        journal: Journal,
        *,
        hosts: Hosts,
        carrier: Carrier,
        drainer: Drainer,
        keeper: Keeper,
        hopeless: Hopeless,
        traffic: Traffic,
        log: ChangeLog,
        lock: Lock,
        steer: Callable[[], None],
        applied: Callable[[Lab], None],
        background: Background,
    ) -> None:
        self._fleet = fleet
        self._store = store
        self._boots = boots
        self._hosts = hosts
        self._carrier = carrier
        self._journal = journal
        self._drainer = drainer
        self._keeper = keeper
        self._hopeless = hopeless
        self._traffic = traffic
        self._log = log
        self._lock = lock
        self._steer = steer
        self._applied = applied
        self._background = background

    def apply(
        self,
        lab: Lab,
        source: LabSource,
        *,
        dry_run: bool,
        job: Job,
        instead_of: int | None,
    ) -> Changes:
        """Go over to another lab; return what had to end for it (or would, with `dry_run`).

        Its source is kept for the next start as a new version of the lab; `instead_of` is the
        number of the version that the caller has seen (0: none). Blocks until done. Raises
        `UnsafeChanges`, and `Outdated` if another version is in use, before anything was changed.
        """
        with self._lock:
            self._refuse_outdated(instead_of)
            changes = lab_changes(self._fleet.lab, lab, self._fleet.instances())
            if dry_run:
                self._log.note("apply", lab.name, changes, job, applied=False)
                return changes
            with self._carrier.noting("apply", lab.name, changes, job):
                self._use(lab, changes, job)
            if source.text:
                self._save(source, job.actor)
            self._journal.record("applied", lab.name, f"{len(changes)} changes")
            self._applied(lab)
            self._steer()
            self._traffic.sync()
            self._background.do(self._boots.keep_files, lab)
            return changes

    def _save(self, source: LabSource, actor: str) -> None:
        text, path = source.text, source.path
        on_disk = is_on_disk(text, Path(path))
        self._store.save_lab(text, path, actor=actor, at=time.time(), on_disk=on_disk)

    def _use(self, lab: Lab, changes: Changes, job: Job) -> None:
        """End what another lab does not have, and use it from then on."""
        old = self._fleet.lab

        def still_ends(_: Change, now: Instance | None) -> bool:
            return now is None or ends(now, old, lab)  # it may be migrated while we wait for it

        self._carrier.carry_out(changes, still_ends, job)
        gone, opened = changed_hosts(old, lab)
        self._fleet.use(lab)  # from here on nothing is placed as of old; end what was meanwhile
        self._carrier.carry_out(lab_changes(old, lab, self._fleet.instances()), still_ends, job)
        for host in gone:
            self._traffic.let_go(host.name)
            self._hosts.let_go(host)
        self._drainer.keep_only(frozenset(host.name for host in lab.hosts))
        self._leave_behind()
        self._hosts.open(opened)
        for host in set(lab.hosts) - set(opened):
            self._hosts.mend(host.name)
        self._keeper.try_again()
        self._hopeless.forget()

    def _refuse_outdated(self, instead_of: int | None) -> None:
        now = next((each.number for each in self._store.lab_versions(1)), 0)
        if instead_of is not None and instead_of != now:
            raise Outdated(
                f"the lab is at version {now} by now, not {instead_of}",
                now=now,
                hint="get it again, and make your change to that",
            )

    def _leave_behind(self) -> None:
        """Forget what could not be ended on hosts that the lab no longer has."""
        hosts = {host.name for host in self._fleet.lab.hosts}
        for instance in self._fleet.instances():
            if instance.host not in hosts:
                self._boots.forget(instance, rest_s=self._fleet.rest_s(instance.service))
                self._journal.record(
                    "left-behind", instance.service, f"{instance.name} on {instance.host}"
                )

"""Drains hosts: moves every instance off them, make before break, and says how far that is.

What to do with one instance is `step_of`, a pure decision; `Drainer` acts on it. A step is one
instance. If its service says so, it is migrated as it runs (`orchestrator.migrating`). Otherwise,
and where that fails, a copy answers elsewhere before nobody is led to it, and it ends when no cache
can name it any more (`orchestrator.retiring`). Each host is drained by one thread, one instance
after the other.
The wish is stored before anything is done, and every step begins with a look at what is there, so
that whatever ended edgewake in the middle, the next start goes on.
"""

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from enum import StrEnum

from orchestrator.background import Background
from orchestrator.errors import EdgewakeError
from orchestrator.failures import delay_s
from orchestrator.fleet import Fleet
from orchestrator.hypervisors.base import Sent
from orchestrator.journal import Journal
from orchestrator.migrating import Migrator
from orchestrator.model import ASLEEP, Instance, InstanceState, Migrate, Service
from orchestrator.retiring import Retirer
from orchestrator.store.base import Drain, Store
from orchestrator.trace import WakeTrace
from orchestrator.waking import Waker

SLEEPS = "it sleeps there, and can only be migrated as it runs: wake it, or force the drain"


class Step(StrEnum):
    """What to do next with an instance on a host that is being drained."""

    WAIT = "wait"  # it is being booted or ended; looked at again later
    MIGRATE = "migrate"  # send it elsewhere as it runs
    BOOT = "boot"  # boot a copy elsewhere, then retire it
    RETIRE = "retire"  # enough copies answer elsewhere
    END = "end"  # it sleeps: the next wake boots another
    STAY = "stay"  # it sleeps, and what it has in memory is nowhere else
    KEEP = "keep"  # its service allows no second copy while it may be running unseen


def step_of(
    instance: Instance, service: Service, *, wanted: int, led: bool, awaited: bool, elsewhere: int
) -> Step:
    """Return what to do with an instance.

    `wanted`: copies that its service should have. `led`: clients are led to it. `awaited`: its host
    is lost, and its service waits for it there.
    `elsewhere`: copies that clients are led to on hosts that are not being drained.
    """
    if awaited:
        return Step.KEEP
    if instance.state in ASLEEP:
        return Step.STAY if service.migrate is Migrate.LIVE_ONLY else Step.END
    if instance.state is not InstanceState.READY or not led:
        return Step.WAIT
    if elsewhere >= wanted:
        return Step.RETIRE
    return Step.BOOT if service.migrate is Migrate.BOOT else Step.MIGRATE


@dataclass(frozen=True, slots=True)
class Stuck:
    """An instance that cannot be moved, and why; tried again from `retry_at` on (monotonic).

    `ending`: others have taken over from it, and it cannot be ended; tried again in each sweep.
    """

    instance: str
    why: str
    tries: int = 1
    retry_at: float = 0.0
    ending: bool = False


@dataclass(frozen=True, slots=True)
class Migration:
    """A migration under way: where to, and how far it is."""

    instance: str
    to: str
    sent: Sent

    @property
    def percent(self) -> int | None:
        """How much of its memory is there; None if that is not known."""
        return round(100 * (1 - self.sent.left / self.sent.total)) if self.sent.total else None


@dataclass(frozen=True, slots=True)
class Booted:
    """An instance that could not be migrated, and why: a copy is booted elsewhere instead."""

    instance: str
    why: str


@dataclass(frozen=True, slots=True)
class DrainReport:
    """How far a drain is: `moved` of `total` instances are gone, `stuck` cannot be moved.

    `since` is wall-clock seconds. A restart counts anew, from what it finds. `migrating` are those
    on their way now, `booted` those that should have been migrated and could not.
    """

    since: float
    force: bool
    moved: int
    total: int
    stuck: tuple[Stuck, ...] = ()
    migrating: tuple[Migration, ...] = ()
    booted: tuple[Booted, ...] = ()

    @property
    def state(self) -> str:
        """The word for it: drained when nothing is left."""
        return "drained" if self.moved == self.total else "draining"

    def __str__(self) -> str:
        return f"drained {self.moved} of {self.total}"


@dataclass(slots=True)
class _Draining:
    """A drain under way: the wish, all instances ever seen there, those that are stuck.

    `booted` says of those that could not be migrated why, by name.
    """

    wish: Drain
    seen: set[tuple[str, float]] = field(default_factory=set)
    stuck: dict[str, Stuck] = field(default_factory=dict)
    booted: dict[str, str] = field(default_factory=dict)
    told: str = ""


class Drainer:
    """Carries out the stored wishes to drain hosts.

    `in_hand` says of a service whether a list of changes is being carried out on it, `backing_off`
    whether its copies die so often that one more would be no replacement.
    """

    def __init__(
        self,
        fleet: Fleet,
        store: Store,
        waker: Waker,
        retirer: Retirer,
        journal: Journal,
        *,
        migrator: Migrator,
        in_hand: Callable[[str], bool],
        backing_off: Callable[[str], bool],
        background: Background,
    ) -> None:
        self._fleet = fleet
        self._store = store
        self._waker = waker
        self._retirer = retirer
        self._migrator = migrator
        self._journal = journal
        self._in_hand = in_hand
        self._backing_off = backing_off
        self._background = background
        self._drains: dict[str, _Draining] = {}
        self._busy: set[str] = set()

    # --- wishes -----------------------------------------------------------------------------

    def resume(self, wishes: Iterable[Drain]) -> None:
        """Take up the wishes that an earlier run kept; `tend` goes on with them."""
        for wish in wishes:
            self._fleet.drain(wish.host, wanted=True)
            self._drains[wish.host] = _Draining(wish)

    def begin(self, host: str, *, force: bool) -> DrainReport:
        """Keep the wish, place nothing new there, and begin; asked again, `force` may change."""
        before = self._drains.get(host)
        wish = Drain(host, before.wish.since if before else time.time(), force)
        self._store.save_drain(wish)
        self._fleet.drain(host, wanted=True)
        self._drains[host] = draining = _Draining(wish, before.seen if before else set())
        self._journal.record("draining", host, "forced: all of it" if force else "as far as it can")
        report = self._look(draining)
        self._go_on(host)
        return report

    def undo(self, host: str) -> None:
        """Forget the wish and place instances there again; what has moved stays where it is.

        A migration that is under way is called off.
        """
        self._store.remove_drain(host)
        self._fleet.drain(host, wanted=False)
        if (draining := self._drains.pop(host, None)) is not None:
            self._journal.record("drain-undone", host, str(self._look(draining)))

    def keep_only(self, hosts: frozenset[str]) -> None:
        """Forget wishes for hosts that the lab no longer has."""
        for host in set(self._drains) - hosts:
            self.undo(host)

    def report(self, host: str) -> DrainReport | None:
        """Return how far the drain of a host is; None if nobody wishes it drained."""
        draining = self._drains.get(host)
        return self._look(draining) if draining else None

    # --- work -------------------------------------------------------------------------------

    def tend(self) -> None:
        """Go on with every drain; called in each sweep. Waits for none."""
        for host, draining in tuple(self._drains.items()):
            self._tell(host, draining)
            if self._fleet.on(host):
                self._go_on(host)

    def _go_on(self, host: str) -> None:
        if host not in self._busy:
            self._busy.add(host)
            self._background.do(self._work, host)

    def _work(self, host: str) -> None:
        try:
            for instance in self._fleet.on(host):
                draining, service = self._drains.get(host), self._fleet.service(instance.service)
                if draining is None:
                    return
                if service is not None and not self._rests(draining, instance):
                    with self._waker.locks[service.name]:
                        self._step(draining, instance, service)
        finally:
            self._busy.discard(host)

    def _rests(self, draining: _Draining, instance: Instance) -> bool:
        stuck = draining.stuck.get(instance.name)
        woken = stuck is not None and stuck.why == SLEEPS and instance.state not in ASLEEP
        if stuck is not None and time.monotonic() < stuck.retry_at and not woken:
            return True
        return self._backing_off(instance.service)

    def _step(self, draining: _Draining, instance: Instance, service: Service) -> None:
        """Take one instance one step further. The caller holds the service's lock."""
        host = draining.wish.host
        undone = self._drains.get(host) is not draining
        if undone or self._fleet.get(instance.name) is not instance or self._in_hand(service.name):
            return
        led = self._fleet.serving(service.name)
        away = [each for each in led if each.host not in self._fleet.draining()]
        step = step_of(
            instance,
            service,
            wanted=self._fleet.wanted(service),
            led=instance in led,
            awaited=instance in self._waker.awaited(service),
            elsewhere=len(away),
        )
        if step is Step.KEEP:
            self._stick(draining, instance, "its host is lost, and on_host_loss is keep")
        if step is Step.STAY and not draining.wish.force:
            self._stick(draining, instance, SLEEPS)
        if step is Step.END or (step is Step.STAY and draining.wish.force):
            self._waker.end(instance)
        if step is Step.MIGRATE:
            left = self._migrate(draining, instance, service)
            if left is None:
                return
            instance, step = left, Step.BOOT
        if step is Step.BOOT and not self._boot(draining, instance, service):
            return
        if step in {Step.BOOT, Step.RETIRE} and host in self._drains:
            draining.stuck.pop(instance.name, None)
            self._retirer.retire(instance, f"{host} is being drained")

    def _migrate(
        self, draining: _Draining, instance: Instance, service: Service
    ) -> Instance | None:
        """Migrate an instance; return it if a copy is to be booted after all, as it is now."""
        host, name = draining.wish.host, instance.name
        done = self._migrator.migrate(instance, service, wanted=lambda: host in self._drains)
        if not done.why:
            draining.stuck.pop(name, None)
            draining.booted.pop(name, None)
            return None
        if done.instance is None or done.called_off or self._drains.get(host) is not draining:
            return None
        if service.migrate is Migrate.LIVE_ONLY and not draining.wish.force:
            self._stick(draining, done.instance, f"it cannot be migrated: {done.why}")
            return None
        draining.booted[name] = done.why
        return done.instance

    def _boot(self, draining: _Draining, instance: Instance, service: Service) -> bool:
        """Boot a copy elsewhere; return whether the instance may be retired then."""
        trace = WakeTrace(service.name)
        try:
            self._waker.boot(service, "", trace.zero + service.deadline_s, trace)
        except EdgewakeError as error:
            if not draining.wish.force:
                self._stick(draining, instance, error.message)
            elif self._drains.get(draining.wish.host) is draining:
                why = f"forced, though it can run nowhere else: {error.message}"
                self._retirer.retire(instance, why, for_good=True)
            return False
        return True

    def _stick(self, draining: _Draining, instance: Instance, why: str) -> None:
        """Leave an instance where it is, and try again later, ever more rarely."""
        before = draining.stuck.get(instance.name)
        tries = before.tries + 1 if before else 1
        retry_at = time.monotonic() + delay_s(tries + 1)
        draining.stuck[instance.name] = Stuck(instance.name, why, tries, retry_at)
        if before is None or before.why != why:
            text = f"{instance.name} stays: {why}"
            self._journal.record("drain-stuck", draining.wish.host, text, service=instance.service)

    # --- telling ----------------------------------------------------------------------------

    def _look(self, draining: _Draining) -> DrainReport:
        there = self._fleet.on(draining.wish.host)
        left = {(each.name, each.created_at) for each in there}
        draining.seen |= left
        stuck = draining.stuck.copy()
        for each in there:
            if why := self._waker.not_ended(each):
                stuck[each.name] = Stuck(each.name, f"it cannot be ended: {why}", ending=True)
        names = {name for name, _ in left}
        return DrainReport(
            since=draining.wish.since,
            force=draining.wish.force,
            moved=len(draining.seen - left),
            total=len(draining.seen),
            stuck=tuple(each for each in stuck.values() if each.instance in names),
            migrating=tuple(
                Migration(each.name, each.to, self._migrator.sent(each.name))
                for each in there
                if each.state is InstanceState.MIGRATING
            ),
            booted=tuple(Booted(*each) for each in sorted(draining.booted.copy().items())),
        )

    def _tell(self, host: str, draining: _Draining) -> None:
        """Journal each step forward, once."""
        report = self._look(draining)
        if str(report) != draining.told:
            draining.told = str(report)
            self._journal.record(report.state, host, str(report))

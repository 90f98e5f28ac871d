"""Settles what hosts say with what we remember: adopts, finishes, ends, and leads clients away.

The decisions are `orchestrator.reconcile`'s; this acts on them, and only if the instance is still
what it was when the host was asked: whoever changed it meanwhile knows better.
"""

import time
from collections.abc import Callable
from dataclasses import replace

from orchestrator.background import Background
from orchestrator.boot import Boots
from orchestrator.errors import EdgewakeError, UnknownService
from orchestrator.fleet import Fleet
from orchestrator.hosts import News
from orchestrator.idle import Usage
from orchestrator.journal import Journal
from orchestrator.model import ASLEEP, Instance, InstanceState, OnHostLoss, RunningGuest
from orchestrator.recipes import is_spare
from orchestrator.reconcile import (
    Adopt,
    Copy,
    End,
    Finish,
    Keep,
    Resolve,
    Rest,
    Settlement,
    orphan,
    settle,
    surplus,
)
from orchestrator.retiring import Retirer
from orchestrator.store.base import Store
from orchestrator.waking import Waker

LOST_PROBE_S = 2.0  # how long a guest on a lost host may be silent before nobody is led there


class Settler:
    """Acts on news from hosts.

    `asked` is `Orchestrator.asked`; `steer` tells all steering; `lost` is told of each awake
    instance that died or is as silent as its host; `resolve` and `runs` are `Migrator`'s; `in_hand`
    says of an instance whether it is being put to sleep; `count` takes in the counters of a guest.
    """

    def __init__(
        self,
        *,
        fleet: Fleet,
        store: Store,
        boots: Boots,
        waker: Waker,
        retirer: Retirer,
        journal: Journal,
        usage: Usage,
        asked: dict[str, float],
        steer: Callable[[], None],
        lost: Callable[[Instance, str], None],
        resolve: Callable[[Instance], Instance | None],
        runs: Callable[[Instance], bool],
        in_hand: Callable[[str], bool],
        count: Callable[[RunningGuest, float], None],
        background: Background,
    ) -> None:
        self._fleet = fleet
        self._store = store
        self._boots = boots
        self._waker = waker
        self._retirer = retirer
        self._journal = journal
        self._usage = usage
        self._asked = asked
        self._steer = steer
        self._lost = lost
        self._resolve = resolve
        self._runs = runs
        self._in_hand = in_hand
        self._count = count
        self._background = background
        self._probing: set[str] = set()
        self._resolving: set[str] = set()

    def take_in(self, news: News) -> None:
        """Settle what a host says with what we remember of it."""
        news = self._without_ended(news)
        self._meter(news.running)
        alive = {guest.mark.instance for guest in news.running}
        for known in news.known:
            if known.name not in alive:
                why = news.ended.get(known.name, "its guest does not run any more")
                self._boots.note_death(known.name, why, news.asked_at)
        at_rest = [each for each in news.known if not self._in_hand(each.name)]
        for settlement in settle(at_rest, news.running, _asleep(news)):
            self._settle(settlement, news)
        if news.fresh:
            self._settle_orphans(news)

    def _without_ended(self, news: News) -> News:
        """Return the news without guests that have ended though their domain goes on."""
        said = {
            instance.name: "its console says that it has ended"
            for instance in news.known
            if (service := self._fleet.service(instance.service))
            and self._boots.said_its_end(instance, service)
        }
        if not said:
            return news
        running = tuple(guest for guest in news.running if guest.mark.instance not in said)
        return replace(news, running=running, ended={**news.ended, **said})

    def probe_the_lost(self) -> None:
        """Ask the guests of lost hosts themselves whether they still answer."""
        lost = self._fleet.lost()
        for instance in self._fleet.instances():
            led = self._rests(instance) and not self._fleet.hidden(instance.name)
            away = lost.keys() & set(instance.hosts)
            if away and led and instance.name not in self._probing:
                self._probing.add(instance.name)
                self._background.do(self._probe, instance)

    def _rests(self, instance: Instance) -> bool:
        """Return whether an instance is ready, or its migration was cut off."""
        if instance.state is InstanceState.MIGRATING:
            return self._waker.resting(instance.service)
        return instance.state is InstanceState.READY

    def _probe(self, instance: Instance) -> None:
        """Lead nobody to a guest that is as silent as its host, until its host is back.

        A service that is kept where it is goes on being announced: its clients may still reach it.
        """
        try:
            service = self._fleet.service(instance.service)
            if service is None or service.on_host_loss is OnHostLoss.KEEP:
                return
            if instance.to and self._runs(instance):
                return
            if self._boots.answers(instance, service, LOST_PROBE_S):
                return
            away = [host for host in instance.hosts if host in self._fleet.lost()]
            if away and self._fleet.withdraw(instance):
                why = f"{instance.name} does not answer and {away[0]} is lost"
                self._journal.record("withdrawn", instance.service, why)
                self._steer()
                self._lost(instance, why)
        finally:
            self._probing.discard(instance.name)

    def _meter(self, running: tuple[RunningGuest, ...]) -> None:
        now = time.monotonic()
        for guest in running:
            mark = guest.mark
            if service := self._fleet.service(mark.service):
                counters = (guest.rx_bytes, guest.tx_bytes)
                forget_s = service.idle.after_s or 0.0
                self._count(guest, now)
                self._usage.traffic(mark.service, mark.instance, counters, now, forget_s)

    def _settle_orphans(self, news: News) -> None:
        names = {instance.name for instance in news.known}
        marks = [(guest.mark, InstanceState.READY) for guest in news.running]
        marks += [(guest.mark, InstanceState.PAUSED) for guest in news.paused]
        marks += [(mark, InstanceState.SAVED) for mark in news.saved or ()]
        for mark, state in marks:
            name = mark.instance
            twin = self._fleet.get(name)
            if twin is not None and news.host.name not in twin.hosts:
                # The name is in use elsewhere by now: this copy is the stale one.
                self._background.do(self._boots.hosts[news.host.name].hypervisor.stop, name)
            if name not in names and twin is None:
                found = orphan(mark, self._fleet.lab, news.host, time.time(), state)
                self._settle(found, news)

    def _settle(self, settlement: Settlement, news: News) -> None:
        """Act on one decision, if the instance has not changed since the host was asked."""
        instance = settlement.instance
        present = self._fleet.get(instance.name)
        resting = self._waker.resting(instance.service)
        match settlement:
            case Adopt():
                self._store.save(instance)
                self._fleet.put(instance)
                self._adopt(instance, "without a record")
            case Keep() if news.fresh and present is instance:
                self._take_back(instance)
            case Finish() if news.fresh and present is instance and resting:
                self._background.do(self._finish, instance)
            case Rest(state=state) if present is instance and resting:
                self._let_rest(instance, state, news)
            case Resolve() if present is instance and resting:
                if instance.name not in self._resolving:
                    self._resolving.add(instance.name)
                    self._background.do(self._resolve_in_turn, instance)
            case End() if self._waker.will_end(instance.name):
                pass  # told already: a migration of its service may hold it up for minutes
            case End(why=why) if _may_end(instance, present, news, resting=resting):
                self._end(instance, present, news.ended.get(instance.name, why))
            case _:
                pass

    def _end(self, instance: Instance, present: Instance | None, why: str) -> None:
        """Lead nobody to an instance and have it ended.

        What is being stopped, or is an orphan, may refuse to end: that is told when it has.
        """
        may_run = present is None or instance.state is InstanceState.STOPPING
        if not may_run:
            self._journal.record("ended", instance.service, f"{instance.name}: {why}")
        if present is None or self._fleet.withdraw(instance):
            self._steer()
            if present is instance and instance.state is InstanceState.READY:
                self._mourn(instance, why)
            self._waker.end_later(instance, why if may_run else "")

    def _mourn(self, instance: Instance, why: str) -> None:
        """Tell of an instance that died, unless it was on its way out anyway."""
        if not self._retirer.holds(instance.name):
            self._waker.died(instance, why)
            self._lost(instance, f"{instance.name}: {why}")

    def _take_back(self, instance: Instance) -> None:
        """Lead clients to a guest that a host has brought back, unless others have taken over."""
        if self._retirer.holds(instance.name):
            return
        service = self._fleet.service(instance.service)
        draining = self._fleet.draining()
        copies = [
            Copy(each, led=not self._fleet.hidden(each.name), draining=each.host in draining)
            for each in self._fleet.of(instance.service)
            if each is instance or each in self._fleet.serving(each.service)
        ]
        if service is not None and instance in surplus(copies, self._fleet.wanted(service)):
            why = f"it came back beside {len(copies) - 1} that clients are led to"
            self._retirer.retire(instance, why)
        else:
            self._adopt(instance, f"on {instance.host}")

    def _adopt(self, instance: Instance, how: str) -> None:
        """Lead clients to a guest that was running before us; its last answer may be in caches."""
        self._journal.record("adopted", instance.service, f"{instance.name} {how}")
        if instance.state in ASLEEP:
            return
        self._asked[instance.service] = time.monotonic()
        if self._fleet.restore(instance):
            self._usage.woke(instance.service, time.monotonic())
            self._steer()

    def _let_rest(self, instance: Instance, state: InstanceState, news: News) -> None:
        """Take an instance for what its host says that it is: asleep."""
        if instance.state is not state:
            instance = instance.step(state)
            self._store.save(instance)
            text = f"{instance.name} on {instance.host} is {state}"
            self._journal.record("found-asleep", instance.service, text, host=instance.host)
        elif not news.fresh:
            return
        self._fleet.put(instance)
        self._steer()

    def _resolve_in_turn(self, instance: Instance) -> None:
        """Find out what became of a migration that an earlier run, or a lost host, cut off."""
        try:
            with self._waker.locks[instance.service]:
                if self._fleet.get(instance.name) is instance and (
                    ready := self._resolve(instance)
                ):
                    self._adopt(ready, f"on {ready.host}, after its migration was cut off")
        finally:
            self._resolving.discard(instance.name)

    def _finish(self, instance: Instance) -> None:
        """Carry a boot that an earlier run began to its end."""
        with self._waker.locks[instance.service]:
            if self._fleet.get(instance.name) is not instance:
                return
            service = self._fleet.service(instance.service)
            try:
                if service is None:
                    self._waker.end_later(instance)
                    why = "the lab has no such service any more"
                    if is_spare(instance.service):
                        why = "it was interrupted before it rested"
                    raise UnknownService(instance.service, why)
                deadline = time.monotonic() + service.deadline_s
                ready = self._boots.finish(instance, service, deadline)
            except EdgewakeError as error:
                self._journal.record("ended", instance.service, f"{instance.name}: {error}")
            else:
                self._fleet.put(ready)
                self._adopt(ready, "which had been booting")


def _asleep(news: News) -> dict[str, InstanceState]:
    """Return who sleeps on a host, as far as it said, and else as we remember it."""
    if news.saved is None:
        remembered = [each for each in news.known if each.state is InstanceState.SAVED]
        found = {each.name: InstanceState.SAVED for each in remembered}
    else:
        found = {mark.instance: InstanceState.SAVED for mark in news.saved}
    return found | {guest.mark.instance: InstanceState.PAUSED for guest in news.paused}


def _may_end(instance: Instance, present: Instance | None, news: News, *, resting: bool) -> bool:
    """Return whether nobody else is busy with an instance that is to be ended."""
    if present is None:
        return news.fresh  # an orphan that cannot be adopted
    if present is not instance:
        return False
    return instance.state is InstanceState.READY or resting

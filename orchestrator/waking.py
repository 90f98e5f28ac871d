"""Carries a wake from "somebody wants it" to an instance that answers, trying hosts and flavours.

Everything here runs on a worker thread that holds the service's lock: only who holds it boots or
ends instances of the service, so a wake, a sleep and a move of one service never overlap.
"""

import time
from collections import defaultdict
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from ipaddress import IPv4Address
from logging import getLogger
from threading import Event as Flag
from threading import Lock
from typing import Protocol

from orchestrator.attempts import Attempts, share_s
from orchestrator.background import Background
from orchestrator.boot import Boots
from orchestrator.errors import (
    EdgewakeError,
    GuestDied,
    HostUnreachable,
    HypervisorError,
    ImageUnusable,
    NameHeld,
    NoCapacity,
    NoHostReachable,
    NotReady,
    StartFailed,
    StoreError,
    WakeError,
)
from orchestrator.fleet import Fleet
from orchestrator.frames import WatchGuest, watch_nobody
from orchestrator.hopeless import Hopeless
from orchestrator.journal import Journal
from orchestrator.library import Fit
from orchestrator.model import (
    ASLEEP,
    COMING,
    Instance,
    InstanceState,
    OnHostLoss,
    Service,
)
from orchestrator.sleeping import Sleeper
from orchestrator.trace import WakeTrace

ENGINE = "greedy-latency"  # of `placement`; what `Planner.rank` asks
TURN_S = 0.2  # how long one thread waits to end an instance, before it ends others
# Nobody is at these when the service's lock is free: something unforeseen happened to who was.
LEFT = frozenset({InstanceState.STOPPING, InstanceState.ROUSING})

log = getLogger(__name__)


@dataclass(frozen=True, slots=True)
class There:
    """Where a client is held: the host, and the address that its guest must have."""

    host: str
    address: IPv4Address


class Claim(Protocol):
    """`Spares.claim`: makes an anonymous instance one of a service."""

    def __call__(
        self, service: Service, population: str, trace: WakeTrace, deadline: float, /
    ) -> Instance | None:
        """Return it READY and stored; None if there is none that suits it."""
        ...


def claim_nothing(
    _service: Service, _population: str, _trace: WakeTrace, _deadline: float, /
) -> Instance | None:
    """Stand for a lab without anonymous instances."""
    return None


class Recall(Protocol):
    """`Retirer.recall`: leads clients again to a copy that was being retired."""

    def __call__(self, service: str, *, staying: bool = False) -> bool:
        """Return whether there is one; `staying` leaves out those on hosts that are drained."""
        ...


@dataclass(frozen=True, slots=True)
class Wish:
    """What is to be booted, and for whom.

    `unfit` are hosts that cannot boot it, with why; `only`, unless empty, is the host wanted, and
    `address` the one that the service had there; `deadline` is monotonic. If it is `ahead`, nobody
    waits for it.
    """

    service: Service
    population: str
    unfit: Mapping[str, str]
    only: str
    deadline: float
    address: IPv4Address | None = None
    ahead: bool = False


class Waker:
    """Boots instances where they fit best, and ends them.

    `leaving` says of an instance whether it is being retired; `resolve` finds out where one is that
    was being migrated when that was cut off; `watch` has the packets of a guest that is booted
    looked at; `reserved` is told of each instance before it boots; `claim` finds one that another
    has booted before.
    """

    def __init__(
        self,
        fleet: Fleet,
        boots: Boots,
        journal: Journal,
        *,
        announce: Callable[[Instance], None],
        lose: Callable[[str, str], None],
        mend: Callable[[str], None],
        recall: Recall,
        leaving: Callable[[str], bool],
        resolve: Callable[[Instance], Instance | None],
        background: Background,
        sleeper: Sleeper,
        hopeless: Hopeless,
        locks: defaultdict[str, Lock],
        watch: WatchGuest = watch_nobody,
        reserved: Callable[[Instance, WakeTrace], None] = lambda _instance, _trace: None,
        claim: Claim = claim_nothing,
    ) -> None:
        self.locks = locks
        self._sleeper = sleeper
        self._reserved = reserved
        self._claim = claim
        self._hopeless = hopeless
        self._fleet = fleet
        self._boots = boots
        self._journal = journal
        self._announce = announce
        self._lose = lose
        self._mend = mend
        self._recall = recall
        self._leaving = leaving
        self._resolve = resolve
        self._background = background
        self._watch = watch
        self._to_end: dict[str, str] = {}  # why, by instance
        self._not_ended: dict[tuple[str, float], str] = {}
        self._stopping = Flag()

    def wake(
        self, service: Service, population: str, trace: WakeTrace, there: There | None = None
    ) -> None:
        """Make the service answer, unless it does already. Takes the service's lock.

        `there` is where a client is held for it: only that host will do, unless it cannot and
        others have asked meanwhile. Raises `WakeError`; the time runs from the trace's first query.
        """
        deadline = trace.zero + service.deadline_s
        lock = self.locks[service.name]
        if not lock.acquire(blocking=False):
            if not lock.acquire(timeout=max(0.0, deadline - time.monotonic())):
                raise NotReady(service.name, "it was still being stopped or moved at the deadline")
            trace.stamp("turn")
        try:
            if time.monotonic() >= deadline:
                raise NotReady(service.name, "too many wakes at once: its turn came too late")
            if found := self._found(service.name):
                trace.decided_by = found
                return
            if self._clear_hidden(service.name):
                trace.stamp("cleared")
            self._refuse_second_copy(service)
            try:
                self.bring(service, population, deadline, trace, there)
            except WakeError as error:
                if trace.instance and not self._stopping.is_set():
                    self._hopeless.failed(service, _without_name(service, error))
                raise
            self._hopeless.worked(service.name)
        finally:
            lock.release()

    def _boot_there(
        self, service: Service, deadline: float, trace: WakeTrace, there: There
    ) -> bool:
        """Boot where a client is held; False if that failed and somebody else has asked, too."""
        try:
            self.boot(service, "", deadline, trace, only=there.host, address=there.address)
        except WakeError as error:
            why = f"whoever is held for {there.address} on {there.host} is not served: {error}"
            self._journal.record("client-lost", service.name, why)
            if trace.queries == 1 or time.monotonic() >= deadline:
                raise
            return False
        return True

    def died(self, instance: Instance, why: str) -> None:
        """Note that a guest that was ready ended by itself: that may be its flavour's fault."""
        service, fit = self._fleet.service(instance.service), self._boots.booted(instance)
        if service is not None and fit is not None:
            up_s = self._fleet.up_s(instance)
            self._boots.flavours.failed(service, instance.host, fit, why, up_s=up_s)

    def grow(self, service: Service) -> str:
        """Boot the copies that an awake service is missing. Takes the service's lock.

        Returns why one of them could not be booted; empty if all answer.
        """
        with self.locks[service.name]:
            while not self._stopping.is_set() and (led := self._fleet.serving(service.name)):
                if len(led) + len(self.coming(service)) >= self._fleet.wanted(service):
                    break
                if self._recall(service.name, staying=True):
                    continue
                trace = WakeTrace(service.name)
                try:
                    self._clear_hidden(service.name)
                    self.bring(service, "", trace.zero + service.deadline_s, trace)
                except EdgewakeError as error:
                    self._journal.record("replica-failed", service.name, str(error))
                    return str(error)
        return ""

    def coming(self, service: Service) -> tuple[Instance, ...]:
        """Return the instances that nobody is led to, and that will answer without our help.

        They are being booted, or are waited for on a lost host because the service wants no second
        copy while they may be running.
        """
        led = self._fleet.serving(service.name)
        others = (each for each in self._fleet.of(service.name) if each not in led)
        awaited = self.awaited(service)
        return tuple(
            each
            for each in others
            if each in awaited or (each.state in COMING and not self._fleet.hidden(each.name))
        )

    def awaited(self, service: Service) -> tuple[Instance, ...]:
        """Return the instances on lost hosts that the service waits for instead of moving."""
        if service.on_host_loss is not OnHostLoss.KEEP:
            return ()
        lost = self._fleet.lost()
        return tuple(e for e in self._fleet.of(service.name) if lost.keys() & set(e.hosts))

    def bring(
        self,
        service: Service,
        population: str,
        deadline: float,
        trace: WakeTrace,
        there: There | None = None,
    ) -> None:
        """Have one more instance answer, by the shortest way.

        That is one that sleeps, else an anonymous one that it claims, else a new one. `there` is
        where a client is held: what is not at that address is of no use to it. The caller holds
        the service's lock. Raises as `boot` does.
        """
        asleep = [each for each in self._fleet.of(service.name) if each.state in ASLEEP]
        for instance in sorted(asleep, key=lambda each: each.rung.depth):
            if self._boots.outdated(instance, service):
                why = f"{instance.name}: its image was changed since it booted"
                self._journal.record("not-roused", service.name, why)
                self.end(instance)
                trace.stamp("cleared")
                continue
            self._watch(self._fleet.lab.host(instance.host).network, instance, trace)
            if ready := self._sleeper.rouse(instance, service, trace, deadline):
                self._announce(ready)
                trace.stamp("stored")
                return
            self._refuse_second_copy(service)  # its host may have been lost just now
        claimed = self._claim(service, population, trace, deadline) if there is None else None
        if claimed is not None:
            self._announce(claimed)
            trace.stamp("stored")
            return
        if there is None or not self._boot_there(service, deadline, trace, there):
            self.boot(service, population, deadline, trace)

    def boot(
        self,
        service: Service,
        population: str,
        deadline: float,
        trace: WakeTrace,
        *,
        only: str = "",
        address: IPv4Address | None = None,
        hold: Callable[[Instance], None] | None = None,
    ) -> None:
        """Boot one instance on the best host, or the next best while the deadline allows.

        `only` names the one host that will do, `address` the one that the service had there. With
        `hold` nobody waits for it: others make no room, and once it answers it is handed over
        instead of being announced. The caller holds the service's lock. Raises `WakeError` that
        tells what happened on each host that was tried.
        """
        unfit = self._boots.unfit(service)
        if unfit and len(unfit) == len(self._fleet.lab.hosts):
            why = "; ".join(sorted(set(unfit.values())))
            raise ImageUnusable(service.name, f"no host of the lab can run it: {why}")
        flavours = self._boots.flavours
        attempts = Attempts(lambda host: flavours.of(service, host), flavours.avoided(service))
        wish = Wish(service, population, unfit, only, deadline, address, ahead=hold is not None)
        while True:
            instance = self._reserve(wish, attempts, trace)
            trace.stamp("claimed")
            trace.instance, trace.host, trace.rung = instance.name, instance.host, "cold"
            trace.decided_by = self._decided_by(instance, wish, attempts.without)
            log.debug("%s on %s: %s", instance.name, instance.host, trace.decided_by)
            self._watch(self._fleet.lab.host(instance.host).network, instance, trace)
            began = time.monotonic()
            if hold is None:
                self._reserved(instance, trace)
            fit = attempts.flavour(instance.host)
            self._tell_of_flavour(service, instance, fit)
            until = partial(self._until, wish, attempts, instance.host, fit)
            try:
                ready = self._boots.boot(instance, service, until, trace.stamp, fit)
            except (HypervisorError, WakeError) as error:
                trace.stamp("silent" if isinstance(error, NotReady | GuestDied) else "failed")
                failures = attempts.failures
                if isinstance(error, NameHeld):  # the host is as good as before, by another name
                    self._fleet.avoid_name(instance.host, instance.name)
                    failures = [*failures, error]
                else:
                    attempts.failed(instance.host, fit, error)
                self._note_failure(instance, service, fit, error)
                if time.monotonic() >= deadline or self._stopping.is_set():
                    raise _told(service.name, failures) from error
            else:
                if hold is None:
                    self._announce(ready)
                else:
                    self._hide(ready)
                    hold(ready)
                trace.stamp("stored")
                self._note_success(ready, service, fit, time.monotonic() - began)
                return

    def _hide(self, ready: Instance) -> None:
        """Remember an instance that answers, and lead nobody to it."""
        if booting := self._fleet.get(ready.name):
            self._fleet.withdraw(booting)
        self._fleet.put(ready)

    def _reserve(self, wish: Wish, attempts: Attempts, trace: WakeTrace) -> Instance:
        """Hold what the next attempt needs; raises the error of the wake if there is none."""
        while True:
            try:
                return self._fleet.reserve(
                    wish.service.name,
                    population=wish.population,
                    unfit=wish.unfit,
                    without=attempts.without,
                    only=wish.only,
                    address=wish.address,
                    stamp=trace.stamp,
                )
            except (NoCapacity, NoHostReachable) as error:
                if isinstance(error, NoCapacity) and self._made_room(wish, attempts.without):
                    trace.stamp("room")
                    continue
                if attempts.widen():
                    self._clear_hidden(wish.service.name)  # what failed may hold the room
                    if time.monotonic() < wish.deadline:  # ending it may have taken seconds
                        continue
                if not attempts.failures:
                    raise
                raise _told(wish.service.name, attempts.failures) from attempts.failures[-1]

    def _until(self, wish: Wish, attempts: Attempts, host: str, fit: Fit | None) -> float:
        """Return until when to wait for a guest, so that what else can be tried has a chance.

        So it is for one booted ahead: a client that comes meanwhile is to have time for another.
        Every other time that a service fails, a guest may take all of the time: it may be slow.
        """
        others: tuple[str, ...] = ()
        if not wish.only and len(self._fleet.lab.hosts) > 1:
            ranking = self._fleet.ranking(wish.service.name, wish.population, wish.unfit)
            others = ranking.hosts
        odd = self._hopeless.count(wish.service.name) % 2
        if not wish.ahead and (attempts.is_last(host, others) or odd):
            return wish.deadline
        now = time.monotonic()
        return now + share_s(wish.deadline - now, self._sleeper.usual_boot_s(fit, host))

    def _tell_of_flavour(self, service: Service, instance: Instance, fit: Fit | None) -> None:
        """Have it known that a host boots another flavour than the preferred one, and why."""
        preferred = self._boots.flavours.preferred(service, instance.host)
        if fit is None or preferred is None or fit == preferred:
            return
        row = self._boots.flavours.failures(service, instance.host, preferred)
        times = "once" if row.count == 1 else f"{row.count} times in a row"
        text = (
            f"{instance.name} on {instance.host} boots {fit.title}: {preferred.title} failed there "
            f"{times}, the last: {row.why}"
        )
        self._journal.record("other-flavour", service.name, text, host=instance.host)

    def _note_success(
        self, ready: Instance, service: Service, fit: Fit | None, seconds: float
    ) -> None:
        if fit is not None:
            self._boots.flavours.worked(service, ready.host, fit)
        self._sleeper.booted(fit, ready.host, seconds)

    def _made_room(self, wish: Wish, tried: frozenset[str]) -> bool:
        """Have instances that nobody uses give back memory for a boot, where that is enough."""
        if wish.ahead:
            return False
        gains = {
            host: gain
            for host, gain in self._sleeper.gains().items()
            if gain and host not in tried and wish.only in {"", host}
        }
        needed = self._fleet.needed_mib(wish.service.name, gains, wish.unfit)
        return any(self._sleeper.make_room(host, mib) for host, mib in needed.items())

    def end(self, instance: Instance) -> bool:
        """End an instance; if its host does not answer, it stays STOPPING until the host is back.

        Its address rests for as long as an answer that named it may live. The caller holds the
        service's lock. Returns whether it is gone; if not, `not_ended` tells why.
        """
        try:
            self._boots.stop(instance, rest_s=self._fleet.rest_s(instance.service))
        except HostUnreachable as error:
            self._lose(error.host, error.message)
            return False
        except HypervisorError as error:
            self._note_not_ended(instance, str(error))
            return False
        self._not_ended.pop(_key(instance), None)
        return True

    def not_ended(self, instance: Instance) -> str:
        """Return why an instance could not be ended, and what to do; empty if that did not fail."""
        return self._not_ended.get(_key(instance), "")

    def end_if_same(self, instance: Instance) -> None:
        """End an instance unless somebody else did meanwhile. Takes the service's lock."""
        with self.locks[instance.service]:
            if self._fleet.get(instance.name) in {instance, None}:
                self.end(instance)

    def end_later(self, instance: Instance, why: str = "") -> None:
        """End an instance off the caller's path; asked for twice, it is done once.

        `why`, unless empty, is journaled when it has ended.
        """
        if instance.name not in self._to_end:
            self._to_end[instance.name] = why
            self._background.do(self.end_in_turn, instance)

    def rest_later(self, instance: Instance) -> None:
        """Have an instance sleep beside others that answer, off the caller's path.

        One that may not sleep ends.
        """
        self._background.do(self._rest, instance)

    def will_end(self, instance: str) -> bool:
        """Return whether `end_later` was asked to end an instance, and it waits for its turn."""
        return instance in self._to_end

    def end_in_turn(self, instance: Instance) -> None:
        """End an instance as `end_if_same` does; a store that fails is left to the next sweep.

        While its service is busy, which a migration can be for minutes, others go before it.
        """
        lock = self.locks[instance.service]
        if not lock.acquire(timeout=TURN_S):
            self._background.do(self.end_in_turn, instance)
            return
        try:
            ended = self._fleet.get(instance.name) in {instance, None} and self.end(instance)
            if ended and (why := self._to_end.get(instance.name)):
                self._journal.record("ended", instance.service, f"{instance.name}: {why}")
        except StoreError as error:
            log.warning("%s: %s; the next sweep tries again", instance.name, error)
        finally:
            lock.release()
            self._to_end.pop(instance.name, None)

    def _rest(self, instance: Instance) -> None:
        with self.locks[instance.service]:
            service = self._fleet.service(instance.service)
            if self._fleet.get(instance.name) is not instance or self._stopping.is_set():
                return
            if not self._fleet.hidden(instance.name):
                return  # clients are led there again
            rung = self._sleeper.below(instance, service) if service else None
            try:
                slept = service and rung and self._sleeper.lower(instance, service, rung)
            except StoreError as error:
                log.warning("%s could not be put to sleep: %s", instance.name, error)
                if self._fleet.get(instance.name) is instance:
                    self.end_later(instance)
                return
            if not slept and not self._stopping.is_set():
                self.end(instance)

    def resting(self, service: str) -> bool:
        """Return whether no wake, sleep or move of the service is under way."""
        return not self.locks[service].locked()

    def close(self) -> None:
        """Begin nothing new."""
        self._stopping.set()

    def _resolved(self, service: str) -> bool:
        """Lead clients to an instance whose migration was cut off; False if there is none."""
        for instance in self._fleet.of(service):
            if instance.state is InstanceState.MIGRATING and (ready := self._resolve(instance)):
                self._fleet.restore(ready)
                self._announce(ready)
        return bool(self._fleet.endpoints(service))

    def _found(self, service: str) -> str:
        """Lead clients to what answers already, and say how that came; empty if nothing does."""
        if self._fleet.endpoints(service):
            return "it answered by then"
        if self._recall(service):
            return "recalled: it was being retired"
        return "its cut-off migration was resolved" if self._resolved(service) else ""

    def _clear_hidden(self, service: str) -> bool:
        """End what is on its way out already, so that it holds no memory and no address.

        What is being retired has time while others answer: caches may name it. Returns whether
        there was anything to end.
        """
        lost = self._fleet.lost()  # an unreachable host would only hold up the wake
        awake = bool(self._fleet.serving(service))
        any_ends = False
        for instance in self._fleet.of(service):
            ends = instance.state in LEFT or self._fleet.hidden(instance.name)
            ends = ends and instance.host not in lost
            ends = ends and instance.state is not InstanceState.MIGRATING  # may yet be found
            if ends and not (awake and self._leaving(instance.name)):
                any_ends = True
                self.end(instance)
        return any_ends

    def _refuse_second_copy(self, service: Service) -> None:
        for instance in self.awaited(service):
            raise NoHostReachable(
                service.name,
                f"{instance.name} may be running on {instance.host}, which cannot be reached",
                hint="it is led to when its host is back; 'on_host_loss: wake-elsewhere' would "
                "boot another copy instead",
            )

    def _decided_by(self, instance: Instance, wish: Wish, tried: Collection[str]) -> str:
        """Say in a few words who or what chose the host of an instance."""
        lab, plan = self._fleet.lab, self._fleet.planner.last_plan
        if wish.only:
            held = "a client is held at its address there"
            return held if wish.address else "the change that was asked for"
        if tried:
            return f"{ENGINE}, after {', '.join(sorted(tried))} failed"
        if len(lab.hosts) == 1:
            return "only host"
        if len(lab.hosts) - len(wish.unfit) == 1:
            return "only host that can run it"
        if plan and instance.host in plan.hosts.get(instance.service, ()):
            return f"{ENGINE}, which is where {plan.algorithm or 'the last plan'} has it"
        return ENGINE

    def _note_not_ended(self, instance: Instance, why: str) -> None:
        """Remember why an instance could not be ended; it is tried again often, and told once."""
        there = {_key(each) for each in (*self._fleet.instances(), instance)}
        for gone in self._not_ended.keys() - there:
            self._not_ended.pop(gone, None)
        if self._not_ended.get(_key(instance)) != why:
            self._not_ended[_key(instance)] = why
            self._journal.record("stop-failed", instance.service, why, host=instance.host)

    def _note_failure(
        self, instance: Instance, service: Service, fit: Fit | None, error: EdgewakeError
    ) -> None:
        if isinstance(error, HostUnreachable):
            self._lose(error.host, error.message)
        elif fit is not None and not isinstance(error, NameHeld) and not self._stopping.is_set():
            why = _without_name(service, error)
            self._boots.flavours.failed(service, instance.host, fit, why)
        if isinstance(error, StartFailed):
            self._mend(error.host)
        self._journal.record("boot-failed", instance.service, str(error), host=instance.host)


def _key(instance: Instance) -> tuple[str, float]:
    """Return what tells an instance from a later one of the same name."""
    return instance.name, instance.created_at


def _without_name(service: Service, error: EdgewakeError) -> str:
    return error.message.removeprefix(f"{service.name}: ")


def _told(service: str, failures: Sequence[EdgewakeError]) -> WakeError:
    """Return the one error that tells what happened on every host that was tried."""
    last = failures[-1]
    if isinstance(last, WakeError) and len(failures) == 1:
        return last
    messages = (failure.message.removeprefix(f"{service}: ") for failure in failures)
    said = "; ".join(dict.fromkeys(messages))
    if isinstance(last, WakeError):
        return last.__class__(service, said, hint=last.hint)
    return NoHostReachable(service, f"no host could start it: {said}", hint=last.hint)

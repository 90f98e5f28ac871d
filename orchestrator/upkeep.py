"""Keeps awake services as many as they should be: grows lost copies again, takes surplus ones away.

It wakes those that have to be awake though nobody asks, too: pinned ones, or at certain hours.

The decision is pure: `missing` says how many copies to boot now. How long to wait after losses in a
row is a rule of `orchestrator.failures`. `Keeper` acts on it, one piece of work per service at a
time, and leaves a service alone that is being woken, put to sleep or moved. Which copy is surplus
is `orchestrator.reconcile`'s rule.
"""

import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass

from orchestrator.background import Background
from orchestrator.failures import STEADY_S, Failures, delay_s
from orchestrator.fleet import Fleet
from orchestrator.idle import kept_up
from orchestrator.journal import Journal
from orchestrator.model import ASLEEP, Endpoint, Instance, Restart, Service
from orchestrator.reconcile import Copy, surplus
from orchestrator.retiring import Retirer
from orchestrator.waking import Waker


@dataclass(frozen=True, slots=True)
class Standing:
    """How many copies a service has and should have.

    `copies` should answer while it is awake. `led` are those that clients are led to, `coming`
    those that will answer without our help (booting, or waited for on a lost host). `owed`: it is
    to be woken though nobody asks, because it was in use when its last copy was lost, or has to be
    awake.
    """

    copies: int
    led: int
    coming: int = 0
    owed: bool = False


def missing(standing: Standing, *, retry_at: float, now: float) -> int:
    """Return how many copies to boot now. A service that sleeps misses none."""
    if now < retry_at:
        return 0
    wanted = standing.copies if standing.led else int(standing.owed)
    return max(0, wanted - standing.led - standing.coming)


class Keeper:
    """Tends the copies of all services.

    `summon` begins (or joins) the wake of a service, and is told who asks for it; `in_use` says
    whether it was used of late, by its own idle policy; `in_hand` whether a list of changes is
    being carried out on it.
    """

    def __init__(
        self,
        fleet: Fleet,
        waker: Waker,
        retirer: Retirer,
        journal: Journal,
        *,
        summon: Callable[[str, str], Future[tuple[Endpoint, ...]]],
        in_use: Callable[[Service], bool],
        in_hand: Callable[[str], bool],
        background: Background,
    ) -> None:
        self._fleet = fleet
        self._waker = waker
        self._retirer = retirer
        self._journal = journal
        self._summon = summon
        self._in_use = in_use
        self._in_hand = in_hand
        self._background = background
        self._losses: Failures[str] = Failures()  # instances that died, boots to replace them
        self._told: dict[str, set[tuple[str, float]]] = {}
        self._owed: set[str] = set()
        self._busy: set[str] = set()
        self._lock = threading.Lock()  # around the three above

    # --- what happened ----------------------------------------------------------------------

    def lost(self, instance: Instance, why: str) -> None:
        """Note that an awake instance died or went silent with its host, and act on it."""
        name = instance.service
        service = self._fleet.service(name)
        if service is None:
            return
        with self._lock:
            if self._heard_of(instance):
                return
            if service.restart is Restart.ALWAYS:
                self._owed.add(name)
        self._note(name, why, up_s=self._fleet.up_s(instance))
        self._tend(service)

    def forget(self, service: str) -> None:
        """Owe a service nothing any more: it was put to sleep."""
        with self._lock:
            self._owed.discard(service)
            self._told.pop(service, None)
        self._losses.forget(service)

    def try_again(self) -> None:
        """Wait no longer to replace what is missing: there may be room for it now."""
        self._losses.clear()

    def backing_off(self, service: str) -> bool:
        """Return whether so many copies of a service were lost of late that it is left alone."""
        return time.monotonic() < self._losses.row(service).retry_at

    def trouble(self, service: str) -> str:
        """Return what is wrong with the copies of a service; empty if nothing is."""
        losses, now = self._losses.row(service), time.monotonic()
        if losses.count < 2 or now > losses.retry_at + STEADY_S:
            return ""
        left_s = losses.retry_at - now
        tried = left_s > 0 and (service in self._owed or self._fleet.serving(service))
        again = f"; the next try is in {left_s:.0f} s" if tried else ""
        return f"{losses.count} failures in a row, the last: {losses.why}{again}"

    # --- what is done about it --------------------------------------------------------------

    def tend(self) -> None:
        """Look at every service; called in each sweep. Begins work, waits for none."""
        for service in self._fleet.lab.services:
            self._tend(service)

    def grow(self, service: Service) -> None:
        """Boot the copies that an awake service is missing, in the background, once at a time."""
        if self._claim(service.name):
            self._background.do(self._grow, service)

    def _claim(self, service: str) -> bool:
        """Return whether the caller is the one to work on a service, until it is not busy."""
        with self._lock:
            free = service not in self._busy
            self._busy.add(service)
            return free

    def _tend(self, service: Service) -> None:
        name = service.name
        if name in self._busy or self._in_hand(name) or not self._waker.resting(name):
            return
        self._trim(service)
        standing = self._standing(service)
        retry_at = self._losses.row(name).retry_at
        if not missing(standing, retry_at=retry_at, now=time.monotonic()):
            return
        if standing.led:
            self.grow(service)
        else:
            self._restart(service)

    def _standing(self, service: Service) -> Standing:
        name, led = service.name, len(self._fleet.serving(service.name))
        if name in self._owed and (led or not self._in_use(service)):
            self._owed.discard(name)
        return Standing(
            copies=self._fleet.wanted(service),
            led=led,
            coming=len(self._waker.coming(service)),
            owed=name in self._owed or kept_up(service.idle, time.time()) is not None,
        )

    def _trim(self, service: Service) -> None:
        """Retire the copies beyond those that the service should have; end those that sleep."""
        lock = self._waker.locks[service.name]
        wanted = self._fleet.wanted(service)
        if (serving := len(self._fleet.serving(service.name))) >= wanted:
            self._end_asleep(service, service.most - serving)
        if serving <= wanted:
            return
        if not lock.acquire(blocking=False):
            return
        try:
            draining = self._fleet.draining()
            led = self._fleet.serving(service.name)
            copies = [Copy(each, led=True, draining=each.host in draining) for each in led]
            for instance in surplus(copies, wanted):
                why = f"{len(led)} copies, {wanted} wanted"
                self._retirer.retire(instance, why, rest=service.scale is not None)
        finally:
            lock.release()

    def _end_asleep(self, service: Service, kept: int) -> None:
        """End the copies that sleep but for so many, which are there when more are wanted."""
        lost = self._fleet.lost()
        asleep = [each for each in self._fleet.of(service.name) if each.state in ASLEEP]
        for instance in sorted(asleep, key=lambda each: each.rung.depth)[max(0, kept) :]:
            if instance.host not in lost:
                self._waker.end_later(instance, "enough other copies answer")

    def _restart(self, service: Service) -> None:
        name = service.name
        if not self._claim(name):
            return
        losses, kept = self._losses.row(name), kept_up(service.idle, time.time())
        if kept is not None:
            self._journal.record("pre-waking", name, kept.reason, by=str(kept))
        else:
            self._journal.record("restarting", name, f"after {losses.count} in a row: {losses.why}")
        try:
            woken = self._summon(name, str(kept or "restart"))
        except BaseException:  # such as a lab without it by now
            self._busy.discard(name)
            raise
        woken.add_done_callback(lambda done: self._restarted(name, done))

    def _restarted(self, service: str, done: Future[tuple[Endpoint, ...]]) -> None:
        if error := done.exception():
            self._note(service, str(error))
        self._busy.discard(service)

    def _grow(self, service: Service) -> None:
        try:
            if why := self._waker.grow(service):
                self._note(service.name, why)
        finally:
            self._busy.discard(service.name)

    def _heard_of(self, instance: Instance) -> bool:
        """Return whether this loss was told before: by a silent probe first, then by its host."""
        name, key = instance.service, (instance.name, instance.created_at)
        kept = {(each.name, each.created_at) for each in self._fleet.of(name)}
        told = self._told.get(name, set())
        self._told[name] = (told & kept) | {key}
        return key in told

    def _note(self, service: str, why: str, *, up_s: float = 0.0) -> None:
        losses = self._losses.failed(service, why, time.monotonic(), up_s=up_s)
        if losses.count > 1:
            wait = f"nothing is booted without a query for {delay_s(losses.count):g} s"
            text = f"{losses.count} failures in a row: {wait}"
            self._journal.record("backing-off", service, text)

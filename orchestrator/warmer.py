"""Carries out the warm plan: what hosts are to keep warm is booted there ahead, and rests there.

For labs with ``warm: auto``. What is to be kept is `orchestrator.warming`'s answer, asked anew each
minute and when the lab or its hosts change. Of each named service that the plan has resting paused
or saved, and that is cold, an instance is booted where the plan has it, and put to sleep before any
client hears of it. What rests where the plan has it does not sink with time (`kept`). Anonymous
instances are somebody else's: whoever builds them is told what to aim at.

Nothing is ever taken from a client: an instance is booted ahead only while nobody waits for a wake,
one at a time, and where as much stays free as the largest wake needs. A query that comes in the
middle waits for the service's lock, and is served by that very instance.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from logging import getLogger
from threading import Lock

from orchestrator.background import Background
from orchestrator.boot import Boots
from orchestrator.errors import EdgewakeError, NoCapacity
from orchestrator.failures import Failures
from orchestrator.fleet import Fleet
from orchestrator.idle import kept_up
from orchestrator.journal import Journal
from orchestrator.model import ASLEEP, Capacity, Host, Instance, Lab, Rung, Service, WarmPlanning
from orchestrator.sleeping import Sleeper
from orchestrator.trace import WakeTrace
from orchestrator.waking import Waker
from orchestrator.warming import Aims
from placement.warm import WarmTarget

log = getLogger(__name__)

EVERY_S = 60.0  # between two plans, if nothing changes
SHARE = 20  # planning takes at most one of so many seconds, or half of them amid changes
PLAN = "plan"  # who asks, in the trace of a boot ahead


@dataclass(frozen=True, slots=True)
class Rest:
    """Where, and how deep, the plan has a named service resting."""

    host: str
    rung: Rung


@dataclass(frozen=True, slots=True)
class Seen:
    """What a plan was made of, as far as it makes a new one due at once."""

    lab: Lab
    closed: frozenset[str]

    def is_still(self, other: "Seen") -> bool:
        """Return whether nothing has changed; labs are large, and the same only if identical."""
        return self.lab is other.lab and self.closed == other.closed


@dataclass(frozen=True, slots=True)
class Orders:
    """What is to be done: where named services rest, and what stays free on each host.

    `seen` is what it was planned for; None: nothing was planned.
    """

    seen: Seen | None = None
    rests: Mapping[str, Rest] = field(default_factory=dict)
    free: Mapping[str, Capacity] = field(default_factory=dict)


NONE = Orders()


class Warmer:
    """Keeps warm what the plan says.

    `plan` makes one, and may raise `EdgewakeError`; `wanted` says of a service whether somebody
    waits for it, `busy` whether anybody waits for anything; `in_hand` whether a list of changes is
    being carried out on a service; `left_alone` whether so many of its wakes failed of late that
    even clients are refused; `announce` leads clients to an instance; `aim_spares` is told of each
    plan's anonymous targets.
    """

    def __init__(
        self,
        fleet: Fleet,
        boots: Boots,
        waker: Waker,
        sleeper: Sleeper,
        journal: Journal,
        *,
        plan: Callable[[], Aims],
        wanted: Callable[[str], bool],
        busy: Callable[[], bool],
        in_hand: Callable[[str], bool],
        left_alone: Callable[[str], bool],
        announce: Callable[[Instance], None],
        background: Background,
        aim_spares: Callable[[Sequence[WarmTarget]], None] = lambda _targets: None,
    ) -> None:
        self._fleet = fleet
        self._boots = boots
        self._waker = waker
        self._sleeper = sleeper
        self._left_alone = left_alone
        self._journal = journal
        self._plan = plan
        self._wanted = wanted
        self._busy = busy
        self._in_hand = in_hand
        self._announce = announce
        self._background = background
        self._aim_spares = aim_spares
        self._turn = Lock()  # held while something is planned or booted
        self._orders = NONE
        self._due_at = self._soonest = 0.0  # monotonic: the next plan, at all and after a change
        self._trouble = ""
        self._failures: Failures[str] = Failures()

    # --- what the plan says -------------------------------------------------------------------

    def kept(self, instance: Instance) -> Rung | None:
        """Return the rung at which the plan keeps an instance that sleeps; None if it does not.

        One that was taken deeper than that, for want of memory, is kept where it is.
        """
        rest = self._orders.rests.get(instance.service)
        if rest is None or instance.state not in ASLEEP or rest.host != instance.host:
            return None
        return rest.rung if instance.rung.depth >= rest.rung.depth else None

    # --- what is done about it ----------------------------------------------------------------

    def tend(self) -> None:
        """Begin what is due: a plan, or one boot ahead. Called in each sweep; waits for nothing."""
        if self._fleet.lab.warm is WarmPlanning.OFF:
            self._stand_down()
        elif self._is_due() or self._next() is not None:
            self._background.do(self._work, self._fleet.lab.name)

    def _stand_down(self) -> None:
        if self._orders is not NONE:
            self._follow(NONE, ())
            self._due_at = self._soonest = 0.0

    def _work(self, _lab: str) -> None:
        if not self._turn.acquire(blocking=False):
            return
        try:
            if self._is_due():
                self._make_plan()
            if found := self._next():
                self._boot_ahead(*found)
        finally:
            self._turn.release()

    # --- plans --------------------------------------------------------------------------------

    def _now_seen(self) -> Seen:
        return Seen(self._fleet.lab, frozenset(self._fleet.closed()))

    def _is_due(self) -> bool:
        now, seen = time.monotonic(), self._orders.seen
        if now >= self._due_at:
            return True
        return now >= self._soonest and (seen is None or not seen.is_still(self._now_seen()))

    def _make_plan(self) -> None:
        """Ask what is to be kept. Without an answer nothing is, and the journal says why, once."""
        seen, before, began = self._now_seen(), self._orders.seen, time.monotonic()
        if before is None or before.lab is not seen.lab:
            self._failures.clear()
        aims, trouble = Aims(), ""
        try:
            aims = self._plan()
        except EdgewakeError as error:
            trouble = str(error)
        finally:
            now = time.monotonic()
            self._soonest = now + (now - began)
            self._due_at = max(began + EVERY_S, now + SHARE * (now - began))
            if seen.lab.warm is WarmPlanning.AUTO:
                self._follow(_orders(seen, aims), aims.targets)
        if trouble and trouble != self._trouble:
            self._journal.record("warm-plan-failed", seen.lab.name, trouble)
        self._trouble = trouble

    def _follow(self, orders: Orders, targets: Sequence[WarmTarget]) -> None:
        self._orders = orders
        self._aim_spares(tuple(target for target in targets if target.anonymous))

    # --- boots ahead --------------------------------------------------------------------------

    def _next(self) -> tuple[Service, Rest] | None:
        """Return a service that may be booted ahead now, and where it is to rest."""
        orders = self._orders
        if orders.seen is None or not orders.seen.is_still(self._now_seen()) or self._busy():
            return None
        for name, rest in orders.rests.items():
            service = self._fleet.service(name)
            if service is None or self._fleet.of(name):
                continue
            host = orders.seen.lab.host(rest.host)
            room = self._is_room(service, host, orders.free[rest.host])
            if room and self._is_allowed(service, rest):
                return service, rest
        return None

    def _is_room(self, service: Service, host: Host, free: Capacity) -> bool:
        """Return whether a host has room, and the largest wake there still would have some."""
        needs, left = host.taken_by(service.resources), self._fleet.left(host.name)
        return (
            needs.memory_mib + free.memory_mib <= left.memory_mib
            and needs.cpu + free.cpu <= left.cpu
        )

    def _is_allowed(self, service: Service, rest: Rest) -> bool:
        """Return whether a service may be there, and rest so, and nobody is busy with it."""
        name = service.name
        if self._in_hand(name) or self._left_alone(name) or not self._waker.resting(name):
            return False
        if time.monotonic() < self._failures.row(name).retry_at:
            return False
        if service.idle.after_s is None or kept_up(service.idle, time.time()):
            return False
        known = self._sleeper.prospects(service, rest.host)
        if rest.rung.depth > service.idle.deepest.depth or known.why_not(rest.rung, service.idle):
            return False
        return rest.host in self._fleet.ranking(name, "", self._boots.unfit(service)).hosts

    def _boot_ahead(self, service: Service, rest: Rest) -> None:
        """Boot an instance where it is to rest, unless somebody is busy with its service by now."""
        lock = self._waker.locks[service.name]
        if not lock.acquire(blocking=False):
            return
        try:
            if not self._fleet.of(service.name):
                self._bring(service, rest)
        except NoCapacity as error:
            log.debug("%s is not booted ahead: %s", service.name, error)  # others were quicker
        except EdgewakeError as error:
            if not self._boots.closing:
                self._failed(service, f"{rest.host}: {error}")
        finally:
            lock.release()

    def _bring(self, service: Service, rest: Rest) -> None:
        """Boot an instance and put it to sleep; whoever waits for it gets it awake instead."""
        trace = WakeTrace(service.name, by=PLAN)
        held: list[Instance] = []
        deadline = trace.zero + service.deadline_s
        self._waker.boot(service, "", deadline, trace, only=rest.host, hold=held.append)
        (ready,) = held
        if self._wanted(service.name):
            self._fleet.restore(ready)
            self._announce(ready)
            self._failures.forget(service.name)
            return
        reached = self._sleeper.lower(ready, service, rest.rung)
        if reached is None and not self._boots.closing:
            self._waker.end(ready)
        if reached is rest.rung:
            self._failures.forget(service.name)
            text = f"{ready.name} on {ready.host} was booted ahead, and is {reached}"
            self._journal.record("kept-warm", service.name, text, host=ready.host)
        elif not self._boots.closing:
            self._due_at = self._soonest  # it was found out what it does not survive
            self._failed(service, f"{ready.name} on {ready.host} could not be {rest.rung}")

    def _failed(self, service: Service, why: str) -> None:
        """Leave a service alone for ever longer; only the first failure in a row is told."""
        if self._failures.failed(service.name, why, time.monotonic()).count == 1:
            self._journal.record("not-kept-warm", service.name, why)


def _orders(seen: Seen, aims: Aims) -> Orders:
    """Return what a plan asks for; first come those that give back the memory they boot in."""
    rests = {
        target.name: Rest(target.host, rung)
        for rung in (Rung.SAVED, Rung.PAUSED)
        for target in aims.targets
        if target.rung == rung and not target.anonymous
    }
    return Orders(seen, rests, aims.free)

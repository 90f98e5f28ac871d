"""Puts services to sleep that nobody uses, has what sleeps sink deeper, and relieves full hosts.

When a service may sleep is `orchestrator.idle`'s decision, and how `orchestrator.sleeping`'s. An
answer that was handed out in the last moment keeps a service up: first nobody is led there any
more, and then it is looked at again.
"""

import time
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, wait
from contextlib import ExitStack
from dataclasses import replace
from logging import getLogger
from threading import Event as Flag
from threading import Lock

from orchestrator.background import Background
from orchestrator.boot import Boots
from orchestrator.fleet import Fleet
from orchestrator.idle import Usage, Verdict, kept_up, verdict
from orchestrator.journal import Journal
from orchestrator.ladder import Rates
from orchestrator.model import ASLEEP, Instance, InstanceState, Rung, Service
from orchestrator.retiring import QUIET_S, WITHDRAW_GRACE_S
from orchestrator.sleeping import Sleeper

log = getLogger(__name__)

HOST_PATIENCE_S = 5.0  # a host that hangs keeps neither the others nor the next sweep for longer


class Expirer:
    """Says who may sleep, and sees to it.

    `asked` is `Orchestrator.asked`; `steer` tells all steering; `poll` asks hosts what runs there;
    `slept` is told of each service that was put to sleep; `guard` has all hosts guard what sleeps;
    `stopping` is set when edgewake ends; `lanes` has a thread for each host that hangs.
    """

    def __init__(
        self,
        fleet: Fleet,
        boots: Boots,
        sleeper: Sleeper,
        journal: Journal,
        usage: Usage,
        *,
        rates: Rates,
        asked: Mapping[str, float],
        locks: defaultdict[str, Lock],
        steer: Callable[[], None],
        poll: Callable[[frozenset[str]], None],
        slept: Callable[[str], None],
        guard: Callable[[], None],
        stopping: Flag,
        background: Background,
        lanes: Background,
    ) -> None:
        self._fleet = fleet
        self._boots = boots
        self._sleeper = sleeper
        self._journal = journal
        self._usage = usage
        self._rates = rates
        self._asked = asked
        self._locks = locks
        self._steer = steer
        self._poll = poll
        self._slept = slept
        self._guard = guard
        self._stopping = stopping
        self._background = background
        self._lanes = lanes
        self._in_lane: set[str] = set()  # hosts
        self._sinking: set[str] = set()
        self._looked_at = time.monotonic()

    # --- who may sleep ------------------------------------------------------------------------

    def idle(self, service: Service) -> Verdict:
        """Return whether a service may sleep now."""
        lost = self._fleet.lost()
        if any(instance.host in lost for instance in self._fleet.serving(service.name)):
            return Verdict(False, "its host cannot be reached, so its traffic is not seen")
        unused = self.unused(service)
        if unused.sleep and (why := self._sleeper.why_awake(service)):
            return Verdict(False, why)
        return unused

    def unused(self, service: Service) -> Verdict:
        """Return whether a service may sleep by its hours, and what was seen of its use."""
        if kept := kept_up(service.idle, time.time()):
            return Verdict(False, kept.reason)
        if ends := self._fleet.awake_ends(service.name):
            return Verdict(False, f"{ends[0]}, at the end of its chain, is awake")
        now = time.monotonic()
        instances = self._fleet.of(service.name)
        use = self._usage.of(
            service.name,
            asked_at=self._asked.get(service.name, 0.0),
            probing=any(self._boots.waiting_for(instance.name) for instance in instances),
            now=now,
        )
        return verdict(use, service.idle, service.ttl_s, now)

    def spare(self, service: Service) -> bool:
        """Return whether an awake service is not used just now, so that it could make room."""
        return bool(self._fleet.serving(service.name)) and self._is_quiet(service)

    def _is_quiet(self, service: Service) -> bool:
        if service.idle.after_s is None:
            return False
        soon = replace(service.idle, after_s=min(QUIET_S, service.idle.after_s))
        return self.idle(replace(service, idle=soon)).sleep

    # --- the sweep ----------------------------------------------------------------------------

    def expire(self) -> tuple[str, ...]:
        """Look at every service once; return those put to sleep. Blocks for these, for some time.

        Hosts are waited for side by side; on one that hangs, nothing else is begun until it does
        not.
        """
        self._note_use()
        work: dict[str, list[Service]] = defaultdict(list)
        for service in self._fleet.lab.services:
            if any(each.state in ASLEEP for each in self._fleet.of(service.name)):
                self._sink_later(service)
            serving = self._fleet.serving(service.name)
            if serving and self.idle(service).sleep:
                work[serving[0].host].append(service)
        for host in self._fleet.lab.hosts:
            if self._fleet.lacking_mib(host.name):
                work[host.name] += ()
        begun = []
        for name, services in work.items():
            if name not in self._in_lane:
                self._in_lane.add(name)
                begun.append(self._lanes.call(self._relieve, name, services))
        done, late = wait(begun, HOST_PATIENCE_S)
        failed = [each for each in begun if each in done and each.exception()]
        for each in (*late, *failed[1:]):  # the first is raised
            each.add_done_callback(_log_error)
        return tuple(name for each in begun if each in done for name in each.result())

    def _relieve(self, host: str, unused: Sequence[Service]) -> list[str]:
        """Put services on a host to sleep, and what more it takes if its memory is short."""
        try:
            slept = [
                each.name for each in unused if not self._stopping.is_set() and self._expire(each)
            ]
            if lacking := self._fleet.lacking_mib(host):
                self._sleeper.make_room(host, lacking)
        finally:
            self._in_lane.discard(host)
        return slept

    def _note_use(self) -> None:
        """Count the services that were asked for, or had traffic, since the last sweep.

        Traffic of one that nobody is led to is that of our own probes.
        """
        before, self._looked_at = self._looked_at, time.monotonic()
        for service in self._fleet.lab.services:
            led = self._fleet.serving(service.name)
            used_at = self._usage.traffic_of(service.name) if led else 0.0
            if max(self._asked.get(service.name, 0.0), used_at) >= before:
                self._rates.use(service.name, self._looked_at)

    def _expire(self, service: Service) -> bool:
        """Put a service to sleep if nobody uses it; leave it if it is being woken or moved."""
        if not self._fleet.endpoints(service.name) or not self.idle(service).sleep:
            return False
        lock = self._locks[service.name]
        if not lock.acquire(blocking=False):
            return False
        try:
            idle = self.idle(service)
            return idle.sleep and bool(
                self.put_to_sleep(service, idle.reason, still=lambda: self.idle(service).sleep)
            )
        finally:
            lock.release()

    def _sink_later(self, service: Service) -> None:
        """Have what has rested long enough at its rung sink further; a save takes its time."""
        if service.name not in self._sinking and self._due(service):
            self._sinking.add(service.name)
            self._background.do(self._sink, service)

    def _due(self, service: Service) -> list[tuple[Instance, Rung]]:
        found = []
        for instance in self._fleet.of(service.name):
            if instance.state in ASLEEP and self._sleeper.is_due(instance, service):
                rung = self._sleeper.below(instance, service)
                if rung is not None and instance.host not in self._fleet.lost():
                    found.append((instance, rung))
        return found

    def _sink(self, service: Service) -> None:
        lock = self._locks[service.name]
        try:
            if self._stopping.is_set() or not lock.acquire(blocking=False):
                return
            try:
                for instance, rung in self._due(service):
                    if reached := self._sleeper.lower(instance, service, rung):
                        text = f"{instance.name} on {instance.host} is {reached}"
                        self._journal.record("sank", service.name, text, host=instance.host)
                self._guard()
            finally:
                lock.release()
        finally:
            self._sinking.discard(service.name)

    # --- to sleep -----------------------------------------------------------------------------

    def put_to_sleep(
        self,
        service: Service,
        reason: str,
        *,
        still: Callable[[], bool] | None = None,
        to: Callable[[Instance, Service], Rung | None] | None = None,
    ) -> tuple[str, ...]:
        """Lead nobody to a service, then have its instances sleep; return those that do.

        The caller holds the service's lock. `still` is asked, once nobody is led there, whether
        that is still right: an answer may have been given in the last moment. `to` says for each
        instance which rung is meant; by default, the next. What is not ready ends; what may not
        sleep so deeply stays up. What sleeps already sinks only if nothing else is there.
        """
        rung_of = to or self._sleeper.below
        present, led = self._fleet.of(service.name), self._fleet.serving(service.name)
        instances = [each for each in present if each.state not in ASLEEP] or present
        for instance in instances:
            self._fleet.withdraw(instance)
        self._steer()
        if still is not None and not self._is_still(service, still):
            for instance in led:
                self._fleet.restore(instance)
            self._steer()
            return ()
        self._slept(service.name)
        with ExitStack() as failing:
            failing.callback(self._steer)
            for instance in instances:  # should the store fail: what is as it was goes on
                if instance in led or instance.state in ASLEEP:
                    failing.callback(self._fleet.restore, instance)
            reached = {each.name: self._put_down(each, service, rung_of) for each in instances}
            failing.pop_all()
        self._guard()
        down = {name: rung for name, rung in reached.items() if rung is not None}
        if down:
            self._usage.slept(service.name, time.monotonic())
            rungs = ", ".join(sorted(set(down.values())))
            self._journal.record("slept", service.name, f"{reason} ({rungs})")
        return tuple(down)

    def put_down(self, service: Service, why: str) -> bool:
        """Have an awake service that nobody uses sleep where it holds no memory."""
        return bool(
            self.put_to_sleep(
                service,
                why,
                still=lambda: self._is_quiet(service),
                to=self._sleeper.without_memory,
            )
        )

    def _put_down(
        self,
        instance: Instance,
        service: Service,
        rung_of: Callable[[Instance, Service], Rung | None],
    ) -> Rung | None:
        sleeps = instance.state is InstanceState.READY or instance.state in ASLEEP
        rung = rung_of(instance, service) if sleeps else Rung.COLD
        if sleeps and rung and rung.depth <= instance.rung.depth:
            rung = None  # it would be woken for it, on a host that may have no room
        reached = rung and self._sleeper.lower(instance, service, rung)
        if reached is None and self._fleet.get(instance.name) is instance:
            self._fleet.restore(instance)  # it could not be brought down: it goes on
            self._steer()
        return reached

    def _is_still(self, service: Service, still: Callable[[], bool]) -> bool:
        """Look again, with what hosts say of traffic now, whether a service may sleep."""
        self._stopping.wait(WITHDRAW_GRACE_S)
        self._poll(frozenset(each.host for each in self._fleet.of(service.name)))
        return self._fleet.service(service.name) is None or still()


def _log_error(ended: Future[list[str]]) -> None:
    if not ended.cancelled() and (error := ended.exception()):
        log.error("services could not be put to sleep", exc_info=error)

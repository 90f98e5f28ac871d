"""Ends instances that are no longer wanted, though they answer: slowly, so that no client notices.

An instance is retired in two steps: no new client is led to it, and it ends once no cache can name
it any more and its last clients are served. Until then it is still good: should every other copy of
its service be gone, clients are led to it again. Whoever retires an instance has seen to it that
others answer; that they still do is looked at again before the end, so a service is never left
without its last copy.
"""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from orchestrator.fleet import Fleet
from orchestrator.journal import Journal
from orchestrator.model import Instance, InstanceState
from orchestrator.waking import Waker

# An answer that was being sent when its instance was withdrawn is noted in `asked` within this
# time. Long against a thread switch, short for people.
WITHDRAW_GRACE_S = 0.05
LAST_REQUEST_S = 1.0  # for a request that is begun in the last moment of an answer's life
QUIET_S = 2.5  # two sweeps without traffic: whoever was being served has been
LONGEST_TRANSFER_S = 30.0  # what a connection gets that outlives the answer it began with


@dataclass(frozen=True, slots=True)
class _Leaving:
    """An instance on its way out.

    With `for_good` it ends even as the last copy; with `rest` it sleeps, if it may, and does not
    end.
    """

    instance: Instance
    withdrawn_at: float
    for_good: bool
    rest: bool


class Retirer:
    """Keeps the instances that are being retired, in memory only.

    After a crash they are adopted like all others, and whoever wanted them retired wants it again.
    `asked` is `Orchestrator.asked`; `traffic_at` says when traffic of an instance was last seen
    (monotonic); `steer` tells all steering.
    """

    def __init__(
        self,
        fleet: Fleet,
        waker: Waker,
        journal: Journal,
        *,
        asked: Mapping[str, float],
        traffic_at: Callable[[Instance], float],
        steer: Callable[[], None],
    ) -> None:
        self._fleet = fleet
        self._waker = waker
        self._journal = journal
        self._asked = asked
        self._traffic_at = traffic_at
        self._steer = steer
        self._leaving: dict[str, _Leaving] = {}

    def retire(
        self, instance: Instance, why: str, *, for_good: bool = False, rest: bool = False
    ) -> None:
        """Lead no new client to an instance, and end it when no cache can name it any more.

        With `rest` it sleeps then, if it may, for when it is wanted again. Does nothing if the
        instance has changed meanwhile.
        """
        self._leaving[instance.name] = _Leaving(instance, time.monotonic(), for_good, rest)
        if not self._fleet.withdraw(instance):
            self._leaving.pop(instance.name, None)
            return
        self._steer()
        where = f"{instance.name} on {instance.host}"
        self._journal.record("retired", instance.service, f"{where}: {why}", host=instance.host)

    def holds(self, instance: str) -> bool:
        """Return whether an instance is being retired."""
        return instance in self._leaving

    def recall(self, service: str, *, staying: bool = False) -> bool:
        """Lead clients again to a copy that was being retired; False if none is fit for it.

        `staying` leaves out those on hosts that are being drained. The caller holds the service's
        lock.
        """
        closed = {*self._fleet.lost(), *(self._fleet.draining() if staying else ())}
        for leaving in tuple(self._leaving.values()):
            instance = leaving.instance
            if instance.service != service or leaving.for_good or instance.host in closed:
                continue
            if instance.state is InstanceState.READY and self._fleet.restore(instance):
                self._leaving.pop(instance.name, None)
                self._steer()
                lacks = "more copies are wanted" if staying else "no other copy answers any more"
                why = f"{instance.name} on {instance.host}: {lacks}"
                self._journal.record("recalled", service, why)
                return True
        return False

    def tend(self) -> None:
        """End what is due, if others still answer; what somebody is busy with is left for later."""
        for leaving in tuple(self._leaving.values()):
            instance = leaving.instance
            if self._fleet.get(instance.name) is not instance:
                self._leaving.pop(instance.name, None)
            elif self._may_end(leaving):
                self._end(leaving)

    def _may_end(self, leaving: _Leaving) -> bool:
        service = leaving.instance.service
        ttl_s = self._fleet.longest_ttl_s(service)
        forgotten = forgotten_at(leaving.withdrawn_at, self._asked.get(service), ttl_s)
        return served(forgotten, self._traffic_at(leaving.instance), time.monotonic())

    def _end(self, leaving: _Leaving) -> None:
        instance = leaving.instance
        lock = self._waker.locks[instance.service]
        if not lock.acquire(blocking=False):
            return
        try:
            last = not self._fleet.endpoints(instance.service)
            if last and not leaving.for_good and self.recall(instance.service):
                return
            self._leaving.pop(instance.name, None)
        finally:
            lock.release()
        if leaving.rest:
            self._waker.rest_later(instance)
        else:
            self._waker.end_later(instance)


def served(forgotten: float, traffic_at: float, now: float) -> bool:
    """Return whether the last clients of an instance that was forgotten by then are served.

    `traffic_at` is when its traffic was last seen (all monotonic seconds).
    """
    if now < forgotten + LAST_REQUEST_S:
        return False
    return now - traffic_at >= QUIET_S or now >= forgotten + LONGEST_TRANSFER_S


def forgotten_at(withdrawn_at: float, asked_at: float | None, ttl_s: float) -> float:
    """Return when no cache can name an instance any more (all monotonic seconds).

    `asked_at` is when the service's last answer was handed out (None: never in this run). Answers
    that were given after the withdrawal name other instances.
    """
    settled_at = withdrawn_at + WITHDRAW_GRACE_S
    if asked_at is None:
        return settled_at
    return max(settled_at, min(asked_at, settled_at) + ttl_s)

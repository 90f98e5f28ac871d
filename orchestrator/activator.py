"""Wakes services that are asked for, by name or by packets: one wake in flight for each of them.

Between the front doors and `waking`: says whether a wake may begin, begins or joins it, wakes the
functions of a chain with its end, and turns whatever goes wrong into a `WakeError` that the trace,
the journal and all who wait are told. Nobody who asks is held up: wakes run on a pool of threads.
"""

import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from logging import getLogger

from orchestrator.background import Background
from orchestrator.budget import Budgets
from orchestrator.chaining import joined
from orchestrator.early import EARLY_TTL_S, EarlyReplies
from orchestrator.errors import EdgewakeError, Overloaded, UnknownService, WakeError
from orchestrator.fleet import Fleet
from orchestrator.guards.base import Asked
from orchestrator.hopeless import Hopeless
from orchestrator.idle import Usage
from orchestrator.journal import Journal
from orchestrator.lookup import known_service
from orchestrator.model import Client, Endpoint, Instance, Reply, Service
from orchestrator.once import Once
from orchestrator.refusals import Refusals
from orchestrator.summons import Summons
from orchestrator.trace import Wakes, WakeTrace
from orchestrator.traffic import Traffic
from orchestrator.wake_context import working_for
from orchestrator.waking import There

log = getLogger(__name__)

Endpoints = tuple[Endpoint, ...]
Wake = Callable[[Service, str, WakeTrace, There | None], None]


class Activator:
    """The wakes that are under way. Safe to use from many threads.

    `wake` is `Waker.wake`; `grow` boots the further copies of a service that has one; `steer` tells
    all steering. At `most` so many services are woken at once, and none once `stopping` is set.
    """

    def __init__(
        self,
        fleet: Fleet,
        traffic: Traffic,
        journal: Journal,
        wakes: Wakes,
        usage: Usage,
        *,
        hopeless: Hopeless,
        refusals: Refusals,
        budgets: Budgets,
        wake: Wake,
        grow: Callable[[Service], None],
        steer: Callable[[], None],
        background: Background,
        most: int,
        stopping: threading.Event,
    ) -> None:
        self._fleet = fleet
        self._traffic = traffic
        self._journal = journal
        self._wakes = wakes
        self._usage = usage
        self._hopeless = hopeless
        self._refusals = refusals
        self._budgets = budgets
        self._waken = wake
        self._grow = grow
        self._steer = steer
        self._background = background
        self._most = most
        self._stopping = stopping
        self._early = EarlyReplies()
        self._flights: Once[WakeTrace, Endpoints] = Once(self._landed)

    def is_waking(self, service: str) -> bool:
        """Return whether a wake of a service is under way."""
        return service in self._flights

    def busy(self) -> bool:
        """Return whether any wake is under way."""
        return len(self._flights) > 0

    def summon(
        self,
        service: str,
        client: Client,
        asked_at: float = 0.0,
        *,
        by: str = "query",
        insist: bool = False,
    ) -> Summons:
        """Ask for a service: at once if it is awake, else by the one wake in flight for it.

        To begin a wake costs one of the client's budget, if it has an address. `by` says who asks,
        for the wake's trace. While its wakes fail in a row, none is begun for some time, unless a
        person does `insist`. The functions of its chain are woken, and waited for, with it.
        """
        missing = self._fleet.missing(service)
        own = self._summon(service, client, asked_at, by=by, insist=insist)
        if not missing or _failed_at_once(own.endpoints):
            return own
        functions = self._summon_functions(service, missing, asked_at, insist=insist)
        early = known_service(self._fleet, service).reply is Reply.EARLY
        whole = joined(
            service,
            own.endpoints,
            {name: each.endpoints for name, each in functions.items()},
            answer=lambda: (
                self._fleet.answer(service, client.population)
                or (own.endpoints.result() if early else ())
            ),
        )
        return Summons(whole, own.trace or functions[missing[0]].trace)

    def summon_there(self, host: str, asked: Asked) -> Future[Endpoints]:
        """Wake a service where somebody sends packets to it; returns at once."""
        service, there = asked.guarded.service, There(host, asked.guarded.address)
        if refusal := self._refusal(service, insist=False):
            return _failed(refusal)
        flight = self._flights.do(
            service,
            about=lambda: self._wakes.begin(service, asked.at, f"traffic: {asked.client}"),
            start=lambda trace: self._background.call(self._wake, service, Client(), trace, there),
        )
        flight.about.queries = flight.callers
        if not (missing := self._fleet.missing(service)):
            return flight.future
        functions = self._summon_functions(service, missing, asked.at, insist=False)
        ways = {name: each.endpoints for name, each in functions.items()}
        return joined(service, flight.future, ways, answer=lambda: self._fleet.answer(service))

    # --- told by who boots instances ----------------------------------------------------------

    def reserved(self, instance: Instance, trace: WakeTrace) -> None:
        """Tell clients of a service that is answered early where it will be, if that is guarded."""
        service = self._fleet.service(instance.service)
        if service is None or service.reply is not Reply.EARLY:
            return
        if self._traffic.guards(instance):
            self._early.promise(trace, self._fleet.promise(instance, EARLY_TTL_S))

    def announce(self, ready: Instance) -> None:
        """Lead clients to an instance that answers; packets held for the end of a chain go last.

        The chain is closed, or packets are led through it, before these are let go.
        """
        self._fleet.put(ready)
        in_chain = self._fleet.ends_chain(ready.service)
        if not in_chain:
            self._traffic.ready(ready)
        self._usage.woke(ready.service, time.monotonic())
        self._steer()
        if in_chain and not self._fleet.missing(ready.service):
            self._traffic.ready(ready)

    # --- beginning a wake ---------------------------------------------------------------------

    def _summon_functions(
        self, service: str, missing: Sequence[str], asked_at: float, *, insist: bool
    ) -> dict[str, Summons]:
        return {
            name: self._summon(name, Client(), asked_at, by=f"chain: {service}", insist=insist)
            for name in missing
        }

    def _summon(
        self, service: str, client: Client, asked_at: float, *, by: str, insist: bool
    ) -> Summons:
        endpoints = self._fleet.answer(service, client.population)
        if endpoints:
            return Summons(_done(endpoints))
        if refusal := self._refusal(service, insist=insist) or self._early.broken(service):
            return Summons(_failed(refusal))
        try:
            flight = self._flights.do(
                service,
                about=lambda: self._begin(service, client, asked_at, by),
                start=lambda trace: self._background.call(self._wake, service, client, trace),
            )
        except Overloaded as refusal:
            return Summons(_failed(refusal))
        flight.about.queries = flight.callers
        if known_service(self._fleet, service).reply is Reply.EARLY:
            return Summons(self._early.future(flight.about, flight.future), flight.about)
        return Summons(flight.future, flight.about)

    def _refusal(self, service: str, *, insist: bool) -> WakeError | None:
        """Say why no wake of this service can be begun, if so."""
        try:
            known_service(self._fleet, service)
        except UnknownService as error:
            return error
        if self._stopping.is_set():
            return Overloaded(service, "edgewake is stopping")
        if service in self._flights:
            return None
        if not insist and (backing_off := self._hopeless.refusal(service)):
            return backing_off
        if len(self._flights) >= self._most:
            why = f"{self._most} services are being woken, and no more may be at once"
            self._refusals.note(why)
            return Overloaded(service, why, hint="ask again")
        return None

    def _begin(self, service: str, client: Client, asked_at: float, by: str) -> WakeTrace:
        """Begin the trace of a wake, if its client may; raises `Overloaded`."""
        if client.address is not None:
            now = time.monotonic()
            why = self._budgets.refusal(client.address, now, proven=client.proven)
            if why:
                raise Overloaded(service, f"not woken: {why}", hint="ask again in a minute")
        return self._wakes.begin(service, asked_at, by)

    # --- one wake, on a thread of its own -----------------------------------------------------

    def _wake(
        self, name: str, client: Client, trace: WakeTrace, there: There | None = None
    ) -> Endpoints:
        """Carry one wake through; whatever goes wrong comes out as a `WakeError`."""
        with working_for(trace):
            return self._carry(name, client, trace, there)

    def _carry(self, name: str, client: Client, trace: WakeTrace, there: There | None) -> Endpoints:
        trace.stamp("taken")
        log.debug("%s is woken, by %s", name, trace.by)
        try:
            self._waken(known_service(self._fleet, name), client.population, trace, there)
        except WakeError as error:
            failure = error
        except EdgewakeError as error:
            failure = WakeError(name, str(error))
        except Exception:
            log.exception("waking %s failed in a way we did not foresee", name)
            failure = WakeError(name, "internal error", hint="see edgewake's log, and report it")
        else:
            if endpoints := self._fleet.answer(name, client.population):
                return self._woken(name, endpoints, trace)
            failure = WakeError(name, "it ended just after it had answered")
        trace.ended(failure.reason, instance=trace.instance, host=trace.host, text=str(failure))
        self._journal.record("wake-failed", name, str(failure), reason=failure.reason)
        raise failure

    def _woken(self, name: str, endpoints: Endpoints, trace: WakeTrace) -> Endpoints:
        first, service = endpoints[0], self._fleet.service(name)
        trace.ended("ready", instance=first.instance, host=first.host)
        if service is not None and len(endpoints) < self._fleet.wanted(service):
            self._grow(service)
        return endpoints

    def _landed(self, trace: WakeTrace) -> None:
        """Tell of a wake that went well, now that nobody waits for it any more."""
        if trace.outcome == "ready":
            text = f"{trace.instance} on {trace.host}"
            with working_for(trace):
                where = {"host": trace.host, "instance": trace.instance}
                self._journal.record("woke", trace.service, text, by=trace.by, **where)


def _done(endpoints: Endpoints) -> Future[Endpoints]:
    future: Future[Endpoints] = Future()
    future.set_result(endpoints)
    return future


def _failed_at_once(future: Future[Endpoints]) -> bool:
    return future.done() and future.exception() is not None


def _failed(error: WakeError) -> Future[Endpoints]:
    future: Future[Endpoints] = Future()
    future.set_exception(error)
    return future

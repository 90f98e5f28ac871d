"""Wakes by traffic: clients that remember an address and never ask for its name again.

Joins the guards of hosts (`guards.base`) with the fleet, which knows what may be wanted where, and
with control's wakes: a packet to a guarded address is a wake of its service on that host with that
address. How many there may be is bounded, so that a scan of a network does not boot it.
"""

import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field
from ipaddress import IPv4Address

from orchestrator.boot import HostParts
from orchestrator.budget import TokenBuckets, client_of
from orchestrator.errors import CannotGuard
from orchestrator.fleet import Fleet
from orchestrator.guards.base import Asked, Guard, Guarded
from orchestrator.journal import Journal
from orchestrator.model import (
    AWAKE,
    COMING,
    Endpoint,
    Instance,
    InstanceState,
    TrafficSettings,
)

Wake = Callable[[str, Asked], Future[tuple[Endpoint, ...]]]  # on that host, as was asked

TOLD_AGAIN_S = 10.0  # how often it is told that the budget is used up
OPEN_AGAIN_S = 30.0  # how often a guard that cannot be opened is tried
FAILED_REST_S = 5.0  # after a wake that failed, packets for it are dropped for so long


@dataclass(slots=True)
class _Watch:
    """The guard of one host, and what it was last told.

    `probed` are addresses of guests that were being probed when it was opened: as they are not
    probed past the guard, they cannot be guarded.
    """

    guard: Guard
    probed: frozenset[IPv4Address]
    guarded: dict[IPv4Address, Guarded] = field(default_factory=dict)


class Traffic:
    """Keeps the guards of all hosts. Safe to use from many threads.

    `parts` are the opened hosts; `wake` begins a wake and returns its future at once.
    """

    def __init__(
        self, fleet: Fleet, parts: dict[str, HostParts], journal: Journal, wake: Wake
    ) -> None:
        self._fleet = fleet
        self._parts = parts
        self._journal = journal
        self._wake = wake
        self._lock = threading.RLock()
        self._watches: dict[str, _Watch] = {}
        self._why_not: dict[str, str] = {}
        self._resting: dict[tuple[str, IPv4Address], float] = {}
        self._told_at: dict[str, float] = {}
        self._tried_at: dict[str, float] = {}
        self._settings: TrafficSettings | None = None
        self._per_client = self._per_host = self._in_all = TokenBuckets(0, 0)
        self._closed = False

    # --- hosts --------------------------------------------------------------------------------

    def open(self, host: str, *, late: bool = False) -> None:
        """Guard a host whose network is right, unless that is done; tell once if it cannot be.

        `late` says that guests may be booting there already.
        """
        with self._lock:
            known = next((each for each in self._fleet.lab.hosts if each.name == host), None)
            parts = self._parts.get(host)
            if self._closed or known is None or parts is None or parts.guard is None:
                return
            if host in self._watches:
                return
            self._tried_at[host] = time.monotonic()
            try:
                guard = parts.guard(lambda asked: self._asked(host, asked))
            except CannotGuard as error:
                self._cannot(host, str(error))
                return
            self._why_not.pop(host, None)
            self._watches[host] = _Watch(guard, self._booting(host) if late else frozenset())

    def let_go(self, host: str) -> None:
        """Guard a host no more."""
        with self._lock:
            watch = self._watches.pop(host, None)
            self._why_not.pop(host, None)
            self._tried_at.pop(host, None)
        if watch:
            watch.guard.close()

    def close(self) -> None:
        """Guard nothing any more."""
        with self._lock:
            self._closed = True
        for host in tuple(self._watches):
            self.let_go(host)

    def device(self, host: str) -> str:
        """Return the interface by which a host's guests are to be probed; empty if by any."""
        watch = self._watches.get(host)
        return watch.guard.device if watch else ""

    def guards(self, instance: Instance) -> bool:
        """Return whether packets to an instance that is being booted are held, from now on."""
        self.sync_host(instance.host)
        watch = self._watches.get(instance.host)
        held = watch is not None and instance.address in watch.guarded
        return held and instance.host not in self._why_not

    def told(self, host: str) -> str:
        """Return how a host is guarded, or why it is not."""
        watch = self._watches.get(host)
        return self._why_not.get(host) or (watch.guard.how if watch else "")

    # --- what is guarded ----------------------------------------------------------------------

    def sync(self) -> None:
        """Have every host guard what sleeps there now."""
        for host, tried_at in tuple(self._tried_at.items()):
            if host not in self._watches and time.monotonic() - tried_at > OPEN_AGAIN_S:
                self.open(host, late=True)
            self.sync_host(host)

    def sync_host(self, host: str) -> None:
        """Have one host guard what sleeps there now; what answers meanwhile gets its packets."""
        with self._lock:
            watch = self._watches.get(host)
            if watch is None:
                return
            guarded = self._fleet.guarded(host)
            if watch.probed:
                watch.probed &= self._booting(host)
                guarded = tuple(each for each in guarded if each.address not in watch.probed)
            wanted = {each.address: each for each in guarded}
            for address in watch.guarded.keys() - wanted.keys():
                if self._answers(host, watch.guarded[address]):
                    watch.guard.release(address)
            watch.guarded = wanted
            try:
                watch.guard.set(guarded)
            except CannotGuard as error:
                self._cannot(host, str(error))
            else:
                self._why_not.pop(host, None)

    def ready(self, instance: Instance) -> None:
        """Let packets that were held for an instance go on to it: it answers."""
        with self._lock:
            if watch := self._watches.get(instance.host):
                watch.guarded.pop(instance.address, None)
                watch.guard.release(instance.address)

    def _booting(self, host: str) -> frozenset[IPv4Address]:
        booting = InstanceState.BOOTING
        return frozenset(each.address for each in self._fleet.on(host) if each.state is booting)

    def _answers(self, host: str, guarded: Guarded) -> bool:
        return any(
            each.host == host
            and each.address == guarded.address
            and each.state in AWAKE
            and not self._fleet.sinks(each.name)
            for each in self._fleet.of(guarded.service)
        )

    def _is_coming(self, host: str, guarded: Guarded) -> bool:
        return any(
            each.host == host and each.address == guarded.address and each.state in COMING
            for each in self._fleet.of(guarded.service)
        )

    def _cannot(self, host: str, why: str) -> None:
        if self._why_not.get(host) != why:
            self._why_not[host] = why
            self._journal.record("not-guarded", host, why)

    # --- wakes --------------------------------------------------------------------------------

    def _asked(self, host: str, asked: Asked) -> None:
        """Begin or join a wake, unless too many began. On a guard's thread, so never blocks."""
        guarded = asked.guarded
        if self._answers(host, guarded):
            self.sync_host(host)
            self._release(host, guarded)
        elif self._is_coming(host, guarded):  # to join a wake costs nothing
            self._hold(host, asked)
        elif self._resting.get((host, guarded.address), 0.0) > asked.at:
            self._refuse(host, guarded)
        elif not self._within_budget(host, asked):
            self._tell_seldom(
                "traffic-over-budget",
                host,
                f"{asked.client} did not wake {guarded.service}: too many wakes by traffic "
                "(`traffic` in the lab file)",
            )
            self._refuse(host, guarded)
        else:
            self._hold(host, asked)

    def _hold(self, host: str, asked: Asked) -> None:
        """Wake what is asked for, or join its wake, and see to the client when that is over."""
        future = self._wake(host, asked)
        future.add_done_callback(lambda ended: self._ended(host, asked, ended))

    def _ended(self, host: str, asked: Asked, ended: Future[tuple[Endpoint, ...]]) -> None:
        """Let the held client go on, or drop what it sent."""
        guarded = asked.guarded
        if self._answers(host, guarded):
            self._release(host, guarded)
            return
        if ended.cancelled() or ended.exception() is not None:
            rest_until = time.monotonic() + FAILED_REST_S
            self._resting = {key: until for key, until in self._resting.items() if until > asked.at}
            self._resting[host, guarded.address] = rest_until
        else:
            where = ", ".join(sorted({each.host for each in ended.result()}))
            self._journal.record(
                "client-lost",
                guarded.service,
                f"{asked.client} was held on {host} and is not served: it woke on {where}",
            )
        self._refuse(host, guarded)

    def _release(self, host: str, guarded: Guarded) -> None:
        with self._lock:
            if watch := self._watches.get(host):
                watch.guarded.pop(guarded.address, None)
                watch.guard.release(guarded.address)

    def _refuse(self, host: str, guarded: Guarded) -> None:
        if watch := self._watches.get(host):
            watch.guard.refuse(guarded.address)

    def _within_budget(self, host: str, asked: Asked) -> bool:
        """Spend one wake, if there may be one more. No client can spend more than half of all."""
        settings, now = self._fleet.lab.traffic, asked.at
        with self._lock:  # hosts have threads of their own
            if settings != self._settings:
                self._settings = settings
                each_s, all_s = settings.wakes_per_host_s, settings.wakes_s
                self._per_client = TokenBuckets(each_s / 2, max(1.0, each_s / 2))
                self._per_host = TokenBuckets(each_s, max(1.0, each_s))
                self._in_all = TokenBuckets(all_s, max(1.0, all_s), limit=1)
            if asked.source and not self._per_client.take((host, client_of(asked.source)), now):
                return False
            return self._per_host.take(host, now) and self._in_all.take("", now)

    def _tell_seldom(self, kind: str, subject: str, text: str) -> None:
        now = time.monotonic()
        if now - self._told_at.get(subject, -TOLD_AGAIN_S) >= TOLD_AGAIN_S:
            self._told_at[subject] = now
            self._journal.record(kind, subject, text)

"""Which address the next instance on a host gets, and when an address may change hands.

A DNS answer lives on in caches until its TTL is over, so an address must never lead to one service
while a cache may still say that it is another's. An address that is given back therefore *rests*:
until then only the service that had it may have it again. Within that rule a service keeps its
address if it can, which keeps neighbour caches, firewalls and people content. Others are given it
last: after all that nobody ever had, and after those that have rested longer. Until then clients
that remember it still wake the service by it (`last_had`).

This is pure bookkeeping for `orchestrator.fleet`: no I/O and no clock of its own, all times are
seconds that the caller hands in, of a clock that nobody sets. Each host's pool is a range of its
own, and no two overlap, which is checked by the lab file. A guest that is migrated keeps its
address on a host with another pool, so who has an address is known for all pools together.
"""

import hashlib
import heapq
import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from ipaddress import IPv4Address

from orchestrator.model import GuestNetwork, Host, Instance
from orchestrator.store.base import Quarantine

HEAP_SLACK = 64  # outdated heap entries to put up with before the heap is built anew


@dataclass(frozen=True, slots=True)
class PoolUsage:
    """How many addresses of a pool there are, are in use, and rest.

    `next_free_at` is when the first of the resting ones may go to any service; None if none rests.
    """

    total: int
    in_use: int
    resting: int
    next_free_at: float | None


class NoAddress(Exception):  # noqa: N818 - reads as a sentence where it is raised
    """No address can be given; the text says why."""


class PoolExhausted(NoAddress):
    """No address of a host's pool may be given to the service now; the text says why."""

    def __init__(self, host: Host, usage: PoolUsage, now: float) -> None:
        network = host.network
        later = ""
        if usage.next_free_at is not None:
            later = f"; the next becomes free in {max(usage.next_free_at - now, 0.0):.1f} s"
        super().__init__(
            f"no free address in {network.first}-{network.last} on host {host.name}: of "
            f"{usage.total}, {usage.in_use} are in use and {usage.resting} rest{later}"
        )
        self.host = host.name
        self.usage = usage


class AddressGone(NoAddress):
    """The address that was asked for is not the service's own any more."""


class AddressPools:
    """The address pools of all hosts. Safe to use from many threads.

    `quarantines` is what a `Store` kept: who had which address last, and until when it rests, by
    the clock of the caller.
    """

    def __init__(self, quarantines: Iterable[Quarantine] = ()) -> None:
        self._lock = threading.Lock()
        self._book = _Book()
        self._pools: dict[str, _Pool] = {}
        for each in sorted(quarantines, key=lambda each: each.until):
            self._book.rest(int(each.address), each.service, each.until)

    def take(self, host: Host, service: str, now: float) -> IPv4Address:
        """Hold an address of the host's pool for an instance of the service, and return it.

        It is, in this order: the one the service had last; one nobody ever had, starting with a
        choice by the service's name that is the same after all state was lost; the one that has
        rested longest. Raises `PoolExhausted` if there is none of these.
        """
        return self._take(host, service, now, _Pool.choose)

    def take_back(self, host: Host, service: str, address: IPv4Address) -> None:
        """Hold the address that a service had last and nobody has now, or raise `AddressGone`."""
        with self._lock:
            pool = self._pool(host.name)
            pool.use(host.network)
            if not pool.is_own(service, int(address)):
                raise AddressGone(f"{address} is not {service}'s any more")
            self._book.hold(int(address), service)

    def take_spare(self, host: Host, service: str, now: float) -> IPv4Address:
        """Hold an address that no service is missed at, for what is no service's yet.

        As `take`, but of those that rested it is one that its service would not get back. Raises
        `PoolExhausted` if there is none of these.
        """
        return self._take(host, service, now, _Pool.choose_spare)

    def _take(
        self,
        host: Host,
        service: str,
        now: float,
        choose: Callable[["_Pool", str, float], int | None],
    ) -> IPv4Address:
        with self._lock:
            pool = self._pool(host.name)
            pool.use(host.network)
            address = choose(pool, service, now)
            if address is None:
                raise PoolExhausted(host, pool.usage(now), now)
            self._book.hold(address, service)
            return IPv4Address(address)

    def hand_over(self, address: IPv4Address, before: str, after: str) -> None:
        """Note that the instance that has an address is another service's from now on."""
        with self._lock:
            holders = self._book.holders[int(address)]
            holders[holders.index(before)] = after

    def rests(self, service: str, now: float) -> bool:
        """Return whether answers that name an address the service had may still be in caches."""
        with self._lock:
            had = self._book.of_service.get(service, {})
            return any(self._book.past[address].until > now for address in had)

    def keeps(self, host: Host, service: str) -> bool:
        """Return whether a service would get back an address of the host's pool now."""
        with self._lock:
            pool = self._pool(host.name)
            pool.use(host.network)
            return pool.has_own(service)

    def last_had(self, host: Host) -> dict[str, IPv4Address]:
        """Return which address of the host's pool each service would get back now."""
        with self._lock:
            pool = self._pool(host.name)
            pool.use(host.network)
            return {name: IPv4Address(address) for name, address in pool.own().items()}

    def adopt(self, instance: Instance) -> None:
        """Hold the address of an instance that exists already, wherever that address lies.

        If two instances were found with one address, it is free when both gave it back.
        """
        with self._lock:
            self._book.hold(int(instance.address), instance.service)

    def give_back(self, address: IPv4Address, service: str, rest_until: float) -> None:
        """Let an address rest until then for all services but this one.

        A rest that was promised before is never shortened. Giving back what the service does not
        hold does nothing, so an undo may be repeated.
        """
        with self._lock:
            if self._book.give_back(int(address), service, rest_until):
                for pool in self._pools.values():
                    pool.note_rest(int(address))

    def usage(self, host: Host, now: float) -> PoolUsage:
        """Count the addresses of the host's pool."""
        with self._lock:
            pool = self._pool(host.name)
            pool.use(host.network)
            return pool.usage(now)

    def _pool(self, host: str) -> "_Pool":
        return self._pools.setdefault(host, _Pool(self._book))


@dataclass(slots=True)
class _Past:
    """Who had an address last, and until when it rests for everybody else."""

    service: str
    until: float


class _Book:
    """Who has which address, and who had it; plain integers in here. The caller holds the lock."""

    def __init__(self) -> None:
        self.holders: dict[int, list[str]] = {}
        self.past: dict[int, _Past] = {}
        self.of_service: dict[str, dict[int, None]] = {}  # last had by it, not in use; by age

    def hold(self, address: int, service: str) -> None:
        """Note that an instance of the service has the address."""
        self.holders.setdefault(address, []).append(service)
        if past := self.past.get(address):
            self._disown(past.service, address)

    def give_back(self, address: int, service: str, until: float) -> bool:
        """Note that an instance of the service has the address no more; False if none had."""
        holders = self.holders.get(address, [])
        if service not in holders:
            return False
        holders.remove(service)
        if not holders:
            del self.holders[address]
        self.rest(address, service, until)
        return True

    def rest(self, address: int, service: str, until: float) -> None:
        """Note who had an address last, and extend its rest."""
        past = self.past.get(address)
        if past is not None:
            self._disown(past.service, address)
            until = max(until, past.until)
        self.past[address] = _Past(service, until)
        if address not in self.holders:
            self.of_service.setdefault(service, {})[address] = None

    def _disown(self, service: str, address: int) -> None:
        had = self.of_service.get(service)
        if had is not None:
            had.pop(address, None)
            if not had:
                del self.of_service[service]


class _Pool:
    """One host's pool; addresses are plain integers in here. The caller holds the lock.

    The search for a free address is amortised O(1) or O(log n): `_fresh` only moves forward past
    addresses that somebody had, and `_by_rest` is a heap whose outdated entries are dropped when
    they surface or when they outnumber the true ones.
    """

    def __init__(self, book: _Book) -> None:
        self._first = self._last = self._fresh = self._gateway = -1
        self._book = book
        self._by_rest: list[tuple[float, int]] = []

    def use(self, network: GuestNetwork) -> None:
        """Choose from this network's range from now on; a lab may be applied with another one."""
        edges = (network.subnet.network_address, network.subnet.broadcast_address)
        first = int(network.first) + (network.first == edges[0])
        last = int(network.last) - (network.last == edges[1])
        gateway = int(network.gateway)
        if (first, last, gateway) != (self._first, self._last, self._gateway):
            self._first, self._last, self._gateway = first, last, gateway
            self._fresh = first
            self._rebuild_heap()

    def choose(self, service: str, now: float) -> int | None:
        """Return the address that the service should get now, or None."""
        choice = self._own(service)
        if choice is None:
            choice = self._new(service)
        return self._rested(now) if choice is None else choice

    def choose_spare(self, service: str, now: float) -> int | None:
        """Return an address that nobody is missed at, or None; looks at all that rested."""
        choice = self._own(service) or self._new(service)
        if choice is not None:
            return choice
        rested = (
            (past.until, address)
            for address, past in self._book.past.items()
            if past.until <= now and address not in self._book.holders and self._usable(address)
            if self._own(past.service) != address
        )
        return min(rested, default=(now, None))[1]

    def note_rest(self, address: int) -> None:
        """Note that an address, of whatever pool, was given back."""
        if self._usable(address) and address not in self._book.holders:
            heapq.heappush(self._by_rest, (self._book.past[address].until, address))
            if len(self._by_rest) > 2 * len(self._book.past) + HEAP_SLACK:
                self._rebuild_heap()

    def usage(self, now: float) -> PoolUsage:
        """Count; this looks at every address that was ever used, and is for reports only."""
        resting = [
            past.until
            for address, past in self._book.past.items()
            if past.until > now and address not in self._book.holders and self._usable(address)
        ]
        gateway = self._first <= self._gateway <= self._last
        return PoolUsage(
            total=self._last - self._first + 1 - gateway,
            in_use=sum(1 for address in self._book.holders if self._usable(address)),
            resting=len(resting),
            next_free_at=min(resting, default=None),
        )

    def is_own(self, service: str, address: int) -> bool:
        """Return whether the service had this address last, and nobody has it now."""
        return self._usable(address) and address in self._book.of_service.get(service, {})

    def has_own(self, service: str) -> bool:
        """Return whether there is an address that a service would get back."""
        return self._own(service) is not None

    def own(self) -> dict[str, int]:
        """Return which address each service would get back."""
        found = ((service, self._own(service)) for service in self._book.of_service)
        return {service: address for service, address in found if address is not None}

    def _own(self, service: str) -> int | None:
        had = self._book.of_service.get(service, {})
        return next((address for address in reversed(had) if self._usable(address)), None)

    def _new(self, service: str) -> int | None:
        size = self._last - self._first + 1
        if size <= 0:
            return None
        digest = hashlib.sha256(service.encode()).digest()
        wish = self._first + int.from_bytes(digest[:8]) % size
        if self._never_used(wish):
            return wish
        while self._fresh <= self._last:
            if self._never_used(self._fresh):
                return self._fresh
            self._fresh += 1
        return None

    def _rested(self, now: float) -> int | None:
        heap = self._by_rest
        while heap and not self._is_true(*heap[0]):
            heapq.heappop(heap)
        return heap[0][1] if heap and heap[0][0] <= now else None

    def _usable(self, address: int) -> bool:
        return self._first <= address <= self._last and address != self._gateway

    def _never_used(self, address: int) -> bool:
        used = address in self._book.past or address in self._book.holders
        return self._usable(address) and not used

    def _is_true(self, until: float, address: int) -> bool:
        past = self._book.past.get(address)
        free = address not in self._book.holders and self._usable(address)
        return free and past is not None and past.until == until

    def _rebuild_heap(self) -> None:
        entries = ((past.until, address) for address, past in self._book.past.items())
        self._by_rest = [entry for entry in entries if self._is_true(*entry)]
        heapq.heapify(self._by_rest)

"""What exists and what is spoken for, in memory: instances, addresses, memory and CPU per host.

`Fleet` decides and remembers; it does no I/O and never waits for anything but its own lock, so a
reservation is atomic: twenty wakes at once can never hand out the same memory or address twice.
"""

import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from ipaddress import IPv4Address
from itertools import count

from orchestrator.addresses import AddressPools, NoAddress
from orchestrator.chaining import ends_by_function, functions_by_end
from orchestrator.errors import NoCapacity, NoHostReachable
from orchestrator.guards.base import Guarded
from orchestrator.model import (
    ASLEEP,
    AWAKE,
    AnswerOrder,
    Capacity,
    Endpoint,
    Host,
    Instance,
    InstanceState,
    Lab,
    Migrate,
    Reply,
    Service,
    instance_name,
    mac_of,
)
from orchestrator.ordering import Copy, Turns, rounds_by_population, whole_round
from orchestrator.planner import Planner
from orchestrator.recipes import is_spare, recipe_in, recipes, recipes_by_service, spare_name
from orchestrator.steering.base import Route
from orchestrator.store.base import Quarantine
from placement.problem import Ranking

IN_FLIGHT_S = 1.0  # for an answer that was made just before, to be sent and to arrive
NOTHING = Capacity(cpu=0.0, memory_mib=0)
NOWHERE: Mapping[str, str] = {}
NOTHING_USED: Mapping[str, Capacity] = {}
DRAINING = "is being drained"
RESTING = ASLEEP | {InstanceState.ROUSING}  # its guest is there, and remembers
LEAST_TTL_S = 3600.0  # what a service's TTL is taken to have been before this run, at the least


class Fleet:
    """The instances of one lab and the resources they hold. Safe to use from many threads."""

    def __init__(self, lab: Lab, quarantines: Iterable[Quarantine] = ()) -> None:
        self.lab = lab
        self.planner = Planner(lab)
        self._lock = threading.RLock()
        self._pools = AddressPools(self._rests(quarantines))
        self._hidden: set[str] = set()
        self._sinking: set[str] = set()
        self._ending: set[str] = set()  # those of them that will remember nothing
        self._instances: dict[str, Instance] = {}
        self._spares: dict[str, Instance] = {}  # those of them that are anonymous
        self._up_since: dict[str, float] = {}  # monotonic, by instance
        self._by_service: dict[str, dict[str, Instance]] = {}
        self._held: dict[str, dict[str, Capacity]] = {}  # by instance and host
        self._used: dict[str, Capacity] = {}
        self._services = {service.name: service for service in lab.services}
        self._recipes, self._made_by = recipes(lab), recipes_by_service(lab)
        self._before, self._ends = functions_by_end(lab), ends_by_function(lab)
        self._routes = {name: self._route(name) for name in self._services}
        self._free: dict[str, Capacity] = {}
        self._lost: dict[str, str] = {}
        self._refused: dict[str, str] = {}
        self._draining: frozenset[str] = frozenset()
        self._counted: dict[str, frozenset[str]] = {}
        self._unusable: dict[str, frozenset[str]] = {}  # names of instances, by host
        self._revision = 0  # of what is guarded
        self._guarded: dict[str, tuple[int, tuple[Guarded, ...]]] = {}  # by host, and as of when
        self._told: set[str] = set()  # instances whose address was told before they answered
        self._longest_ttl_s = {service.name: service.ttl_s for service in lab.services}
        self._turns = Turns()
        self._ordered: dict[
            str, tuple[tuple[Copy, ...], Route]
        ] = {}  # by service, and made of what
        self._wanted: dict[str, int] = {}  # copies by load, of services that are scaled

    # --- the lab ---

    def use(self, lab: Lab) -> None:
        """Go on with another lab; instances and addresses stay."""
        planner = Planner(lab)
        with self._lock:
            planner.last_plan = self.planner.last_plan
            self.lab, self.planner = lab, planner
            self._services = {service.name: service for service in lab.services}
            self._recipes, self._made_by = recipes(lab), recipes_by_service(lab)
            self._before, self._ends = functions_by_end(lab), ends_by_function(lab)
            for service in lab.services:
                before = self._longest_ttl_s.get(service.name, 0)
                self._longest_ttl_s[service.name] = max(before, service.ttl_s)
            self._routes = {name: self._route(name) for name in self._services}
            self._ordered.clear()
            self._revision += 1
            self._guarded.clear()

    def service(self, name: str) -> Service | None:
        """Return the lab's service of that name, or None."""
        return self._services.get(name)

    def recipes(self) -> tuple[Service, ...]:
        """Return the recipes of anonymous instances, each as a service that boots them."""
        return tuple(self._recipes.values())

    def recipes_of(self, service: str) -> frozenset[str]:
        """Return the recipes that make guests of a service, one for each anonymous image of it."""
        return self._made_by.get(service, frozenset())

    def spares(self) -> tuple[Instance, ...]:
        """Return all anonymous instances, in order of name."""
        with self._lock:
            return tuple(self._spares[name] for name in sorted(self._spares))

    def nobodys(self, slot: str) -> Service | None:
        """Return what stands for the service of an anonymous instance; None if it has no recipe."""
        recipe = self._recipes.get(recipe_in(slot)) if is_spare(slot) else None
        return replace(recipe, name=slot) if recipe else None

    def wanted(self, service: Service) -> int:
        """Return how many copies a service should have now, if it is awake.

        Before anything was decided on one that is scaled, those that answer are right.
        """
        with self._lock:
            copies = self._wanted.get(service.name)
            if copies is None and service.scale is not None:
                copies = sum(each.state in AWAKE for each in self._of(service.name))
            return max(service.replicas, min(service.most, copies or 0))

    def want(self, service: str, copies: int | None) -> None:
        """Note how many copies a service should have by its load; None: that is not decided."""
        with self._lock:
            if copies is None:
                self._wanted.pop(service, None)
            else:
                self._wanted[service] = copies

    def expected_rate(self, service: str) -> float:
        """Return the uses per second of a service that the lab's client populations let expect."""
        wanted = service in self._services
        return min(1.0, sum(each.requests_s for each in self.lab.populations)) if wanted else 0.0

    def homes(self) -> dict[str, frozenset[str]]:
        """Return the hosts where each service has instances, else where its last address is.

        On another host it would get another address, and who remembers the one that is guarded
        would be left alone.
        """
        with self._lock:
            known = [(host.name, self._pools.last_had(host)) for host in self.lab.hosts]
            found = {}
            for service in self.lab.services:
                here = [host for each in self._of(service.name) for host in each.hosts]
                if not here and service.wake_on_traffic:
                    here = [host for host, had in known if service.name in had]
                found[service.name] = frozenset(here)
            return found

    def longest_ttl_s(self, service: str) -> int:
        """Return the longest TTL a service ever had in this run: caches may still hold by it."""
        return self._longest_ttl_s.get(service, 0)

    def rest_s(self, service: str) -> float:
        """Return how long the address of an instance must rest that nobody is led to any more.

        An answer that was made just before may still be on its way, and then live in a cache for
        the longest TTL that the service had.
        """
        return self.longest_ttl_s(service) + IN_FLIGHT_S

    # --- hosts ---

    def refuse(self, host: str, why: str) -> bool:
        """Place nothing on a host until its network is right (`why` empty); say if that is news."""
        with self._lock:
            news = self._refused.get(host, "") != why
            if why:
                self._refused[host] = why
            else:
                self._refused.pop(host, None)
            return news

    def refusal(self, host: str) -> str:
        """Return why nothing is placed on a host although it can be reached; empty if nothing."""
        with self._lock:
            return self._refused.get(host, "")

    def drain(self, host: str, *, wanted: bool) -> None:
        """Place nothing new on a host that is being drained; with `wanted` False, do so again."""
        with self._lock:
            self._draining = self._draining | {host} if wanted else self._draining - {host}

    def draining(self) -> frozenset[str]:
        """Return the hosts that are being drained."""
        return self._draining

    def host_answered(self, host: str, free: Capacity, counted: Iterable[str] = ()) -> None:
        """Note that a host is reachable and what it says is free.

        `counted` are the instances that ran when it said so: their memory is no longer free.
        """
        with self._lock:
            self._lost.pop(host, None)
            self._free[host] = free
            self._counted[host] = frozenset(counted)

    def host_lost(self, host: str, why: str) -> bool:
        """Note that a host cannot be reached; return whether that is news."""
        with self._lock:
            news = host not in self._lost
            self._lost[host] = why
            self._unusable.pop(host, None)  # what held them may be gone when it is back
            return news

    def avoid_name(self, host: str, instance: str) -> None:
        """Name no new instance on a host so, until the host was lost: something holds the name."""
        with self._lock:
            self._unusable[host] = self._unusable.get(host, frozenset()) | {instance}

    def lost(self) -> dict[str, str]:
        """Return the hosts that cannot be reached, with why."""
        with self._lock:
            return dict(self._lost)

    def closed(self) -> dict[str, str]:
        """Return the hosts on which nothing is placed now, with why."""
        with self._lock:
            return {**dict.fromkeys(self._draining, DRAINING), **self._refused, **self._lost}

    def free(self, host: str) -> Capacity | None:
        """Return what a host last said is free; None if it never answered."""
        with self._lock:
            return self._free.get(host)

    def used(self, host: str) -> Capacity:
        """Return what our instances hold on a host."""
        with self._lock:
            return self._used.get(host, NOTHING)

    def left(self, host: str) -> Capacity:
        """Return what nobody speaks for on a host; nothing if the lab has no such host."""
        with self._lock:
            known = next((each for each in self.lab.hosts if each.name == host), None)
            return _minus(known.usable, self._spoken_for(known)) if known else NOTHING

    def held_beside(self, instances: Iterable[Instance]) -> dict[str, Capacity]:
        """Return what is spoken for on each host beside what some instances hold there."""
        with self._lock:
            held = {host.name: self._spoken_for(host) for host in self.lab.hosts}
            for instance in instances:
                for host, taken in self._held.get(instance.name, {}).items():
                    if host in held:
                        held[host] = _minus(held[host], taken)
            return held

    # --- instances ---

    def reserve(
        self,
        service: str,
        *,
        population: str = "",
        unfit: Mapping[str, str] = NOWHERE,
        without: frozenset[str] = frozenset(),
        only: str = "",
        address: IPv4Address | None = None,
        stamp: Callable[[str], None] = lambda _stage: None,
    ) -> Instance:
        """Choose a host and an address for one more instance, and hold what it needs.

        `unfit` are hosts that cannot run it, with why, `without` hosts not to try again; `only`
        asks for one host, and `address` for one that the service had there. Calls
        `stamp("decided")` when the order of the hosts is known. Raises `NoCapacity` saying why
        each host is out, or `NoHostReachable` if that is the only obstacle.
        """
        with self._lock:
            shut = without | self._lost.keys() | self._refused.keys() | self._draining
            if only:
                shut |= {host.name for host in self.lab.hosts} - {only}
            ranking = self._rank(service, population, unfit)
            stamp("decided")
            reasons = dict(ranking.reasons)
            for name in ranking.hosts:
                if name in shut:
                    continue
                host = self.lab.host(name)
                try:
                    given = self._take(host, service, address)
                except NoAddress as error:
                    reasons[name] = str(error)
                    continue
                instance = self._new(service, host, given)
                self._keep(instance)
                return instance
        raise self._no_place(service, shut, reasons)

    def reserve_elsewhere(self, instance: Instance, unfit: Mapping[str, str]) -> Instance:
        """Choose a host that an instance could be migrated to, and hold there what it needs.

        Returns the instance as MIGRATING there; until it is ready again, it holds its share on both
        hosts. `unfit` are hosts that cannot take it, with why. Raises `NoCapacity`, or
        `NoHostReachable`, saying why each host is out.
        """
        with self._lock:
            shut = frozenset({instance.host} | self._lost.keys() | self._refused.keys())
            shut |= self._draining
            ranking = self._rank(instance.service, "", unfit)
            for name in ranking.hosts:
                if name not in shut:
                    moving = instance.migrating(name)
                    self._keep(moving)
                    return moving
        raise self._no_place(instance.service, shut, ranking.reasons)

    def ranking(self, service: str, population: str, unfit: Mapping[str, str]) -> Ranking:
        """Return where one more instance would go now, best first, and why not elsewhere."""
        with self._lock:
            ranking = self._rank(service, population, unfit)
            shut = self.closed()
            open_hosts = tuple(name for name in ranking.hosts if name not in shut)
            return Ranking(open_hosts, {**shut, **ranking.reasons})

    def reserve_spare(self, slot: str, host: str) -> Instance:
        """Hold what an anonymous instance needs on a host, if all of that is free.

        Enough addresses stay free for every service to get one. Raises `NoCapacity`.
        """
        with self._lock:
            kind, why = self.nobodys(slot), self._why_shut(host)
            if kind is None or why:
                raise NoCapacity(slot, f"{host}: {why or 'the lab has no such recipe any more'}")
            known, now = self.lab.host(host), time.monotonic()
            taken = known.taken_by(kind.resources)
            left = _minus(known.usable, self._spoken_for(known))
            if taken.memory_mib > left.memory_mib or taken.cpu > left.cpu:
                raise NoCapacity(
                    slot, f"{host} has {left.cpu:g} cores and {left.memory_mib} MiB left"
                )
            usage = self._pools.usage(known, now)
            if usage.total - usage.in_use - usage.resting <= len(self._services):
                raise NoCapacity(slot, f"{host} has only as many addresses left as services need")
            try:
                address = self._pools.take_spare(known, slot, now)
            except NoAddress as error:
                raise NoCapacity(slot, str(error)) from error
            instance = self._new(slot, known, address, spare_name(self.lab.name, slot))
            self._keep(instance)
            return instance

    def suited(
        self, service: str, population: str, spares: Iterable[Instance]
    ) -> tuple[Instance, ...]:
        """Return which anonymous instances are where a service may be, the best host first.

        None while somebody may still use an address that it had: only a boot gets it that again.
        """
        with self._lock:
            there: dict[str, list[Instance]] = {}
            for spare in spares:
                there.setdefault(spare.host, []).append(spare)
            known = self._services.get(service)
            if not there or known is None or self._is_missed(known):
                return ()
            freed = {
                name: _minus(self._spoken_for(self.lab.host(name)), self.held(some[0].name, name))
                for name, some in there.items()
            }
            ranking = self._rank(service, population, NOWHERE, freed)
            best = (name for name in ranking.hosts if not self._why_shut(name))
            return tuple(spare for name in best for spare in there.get(name, ()))

    def returns(self, service: Service) -> bool:
        """Return whether a service will be wanted at the address that it has, or had, again."""
        with self._lock:
            return service.wake_on_traffic and (
                bool(self._by_service.get(service.name)) or self._is_missed(service)
            )

    def claim(self, spare: Instance, service: str) -> Instance:
        """Make an anonymous instance one of a service, ROUSING, with the address that it has.

        Raises `NoCapacity` if it is not what it was, if its host is closed, too busy, or has not
        said yet that it rests there, and if it is about to end.
        """
        with self._lock:
            why = self._why_shut(spare.host)
            rests = self._instances.get(spare.name) is spare and spare.name not in self._hidden
            if why or not rests:
                raise NoCapacity(service, f"{spare.host}: {why or 'it does not rest there'}")
            more, left = self._wants(spare)
            if more.cpu > left.cpu:
                raise NoCapacity(service, f"{spare.host} has {left.cpu:g} cores left")
            claimed = replace(spare.step(InstanceState.ROUSING), service=service)
            self._change_hands(spare, claimed)
            return claimed

    def unclaim(self, claimed: Instance, spare: Instance) -> None:
        """Make an instance the anonymous one again that it was."""
        with self._lock:
            if self._instances.get(claimed.name) is claimed:
                self._change_hands(claimed, spare)

    def put(self, instance: Instance) -> None:
        """Remember an instance in its present state, replacing what was known of it.

        One that sleeps was withdrawn before, and can be found again by whoever wakes its service.
        """
        with self._lock:
            if instance.name not in self._instances:
                self._pools.adopt(instance)
            if instance.state in ASLEEP:
                self._hidden.discard(instance.name)
                self._goes_on(instance.name)
            self._keep(instance)

    def sink(self, instance: Instance, *, ends: bool = False) -> None:
        """Note that an instance is about to sleep, or ends: from now on it answers nobody."""
        with self._lock:
            self._sinking.add(instance.name)
            if ends:
                self._ending.add(instance.name)
            self._revision += 1

    def stay(self, instance: Instance) -> None:
        """Note that an instance does not sink after all."""
        with self._lock:
            self._goes_on(instance.name)
            self._revision += 1

    def _goes_on(self, instance: str) -> None:
        self._sinking.discard(instance)
        self._ending.discard(instance)

    def sinks(self, instance: str) -> bool:
        """Return whether an instance is on its way to sleep, or to its end."""
        return instance in self._sinking

    def rouse(self, instance: Instance) -> Instance:
        """Hold what an instance that sleeps needs to run again; return it as ROUSING.

        Raises `NoCapacity` if its host has no room for it now, or is closed. One that is only ever
        migrated as it runs comes back on a host that is being drained, too: else it never could be.
        """
        with self._lock:
            known, why = self._instances.get(instance.name), self._why_not_back(instance)
            if known is not instance or why:
                raise NoCapacity(instance.service, f"{instance.host}: {why or 'it is gone'}")
            more, left = self._wants(instance)
            if more.memory_mib > left.memory_mib or more.cpu > left.cpu:
                raise NoCapacity(
                    instance.service,
                    f"{instance.host} has {left.cpu:g} cores and {left.memory_mib} MiB left; to "
                    f"run again it needs {more.cpu:g} cores and {more.memory_mib} MiB more",
                )
            rousing = instance.step(InstanceState.ROUSING)
            self._keep(rousing)
            return rousing

    def rouse_lacks_mib(self, instance: Instance) -> int:
        """Return how much memory (MiB) its host lacks for an instance that is to run again.

        It is 0 if that is not what it lacks.
        """
        with self._lock:
            if self._why_not_back(instance):
                return 0
            more, left = self._wants(instance)
            return 0 if more.cpu > left.cpu else max(0, more.memory_mib - left.memory_mib)

    def held(self, instance: str, host: str) -> Capacity:
        """Return what an instance holds on a host."""
        with self._lock:
            return self._held.get(instance, {}).get(host, NOTHING)

    def lacking_mib(self, host: str) -> int:
        """Return by how much memory (MiB) more is spoken for on a host than it has; 0 if not."""
        with self._lock:
            known = next((each for each in self.lab.hosts if each.name == host), None)
            if known is None:
                return 0
            return max(0, self._spoken_for(known).memory_mib - known.usable.memory_mib)

    def needed_mib(
        self, service: str, gains: Mapping[str, int], unfit: Mapping[str, str] = NOWHERE
    ) -> dict[str, int]:
        """Return where a copy would find room if memory was given back, and how much it lacks.

        `gains` says how much could be given back on each host (MiB). Best hosts first.
        """
        with self._lock:
            freed = {
                host: _minus(self._spoken_for(self.lab.host(host)), Capacity(0.0, gain))
                for host, gain in gains.items()
            }
            ranking = self._rank(service, "", unfit, freed)
            known = self._services[service]
            lacking = {}
            for name in ranking.hosts:
                host = self.lab.host(name)
                left_mib = host.usable.memory_mib - self._spoken_for(host).memory_mib
                lacks_mib = host.taken_by(known.resources).memory_mib - left_mib
                if lacks_mib > 0 and not self._why_shut(name):
                    lacking[name] = lacks_mib
            return lacking

    def drop(self, instance: Instance, *, rest_s: float) -> None:
        """Forget an instance and let go of what it held; its address rests for so long."""
        with self._lock:
            known = self._instances.pop(instance.name, None)
            if known is None:
                return
            del self._by_service[instance.service][instance.name]
            self._spares.pop(instance.name, None)
            self._hidden.discard(instance.name)
            self._goes_on(instance.name)
            self._up_since.pop(instance.name, None)
            self._let_go(known)
            del self._held[instance.name]
            until = time.monotonic() + self.rests_s(instance, rest_s)
            self._told.discard(instance.name)
            self._pools.give_back(instance.address, instance.service, until)
            self._reroute(instance.service)

    def up_s(self, instance: Instance) -> float:
        """Return for how long an instance has been awake, as far as this run knows; 0 if not."""
        with self._lock:
            since = self._up_since.get(instance.name)
            return 0.0 if since is None else time.monotonic() - since

    def promise(self, instance: Instance, ttl_s: int) -> Endpoint:
        """Return where an instance will answer, to be told now; then its address must rest."""
        with self._lock:
            self._told.add(instance.name)
            return _endpoint(instance, min(ttl_s, self._ttl_s(instance.service)))

    def rests_s(self, instance: Instance, rest_s: float) -> float:
        """Return how long (s) the address of an instance must rest: longer if it was told early."""
        with self._lock:
            told = instance.name in self._told
            return max(rest_s, self.rest_s(instance.service)) if told else rest_s

    def get(self, name: str) -> Instance | None:
        """Return an instance by name, or None."""
        with self._lock:
            return self._instances.get(name)

    def instances(self) -> tuple[Instance, ...]:
        """Return all instances, in order of name."""
        with self._lock:
            return tuple(self._instances[name] for name in sorted(self._instances))

    def of(self, service: str) -> tuple[Instance, ...]:
        """Return the instances of a service, oldest index first."""
        with self._lock:
            return self._of(service)

    def on(self, host: str) -> tuple[Instance, ...]:
        """Return the instances on a host, in order of name."""
        return tuple(instance for instance in self.instances() if instance.host == host)

    def coming_to(self, host: str) -> tuple[Instance, ...]:
        """Return the instances that are, or were, being migrated to a host, in order of name."""
        return tuple(instance for instance in self.instances() if instance.to == host)

    # --- where clients are led ---

    def withdraw(self, instance: Instance) -> bool:
        """Lead no new client to an instance; False if it is not what it was any more."""
        with self._lock:
            if self._instances.get(instance.name) is not instance:
                return False
            self._hidden.add(instance.name)
            self._reroute(instance.service)
            return True

    def restore(self, instance: Instance) -> bool:
        """Lead clients to an instance again; False if it is not what it was any more."""
        with self._lock:
            if self._instances.get(instance.name) is not instance:
                return False
            self._hidden.discard(instance.name)
            self._reroute(instance.service)
            return True

    def hidden(self, instance: str) -> bool:
        """Return whether no new client is led to an instance."""
        with self._lock:
            return instance in self._hidden

    def serving(self, service: str) -> tuple[Instance, ...]:
        """Return the instances of a service that clients are led to."""
        with self._lock:
            return tuple(
                instance
                for instance in self._of(service)
                if instance.state in AWAKE and instance.name not in self._hidden
            )

    def endpoints(self, service: str, population: str = "") -> tuple[Endpoint, ...]:
        """Return where a service answers now, nearest to the population first."""
        with self._lock:
            ttl_s = self._ttl_s(service)
            found = [_endpoint(instance, ttl_s) for instance in self.serving(service)]
            if population and len(found) > 1:
                found.sort(key=lambda end: self.planner.distance_ms(population, end.host))
            return tuple(found)

    def answer(self, service: str, population: str = "") -> tuple[Endpoint, ...]:
        """Return where a service answers now, in the order that the next answer is to name it.

        Unlike `endpoints`, this takes a turn: the next answer may have another order.
        """
        with self._lock:
            endpoints = self.endpoints(service)
            known = self._services.get(service)
            if known is None or len(endpoints) < 2:
                return endpoints
            copies = [self._copy(endpoint, population) for endpoint in endpoints]
            return self._turns.order(service, known.answer, copies)

    def missing(self, service: str) -> tuple[str, ...]:
        """Return the functions before a service in its chain that do not answer now, in order."""
        before = self._before.get(service, ())
        return tuple(name for name in before if not self.serving(name))

    def ends_chain(self, service: str) -> bool:
        """Return whether there are functions before a service."""
        return bool(self._before.get(service))

    def awake_ends(self, function: str) -> tuple[str, ...]:
        """Return the services that answer now at the end of chains that a function is in."""
        return tuple(name for name in self._ends.get(function, ()) if self.serving(name))

    def routes(self) -> tuple[Route, ...]:
        """Return the whole wanted list of routes, one per service of the lab.

        A service leads nowhere as long as a function of its chain is missing.
        """
        with self._lock:
            for name, route in self._routes.items():
                # Whether a host is shut, and what it has free, changes without the endpoints.
                if len(route.endpoints) > 1:
                    self._routes[name] = self._with_orders(route)
            return tuple(
                replace(route, endpoints=(), turns=(), theirs=()) if self.missing(name) else route
                for name, route in self._routes.items()
            )

    # --- what sleeps, and may be woken by traffic ---

    def guarded(self, host: str) -> tuple[Guarded, ...]:
        """Return the addresses on a host at which somebody may want what does not answer there.

        They are those that services without any instance had last, as long as nobody else has them,
        and those of instances that sleep, are being put to sleep, roused or booted. None on a host
        where nothing is placed now.
        """
        with self._lock:
            known = next((each for each in self.lab.hosts if each.name == host), None)
            if known is None or host in self.closed():
                return ()
            revision, guarded = self._guarded.get(host, (-1, ()))
            if revision != self._revision:
                guarded = self._what_to_guard(known)
                self._guarded[host] = self._revision, guarded
            return guarded

    # --- inside ---

    def _is_missed(self, service: Service) -> bool:
        """Return whether somebody may want a service at an address that it has no more.

        A cache may name it still, or clients may remember it for ever and wake the service by it.
        """
        if self._pools.rests(service.name, time.monotonic()):
            return True
        hosts = self.lab.hosts if service.wake_on_traffic else ()
        return any(self._pools.keeps(host, service.name) for host in hosts)

    def _change_hands(self, before: Instance, after: Instance) -> None:
        del self._by_service[before.service][before.name]
        self._spares.pop(before.name, None)
        self._pools.hand_over(before.address, before.service, after.service)
        self._keep(after)

    def _rests(self, quarantines: Iterable[Quarantine]) -> Iterator[Quarantine]:
        """Turn the end of each rest to monotonic seconds, which no setting of the clock moves.

        No rest is longer than an answer may live: one that seems to be is left from a time when
        the clock was wrong, and would block its address for as long as that was.
        """
        longest_s = max((LEAST_TTL_S, *(float(each.ttl_s) for each in self.lab.services)))
        ahead_s = time.monotonic() - time.time()
        for each in quarantines:
            until = min(each.until + ahead_s, time.monotonic() + longest_s)
            yield replace(each, until=until)

    def _what_to_guard(self, host: Host) -> tuple[Guarded, ...]:
        """Return what a host is to guard. The caller holds the lock."""
        before = {each.address: each for each in self._guarded.get(host.name, (0, ()))[1]}
        asleep = [
            _guarded(service, host, address, before)
            for name, address in self._pools.last_had(host).items()
            if (service := self._services.get(name)) and not self._by_service.get(name)
            if service.wake_on_traffic
        ]
        resting = [
            _guarded(
                service,
                host,
                instance.address,
                before,
                remembers=instance.name not in self._ending,
            )
            for instance in self._instances.values()
            if instance.host == host.name
            if instance.state in RESTING or instance.name in self._sinking
            if (service := self._services.get(instance.service)) and service.wake_on_traffic
        ]
        booting = [
            _guarded(service, host, instance.address, before)
            for instance in self._instances.values()
            if instance.host == host.name and instance.state is InstanceState.BOOTING
            if (service := self._services.get(instance.service))
            if service.wake_on_traffic or service.reply is Reply.EARLY
            if instance.name not in self._hidden
        ]
        return (*asleep, *resting, *booting)

    def _take(self, host: Host, service: str, address: IPv4Address | None) -> IPv4Address:
        if address is None:
            return self._pools.take(host, service, time.monotonic())
        self._pools.take_back(host, service, address)
        return address

    def _wants(self, instance: Instance) -> tuple[Capacity, Capacity]:
        """Return what an instance that sleeps takes more when it runs, and what its host has."""
        host = self.lab.host(instance.host)
        running = self._takes(instance.step(InstanceState.ROUSING), host.name)
        more = _minus(running, self.held(instance.name, host.name))
        return more, _minus(host.usable, self._spoken_for(host))

    def _why_shut(self, host: str) -> str:
        """Return why nothing is placed on a host now; empty if it is open."""
        closed = self.closed()
        return closed.get(host, "") if any(host == h.name for h in self.lab.hosts) else "it is gone"

    def _why_not_back(self, instance: Instance) -> str:
        """Return why what sleeps on a host may not run there again; empty if it may."""
        why, service = self._why_shut(instance.host), self._services.get(instance.service)
        stays = service is not None and service.migrate is Migrate.LIVE_ONLY
        return "" if stays and why == DRAINING else why

    def _rank(
        self,
        service: str,
        population: str,
        unfit: Mapping[str, str],
        used: Mapping[str, Capacity] = NOTHING_USED,
    ) -> Ranking:
        return self.planner.rank(
            service,
            used={host.name: self._spoken_for(host) for host in self.lab.hosts} | dict(used),
            where=self._where(),
            unfit=unfit,
            population=population,
        )

    def _copy(self, endpoint: Endpoint, population: str) -> Copy:
        name = endpoint.host
        host = next((host for host in self.lab.hosts if host.name == name), None)
        return Copy(
            endpoint,
            distance_ms=self.planner.distance_ms(population, name) if population else None,
            free_cpu=host.usable.cpu - self._used.get(name, NOTHING).cpu if host else 0.0,
            shut=host is None or name in self._lost or name in self._draining,
        )

    def _with_orders(self, route: Route) -> Route:
        """Return a route with the orders of its answers: the one of before if they are the same."""
        rule, name = route.service.answer, route.service.name
        copies = tuple(self._copy(endpoint, "") for endpoint in route.endpoints)
        if rule is not AnswerOrder.WEIGHTED:
            copies = tuple(replace(copy, free_cpu=0.0) for copy in copies)
        before = self._ordered.get(name)
        if before is None or before[0] != copies:
            known = () if rule is AnswerOrder.ROTATED else self.lab.populations
            far = {
                each.name: tuple(
                    self.planner.distance_ms(each.name, c.endpoint.host) for c in copies
                )
                for each in known
            }
            turns, theirs = whole_round(rule, copies), rounds_by_population(rule, copies, far)
            same = (turns, theirs) == (route.turns, route.theirs)
            route = route if same else replace(route, turns=turns, theirs=theirs)
            before = self._ordered[name] = copies, route
        return before[1]

    def _of(self, service: str) -> tuple[Instance, ...]:
        return tuple(i for _, i in sorted(self._by_service.get(service, {}).items()))

    def _where(self) -> dict[str, tuple[str, ...]]:
        return {
            service: tuple(instance.host for instance in instances.values())
            for service, instances in self._by_service.items()
            if instances and service in self._services
        }

    def _ttl_s(self, service: str) -> int:
        known = self._services.get(service)
        return known.ttl_s if known else 0

    def _keep(self, instance: Instance) -> None:
        before = self._instances.get(instance.name)
        if before is not None:
            self._let_go(before)
        ends = instance.state is InstanceState.STOPPING  # and never runs again, should it sleep
        same = ends or (before is not None and not ASLEEP & {before.state, instance.state})
        held = self._held.get(instance.name, {}) if same else {}
        self._held[instance.name] = {
            host: held[host] if host in held else self._takes(instance, host)
            for host in instance.hosts
        }
        for host, taken in self._held[instance.name].items():
            self._used[host] = _plus(self._used.get(host, NOTHING), taken)
        self._instances[instance.name] = instance
        if instance.state in AWAKE:
            self._up_since.setdefault(instance.name, time.monotonic())
        elif instance.state is not InstanceState.STOPPING:
            self._up_since.pop(instance.name, None)
        self._by_service.setdefault(instance.service, {})[instance.name] = instance
        if is_spare(instance.service):
            self._spares[instance.name] = instance
        self._reroute(instance.service)

    def _takes(self, instance: Instance, name: str) -> Capacity:
        """Return what an instance takes of a host, with what the hypervisor there adds."""
        service = self._services.get(instance.service) or self.nobodys(instance.service)
        host = next((host for host in self.lab.hosts if host.name == name), None)
        if service is None or instance.state is InstanceState.SAVED:
            return NOTHING
        taken = host.taken_by(service.resources) if host else service.resources
        return replace(taken, cpu=0.0) if instance.state is InstanceState.PAUSED else taken

    def _let_go(self, instance: Instance) -> None:
        """Hold nothing for an instance any more, as it was known."""
        for host, taken in self._held[instance.name].items():
            self._used[host] = _minus(self._used[host], taken)

    def _reroute(self, service: str) -> None:
        """Bring the route of a service up to date; the others are as they were."""
        self._revision += 1
        if service in self._services:
            self._routes[service] = self._route(service)

    def _route(self, service: str) -> Route:
        ipv6 = any(host.network.subnet6 for host in self.lab.hosts)
        return Route(self._services[service], self.endpoints(service), ipv6=ipv6)

    def _new(self, service: str, host: Host, address: IPv4Address, name: str = "") -> Instance:
        taken = {*self._by_service.get(service, ()), *self._unusable.get(host.name, ())}
        names = (instance_name(self.lab.name, service, index) for index in count())
        return Instance(
            name=name or next(name for name in names if name not in taken),
            service=service,
            host=host.name,
            address=address,
            address6=host.network.address6(address),
            mac=mac_of(address),
            state=InstanceState.BOOTING,
            created_at=time.time(),
        )

    def _spoken_for(self, host: Host) -> Capacity:
        """Count what is ours, or more where the host says that less than the rest is free.

        Memory of guests that were started since the host said so counts as free there: it is not.
        """
        ours, free = self._used.get(host.name, NOTHING), self._free.get(host.name)
        if free is None:
            return ours
        counted = self._counted.get(host.name, frozenset())
        uncounted_mib = sum(
            self._held[i.name][host.name].memory_mib
            for i in self._instances.values()
            if host.name in i.hosts and i.name not in counted
        )
        taken_mib = host.usable.memory_mib - (free.memory_mib - uncounted_mib)
        return Capacity(cpu=ours.cpu, memory_mib=max(ours.memory_mib, taken_mib))

    def _no_place(
        self, service: str, shut: frozenset[str], reasons: Mapping[str, str]
    ) -> NoCapacity | NoHostReachable:
        """Say why no host will do: unreachable hosts are another matter than full ones."""
        texts = {
            name: reasons.get(name)
            or self._lost.get(name)
            or self._refused.get(name)
            or (DRAINING if name in self._draining else "")
            for name in shut | {*reasons}
        }
        told = "; ".join(f"{name}: {why}" for name, why in sorted(texts.items()) if why)
        hosts = {host.name for host in self.lab.hosts}
        if hosts and hosts <= self._lost.keys():
            return NoHostReachable(
                service,
                f"no host can be reached ({told})",
                hint="check the hosts' libvirt daemons and the network to them",
            )
        return NoCapacity(
            service,
            f"no host can take it ({told or 'every candidate was tried or holds a copy'})",
            hint="put other services to sleep or give a host more capacity",
        )


def _plus(a: Capacity, b: Capacity) -> Capacity:
    return Capacity(cpu=a.cpu + b.cpu, memory_mib=a.memory_mib + b.memory_mib)


def _minus(a: Capacity, b: Capacity) -> Capacity:
    cpu = round(a.cpu - b.cpu, 9)  # sums of fractions are not exact, and show
    return Capacity(cpu=cpu, memory_mib=a.memory_mib - b.memory_mib)


def _guarded(
    service: Service,
    host: Host,
    address: IPv4Address,
    before: Mapping[IPv4Address, Guarded],
    *,
    remembers: bool = False,
) -> Guarded:
    """Return what is guarded for a service at an address, as it was before if it still is that."""
    was = before.get(address)
    if was and (was.service, was.ports, was.remembers) == (service.name, service.ports, remembers):
        return was
    return Guarded(
        service=service.name,
        address=address,
        mac=mac_of(address),
        address6=host.network.address6(address),
        ports=service.ports,
        remembers=remembers,
    )


def _endpoint(instance: Instance, ttl_s: int) -> Endpoint:
    return Endpoint(
        service=instance.service,
        instance=instance.name,
        host=instance.host,
        address=instance.address,
        address6=instance.address6,
        ttl_s=ttl_s,
    )

"""Takes instances down the ladder and up again, and makes room where memory is short.

Which rung is next is `orchestrator.ladder`'s decision. What guests of an image survive on a host is
found out once, by doing it to one that nobody uses (`orchestrator.abilities`), and stored. Whoever
calls holds the lock of the instance's service; what is done for want of memory takes that of
others, if it is free.
"""

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from logging import getLogger

from orchestrator import guest_clock
from orchestrator.abilities import Survival, probe
from orchestrator.boot import Boots
from orchestrator.errors import (
    EdgewakeError,
    HostUnreachable,
    HypervisorError,
    NoCapacity,
    NotReady,
    WakeError,
)
from orchestrator.fleet import Fleet
from orchestrator.hypervisors.base import Depth
from orchestrator.idle import kept_up
from orchestrator.journal import Journal
from orchestrator.ladder import Prospects, Rates, SeenWakes, Victim, below, sacrifice
from orchestrator.model import ASLEEP, LADDER, Ability, Instance, InstanceState, Rung, Service
from orchestrator.store.base import Store
from orchestrator.trace import WakeTrace
from placement.warm.formulas import value

log = getLogger(__name__)

PROBE_PATIENCE_S = 10.0  # for the first answer after a probe's sleep; emulated guests are slow
LEAST_PATIENCE_S = 1.0  # for the answer of a guest that was roused, before it is booted anew
PATIENCE_FACTOR = 20  # times what it took before
FAILURES = 2  # in a row, until a rung that was seen to work counts as one that does not


class Sleeper:
    """Knows how each instance may sleep, and has it sleep and wake.

    `end` ends an instance and says whether it is gone; `lose` is told of hosts that cannot be
    reached; `ask` asks a host again what is free; `wanted` says of a service whether somebody waits
    for it, `spare` whether it is awake and could sleep at once, because nobody uses it; `put_down`
    has such a service sleep without any memory and says whether it does; `guard` has a host guard
    the addresses of all that cannot answer just now.
    """

    def __init__(
        self,
        fleet: Fleet,
        boots: Boots,
        store: Store,
        journal: Journal,
        *,
        abilities: Iterable[Ability],
        end: Callable[[Instance], bool],
        locks: Mapping[str, threading.Lock],
        lose: Callable[[str, str], None],
        ask: Callable[[str], None],
        wanted: Callable[[str], bool],
        spare: Callable[[Service], bool],
        put_down: Callable[[Service, str], bool],
        guard: Callable[[str], None],
        rates: Rates,
    ) -> None:
        self._fleet = fleet
        self._boots = boots
        self._store = store
        self._journal = journal
        self._end = end
        self._locks = locks
        self._lose = lose
        self._ask = ask
        self._wanted = wanted
        self._spare = spare
        self._put_down = put_down
        self._guard = guard
        self._rates = rates
        self._costs = SeenWakes()
        self._abilities = {(each.image, each.host, each.rung): each for each in abilities}
        self._failures: Counter[tuple[str, str, Rung]] = Counter()
        self._since: dict[str, float] = {}  # monotonic, by instance: when it came to its rung
        self._in_hand: set[str] = set()

    # --- what is known ------------------------------------------------------------------------

    def abilities(self) -> tuple[Ability, ...]:
        """Return what was found out, by host and image."""
        found = self._abilities.copy().values()
        return tuple(sorted(found, key=lambda each: (each.host, each.image, each.rung.depth)))

    def forget_abilities(self) -> None:
        """Forget what was found out, so that it is found out anew."""
        self._store.forget_abilities()
        self._abilities.clear()
        self._failures.clear()

    def prospects(self, service: Service, host: str) -> Prospects:
        """Return what is known of the rungs for what a host would boot for a service."""
        image = self._boots.image_of(service, host)
        costs = {rung: self._costs.seen(image, host, rung) for rung in LADDER[1:]}
        return Prospects(
            abilities={
                rung: ability
                for rung in (Rung.PAUSED, Rung.SAVED)
                if (ability := self._abilities.get((image, host, rung)))
            },
            costs={rung: cost for rung, cost in costs.items() if cost is not None},
        )

    def wake_costs(self) -> dict[tuple[str, str, str], float]:
        """Return what wakes took, or probes, by service, host and rung (seconds)."""
        return {
            (service.name, host.name, str(rung)): known.cost(rung)
            for service in self._fleet.lab.services
            for host in self._fleet.lab.hosts
            for known in (self.prospects(service, host.name),)
            for rung in LADDER[1:]
            if rung in known.costs or (rung in known.abilities and known.abilities[rung].works)
        }

    def rungs(self) -> dict[tuple[str, str], frozenset[str]]:
        """Return the rungs that may be used, as far as is known, by service and host."""
        return {
            (service.name, host.name): frozenset(
                rung for rung in LADDER if not known.why_not(rung, service.idle)
            )
            for service in self._fleet.lab.services
            for host in self._fleet.lab.hosts
            for known in (self.prospects(service, host.name),)
        }

    def below(self, instance: Instance, service: Service) -> Rung | None:
        """Return the next rung down for an instance; None if it may not sleep more deeply."""
        return below(instance.rung, service.idle, self.prospects(service, instance.host))

    def why_awake(self, service: Service) -> str:
        """Return why an unused service must not sleep; empty if it may."""
        for instance in self._fleet.serving(service.name):
            if self.below(instance, service) is None:
                lacks = self.prospects(service, instance.host)
                last = LADDER[1 : service.idle.deepest.depth + 1]
                why = "; ".join(f"{rung}: {lacks.why_not(rung, service.idle)}" for rung in last)
                return f"it may not sleep more deeply than {service.idle.deepest} ({why})"
        return ""

    def is_due(self, instance: Instance, service: Service) -> bool:
        """Return whether an instance that sleeps has rested at its rung for as long as it may."""
        rests_s = service.idle.rests_s(instance.rung)
        since = self._since.setdefault(instance.name, time.monotonic())
        return rests_s is not None and time.monotonic() >= since + rests_s

    def booted(self, instance: Instance, service: Service, seconds: float) -> None:
        """Take note of what a boot took, from the decision to the answer."""
        image = self._boots.image_of(service, instance.host)
        self._costs.note(image, instance.host, Rung.COLD, seconds)

    def in_hand(self, instance: str) -> bool:
        """Return whether an instance is on its way down just now: its host may say anything."""
        return instance in self._in_hand

    # --- down ---------------------------------------------------------------------------------

    def lower(self, instance: Instance, service: Service, rung: Rung) -> Rung | None:
        """Take an instance down to a rung, or further if it cannot rest there.

        Nobody is led to it any more. Returns where it is now, None if it could be brought nowhere
        (its host cannot be reached, it may not sink further, or edgewake stops): it is as it was
        then.
        """
        self._in_hand.add(instance.name)
        try:
            return self._lower(instance, service, rung)
        finally:
            self._in_hand.discard(instance.name)

    def _lower(self, instance: Instance, service: Service, rung: Rung) -> Rung | None:
        present: Instance | None = instance
        while present is not None and rung is not Rung.COLD:
            try:
                if self._survives(present, service, rung):
                    self._sleep(present, rung)
                    return rung
            except HostUnreachable as error:
                self._lose(error.host, error.message)
                return None
            except NotReady:
                return None
            except HypervisorError as error:
                why = f"{present.name} could not be {rung} on {present.host}: {error.message}"
                self._journal.record("sleep-failed", service.name, why, host=present.host)
            further = below(rung, service.idle, self.prospects(service, present.host))
            if further is None:
                self._stay(present)
                return None
            rung, present = further, self._fleet.get(instance.name)
        if present is not None:
            self._turn_away(present)
        return Rung.COLD if present is None or self._end(present) else None

    def _sleep(self, instance: Instance, rung: Rung) -> None:
        hypervisor = self._boots.hosts[instance.host].hypervisor
        self._turn_away(instance)
        try:
            hypervisor.sleep(instance.name, Depth(rung))
        except HypervisorError:
            self._fleet.sink(instance, wanted=False)
            self._guard(instance.host)
            raise
        self._since[instance.name] = time.monotonic()
        slept = instance.step(InstanceState(rung))
        self._fleet.put(slept)
        self._store.save(slept)

    def _turn_away(self, instance: Instance) -> None:
        """Have packets for an instance held from now on: it is about to hear nothing."""
        self._fleet.sink(instance)
        self._guard(instance.host)

    def _stay(self, instance: Instance) -> None:
        """Bring an instance that slept, and was tried to sink deeper, back to where it was."""
        if instance.state in ASLEEP:
            try:
                self._sleep(instance, instance.rung)
            except HypervisorError as error:
                log.info("%s is left as it is: %s", instance.name, error)

    def _survives(self, instance: Instance, service: Service, rung: Rung) -> bool:
        """Return whether an instance will come back from a rung; finds out if nobody did yet."""
        image = self._boots.image_of(service, instance.host)
        known = self._abilities.get((image, instance.host, rung))
        if known is None:
            known = self._found_out(instance, service, rung, image)
        return known.works and not (service.idle.needs_clock and known.clock is False)

    def _found_out(self, instance: Instance, service: Service, rung: Rung, image: str) -> Ability:
        """Try a rung with an instance that nobody uses, and store what came of it."""
        hypervisor = self._boots.hosts[instance.host].hypervisor
        hypervisor.rouse(instance.name)  # a rung above may be where it is
        survival = probe(
            hypervisor,
            instance.name,
            Depth(rung),
            lambda: self._answers(instance, service),
            PROBE_PATIENCE_S,
            clock=lambda: guest_clock.read(
                instance, service.probe, self._boots.device(instance.host)
            ),
            wanted=lambda: self._wanted(service.name),
        )
        ability = Ability(
            image=image,
            host=instance.host,
            rung=rung,
            works=survival.works,
            why=survival.why,
            sleep_s=survival.sleep_s,
            rouse_s=survival.rouse_s,
            clock=survival.clock,
            probed_at=time.time(),
        )
        self._keep(ability)
        text = f"{instance.name} on {instance.host}: {_told(survival, rung)}"
        self._journal.record("probed", service.name, text, host=instance.host)
        return ability

    def _answers(self, instance: Instance, service: Service) -> bool:
        """Ask a guest for an answer. Raises `NotReady` when nobody waits for any: that is none."""
        answers = self._boots.answers(instance, service, PROBE_PATIENCE_S)
        if not answers and self._boots.closing:
            raise NotReady(service.name, self._boots.closing)
        return answers

    def _keep(self, ability: Ability) -> None:
        self._abilities[ability.image, ability.host, ability.rung] = ability
        self._store.save_ability(ability)

    # --- up -----------------------------------------------------------------------------------

    def rouse(
        self, instance: Instance, service: Service, trace: WakeTrace, deadline: float
    ) -> Instance | None:
        """Bring an instance that sleeps back and return it READY and stored; announce it then.

        Returns None if that was not possible. Then the events say why, and a copy may be booted:
        the instance was ended, unless its host cannot be reached or has no room for it.
        `deadline` is monotonic.
        """
        rung, began = instance.rung, time.monotonic()
        trace.stamp("decided")
        try:
            rousing = self._with_room(instance, trace)
        except WakeError as error:
            self._journal.record("not-roused", service.name, f"{instance.name}: {error.message}")
            return None
        trace.stamp("claimed")
        trace.instance, trace.host, trace.rung = instance.name, instance.host, str(rung)
        trace.decided_by = f"it was {rung} there"
        image = self._boots.image_of(service, instance.host)
        try:
            until = self._until(image, rousing, rung, deadline)
            ready = self._boots.rouse(rousing, service, until, trace.stamp)
        except HostUnreachable as error:
            self._fleet.put(instance)
            self._lose(error.host, error.message)
            return None
        except (HypervisorError, WakeError) as error:
            trace.stamp("failed")
            self._gave_up(rousing, rung, image, error)
            return None
        self._failures.pop((image, instance.host, rung), None)
        self._costs.note(image, instance.host, rung, time.monotonic() - began)
        return ready

    def _with_room(self, instance: Instance, trace: WakeTrace) -> Instance:
        """Hold what an instance needs to run again; others sink for it. Raises `NoCapacity`."""
        try:
            return self._fleet.rouse(instance)
        except NoCapacity:
            lacks = self._fleet.rouse_lacks_mib(instance)
            if not lacks or not self.make_room(instance.host, lacks):
                raise
            trace.stamp("room")
            return self._fleet.rouse(instance)

    def _until(self, image: str, instance: Instance, rung: Rung, deadline: float) -> float:
        """Return until when to wait for an answer: a boot must still be possible afterwards."""
        ability = self._abilities.get((image, instance.host, rung))
        usual_s = PATIENCE_FACTOR * ability.rouse_s if ability else 0.0
        now = time.monotonic()
        return now + min((deadline - now) / 2, max(LEAST_PATIENCE_S, usual_s))

    def _gave_up(self, instance: Instance, rung: Rung, image: str, error: EdgewakeError) -> None:
        """End an instance that did not come back, so that a boot finds its memory and address."""
        key = (image, instance.host, rung)
        self._failures[key] += 1
        why = f"{instance.name} did not come back, {rung} on {instance.host}: {error.message}"
        self._journal.record("rouse-failed", instance.service, why, host=instance.host)
        known = self._abilities.get(key)
        if known is not None and self._failures[key] >= FAILURES:
            told = f"{self._failures[key]} did not come back, the last: {error.message}"
            self._keep(replace(known, works=False, why=told, probed_at=time.time()))
        self._fleet.withdraw(instance)
        self._end(instance)

    # --- room ---------------------------------------------------------------------------------

    def make_room(self, host: str, needed_mib: float) -> bool:
        """Have the least valuable instances on a host give back so much memory (MiB) at once.

        They sink to the next rung that holds none. Returns whether all of it was given back.
        """
        chosen = sacrifice(self._victims(host), needed_mib)
        sunk = [self._sink(victim.instance, host) for victim in chosen]
        if sunk:
            self._ask(host)
        return bool(sunk) and all(sunk)

    def gains(self) -> dict[str, int]:
        """Return how much memory (MiB) instances on each host could give back at once."""
        hosts = [host.name for host in self._fleet.lab.hosts]
        return {host: sum(each.memory_mib for each in self._victims(host)) for host in hosts}

    def _victims(self, host: str) -> list[Victim]:
        found = []
        for instance in self._fleet.on(host):
            service = self._fleet.service(instance.service)
            if service is None or self._locks[instance.service].locked():
                continue
            if instance.state is not InstanceState.PAUSED and not self._spare(service):
                continue
            if not self._fleet.serving(service.name) and kept_up(service.idle, time.time()):
                continue  # it is about to be woken
            if (rung := self.without_memory(instance, service)) is None:
                continue
            costs = self.prospects(service, host)
            saved_s = costs.cost(rung) - costs.cost(instance.rung)
            rate_s = self._rates.of(service.name, time.monotonic())
            memory_mib = self._fleet.held(instance.name, host).memory_mib
            worth = value(saved_s, rate_s, memory_mib)
            found.append(Victim(instance.name, memory_mib, worth))
        return found

    def without_memory(self, instance: Instance, service: Service) -> Rung | None:
        """Return the next rung down that holds no memory; None if the policy allows none."""
        if instance.rung not in {Rung.READY, Rung.PAUSED}:
            return None
        return below(Rung.PAUSED, service.idle, self.prospects(service, instance.host))

    def _sink(self, name: str, host: str) -> bool:
        """Take one instance down for want of memory; False if somebody is busy with it."""
        instance = self._fleet.get(name)
        service = self._fleet.service(instance.service) if instance else None
        if instance is None or service is None:
            return True
        with _if_free(self._locks[service.name]) as free:
            if not free or self._fleet.get(name) is not instance:
                return False
            why = f"its memory on {host} was needed"
            if instance.state is InstanceState.READY:
                return self._spare(service) and self._put_down(service, why)
            rung = self.without_memory(instance, service)
            reached = rung and self.lower(instance, service, rung)
            if reached is None:
                return False
            self._journal.record("made-room", service.name, f"{name} is {reached}: {why}")
            return True


@contextmanager
def _if_free(lock: threading.Lock) -> Iterator[bool]:
    """Hold a lock in the block if nobody has it; says whether it is held."""
    free = lock.acquire(blocking=False)
    try:
        yield free
    finally:
        if free:
            lock.release()


def _told(survival: Survival, rung: Rung) -> str:
    """Say what a probe found, for people."""
    if not survival.works:
        return f"it does not survive being {rung}: {survival.why}"
    clock = {None: "", True: ", its clock right", False: ", but its clock was wrong"}
    return f"it survives being {rung} (back in {survival.rouse_s:.3f} s{clock[survival.clock]})"

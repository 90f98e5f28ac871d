"""Takes instances down the ladder and up again, and makes room where memory is short.

Which rung is next is `orchestrator.ladder`'s decision. What guests of an image survive on a host is
found out once, by doing it to one that nobody uses (`orchestrator.abilities`), and stored. Whoever
calls holds the lock of the instance's service; what is done for want of memory takes that of
others, if it is free.
"""

import math
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from logging import getLogger

from orchestrator import guest_clock
from orchestrator.abilities import Survival, probe
from orchestrator.boot import Boots
from orchestrator.errors import (
    EdgewakeError,
    GuestDied,
    HostUnreachable,
    HypervisorError,
    NoCapacity,
    NotReady,
    StoreError,
    WakeError,
)
from orchestrator.fleet import Fleet
from orchestrator.hypervisors.base import Depth
from orchestrator.idle import kept_up
from orchestrator.journal import Journal
from orchestrator.ladder import Prospects, Rates, SeenWakes, Victim, below, sacrifice
from orchestrator.library import Fit
from orchestrator.model import ASLEEP, LADDER, Ability, Instance, InstanceState, Rung, Service
from orchestrator.recipes import is_spare
from orchestrator.store.base import Store
from orchestrator.trace import WakeTrace
from placement.warm import POOLED
from placement.warm.formulas import value

log = getLogger(__name__)

PROBE_PATIENCE_S = 10.0  # for the first answer after a probe's sleep; emulated guests are slow
LEAST_PATIENCE_S = 1.0  # for the answer of a guest that was roused, before it is booted anew
PATIENCE_FACTOR = 20  # times what it took before
FAILURES = 2  # in a row, until a rung that was seen to work counts as one that does not


@dataclass(frozen=True, slots=True)
class _Runs:
    """What an instance runs: `image` names its abilities (a digest), `version` its wakes' costs."""

    image: str
    version: str


class Sleeper:
    """Knows how each instance may sleep, and has it sleep and wake.

    `end` ends an instance and says whether it is gone; `lose` is told of hosts that cannot be
    reached; `ask` asks a host again what is free; `wanted` says of a service whether somebody waits
    for it, `spare` whether it is awake and could sleep at once, because nobody uses it; `put_down`
    has such a service sleep without any memory and says whether it does; `guard` has a host guard
    the addresses of all that cannot answer just now; `kept` says at which rung the warm plan keeps
    an instance, if it does. `spares` are the anonymous instances on a host
    that could give memory back, and `give_up` ends one of them and says whether it is gone.
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
        kept: Callable[[Instance], Rung | None],
        spares: Callable[[str], Iterable[Victim]],
        give_up: Callable[[Instance, str], bool],
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
        self._kept = kept
        self._spares = spares
        self._give_up = give_up
        self._rates = rates
        self._costs = SeenWakes()
        self._abilities = {(each.image, each.host, each.rung): each for each in abilities}
        self._failures: Counter[tuple[str, str, Rung]] = Counter()
        self._since: dict[str, float] = {}  # monotonic, by instance: when it came to its rung
        self._runs: dict[str, _Runs] = {}  # by instance, as it last sank: a wake reads no file
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
        return self._prospects(self._runs_there(service, host), host)

    def _prospects(self, runs: _Runs, host: str) -> Prospects:
        costs = {rung: self._costs.seen(runs.version, host, rung) for rung in LADDER[1:]}
        return Prospects(
            abilities={
                rung: ability
                for rung in (Rung.PAUSED, Rung.SAVED)
                if (ability := self._abilities.get((runs.image, host, rung)))
            },
            costs={rung: cost for rung, cost in costs.items() if cost is not None},
        )

    def wake_costs(self) -> dict[tuple[str, str, str], float]:
        """Return what wakes took, or probes, by service, host and rung (seconds).

        Those of anonymous instances, and of boots instead, are by recipe's image.
        """
        return self._recipe_costs() | {
            (service.name, host, str(rung)): known.cost(rung)
            for service, host, known in self._everywhere()
            for rung in LADDER[1:]
            if rung in known.costs or (rung in known.abilities and known.abilities[rung].works)
        }

    def _recipe_costs(self) -> dict[tuple[str, str, str], float]:
        hosts = [host.name for host in self._fleet.lab.hosts]
        found = {
            (recipe.images[0], host, rung): self._costs.seen(
                self._runs_there(recipe, host).version, host, rung
            )
            for recipe in self._fleet.recipes()
            for host in hosts
            for rung in (str(Rung.COLD), POOLED)
        }
        return {key: cost for key, cost in found.items() if cost is not None}

    def claim_saves_s(self, recipe: Service, host: str) -> float:
        """Return by how much a wake is expected to be shorter that claims an anonymous instance."""
        known, runs = self.prospects(recipe, host), self._runs_there(recipe, host)
        pooled_s = self._costs.seen(runs.version, host, POOLED)
        claim_s = known.cost(Rung.PAUSED) if pooled_s is None else pooled_s
        return max(0.0, known.cost(Rung.COLD) - claim_s)

    def rungs(self) -> dict[tuple[str, str], frozenset[str]]:
        """Return the rungs that may be used, as far as is known, by service and host."""
        return {
            (service.name, host): frozenset(
                rung for rung in LADDER if not known.why_not(rung, service.idle)
            )
            for service, host, known in self._everywhere()
        }

    def _everywhere(self) -> Iterator[tuple[Service, str, Prospects]]:
        lab = self._fleet.lab
        for service in lab.services:
            fits = self._boots.fits_of(service)
            for host in lab.hosts:
                runs = self._runs_of(fits.get(host.name))
                yield service, host.name, self._prospects(runs, host.name)

    def below(self, instance: Instance, service: Service) -> Rung | None:
        """Return the next rung down for an instance; None if it may not sleep more deeply."""
        return below(instance.rung, service.idle, self.prospects(service, instance.host))

    def why_awake(self, service: Service) -> str:
        """Return why an unused service must not sleep; empty if it may."""
        for instance in self._fleet.serving(service.name):
            lacks = self.prospects(service, instance.host)
            if below(instance.rung, service.idle, lacks) is None:
                last = LADDER[1 : service.idle.deepest.depth + 1]
                why = "; ".join(f"{rung}: {lacks.why_not(rung, service.idle)}" for rung in last)
                return f"it may not sleep more deeply than {service.idle.deepest} ({why})"
        return ""

    def is_due(self, instance: Instance, service: Service) -> bool:
        """Return whether an instance that sleeps has rested at its rung for as long as it may.

        That begins anew when the warm plan keeps it no longer: plans change their mind.
        """
        if self._kept(instance) is not None:
            self._since[instance.name] = time.monotonic()
            return False
        rests_s = service.idle.rests_s(instance.rung)
        since = self._since.setdefault(instance.name, time.monotonic())
        return rests_s is not None and time.monotonic() >= since + rests_s

    def booted(self, fit: Fit | None, host: str, seconds: float) -> None:
        """Take note of what a boot of a flavour took, from the decision to the answer."""
        self._costs.note(self._version(fit), host, Rung.COLD, seconds)

    def usual_boot_s(self, fit: Fit | None, host: str) -> float:
        """Return what a boot of a flavour usually takes (seconds); 0.0 if none was seen."""
        return self._costs.seen(self._version(fit), host, Rung.COLD) or 0.0

    def _version(self, fit: Fit | None) -> str:
        return self._boots.flavours.version(fit) if fit else ""

    def _runs_there(self, service: Service, host: str) -> _Runs:
        return self._runs_of(self._boots.fit_of(service, host))

    def _runs_of(self, fit: Fit | None) -> _Runs:
        return _Runs(self._boots.digest(fit), self._version(fit))

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
            except GuestDied as error:  # nothing of it is worth keeping at any rung
                log.info("%s is ended: %s", present.name, error.message)
                break
            except HypervisorError as error:
                why = f"{present.name} could not be {rung} on {present.host}: {error.message}"
                self._journal.record("sleep-failed", service.name, why, host=present.host)
            further = below(rung, service.idle, self.prospects(service, present.host))
            if further is None:
                self._stay(present)
                return None
            rung, present = further, self._fleet.get(instance.name)
        if present is not None:
            self._turn_away(present, ends=True)
        return Rung.COLD if present is None or self._end(present) else None

    def _sleep(self, instance: Instance, rung: Rung) -> None:
        hypervisor = self._boots.hosts[instance.host].hypervisor
        self._turn_away(instance)
        try:
            hypervisor.sleep(instance.name, Depth(rung))
        except HypervisorError:
            self._fleet.stay(instance)
            self._guard(instance.host)
            raise
        self._since[instance.name] = time.monotonic()
        slept = instance.step(InstanceState(rung))
        self._fleet.put(slept)
        self._store.save(slept)

    def _turn_away(self, instance: Instance, *, ends: bool = False) -> None:
        """Have packets for an instance held from now on: it is about to hear nothing."""
        self._fleet.sink(instance, ends=ends)
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
        runs = self._runs[instance.name] = self._runs_there(service, instance.host)
        known = self._abilities.get((runs.image, instance.host, rung))
        if known is None:
            known = self._found_out(instance, service, rung, runs.image)
        return known.works and not (service.idle.needs_clock and known.clock is False)

    def _found_out(self, instance: Instance, service: Service, rung: Rung, image: str) -> Ability:
        """Try a rung with an instance that nobody uses, and store what came of it.

        Raises `GuestDied` if it does not answer afterwards: it is of no more use.
        """
        hypervisor = self._boots.hosts[instance.host].hypervisor
        hypervisor.rouse(instance.name)  # a rung above may be where it is
        survival = probe(
            hypervisor,
            instance.name,
            Depth(rung),
            lambda: self._answers(instance, service, PROBE_PATIENCE_S),
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
        if image:  # else it would be taken for what is known of any other that cannot be read
            self._keep(ability)
        text = f"{instance.name} on {instance.host}: {_told(survival, rung)}"
        self._journal.record("probed", service.name, text, host=instance.host)
        if not ability.works and not self._answers(instance, service, LEAST_PATIENCE_S):
            raise GuestDied(service.name, f"{instance.name} does not answer any more")
        return ability

    def _answers(self, instance: Instance, service: Service, patience_s: float) -> bool:
        """Ask a guest for an answer.

        Raises `NotReady` when nobody waits for any: that is none. Raises `GuestDied` if somebody
        wants it and it is silent: booting it anew is better than to find out why.
        """
        since = time.monotonic()

        def given_up() -> str:
            late = time.monotonic() > since + LEAST_PATIENCE_S and self._wanted(service.name)
            return "somebody waits for it" if late else ""

        answers = self._boots.answers(instance, service, patience_s, given_up=given_up)
        if not answers and self._boots.closing:
            raise NotReady(service.name, self._boots.closing)
        if not answers and (why := given_up()):
            raise GuestDied(service.name, f"{instance.name} does not answer, and {why}")
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
        `deadline` is monotonic. Raises `StoreError`; it is being ended then, too.
        """
        rung = instance.rung
        trace.stamp("decided")
        try:
            rousing = self._with_room(instance, trace)
        except WakeError as error:
            self._journal.record("not-roused", service.name, f"{instance.name}: {error.message}")
            return None
        trace.stamp("claimed")
        trace.instance, trace.host, trace.rung = instance.name, instance.host, str(rung)
        trace.decided_by = f"it was {rung} there"
        return self.bring_back(
            rousing, service, trace, deadline, put_back=lambda: self._fleet.put(instance), rung=rung
        )

    def bring_back(
        self,
        rousing: Instance,
        service: Service,
        trace: WakeTrace,
        deadline: float,
        *,
        put_back: Callable[[], None],
        rung: Rung = Rung.PAUSED,
    ) -> Instance | None:
        """Have an instance that is ROUSING from a rung answer; return it READY and stored.

        Returns None if it does not. It was ended then, unless its host cannot be reached: then
        `put_back` is called. What it took, since it was decided, counts for the rung of the trace.
        Raises `StoreError`; it is being ended then, too.
        """
        runs = self._runs.get(rousing.name) or self._runs_there(service, rousing.host)
        try:
            until = self._until(runs.image, rousing, rung, deadline)
            ready = self._boots.rouse(rousing, service, until, trace.stamp)
        except HostUnreachable as error:
            put_back()
            self._lose(error.host, error.message)
            return None
        except (HypervisorError, WakeError) as error:
            trace.stamp("failed")
            self._gave_up(rousing, rung, runs.image, error)
            return None
        except StoreError:  # what a crash would forget, nobody may be led to
            self._fleet.withdraw(rousing)
            self._end(rousing)
            raise
        self._failures.pop((runs.image, rousing.host, rung), None)
        took_s = time.monotonic() - (trace.at("decided") or trace.zero)
        self._costs.note(runs.version, rousing.host, trace.rung, took_s)
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
        found = list(self._spares(host))
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
            if self._wanted(service.name):  # its wake has no thread yet
                worth = math.inf
            found.append(Victim(instance.name, memory_mib, worth))
        return found

    def without_memory(self, instance: Instance, service: Service) -> Rung | None:
        """Return the next rung down that holds no memory; None if the policy allows none."""
        if instance.rung not in {Rung.READY, Rung.PAUSED}:
            return None
        return below(Rung.PAUSED, service.idle, self.prospects(service, instance.host))

    def _sink(self, name: str, host: str) -> bool:
        """Take one instance down for want of memory; False if somebody is busy with it."""
        instance, why = self._fleet.get(name), f"its memory on {host} was needed"
        if instance is not None and is_spare(instance.service):
            return self._give_up(instance, why)
        service = self._fleet.service(instance.service) if instance else None
        if instance is None or service is None:
            return True
        with if_free(self._locks[service.name]) as free:
            if not free or self._fleet.get(name) is not instance:
                return False
            if instance.state is InstanceState.READY:
                return self._spare(service) and self._put_down(service, why)
            rung = self.without_memory(instance, service)
            reached = rung and self.lower(instance, service, rung)
            if reached is None:
                return False
            self._journal.record("made-room", service.name, f"{name} is {reached}: {why}")
            return True


@contextmanager
def if_free(lock: threading.Lock) -> Iterator[bool]:
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

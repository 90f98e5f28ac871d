"""Keeps anonymous instances, booted before anybody asks, and makes one a service's when it wakes.

How many rest on each host is the warm plan's affair (`orchestrator.warming`); which services they
are good for, `orchestrator.recipes`'. They are filled up in the background, one boot at a time,
only while nobody waits for a wake, and only with memory that is free. One that is claimed keeps its
name, MAC and addresses. Until the service's answer is stored, our record calls it anonymous: what a
crash leaves half claimed rests on, or is ended by the settler, and nobody was told of it.
"""

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import count

from images.families import AddressBy
from orchestrator.background import Background
from orchestrator.boot import Boots
from orchestrator.errors import EdgewakeError, HostUnreachable, NoCapacity
from orchestrator.failures import Failures
from orchestrator.fleet import Fleet
from orchestrator.frames import WatchGuest
from orchestrator.journal import Journal
from orchestrator.ladder import Rates, Victim
from orchestrator.library import Fit
from orchestrator.model import ASLEEP, Instance, InstanceState, Rung, Service
from orchestrator.recipes import is_made_of, is_spare, recipe_in, recipe_of, slot, spare_name
from orchestrator.sleeping import Sleeper, if_free
from orchestrator.trace import WakeTrace
from placement.warm import POOLED, WarmTarget
from placement.warm.formulas import value

SHORT_OF_MEMORY_S = 60.0  # after one had to give its memory back, none is booted there for so long

Pool = tuple[str, str]  # a recipe and a host


@dataclass(frozen=True, slots=True)
class _Making:
    """What a host would boot by a recipe, and the digest of that."""

    fit: Fit
    recipe: str
    digest: str

    def makes(self, spare: Instance) -> bool:
        """Return whether an anonymous instance is just that."""
        return is_made_of(spare.service, self.recipe, self.digest)


class Spares:
    """The anonymous instances of all hosts. Safe to use from many threads.

    `end` ends an instance and says whether it is gone, `end_later` off the caller's path; `busy`
    says whether anybody waits for a wake; `lose` is told of hosts that cannot be reached; `watch`
    has the packets of a guest looked at.
    """

    def __init__(
        self,
        fleet: Fleet,
        boots: Boots,
        sleeper: Sleeper,
        journal: Journal,
        *,
        locks: Mapping[str, threading.Lock],
        rates: Rates,
        end: Callable[[Instance], bool],
        end_later: Callable[[Instance, str], None],
        busy: Callable[[], bool],
        lose: Callable[[str, str], None],
        watch: WatchGuest,
        background: Background,
    ) -> None:
        self._fleet = fleet
        self._boots = boots
        self._sleeper = sleeper
        self._journal = journal
        self._locks = locks
        self._rates = rates
        self._end = end
        self._end_later = end_later
        self._busy = busy
        self._lose = lose
        self._watch = watch
        self._background = background
        self._wanted: dict[Pool, int] | None = None  # None: nobody has said anything yet
        self._failures: Failures[Pool] = Failures()
        self._short_until: dict[str, float] = {}
        self._told: dict[Pool, str] = {}
        self._filling = threading.Lock()

    # --- how many -----------------------------------------------------------------------------

    def aim(self, targets: Sequence[WarmTarget]) -> None:
        """Take note of how many anonymous instances each host is to keep; `tend` sees to it.

        Targets that are not anonymous are others' affair. Before the first call, those that an
        earlier run left are kept.
        """
        self._wanted = {
            (target.name, target.host): target.count for target in targets if target.anonymous
        }

    def on(self, host: str) -> int:
        """Return how many anonymous instances rest on a host."""
        return sum(each.host == host for each in self._resting())

    def tend(self) -> None:
        """End what is not wanted any more, and begin to boot what is missing. Does not wait."""
        made_of = self._made_of()
        for spare, why in self._surplus(made_of):
            self._end_later(spare, why)
        if not self._filling.locked() and self._next(made_of):
            self._background.do(self._fill_up, made_of)

    def _made_of(self) -> dict[Pool, _Making]:
        """Return what each host would boot by each recipe that is wanted, or there, now."""
        names = {recipe for recipe, _ in self._wanted or {}}
        names |= {recipe_in(each.service) for each in self._fleet.spares()}
        return {
            (recipe.name, host): _Making(fit, recipe.name, digest)
            for recipe in self._fleet.recipes()
            if recipe.name in names
            for host, fit in self._boots.fits(recipe).items()
            if isinstance(fit, Fit) and (digest := self._boots.digest(fit))
        }

    def _surplus(self, made_of: Mapping[Pool, _Making]) -> Iterator[tuple[Instance, str]]:
        """Say which are to end, and why. Those that are being booted are left to who does so."""
        kept: Counter[Pool] = Counter()
        closed, draining = self._fleet.closed(), self._fleet.draining()
        for spare in self._fleet.spares():
            pool = recipe_in(spare.service), spare.host
            if spare.host in closed and spare.host not in draining:
                continue  # it cannot be ended there now
            if self._locks[spare.service].locked() or spare.state is InstanceState.STOPPING:
                continue
            if spare.host in draining:
                yield spare, "its host is being drained"
            elif spare.state is not InstanceState.PAUSED:
                yield spare, "it was interrupted before it rested"
            elif pool not in made_of or not made_of[pool].makes(spare):
                yield spare, "it was booted from what is not booted any more"
            elif self._wanted is not None and kept[pool] >= self._wanted.get(pool, 0):
                yield spare, "no anonymous instance is wanted there any more"
            else:
                kept[pool] += 1

    # --- boots --------------------------------------------------------------------------------

    def _next(self, made_of: Mapping[Pool, _Making]) -> Pool | None:
        """Return where the next one is to be booted; None if nowhere, or not now."""
        if self._busy() or self._boots.closing:
            return None
        have = Counter((recipe_in(each.service), each.host) for each in self._fleet.spares())
        closed, now = self._fleet.closed(), time.monotonic()
        for pool, wanted in (self._wanted or {}).items():
            ready = pool[1] not in closed and self._short_until.get(pool[1], 0.0) <= now
            row = self._failures.row(pool)
            if ready and have[pool] < wanted and pool in made_of and row.retry_at <= now:
                return pool
        return None

    def _fill_up(self, made_of: Mapping[Pool, _Making]) -> None:
        """Boot what is missing, one after the other, as long as nobody waits for a wake."""
        with if_free(self._filling) as mine:
            while mine and (pool := self._next(made_of)):
                try:
                    self._fill(pool[1], made_of[pool])
                except EdgewakeError as error:
                    self._failed(pool, error)
                    return
                self._failures.forget(pool)
                self._told.pop(pool, None)

    def _failed(self, pool: Pool, error: EdgewakeError) -> None:
        """Note that there was no room, or a boot failed; what lasts is told, once."""
        why = error.message
        if is_spare(why):
            why = why.partition(": ")[2]  # nobody knows it by that name
        row = self._failures.failed(pool, why, time.monotonic())
        if row.count > 1 and self._told.get(pool) != row.why and not self._boots.closing:
            self._told[pool] = row.why
            text = f"no anonymous instance is booted on {pool[1]}: {row.why}"
            self._journal.record("not-pooled", pool[0], text, host=pool[1])

    def _fill(self, host: str, making: _Making) -> None:
        """Boot one and let it rest. Raises `EdgewakeError`; then nothing is left."""
        name, fit = self._free_slot(making), making.fit
        kind = self._fleet.nobodys(name)
        if kind is None:
            raise EdgewakeError(f"the lab has no recipe {making.recipe} any more")
        self._check(kind, host, fit)
        with self._locks[name]:
            instance = self._fleet.reserve_spare(name, host)
            until = time.monotonic() + kind.deadline_s
            ready = self._boots.boot(instance, kind, lambda: until, lambda _stage: None, fit)
            self._fleet.put(ready)
            rung = self._sleeper.lower(ready, kind, Rung.PAUSED)
        if rung is not Rung.PAUSED:
            if rung is None:
                self._end_later(ready, "it could not rest")
            raise EdgewakeError("it could not rest paused")

    def _check(self, kind: Service, host: str, fit: Fit) -> None:
        """Raise `EdgewakeError` if there can be none of a kind on a host."""
        platform = self._boots.places()[host].traits.platform
        if fit.known.family.traits.address.get(platform) is AddressBy.FIXED:
            raise EdgewakeError("its address is fixed in the image, and so the same for each")
        if why := self._sleeper.prospects(kind, host).why_not(Rung.PAUSED, kind.idle):
            raise EdgewakeError(f"it would not rest there: {why}")

    def _free_slot(self, making: _Making) -> str:
        names = (slot(making.recipe, making.digest, number) for number in count())
        lab = self._fleet.lab.name
        return next(name for name in names if self._fleet.get(spare_name(lab, name)) is None)

    # --- claims -------------------------------------------------------------------------------

    def claim(
        self, service: Service, population: str, trace: WakeTrace, deadline: float
    ) -> Instance | None:
        """Make an anonymous instance one of a service; return it READY and stored, to be announced.

        Returns None if there is none that suits it, if it may be wanted at the address that it had,
        and if the one that was claimed did not answer. The caller holds the service's lock. Raises
        `StoreError`; the one that was claimed is being ended then.
        """
        makings = self._makings(service)
        some = [
            each
            for each in self._resting()
            if each.host in makings and makings[each.host].makes(each)
        ]
        for spare in self._fleet.suited(service.name, population, some):
            trace.stamp("decided")
            if claimed := self._take(spare, service):
                trace.stamp("claimed")
                trace.instance, trace.host, trace.rung = spare.name, spare.host, POOLED
                trace.decided_by = "an anonymous instance rested there"
                self._watch(self._fleet.lab.host(spare.host).network, claimed, trace)
                if not self._mark(claimed, spare, service, makings[spare.host].fit):
                    return None
                put_back = partial(self._fleet.unclaim, claimed, spare)
                return self._sleeper.bring_back(
                    claimed, service, trace, deadline, put_back=put_back
                )
        return None

    def _makings(self, service: Service) -> dict[str, "_Making"]:
        """Return what each host would boot for a service now, if any instance may be that."""
        recipes = self._fleet.recipes_of(service.name)
        hosts = {e.host for e in self._fleet.spares() if recipe_in(e.service) in recipes}
        if not hosts:
            return {}
        lab = self._fleet.lab
        return {
            host: _Making(fit, recipe_of(lab, service, fit.image.name), digest)
            for host, fit in self._boots.fits(service).items()
            if host in hosts and isinstance(fit, Fit) and (digest := self._boots.digest(fit))
        }

    def _take(self, spare: Instance, service: Service) -> Instance | None:
        """Hold an anonymous instance for a service; None if somebody else was faster."""
        with if_free(self._locks[spare.service]) as free:  # who ends it holds the lock
            try:
                return self._fleet.claim(spare, service.name) if free else None
            except NoCapacity:
                return None

    def _mark(self, claimed: Instance, spare: Instance, service: Service, fit: Fit) -> bool:
        """Mark a guest as a service's; say whether that was done. Else it is anonymous again."""
        try:
            mark = self._boots.guest(claimed, service, claimed.host, fit).mark
            self._boots.hosts[claimed.host].hypervisor.claim(claimed.name, mark)
        except HostUnreachable as error:
            self._fleet.unclaim(claimed, spare)
            self._lose(error.host, error.message)
        except EdgewakeError as error:
            self._fleet.unclaim(claimed, spare)
            self._end_later(spare, f"it could not become one of {service.name}: {error}")
        else:
            return True
        return False

    # --- room ---------------------------------------------------------------------------------

    def victims(self, host: str) -> list[Victim]:
        """Return the anonymous instances on a host that could give memory back.

        Those of a recipe share the uses of the services that could claim one.
        """
        resting = self._resting()
        there = [each for each in resting if each.host == host]
        if not there:
            return []
        kept = Counter(recipe_in(each.service) for each in resting)
        rates = self._rates_by_recipe()
        found = []
        for spare in there:
            kind, recipe = self._fleet.nobodys(spare.service), recipe_in(spare.service)
            if self._locks[spare.service].locked():
                continue
            saves_s = self._sleeper.claim_saves_s(kind, host) if kind else 0.0
            memory_mib = self._fleet.held(spare.name, host).memory_mib
            worth = value(saves_s, rates.get(recipe, 0.0) / kept[recipe], memory_mib)
            found.append(Victim(spare.name, memory_mib, worth, anonymous=True))
        return found

    def _rates_by_recipe(self) -> dict[str, float]:
        """Return the uses per second of the services that could claim one of a recipe now."""
        rates: dict[str, float] = {}
        now = time.monotonic()
        for service in self._fleet.lab.services:
            recipes = self._fleet.recipes_of(service.name)
            if recipes and not self._fleet.of(service.name) and not self._fleet.returns(service):
                for recipe in recipes:
                    rates[recipe] = rates.get(recipe, 0.0) + self._rates.of(service.name, now)
        return rates

    def give_up(self, spare: Instance, why: str) -> bool:
        """End an anonymous instance for want of memory; False if somebody was faster."""
        with if_free(self._locks[spare.service]) as free:
            if not free or self._fleet.get(spare.name) is not spare:
                return False
            self._short_until[spare.host] = time.monotonic() + SHORT_OF_MEMORY_S
            gone = self._end(spare)
        if gone:
            self._journal.record("made-room", recipe_in(spare.service), f"{spare.name}: {why}")
        return gone

    # --- inside -------------------------------------------------------------------------------

    def _resting(self) -> list[Instance]:
        return [each for each in self._fleet.spares() if each.state in ASLEEP]

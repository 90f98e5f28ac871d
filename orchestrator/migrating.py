"""Migrates an instance to another host as it runs, and finds out what became of one cut off.

Whether it can be is `obstacle`, a pure decision; `Migrator` does it. The destination is stored
before a hypervisor is asked for anything, and the instance is MIGRATING until its guest has
answered there, so that after a crash at any instant both hosts are asked
(`orchestrator.reconcile.outcome`). It keeps its name and its addresses, and clients are led to it
all the while. A guest that does not answer at its destination is sent back.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from logging import getLogger

from images.bootspec import Platform
from orchestrator.boot import Boots
from orchestrator.errors import (
    EdgewakeError,
    HypervisorError,
    ImageUnusable,
    StoreError,
)
from orchestrator.fleet import Fleet
from orchestrator.hypervisors.base import Hypervisor, Sent
from orchestrator.journal import Journal
from orchestrator.library import Fit, Place
from orchestrator.model import GuestState, Instance, InstanceState, Service, apart
from orchestrator.reconcile import Outcome, Seen, outcome
from orchestrator.store.base import Store

log = getLogger(__name__)

_STAY = {
    Platform.SPT: "solo5-spt has no live migration",
    Platform.NETNS: "a process has no live migration",
}


@dataclass(frozen=True, slots=True)
class Migrated:
    """How an attempt ended: `why` is empty if the instance answers at its destination.

    `instance` is what it is now; None if it is gone, or its hosts do not tell where it is.
    `called_off`: it is not wanted any more.
    """

    instance: Instance | None
    why: str = ""
    called_off: bool = False


def obstacle(here: Place, there: Place, fits: Mapping[str, Fit | ImageUnusable]) -> str:
    """Return why a guest cannot go from one host to the other as it runs; empty if it may try.

    `fits` says for both hosts which image they boot for its service.
    """
    ours, theirs = fits.get(here.host.name), fits.get(there.host.name)
    if why := _rooted(here, ours) or _unlike(here, there) or apart(here.host, there.host):
        return why
    if not isinstance(theirs, Fit):
        return theirs.message if theirs else "it has not been opened"
    if ours != theirs:
        return "it would boot another image there"
    return ""


def _rooted(here: Place, fit: Fit | ImageUnusable | None) -> str:
    """Return why a guest can leave its host for none; empty if it may."""
    if here.traits.platform in _STAY:
        return _STAY[here.traits.platform]
    if not isinstance(fit, Fit):
        return fit.message if fit else "its host has not been opened"
    if any(not disk.read_only for disk in fit.image.disks):
        return "what it writes to its disk stays on its host"
    return fit.known.family.traits.no_migration.get(here.traits.platform, "")


def _unlike(here: Place, there: Place) -> str:
    """Return why what runs on one host cannot run on the other; empty if it may."""
    if here.traits.platform is not there.traits.platform:
        return f"guests run by {there.traits.platform} there, and by {here.traits.platform} here"
    if here.traits.architecture is not there.traits.architecture:
        return (
            f"its processors are {there.traits.architecture} there, and "
            f"{here.traits.architecture} here"
        )
    if here.traits.kvm is not there.traits.kvm:
        return "guests run by KVM on one of the two, and in software on the other"
    return ""


class Migrator:
    """Migrates instances, and remembers how far each migration is.

    Whoever calls `migrate` or `resolve` holds the service's lock. `steer` tells all steering.
    """

    def __init__(
        self,
        fleet: Fleet,
        store: Store,
        boots: Boots,
        journal: Journal,
        *,
        steer: Callable[[], None],
    ) -> None:
        self._fleet = fleet
        self._store = store
        self._boots = boots
        self._journal = journal
        self._steer = steer
        self._sent: dict[str, Sent] = {}

    def sent(self, instance: str) -> Sent:
        """Return how far the migration of an instance is."""
        return self._sent.get(instance, Sent())

    def obstacle(self, instance: Instance, service: Service, host: str) -> str:
        """Return why an instance cannot go to a host as it runs; empty if it may try."""
        try:
            return self._obstacles(instance, service).get(host, "")
        except EdgewakeError as error:
            return error.message

    def migrate(
        self, instance: Instance, service: Service, wanted: Callable[[], bool], only: str = ""
    ) -> Migrated:
        """Migrate a ready instance to the best host that can take it, or to the `only` one.

        It is called off when `wanted` says no; the guest then stays, unless it is too late.
        """
        try:
            moving = self._reserve(instance, service, only)
        except EdgewakeError as error:
            return self._failed(instance, error.message, instance)
        try:
            why = self._send(moving, service, wanted)
        except StoreError as error:  # nothing was asked of a host
            self._fleet.put(instance)
            return self._failed(instance, error.message, instance)
        if not why:
            return self._arrived(moving, service)
        present = self.resolve(moving)
        if present is not None and present.host == moving.to:
            return self._done(present)
        failed = self._failed(moving, why, present)
        return replace(failed, called_off=not wanted() or bool(self._boots.closing))

    def resolve(self, moving: Instance) -> Instance | None:
        """Find out where an instance is whose migration was cut off, and leave one guest of it.

        Returns it, ready; None if its hosts do not tell, or do not do as they are told, or if its
        guest is on neither: in that case nobody is led to it, and it ends at the next look at its
        host.
        """
        name = moving.name
        of_lab = {host.name for host in self._fleet.lab.hosts}
        if of_lab & set(moving.hosts) - self._boots.hosts.keys():
            return None  # one of them is just being opened
        here, there = self._seen(moving.host, name), self._seen(moving.to, name)
        verdict = outcome(here, there)
        if verdict is Outcome.OPEN:
            if Seen.RUNS in {here, there} and self._fleet.hidden(name):
                self._fleet.restore(moving)
                self._steer()
            return None
        try:
            if verdict is Outcome.ARRIVED:
                self._leave_one(name, moving.to, there, moving.host)
            elif verdict is Outcome.STAYED:
                self._leave_one(name, moving.host, here, "" if there is Seen.UNKNOWN else moving.to)
        except HypervisorError as error:
            log.warning("%s was being migrated: %s; it is looked at again", name, error)
            return None
        if verdict is Outcome.ARRIVED:
            return self._settled(moving.arrived())
        stayed = self._settled(moving.step(InstanceState.READY))
        if verdict is Outcome.STAYED:
            return stayed
        if self._fleet.withdraw(stayed):
            self._steer()
        return None

    def runs(self, moving: Instance) -> bool:
        """Return whether a host that is not lost says that the guest runs there."""
        reached = set(moving.hosts) - self._fleet.lost().keys()
        return any(self._seen(host, moving.name) is Seen.RUNS for host in reached)

    # --- before -----------------------------------------------------------------------------

    def _reserve(self, instance: Instance, service: Service, only: str) -> Instance:
        """Choose the destination and hold what is needed there; raises EdgewakeError."""
        lost = self._fleet.lost()
        if instance.host in lost:
            raise EdgewakeError(f"{instance.host} cannot be reached: {lost[instance.host]}")
        reasons = self._obstacles(instance, service)
        others = {host.name for host in self._fleet.lab.hosts} - {instance.host}
        if only:
            unwanted = dict.fromkeys(others - {only}, f"{only} is to take it")
            reasons = unwanted | {only: reasons[only]} if only in reasons else unwanted
        if others <= reasons.keys():
            told = "; ".join(f"{host}: {why}" for host, why in sorted(reasons.items()))
            raise EdgewakeError(told or "there is no other host")
        return self._fleet.reserve_elsewhere(instance, reasons)

    def _obstacles(self, instance: Instance, service: Service) -> dict[str, str]:
        places, fits = self._boots.places(), self._boots.fits(service)
        here = places.get(instance.host)
        if here is None:
            raise EdgewakeError(f"{instance.host} is not in the lab")
        found = {
            name: obstacle(here, there, fits)
            for name, there in places.items()
            if name != instance.host
        }
        return {name: why for name, why in found.items() if why}

    # --- the migration ----------------------------------------------------------------------

    def _send(self, moving: Instance, service: Service, wanted: Callable[[], bool]) -> str:
        """Store where an instance is going and have it sent; return why that failed, or nothing.

        Raises `StoreError` before anything was done.
        """
        name = moving.name

        def tell(sent: Sent) -> bool:
            self._sent[name] = sent
            return wanted() and not self._boots.closing

        self._store.save(moving)
        self._fleet.put(moving)
        self._journal.record(
            "migrating", service.name, f"{name} from {moving.host} to {moving.to}", host=moving.host
        )
        try:
            guest = self._boots.guest(moving, service, moving.to)
            self._hypervisor(moving.host).migrate(guest, self._hypervisor(moving.to), tell)
        except EdgewakeError as error:
            return str(error)
        finally:
            self._sent.pop(name, None)
        return ""

    def _arrived(self, moving: Instance, service: Service) -> Migrated:
        """See whether a guest answers where it is now, and send it back if it does not."""
        if self._boots.answers(moving.arrived(), service, service.deadline_s, moved=True):
            return self._done(self._settled(moving.arrived()))
        if self._boots.closing:  # nobody has waited for its answer; the next start looks for it
            return Migrated(moving, self._boots.closing, called_off=True)
        silent = f"it did not answer on {moving.to} within {service.deadline_s:g} s of its arrival"
        back = moving.arrived().migrating(moving.host)
        if why := self._send(back, service, lambda: True):
            why = f"{silent}, and cannot go back: {why}"
            return self._failed(back, why, self.resolve(back))
        why = f"{silent}, so it was sent back"
        return self._failed(back, why, self._settled(back.arrived()))

    # --- after ------------------------------------------------------------------------------

    def _done(self, instance: Instance) -> Migrated:
        text = f"{instance.name} is on {instance.host}"
        self._journal.record("migrated", instance.service, text, host=instance.host)
        return Migrated(instance)

    def _failed(self, tried: Instance, why: str, present: Instance | None) -> Migrated:
        self._journal.record("not-migrated", tried.service, f"{tried.name}: {why}")
        return Migrated(present, why)

    def _settled(self, ready: Instance) -> Instance:
        """Keep an instance as ready where it is now, and return it."""
        self._store.save(ready)
        self._fleet.put(ready)
        self._steer()
        return ready

    def _seen(self, host: str, instance: str) -> Seen:
        try:
            running = self._hypervisor(host).running()
        except EdgewakeError:
            return Seen.UNKNOWN
        states = [guest.state for guest in running if guest.mark.instance == instance]
        if not states:
            return Seen.GONE
        return Seen.RUNS if states[0] is GuestState.RUNNING else Seen.RESTS

    def _leave_one(self, instance: str, host: str, seen: Seen, other: str) -> None:
        """End what is left on the other host, if one is named, and let the guest here run."""
        if other:
            self._hypervisor(other).stop(instance)
        if seen is Seen.RESTS:
            self._hypervisor(host).rouse(instance)

    def _hypervisor(self, host: str) -> Hypervisor:
        parts = self._boots.hosts.get(host)
        if parts is None:
            raise EdgewakeError(f"{host} is not in the lab")
        return parts.hypervisor

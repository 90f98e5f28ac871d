"""Brings one instance to life, or leaves nothing behind; and ends one, in the same care.

The order is what makes a crash harmless: the intent is stored before the hypervisor is asked for
anything, and an instance is forgotten only after its guest is gone. Each step registers its own
undo, so a failure anywhere takes back exactly what was done.
"""

import threading
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from logging import getLogger
from pathlib import Path
from typing import Protocol

from images.bootspec import HostTraits
from images.errors import ImageError
from orchestrator import console_pattern
from orchestrator.errors import (
    EdgewakeError,
    GuestDied,
    HypervisorError,
    ImageUnusable,
    NotReady,
    WakeError,
)
from orchestrator.flavours import Flavours
from orchestrator.fleet import Fleet
from orchestrator.guards.base import OpenGuard
from orchestrator.hypervisors.base import Hypervisor, Stamp
from orchestrator.library import Fit, Library, Place
from orchestrator.model import Guest, Instance, InstanceState, Lab, Probe, Service
from orchestrator.readiness import Cancelled, NotAnswering, Target
from orchestrator.store.base import Store

log = getLogger(__name__)


class Wait(Protocol):
    """Waits until an instance truly answers; `orchestrator.readiness.wait` is one."""

    def __call__(
        self,
        probe: Probe,
        target: Target,
        *,
        deadline: float,
        cancelled: Callable[[], str | None],
    ) -> None:
        """Return at the first true answer; raise `NotAnswering` or `Cancelled`."""
        ...


KeepFiles = Callable[[Collection[Path]], object]


def _sent_nothing(_files: Collection[Path]) -> None:
    """Stand for a host that boots from this machine's own files."""


@dataclass(frozen=True, slots=True)
class HostParts:
    """What control needs to work with one host.

    Who runs its guests, how to wait for them, what it can start, and a way to tell it which files
    of images it may be asked to boot, so that it can remove others that were sent there. `guard`
    opens what notices traffic to its guests that sleep; None where there are no packets at all.
    """

    hypervisor: Hypervisor
    wait: Wait
    traits: HostTraits
    keep: KeepFiles = _sent_nothing
    guard: OpenGuard | None = None


class Boots:
    """Boots and stops instances. Holds no lock while it talks to a host."""

    def __init__(
        self,
        owner: str,
        store: Store,
        fleet: Fleet,
        library: Library,
        *,
        end_later: Callable[[Instance], None],
        device: Callable[[str], str] = lambda _host: "",
    ) -> None:
        self.owner = owner
        self.device = device  # by which a host's guests are probed, if not as the routes say
        self.library = library
        self._end_later = end_later
        self.hosts: dict[str, HostParts] = {}
        self._store = store
        self._fleet = fleet
        self._deaths: dict[str, str] = {}
        self._end_patterns: dict[str, str] = {}
        self.flavours = Flavours(fleet, library, self.places)
        self._booted: dict[str, Fit] = {}  # in this run, by instance
        self._versions: dict[str, str] = {}  # of these, as they were then
        self._waiting: dict[str, float] = {}
        self.closing = ""  # why nobody waits for anything any more
        self._lock = threading.Lock()

    def boot(
        self,
        instance: Instance,
        service: Service,
        until: Callable[[], float],
        stamp: Stamp,
        fit: Fit | None = None,
    ) -> Instance:
        """Boot a reserved instance and return it READY and stored.

        It boots `fit`, or else what its host boots first. `until` tells how long its answer is
        waited for (monotonic seconds), and is asked while the guest boots already. Raises
        `WakeError` (`ImageUnusable`, `NotReady`, `GuestDied`) or `HypervisorError`; then nothing is
        left: no guest, no record, no reservation. A guest that had been started is hidden and ended
        a moment later, off the caller's path: ending one can take a second, and somebody waits for
        the bad news or for the next host.
        """
        with ExitStack() as undo:
            undo.callback(self._fleet.drop, instance, rest_s=0.0)
            parts = self._parts(instance)
            version = self.flavours.version(fit) if fit else ""
            guest = self.guest(instance, service, instance.host, fit)
            instance = replace(instance, address6=guest.mark.address6)
            self._end_patterns[instance.name] = guest.boot.end_pattern
            self.library.hold(guest)
            undo.callback(self.library.release, instance.name)
            self._fleet.put(instance)
            self._store.save(instance)
            undo.pop_all()  # from here on there is more to take back, and it may not succeed
            undo.callback(self._abandon, instance)
            stamp("intent")
            log.debug("%s is stored, and about to be started", instance.name)
            parts.hypervisor.start(guest, stamp)
            undo.pop_all()
        ready = self.finish(instance, service, until(), stamp)
        if fit is not None:
            self._booted[instance.name], self._versions[instance.name] = fit, version
        return ready

    def guest(
        self, instance: Instance, service: Service, host: str, fit: Fit | None = None
    ) -> Guest:
        """Return what a host would be asked to start for an instance, by `fit` if that is given.

        Raises `ImageUnusable`, or EdgewakeError if the lab has no such host.
        """
        there = replace(instance, host=host)
        place = Place(self._fleet.lab.host(host), self._parts(there).traits)
        fit = fit or next(iter(self.flavours.of(service, host)), None)
        return self.library.guest(self._fleet.lab, service, there, place, self.owner, fit=fit)

    def booted(self, instance: Instance) -> Fit | None:
        """Return what an instance was booted from; None if that was not in this run."""
        return self._booted.get(instance.name)

    def outdated(self, instance: Instance, service: Service) -> bool:
        """Return whether the files that an instance was booted from were written anew since.

        Of one that an earlier run booted, what its host boots first now is looked at.
        """
        fit = self._booted.get(instance.name)
        known = fit or next(iter(self.flavours.of(service, instance.host)), None)
        try:
            written_at = self.flavours.written_at(known) if known else 0.0
        except (OSError, ImageError):  # it could not be booted anew
            return False
        if fit is None:
            return written_at > instance.created_at
        return self.flavours.version(fit) != self._versions[instance.name]

    def finish(
        self, instance: Instance, service: Service, deadline: float, stamp: Stamp = lambda _: None
    ) -> Instance:
        """Bring a guest that was started, now or by an earlier run, to READY, or undo and raise."""
        with ExitStack() as undo:
            undo.callback(self._leave, instance)
            ready = self._ready(instance, service, deadline, stamp)
            undo.pop_all()
        return ready

    def rouse(
        self, instance: Instance, service: Service, deadline: float, stamp: Stamp
    ) -> Instance:
        """Bring a guest that sleeps back and return it READY and stored.

        Raises as `boot` does; what is left of the guest is the caller's to end.
        """
        self._parts(instance).hypervisor.rouse(instance.name)
        stamp("roused")
        return self._ready(instance, service, deadline, stamp)

    def _ready(
        self, instance: Instance, service: Service, deadline: float, stamp: Stamp
    ) -> Instance:
        """Wait for the answer of a guest that runs; return it READY and stored."""
        with self._listening(instance):
            self._await_answer(instance, service, deadline)
        stamp("answer")
        log.debug("%s answers at %s", instance.name, instance.address)
        ready = instance.step(InstanceState.READY, ready_at=time.time())
        self._store.save(ready)
        return ready

    def _await_answer(
        self,
        instance: Instance,
        service: Service,
        deadline: float,
        *,
        moved: bool = False,
        given_up: Callable[[], str] = lambda: "",
    ) -> None:
        parts = self._parts(instance)
        target = Target(
            address=instance.address,
            address6=instance.address6,
            mac=instance.mac,
            console=lambda: parts.hypervisor.console(instance.name),
            watch_key=lambda key: parts.hypervisor.watch_key(instance.name, key),
            moved=moved,
            device=self.device(instance.host),
        )
        where, began = f"{instance.name} on {instance.host}", time.monotonic()
        hint = f"see 'edgewake logs {service.name}'"
        try:
            parts.wait(
                service.probe,
                target,
                deadline=deadline,
                cancelled=lambda: (
                    self._deaths.get(instance.name) or self.closing or given_up() or None
                ),
            )
        except NotAnswering as error:
            raise NotReady(
                service.name,
                f"{where} did not answer within {time.monotonic() - began:.1f} s: {error}",
                hint=f"{hint}, or raise the service's deadline",
            ) from error
        except Cancelled as error:
            if self.closing:
                raise NotReady(service.name, self.closing) from error
            raise GuestDied(
                service.name, f"{where} ended by itself before it answered: {error}", hint=hint
            ) from error

    @contextmanager
    def _listening(self, instance: Instance) -> Iterator[None]:
        """Have deaths of this instance noted; only its host's later words are about this guest."""
        with self._lock:
            self._waiting[instance.name] = time.monotonic()
        try:
            yield
        finally:
            with self._lock:
                self._waiting.pop(instance.name, None)
                self._deaths.pop(instance.name, None)

    def answers(
        self,
        instance: Instance,
        service: Service,
        patience_s: float,
        *,
        moved: bool = False,
        given_up: Callable[[], str] = lambda: "",
    ) -> bool:
        """Return whether a guest answers its probe now; waits so many seconds at most.

        `moved` says that it has just been migrated; `given_up` why it is not waited for any more.
        """
        until = time.monotonic() + patience_s
        try:
            self._await_answer(instance, service, until, moved=moved, given_up=given_up)
        except WakeError:
            return False
        return True

    def said_its_end(self, instance: Instance, service: Service) -> bool:
        """Return whether a guest whose domain goes on by nature has printed that it has ended.

        Only some families need it (`BootSpec.end_pattern`); for the others nothing is read.
        """
        pattern = self._end_patterns.get(instance.name)
        if pattern is None:
            pattern = self._end_patterns[instance.name] = self._end_pattern(instance, service)
        if not pattern:
            return False
        try:
            console = self._parts(instance).hypervisor.console(instance.name)
        except HypervisorError as error:  # it may be read next time, and says nothing till then
            log.debug("the console of %s cannot be read: %s", instance.name, error)
            return False
        return console_pattern.found(pattern, console)

    def _end_pattern(self, instance: Instance, service: Service) -> str:
        fits = self.flavours.of(service, instance.host)
        if not fits:
            return ""
        fit = self.booted(instance) or fits[0]
        return fit.image.end_pattern or fit.known.family.traits.end_pattern

    def note_death(self, instance: str, why: str, asked_at: float) -> None:
        """Tell whoever waits for this instance that its guest is gone.

        `asked_at` (monotonic) is when its host was asked: an answer from before the wait began may
        be about an earlier guest of the same name.
        """
        with self._lock:
            if self._waiting.get(instance, asked_at) < asked_at:
                self._deaths[instance] = why

    def waiting_for(self, instance: str) -> bool:
        """Return whether a readiness probe of this instance is open now."""
        with self._lock:
            return instance in self._waiting

    def stop(self, instance: Instance, *, rest_s: float) -> None:
        """End an instance: its guest first, then our record of it; then its address rests.

        Raises `HypervisorError` if a host where it may be cannot be reached; the others have ended
        it then. The instance stays STOPPING, holds what it held, and is stopped when that host is
        back.
        """
        if instance.state is not InstanceState.STOPPING:
            instance = instance.step(InstanceState.STOPPING)
            self._fleet.put(instance)  # first: should the save fail, the next sweep tries again
            self._store.save(instance)
        failed: list[HypervisorError] = []
        for host in instance.hosts:
            if host == instance.host or host in self.hosts:
                try:
                    self._parts(replace(instance, host=host)).hypervisor.stop(instance.name)
                except HypervisorError as error:  # its guest may well be on the other host
                    failed.append(error)
        if failed:
            raise failed[0]
        self.forget(instance, rest_s=rest_s)

    def forget(self, instance: Instance, *, rest_s: float) -> None:
        """Remove every record of an instance whose guest is known to be gone.

        Its address rests for so many seconds from now.
        """
        rest_s = self._fleet.rests_s(instance, rest_s)
        self._end_patterns.pop(instance.name, None)
        self._booted.pop(instance.name, None)
        self._versions.pop(instance.name, None)
        self.library.release(instance.name)
        self._store.remove(instance, rest_until=time.time() + rest_s)
        self._fleet.drop(instance, rest_s=rest_s)

    def _leave(self, instance: Instance) -> None:
        """Lead nobody to a guest that did not make it, and have it ended."""
        self._fleet.withdraw(instance)
        self._end_later(instance)

    def _abandon(self, instance: Instance) -> None:
        """Undo a start that failed. If no answer named its address, that need not rest."""
        try:
            self.stop(instance, rest_s=0.0)
        except HypervisorError as error:
            log.info("%s stays to be ended when its host can: %s", instance.name, error)

    def unfit(self, service: Service) -> Mapping[str, str]:
        """Return the hosts that can run no image of a service, and why."""
        return self.library.unfit(self._fleet.lab, service, self.places())

    def fits(self, service: Service) -> Mapping[str, Fit | ImageUnusable]:
        """Return which image each host would boot for a service, or why it can run none."""
        return self.flavours.first(service)

    def keep_files(self, lab: Lab) -> None:
        """Tell every host which files a lab may boot, so that it can remove others that we sent.

        Files that a crash left held for a guest that never was are let go of, too.
        """
        stored = {instance.name for instance in self._store.load().instances}
        for instance in self.library.holders():
            if self._fleet.get(instance) is None and instance not in stored:
                self.library.release(instance)
        files = self.library.files(lab)
        for host, parts in self.hosts.copy().items():
            try:
                parts.keep(files)
            except HypervisorError as error:
                log.info("%s: files that were sent there were not looked through: %s", host, error)

    def fit_of(self, service: Service, host: str) -> Fit | None:
        """Return what a host runs or would boot for a service; None if nothing."""
        there = (each for each in self._fleet.of(service.name) if each.host == host)
        running = (fit for each in there if (fit := self.booted(each)))
        return next(running, None) or next(iter(self.flavours.of(service, host)), None)

    def fits_of(self, service: Service) -> dict[str, Fit]:
        """Return the same for every host where it is something; those of one kind at once."""
        fits = {host: fit for host, fit in self.fits(service).items() if isinstance(fit, Fit)}
        there = self._fleet.of(service.name)
        return fits | {each.host: fit for each in there if (fit := self.booted(each))}

    def digest(self, fit: Fit | None) -> str:
        """Return the digest of what is booted; empty if that is nothing, or is not there.

        Files that were not seen before are read, which can take seconds.
        """
        try:
            return self.library.digest(fit) if fit else ""
        except OSError:
            return ""

    def places(self) -> dict[str, Place]:
        """Return the hosts of the lab that were opened."""
        return {
            host.name: Place(host, parts.traits)
            for host in self._fleet.lab.hosts
            if (parts := self.hosts.get(host.name))
        }

    def _parts(self, instance: Instance) -> HostParts:
        try:
            return self.hosts[instance.host]
        except KeyError:
            raise EdgewakeError(
                f"{instance.name}: host {instance.host} is not in the lab"
            ) from None

"""What we remember against what runs, and an old lab against a new one. Pure decisions.

Used at start-up (after a crash at any instant), when a lost host comes back, and in every sweep.
The rules: what carries our mark is adopted or ended, never guessed about; what does not carry it
does not exist here.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

from orchestrator.changes import Change, Changes, Stop, Withdraw
from orchestrator.errors import UnsafeChanges
from orchestrator.model import (
    Host,
    Instance,
    InstanceState,
    Lab,
    Mark,
    RunningGuest,
    apart,
    mac_of,
)
from orchestrator.recipes import is_spare, recipe_in, recipes


class Named(Protocol):
    """Anything of a lab that has a name of its own."""

    @property
    def name(self) -> str:
        """Its name, the same in the old lab and the new one."""
        ...


@dataclass(frozen=True, slots=True)
class Keep:
    """It is ready and runs: nothing to do but to lead clients to it."""

    instance: Instance


@dataclass(frozen=True, slots=True)
class Finish:
    """It was being booted when we were interrupted, and runs: wait for its answer."""

    instance: Instance


@dataclass(frozen=True, slots=True)
class End:
    """It is gone, or should be: make sure no guest is left, then forget it."""

    instance: Instance
    why: str


@dataclass(frozen=True, slots=True)
class Adopt:
    """It carries our mark and runs, but our record of it was lost."""

    instance: Instance


@dataclass(frozen=True, slots=True)
class Rest:
    """It sleeps, at this rung: whoever wakes its service finds it there."""

    instance: Instance
    state: InstanceState


@dataclass(frozen=True, slots=True)
class Resolve:
    """It was being migrated when that was cut off: what both hosts say tells where it is."""

    instance: Instance


Settlement = Keep | Finish | End | Adopt | Rest | Resolve


class Seen(StrEnum):
    """What a host says of the guest of an instance that was being migrated."""

    RUNS = "runs"
    RESTS = "rests"  # it is there, but its processor does not run
    GONE = "gone"
    UNKNOWN = "unknown"  # the host cannot be asked


class Outcome(StrEnum):
    """How a migration that was cut off has ended."""

    ARRIVED = "arrived"
    STAYED = "stayed"
    LOST = "lost"  # no guest is left
    OPEN = "open"  # not to be told yet


def outcome(here: Seen, there: Seen) -> Outcome:
    """Return how a migration has ended, as the host that was left and the other one tell it.

    A hypervisor lets the guest run there only after it has paused it here, and here again only when
    what is there will never run. So whatever runs is the guest, and of two halves that do not, the
    one here is whole.
    """
    if here is Seen.RUNS and there is not Seen.RUNS:
        return Outcome.STAYED
    if Seen.UNKNOWN in {here, there}:
        return Outcome.OPEN
    if there is Seen.RUNS:
        return Outcome.ARRIVED
    if here is Seen.RESTS:
        return Outcome.STAYED
    return Outcome.ARRIVED if there is Seen.RESTS else Outcome.LOST


@dataclass(frozen=True, slots=True)
class Copy:
    """A ready instance beside others of its service.

    `led`: clients are led to it now. `draining`: its host is being drained.
    """

    instance: Instance
    led: bool
    draining: bool = False


def surplus(copies: Iterable[Copy], replicas: int) -> tuple[Instance, ...]:
    """Return which ready copies of a service are one too many, the least wanted last.

    Copies on hosts that are not being drained stay before those that are; then the copies that
    clients are led to now, before one that a lost host brought back; then the oldest. Copies that
    are not ready are none, so what is returned here never leaves a service without a copy.
    """
    ranked = sorted(
        copies,
        key=lambda copy: (
            copy.draining,
            not copy.led,
            copy.instance.ready_at or copy.instance.created_at,
            copy.instance.name,
        ),
    )
    return tuple(copy.instance for copy in ranked[max(1, replicas) :])


def settle(
    known: Iterable[Instance],
    running: Sequence[RunningGuest],
    asleep: Mapping[str, InstanceState],
) -> tuple[Settlement, ...]:
    """Decide what to do about each remembered instance of one host.

    `asleep` says of guests that sleep there, by instance, whether they are PAUSED or SAVED.
    """
    states = {**asleep, **{guest.mark.instance: InstanceState.READY for guest in running}}
    return tuple(
        _settle_one(instance, states.get(instance.name))
        for instance in known
        if instance.state is not InstanceState.ROUSING  # who rouses it will know
    )


def _settle_one(instance: Instance, found: InstanceState | None) -> Settlement:
    """Decide about one instance; `found` is READY for a guest that runs, None for none at all."""
    settlement: Settlement
    match instance.state, found:
        case InstanceState.MIGRATING, _:
            settlement = Resolve(instance)
        case InstanceState.STOPPING, _:
            settlement = End(instance, "it was interrupted while it was being stopped")
        case InstanceState.READY, InstanceState.READY:
            settlement = Keep(instance)
        case _, InstanceState.READY:
            settlement = Finish(instance)
        case InstanceState.BOOTING, _:
            settlement = End(instance, "it was interrupted while it was being booted")
        case _, InstanceState.PAUSED | InstanceState.SAVED:
            settlement = Rest(instance, found)
        case _:
            settlement = End(instance, "its guest does not run any more")
    return settlement


def orphan(
    mark: Mark, lab: Lab, host: Host, now: float, state: InstanceState = InstanceState.READY
) -> Adopt | End:
    """Decide what to do about a guest with our mark that we have no record of.

    It is adopted if the lab still has its service, and its address is in the pool of the host or of
    one that it may have been migrated from. `now` is wall-clock; `state` says whether it sleeps.
    """
    instance = Instance(
        name=mark.instance,
        service=mark.service,
        host=host.name,
        address=mark.address,
        address6=mark.address6,
        mac=mac_of(mark.address),
        state=state,
        created_at=now,
        ready_at=now,
    )
    if is_spare(mark.service):
        return End(instance, "it is an anonymous instance, and nobody knows of it")
    if mark.service not in {service.name for service in lab.services}:
        return End(instance, f"the lab has no service {mark.service}")
    homes = [each.network for each in lab.hosts if not apart(each, host)]
    if not any(home.first <= mark.address <= home.last for home in (host.network, *homes)):
        return End(instance, f"its address {mark.address} is not in the pool of {host.name}")
    return Adopt(instance)


def lab_changes(old: Lab, new: Lab, instances: Iterable[Instance]) -> Changes:
    """Return what must end so that the new lab can be used; raise `UnsafeChanges` if it cannot be.

    An instance ends when its service or host is gone, or changed in a way that a running guest
    cannot follow. It boots again, as newly described, when it is next asked for.
    """
    fixed = ("name", old.name, new.name), ("zone", old.dns.zone, new.dns.zone)
    settled = [f"{key} from {was} to {now}" for key, was, now in fixed if was != now]
    if settled or old.dns != new.dns:
        raise UnsafeChanges(
            f"{' and '.join(settled) or 'dns settings'} cannot change while edgewake runs",
            hint="stop 'edgewake up' and start it again with the new file",
        )
    changes: list[Change] = []
    for instance in instances:
        if ends(instance, old, new):
            changes += [
                Withdraw(instance.service, instance.name, instance.host),
                Stop(instance.service, instance.name, instance.host),
            ]
    return Changes(tuple(changes), why=difference(old, new))


def difference(old: Lab, new: Lab) -> str:
    """Return in a few words what differs between two labs: how many of what, added or gone."""
    kinds: tuple[tuple[str, tuple[Named, ...], tuple[Named, ...]], ...] = (
        ("host", old.hosts, new.hosts),
        ("router", old.routers, new.routers),
        ("client population", old.populations, new.populations),
        ("image", old.images, new.images),
        ("service", old.services, new.services),
    )
    told = []
    for noun, before, after in kinds:
        was, now = {each.name: each for each in before}, {each.name: each for each in after}
        counts = (
            ("added", len(now.keys() - was.keys())),
            ("removed", len(was.keys() - now.keys())),
            ("changed", sum(was[name] != now[name] for name in was.keys() & now.keys())),
        )
        told += [f"{n} {noun}{'s' if n > 1 else ''} {what}" for what, n in counts if n]
    if old.links != new.links:
        told.append("links changed")
    if old.network != new.network:
        told.append("network settings changed")
    return ", ".join(told) or "the lab is the same"


def changed_hosts(old: Lab, new: Lab) -> tuple[tuple[Host, ...], tuple[Host, ...]]:
    """Return the hosts to let go of and those to open: a changed host is in both."""
    return (
        tuple(host for host in old.hosts if host not in new.hosts),
        tuple(host for host in new.hosts if host not in old.hosts),
    )


def ends(instance: Instance, old: Lab, new: Lab) -> bool:
    """Return whether an instance cannot go on when the new lab is used."""
    after = {host.name: host for host in new.hosts}
    before_it = {host.name: host for host in old.hosts}
    if any(after.get(name) != before_it.get(name) for name in instance.hosts):
        return True
    if is_spare(instance.service):
        return recipe_in(instance.service) not in recipes(new)
    before = _guest_facts(old, instance.service)
    return before is None or before != _guest_facts(new, instance.service)


def _guest_facts(lab: Lab, service: str) -> tuple[object, ...] | None:
    """Return what a running guest cannot follow when it changes: images, arguments, size."""
    for known in lab.services:
        if known.name == service:
            images = [image for image in lab.images if image.name in known.images]
            size = (known.resources, known.cpu_cap)
            return (images, known.images, known.config, size, known.probe, known.on_crash)
    return None

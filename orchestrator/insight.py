"""What people want to know of hosts, services and instances beside their state; nothing is decided.

`Insight` reads what other parts know: what a host draws, what a service costs while it is warm and
what a wake of it costs from each rung, what an instance was booted from. It asks no hypervisor.
"""

import time
from dataclasses import dataclass

from orchestrator.boot import Boots
from orchestrator.errors import UnknownInstance
from orchestrator.fleet import Fleet
from orchestrator.ladder import Rates
from orchestrator.library import Fit
from orchestrator.model import LADDER, Capacity, Host, Instance, Rung, Service
from orchestrator.recipes import is_spare
from orchestrator.sleeping import Sleeper


@dataclass(frozen=True, slots=True)
class Power:
    """What a host draws in watts: now, as an estimate, idle, and with every core busy.

    The estimate is the planner's: in proportion to the cores that are promised to guests that run.
    """

    now_w: float
    idle_w: float
    busy_w: float


@dataclass(frozen=True, slots=True)
class WakeCost:
    """What a wake from a rung costs: seconds, `measured` or else guessed.

    `waiting` is the mean number of clients that wait, if the service always slept there.
    """

    rung: Rung
    wait_s: float
    measured: bool
    waiting: float


@dataclass(frozen=True, slots=True)
class Cost:
    """What a service costs on a host while it is awake, and what its wakes cost there.

    `takes` is what one instance takes of the host; `rate_s` how often it is used (1/s).
    """

    host: str
    takes: Capacity
    rate_s: float
    wakes: tuple[WakeCost, ...]


@dataclass(frozen=True, slots=True)
class InstanceInsight:
    """An instance, and what is known of it: `fit` is None if an earlier run booted it.

    `takes` is what it holds of its host; `spare`: it is anonymous, and waits for a service.
    """

    instance: Instance
    fit: Fit | None
    takes: Capacity
    spare: bool


class Insight:
    """Tells what the parts of one orchestrator know. Safe to use from many threads."""

    def __init__(self, fleet: Fleet, boots: Boots, sleeper: Sleeper, rates: Rates) -> None:
        self._fleet = fleet
        self._boots = boots
        self._sleeper = sleeper
        self._rates = rates

    def power(self, host: Host) -> Power | None:
        """Return what a host draws; None if the lab file does not say."""
        idle_w, busy_w = host.energy.idle_w, host.energy.busy_w
        if not busy_w and not idle_w:
            return None
        room = host.usable.cpu
        share = min(1.0, self._fleet.used(host.name).cpu / room) if room > 0 else 0.0
        return Power(idle_w + (busy_w - idle_w) * share, idle_w, busy_w)

    def cost(self, service: Service) -> Cost | None:
        """Return what a service costs where it is, or would be woken; None if that is nowhere."""
        host = self._place(service)
        if host is None:
            return None
        known = self._sleeper.prospects(service, host.name)
        rate_s = self._rates.of(service.name, time.monotonic())

        def cost(rung: Rung) -> WakeCost:
            ability = known.abilities.get(rung)
            measured = rung in known.costs or (ability is not None and ability.works)
            wait_s = known.cost(rung)
            return WakeCost(rung, wait_s, measured, rate_s * wait_s)

        wakes = tuple(cost(rung) for rung in LADDER[1:] if not known.why_not(rung, service.idle))
        return Cost(host.name, host.taken_by(service.resources), rate_s, wakes)

    def instances(self) -> tuple[InstanceInsight, ...]:
        """Return all instances by name, anonymous ones too."""
        known = sorted(self._fleet.instances(), key=lambda each: each.name)
        return tuple(self._insight(each) for each in known)

    def instance(self, name: str) -> InstanceInsight:
        """Return one instance; raises `UnknownInstance`."""
        instance = self._fleet.get(name)
        if instance is None:
            hint = "GET /instances lists those there are; it may have ended"
            raise UnknownInstance(f"{name}: no such instance", hint=hint)
        return self._insight(instance)

    def _insight(self, instance: Instance) -> InstanceInsight:
        return InstanceInsight(
            instance=instance,
            fit=self._boots.booted(instance),
            takes=self._fleet.held(instance.name, instance.host),
            spare=is_spare(instance.service),
        )

    def _place(self, service: Service) -> Host | None:
        hosts = {host.name: host for host in self._fleet.lab.hosts}
        here = [each.host for each in self._fleet.of(service.name)]
        best = self._fleet.ranking(service.name, "", self._boots.unfit(service)).hosts
        return next((hosts[name] for name in (*here, *best) if name in hosts), None)

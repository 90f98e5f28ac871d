"""What people want to see of hosts and services: their state at a glance, and why it is so.

Joins what the parts know, each one thing; it decides nothing, and asks no hypervisor but for the
console of a guest. What things cost is told by `insight`.
"""

import time
from collections.abc import Mapping

from orchestrator.boot import Boots
from orchestrator.drain import Drainer
from orchestrator.errors import ImageUnusable, UnknownClients
from orchestrator.expiring import Expirer
from orchestrator.fleet import Fleet
from orchestrator.hopeless import Hopeless
from orchestrator.library import Fit
from orchestrator.lookup import known_host, known_service
from orchestrator.model import ASLEEP, AWAKE, COMING, Host, Service
from orchestrator.scaler import Scaler
from orchestrator.spares import Spares
from orchestrator.trace import Wakes
from orchestrator.traffic import Traffic
from orchestrator.upkeep import Keeper
from orchestrator.views import Choice, HostStatus, ServiceStatus, Status
from orchestrator.waking import Waker
from orchestrator.warmer import Warmer
from placement.problem import Ranking


class Overview:
    """Tells what the parts of one orchestrator know. Safe to use from many threads."""

    def __init__(
        self,
        fleet: Fleet,
        boots: Boots,
        wakes: Wakes,
        *,
        waker: Waker,
        keeper: Keeper,
        expirer: Expirer,
        scaler: Scaler,
        hopeless: Hopeless,
        warmer: Warmer,
        drainer: Drainer,
        traffic: Traffic,
        spares: Spares,
    ) -> None:
        self._fleet = fleet
        self._boots = boots
        self._wakes = wakes
        self._waker = waker
        self._keeper = keeper
        self._expirer = expirer
        self._scaler = scaler
        self._hopeless = hopeless
        self._warmer = warmer
        self._drainer = drainer
        self._traffic = traffic
        self._spares = spares

    def status(self) -> Status:
        """Return everything at a glance; asks no host."""
        return Status(
            lab=self._fleet.lab.name,
            dns=f"{self._fleet.lab.dns.listen}:{self._fleet.lab.dns.port}",
            hosts=self.hosts(),
            services=tuple(self._service(service) for service in self._fleet.lab.services),
        )

    def hosts(self) -> tuple[HostStatus, ...]:
        """Return all hosts at a glance."""
        lost = self._fleet.lost()
        return tuple(self._host(host, lost) for host in self._fleet.lab.hosts)

    def host(self, name: str) -> HostStatus:
        """Return one host at a glance; raises `UnknownHost`."""
        return self._host(known_host(self._fleet, name), self._fleet.lost())

    def service(self, name: str) -> ServiceStatus:
        """Return one service at a glance; raises `UnknownService`."""
        return self._service(known_service(self._fleet, name))

    def choices(self, service: str, population: str = "") -> tuple[Choice, ...]:
        """Return for each host whether it would be chosen to wake a service now, best first.

        `population` is who asks (empty: nobody in particular). Raises `UnknownService`, or
        `UnknownClients` if the lab has no such population.
        """
        known = known_service(self._fleet, service)
        clients = [each.name for each in self._fleet.lab.populations]
        if population and population not in clients:
            told = ", ".join(clients) or "none"
            raise UnknownClients(f"{population}: no such clients", hint=f"the lab has: {told}")
        fits = self._boots.fits(known)
        ranking = self._fleet.ranking(service, population, self._boots.unfit(known))
        ranked = [*enumerate(ranking.hosts, 1), *((None, host) for host in sorted(ranking.reasons))]
        return tuple(self._choice(host, rank, population, fits, ranking) for rank, host in ranked)

    def console(self, service: str) -> bytes:
        """Return the last 64 KiB of the console of a service's instance, also of a past one."""
        known_service(self._fleet, service)
        where = [(instance.name, instance.host) for instance in self._fleet.of(service)]
        where += [(wake.instance, wake.host) for wake in reversed(self._wakes.last(service, 100))]
        for name, host in where:
            if parts := self._boots.hosts.get(host):
                return parts.hypervisor.console(name)
        return b""

    def _host(self, host: Host, lost: Mapping[str, str]) -> HostStatus:
        return HostStatus(
            host=host,
            used=self._fleet.used(host.name),
            free=self._fleet.free(host.name),
            lost=lost.get(host.name, ""),
            refused=self._fleet.refusal(host.name),
            drain=self._drainer.report(host.name),
            guard=self._traffic.told(host.name),
            spares=self._spares.on(host.name),
        )

    def _service(self, service: Service) -> ServiceStatus:
        instances = self._fleet.of(service.name)
        states = {instance.state for instance in instances}
        not_ended = tuple(
            f"{each.name} on {each.host} cannot be ended: {why}"
            for each in instances
            if (why := self._waker.not_ended(each))
        )
        losses = "; ".join(filter(None, (*not_ended, self._keeper.trouble(service.name))))
        if states & AWAKE:
            return ServiceStatus(
                service,
                "awake",
                instances,
                self._expirer.idle(service).reason,
                losses,
                wanted=self._fleet.wanted(service),
                has=len(self._fleet.serving(service.name)),
                scale=self._scaler.why(service.name),
            )
        losses = losses or self._hopeless.trouble(service.name)
        if states & COMING:
            return ServiceStatus(service, "waking", instances, trouble=losses)
        state = "asleep" if states <= ASLEEP else "stopping"
        trouble = losses or self._failed_wake(service.name)
        kept = any(self._warmer.kept(each) for each in instances)
        return ServiceStatus(service, state, instances, trouble=trouble, kept=kept)

    def _failed_wake(self, service: str) -> str:
        """Return how the last wake failed and when; empty if it did not."""
        for wake in self._wakes.last(service, 1):
            if wake.outcome not in {"ready", "waking"}:
                ago_s = max(0.0, time.time() - wake.started_at)  # the clock may have been set
                return f"the last wake failed {ago_s:.0f} s ago: {wake.text}"
        return ""

    def _choice(
        self,
        host: str,
        rank: int | None,
        population: str,
        fits: Mapping[str, Fit | ImageUnusable],
        ranking: Ranking,
    ) -> Choice:
        fit = fits.get(host)
        unusable = fit.message if isinstance(fit, ImageUnusable) else ""
        distance_ms = self._fleet.planner.distance_ms(population, host) if population else None
        return Choice(
            host=host,
            rank=None if unusable else rank,
            image=fit.image.name if isinstance(fit, Fit) else "",
            entry=str(fit.entry) if isinstance(fit, Fit) else "",
            distance_ms=distance_ms,
            why_not=ranking.reasons.get(host, unusable),
        )

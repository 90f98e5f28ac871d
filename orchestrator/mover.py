"""Moves one instance of a service to a host that somebody named: what to do, or why it cannot be.

A decision in values; `rebalancer` carries it out, one step after the other. An instance is migrated
as it runs if its service says so and both hosts can; else another answers there before nobody is
led to it any more. What cannot move is left as it is.
"""

from collections.abc import Callable, Mapping

from orchestrator.boot import Boots
from orchestrator.changes import Announce, Boot, Changes, Migrate, Stop, Withdraw
from orchestrator.errors import EdgewakeError
from orchestrator.fleet import Fleet
from orchestrator.migrating import Migrator
from orchestrator.model import Instance, InstanceState, Service
from orchestrator.model import Migrate as Leaving


class Mover:
    """Says which changes move a service.

    `gains` is how much memory those that sleep on each host could give back (MiB).
    """

    def __init__(
        self,
        fleet: Fleet,
        boots: Boots,
        migrator: Migrator,
        gains: Callable[[], Mapping[str, int]],
    ) -> None:
        self._fleet = fleet
        self._boots = boots
        self._migrator = migrator
        self._gains = gains

    def movable(self, service: Service, host: str) -> Instance:
        """Return the instance that is to go to a host; raises `EdgewakeError` if none can."""
        name, serving = service.name, self._fleet.serving(service.name)
        there = [each for each in self._fleet.of(name) if host in each.hosts]
        if there:
            raise EdgewakeError(f"{name}: {there[0].name} is on {host} already")
        ready = [each for each in serving if each.state is InstanceState.READY]
        if not ready:
            raise EdgewakeError(
                f"{name} is not awake, so there is nothing to move",
                hint=f"wake it: 'edgewake explain {name}' shows where that would be",
            )
        closed = self._fleet.closed()
        instance = min(ready, key=lambda each: (each.host not in closed, each.name))
        if instance.host in self._fleet.lost():
            raise EdgewakeError(f"{name}: {instance.host}, where it is, cannot be reached")
        return instance

    def migration(self, service: Service, instance: Instance, host: str) -> Changes | None:
        """Return the migration of an instance as it runs; None if another is to be booted instead.

        Raises `EdgewakeError` if its service would have it migrated only, and it cannot be.
        """
        if service.migrate is Leaving.BOOT:
            return None
        if why := self._migrator.obstacle(instance, service, host):
            if service.migrate is Leaving.LIVE_ONLY:
                raise EdgewakeError(f"{service.name} cannot be migrated to {host}: {why}")
            return None
        change = Migrate(service.name, instance.name, instance.host, host)
        return Changes((change,), why=f"{service.name} moves to {host} as it runs")

    def boot(self, service: Service, instance: Instance, host: str) -> Changes:
        """Return what has another instance answer on a host, and then ends this one.

        Raises `EdgewakeError` that says why the host cannot take it.
        """
        if why := self._why_not(service, host):
            raise EdgewakeError(
                f"{host} cannot take {service.name}: {why}",
                hint=f"'edgewake explain {service.name}' shows where it could be",
            )
        here = (service.name, instance.name, instance.host)
        changes = Changes(
            (
                Boot(service.name, host),
                Announce(service.name, host),
                Withdraw(*here),
                Stop(*here),
            ),
            why=f"{service.name} moves to {host}",
        )
        changes.raise_if_unsafe()
        return changes

    def _why_not(self, service: Service, host: str) -> str:
        """Return why one more instance cannot be on a host, empty if it can.

        Memory that sleepers would give up counts as free.
        """
        unfit = self._boots.unfit(service)
        ranking = self._fleet.ranking(service.name, "", unfit)
        room = self._fleet.needed_mib(service.name, self._gains(), unfit)
        if host in ranking.hosts or host in room:
            return ""
        return ranking.reasons.get(host, "it is not in the lab")

"""What is going to be done, as values: made by `planner`, shown, checked, and then carried out.

The order of the list is the safety: a move is *boot there, announce there, withdraw here, stop
here*, so that clients always have an instance that answers (make before break).
"""

from collections.abc import Iterator
from dataclasses import dataclass

from orchestrator.errors import UnsafeChanges


@dataclass(frozen=True, slots=True)
class Boot:
    """Start an instance of a service on a host and wait until it answers.

    `why` is empty unless it is there for a while only, or comes from such a place.
    """

    service: str
    host: str
    why: str = ""

    def __str__(self) -> str:
        return f"boot      {self.service} on {self.host}" + (f": {self.why}" if self.why else "")


@dataclass(frozen=True, slots=True)
class Announce:
    """Lead clients of a service to its instance on a host."""

    service: str
    host: str

    def __str__(self) -> str:
        return f"announce  {self.service} on {self.host}"


@dataclass(frozen=True, slots=True)
class Withdraw:
    """Stop leading clients to an instance; with no name, to the one of the service on the host."""

    service: str
    instance: str
    host: str

    def __str__(self) -> str:
        return f"withdraw  {self.instance or self.service} on {self.host}"


@dataclass(frozen=True, slots=True)
class Stop:
    """End an instance; with no name, the one of the service on the host."""

    service: str
    instance: str
    host: str

    def __str__(self) -> str:
        return f"stop      {self.instance or self.service} on {self.host}"


@dataclass(frozen=True, slots=True)
class Migrate:
    """Send an instance to another host as it runs; clients are led to it all the while."""

    service: str
    instance: str
    host: str
    to: str

    def __str__(self) -> str:
        return f"migrate   {self.instance} from {self.host} to {self.to}"


Change = Boot | Announce | Withdraw | Stop | Migrate


@dataclass(frozen=True, slots=True)
class Changes:
    """An ordered list of changes, with the reason for the whole.

    `left` names services of which an instance stays where the plan does not want it, since it could
    only move if something were stopped before it runs elsewhere.
    """

    items: tuple[Change, ...] = ()
    why: str = ""
    left: tuple[str, ...] = ()

    def __iter__(self) -> Iterator[Change]:
        return iter(self.items)

    def __len__(self) -> int:
        return len(self.items)

    def __str__(self) -> str:
        return "\n".join(str(change) for change in self.items) or "nothing to change"

    def raise_if_unsafe(self) -> None:
        """Raise `UnsafeChanges` if clients would be led to nothing in the middle of the list.

        An instance may only be stopped after it was withdrawn, and a service that is being moved
        must be announced elsewhere before it is withdrawn.
        """
        withdrawn: set[tuple[str, str, str]] = set()
        announced: set[str] = set()
        moving = {change.service for change in self.items if isinstance(change, Boot)}
        for change in self.items:
            match change:
                case Announce(service=service):
                    announced.add(service)
                case Withdraw(service=service, instance=instance, host=host):
                    if service in moving and service not in announced:
                        raise UnsafeChanges(f"{instance} would be withdrawn before {service} moved")
                    withdrawn.add((service, instance, host))
                case Stop(service=service, instance=instance, host=host):
                    if (service, instance, host) not in withdrawn:
                        raise UnsafeChanges(f"{instance} would be stopped while clients use it")
                case Boot() | Migrate():
                    pass

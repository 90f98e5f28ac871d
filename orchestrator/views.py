"""What control tells people who look on: values for the API, the command line and the dashboard."""

from dataclasses import dataclass
from hashlib import sha256

from orchestrator.changes import Changes
from orchestrator.drain import DrainReport
from orchestrator.model import Capacity, Host, Instance, Rung, Service
from orchestrator.present import Worth
from placement.problem import Plan

TAG_LENGTH = 16  # hexadecimal digits: nobody forges one, they only have to differ


@dataclass(frozen=True, slots=True)
class HostStatus:
    """A host as seen now; `free` is None and `lost` says why while it cannot be reached.

    `refused` says why nothing is placed there although it can be reached: its network is not right.
    `drain` is None unless the host is being drained, or has been. `guard` is how traffic to its
    guests that sleep is noticed, or why it is not. `spares` counts the anonymous instances there.
    """

    host: Host
    used: Capacity
    free: Capacity | None
    lost: str = ""
    refused: str = ""
    drain: DrainReport | None = None
    guard: str = ""
    spares: int = 0


@dataclass(frozen=True, slots=True)
class ServiceStatus:
    """A service as seen now. `state` is asleep (healthy), waking, awake or stopping.

    `idle` says why an awake one is still up; `trouble` how its last wake failed, how often in a
    row its instances were lost, or why one cannot be ended. `wanted` is how many copies it should
    have now, `has` how many clients are led to, and `scale`, unless empty, by what load. It is
    `kept` if it sleeps where the warm plan keeps it.
    """

    service: Service
    state: str
    instances: tuple[Instance, ...]
    idle: str = ""
    trouble: str = ""
    wanted: int = 0
    has: int = 0
    scale: str = ""
    kept: bool = False

    @property
    def rung(self) -> Rung:
        """The rung from which a wake would be shortest."""
        rungs = (instance.rung for instance in self.instances)
        return min(rungs, key=lambda rung: rung.depth, default=Rung.COLD)


@dataclass(frozen=True, slots=True)
class Status:
    """Everything at a glance."""

    lab: str
    dns: str  # where queries are answered: address:port
    hosts: tuple[HostStatus, ...]
    services: tuple[ServiceStatus, ...]


@dataclass(frozen=True, slots=True)
class Choice:
    """A host as a place to wake a service now.

    `rank` counts from 1, the best; None if `why_not` says why it is out. `image` and `entry` are
    what it would boot and by which way in, empty if it can run none of the service's images.
    `distance_ms` is the one-way latency to whoever asks, None if nobody was named.
    """

    host: str
    rank: int | None
    image: str = ""
    entry: str = ""
    distance_ms: float | None = None
    why_not: str = ""


@dataclass(frozen=True, slots=True)
class Proposal:
    """A placement of everything and the changes that lead to it.

    `now` is what the placement that runs now is worth beside it; None where nothing runs.
    """

    plan: Plan
    changes: Changes
    now: Worth | None = None

    @property
    def tag(self) -> str:
        """A digest of the changes: the same as long as the same would be done, and left."""
        return sha256(repr(self.changes).encode()).hexdigest()[:TAG_LENGTH]

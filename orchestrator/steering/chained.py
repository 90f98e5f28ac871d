"""Steers by chains: from routes to the passages that `chains.ChainPaths` sets in the kernel."""

import logging
from collections.abc import Callable, Sequence
from threading import Lock, Timer
from typing import Protocol

from orchestrator.errors import CannotNetwork
from orchestrator.model import ChainFunction, Endpoint, Lab, Service
from orchestrator.steering.base import Route
from orchestrator.steering.chains import MACHINE, Passage, Station
from orchestrator.steering.functions import Function, Intercept

AGAIN_S = 5.0  # after the kernel refused something

log = logging.getLogger(__name__)


class Paths(Protocol):
    """What sets passages; see `chains.ChainPaths`."""

    def set(self, passages: Sequence[Passage]) -> None:
        """Lead packets by exactly these."""
        ...


class ChainSteering:
    """Leads packets for the service at the end of a chain through the functions before it.

    `lab` tells the lab in use, `endpoints_of` where a service answers, be it led to or not,
    `namespace_of` the network namespace of an instance (None: it has none), and `entries` the
    routers at which clients of a lab enter its network. While the end of a chain is awake and a
    function is not, the chain is closed: packets then go nowhere, and not past that function.
    What the kernel refuses is tried again every `again_s`.
    """

    def __init__(
        self,
        paths: Paths,
        lab: Callable[[], Lab],
        *,
        endpoints_of: Callable[[str], Sequence[Endpoint]],
        namespace_of: Callable[[str], str | None],
        entries: Callable[[Lab], tuple[Station, ...]] = lambda _lab: (),
        again_s: float = AGAIN_S,
    ) -> None:
        self._paths = paths
        self._lab = lab
        self._endpoints_of = endpoints_of
        self._namespace_of = namespace_of
        self._entries = entries
        self._again_s = again_s
        self._lock = Lock()
        self._entered: tuple[Lab | None, tuple[Station, ...]] = (None, ())
        self._worlds: dict[Endpoint, str] = {}  # namespaces of those that answered last time
        self._wanted: tuple[Passage, ...] | None = None  # None: there never was a chain
        self._trouble = ""
        self._timer: Timer | None = None
        self._closed = False

    def set(self, routes: Sequence[Route]) -> None:  # noqa: ARG002 - also what nobody is led to
        """Steer anew; what the kernel refuses is logged, for a `set` never raises."""
        lab = self._lab()
        with self._lock:
            if not lab.chains and self._wanted is None:
                return
            passages = self._passages(lab)
            if passages != self._wanted or self._trouble:
                self._wanted = passages
                self._tell()

    def close(self) -> None:
        """Leave the passages: the instances go on, and so does what leads to them."""
        with self._lock:
            self._closed = True
            if self._timer is not None:
                self._timer.cancel()

    def _tell(self) -> None:
        try:
            self._paths.set(self._wanted or ())
        except CannotNetwork as error:
            if str(error) != self._trouble:
                log.warning("%s", error)
            self._trouble = str(error)
            self._try_again_later()
        else:
            self._trouble = ""

    def _try_again_later(self) -> None:
        if self._closed or (self._timer is not None and self._timer.is_alive()):
            return
        self._timer = Timer(self._again_s, self._try_again)
        self._timer.daemon = True
        self._timer.start()

    def _try_again(self) -> None:
        with self._lock:
            self._timer = None
            if self._trouble and not self._closed:
                self._tell()

    # --- what is wanted -----------------------------------------------------------------------

    def _passages(self, lab: Lab) -> tuple[Passage, ...]:
        services = {service.name: service for service in lab.services}
        gateways = {host.name: host.network.gateway for host in lab.hosts}
        if lab.chains and self._entered[0] is not lab:
            self._entered = lab, self._entries(lab)
        found = []
        before, self._worlds = self._worlds, {}
        for chain in lab.chains:
            ends = [next(iter(self._endpoints_of(name)), None) for name in chain.functions]
            last, first = ends[-1], ends[0]
            for end in filter(None, ends):
                if world := before.get(end) or self._namespace_of(end.instance):
                    self._worlds[end] = world
            if last is None or last not in self._worlds:
                continue  # it sleeps, or is no process, as in memory
            stations = [
                station
                for name, end in zip(chain.functions, ends, strict=True)
                if end and (station := self._station(services[name], end))
            ]
            gateway = gateways.get(first.host) if first else None
            whole = gateway is not None and len(stations) == len(ends)
            here = Station(MACHINE, gateway or last.address)
            found.append(
                Passage(
                    chain.name,
                    (here, *self._entered[1]),
                    tuple(stations) if whole else (),
                    last.address,
                    last.address6,
                )
            )
        return tuple(found)

    def _station(self, service: Service, end: Endpoint) -> Station | None:
        does, namespace = service.function, self._worlds.get(end)
        if namespace is None:
            return None
        function = function_of(does) if does is not None else None
        return Station(namespace, end.address, end.address6, function)


def function_of(wanted: ChainFunction) -> Function:
    """Return what a function does to packets, from how the lab has it."""
    return Function(wanted.admits, tuple(Intercept(rule, port) for rule, port in wanted.intercepts))

"""Virtual routers without a kernel: what was set is remembered, for tests and large scenarios.

It does what `base.Routers` asks, also the refusals, but for routes: it installs none, since
`paths` answers which way packets would go, and `send` counts them along it. A `MemoryKernel`
outlives its back ends, as a machine does, and has the levers that make a call fail, or end, in the
middle.
"""

import threading
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from itertools import pairwise

from orchestrator.errors import CannotNetwork
from orchestrator.network import (
    Found,
    LinkEngine,
    LinkState,
    Network,
    PortCounters,
    Stub,
    VirtualRouter,
)
from orchestrator.routers.base import Done, Progress
from orchestrator.routers.layout import engine_for
from orchestrator.routing import Paths

Thing = VirtualRouter | LinkState | Stub


class Killed(BaseException):
    """Stands for the end of the process: whoever was at work takes nothing back."""


@dataclass
class Estate:
    """What one owner has on a machine, by name, and the network that was last wanted whole."""

    network: Network = field(default_factory=lambda: Network(""))
    things: dict[str, Thing] = field(default_factory=dict)
    counters: dict[tuple[str, str], PortCounters] = field(default_factory=dict)


@dataclass
class MemoryKernel:
    """A machine. `foreign` are names (of a network, of a router or stub) that nobody may use.

    `fail_in` and `die_in` are levers: after so many more steps, one fails, or its caller is no
    more.
    """

    bridges: set[str] = field(default_factory=set)
    foreign: set[tuple[str, str]] = field(default_factory=set)
    engines: dict[LinkEngine, str] = field(default_factory=lambda: dict.fromkeys(LinkEngine, ""))
    fail_in: int | None = None
    die_in: int | None = None
    estates: dict[tuple[str, str], Estate] = field(default_factory=lambda: defaultdict(Estate))
    lock: threading.RLock = field(default_factory=threading.RLock)

    def step(self) -> None:
        """Let the levers do what they are set to."""
        if self.die_in == 0:
            self.die_in = None
            raise Killed
        if self.fail_in == 0:
            self.fail_in = None
            raise CannotNetwork("virtual network: it was to fail here")
        self.die_in = None if self.die_in is None else self.die_in - 1
        self.fail_in = None if self.fail_in is None else self.fail_in - 1


class MemoryRouters:
    """The routers of one owner on one machine in memory; `machine` is its name in networks."""

    def __init__(self, owner: str, kernel: MemoryKernel | None = None, machine: str = "") -> None:
        self._kernel = kernel or MemoryKernel()
        self._key = owner, machine
        self._machine = machine
        self._paths: tuple[Network, Paths] | None = None

    # --- the contract -----------------------------------------------------------------------------

    def set(self, wanted: Network, progress: Progress | None = None) -> Done:
        """See `base.Routers.set`; no routes are made, so none are counted."""
        with self._kernel.lock:
            things = dict(self._things(wanted))
            self._refuse(wanted, things)
            before = dict(self._estate.things)
            try:
                done = self._change(things, progress or (lambda _what, _done, _all: None))
            except CannotNetwork:
                self._estate.things = before
                raise
            self._estate.network = wanted
            return done

    def found(self) -> Found:
        """See `base.Routers.found`."""
        with self._kernel.lock:
            things = [thing for _, thing in sorted(self._estate.things.items())]
            return Found(
                routers=tuple(each.name for each in things if isinstance(each, VirtualRouter)),
                links=tuple(each for each in things if isinstance(each, LinkState)),
                stubs=tuple(each.name for each in things if isinstance(each, Stub)),
            )

    def counters(self) -> tuple[PortCounters, ...]:
        """See `base.Routers.counters`."""
        with self._kernel.lock:
            return tuple(
                self._estate.counters.get((router, peer), PortCounters(router, peer))
                for thing in self._estate.things.values()
                for router, peer in _ports(thing)
                if router in self._estate.things
            )

    def engines(self) -> dict[LinkEngine, str]:
        """See `base.Routers.engines`."""
        return dict(self._kernel.engines)

    def close(self) -> None:
        """See `base.Routers.close`."""

    # --- instead of packets -----------------------------------------------------------------------

    def paths(self) -> Paths:
        """Return what answers questions about ways through the network that was set last."""
        with self._kernel.lock:
            network = self._estate.network
            if self._paths is None or self._paths[0] is not network:
                self._paths = network, Paths(network)
            return self._paths[1]

    def send(self, origin: str, target: str, packets: int = 1, size: int = 100) -> bool:
        """Send packets from a router or stub to another; return whether there is a way."""
        with self._kernel.lock:
            first, last = self._router(origin), self._router(target)
            path = self.paths().path(first, last)
            if not path:
                return False
            way = [*([origin] * (origin != first)), *path, *([target] * (target != last))]
            for here, there in pairwise(way):
                self._count(here, there, tx_packets=packets, tx_bytes=packets * size)
                self._count(there, here, rx_packets=packets, rx_bytes=packets * size)
            return True

    # --- how --------------------------------------------------------------------------------------

    @property
    def _estate(self) -> Estate:
        return self._kernel.estates[self._key]

    def _things(self, wanted: Network) -> Iterator[tuple[str, Thing]]:
        """Yield what is to be on this machine, in the order in which it is made."""
        machines = {router.name: router.machine for router in wanted.routers}
        yield from (
            (router.name, router) for router in wanted.routers if router.machine == self._machine
        )
        for link in wanted.links:
            if self._machine in {machines[link.a], machines[link.b]}:
                engine = engine_for(link, wanted.engine, self._kernel.engines)
                yield link.name, LinkState(link, engine)
        yield from (
            (stub.name, stub) for stub in wanted.stubs if machines[stub.router] == self._machine
        )

    def _refuse(self, wanted: Network, things: dict[str, Thing]) -> None:
        for name, thing in things.items():
            if (wanted.name, name) in self._kernel.foreign:
                raise CannotNetwork(f"{name}: there is one that is not this edgewake's")
            bridge = thing.bridge if isinstance(thing, Stub) else ""
            if bridge and bridge not in self._kernel.bridges:
                raise CannotNetwork(f"stub {name}: there is no bridge {bridge} on this machine")

    def _change(self, wanted: dict[str, Thing], progress: Progress) -> Done:
        there = self._estate.things
        made = [name for name in wanted if name not in there]
        changed = [name for name in wanted if name in there and there[name] != wanted[name]]
        removed = [name for name in reversed(there) if name not in wanted]
        steps = [*made, *changed, *removed]
        for number, name in enumerate(steps):
            self._kernel.step()
            if name in wanted:
                there[name] = wanted[name]
            else:
                for port in _ports(there.pop(name)):
                    self._estate.counters.pop(port, None)
            progress("routers, links and stubs", number + 1, len(steps))
        return Done(tuple(sorted(made)), tuple(sorted(changed)), tuple(sorted(removed)))

    def _router(self, name: str) -> str:
        thing = self._estate.things.get(name)
        return thing.router if isinstance(thing, Stub) else name

    def _count(self, router: str, peer: str, **more: int) -> None:
        old = self._estate.counters.get((router, peer), PortCounters(router, peer))
        summed = {name: getattr(old, name) + number for name, number in more.items()}
        self._estate.counters[router, peer] = replace(old, **summed)


def _ports(thing: Thing) -> Iterator[tuple[str, str]]:
    if isinstance(thing, LinkState):
        yield thing.link.a, thing.link.b
        yield thing.link.b, thing.link.a
    elif isinstance(thing, Stub):
        yield thing.router, thing.name

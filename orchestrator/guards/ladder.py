"""Which guards a host gets: all that this machine can run for it, found out when it is opened.

Where this machine is the guests' router, packets from elsewhere and from itself are guarded
(`routed`), and on their bridge those of their neighbours (`bridged`). Where it only bridges, the
second is all there is.
"""

import threading
from collections.abc import Callable, Sequence
from ipaddress import IPv4Address
from pathlib import Path

from orchestrator.errors import CannotGuard
from orchestrator.guards.base import Asked, Guard, Guarded, Listener
from orchestrator.guards.bridged import BridgedGuard
from orchestrator.guards.routed import RoutedGuard
from orchestrator.model import BRIDGE, GuestNetwork, Host


def open_guard(host: Host, listener: Listener) -> Guard:
    """Open the guards of a host that is this machine; raises `CannotGuard` that says why not."""
    joined = JoinedGuards(listener)
    why_not = []
    for make in (_routed, _bridged):
        try:
            joined.add(make(host, joined))
        except CannotGuard as error:
            why_not.append(error)
    if not joined.how:
        raise why_not[0]
    return joined


def _routed(host: Host, joined: "JoinedGuards") -> Guard:
    return RoutedGuard(host, joined.listen)


def _bridged(host: Host, joined: "JoinedGuards") -> Guard:
    return BridgedGuard(host.name, joined.device or _bridge_of(host.network), joined.listen)


def _bridge_of(network: GuestNetwork) -> str:
    """Return the bridge that a lab file names, if it is one of this machine; else the name."""
    names = (network.bridge, network.name.removeprefix(BRIDGE))
    there = (name for name in names if name and Path(f"/sys/class/net/{name}/bridge").exists())
    return next(there, network.name)


class JoinedGuards:
    """Several guards of one host as one."""

    def __init__(self, listener: Listener) -> None:
        self.how = ""
        self.device = ""
        self._guards: list[Guard] = []
        self._listener = listener
        self._lock = threading.Lock()
        self._asked: set[IPv4Address] = set()

    def add(self, guard: Guard) -> None:
        """Join one more."""
        self._guards.append(guard)
        self.how = ", ".join(each.how for each in self._guards)
        self.device = self.device or guard.device

    def listen(self, asked: Asked) -> None:
        """Pass on the first that is heard of an address."""
        with self._lock:
            known = asked.guarded.address in self._asked
            self._asked.add(asked.guarded.address)
        if not known:
            self._listener(asked)

    def set(self, guarded: Sequence[Guarded]) -> None:
        """Guard exactly these; each guard is asked, also after one that could not."""
        with self._lock:
            self._asked &= {each.address for each in guarded}
        failed = []
        for guard in self._guards:
            try:
                guard.set(guarded)
            except CannotGuard as error:
                failed.append(error)
        if failed:
            raise failed[0]

    def release(self, address: IPv4Address) -> None:
        """Let what is held go on."""
        self._each(address, lambda guard: guard.release(address))

    def refuse(self, address: IPv4Address) -> None:
        """Drop what is held, and go on guarding."""
        self._each(address, lambda guard: guard.refuse(address))

    def close(self) -> None:
        """Guard nothing."""
        for guard in self._guards:
            guard.close()

    def _each(self, address: IPv4Address, tell: Callable[[Guard], None]) -> None:
        with self._lock:  # first: a packet that comes right after a guard was told is passed on
            self._asked.discard(address)
        for guard in self._guards:
            tell(guard)

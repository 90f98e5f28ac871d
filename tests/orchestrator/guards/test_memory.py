"""The guard without packets keeps the contract of guards."""

from collections.abc import Callable
from ipaddress import IPv4Address

from orchestrator.guards.base import Asked, Guard, Guarded
from orchestrator.guards.memory import MemoryGuard
from orchestrator.model import mac_of
from tests.contracts.guard import HoldingGuardContract


class TestMemory(HoldingGuardContract):
    def make(self, listener: Callable[[Asked], None]) -> Guard:
        return MemoryGuard(listener)

    def thing(self, number: int) -> Guarded:
        address = IPv4Address("10.0.0.0") + number
        return Guarded("web", address, mac_of(address))

    def send(self, guard: Guard, guarded: Guarded) -> None:
        assert isinstance(guard, MemoryGuard)
        guard.send(guarded.address)

    def delivered(self, guard: Guard, guarded: Guarded) -> int:
        assert isinstance(guard, MemoryGuard)
        return len(guard.delivered.get(guarded.address, []))

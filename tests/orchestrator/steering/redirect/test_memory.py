"""The redirector that remembers keeps the contract."""

import pytest

from orchestrator.steering.redirect.base import Redirector
from orchestrator.steering.redirect.memory import MemoryKernel, MemoryRedirector
from tests.contracts.redirector import OWNER, RedirectorContract


class TestMemory(RedirectorContract):
    @pytest.fixture(autouse=True)
    def kernel(self) -> MemoryKernel:
        self._kernel = MemoryKernel({"in", "one", "two"})
        return self._kernel

    def make(self, owner: str = OWNER) -> Redirector:
        return MemoryRedirector(owner, self._kernel)

    def state(self) -> object:
        return len(self._kernel.touched)

    def remake(self, device: str) -> None:
        """Nothing changes: devices have no numbers here."""
        assert device in self._kernel.devices

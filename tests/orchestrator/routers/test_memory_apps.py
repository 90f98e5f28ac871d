"""Programs in memory do what the contract asks."""

import pytest

from orchestrator.routers.memory_apps import MemoryApps
from tests.contracts.apps import AppsContract


class TestMemoryApps(AppsContract):
    @pytest.fixture(autouse=True)
    def _routers(self) -> None:
        self.routers = {"r1", "r2"}

    def make(self) -> MemoryApps:
        return MemoryApps(
            lambda: self.routers,
            {
                "echo": lambda argv: (" ".join(argv[1:]).encode() + b"\n", 0),
                "false": lambda _argv: (b"", 1),
            },
        )

    def lose(self, router: str) -> None:
        self.routers.remove(router)

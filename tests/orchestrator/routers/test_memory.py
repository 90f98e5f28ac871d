"""The memory back end keeps the contract, and answers questions about ways."""

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from orchestrator.network import Network, VirtualLink
from orchestrator.routers.memory import Killed, MemoryKernel, MemoryRouters
from tests.contracts.routers import RoutersContract, square, with_link


class MemoryRig:
    """A machine in memory."""

    network = "lab"
    bridge = "br0"
    stride = 1

    def __init__(self) -> None:
        self.kernel = MemoryKernel(bridges={self.bridge})

    def routers(self, owner: str = "", machine: str = "") -> MemoryRouters:
        return MemoryRouters(owner, self.kernel, machine)

    def reaches(self, wanted: Network, origin: str, target: str, version: int = 4) -> bool:
        routers = self.routers()
        return routers.send(origin, target) and routers.send(target, origin)

    @contextmanager
    def failing(self, steps: int) -> Iterator[None]:
        self.kernel.fail_in = steps
        yield
        self.kernel.fail_in = None

    def killed(self, wanted: Network, steps: int) -> bool:
        self.kernel.die_in = steps
        try:
            self.routers().set(wanted)
        except Killed:
            return True
        finally:
            self.kernel.die_in = None
        return False

    def make_foreign(self, wanted: Network, name: str) -> None:
        self.kernel.foreign.add((wanted.name, name))

    def has_foreign(self, wanted: Network, name: str) -> bool:
        return (wanted.name, name) in self.kernel.foreign


@pytest.fixture
def rig() -> MemoryRig:
    return MemoryRig()


class TestMemoryRouters(RoutersContract):
    """The contract, with questions instead of packets."""


def test_ways_follow_weights_and_links_that_are_up(rig: MemoryRig) -> None:
    routers = rig.routers()
    routers.set(square(rig.network))
    assert routers.paths().path("r1", "r4") == ("r1", "r2", "r4")
    routers.set(with_link(square(rig.network), VirtualLink("r2", "r4", weight=9)))
    assert routers.paths().path("r1", "r4") == ("r1", "r3", "r4")
    assert routers.paths().cost("r1", "r4") == 4.5


def test_packets_are_counted_along_their_way(rig: MemoryRig) -> None:
    routers = rig.routers()
    routers.set(square(rig.network))
    assert routers.send("people", "r4", packets=10, size=200)
    counted = {(each.router, each.peer): each for each in routers.counters()}
    assert counted["r1", "people"].rx_packets == 10
    assert counted["r2", "r4"].tx_bytes == 2000
    assert counted["r1", "r3"].tx_packets == 0
